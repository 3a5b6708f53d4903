"""The part of a reactor that the gateway uses, and a monotonic clock for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

T = TypeVar("T")


class Reactor(Protocol):
    """The part of IReactorTime and IReactorFromThreads that the gateway uses."""

    def seconds(self) -> float:
        """Return the time in seconds; only differences are meaningful."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> IDelayedCall:  # noqa: A002, ANN401 - IReactorTime
        """Call a function on the reactor's thread after ``delay`` seconds."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> None:  # noqa: A002, ANN401 - IReactorFromThreads
        """Call a function on the reactor's thread soon. May be called from any thread."""


def use_monotonic_clock(reactor: Any) -> None:  # noqa: ANN401 - no type covers a reactor
    """
    Make a reactor use the monotonic clock. Call it before the reactor runs.

    Twisted's reactors read ``time.time``. When an administrator or NTP sets that clock back, every timer stops until
    the clock has caught up; when it is set forward, every timer fires at once. All timers of a reactor, including
    ``LoopingCall`` and ``addTimeout``, read the clock through the reactor's attribute ``seconds``.
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
