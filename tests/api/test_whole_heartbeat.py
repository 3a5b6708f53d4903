"""Heartbeats before answers that are not streamed, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_twisted

from brunix_twisted.api.streaming import StreamTimeouts
from brunix_twisted.config.settings import Settings
from endpoints import CHAT, COMPLETIONS, ENDPOINTS, PATHS, asking, whole_text
from gateways import RunningGateway, run_gateway, stop_gateway
from raw_http import replies
from received import Received, connect
from scripted_engine import ScriptedEngine, script
from wire import check

# The end of a body in chunks.
END: Final = b"\r\n0\r\n\r\n"
HEARTBEAT: Final = b"\r\n1\r\n \r\n"
SILENT: Final = {"wait": "go"}


@pytest_twisted.async_yield_fixture
async def gateway(engine: ScriptedEngine) -> AsyncIterator[RunningGateway]:
    """A gateway that sends heartbeats at once."""
    running = await run_gateway(grpc_target=engine.target, drain_s=0.0, whole_heartbeat_s=0.02, thread_workers=1)
    yield running
    await stop_gateway(running)


def request_bytes(path: str, body: dict[str, Any], version: str = "1.1") -> bytes:
    data = json.dumps(body | {"stream": False}).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


async def ask(gateway: RunningGateway, path: str, *steps: object, version: str = "1.1") -> Received:
    return await connect(gateway.url, request_bytes(path, asking(path, script(*steps)), version))


def body_so_far(data: bytes | bytearray) -> bytes:
    """Join the chunks of a body that was truncated."""
    _, _, rest = bytes(data).partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_a_slow_answer_begins_with_white_space(
    gateway: RunningGateway, engine: ScriptedEngine, path: str
) -> None:
    """A client with a timeout between bytes waits for the engine, and reads the answer as any other."""
    received = await ask(gateway, path, SILENT, "one ", "two")
    await received.until(HEARTBEAT + b"1\r\n \r\n")
    engine.go("go")
    await received.ended
    (reply,) = replies(received.data)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json; charset=utf-8")
    assert "content-length" not in reply.headers
    assert reply.body.startswith(b"  ")
    check(ENDPOINTS[path].schemas[1], reply.json())
    assert whole_text(path, reply.json()) == "one two"


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_a_failure_after_a_heartbeat_is_truncated(
    gateway: RunningGateway, engine: ScriptedEngine, path: str
) -> None:
    """No client takes the error for an answer, because its body has no end; a person can read it."""
    received = await ask(gateway, path, SILENT, {"status": "INTERNAL"})
    await received.until(HEARTBEAT)
    engine.go("go")
    await received.ended
    assert not received.data.endswith(END)
    error = json.loads(body_so_far(received.data))
    check(ENDPOINTS[path].schemas[2], error)
    assert "The engine failed" in json.dumps(error)


@pytest_twisted.ensureDeferred
async def test_a_failure_before_the_first_heartbeat_has_its_status(engine: ScriptedEngine) -> None:
    """An engine that fails at once is reported as without heartbeats."""
    gateway = await run_gateway(grpc_target=engine.target, whole_heartbeat_s=3600.0)
    reply = await gateway.ask("POST", CHAT, json=asking(CHAT, script({"status": "INTERNAL"}), stream=False))
    assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_error")
    received = await ask(gateway, CHAT, "one")
    await received.ended
    (reply,) = replies(received.data)
    assert (reply.status, int(reply.headers["content-length"])) == (200, len(reply.body))
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_a_tool_s_failure_is_complete(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """MCP reports a tool's failure in a response with status 200, so it needs no truncation."""
    call = {"name": "ask", "arguments": {"question": script(SILENT, {"status": "INTERNAL"})}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    data = json.dumps(body).encode()
    head = (
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: application/json, text/event-stream\r\n"
        f"MCP-Protocol-Version: 2025-06-18\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    received = await connect(gateway.url, head.encode() + data)
    await received.until(HEARTBEAT)
    engine.go("go")
    await received.ended
    (reply,) = replies(received.data)
    assert (reply.status, reply.json()["result"]["isError"]) == (200, True)


@pytest_twisted.ensureDeferred
async def test_an_http_1_0_client_gets_none(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """In HTTP/1.0 a truncated body looks complete, so the answer has its length and its status."""
    received = await ask(gateway, CHAT, SILENT, {"status": "INTERNAL"}, version="1.0")
    # Another client's heartbeats show that time for some has passed.
    while not engine.calls:
        await gateway.ask("GET", "/health/live")
    other = await run_gateway(grpc_target=engine.target, whole_heartbeat_s=0.02)
    second = await ask(other, CHAT, SILENT, "two")
    await second.until(HEARTBEAT + b"1\r\n \r\n")
    assert received.data == b""
    engine.go("go")
    await received.ended
    await second.ended
    assert received.data.startswith(b"HTTP/1.0 502 ")
    await stop_gateway(other)


@pytest_twisted.ensureDeferred
async def test_none_in_the_queue(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """A question that waits for a worker can still be rejected with its own status."""
    first = await ask(gateway, CHAT, SILENT, "one")
    await first.until(HEARTBEAT)
    second = await ask(gateway, CHAT, "two")
    while not gateway.service._admission.waiting:  # noqa: SLF001 - what a client cannot see
        await gateway.ask("GET", "/health/live")
    first.data.clear()
    await first.until(b"1\r\n \r\n1\r\n \r\n")
    assert second.data == b""
    engine.go("go")
    await first.ended
    await second.ended
    (reply,) = replies(second.data)
    assert whole_text(CHAT, reply.json()) == "two"
    assert "content-length" in reply.headers


@pytest_twisted.ensureDeferred
async def test_several_choices(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """Each of several engine calls may be slow."""
    prompts = [script({"wait": "first"}, "one"), script({"wait": "second"}, "two")]
    received = await connect(gateway.url, request_bytes(COMPLETIONS, {"model": "brunix", "prompt": prompts}))
    for name in ("first", "second"):
        received.data, before = bytearray(), bytes(received.data)
        await received.until(b"1\r\n \r\n")
        received.data[:0] = before
        engine.go(name)
    await received.ended
    (reply,) = replies(received.data)
    assert [choice["text"] for choice in reply.json()["choices"]] == ["one", "two"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_disconnects_cancels_the_call(gateway: RunningGateway) -> None:
    """A client that gives up between heartbeats frees the worker."""
    received = await ask(gateway, CHAT, SILENT, "one")
    await received.until(HEARTBEAT)
    received.leave()
    await received.ended
    # It needs the only worker.
    reply = await gateway.ask("POST", CHAT, json=asking(CHAT, script("two"), stream=False))
    assert whole_text(CHAT, reply.json()) == "two"


def test_off_by_default() -> None:
    """Without the setting, an answer has its length, and a failure its status, however long the engine takes."""
    assert Settings().whole_heartbeat_s == StreamTimeouts().whole_heartbeat_s == 0
