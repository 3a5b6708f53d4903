"""
Who may call the engine now: so many places, and a bounded queue before them.

Twisted's own queue before a pool of threads has no bound, forgets its jobs when it stops, and cannot tell a waiting
caller anything; this one refuses early, keeps its order, and lets go of whoever does not want to wait any longer.
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

    A place is acquired, the call started, and the place released in :meth:`run` alone, so that no exception can leave
    a place taken.
    """

    def __init__(self, reactor: Reactor, *, places: int, queue_size: int, queue_timeout_s: float) -> None:
        """
        Guard an engine that nobody else asks.

        :param places: how many calls it may have at once.
        :param queue_size: how many may wait for a place.
        :param queue_timeout_s: how long each of them may wait.
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
        """How many places are taken."""
        return self.places - self._free

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    def run(self, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """
        Call ``start`` once there is a place, and hold that place until the Deferred it returns has fired.

        Fires with that Deferred's result, or with what ``start`` raised. Fails with GatewayError (OVERLOADED) at once
        when the queue is full, or after ``queue_timeout_s``. Cancelling the returned Deferred leaves the queue; once
        ``start`` was called, cancelling stops nothing and the place stays taken until the call has ended.
        """
        if self._free and not self._waiting:
            return self._occupied(start)
        if len(self._waiting) >= self.queue_size:
            return fail(_overloaded("too many questions are waiting already"))
        place: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(place)
        deadline = self._reactor.callLater(self._queue_timeout_s, self._give_up, place)
        return cancel_when_fired(place, deadline).addCallback(lambda _: self._occupied(start))

    def _occupied(self, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        # A Deferred of its own: cancelling it must not release the place before the call has ended.
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
        # A loop, not recursion: a call that cannot be started ends, and so comes back here, before this has returned.
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
        place.errback(_overloaded("no place became free in time"))

    def refuse(self, error: Callable[[], GatewayError]) -> None:
        """Send away everyone who waits in the queue, each with an error of its own."""
        while self._waiting:
            self._waiting.popleft().errback(error())

    def when_idle(self) -> Deferred[None]:
        """Fire once no call is under way."""
        if self._free == self.places:
            return succeed(None)
        self._idle.append(Deferred())
        return self._idle[-1]


def _overloaded(why: str) -> GatewayError:
    return GatewayError(errors.OVERLOADED, f"The gateway is busy: {why}; try again shortly")
