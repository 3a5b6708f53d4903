"""What the gateway promises of its time and its memory, whatever its clients and its engine do; over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Final, cast

import pytest
import pytest_twisted
from twisted.internet.defer import ensureDeferred
from twisted.internet.tcp import Connection

from brunix_twisted.api.streaming import AnswerProducer
from brunix_twisted.engine import retry
from endpoints import CHAT, COMPLETIONS, GENERATE, Streamed, asking, streamed, whole_text
from fake_reactor import LIMIT_S
from gateways import RunningGateway, in_thread, run_gateway, stop_gateway, waiting_bytes
from log_lines import LogLines, log_lines
from scripted_engine import ScriptedEngine, script
from stream_clients import (
    HANG,
    Client,
    call,
    ended,
    every_path,
    expect_answer,
    expect_busy,
    streamed_and_whole,
    unchunked,
    until,
)
from wire import sse_comments, sse_events

Serve = Callable[..., Coroutine[Any, Any, RunningGateway]]
Clients = Callable[..., Client]

UNAVAILABLE: Final = {"status": "UNAVAILABLE"}


@pytest_twisted.async_yield_fixture
async def serve(engine: ScriptedEngine) -> AsyncIterator[Serve]:
    """Starts gateways in front of the scripted engine."""
    running: list[RunningGateway] = []

    async def start(**settings: Any) -> RunningGateway:  # noqa: ANN401 - as in Settings
        running.append(await run_gateway(grpc_target=engine.target, drain_s=0.0, **settings))
        return running[-1]

    yield start
    for gateway in running:
        await stop_gateway(gateway)


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Makes clients, and closes their sockets at the end."""
    made: list[Client] = []

    def connect(gateway: RunningGateway, **arguments: Any) -> Client:  # noqa: ANN401 - as in Client
        made.append(Client(gateway, **arguments))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def log() -> Iterator[LogLines]:
    with log_lines() as lines:
        yield lines
    assert lines.errors == []


# All workers hang.


@pytest_twisted.ensureDeferred
async def test_told_while_every_worker_hangs(serve: Serve, engine: ScriptedEngine, clients: Clients) -> None:
    """A supervisor restarts a gateway that only has much to do, or an editor finds no model there."""
    gateway = await serve(thread_workers=3, queue_size=2)
    for _ in range(5):
        clients(gateway).ask(CHAT, asking(CHAT, script(HANG)))
    await call(engine, 2)
    await until(lambda: gateway.service._admission.waiting == 2)  # noqa: SLF001 - who waits shows in nothing else
    for path in ("/health", "/health/live", "/v1/models", "/v1/models/brunix", "/api/tags", "/api/ps", "/api/version"):
        reply = await gateway.ask("GET", path)
        assert reply.status == 200, path
    expect_busy(CHAT, await gateway.ask("POST", CHAT, json=asking(CHAT, "hello")))
    assert len(engine.calls) == 3


@every_path
@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_nobody_waits_for_ever(
    serve: Serve, engine: ScriptedEngine, clients: Clients, path: str, *, stream: bool
) -> None:
    """A client that has waited too long for its turn is not told so in its own dialect, or is asked for still."""
    gateway = await serve(thread_workers=1, queue_timeout_s=0.1)
    clients(gateway).ask(CHAT, asking(CHAT, script(HANG)))
    await call(engine)
    expect_busy(path, await gateway.ask("POST", path, json=asking(path, "hello", stream=stream)))
    assert len(engine.calls) == 1


@pytest_twisted.ensureDeferred
async def test_nobody_waits_for_ever_with_signs_of_life(serve: Serve, engine: ScriptedEngine, clients: Clients) -> None:
    """A client that got signs of life while it waited for its turn gets nothing else."""
    gateway = await serve(thread_workers=1, queue_timeout_s=0.2, heartbeat_s=0.05)
    clients(gateway).ask(CHAT, asking(CHAT, script(HANG)))
    await call(engine)
    reply = await gateway.ask("POST", CHAT, json=asking(CHAT, "hello"))
    assert (reply.status, len(sse_comments(reply.body)) > 0) == (200, True)
    assert sse_events(reply.body)[-1]["error"]["code"] == "overloaded"
    assert not streamed(CHAT, reply.body).complete


# The engine says nothing.


@every_path
@pytest_twisted.ensureDeferred
async def test_the_first_token_is_late(serve: Serve, engine: ScriptedEngine, path: str, log: LogLines) -> None:
    """A client waits for ten minutes in front of an engine that hangs, and its worker with it."""
    gateway = await serve(thread_workers=1, first_token_timeout_s=0.1)
    reply = await gateway.ask("POST", path, json=asking(path, script("", HANG)), headers={"X-Request-Id": "late"})
    assert reply.status == 504
    assert reply.headers["x-should-retry"] == "false"
    assert "did not begin to answer in time" in reply.body.decode()
    assert any("late" in line and "no first token" in line for line in log.texts)
    # The worker is free. A whole answer has no first token, which would have to come in time here too.
    reply = await gateway.ask("POST", path, json=asking(path, "hello", stream=False))
    assert whole_text(path, reply.json()) == "hello "
    # On a busy machine the first call may have been given up before it reached the engine.
    for asked in engine.calls[:-1]:
        assert await ended(asked)


@pytest_twisted.ensureDeferred
async def test_the_first_token_is_late_after_signs_of_life(serve: Serve) -> None:
    """A client that got signs of life while the engine hangs takes their end for the end of an answer."""
    gateway = await serve(first_token_timeout_s=0.3, heartbeat_s=0.05)
    reply = await gateway.ask("POST", COMPLETIONS, json=asking(COMPLETIONS, script(HANG)))
    assert (reply.status, len(sse_comments(reply.body)) > 0) == (200, True)
    assert sse_events(reply.body)[-1]["error"]["code"] == "engine_timeout"
    assert not streamed(COMPLETIONS, reply.body).complete


@pytest_twisted.ensureDeferred
async def test_a_whole_answer_has_no_first_token(serve: Serve, engine: ScriptedEngine) -> None:
    """A whole answer, whose first word is its last, is ended before its deadline."""
    gateway = await serve(first_token_timeout_s=0.1)
    question = asking(GENERATE, script({"wait": "go"}, "text"), stream=False)
    whole = ensureDeferred(gateway.ask("POST", GENERATE, json=question))
    await call(engine)
    # Asked later, and late already.
    late = await gateway.ask("POST", GENERATE, json=asking(GENERATE, script(HANG)))
    assert late.status == 504
    engine.go("go")
    assert whole_text(GENERATE, (await whole).json()) == "text"


# The engine is away.


@every_path
@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_asked_a_second_time(serve: Serve, engine: ScriptedEngine, path: str, *, stream: bool) -> None:
    """A client is told to try again what the gateway could have tried again itself."""
    gateway = await serve()
    reply = await gateway.ask("POST", path, json=asking(path, script({"first": UNAVAILABLE}, "answer"), stream=stream))
    assert reply.status == 200
    if stream:
        assert streamed(path, reply.body) == Streamed("answer", complete=True, error=None)
    else:
        assert whole_text(path, reply.json()) == "answer"
    assert len(engine.calls) == 2


@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_the_engine_is_restarted(
    serve: Serve, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    """A gateway has to be restarted with its engine, or the first client after that has to try again."""
    gateway = await serve()
    await expect_answer(gateway)
    await in_thread(engine.stop)
    for _ in range(3):
        reply = await gateway.ask("POST", CHAT, json=asking(CHAT, "hello", stream=stream))
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.json()["error"]["code"] == "engine_unavailable"
        assert (await gateway.ask("GET", "/health")).status == 503
    # On a machine that has nothing else to do it takes a tenth of the time there is.
    monkeypatch.setattr(retry, "RECONNECT_S", LIMIT_S)
    again = ScriptedEngine(engine.target)
    try:
        await expect_answer(gateway)
    finally:
        await in_thread(again.stop)


# The client reads slowly, or no more.


async def slow_client(clients: Clients, gateway: RunningGateway) -> Client:
    """Connect a client for which the system keeps next to nothing, so that the gateway has to."""
    client = clients(gateway, receive_bytes=4096)
    connections = gateway.service._site.connections  # noqa: SLF001 - what the system keeps is set on the gateway's side too
    await until(lambda: len(connections) == 1)
    (connection,) = connections
    cast("Connection", connection.transport).getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return client


@pytest_twisted.ensureDeferred
async def test_the_worker_is_free_when_the_answer_fits(serve: Serve, engine: ScriptedEngine, clients: Clients) -> None:
    """A client on a slow line keeps others waiting, though the engine has long answered it."""
    gateway = await serve(thread_workers=1)
    client = await slow_client(clients, gateway)
    client.ask(GENERATE, asking(GENERATE, script({"repeat": ["x" * 10_000, 80]})))
    asked = await call(engine)
    assert await in_thread(asked.finished.wait, LIMIT_S)
    await expect_answer(gateway)
    (entry,) = gateway.service._completion.in_flight.entries  # noqa: SLF001 - that it is still to be read shows in nothing else
    answer = entry.answer
    assert isinstance(answer, AnswerProducer)
    assert answer._paused  # noqa: SLF001 - likewise
    _, _, body_bytes = (await client.read_all()).partition(b"\r\n\r\n")
    assert streamed(GENERATE, unchunked(body_bytes)) == Streamed("x" * 800_000, complete=True, error=None)


@pytest_twisted.ensureDeferred
async def test_memory_behind_a_reader_that_stopped(serve: Serve, engine: ScriptedEngine, clients: Clients) -> None:
    """A client that stops reading a long answer costs the gateway all of its memory."""
    buffer_bytes, text_bytes = 65_536, 10_100
    gateway = await serve(buffer_bytes=buffer_bytes)
    client = await slow_client(clients, gateway)
    client.ask(CHAT, asking(CHAT, script({"repeat": ["x" * 10_000, 10_000]})))
    asked = await call(engine)
    answers = gateway.service._completion.in_flight.entries  # noqa: SLF001 - the memory is nowhere else

    def full() -> bool:
        (answer,) = (entry.answer for entry in answers)
        assert isinstance(answer, AnswerProducer)
        relay = answer._relay  # noqa: SLF001 - likewise
        return answer._paused and relay is not None and waiting_bytes(relay.call) >= buffer_bytes  # noqa: SLF001 - likewise

    await until(lambda: answers and full())
    (answer,) = (entry.answer for entry in answers)
    assert isinstance(answer, AnswerProducer)
    # Time enough for the worker to go on, if it could.
    await expect_answer(gateway)
    assert answer._relay  # noqa: SLF001 - likewise
    assert waiting_bytes(answer._relay.call) < buffer_bytes + text_bytes  # noqa: SLF001 - likewise
    assert len(answer._unsent) < 65_536 + text_bytes  # noqa: SLF001 - likewise
    # The engine has far more to say, and nobody takes it.
    assert not asked.finished.is_set()
    client.reset()
    assert await ended(asked)
    assert not asked.finished.is_set()


@every_path
@pytest_twisted.ensureDeferred
async def test_a_reader_that_stopped_is_cut_off(
    serve: Serve, engine: ScriptedEngine, clients: Clients, log: LogLines, path: str
) -> None:
    """A client that stops reading keeps a worker, and the engine at work, for ten minutes."""
    gateway = await serve(thread_workers=1, stall_timeout_s=0.2, buffer_bytes=65_536)
    client = await slow_client(clients, gateway)
    client.ask(path, asking(path, script({"repeat": ["x" * 10_000, 10_000]})))
    asked = await call(engine)
    assert await ended(asked)
    assert not asked.finished.is_set()
    await expect_answer(gateway)
    with suppress(ConnectionResetError):
        await client.read_all()
    # What is left is the beginning of an answer that nobody can take for a whole one.
    assert client.received.startswith(b"HTTP/1.1 200 ")
    assert not client.received.endswith(b"\r\n0\r\n\r\n")
    assert any("disconnected, because its client has read nothing for 0.2 s" in line for line in log.texts)


@pytest_twisted.ensureDeferred
async def test_a_reader_that_stopped_after_the_engine_ended(
    serve: Serve, engine: ScriptedEngine, clients: Clients, log: LogLines
) -> None:
    """A client that stops reading an answer that is all there keeps its memory for ever."""
    gateway = await serve(stall_timeout_s=0.2)
    client = await slow_client(clients, gateway)
    client.ask(CHAT, asking(CHAT, script({"repeat": ["x" * 10_000, 80]})))
    asked = await call(engine)
    assert await in_thread(asked.finished.wait, LIMIT_S)
    await log.until("disconnected, because")
    with suppress(ConnectionResetError):
        await client.read_all()
    assert b"[DONE]" not in client.received
    assert json.dumps("stop").encode() not in client.received
    await until(lambda: not gateway.service._site.connections)  # noqa: SLF001 - the connection is gone on this side too
