"""
Request bodies: how much memory they may take together, and where they are parsed.

A body is kept in memory until it has been parsed, never in a temporary file, so that a full or read-only ``/tmp`` makes
no difference. A large one is parsed on a thread of its own, since parsing a body of many thousand messages takes longer
than the other clients' tokens should have to wait.
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
How much of each body is not counted against the limit for all of them.

Small questions are so answered while large bodies use up the limit, and what they take is bounded by the number of
connections, as the rest of a connection's buffers is.
"""

PARSED_AT_ONCE_BYTES: Final = 65_536
"""How large a body may be that is parsed in the reactor's thread: less than handing it to another thread would cost."""


class Bodies:
    """The request bodies of one gateway process. All methods belong to the reactor's thread."""

    def __init__(self, reactor: Reactor, max_bytes: int) -> None:
        """
        Hold none yet.

        :param max_bytes: how large all of them together may be, each without its first UNCOUNTED_BYTES.
        """
        self._reactor = reactor
        self._max_bytes = max_bytes
        self.held_bytes = 0
        """How much of the limit is taken."""
        # One thread: two would not parse faster, since both need the interpreter's lock, but leave the reactor less.
        self._executor = ThreadPoolExecutor(1, "parser")
        self._parsing = 0
        self._idle: list[Deferred[None]] = []

    def has_room(self, body_bytes: int) -> bool:
        """Whether a body of this size would fit now."""
        return body_bytes <= UNCOUNTED_BYTES or self.held_bytes + body_bytes - UNCOUNTED_BYTES <= self._max_bytes

    def grow(self, body_bytes: int, more_bytes: int) -> bool:
        """Count a body of this size that is to grow; False if there is no room for it, and nothing has changed."""
        counted = max(0, body_bytes + more_bytes - UNCOUNTED_BYTES) - max(0, body_bytes - UNCOUNTED_BYTES)
        if counted and self.held_bytes + counted > self._max_bytes:
            return False
        self.held_bytes += counted
        return True

    def release(self, body_bytes: int) -> None:
        """Count a body of this size no longer."""
        self.held_bytes -= max(0, body_bytes - UNCOUNTED_BYTES)

    def parse(self, parse: Callable[[bytes], T], body_bytes: bytes) -> Deferred[T]:
        """
        Parse a body on another thread.

        Cancelling the Deferred frees a body whose turn has not come; one that is being parsed is parsed to its end.
        """
        job = _Job(parse, body_bytes, self._finished)
        self._parsing += 1

        def work() -> None:
            if outcome := job.run():
                self._reactor.callFromThread(job.report, outcome)

        try:
            self._executor.submit(work)
        except RuntimeError:
            # No thread can be started. The executor keeps the job for a thread that may come later: it finds it done.
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
        """Fire once nothing is being parsed."""
        if not self._parsing:
            return succeed(None)
        self._idle.append(Deferred())
        return self._idle[-1]

    def stop(self) -> None:
        """End the thread; nothing may be parsed afterwards."""
        self._executor.shutdown()


class _Job(Generic[T]):
    """One body to be parsed."""

    def __init__(self, parse: Callable[[bytes], T], body_bytes: bytes, finished: Callable[[], None]) -> None:
        self._parse = parse
        self._finished = finished
        # Whoever takes the body out of it has the job, on whichever thread: a deque's pop is atomic.
        self._body = deque((body_bytes,))
        self.result: Deferred[T] = Deferred(self._cancel)

    def run(self) -> tuple[T] | Failure | None:
        """Parse the body, on any thread; None if that has been done, or is no longer wanted."""
        try:
            body_bytes = self._body.pop()
        except IndexError:
            return None
        try:
            return (self._parse(body_bytes),)
        except BaseException:  # noqa: BLE001 - whatever it is, it belongs to the request
            return Failure()

    def report(self, outcome: tuple[T] | Failure) -> None:
        """Hand the result on, on the reactor's thread."""
        if self.result.called:
            pass  # it was cancelled meanwhile
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
