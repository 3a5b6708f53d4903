"""
Who may call the engine now: one place for each worker, and a bounded queue before them.

Twisted's own queue before its pool has no bound, forgets its jobs when it stops, and cannot tell a waiting caller
anything; this one refuses early, keeps its order, and lets go of whoever does not want to wait any longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError
from brunix_twisted.reactors import Reactor

T = TypeVar("T")


class Admission:
    """
    The way to the pool's workers. All methods belong to the reactor's thread.

    First :meth:`admit`, which fires when a worker is free and holds a place, then :meth:`run`, which gives the place
    back when the work has left its thread: not earlier, however long its caller is gone.
    """

    def __init__(self, reactor: Reactor, pool: ThreadPool, *, queue_size: int, queue_timeout_s: float) -> None:
        """
        Guard a pool that nobody else uses.

        :param pool: has as many places as its ``max``.
        :param queue_size: how many may wait for a place.
        :param queue_timeout_s: how long each of them may wait.
        """
        self._reactor = reactor
        self._pool = pool
        self._free = pool.max
        self._queue_size = queue_size
        self._queue_timeout_s = queue_timeout_s
        self._waiting: deque[Deferred[None]] = deque()
        self._idle: list[Deferred[None]] = []

    def admit(self) -> Deferred[None]:
        """
        Wait for a place. Cancelling the Deferred leaves the queue.

        Fails with GatewayError (OVERLOADED) at once when the queue is full, or after ``queue_timeout_s``.
        """
        if self._free:
            self._free -= 1
            return succeed(None)
        if len(self._waiting) >= self._queue_size:
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
        place.errback(_overloaded("no worker became free in time"))

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Run ``work`` on a worker. Only for a caller who has just been admitted, once for each time."""

        def left(result: T) -> T:
            self._release()
            return result

        # One of its own, because cancelling the pool's would tell of the end while the work is still on its thread.
        done: Deferred[T] = Deferred()
        threads = cast("IReactorFromThreads", self._reactor)
        deferToThreadPool(threads, self._pool, work).addBoth(left).chainDeferred(done)
        return done

    def _release(self) -> None:
        if self._waiting:
            # The place goes from hand to hand: a newcomer cannot slip in between.
            self._waiting.popleft().callback(None)
            return
        self._free += 1
        if self._free == self._pool.max:
            idle, self._idle = self._idle, []
            for deferred in idle:
                deferred.callback(None)

    def refuse(self, error: GatewayError) -> None:
        """Send away everyone who waits in the queue."""
        while self._waiting:
            self._waiting.popleft().errback(error)

    def when_idle(self) -> Deferred[None]:
        """Fire once no worker has any work."""
        if self._free == self._pool.max:
            return succeed(None)
        self._idle.append(Deferred())
        return self._idle[-1]


def _overloaded(why: str) -> GatewayError:
    return GatewayError(errors.OVERLOADED, f"The gateway is busy: {why}; try again shortly")
