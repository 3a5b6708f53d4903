"""The engine's two clients in one form, so that every test of the one is a test of the other."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from brunix_twisted.engine import ConnectionLimits, Tls
from brunix_twisted.engine.aio import AioCall, AioEngine
from brunix_twisted.engine.blocking import BlockingCall, BlockingEngine
from brunix_twisted.model import EditorContext, Question
from fake_reactor import LIMIT_S, FakeReactor
from threads import WHOLE_SESSION, Threads

Sink = Callable[[str], bool]
"""Takes a piece of text; False means that no more is wanted."""


DEFAULT_LIMITS = ConnectionLimits()
MAX_ANSWER_BYTES = DEFAULT_LIMITS.max_answer_bytes


class DrivenCall(Protocol):
    """A call that blocks the thread that runs it, and can be cancelled from any."""

    real: Any

    def run(self, sink: Sink) -> None: ...

    def cancel(self) -> None: ...


class Client(Protocol):
    """A client of the engine, for the test's own threads."""

    def call(self, question: Question) -> DrivenCall: ...

    def check(self, timeout_s: float, done: Callable[[str | None], object]) -> None: ...

    def close(self) -> None: ...


class _BlockingCall:
    def __init__(self, real: BlockingCall) -> None:
        self.real = real
        self.cancel = real.cancel

    def run(self, sink: Sink) -> None:
        def put(text: str, *, last: bool) -> bool:  # noqa: ARG001 - who blocks hears of the end anyway
            return sink(text)

        self.real.run(put)


class BlockingClient:
    """The client with threads, on the test's."""

    def __init__(
        self, target: str, timeout_s: float, tls: Tls | None = None, limits: ConnectionLimits = DEFAULT_LIMITS
    ) -> None:
        self._reactor = FakeReactor()
        self._engine = BlockingEngine(self._reactor.as_reactor, target, timeout_s, tls, limits, workers=1)
        self._threads = Threads()
        self._closed = False

    def call(self, question: Question) -> DrivenCall:
        return _BlockingCall(self._engine.call(question))

    def check(self, timeout_s: float, done: Callable[[str | None], object]) -> None:
        self._engine.check(timeout_s).addCallback(done)
        self._threads.start(self._reactor.wait)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._engine.close()
            self._threads.join()


class _AioCall:
    def __init__(self, client: AioClient, real: AioCall) -> None:
        self._client = client
        self.real = real

    def run(self, sink: Sink) -> None:
        def put(text: str) -> None:
            if not sink(text):
                self.real.cancel()

        self._client.wait_for(self.real.run(put))

    def cancel(self) -> None:
        self._client.do(self.real.cancel)


@functools.cache
def _loop() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    # One for all: gRPC's library has one queue a process, which does not outlive the loop that it began with.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=WHOLE_SESSION, daemon=True)
    thread.start()
    return loop, thread


class AioClient:
    """The client without threads, on a loop in a thread of its own."""

    def __init__(
        self, target: str, timeout_s: float, tls: Tls | None = None, limits: ConnectionLimits = DEFAULT_LIMITS
    ) -> None:
        self._loop, self._thread = _loop()
        self._engine = AioEngine(target, timeout_s, tls, limits)
        self._closed = False

    def do(self, function: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the function returns
        """Do something on the loop's thread, and wait for it."""
        if threading.current_thread() is self._thread:
            return function()

        async def call() -> Any:  # noqa: ANN401 - likewise
            return function()

        return self.wait_for(call())

    def wait_for(self, coroutine: Any) -> Any:  # noqa: ANN401 - any coroutine, and what it returns
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(LIMIT_S)

    def call(self, question: Question) -> DrivenCall:
        return _AioCall(self, self.do(lambda: self._engine.call(question)))

    def check(self, timeout_s: float, done: Callable[[str | None], object]) -> None:
        self.do(lambda: self._engine.check(timeout_s).addCallback(done))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        closed: Future[None] = Future()
        self.do(lambda: self._engine.close().addCallback(closed.set_result))
        closed.result(LIMIT_S)


CLIENTS: dict[str, Callable[..., Client]] = {"blocking": BlockingClient, "aio": AioClient}

Connect = Callable[..., Client]
"""Makes a client of a target, to be closed after the test."""


def question(
    query: str, *, stream: bool = True, editor: EditorContext | None = None, session_id: str = "session"
) -> Question:
    return Question(
        query=query, session_id=session_id, request_id="request", stream=stream, editor=editor or EditorContext()
    )


def texts(call: DrivenCall) -> list[str]:
    """Run a call to its end."""
    said: list[str] = []

    def sink(text: str) -> bool:
        said.append(text)
        return True

    call.run(sink)
    return said
