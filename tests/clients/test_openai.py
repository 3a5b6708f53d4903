"""OpenAI's own package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import openai
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
    shell_answers_of,
    tag,
)

Client = openai.OpenAI | openai.AsyncOpenAI


@pytest.fixture(params=[openai.OpenAI, openai.AsyncOpenAI], ids=["sync", "async"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Make a client of either kind."""
    clients: list[Client] = []

    def client(url: str, **arguments: Any) -> Client:  # noqa: ANN401 - the package's
        clients.append(request.param(base_url=f"{url}/v1", api_key="unused", **arguments))
        return clients[-1]

    yield client
    for made in clients:
        await now(made.close())


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_models(make: Callable[..., Any]) -> None:
    """A program that lets its user choose a model would show none."""
    client = make(URL)
    assert [model.id for model in (await now(client.models.list())).data] == ["brunix"]
    assert (await now(client.models.retrieve("brunix"))).id == "brunix"


async def test_whole(make: Callable[..., Any]) -> None:
    """An answer at once would lack its text, its end or its usage."""
    completion = await now(make(URL).chat.completions.create(model="brunix", messages=asking(QUESTION)))
    assert KEY_FACT in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.completion_tokens > MANY
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


@pytest.mark.parametrize("usage", [True, False], ids=["usage", "no usage"])
async def test_streamed(make: Callable[..., Any], *, usage: bool) -> None:
    """A streamed answer would come in one piece, without its end, or without the usage that was asked for."""
    options = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = await pieces(
        make(URL).chat.completions.create(model="brunix", messages=asking(QUESTION), stream=True, **options)
    )
    assert KEY_FACT in text_of(chunks)
    assert len(chunks) > MANY
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [usage]


async def test_the_stream_helper(make: Callable[..., Any]) -> None:
    """The package's own gathering of a stream would not come to a completion."""
    async_ = isinstance(make(URL), openai.AsyncOpenAI)
    manager = make(URL).chat.completions.stream(model="brunix", messages=asking(QUESTION))
    if async_:
        async with manager as stream:
            completion = await stream.get_final_completion()
    else:
        with manager as stream:
            completion = stream.get_final_completion()
    assert KEY_FACT in completion.choices[0].message.content


async def test_prompts(make: Callable[..., Any]) -> None:
    """A program that still completes prompts would get nothing, whole or streamed."""
    client = make(URL)
    whole = await now(client.completions.create(model="brunix", prompt=QUESTION))
    assert KEY_FACT in whole.choices[0].text
    chunks = await pieces(client.completions.create(model="brunix", prompt=QUESTION, stream=True))
    assert KEY_FACT in "".join(chunk.choices[0].text for chunk in chunks)
    assert len(chunks) > MANY


CUTS: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"stop": "three"}, "one two ", "stop"),
    ({"stop": ["four", " two"]}, "one", "stop"),
    ({"max_tokens": 1}, "one ", "length"),
    ({"max_completion_tokens": 2}, "one two ", "length"),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("parameters", "text", "reason"), CUTS, ids=[str(cut[0]) for cut in CUTS])
async def test_cut(
    make: Callable[..., Any], parameters: dict[str, Any], text: str, reason: str, *, stream: bool
) -> None:
    """An answer would go on after its stop or its length, or not say why it ended."""
    asked = make(SCRIPTED_URL).chat.completions.create(
        model="brunix", messages=asking(script("one ", "two ", "three ", "four")), stream=stream, **parameters
    )
    if stream:
        chunks = await pieces(asked)
        assert (text_of(chunks), chunks[-1].choices[0].finish_reason) == (text, reason)
    else:
        choice = (await now(asked)).choices[0]
        assert (choice.message.content, choice.finish_reason) == (text, reason)


BUSY: Final = asking(script({"status": "RESOURCE_EXHAUSTED"}))
FAILING: Final = asking(script({"status": "INTERNAL"}))
REFUSED: Final[list[tuple[str, str, dict[str, Any], type[openai.APIStatusError]]]] = [
    ("unknown model", URL, {"model": "gpt-7"}, openai.NotFoundError),
    ("no messages", URL, {"messages": []}, openai.BadRequestError),
    ("two answers", URL, {"n": 2}, openai.BadRequestError),
    ("engine down", DOWN_URL, {}, openai.InternalServerError),
    (
        "engine busy",
        SCRIPTED_URL,
        {"messages": asking(script({"status": "RESOURCE_EXHAUSTED"}))},
        openai.RateLimitError,
    ),
    ("engine fails", SCRIPTED_URL, {"messages": asking(script({"status": "INTERNAL"}))}, openai.InternalServerError),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("url", "parameters", "error"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_refused(
    make: Callable[..., Any], url: str, parameters: dict[str, Any], error: type[openai.APIStatusError], *, stream: bool
) -> None:
    """A program could not tell why it got no answer, or would take the failure for an answer."""
    request = {"model": "brunix", "messages": asking(QUESTION), "stream": stream} | parameters
    with pytest.raises(error) as raised:
        await pieces(make(url, max_retries=0).chat.completions.create(**request))
    assert raised.value.message
    assert raised.value.request_id


async def test_a_failure_for_good_is_not_repeated(make: Callable[..., Any]) -> None:
    """A question that the engine failed over would be asked three times, though it will not be answered."""
    word = tag()
    with pytest.raises(openai.InternalServerError):
        await now(
            make(SCRIPTED_URL).chat.completions.create(
                model="brunix", messages=asking(script({"status": "INTERNAL"}, word))
            )
        )
    assert (await engine_saw(word))["calls"] == 1


async def test_broken_off_by_the_user(make: Callable[..., Any]) -> None:
    """The engine would go on writing an answer that nobody reads."""
    word = tag()
    stream = await now(
        make(SCRIPTED_URL).chat.completions.create(
            model="brunix", messages=asking(script(word, "two ", "three ", {"hang": True})), stream=True
        )
    )
    assert word.strip() in text_of(await pieces(stream, at_most=2))
    await now(stream.close())
    assert await engine_saw(word) == BROKEN_OFF


async def test_fails_in_the_middle(make: Callable[..., Any]) -> None:
    """Half an answer would pass for a whole one, or be lost."""
    chunks: list[Any] = []
    with pytest.raises(openai.APIError):
        await pieces(
            make(SCRIPTED_URL).chat.completions.create(
                model="brunix", messages=asking(script("one ", "two ", {"status": "INTERNAL"})), stream=True
            ),
            into=chunks,
        )
    assert text_of(chunks) == "one two "


async def test_a_silent_engine(make: Callable[..., Any]) -> None:
    """The signs of life of a stream whose engine thinks would disturb it."""
    chunks = await pieces(
        make(SCRIPTED_URL).chat.completions.create(
            model="brunix", messages=asking(script({"sleep": 1}, "one ", {"sleep": 1}, "two")), stream=True
        )
    )
    assert text_of(chunks) == "one two"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_conversation(make: Callable[..., Any], *, stream: bool) -> None:
    """A follow-up, from a program that knows no sessions, would be answered as if nothing had been said before."""
    client = make(URL)

    async def ask(*turns: str) -> tuple[str, str]:
        create = client.chat.completions.with_raw_response.create
        raw = await now(create(model="brunix", messages=asking(*turns), stream=stream))
        parsed = await now(raw.parse())
        text = text_of(await pieces(parsed)) if stream else parsed.choices[0].message.content
        return text, raw.headers["x-session-id"]

    question = f"{QUESTION} {tag()}"
    answer, session = await ask(question)
    assert KEY_FACT in answer
    # Another caller with the same question stays apart.
    same, other = await ask(question)
    assert (same, other != session) == (answer, True)
    followed, kept = await ask(question, answer, FOLLOW_UP)
    assert KEY_FACT in followed
    assert kept in {session, other}
    assert KEY_FACT not in (await ask(FOLLOW_UP))[0]
    # The other caller's follow-up gets the other session, and a third one's a new one.
    _, second = await ask(question, answer, FOLLOW_UP)
    assert {kept, second} == {session, other}
    assert (await ask(question, answer, FOLLOW_UP))[1] not in {session, other}


def test_as_documented() -> None:
    """What docs/clients.md says would not work."""
    assert answers_of("openai-python").count(KEY_FACT) >= 1


def test_from_the_environment(tmp_path: Path) -> None:
    """A program that cannot be changed would not find the gateway by the variables in docs/clients.md."""
    program = tmp_path / "program.py"
    program.write_text(
        "import openai\n"
        f"asked = [{{'role': 'user', 'content': {QUESTION!r}}}]\n"
        "print(openai.OpenAI().chat.completions.create(model='brunix', messages=asked).choices[0].message.content)\n"
    )
    assert KEY_FACT in shell_answers_of("openai-environment", tmp_path, "python program.py")
