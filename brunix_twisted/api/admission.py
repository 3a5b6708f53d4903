"""
The limit of concurrent engine calls, and the bounded queue in front of it, which is fair between callers.

Twisted's own queue in front of a thread pool has no limit, drops its jobs when it stops, and cannot report anything to
a waiting request. This queue rejects early, can be left at any time, and does not let one caller keep out the others: a
free slot goes to the caller with the fewest running calls, and a full queue rejects the caller who fills it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
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

    def __init__(
        self,
        reactor: Reactor,
        *,
        places: int,
        queue_size: int,
        queue_timeout_s: float,
        queue_per_caller: int | None = None,
    ) -> None:
        """
        Start with all slots free.

        :param places: maximum number of concurrent calls.
        :param queue_size: maximum length of the queue.
        :param queue_timeout_s: maximum time in the queue.
        :param queue_per_caller: maximum number of one caller's requests in the queue; None: as many as fit.
        """
        self._reactor = reactor
        self.places = self._free = places
        self.queue_size = queue_size
        self._queue_timeout_s = queue_timeout_s
        self._queue_per_caller = queue_per_caller
        # The queue of each caller who waits, in the order in which the callers were last served.
        self._queues: dict[bytes, deque[Deferred[None]]] = {}
        self.waiting = 0
        """The length of the queue."""
        self._running: dict[bytes, int] = {}
        self._admitting = False
        self._idle: list[Deferred[None]] = []

    @property
    def busy(self) -> int:
        """The number of slots in use."""
        return self.places - self._free

    def run(self, caller: bytes, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """
        Call ``start`` when a slot is free, and use that slot until the Deferred it returns has fired.

        Fires with that Deferred's result, or with the exception of ``start``. Fails with GatewayError:
        QUEUE_PER_CALLER at once if the caller has too many requests in the queue; OVERLOADED at once if the queue is
        full, as soon as the queue is full and this caller has the most requests in it, or after ``queue_timeout_s``.
        Cancelling the returned Deferred leaves the queue. Once ``start`` was called, cancelling stops nothing, and the
        slot stays in use until the call has ended.

        :param caller: any value that distinguishes the caller.
        """
        if self._free and not self._queues:
            return self._occupied(caller, start)
        waiting = len(self._queues.get(caller, ()))
        if self._queue_per_caller is not None and waiting >= self._queue_per_caller:
            return fail(_too_many(waiting))
        displaced: Deferred[None] | None = None
        if self.waiting >= self.queue_size:
            displaced = self._displaced(waiting)
            if displaced is None:
                return fail(_overloaded("its queue is full"))
        place: Deferred[None] = Deferred(partial(self._leave, caller))
        self._queues.setdefault(caller, deque()).append(place)
        self.waiting += 1
        if displaced is not None:
            # Last: its client may ask again at once, and then finds the queue full.
            displaced.errback(_overloaded("its queue is full, and others have fewer questions in it"))
        deadline = self._reactor.callLater(self._queue_timeout_s, self._give_up, caller, place)
        return cancel_when_fired(place, deadline).addCallback(lambda _: self._occupied(caller, start))

    def _displaced(self, waiting: int) -> Deferred[None] | None:
        """Remove the newest request of the caller with the most, unless this caller would then have as many."""
        caller = max(self._queues, key=lambda each: len(self._queues[each]), default=None)
        if caller is None or len(self._queues[caller]) <= waiting + 1:
            return None
        place = self._queues[caller][-1]
        self._leave(caller, place)
        return place

    def _occupied(self, caller: bytes, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        # A separate Deferred: cancelling it must not release the slot before the call has ended.
        held: Deferred[T] = Deferred()
        ensureDeferred(self._occupy(caller, start)).chainDeferred(held)
        return held

    async def _occupy(self, caller: bytes, start: Callable[[], Deferred[T]]) -> T:
        self._free -= 1
        self._running[caller] = self._running.get(caller, 0) + 1
        try:
            return await maybeDeferred(start)
        finally:
            self._free += 1
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]
            self._admit_waiting()

    def _admit_waiting(self) -> None:
        # A loop, not recursion: a call that cannot be started ends at once, and calls this again before it returns.
        if self._admitting:
            return
        self._admitting = True
        try:
            while self._free and self._queues:
                # Of those with equally many running calls, the first is the one that has waited longest for its turn.
                caller = min(self._queues, key=lambda each: self._running.get(each, 0))
                queue = self._queues.pop(caller)
                place = queue.popleft()
                self.waiting -= 1
                if queue:
                    self._queues[caller] = queue
                place.callback(None)
        finally:
            self._admitting = False
        if self._free == self.places:
            idle, self._idle = self._idle, []
            for deferred in idle:
                deferred.callback(None)

    def _leave(self, caller: bytes, place: Deferred[None]) -> None:
        queue = self._queues[caller]
        queue.remove(place)
        self.waiting -= 1
        if not queue:
            del self._queues[caller]

    def _give_up(self, caller: bytes, place: Deferred[None]) -> None:
        self._leave(caller, place)
        place.errback(_overloaded("no slot became free in time"))

    def refuse(self, error: Callable[[], GatewayError]) -> None:
        """Reject every request in the queue, each with a new error."""
        while self._queues:
            caller, queue = next(iter(self._queues.items()))
            place = queue[0]
            self._leave(caller, place)
            place.errback(error())

    def when_idle(self) -> Deferred[None]:
        """Fire when no call is running."""
        if self._free == self.places:
            return succeed(None)
        self._idle.append(Deferred())
        return self._idle[-1]


def _overloaded(why: str) -> GatewayError:
    return GatewayError(errors.OVERLOADED, f"The gateway is busy: {why}. Try again shortly.")


def _too_many(waiting: int) -> GatewayError:
    number = "a question" if waiting == 1 else f"{waiting} questions"
    return GatewayError(
        errors.QUEUE_PER_CALLER,
        f"You have {number} waiting in the queue of the gateway already (PROXY_QUEUE_PER_CALLER). Try again shortly.",
    )
