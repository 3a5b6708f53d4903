"""
Whatever the engine does wrong, in each shape of an answer: what the client is told, and what the operator is.

One table of faults, and one test that tries them before the first token and in mid-stream: all of them in each framing
of an answer, and on every path one of each kind.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Literal

import attrs
import grpc
import pytest
import pytest_twisted
from twisted.internet.defer import ensureDeferred

from endpoints import ENDPOINTS, FRAMINGS, MESSAGES, PATHS, Streamed, asking, error_in, streamed, whole_text
from gateways import Reply, RunningGateway, in_thread, run_gateway, stop_gateway
from isolation import unmeasured
from log_lines import log_lines
from paths import TESTS
from scripted_engine import ScriptedEngine, script
from stream_clients import until
from wire import check, sse_events

INSIDE: Final = "secret internals of the engine"
"""What the scripted engine says of itself when it fails."""


@attrs.frozen
class Told:
    """What a client is told of a failure; Ollama's error has no type and no code."""

    status: int
    type: str
    code: str | None
    retry: bool = False


REFUSED = Told(400, "invalid_request_error", None)
NOT_FOUND = Told(404, "invalid_request_error", "not_found")
RATE_LIMITED = Told(429, "rate_limit_error", "rate_limit_exceeded", retry=True)
FAILED = Told(502, "server_error", "engine_error")
NO_ACCESS = Told(502, "server_error", "engine_auth")
UNAVAILABLE = Told(503, "server_error", "engine_unavailable", retry=True)
TIMEOUT = Told(504, "server_error", "engine_timeout")


@attrs.frozen
class Fault:
    """
    Something that an engine does, and what is to come of it.

    Either it is told as a failure, or it was none and the answer has this text.
    """

    steps: tuple[object, ...]
    told: Told | None = None
    text: str = ""
    logged: str = ""
    """What the log says of it, beside the request's id."""
    asked: int = 1
    """How often the engine is asked when nothing has come of the question yet."""
    gateway: Literal["patient", "impatient", "of one process"] = "patient"


def status(name: str, told: Told, *, asked: int = 1) -> Fault:
    return Fault(({"status": name},), told, logged=f"{name}: {INSIDE}", asked=asked)


def complete(*steps: object, text: str) -> Fault:
    return Fault(steps, text=text)


FAULTS: Final = {
    # Every status there is.
    "CANCELLED": status("CANCELLED", FAILED),
    "UNKNOWN": status("UNKNOWN", FAILED),
    "INVALID_ARGUMENT": status("INVALID_ARGUMENT", REFUSED),
    "DEADLINE_EXCEEDED": status("DEADLINE_EXCEEDED", TIMEOUT),
    "NOT_FOUND": status("NOT_FOUND", NOT_FOUND),
    "ALREADY_EXISTS": status("ALREADY_EXISTS", FAILED),
    "PERMISSION_DENIED": status("PERMISSION_DENIED", NO_ACCESS),
    "RESOURCE_EXHAUSTED": status("RESOURCE_EXHAUSTED", RATE_LIMITED),
    "FAILED_PRECONDITION": status("FAILED_PRECONDITION", REFUSED),
    "ABORTED": status("ABORTED", FAILED),
    "OUT_OF_RANGE": status("OUT_OF_RANGE", REFUSED),
    "UNIMPLEMENTED": status("UNIMPLEMENTED", FAILED),
    "INTERNAL": status("INTERNAL", FAILED),
    "UNAVAILABLE": status("UNAVAILABLE", UNAVAILABLE, asked=2),
    "DATA_LOSS": status("DATA_LOSS", FAILED),
    "UNAUTHENTICATED": status("UNAUTHENTICATED", NO_ACCESS),
    # Failures without one.
    "hang": Fault(({"hang": True},), TIMEOUT, logged="DEADLINE_EXCEEDED", gateway="impatient"),
    "no final message": Fault(({"break_off": True},), FAILED, logged="no final message"),
    "not UTF-8": Fault(({"raw": "0a02c328"},), FAILED, logged="INTERNAL"),
    "dead process": Fault(({"die": True},), UNAVAILABLE, logged="UNAVAILABLE", gateway="of one process"),
    # What is no failure, and has made others fail.
    "slow": complete({"wait": "go"}, "late", text="late"),
    "text in the final message": complete("almost ", {"final": "all"}, text="almost all"),
    "empty messages": complete("", "", "text", "", text="text"),
    "nothing but empty messages": complete("", "", text=""),
    "huge message": complete({"letters": 5 * 1024 * 1024}, text="x" * (5 * 1024 * 1024)),
    # Twice as many as Python allows calls within calls.
    "2 000 tiny messages": complete({"repeat": ["x", 2_000]}, text="x" * 2_000),
    "U+2028": complete("a\u2028b\u0085c", text="a\u2028b\u0085c"),
    "NUL": complete("a\0b", text="a\0b"),
}

PARTIAL: Final = "partial"
_PARTIAL_MESSAGE: Final = {"raw": (b"\x0a\x07" + PARTIAL.encode()).hex()}
"""Sent at once also in a whole answer, whose other texts the engine keeps to its end."""

OF_EACH_KIND: Final = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "no final message", "U+2028")
"""Told by a status of the engine's, asked again, without a status, and no failure."""

MCP: Final = "/mcp"
MCP_VERSION: Final = "2026-07-28"

# What a status means does not depend on the path: tests/engine/test_engine.py tries each with both clients.
CASES: Final = [
    pytest.param(name, path, stream, id=f"{name}-{path}-{'streamed' if stream else 'whole'}")
    for path, stream in itertools.product((*PATHS, MCP), (True, False))
    for name in (FAULTS if (path, stream) in {*FRAMINGS, (MCP, True)} else OF_EACH_KIND)
]

_numbers = itertools.count()


def test_the_table_knows_every_status() -> None:
    """A failure that nobody thought of would be told as something else."""
    assert {name for name in FAULTS if name.isupper() and name.replace("_", "").isalpha()} - {"NUL"} == {
        status.name for status in grpc.StatusCode if status is not grpc.StatusCode.OK
    }


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    """One for the whole table."""
    engine = ScriptedEngine()
    yield engine
    engine.stop()


Gateways = dict[str, RunningGateway]


@pytest_twisted.async_yield_fixture(scope="module")
async def standing(engine: ScriptedEngine) -> AsyncIterator[Gateways]:
    """Gateways for the whole table."""
    # Long enough for what has come before the hang to arrive on a busy machine.
    impatient_s = 0.6
    gateways = {
        "patient": await run_gateway(grpc_target=engine.target, drain_s=0.0),
        "impatient": await run_gateway(grpc_target=engine.target, drain_s=0.0, engine_timeout_s=impatient_s),
    }
    yield gateways
    for gateway in gateways.values():
        await stop_gateway(gateway)


@asynccontextmanager
async def chosen(fault: Fault, standing: Gateways) -> AsyncIterator[tuple[RunningGateway, Callable[[], None]]]:
    """Give the gateway that a fault is tried on, and what lets its engine die if that is the fault."""
    if fault.gateway != "of one process":
        yield standing[fault.gateway], lambda: None
        return
    process = subprocess.Popen(  # noqa: ASYNC220, S603 - it is awaited in a thread, and is this interpreter
        [sys.executable, TESTS / "support" / "scripted_engine.py", "127.0.0.1:0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=unmeasured(),
    )
    with process:
        assert process.stdin
        assert process.stdout
        try:
            said: str = await in_thread(process.stdout.readline)
            target = said.strip().rpartition(":")[2]
            gateway = await run_gateway(grpc_target=f"127.0.0.1:{target}", drain_s=0.0)
            yield gateway, partial(print, file=process.stdin, flush=True)
            await stop_gateway(gateway)
        finally:
            process.kill()


@pytest.mark.parametrize(("name", "path", "stream"), CASES)
@pytest.mark.parametrize("begun", [False, True], ids=["before the first token", "in mid-stream"])
@pytest_twisted.ensureDeferred
async def test_fault(  # noqa: PLR0913 - fixtures and parameters
    engine: ScriptedEngine, standing: Gateways, name: str, path: str, *, begun: bool, stream: bool
) -> None:
    """A truncated answer would pass for a complete one, or a failure for another, or nobody could tell what it was."""
    fault = FAULTS[name]
    request_id = f"fault-{next(_numbers)}"
    # What a script waits for has a name, which has to be this question's alone.
    steps = [{"wait": request_id} if step == {"wait": "go"} else step for step in fault.steps]
    query = script(*([_PARTIAL_MESSAGE] if begun else []), *steps)
    asked_before = len(engine.calls)
    with log_lines() as log:
        async with chosen(fault, standing) as (gateway, die):
            body, headers = message(query, progress=stream) if path == MCP else (asking(path, query, stream=stream), {})
            headers["X-Request-Id"] = request_id
            asking_it = ensureDeferred(gateway.ask("POST", path, json=body, headers=headers))
            if {"wait": request_id} in steps:
                await in_thread(engine.call, asked_before)
                engine.go(request_id)
            if {"die": True} in steps:
                answers = gateway.service._completion.in_flight.entries  # noqa: SLF001 - when its client has a word shows nowhere else
                await until(
                    lambda: (
                        answers
                        and all(entry.answer and entry.answer.started for entry in answers) == (begun and stream)
                    )
                )
                die()
            reply = await asking_it
    told_at_all = [line for line in log.texts if request_id in line]
    if fault.told is None:
        expect_answer(path, reply, (PARTIAL if begun else "") + fault.text, stream=stream)
        assert len(told_at_all) == 1
    else:
        expect_failure(path, reply, fault.told, PARTIAL if begun and stream else "")
        line, _ = told_at_all
        assert f" {fault.told.status} " in line
        assert fault.logged in line
    assert INSIDE.encode() not in reply.body
    assert reply.headers["x-request-id"] == request_id
    assert log.errors == []
    if fault.gateway != "of one process":
        # Nothing is asked twice once something has come of it.
        assert len(engine.calls) - asked_before == (1 if begun else fault.asked)


def message(question: str, *, progress: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the message by which an agent calls the tool, and its headers. With progress, the response is a stream."""
    prefix = "io.modelcontextprotocol/"
    meta = {f"{prefix}protocolVersion": MCP_VERSION, f"{prefix}clientCapabilities": {}}
    params = {
        "name": "ask",
        "arguments": {"question": question},
        "_meta": meta | ({"progressToken": 1} if progress else {}),
    }
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MCP_VERSION}
    headers |= {"Mcp-Method": "tools/call", "Mcp-Name": "ask"}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, headers


def tool_result(reply: Reply, *, stream: bool) -> dict[str, Any]:
    """Return the result that an agent receives, after notifications if the response is a stream."""
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/event-stream" if stream else "application/json")
    *notes, last = sse_events(reply.body + b"data: [DONE]\n\n") if stream else [reply.json()]
    for note in ends(notes):
        check("mcp_progress", note)
    check("mcp_tool_result", last)
    assert (last["id"], last["result"]["resultType"]) == (1, "complete")
    result: dict[str, Any] = last["result"]
    return result


def expect_answer(path: str, reply: Reply, text: str, *, stream: bool) -> None:
    """Hold that an answer is complete, in the form of its API, and has this text."""
    assert reply.status == 200
    if path == MCP:
        result = tool_result(reply, stream=stream)
        assert (result["isError"], result["structuredContent"]["answer"]) == (False, text)
        assert result["content"][0] == {"type": "text", "text": text}
        return
    piece, whole, _ = ENDPOINTS[path].schemas
    if stream:
        for event in ends(ENDPOINTS[path].events(reply.body)):
            check(piece, event)
        assert streamed(path, reply.body) == Streamed(text, complete=True, error=None)
    else:
        check(whole, reply.json())
        assert whole_text(path, reply.json()) == text


def expect_failure(path: str, reply: Reply, told: Told, begun: str) -> None:
    """Hold that a failure is told in the form of its API: by its status, or after what the client has got already."""
    if path == MCP:
        # The agent's model reads it, and decides what to do.
        result = tool_result(reply, stream=bool(begun))
        assert (result["isError"], "structuredContent" in result) == (True, False)
        (content,) = result["content"]
        assert content["text"].startswith("The engine ")
        return
    piece, _, error = ENDPOINTS[path].schemas
    if begun:
        assert reply.status == 200
        *texts, event = ENDPOINTS[path].events(reply.body)
        for each in ends(texts):
            check(piece, each)
        answer = streamed(path, reply.body)
        assert (answer.text, answer.complete) == (begun, False)
        last = ENDPOINTS[path].failed(event)
        assert last is not None
    else:
        assert reply.status == told.status
        assert reply.headers["content-type"] == "application/json; charset=utf-8"
        assert reply.headers.get("retry-after") == ("1" if told.retry else None)
        assert reply.headers.get("x-should-retry") == (None if told.retry else "false")
        assert PARTIAL.encode() not in reply.body
        last = reply.json()
    check(error, last)
    assert error_in(path, last).startswith("The engine ")
    if path.startswith("/v1") and path != MESSAGES:
        assert (last["error"]["type"], last["error"]["code"], last["error"]["param"]) == (told.type, told.code, None)


def ends(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the first and the last few: those between are like them, and may be two thousand."""
    return events if len(events) <= 6 else [*events[:3], *events[-3:]]
