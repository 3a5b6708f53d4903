"""Signs of life on a stream whose engine is silent, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import pytest
import pytest_twisted
from twisted.internet.defer import ensureDeferred

from endpoints import CHAT, COMPLETIONS, ENDPOINTS, GENERATE, OLLAMA_CHAT, PATHS, asking
from gateways import Reply, RunningGateway, in_thread, run_gateway, stop_gateway
from received import Received
from scripted_engine import ScriptedEngine, script
from wire import check, ndjson_lines, sse_comments, sse_events

OPENAI: Final = (CHAT, COMPLETIONS)
OLLAMA: Final = (OLLAMA_CHAT, GENERATE)

Serve = Callable[..., Coroutine[Any, Any, RunningGateway]]


@pytest_twisted.async_yield_fixture
async def serve(engine: ScriptedEngine) -> AsyncIterator[Serve]:
    """Starts gateways that grow impatient at once."""
    running: list[RunningGateway] = []

    async def start(**settings: Any) -> RunningGateway:  # noqa: ANN401 - as in Settings
        running.append(
            await run_gateway(**({"grpc_target": engine.target, "drain_s": 0.0, "heartbeat_s": 0.02} | settings))
        )
        return running[-1]

    yield start
    for gateway in running:
        await stop_gateway(gateway)


def body_for(path: str, *steps: object, **more: Any) -> dict[str, object]:  # noqa: ANN401 - whatever JSON holds
    """Have the engine do this."""
    return asking(path, script(*steps), **more)


async def begin(gateway: RunningGateway, path: str, *steps: object) -> Received:
    """Ask, and return once the headers are there."""
    response = await gateway.send("POST", path, json=body_for(path, *steps))
    assert response.code == 200
    received = Received()
    response.deliverBody(received)
    return received


def texts(path: str, events: list[dict[str, Any]]) -> list[str]:
    """Read each event's text, the empty ones too."""
    if path in OLLAMA:
        return [event["message"]["content"] if path == "/api/chat" else event["response"] for event in events]
    choices = [choice for event in events for choice in event["choices"]]
    return [choice["delta"].get("content", "") if path == CHAT else choice["text"] for choice in choices]


COMMENT: Final = b": keep-alive\n\n"


@pytest.mark.parametrize("path", OPENAI)
@pytest_twisted.ensureDeferred
async def test_comments(serve: Serve, engine: ScriptedEngine, path: str) -> None:
    """A proxy would take a stream for dead while the engine thinks, or a client would stumble over the sign of life."""
    gateway = await serve()
    received = await begin(gateway, path, {"wait": "beaten"}, "one ", {"wait": "beaten again"}, "two")
    await received.until(COMMENT * 2)
    engine.go("beaten")
    await received.until(b'"one "')
    received.data, before = bytearray(), bytes(received.data)
    await received.until(COMMENT)
    engine.go("beaten again")
    await received.ended
    whole = before + bytes(received.data)
    events = sse_events(whole)
    for event in events:
        check("openai_chat_chunk" if path == CHAT else "openai_completion_chunk", event)
    assert "".join(texts(path, events)) == "one two"
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert set(sse_comments(whole)) == {"keep-alive"}
    assert len(sse_comments(whole)) >= 3
    if path == CHAT:
        # The first event says who speaks, also when a comment came before it.
        assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert sum("role" in event["choices"][0]["delta"] for event in events) == 1


@pytest.mark.parametrize("path", OPENAI)
@pytest_twisted.ensureDeferred
async def test_empty_deltas(serve: Serve, engine: ScriptedEngine, path: str) -> None:
    """A client whose timer counts only events would give up, though the operator chose events."""
    gateway = await serve(heartbeat_form="delta")
    received = await begin(gateway, path, {"wait": "beaten"}, "one ", "two")
    empty = b'"delta":{"content":""}' if path == CHAT else b'"text":""'
    await received.until(empty)
    engine.go("beaten")
    await received.ended
    events = sse_events(bytes(received.data))
    for event in events:
        check("openai_chat_chunk" if path == CHAT else "openai_completion_chunk", event)
    assert sse_comments(bytes(received.data)) == []
    assert "".join(texts(path, events)) == "one two"
    assert len({(event["id"], event["created"]) for event in events}) == 1
    reasons = [event["choices"][0]["finish_reason"] for event in events]
    assert reasons == [None] * (len(events) - 1) + ["stop"]


@pytest.mark.parametrize("form", ["comment", "delta"])
@pytest.mark.parametrize("path", OLLAMA)
@pytest_twisted.ensureDeferred
async def test_empty_pieces(serve: Serve, engine: ScriptedEngine, path: str, form: str) -> None:
    """A client of Ollama's, whose lines know no comments, would stumble over the sign of life."""
    gateway = await serve(heartbeat_form=form)
    received = await begin(gateway, path, {"wait": "beaten"}, "one ", "two")
    empty = b'"content":""},"done":false}\n' if path == "/api/chat" else b'"response":"","done":false}\n'
    await received.until(empty)
    engine.go("beaten")
    await received.ended
    lines = ndjson_lines(bytes(received.data))
    for line in lines:
        check("ollama_chat" if path == "/api/chat" else "ollama_generate", line)
    assert texts(path, lines)[0] == ""
    assert "".join(texts(path, lines)) == "one two"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("step", "status"), [("one", 200), ({"status": "UNAVAILABLE"}, 503)])
@pytest_twisted.ensureDeferred
async def test_a_whole_answer(serve: Serve, engine: ScriptedEngine, path: str, step: object, status: int) -> None:
    """A client that waits for one JSON object would find something before it, or a 200 where the engine failed."""
    gateway = await serve()
    asked = ensureDeferred(gateway.ask("POST", path, json=body_for(path, {"wait": "beaten"}, step, stream=False)))
    await in_thread(engine.call)
    # Once a stream that was asked for later has had its sign of life, the other's time has come and gone.
    later = await begin(gateway, CHAT, {"wait": "seen"})
    await later.until(COMMENT)
    engine.go("beaten")
    reply: Reply = await asked
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert bool(reply.json().get("error")) == (status == 503)
    assert (b"one" in reply.body) == (status == 200)
    engine.go("seen")
    await later.ended


@pytest.mark.parametrize("form", ["comment", "delta"])
@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_a_failure_after_it(serve: Serve, engine: ScriptedEngine, path: str, form: str) -> None:
    """An engine's failure after a long silence would look like an empty answer, or like a connection that broke."""
    gateway = await serve(heartbeat_form=form)
    # The headers alone are a sign of life: nothing else has been said.
    received = await begin(gateway, path, {"wait": "beaten"}, {"status": "UNAVAILABLE"})
    engine.go("beaten")
    await received.ended
    endpoint = ENDPOINTS[path]
    *beats, last = endpoint.events(bytes(received.data))
    error = endpoint.failed(last)
    check(endpoint.schemas[2], error)
    assert not any(map(endpoint.ends, beats))
    assert "".join(map(endpoint.text, beats)) == ""
    assert "unreachable" in str(error)


@pytest_twisted.ensureDeferred
async def test_in_the_queue(serve: Serve, engine: ScriptedEngine) -> None:
    """A user who waits for a place would be given up by the proxy in between."""
    gateway = await serve(thread_workers=1)
    first = await begin(gateway, CHAT, "one", {"wait": "second has begun"})
    second = await begin(gateway, CHAT, "two")
    await second.until(COMMENT)
    assert len(engine.calls) == 1
    engine.go("second has begun")
    await first.ended
    await second.ended
    assert "".join(texts(CHAT, sse_events(bytes(second.data)))) == "two"
