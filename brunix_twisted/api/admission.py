"""
The limit of concurrent engine calls, and the bounded queue in front of it.

Twisted's own queue in front of a thread pool has no limit, drops its jobs when it stops, and cannot report anything to
a waiting request. This queue rejects early, keeps its order, and can be left at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred, succeed

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError
from brunix_twisted.runtime.reactors import Reactor, cancel_when_fired

T = TypeVar("T")


class Admission:
    """
    Limits how many engine calls run at once. All methods belong to the reactor's thread.

    Only :meth:`run` acquires a slot, starts the call and releases the slot, so that no exception can leak a slot.
    """

    def __init__(self, reactor: Reactor, *, places: int, queue_size: int, queue_timeout_s: float) -> None:
        """
        Start with all slots free.

        :param places: maximum number of concurrent calls.
        :param queue_size: maximum length of the queue.
        :param queue_timeout_s: maximum time in the queue.
        """
        self._reactor = reactor
        self.places = self._free = places
        self.queue_size = queue_size
        self._queue_timeout_s = queue_timeout_s
        self._waiting: deque[Deferred[None]] = deque()
        self._admitting = False
        self._idle: list[Deferred[None]] = []

    @property
    def busy(self) -> int:
        """The number of slots in use."""
        return self.places - self._free

    @property
    def waiting(self) -> int:
        """The length of the queue."""
        return len(self._waiting)

    def run(self, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """
        Call ``start`` when a slot is free, and use that slot until the Deferred it returns has fired.

        Fires with that Deferred's result, or with the exception of ``start``. Fails with GatewayError (OVERLOADED) at
        once if the queue is full, or after ``queue_timeout_s``. Cancelling the returned Deferred leaves the queue. Once
        ``start`` was called, cancelling stops nothing, and the slot stays in use until the call has ended.
        """
        if self._free and not self._waiting:
            return self._occupied(start)
        if len(self._waiting) >= self.queue_size:
            return fail(_overloaded("its queue is full"))
        place: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(place)
        deadline = self._reactor.callLater(self._queue_timeout_s, self._give_up, place)
        return cancel_when_fired(place, deadline).addCallback(lambda _: self._occupied(start))

    def _occupied(self, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        # A separate Deferred: cancelling it must not release the slot before the call has ended.
        held: Deferred[T] = Deferred()
        ensureDeferred(self._occupy(start)).chainDeferred(held)
        return held

    async def _occupy(self, start: Callable[[], Deferred[T]]) -> T:
        self._free -= 1
        try:
            return await maybeDeferred(start)
        finally:
            self._free += 1
            self._admit_waiting()

    def _admit_waiting(self) -> None:
        # A loop, not recursion: a call that cannot be started ends at once, and calls this again before it returns.
        if self._admitting:
            return
        self._admitting = True
        try:
            while self._free and self._waiting:
                self._waiting.popleft().callback(None)
        finally:
            self._admitting = False
        if self._free == self.places:
            idle, self._idle = self._idle, []
            for deferred in idle:
                deferred.callback(None)

    def _give_up(self, place: Deferred[None]) -> None:
        self._waiting.remove(place)
        place.errback(_overloaded("no slot became free in time"))

    def refuse(self, error: Callable[[], GatewayError]) -> None:
        """Reject every request in the queue, each with a new error."""
        while self._waiting:
            self._waiting.popleft().errback(error())

    def when_idle(self) -> Deferred[None]:
        """Fire when no call is running."""
        if self._free == self.places:
            return succeed(None)
        self._idle.append(Deferred())
        return self._idle[-1]


def _overloaded(why: str) -> GatewayError:
    return GatewayError(errors.OVERLOADED, f"The gateway is busy: {why}. Try again shortly.")
