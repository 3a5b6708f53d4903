"""
Who may call the engine now: so many places, and a bounded queue before them.

Twisted's own queue before a pool of threads has no bound, forgets its jobs when it stops, and cannot tell a waiting
caller anything; this one refuses early, keeps its order, and lets go of whoever does not want to wait any longer.
"""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError
from brunix_twisted.reactors import Reactor

T = TypeVar("T")


class Admission:
    """
    The way to the engine. All methods belong to the reactor's thread.

    First :meth:`admit`, which fires when there is a place, then :meth:`hold`, which gives it back when the call has
    ended: not earlier, however long its caller is gone.
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
        self._idle: list[Deferred[None]] = []

    @property
    def busy(self) -> int:
        """How many places are taken."""
        return self.places - self._free

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    def admit(self) -> Deferred[None]:
        """
        Wait for a place. Cancelling the Deferred leaves the queue.

        Fails with GatewayError (OVERLOADED) at once when the queue is full, or after ``queue_timeout_s``.
        """
        if self._free:
            self._free -= 1
            return succeed(None)
        if len(self._waiting) >= self.queue_size:
            return fail(_overloaded("too many questions are waiting already"))
        place: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(place)
        deadline = self._reactor.callLater(self._queue_timeout_s, self._give_up, place)

        def no_deadline(result: T) -> T:
            if deadline.active():
                deadline.cancel()
            return result

        return place.addBoth(no_deadline)

    def _give_up(self, place: Deferred[None]) -> None:
        self._waiting.remove(place)
        place.errback(_overloaded("no place became free in time"))

    def hold(self, done: Deferred[T]) -> Deferred[T]:
        """
        Hold the place until ``done`` has fired, whatever becomes of who waits for it; fires then, with its result.

        Only for a caller who has just been admitted, once for each time.
        """

        def left(result: T) -> T:
            self._release()
            return result

        # One of its own, because cancelling that one would tell of the end before it has come.
        held: Deferred[T] = Deferred()
        done.addBoth(left).chainDeferred(held)
        return held

    def _release(self) -> None:
        if self._waiting:
            # The place goes from hand to hand: a newcomer cannot slip in between.
            self._waiting.popleft().callback(None)
            return
        self._free += 1
        if self._free == self.places:
            idle, self._idle = self._idle, []
            for deferred in idle:
                deferred.callback(None)

    def refuse(self, error: GatewayError) -> None:
        """Send away everyone who waits in the queue."""
        while self._waiting:
            self._waiting.popleft().errback(error)

    def when_idle(self) -> Deferred[None]:
        """Fire once no call is under way."""
        if self._free == self.places:
            return succeed(None)
        self._idle.append(Deferred())
        return self._idle[-1]


def _overloaded(why: str) -> GatewayError:
    return GatewayError(errors.OVERLOADED, f"The gateway is busy: {why}; try again shortly")
