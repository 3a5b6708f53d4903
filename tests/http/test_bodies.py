"""Request bodies: their memory, where they are parsed, and what becomes of the other clients meanwhile."""

from __future__ import annotations

import gzip
import json
import resource
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from brunix_twisted.dialects import openai
from brunix_twisted.http.bodies import UNCOUNTED_BYTES, Bodies
from brunix_twisted.model import CompletionRequest
from endpoints import CHAT, PATHS, asking, busy_status, error_in, error_schema, whole_text
from fake_reactor import LIMIT_S, FakeReactor
from gateways import RunningGateway, in_thread, run_gateway, stop_gateway
from log_lines import log_lines
from raw_http import pass_time, replies
from received import Received, connect
from scripted_engine import ScriptedEngine, script
from supervised import Told, port_of, supervised
from wire import check

LARGE_BYTES: Final = 200_000
PADDING: Final = " " * LARGE_BYTES


def large(path: str, query: str, **more: object) -> bytes:
    """Write the body of a question that is parsed on another thread."""
    return json.dumps(asking(path, query, stream=False, **more)).encode() + PADDING.encode()


def unfinished(path: str, size_bytes: int, *, chunked: bool) -> bytes:
    """Write a request of which the last byte is missing."""
    body = b"x" * (size_bytes - 1)
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size_bytes
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + length + b"\r\n\r\n"
    return head + (b"%x\r\n%b\r\n" % (len(body), body) if chunked else body)


def held_bytes(gateway: RunningGateway) -> int:
    return gateway.service._site.bodies.held_bytes  # noqa: SLF001 - it shows in nothing else


async def until_held(gateway: RunningGateway, size_bytes: int) -> None:
    """Return once the gateway holds so much."""
    while held_bytes(gateway) != size_bytes:
        await deferLater(cast("IReactorTime", reactor), 0)


# How much.


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
@pytest_twisted.ensureDeferred
async def test_unfinished_bodies(engine: ScriptedEngine, path: str, *, chunked: bool) -> None:
    """Bodies that never end leave room for small questions, and for large ones an answer that says what is wrong."""
    gateway = await run_gateway(
        grpc_target=engine.target, drain_s=0.0, max_body_bytes=300_000, max_bodies_bytes=300_000
    )
    waiting = [await connect(gateway.url, unfinished(path, LARGE_BYTES, chunked=chunked)) for _ in range(2)]
    await until_held(gateway, 2 * (LARGE_BYTES - 1 - UNCOUNTED_BYTES))
    with log_lines() as log:
        client = await connect(gateway.url, unfinished(path, LARGE_BYTES, chunked=chunked))
        await client.ended
    (reply,) = replies(client.data)
    assert (reply.status, reply.headers["retry-after"]) == (busy_status(path), "1")
    check(error_schema(path), reply.json())
    assert "too many large requests" in error_in(path, reply.json())
    assert any(line.startswith(f"POST {path} {busy_status(path)} ") for line in log.of_requests())
    small = await gateway.ask("POST", path, json=asking(path, "small", stream=False))
    assert whole_text(path, small.json()) == "small "
    # What is refused, and what is left, makes room again.
    waiting[0].leave()
    await until_held(gateway, LARGE_BYTES - 1 - UNCOUNTED_BYTES)
    reply = await gateway.ask("POST", path, data=large(path, "large"))
    assert whole_text(path, reply.json()) == "large "
    waiting[1].leave()
    await until_held(gateway, 0)
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_refused_before_it_is_sent(engine: ScriptedEngine) -> None:
    """A client that asks first is not told to send a large body for which there is no room."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, max_body_bytes=300_000, max_bodies_bytes=1)
    waiting = await connect(gateway.url, unfinished(CHAT, 300_000, chunked=False))
    await until_held(gateway, 300_000 - 1 - UNCOUNTED_BYTES)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"
    client = await connect(gateway.url, head.encode())
    await client.ended
    assert [reply.status for reply in replies(client.data)] == [503]
    waiting.leave()
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_one_body_always_fits(engine: ScriptedEngine) -> None:
    """A limit for all bodies that is below that for one refuses none that comes alone."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, max_bodies_bytes=1)
    body = large(CHAT, "large").ljust(4_194_304)
    assert (await gateway.ask("POST", CHAT, data=body)).status == 200
    await stop_gateway(gateway)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest_twisted.ensureDeferred
async def test_released_once_parsed(engine: ScriptedEngine, *, stream: bool) -> None:
    """A body takes up no room while its answer is on its way."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, max_body_bytes=300_000, max_bodies_bytes=1)
    query = script("one", {"wait": "the others are answered"}, "two")
    body = json.dumps(asking(CHAT, query, stream=stream)).encode() + PADDING.encode()
    waiting = []
    for number in range(3):
        waiting.append(ensureDeferred(gateway.ask("POST", CHAT, data=body)))
        await in_thread(engine.call, number)
        assert held_bytes(gateway) == 0
    assert (await gateway.ask("POST", CHAT, data=large(CHAT, "more"))).status == 200
    engine.go("the others are answered")
    for answer in waiting:
        assert (await answer).status == 200
    await stop_gateway(gateway)


@pytest.mark.parametrize("body", ["chunked", "with its length"])
def test_no_file_can_be_written(tmp_path: Path, engine: ScriptedEngine, body: str) -> None:
    """A full disk, or none, does not cut off a client with a large request."""
    told = Told(str(tmp_path / "told"))
    data = large(CHAT, "large").ljust(4_000_000)
    with supervised(tmp_path, told, BRUNIX_GRPC_TARGET=engine.target) as process:
        port = port_of(process, told.until("READY")["STATUS"])
        # From now on it writes to any file as it would where /tmp is full: not a byte, and an error.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
        connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        for _ in range(2):
            connection.request("POST", CHAT, iter([data]) if body == "chunked" else data, encode_chunked=True)
            response = connection.getresponse()
            assert response.status == 200
            assert whole_text(CHAT, json.loads(response.read())) == "large "
        connection.close()
    told.close()


# Where they are parsed.


class Held:
    """Holds back the parsing of large chats until the test lets it go on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._go_on = threading.Event()
        self.threads: list[int] = []

    def go_on(self) -> None:
        self._go_on.set()

    def wait(self) -> None:
        self.threads.append(threading.get_ident())
        self.begun.set()
        # Less than the tests' own limit, so that one that waits for this in vain says so.
        self._go_on.wait(LIMIT_S / 4)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held, parse = Held(), openai.Chat.parse

    def slow(chat: openai.Chat, body_bytes: bytes) -> CompletionRequest:
        if b"held" in body_bytes:
            held.wait()
        return parse(chat, body_bytes)

    monkeypatch.setattr(openai.Chat, "parse", slow)
    yield held
    held.go_on()


@pytest.mark.parametrize("compressed", [False, True])
@pytest_twisted.ensureDeferred
async def test_others_are_answered_meanwhile(gateway: RunningGateway, held: Held, *, compressed: bool) -> None:
    """A request that takes long to parse does not stop everything else."""
    data, headers = large(CHAT, "held"), {}
    if compressed:
        data, headers = gzip.compress(data), {"Content-Encoding": "gzip"}
    waiting = ensureDeferred(gateway.ask("POST", CHAT, data=data, headers=headers))
    assert await in_thread(held.begun.wait, LIMIT_S)
    small = await gateway.ask("POST", CHAT, json=asking(CHAT, "small", stream=False))
    assert whole_text(CHAT, small.json()) == "small "
    await pass_time(gateway)
    assert not waiting.called
    held.go_on()
    assert whole_text(CHAT, (await waiting).json()) == "held "


@pytest.mark.parametrize("path", [*PATHS, "/v1/messages/count_tokens", "/api/show"])
@pytest_twisted.ensureDeferred
async def test_large_bodies_have_their_own_thread(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Every endpoint that takes a body leaves the reactor's thread alone with a large one, and keeps a small one."""
    from brunix_twisted.dialects import decode  # noqa: PLC0415 - patched where each dialect finds it

    threads = []
    decoder = decode._decoders  # noqa: SLF001 - every dialect's bodies come through it

    def noted(body_type: Any) -> Any:  # noqa: ANN401 - as the function's own
        threads.append(threading.current_thread())
        return decoder(body_type)

    monkeypatch.setattr(decode, "_decoders", noted)
    asked = CHAT if path.endswith(("tokens", "show")) else path
    body = json.dumps(asking(asked, "hello", stream=False)).encode()
    assert (await gateway.ask("POST", path, data=body)).status == 200
    assert threads == [threading.current_thread()]
    threads.clear()
    assert (await gateway.ask("POST", path, data=body + PADDING.encode())).status == 200
    assert threads
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("path", [*PATHS, "/v1/messages/count_tokens", "/api/show"])
@pytest_twisted.ensureDeferred
async def test_faults_in_large_bodies(gateway: RunningGateway, engine: ScriptedEngine, path: str) -> None:
    """A fault in a large body is reported as it is in a small one."""
    headers = {"X-Request-Id": "fault"}
    small = await gateway.ask("POST", path, data=b'{"model": 5}', headers=headers)
    reply = await gateway.ask("POST", path, data=b'{"model": 5}' + PADDING.encode(), headers=headers)
    assert (reply.status, reply.body) == (small.status, small.body)
    assert reply.status == 400
    assert engine.calls == []


@pytest_twisted.ensureDeferred
async def test_client_leaves_while_its_body_is_parsed(
    gateway: RunningGateway, engine: ScriptedEngine, held: Held
) -> None:
    """The engine is not asked for a client that has gone, and nothing is left behind."""
    body = large(CHAT, "held")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with log_lines() as log:
        clients: list[Received] = [await connect(gateway.url, head.encode() + body) for _ in range(3)]
        assert await in_thread(held.begun.wait, LIMIT_S)
        await until_held(gateway, 3 * (len(body) - UNCOUNTED_BYTES))
        for client in clients:
            client.leave()
        await until_held(gateway, 0)
        held.go_on()
        reply = await gateway.ask("POST", CHAT, data=large(CHAT, "after"))
    assert reply.status == 200
    assert [call.request.query for call in engine.calls] == ["after"]
    assert log.errors == []
    assert sum(" gone " in line for line in log.of_requests()) == 3
    # Only the first was being parsed when they left.
    assert len(held.threads) == 1


@pytest_twisted.ensureDeferred
async def test_stopping_waits_for_what_is_parsed(engine: ScriptedEngine, held: Held) -> None:
    """A question that had arrived before the gateway was stopped is answered, however large it is."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=LIMIT_S)
    waiting = ensureDeferred(gateway.ask("POST", CHAT, data=large(CHAT, "held")))
    assert await in_thread(held.begun.wait, LIMIT_S)
    stopping = gateway.service.stopService()
    await deferLater(cast("IReactorTime", reactor), 0)
    assert not stopping.called
    held.go_on()
    assert whole_text(CHAT, (await waiting).json()) == "held "
    await stopping
    await gateway.pool.closeCachedConnections()


@pytest_twisted.ensureDeferred
async def test_no_thread_can_be_started(
    gateway: RunningGateway, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that has no thread to spare answers large questions too."""
    # The engine's workers are there already.
    assert (await gateway.ask("POST", CHAT, json=asking(CHAT, "first", stream=False))).status == 200

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    body = large(CHAT, "large")
    site = gateway.service._site  # noqa: SLF001 - to fail where it is meant to
    parse = site.bodies.parse

    def without_threads(*arguments: Any) -> Deferred[Any]:  # noqa: ANN401 - as the method's own
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            return parse(*arguments)

    monkeypatch.setattr(site.bodies, "parse", without_threads)
    for _ in range(2):
        reply = await gateway.ask("POST", CHAT, data=body)
        assert whole_text(CHAT, reply.json()) == "large "
    # The thread that comes later finds that all of it has been done.
    monkeypatch.setattr(site.bodies, "parse", parse)
    assert whole_text(CHAT, (await gateway.ask("POST", CHAT, data=body)).json()) == "large "
    assert len(engine.calls) == 4


def test_cancelled_before_its_turn() -> None:
    """A body whose client has gone is not parsed, and what waits for the thread to be idle goes on."""
    fake = FakeReactor()
    bodies = Bodies(fake.as_reactor, 1_000_000)
    first = Held()
    second: list[bytes] = []

    def parse(body_bytes: bytes) -> bytes:
        first.wait()
        return body_bytes

    results: list[object] = []
    bodies.parse(parse, b"first").addBoth(results.append)
    waiting = bodies.parse(second.append, b"second")
    waiting.addErrback(lambda failure: results.append(failure.trap(CancelledError)))
    assert first.begun.wait(LIMIT_S)
    idle = bodies.when_idle()
    waiting.cancel()
    assert results == [CancelledError]
    assert not idle.called
    first.go_on()
    fake.wait()
    assert results == [CancelledError, b"first"]
    assert idle.called
    bodies.stop()
    assert second == []
    assert bodies.when_idle().called
