"""OpenAI's own package: what only it offers for Responses."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from providers.openai_sdk import Responses
from questions import FOLLOW_UP, KEY_FACT, QUESTION, URL, collect, conversation, resolve, tag

CLIENTS = ["responses"]

streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


async def ask(client: Responses, *, stream: bool = False, **parameters: object) -> tuple[Any, str]:
    """Return the response and the session that it belongs to."""
    raw = await resolve(
        client.client(URL).responses.with_raw_response.create(model="brunix", stream=stream, **parameters)
    )
    parsed = await resolve(raw.parse())
    return (await collect(parsed))[-1].response if stream else parsed, raw.headers["x-session-id"]


async def test_text_input(client: Responses) -> None:
    """The input can be a text instead of messages."""
    response, _ = await ask(client, input=QUESTION)
    assert KEY_FACT in response.output_text


async def test_stream_helper(client: Responses) -> None:
    """The package's stream helper returns a response."""
    manager = client.client(URL).responses.stream(model="brunix", input=QUESTION)
    if client.asynchronous:
        async with manager as stream:
            events = await collect(stream)
            response = await stream.get_final_response()
    else:
        with manager as stream:
            events = await collect(stream)
            response = stream.get_final_response()
    assert KEY_FACT in response.output_text
    assert response.output_text == "".join(
        event.delta for event in events if event.type == "response.output_text.delta"
    )


async def test_ignored_parameters(client: Responses) -> None:
    """Parameters and tools without effect are named in a header."""
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
    raw = await resolve(
        client.client(URL).responses.with_raw_response.create(
            model="brunix", input=QUESTION, instructions="Be brief", temperature=0.5, tools=[tool]
        )
    )
    assert set(raw.headers["x-brunix-ignored"].split(", ")) == {"system", "temperature", "tools"}
    assert KEY_FACT in (await resolve(raw.parse())).output_text


@streamed_or_whole
@pytest.mark.parametrize("store", [True, False], ids=["stored", "not stored"])
async def test_previous_response_id(client: Responses, *, store: bool, stream: bool) -> None:
    """A response to a previous response is in its session and context."""
    # Unique, because a session can be taken over by another client that presents the same conversation.
    response, session = await ask(client, input=f"{QUESTION} {tag()}", store=store, stream=stream)
    assert KEY_FACT in response.output_text
    for _ in range(2):
        first = response.id
        response, kept = await ask(client, input=FOLLOW_UP, previous_response_id=first, store=store, stream=stream)
        assert KEY_FACT in response.output_text
        assert (kept, response.previous_response_id) == (session, first)
    alone, other = await ask(client, input=FOLLOW_UP, store=store, stream=stream)
    assert KEY_FACT not in alone.output_text
    assert other != session


@streamed_or_whole
async def test_output_as_input(client: Responses, *, stream: bool) -> None:
    """A conversation that contains the output of earlier responses stays in its session and context."""
    messages = conversation(f"{QUESTION} {tag()}")
    response, session = await ask(client, input=messages, store=False, stream=stream)
    for _ in range(2):
        messages = [*messages, *response.output, *conversation(FOLLOW_UP)]
        response, kept = await ask(client, input=messages, store=False, stream=stream)
        assert (KEY_FACT in response.output_text, kept) == (True, session)


async def test_stored_response(client: Responses) -> None:
    """A response can be retrieved and deleted."""
    responses = client.client(URL).responses
    response = await resolve(responses.create(model="brunix", input=QUESTION, metadata={"ticket": "4711"}))
    retrieved = await resolve(responses.retrieve(response.id))
    assert retrieved.model_dump() == response.model_dump()
    assert retrieved.metadata == {"ticket": "4711"}
    await resolve(responses.delete(response.id))
    for request in (responses.retrieve, responses.delete):
        with pytest.raises(openai.NotFoundError):
            await resolve(request(response.id))


async def test_response_that_is_not_stored(client: Responses) -> None:
    """A response with store=false cannot be retrieved."""
    responses = client.client(URL).responses
    response = await resolve(responses.create(model="brunix", input=QUESTION, store=False))
    with pytest.raises(openai.NotFoundError):
        await resolve(responses.retrieve(response.id))
