"""A channel for connections that carry many requests: what a request would cost each time, they pay once."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel


class LongLivedChannel(HTTPChannel):
    """An HTTP channel that creates no timer for a request, and asks the system for its addresses only once."""

    factory: Any
    _deadline_s: float | None = None
    _timer: IDelayedCall | None = None
    """Fires at the deadline or before it."""
    _host: IAddress | None = None
    _peer: IAddress | None = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the timer."""
        try:
            super().connectionLost(reason)
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def setTimeout(self, period: float | None) -> float | None:
        """
        Set or remove the deadline of what the connection waits for. Returns the previous period.

        Removing it leaves the timer, which finds out when it fires. So a request on an open connection creates none.
        """
        previous: float | None = self.timeOut
        self.timeOut = period  # type: ignore[assignment]  # Twisted's timers take fractions of a second too
        if period is None:
            self._deadline_s = None
            return previous
        self._deadline_s = deadline_s = self.factory.clock.seconds() + period
        if self._timer is None:
            self._timer = self.callLater(period, self._timer_fired)
        elif self._timer.getTime() > deadline_s:
            self._timer.reset(period)
        return previous

    def _timer_fired(self) -> None:
        self._timer = None
        if self._deadline_s is None:
            return
        remaining_s = self._deadline_s - self.factory.clock.seconds()
        if remaining_s > 0:
            self._timer = self.callLater(remaining_s, self._timer_fired)
        else:
            self._deadline_s = None
            self.timeoutConnection()

    def resetTimeout(self) -> None:
        """Restart the current timeout, if there is one."""
        if self.timeOut is not None and self._deadline_s is not None:
            self._deadline_s = self.factory.clock.seconds() + self.timeOut

    def getHost(self) -> IAddress:
        """Return this end's address. The base class asks the system each time."""
        if self._host is None:
            self._host = super().getHost()
        return self._host

    def getPeer(self) -> IAddress:
        """Return the other end's address."""
        if self._peer is None:
            self._peer = super().getPeer()
        return self._peer
