"""OpenAI's own package, by the Responses API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
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
    tag,
)

Client = openai.OpenAI | openai.AsyncOpenAI

streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


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


def text_of(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def asked(client: Client, *, stream: bool = False, **arguments: Any) -> tuple[Any, str]:  # noqa: ANN401
    """Ask, and return the whole response and the session it was asked in."""
    create: Any = client.responses.with_raw_response.create
    raw = await now(create(model="brunix", stream=stream, **arguments))
    parsed = await now(raw.parse())
    response = (await pieces(parsed))[-1].response if stream else parsed
    return response, raw.headers["x-session-id"]


async def test_whole(make: Callable[..., Any]) -> None:
    """An answer at once would lack its text, its end or its usage."""
    response = await now(make(URL).responses.create(model="brunix", input=QUESTION))
    assert KEY_FACT in response.output_text
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert response.usage.output_tokens > MANY
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


async def test_streamed(make: Callable[..., Any]) -> None:
    """A streamed answer would come in one piece, or its last event would not be the whole of it."""
    events = await pieces(make(URL).responses.create(model="brunix", input=asking(QUESTION), stream=True))
    assert KEY_FACT in text_of(events)
    assert [event.type for event in events].count("response.output_text.delta") > MANY
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert events[-1].response.output_text == text_of(events)
    assert events[-1].response.usage.output_tokens > MANY


async def test_the_stream_helper(make: Callable[..., Any]) -> None:
    """The package's own gathering of a stream would not come to a response."""
    manager = make(URL).responses.stream(model="brunix", input=QUESTION)
    if isinstance(manager, openai.lib.streaming.responses.AsyncResponseStreamManager):
        async with manager as stream:
            events = await pieces(stream)
            response = await stream.get_final_response()
    else:
        with manager as stream:
            events = await pieces(stream)
            response = stream.get_final_response()
    assert response.output_text == text_of(events)
    assert KEY_FACT in response.output_text


@streamed_or_whole
async def test_cut(make: Callable[..., Any], *, stream: bool) -> None:
    """An answer would go on after its length, or not say that it was cut."""
    response, _ = await asked(
        make(SCRIPTED_URL), input=script("one ", "two ", "three"), max_output_tokens=2, stream=stream
    )
    assert (response.output_text, response.status) == ("one two ", "incomplete")
    assert response.incomplete_details.reason == "max_output_tokens"


async def test_what_has_no_effect(make: Callable[..., Any]) -> None:
    """A program's author would look in vain for which of the settings and tools did nothing."""
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
    raw = await now(
        make(URL).responses.with_raw_response.create(
            model="brunix", input=QUESTION, instructions="Be brief", temperature=0.5, tools=[tool]
        )
    )
    assert set(raw.headers["x-brunix-ignored"].split(", ")) == {"instructions", "temperature", "tools"}
    assert KEY_FACT in (await now(raw.parse())).output_text


REFUSED: Final[list[tuple[str, str, dict[str, Any], type[openai.APIStatusError]]]] = [
    ("unknown model", URL, {"model": "gpt-7"}, openai.NotFoundError),
    ("unknown answer", URL, {"previous_response_id": "resp_0"}, openai.NotFoundError),
    ("no input", URL, {"input": []}, openai.BadRequestError),
    ("a conversation", URL, {"conversation": "conv_0"}, openai.BadRequestError),
    ("engine down", DOWN_URL, {}, openai.InternalServerError),
    ("engine busy", SCRIPTED_URL, {"input": script({"status": "RESOURCE_EXHAUSTED"})}, openai.RateLimitError),
    ("engine fails", SCRIPTED_URL, {"input": script({"status": "INTERNAL"})}, openai.InternalServerError),
]


@streamed_or_whole
@pytest.mark.parametrize(("url", "parameters", "error"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_refused(
    make: Callable[..., Any], url: str, parameters: dict[str, Any], error: type[openai.APIStatusError], *, stream: bool
) -> None:
    """A program could not tell why it got no answer, or would take the failure for an answer."""
    request = {"model": "brunix", "input": QUESTION, "stream": stream} | parameters
    with pytest.raises(error) as raised:
        await pieces(make(url, max_retries=0).responses.create(**request))
    assert raised.value.message
    assert raised.value.request_id


async def test_a_failure_for_good_is_not_repeated(make: Callable[..., Any]) -> None:
    """A question that the engine failed over would be asked three times, though it will not be answered."""
    word = tag()
    with pytest.raises(openai.InternalServerError):
        await now(make(SCRIPTED_URL).responses.create(model="brunix", input=script({"status": "INTERNAL"}, word)))
    assert (await engine_saw(word))["calls"] == 1


async def test_broken_off_by_the_user(make: Callable[..., Any]) -> None:
    """The engine would go on writing an answer that nobody reads."""
    word = tag()
    stream = await now(
        make(SCRIPTED_URL).responses.create(
            model="brunix", input=script(word, "two ", "three ", {"hang": True}), stream=True
        )
    )
    # Four events come before the text.
    assert word.strip() in text_of(await pieces(stream, at_most=5))
    await now(stream.close())
    assert await engine_saw(word) == BROKEN_OFF


async def test_fails_in_the_middle(make: Callable[..., Any]) -> None:
    """Half an answer would pass for a whole one, or be lost."""
    events: list[Any] = []
    with pytest.raises(openai.APIError) as raised:
        await pieces(
            make(SCRIPTED_URL).responses.create(
                model="brunix", input=script("one ", "two ", {"status": "INTERNAL"}), stream=True
            ),
            into=events,
        )
    assert text_of(events) == "one two "
    assert raised.value.code == "engine_error"


async def test_a_silent_engine(make: Callable[..., Any]) -> None:
    """The signs of life of a stream whose engine thinks would disturb it."""
    events = await pieces(
        make(SCRIPTED_URL).responses.create(
            model="brunix", input=script({"sleep": 1}, "one ", {"sleep": 1}, "two"), stream=True
        )
    )
    assert text_of(events) == "one two"


@streamed_or_whole
@pytest.mark.parametrize("store", [True, False], ids=["stored", "not stored"])
async def test_goes_on_from_an_answer(make: Callable[..., Any], *, store: bool, stream: bool) -> None:
    """A program that leaves its conversation to the server would be answered without what was said before."""
    client = make(URL)
    response, session = await asked(client, input=QUESTION, store=store, stream=stream)
    assert KEY_FACT in response.output_text
    for _ in range(2):
        first = response.id
        response, kept = await asked(client, input=FOLLOW_UP, previous_response_id=first, store=store, stream=stream)
        assert KEY_FACT in response.output_text
        assert (kept, response.previous_response_id) == (session, first)
    alone, other = await asked(client, input=FOLLOW_UP, store=store, stream=stream)
    assert KEY_FACT not in alone.output_text
    assert other != session


@streamed_or_whole
async def test_sends_the_conversation(make: Callable[..., Any], *, stream: bool) -> None:
    """A program that sends back what it was answered, as it was, would be answered as if nothing had been said."""
    client = make(URL)
    question = f"{QUESTION} {tag()}"
    said = asking(question)
    response, session = await asked(client, input=said, store=False, stream=stream)
    for _ in range(2):
        said = [*said, *response.output, *asking(FOLLOW_UP)]
        response, kept = await asked(client, input=said, store=False, stream=stream)
        assert (KEY_FACT in response.output_text, kept) == (True, session)


async def test_an_answer_again(make: Callable[..., Any]) -> None:
    """A program could not have an earlier answer again, or not have it forgotten."""
    client = make(URL)
    response = await now(client.responses.create(model="brunix", input=QUESTION, metadata={"ticket": "4711"}))
    again = await now(client.responses.retrieve(response.id))
    assert again.model_dump() == response.model_dump()
    assert again.metadata == {"ticket": "4711"}
    await now(client.responses.delete(response.id))
    for ask in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            await now(ask(response.id))


async def test_not_to_be_kept(make: Callable[..., Any]) -> None:
    """An answer that was not to be kept could be had again."""
    client = make(URL)
    response = await now(client.responses.create(model="brunix", input=QUESTION, store=False))
    with pytest.raises(openai.NotFoundError):
        await now(client.responses.retrieve(response.id))


def test_as_documented() -> None:
    """What docs/clients.md says would not work."""
    assert KEY_FACT in answers_of("openai-python-responses")
