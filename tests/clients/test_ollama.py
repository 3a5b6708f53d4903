"""Ollama's own package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import ollama
import pytest
from asked import (
    BROKEN_OFF,
    DOWN_URL,
    FOLLOW_UP,
    KEY_FACT,
    MANY,
    QUESTION,
    SCRIPTED_URL,
    URL,
    answers_of,
    asking,
    engine_saw,
    now,
    pieces,
    script,
    tag,
)

Client = ollama.Client | ollama.AsyncClient


@pytest.fixture(params=[ollama.Client, ollama.AsyncClient], ids=["sync", "async"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Make a client of either kind."""
    clients: list[Client] = []

    def client(url: str) -> Client:
        clients.append(request.param(host=url))
        return clients[-1]

    yield client
    for made in clients:
        await now(made.close())


def text_of(parts: list[Any]) -> str:
    return "".join(part.message.content or "" for part in parts)


async def test_models(make: Callable[..., Any]) -> None:
    """A program that lets its user choose a model would show none, or not say what it can do."""
    client = make(URL)
    (listed,) = (await now(client.list())).models
    assert listed.model == "brunix:latest"
    shown = await now(client.show("brunix"))
    assert shown.capabilities == ["completion"]
    assert shown.modelinfo["general.architecture"] == listed.details.family
    (running,) = (await now(client.ps())).models
    assert running.model == "brunix:latest"


@pytest.mark.parametrize("model", ["brunix", "brunix:latest"])
async def test_whole(make: Callable[..., Any], model: str) -> None:
    """An answer at once would lack its text, its end or its counts."""
    answer = await now(make(URL).chat(model=model, messages=asking(QUESTION)))
    assert KEY_FACT in answer.message.content
    assert (answer.done, answer.done_reason, answer.model) == (True, "stop", model)
    assert answer.eval_count > MANY
    assert answer.prompt_eval_count > MANY
    assert answer.total_duration >= answer.eval_duration > 0


async def test_streamed(make: Callable[..., Any]) -> None:
    """A streamed answer would come in one piece, or without its end and its counts."""
    parts = await pieces(make(URL).chat(model="brunix", messages=asking(QUESTION), stream=True))
    assert KEY_FACT in text_of(parts)
    assert len(parts) > MANY
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count > MANY


async def test_prompts(make: Callable[..., Any]) -> None:
    """A program that completes prompts would get nothing, whole or streamed."""
    client = make(URL)
    assert KEY_FACT in (await now(client.generate(model="brunix", prompt=QUESTION))).response
    parts = await pieces(client.generate(model="brunix", prompt=QUESTION, stream=True))
    assert KEY_FACT in "".join(part.response for part in parts)
    assert len(parts) > MANY


async def test_load_and_unload(make: Callable[..., Any]) -> None:
    """A program that warms the model up would fail, or ask the engine an empty question."""
    client = make(DOWN_URL)
    assert (await now(client.generate(model="brunix"))).done_reason == "load"
    assert (await now(client.chat(model="brunix", messages=[], keep_alive=0))).done_reason == "unload"


CUTS: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"stop": ["three"]}, "one two ", "stop"),
    ({"num_predict": 1}, "one ", "length"),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("options", "text", "reason"), CUTS, ids=[str(cut[0]) for cut in CUTS])
async def test_cut(make: Callable[..., Any], options: dict[str, Any], text: str, reason: str, *, stream: bool) -> None:
    """An answer would go on after its stop or its length, or not say why it ended."""
    messages = asking(script("one ", "two ", "three ", "four"))
    asked = make(SCRIPTED_URL).chat(model="brunix", messages=messages, options=options, stream=stream)
    parts = await pieces(asked) if stream else [await now(asked)]
    assert (text_of(parts), parts[-1].done_reason) == (text, reason)


REFUSED: Final[list[tuple[str, str, dict[str, Any], int]]] = [
    ("unknown model", URL, {"model": "gpt-7"}, 404),
    ("only a picture", URL, {"messages": [{"role": "user", "content": "", "images": [b"PNG"]}]}, 400),
    ("engine down", DOWN_URL, {}, 503),
    ("engine busy", SCRIPTED_URL, {"messages": asking(script({"status": "RESOURCE_EXHAUSTED"}))}, 429),
    ("engine fails", SCRIPTED_URL, {"messages": asking(script({"status": "INTERNAL"}))}, 502),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("url", "parameters", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_refused(
    make: Callable[..., Any], url: str, parameters: dict[str, Any], status: int, *, stream: bool
) -> None:
    """A program could not tell why it got no answer, or would take the failure for an answer."""
    request = {"model": "brunix", "messages": asking(QUESTION), "stream": stream} | parameters
    with pytest.raises(ollama.ResponseError) as raised:
        await pieces(make(url).chat(**request))
    assert raised.value.status_code == status
    assert raised.value.error


async def test_not_offered(make: Callable[..., Any]) -> None:
    """A program that pulls or embeds would read a page of HTML."""
    with pytest.raises(ollama.ResponseError, match="not offered"):
        await now(make(URL).pull("brunix"))
    with pytest.raises(ollama.ResponseError, match="not offered"):
        await now(make(URL).embed(model="brunix", input="Hi"))


async def test_broken_off_by_the_user(make: Callable[..., Any]) -> None:
    """The engine would go on writing an answer that nobody reads."""
    word = tag()
    stream = await now(
        make(SCRIPTED_URL).chat(
            model="brunix", messages=asking(script(word, "two ", "three ", {"hang": True})), stream=True
        )
    )
    assert word in text_of(await pieces(stream, at_most=2))
    await now(stream.aclose() if hasattr(stream, "aclose") else stream.close())
    assert await engine_saw(word) == BROKEN_OFF


async def test_fails_in_the_middle(make: Callable[..., Any]) -> None:
    """Half an answer would pass for a whole one, or be lost."""
    parts: list[Any] = []
    with pytest.raises(ollama.ResponseError):
        await pieces(
            make(SCRIPTED_URL).chat(
                model="brunix", messages=asking(script("one ", "two ", {"status": "INTERNAL"})), stream=True
            ),
            into=parts,
        )
    assert text_of(parts) == "one two "
    assert not any(part.done for part in parts)


async def test_a_silent_engine(make: Callable[..., Any]) -> None:
    """The signs of life of a stream whose engine thinks would disturb it."""
    messages = asking(script({"sleep": 1}, "one ", {"sleep": 1}, "two"))
    assert text_of(await pieces(make(SCRIPTED_URL).chat(model="brunix", messages=messages, stream=True))) == "one two"


async def test_every_line_break(make: Callable[..., Any]) -> None:
    """Text with one of Unicode's line breaks would end a stream: the package cuts lines at each of them."""
    odd = "a\u2028b\u2029c\u0085d\r\ne"
    parts = await pieces(make(SCRIPTED_URL).chat(model="brunix", messages=asking(script(odd)), stream=True))
    assert text_of(parts) == odd


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_conversation(make: Callable[..., Any], *, stream: bool) -> None:
    """A follow-up would be answered as if nothing had been said before."""
    client = make(URL)

    async def ask(*turns: str) -> str:
        asked = client.chat(model="brunix", messages=asking(*turns), stream=stream)
        return text_of(await pieces(asked) if stream else [await now(asked)])

    question = f"{QUESTION} {tag()}"
    answer = await ask(question)
    assert KEY_FACT in answer
    assert KEY_FACT in await ask(question, answer, FOLLOW_UP)
    assert KEY_FACT not in await ask(FOLLOW_UP)


def test_as_documented() -> None:
    """What docs/clients.md says would not work."""
    assert answers_of("ollama-python").count(KEY_FACT) >= 1
