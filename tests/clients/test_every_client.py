"""What every client of the table in ``providers`` can rely on."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import pytest
from providers import INSTALLED, Answer, Cut, Provider, Refusal, provider
from questions import (
    CANCELLED,
    FAILS_IN_THE_MIDDLE,
    FOLLOW_UP,
    HEARTBEAT_URL,
    KEY_FACT,
    MANY,
    NUMBERS,
    PAUSES,
    QUESTION,
    SCRIPTED_URL,
    URL,
    collect,
    conversation,
    engine_saw,
    hanging,
    python_output,
    resolve,
    script,
    tag,
)

streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


async def answer(client: Provider, url: str, messages: list[Any], *, stream: bool, **parameters: object) -> Answer:
    """Ask, and return the complete answer."""
    asked = client.ask(url, messages, stream=stream, **parameters)
    return client.streamed(await collect(asked)) if stream else client.whole(await resolve(asked))


def check(error: BaseException, attributes: Mapping[str, object]) -> None:
    """Compare the attributes of an error; ``...`` means any value but an empty one."""
    for name, expected in attributes.items():
        value = getattr(error, name)
        assert value if expected is ... else value == expected, f"{name}: {value}"


async def test_whole(client: Provider) -> None:
    """An answer has its text, finish reason and usage."""
    text, finish, output_tokens = client.whole(await resolve(client.ask(URL, conversation(QUESTION))))
    assert KEY_FACT in text
    assert finish == client.finish
    assert not client.reports_usage or (output_tokens or 0) > MANY


async def test_streamed(client: Provider) -> None:
    """A streamed answer arrives in several pieces, and has its finish reason and usage."""
    pieces = await collect(client.ask(URL, conversation(QUESTION), stream=True))
    text, finish, output_tokens = client.streamed(pieces)
    assert KEY_FACT in text
    assert client.text_pieces(pieces) > MANY
    assert finish == client.finish
    assert not client.reports_usage or (output_tokens or 0) > MANY


@streamed_or_whole
async def test_cut(client: Provider, cut: Cut, *, stream: bool) -> None:
    """An answer ends at its stop text or maximum length, and the finish reason says so."""
    cut_answer = await answer(client, SCRIPTED_URL, NUMBERS, stream=stream, **cut.parameters)
    assert (cut_answer.text, cut_answer.finish) == (cut.text, cut.finish)


@streamed_or_whole
async def test_refused(client: Provider, refusal: Refusal, *, stream: bool) -> None:
    """A request that fails raises the exception that the package documents for it."""
    request = {"messages": conversation(QUESTION)} | dict(refusal.changes)
    with pytest.raises(refusal.error) as raised:
        await collect(client.ask(refusal.url, stream=stream, **request))
    check(raised.value, refusal.attributes)


async def test_no_retry(client: Provider) -> None:
    """A call that failed in the engine is not repeated."""
    word = tag()
    retries = {"max_retries": 2} if client.retries else {}
    with pytest.raises(client.error):
        await resolve(client.ask(SCRIPTED_URL, conversation(script({"status": "INTERNAL"}, word)), **retries))
    assert (await engine_saw(word))["calls"] == 1


async def test_cancelled(client: Provider) -> None:
    """Closing a stream cancels the engine's call."""
    word = tag()
    stream = await resolve(client.ask(SCRIPTED_URL, hanging(word), stream=True))
    pieces = await collect(stream, max_pieces=client.pieces_before_text + 1, asynchronous=client.asynchronous)
    assert word.strip() in client.streamed(pieces).text
    await client.cancel(stream)
    del stream
    if client.leaves_streams_to_gc:
        gc.collect()
    assert await engine_saw(word) == CANCELLED


async def test_fails_in_the_middle(client: Provider) -> None:
    """A failure in the middle of a stream raises an error after the text so far, without a finish reason."""
    pieces: list[Any] = []
    with pytest.raises(client.error) as raised:
        await collect(client.ask(SCRIPTED_URL, FAILS_IN_THE_MIDDLE, stream=True), into=pieces)
    check(raised.value, client.error_attributes)
    partial = client.streamed(pieces)
    assert (partial.text, partial.finish) == ("one two ", None)


async def test_heartbeats(client: Provider) -> None:
    """Heartbeats while the engine is silent do not change a stream."""
    assert (await answer(client, HEARTBEAT_URL, PAUSES, stream=True)).text == "one two"


@streamed_or_whole
async def test_conversation(client: Provider, *, stream: bool) -> None:
    """A follow-up is answered in the context of its conversation, although the client sends no session id."""

    async def ask(*turns: str) -> str:
        return (await answer(client, URL, conversation(*turns), stream=stream)).text

    question = f"{QUESTION} {tag()}"
    first = await ask(question)
    assert KEY_FACT in first
    assert KEY_FACT in await ask(question, first, FOLLOW_UP)
    assert KEY_FACT not in await ask(FOLLOW_UP)


DOCUMENTED = [documented for name in INSTALLED if (documented := provider(name, asynchronous=False).documented)]


@pytest.mark.parametrize(("documented", "answers"), DOCUMENTED, ids=[name for name, _ in DOCUMENTED])
def test_documented(documented: str, answers: int) -> None:
    """The program in docs/clients.md prints its answers."""
    assert python_output(documented).count(KEY_FACT) >= answers
