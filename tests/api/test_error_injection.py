"""
Any function on an answer's path raises, once: who notices, and what is left behind.

A first answer shows which functions of the gateway are called on the way, and how often. Then one answer is asked for
each of those calls, which raises before its first line. No call is named here, so one that is new is tried as well.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, cast

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

import brunix_twisted
from brunix_twisted.engine.blocking import BlockingCall
from endpoints import CHAT, FRAMINGS, PATHS, asking, streamed, whole_text
from gateways import RunningGateway, run_gateway, stop_gateway
from scripted_engine import ScriptedEngine, script
from stream_clients import Client, until

_PACKAGE: Final = str(Path(brunix_twisted.__file__).parent)
_GENERATED: Final = str(Path(_PACKAGE, "_pb"))

# A coroutine is called once more each time it goes on, and a delta once for each text: the first few are enough.
_MAX_CALLS: Final = 3

_LAST_RESORT: Final = frozenset(
    {
        # Nothing stands behind it: whatever else a wake-up calls may raise, but the wake-up has to begin.
        "/engine/wakeup.py::ReactorWaker._run_pending",
        "/engine/wakeup.py::ReactorWaker._poll",
        # The connection is gone, and its site does not learn of it. It knows one too many until it stops.
        "/http/channel.py::GatewayChannel.connectionLost",
        "/http/site.py::GatewaySite.connection_lost",
    }
)

TEXTS: Final = ("one ", "two ", "three")
ANSWER: Final = "".join(TEXTS)


@attrs.frozen
class Called:
    """One call of one of the gateway's functions."""

    function: str
    number: int
    """From 1."""


class Tracer:
    """Watches the calls of the gateway's functions, and makes one of them raise."""

    def __init__(self, target: Called | None = None, fault: Exception | None = None) -> None:
        self._target = target
        self._fault = fault
        self._counts: Counter[str] = Counter()
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        file = code.co_filename
        if event != "call" or not file.startswith(_PACKAGE) or file.startswith(_GENERATED):
            return
        function = f"{file.removeprefix(_PACKAGE)}::{code.co_qualname}"
        number = self._counts[function] = self._counts[function] + 1
        if self._target == Called(function, number):
            self.raised = True
            assert self._fault is not None
            raise self._fault

    def calls(self) -> list[Called]:
        """List what has been called, the first few calls of each function."""
        return [
            Called(function, number)
            for function, count in self._counts.items()
            if function not in _LAST_RESORT
            for number in range(1, min(count, _MAX_CALLS) + 1)
        ]


@asynccontextmanager
async def traced(tracer: Tracer) -> AsyncIterator[None]:
    """Watch the reactor's thread, and the workers that read the engine's answers."""
    real_run = BlockingCall.run

    def run(call: BlockingCall, sink: Any) -> None:  # noqa: ANN401 - as in the original
        before_run = sys.gettrace()
        sys.settrace(tracer)
        try:
            real_run(call, sink)
        finally:
            sys.settrace(before_run)

    clock = cast("IReactorTime", reactor)
    before = sys.gettrace()
    BlockingCall.run = run  # type: ignore[method-assign,assignment]
    try:
        # Called by the reactor: this may be another greenlet than the one in which it runs.
        await deferLater(clock, 0, sys.settrace, tracer)
        yield
    finally:
        BlockingCall.run = real_run  # type: ignore[method-assign]
        await deferLater(clock, 0, sys.settrace, before)


class Bystander:
    """A stream of somebody else's, which says a word whenever it is let."""

    def __init__(self, gateway: RunningGateway, engine: ScriptedEngine, words: int) -> None:
        self._engine = engine
        self._name = "bystander"
        self._words = words
        self._said = 0
        steps: list[object] = []
        for number in range(words):
            steps += [{"wait": f"{self._name}-{number}"}, f"word-{number}. "]
        self._client = Client(gateway).ask("/api/generate", asking("/api/generate", script(*steps)))

    async def say(self) -> None:
        """Let it say its next word, and wait until that has come."""
        self._engine.go(f"{self._name}-{self._said}")
        await self._client.read(f"word-{self._said}. ".encode())
        self._said += 1

    async def end(self) -> None:
        """Let it say the rest, and check that all of it has come, and its end."""
        for number in range(self._said, self._words):
            self._engine.go(f"{self._name}-{number}")
        answer = streamed("/api/generate", received(await self._client.read_all()).body)
        self._client.close()
        assert answer.text == "".join(f"word-{number}. " for number in range(self._words))
        assert answer.complete


@attrs.frozen
class Received:
    """What has come of a request."""

    status: int | None
    """None: nothing has come."""
    body: bytes
    whole: bool
    """Whether HTTP says that the body is all there."""


def received(data: bytes) -> Received:
    """Read a response, which may be cut short anywhere."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return Received(None, b"", whole=False)
    status = int(head.split()[1])
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return Received(status, rest, whole=len(rest) == int(line.partition(b":")[2]))
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        size_bytes = int(size, 16)
        if len(rest) < size_bytes + 2:
            break
        if not size_bytes:
            return Received(status, body, whole=True)
        body += rest[:size_bytes]
        rest = rest[size_bytes + 2 :]
    return Received(status, body, whole=False)


def is_complete(path: str, reply: Received, *, stream: bool) -> bool:
    """Tell a complete answer from one that has visibly failed; what is neither must never be."""
    if reply.status != 200 or not reply.whole:
        return False
    if not stream:
        assert whole_text(path, json.loads(reply.body)) == ANSWER
        return True
    answer = streamed(path, reply.body)
    assert answer.complete is (answer.error is None), f"neither complete nor failed, or both: {reply.body!r}"
    assert not answer.complete or answer.text == ANSWER
    return answer.complete


async def ask(gateway: RunningGateway, path: str, tracer: Tracer, *, stream: bool) -> bool:
    """Ask once, and check that nothing is left of it; returns whether the answer is complete."""
    async with traced(tracer):
        client = Client(gateway)
        try:
            with suppress(ConnectionError):
                await client.ask(path, asking(path, script(*TEXTS), stream=stream)).read_all()
        finally:
            client.close()
    complete = is_complete(path, received(client.received), stream=stream)
    # What is there now is the bystander's, and is all that the gateway would wait for if it were stopped.
    service = gateway.service
    answers, admission, site = service._completion.in_flight.entries, service._admission, service._site  # noqa: SLF001 - as said
    await until(lambda: (len(answers), admission.busy, len(site.connections)) == (1, 1, 1))
    return complete


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_any_call_raises(engine: ScriptedEngine, path: str, *, stream: bool) -> None:
    """
    A fault of the gateway's own, such as a lack of memory, looks like a complete answer, hangs, or harms others.

    Whatever raises: the client gets the whole answer or sees that it has failed, the place with the engine is free,
    another stream goes on, and the gateway stops.
    """
    gateway = await run_gateway(grpc_target=engine.target, thread_workers=2, drain_s=0.0)
    seen = Tracer()
    bystander = Bystander(gateway, engine, 2000)
    await bystander.say()
    await ask(gateway, path, Tracer(), stream=stream)
    assert await ask(gateway, path, seen, stream=stream)
    calls = seen.calls()
    if (path, stream) not in FRAMINGS:
        # What this path has in common with the one that stands for it is tried there.
        common = Tracer()
        assert await ask(gateway, CHAT, common, stream=stream)
        tried = set(common.calls())
        calls = [called for called in calls if called not in tried]
    failed: set[str] = set()
    for called in calls:
        # A later call of a function meets the same handlers as its first one.
        faults = [RuntimeError("injected"), MemoryError()] if called.number == 1 else [MemoryError()]
        for fault in faults:
            tracer = Tracer(called, fault)
            try:
                complete = await ask(gateway, path, tracer, stream=stream)
                if tracer.raised:
                    await bystander.say()
            except BaseException as error:
                error.add_note(f"{type(fault).__name__} raised by call {called.number} of {called.function}")
                raise
            if not complete:
                failed.add(called.function)
    await bystander.end()
    # Most of what is called is needed for the answer, or nothing was tried here.
    assert len(failed) > (40 if (path, stream) in FRAMINGS else 0)
    await stop_gateway(gateway)
