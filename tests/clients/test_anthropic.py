"""Anthropic's own package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import anthropic
import pytest
from asked import (
    BROKEN_OFF,
    DOWN_URL,
    FOLLOW_UP,
    FULL_URL,
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

Client = anthropic.Anthropic | anthropic.AsyncAnthropic

streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@pytest.fixture(params=[anthropic.Anthropic, anthropic.AsyncAnthropic], ids=["sync", "async"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Make a client of either kind."""
    clients: list[Client] = []

    def client(url: str, **arguments: Any) -> Client:  # noqa: ANN401 - the package's
        clients.append(request.param(base_url=url, api_key="unused", **arguments))
        return clients[-1]

    yield client
    for made in clients:
        await now(made.close())


def request(*turns: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - the package's
    return {"model": "brunix", "max_tokens": 1024, "messages": asking(*turns)} | more


def text_of(events: list[Any]) -> str:
    return "".join(event.delta.text for event in events if event.type == "content_block_delta")


async def gathered(manager: Any, into: list[Any] | None = None) -> Any:  # noqa: ANN401 - the package's, of either kind
    """Read a stream by the package's own helper: its texts, and the message that it makes of them."""
    texts = [] if into is None else into
    if hasattr(manager, "__aenter__"):
        async with manager as stream:
            await pieces(stream.text_stream, into=texts)
            return await stream.get_final_message()
    with manager as stream:
        await pieces(stream.text_stream, into=texts)
        return stream.get_final_message()


async def test_models(make: Callable[..., Any]) -> None:
    """A program that lets its user choose a model would show none."""
    client = make(URL)
    assert [model.id for model in await pieces(client.models.list())] == ["brunix"]
    model = await now(client.models.retrieve("brunix"))
    assert (model.id, model.type) == ("brunix", "model")
    with pytest.raises(anthropic.NotFoundError):
        await now(client.models.retrieve("claude-7"))


async def test_whole(make: Callable[..., Any]) -> None:
    """An answer at once would lack its text, its end, its usage or its request's id."""
    message = await now(make(URL).messages.create(**request(QUESTION)))
    assert KEY_FACT in message.content[0].text
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.output_tokens > MANY
    assert message._request_id  # noqa: SLF001 - so the package calls it


async def test_streamed(make: Callable[..., Any]) -> None:
    """A streamed answer would come in one piece, or without its end or its usage."""
    events = await pieces(make(URL).messages.create(**request(QUESTION, stream=True)))
    assert KEY_FACT in text_of(events)
    assert len(events) > MANY
    assert events[0].message.usage.input_tokens > MANY
    assert (events[-2].delta.stop_reason, events[-1].type) == ("end_turn", "message_stop")
    assert events[-2].usage.output_tokens > MANY


async def test_the_stream_helper(make: Callable[..., Any]) -> None:
    """The package's own gathering of a stream would not come to a message."""
    texts: list[str] = []
    message = await gathered(make(URL).messages.stream(**request(QUESTION)), texts)
    assert len(texts) > MANY
    assert message.content[0].text == "".join(texts)
    assert KEY_FACT in message.content[0].text
    assert (message.stop_reason, message.usage.output_tokens > MANY) == ("end_turn", True)


async def test_counted(make: Callable[..., Any]) -> None:
    """A program would be told of another number of tokens beforehand than afterwards."""
    client = make(URL)
    asked = {"model": "brunix", "messages": asking(QUESTION), "system": "Be brief"}
    count = await now(client.messages.count_tokens(**asked))
    message = await now(client.messages.create(**asked, max_tokens=1))
    assert count.input_tokens == message.usage.input_tokens > MANY


CUTS: Final[list[tuple[dict[str, Any], tuple[str, str, str | None]]]] = [
    ({"stop_sequences": ["three"]}, ("one two ", "stop_sequence", "three")),
    ({"stop_sequences": ["four", " two"]}, ("one", "stop_sequence", " two")),
    ({"max_tokens": 1}, ("one ", "max_tokens", None)),
]


@streamed_or_whole
@pytest.mark.parametrize(("parameters", "told"), CUTS, ids=[str(cut[0]) for cut in CUTS])
async def test_cut(
    make: Callable[..., Any], parameters: dict[str, Any], told: tuple[str, str, str | None], *, stream: bool
) -> None:
    """An answer would go on after its stop or its length, or not say why it ended."""
    messages = make(SCRIPTED_URL).messages
    asked = request(script("one ", "two ", "three ", "four"), **parameters)
    message = await gathered(messages.stream(**asked)) if stream else await now(messages.create(**asked))
    assert (message.content[0].text, message.stop_reason, message.stop_sequence) == told


async def test_what_has_no_effect(make: Callable[..., Any]) -> None:
    """A program's author would look in vain for which of the settings and tools did nothing."""
    tool = {"name": "f", "description": "does it", "input_schema": {"type": "object"}}
    raw = await now(make(URL).messages.with_raw_response.create(**request(QUESTION, system="Be brief", tools=[tool])))
    assert set(raw.headers["x-brunix-ignored"].split(", ")) == {"system", "tools"}
    message = await now(raw.parse())
    assert [block.type for block in message.content] == ["text"]
    assert KEY_FACT in message.content[0].text


def failing(status: str) -> dict[str, Any]:
    return {"messages": asking(script({"status": status}))}


REFUSED: Final[list[tuple[str, str, dict[str, Any], tuple[type[anthropic.APIStatusError], int, str]]]] = [
    ("unknown model", URL, {"model": "claude-7"}, (anthropic.NotFoundError, 404, "not_found_error")),
    ("no messages", URL, {"messages": []}, (anthropic.BadRequestError, 400, "invalid_request_error")),
    ("engine down", DOWN_URL, {}, (anthropic.ServiceUnavailableError, 503, "api_error")),
    ("busy", SCRIPTED_URL, failing("RESOURCE_EXHAUSTED"), (anthropic.RateLimitError, 429, "rate_limit_error")),
    ("engine fails", SCRIPTED_URL, failing("INTERNAL"), (anthropic.InternalServerError, 502, "api_error")),
]


@streamed_or_whole
@pytest.mark.parametrize(("url", "parameters", "told"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_refused(
    make: Callable[..., Any],
    url: str,
    parameters: dict[str, Any],
    told: tuple[type[anthropic.APIStatusError], int, str],
    *,
    stream: bool,
) -> None:
    """A program could not tell why it got no answer, or would take the failure for an answer."""
    asked = request(QUESTION, stream=stream) | parameters
    with pytest.raises(told[0]) as raised:
        await pieces(make(url, max_retries=0).messages.create(**asked))
    assert (raised.value.status_code, raised.value.type) == told[1:]
    assert raised.value.request_id


async def test_a_failure_for_good_is_not_repeated(make: Callable[..., Any]) -> None:
    """A question that the engine failed over would be asked three times, though it will not be answered."""
    word = tag()
    with pytest.raises(anthropic.InternalServerError):
        await now(make(SCRIPTED_URL).messages.create(**request(script({"status": "INTERNAL"}, word))))
    assert (await engine_saw(word))["calls"] == 1


async def test_overloaded(make: Callable[..., Any]) -> None:
    """A program could not tell a gateway that has too much to do from one that is broken."""
    client = make(FULL_URL, max_retries=0)
    stream = await now(client.messages.create(**request(script("one ", {"hang": True}), stream=True)))
    await pieces(stream, at_most=3)
    with pytest.raises(anthropic.OverloadedError) as raised:
        await now(client.messages.create(**request("Hi")))
    assert (raised.value.status_code, raised.value.type) == (529, "overloaded_error")
    await now(stream.close())


async def test_broken_off_by_the_user(make: Callable[..., Any]) -> None:
    """The engine would go on writing an answer that nobody reads."""
    word = tag()
    stream = await now(
        make(SCRIPTED_URL).messages.create(**request(script(word, "two ", "three ", {"hang": True}), stream=True))
    )
    # Two events come before the text; the package keeps the ping to itself.
    assert word.strip() in text_of(await pieces(stream, at_most=3))
    await now(stream.close())
    assert await engine_saw(word) == BROKEN_OFF


@pytest.mark.parametrize("helper", [True, False], ids=["helper", "events"])
async def test_fails_in_the_middle(make: Callable[..., Any], *, helper: bool) -> None:
    """Half an answer would pass for a whole one, or be lost."""
    messages = make(SCRIPTED_URL).messages
    asked = request(script("one ", "two ", {"status": "INTERNAL"}))
    came: list[Any] = []
    reading = (
        gathered(messages.stream(**asked), came) if helper else pieces(messages.create(**asked, stream=True), into=came)
    )
    with pytest.raises(anthropic.APIStatusError) as raised:
        await reading
    assert ("".join(came) if helper else text_of(came)) == "one two "
    assert raised.value.type == "api_error"


async def test_a_silent_engine(make: Callable[..., Any]) -> None:
    """The signs of life of a stream whose engine thinks would disturb it."""
    asked = request(script({"sleep": 1}, "one ", {"sleep": 1}, "two"), stream=True)
    assert text_of(await pieces(make(SCRIPTED_URL).messages.create(**asked))) == "one two"


@streamed_or_whole
async def test_a_conversation(make: Callable[..., Any], *, stream: bool) -> None:
    """A follow-up, from a program that knows no sessions, would be answered as if nothing had been said before."""
    client = make(URL)
    said = asking(f"{QUESTION} {tag()}")
    sessions = set()
    for _ in range(3):
        raw = await now(client.messages.with_raw_response.create(**request(messages=said, stream=stream)))
        answer = await now(raw.parse())
        text = text_of(await pieces(answer)) if stream else answer.content[0].text
        assert KEY_FACT in text
        sessions.add(raw.headers["x-session-id"])
        # A whole answer is sent back as the package has it.
        said = [*said, {"role": "assistant", "content": text if stream else answer.content}, *asking(FOLLOW_UP)]
    assert len(sessions) == 1
    alone = await now(client.messages.create(**request(FOLLOW_UP)))
    assert KEY_FACT not in alone.content[0].text


def test_as_documented() -> None:
    """What docs/clients.md says would not work."""
    assert KEY_FACT in answers_of("anthropic-python")
