"""What the gateway needs of a reactor, and the clock that a reactor measures time with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

T = TypeVar("T")


class Reactor(Protocol):
    """The part of IReactorTime and IReactorFromThreads that is used."""

    def seconds(self) -> float:
        """Seconds on a clock that only differences are taken of."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> IDelayedCall:  # noqa: A002, ANN401 - IReactorTime
        """Run something on the reactor's thread after this many seconds."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> None:  # noqa: A002, ANN401 - IReactorFromThreads
        """Run something on the reactor's thread soon; from any thread."""


def use_monotonic_clock(reactor: Any) -> None:  # noqa: ANN401 - what a reactor is, no type says
    """
    Make a reactor measure time with a clock that is never set. Call it before the reactor runs.

    Twisted's reactors read ``time.time``. When an administrator or NTP sets that clock back, every timer stops until
    the clock has caught up; when it is set forward, every timer fires at once. All of a reactor's timers, of
    ``callLater``, ``LoopingCall`` and ``addTimeout`` alike, read the clock through its attribute ``seconds``.
    """
    before, now = reactor.seconds, time.monotonic
    if before is now:
        return
    shift_s = now() - before()
    for call in reactor.getDelayedCalls():
        call.time += shift_s
        call.seconds = now
    reactor.seconds = now


def cancel_when_fired(deferred: Deferred[T], *deadlines: IDelayedCall) -> Deferred[T]:
    """
    Cancel deadlines when a Deferred fires, with a result or with a failure.

    :return: the same Deferred.
    """

    def fired(result: Any) -> Any:  # noqa: ANN401 - passed on as it is
        for deadline in deadlines:
            if deadline.active():
                deadline.cancel()
        return result

    return deferred.addBoth(fired)
