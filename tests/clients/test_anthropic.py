"""Anthropic's own package: what only it offers."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from providers import Cut
from providers.anthropic_sdk import Messages, request
from questions import (
    FAILS_IN_THE_MIDDLE,
    FOLLOW_UP,
    FULL_URL,
    KEY_FACT,
    MANY,
    NUMBERS,
    QUESTION,
    SCRIPTED_URL,
    URL,
    collect,
    conversation,
    hanging,
    resolve,
    tag,
)

CLIENTS = ["anthropic"]


async def helper_message(client: Messages, url: str, asked: dict[str, Any], texts: list[str]) -> Any:  # noqa: ANN401
    """Read a stream with the package's helper; return its message."""
    manager = client.client(url).messages.stream(**asked)
    if client.asynchronous:
        async with manager as stream:
            await collect(stream.text_stream, into=texts)
            return await stream.get_final_message()
    with manager as stream:
        await collect(stream.text_stream, into=texts)
        return stream.get_final_message()


async def test_models(client: Messages) -> None:
    """The model can be listed and retrieved; an unknown model is not found."""
    models = client.client(URL).models
    assert [model.id for model in await collect(models.list())] == ["brunix"]
    model = await resolve(models.retrieve("brunix"))
    assert (model.id, model.type) == ("brunix", "model")
    with pytest.raises(anthropic.NotFoundError):
        await resolve(models.retrieve("claude-7"))


async def test_request_id(client: Messages) -> None:
    """A message has the id of its request."""
    message = await resolve(client.ask(URL, conversation(QUESTION)))
    assert message._request_id  # noqa: SLF001 - the package's public name


async def test_stream_helper(client: Messages) -> None:
    """The package's stream helper returns a message."""
    texts: list[str] = []
    message = await helper_message(client, URL, request(conversation(QUESTION)), texts)
    assert len(texts) > MANY
    assert message.content[0].text == "".join(texts)
    assert KEY_FACT in message.content[0].text
    assert (message.stop_reason, message.usage.output_tokens > MANY) == ("end_turn", True)


async def test_stream_helper_cut(client: Messages, cut: Cut) -> None:
    """The package's stream helper reports why an answer ended."""
    message = await helper_message(client, SCRIPTED_URL, request(NUMBERS, **cut.parameters), [])
    answer = client.whole(message)
    assert (answer.text, answer.finish) == (cut.text, cut.finish)


async def test_stream_helper_failure(client: Messages) -> None:
    """The package's stream helper raises an error after the text so far."""
    texts: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as raised:
        await helper_message(client, SCRIPTED_URL, request(FAILS_IN_THE_MIDDLE), texts)
    assert ("".join(texts), raised.value.type) == ("one two ", "api_error")


async def test_count_tokens(client: Messages) -> None:
    """The number of input tokens can be counted before the request, and is the same afterwards."""
    messages = client.client(URL).messages
    asked = {"model": "brunix", "messages": conversation(QUESTION), "system": "Be brief"}
    count = await resolve(messages.count_tokens(**asked))
    message = await resolve(messages.create(**asked, max_tokens=1))
    assert count.input_tokens == message.usage.input_tokens > MANY


async def test_ignored_parameters(client: Messages) -> None:
    """Parameters and tools without effect are named in a header."""
    tool = {"name": "f", "description": "does it", "input_schema": {"type": "object"}}
    asked = request(conversation(QUESTION), system="Be brief", tools=[tool])
    raw = await resolve(client.client(URL).messages.with_raw_response.create(**asked))
    assert set(raw.headers["x-brunix-ignored"].split(", ")) == {"system", "tools"}
    assert KEY_FACT in client.whole(await resolve(raw.parse())).text


async def test_overloaded(client: Messages) -> None:
    """A gateway whose queue is full is reported as overloaded."""
    stream = await resolve(client.ask(FULL_URL, hanging("one "), stream=True))
    await collect(stream, max_pieces=3, asynchronous=client.asynchronous)
    with pytest.raises(anthropic.OverloadedError) as raised:
        await resolve(client.ask(FULL_URL, conversation("Hi")))
    assert (raised.value.status_code, raised.value.type) == (529, "overloaded_error")
    await client.cancel(stream)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_sessions(client: Messages, *, stream: bool) -> None:
    """A conversation stays in its session; the content of earlier answers can be sent as the package returned it."""
    create = client.client(URL).messages.with_raw_response.create
    messages = conversation(f"{QUESTION} {tag()}")
    sessions = set()
    for _ in range(3):
        raw = await resolve(create(**request(messages, stream=stream)))
        answer = await resolve(raw.parse())
        text = client.streamed(await collect(answer)).text if stream else client.whole(answer).text
        assert KEY_FACT in text
        sessions.add(raw.headers["x-session-id"])
        content = text if stream else answer.content
        messages = [*messages, {"role": "assistant", "content": content}, *conversation(FOLLOW_UP)]
    assert len(sessions) == 1
