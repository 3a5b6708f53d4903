"""
Request bodies: the memory they use in total, and the thread that parses them.

A body is kept in memory until it has been parsed. It is never written to a temporary file, so a full or read-only
``/tmp`` has no effect. A large body is parsed on a separate thread: parsing thousands of messages on the reactor would
delay the tokens of all other clients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from brunix_twisted.runtime.reactors import Reactor

T = TypeVar("T")

UNCOUNTED_BYTES: Final = 65_536
"""
The first bytes of each body do not count against the total limit.

So small requests succeed while large bodies use up the limit. The number of connections bounds their memory, as it
bounds the other buffers of a connection.
"""

PARSED_AT_ONCE_BYTES: Final = 65_536
"""Maximum size of a body that is parsed on the reactor's thread. For these, switching threads would take longer."""


class Bodies:
    """The request bodies of one gateway process. Call all methods on the reactor's thread."""

    def __init__(self, reactor: Reactor, max_bytes: int) -> None:
        """
        Begin with no bodies.

        :param max_bytes: maximum size of all bodies together, each without its first UNCOUNTED_BYTES.
        """
        self._reactor = reactor
        self._max_bytes = max_bytes
        self.held_bytes = 0
        """The part of ``max_bytes`` in use."""
        # One thread only: the GIL prevents two from parsing faster, and the reactor would get less of it.
        self._executor = ThreadPoolExecutor(1, "parser")
        self._parsing = 0
        self._idle: list[Deferred[None]] = []

    def fits(self, body_bytes: int) -> bool:
        """Whether a new body of this size is within the limit now."""
        return body_bytes <= UNCOUNTED_BYTES or self.held_bytes + body_bytes - UNCOUNTED_BYTES <= self._max_bytes

    def grow(self, body_bytes: int, more_bytes: int) -> bool:
        """Count more bytes of a body of this size; return False and count nothing if that would exceed the limit."""
        counted = max(0, body_bytes + more_bytes - UNCOUNTED_BYTES) - max(0, body_bytes - UNCOUNTED_BYTES)
        if counted and self.held_bytes + counted > self._max_bytes:
            return False
        self.held_bytes += counted
        return True

    def release(self, body_bytes: int) -> None:
        """Stop counting a body of this size."""
        self.held_bytes -= max(0, body_bytes - UNCOUNTED_BYTES)

    def parse(self, parse: Callable[[bytes], T], body_bytes: bytes) -> Deferred[T]:
        """
        Parse a body on another thread.

        Cancelling the Deferred frees a body that is waiting. Parsing that has started is not interrupted.
        """
        job = _Job(parse, body_bytes, self._finished)
        self._parsing += 1

        def work() -> None:
            if outcome := job.run():
                self._reactor.callFromThread(job.report, outcome)

        try:
            self._executor.submit(work)
        except RuntimeError:
            # No thread can be started. The executor may still run the job on a later thread, where it does nothing.
            if outcome := job.run():
                job.report(outcome)
        return job.result

    def _finished(self) -> None:
        self._parsing -= 1
        if not self._parsing:
            idle, self._idle = self._idle, []
            for deferred in idle:
                deferred.callback(None)

    def when_idle(self) -> Deferred[None]:
        """Fire once no body is being parsed."""
        if not self._parsing:
            return succeed(None)
        self._idle.append(Deferred())
        return self._idle[-1]

    def stop(self) -> None:
        """End the thread. Nothing can be parsed afterwards."""
        self._executor.shutdown()


class _Job(Generic[T]):
    """One body to be parsed."""

    def __init__(self, parse: Callable[[bytes], T], body_bytes: bytes, finished: Callable[[], None]) -> None:
        self._parse = parse
        self._finished = finished
        # Run and cancel may happen on different threads; the one that pops the body wins. A deque's pop is atomic.
        self._body = deque((body_bytes,))
        self.result: Deferred[T] = Deferred(self._cancel)

    def run(self) -> tuple[T] | Failure | None:
        """Parse the body, on any thread; return None if that has been done or cancelled."""
        try:
            body_bytes = self._body.pop()
        except IndexError:
            return None
        try:
            return (self._parse(body_bytes),)
        except BaseException:  # noqa: BLE001 - passed on to the request, which reports it
            return Failure()

    def report(self, outcome: tuple[T] | Failure) -> None:
        """Fire ``result``, on the reactor's thread."""
        if self.result.called:
            pass  # cancelled while it was being parsed
        elif isinstance(outcome, Failure):
            self.result.errback(outcome)
        else:
            self.result.callback(outcome[0])
        self._finished()

    def _cancel(self, _: Deferred[Any]) -> None:
        try:
            self._body.pop()
        except IndexError:
            return
        self._finished()
