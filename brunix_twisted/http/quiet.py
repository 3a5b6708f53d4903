"""Wait until idle connections are no longer used."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class QuietPeriod:
    """
    Waits until no request has ended for some time.

    A proxy that keeps its connections open sends the next request over any of them, and does not repeat it if the
    connection is closed meanwhile. While a gateway stops, each response closes its connection. So those that are left
    after a quiet period are the ones that the proxy does not use.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """Wait for nothing yet."""
        self._clock = clock
        self._disturbed_s = 0.0
        self._until_s = 0.0
        self._quiet_s = 0.0
        self._waiting: Deferred[None] | None = None
        self._look_again: IDelayedCall | None = None

    def disturb(self) -> None:
        """Note that a request has ended."""
        self._disturbed_s = self._clock.seconds()

    def wait(self, quiet_s: float, timeout_s: float) -> Deferred[None]:
        """Fire when no request has ended for ``quiet_s`` seconds, at :meth:`end`, or after ``timeout_s`` seconds."""
        if timeout_s <= 0:
            return succeed(None)
        self.disturb()
        self._quiet_s, self._until_s = quiet_s, self._clock.seconds() + timeout_s
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        self._look()
        return waiting

    def _look(self) -> None:
        self._look_again = None
        wait_s = min(self._until_s, self._disturbed_s + self._quiet_s) - self._clock.seconds()
        if wait_s > 0:
            self._look_again = self._clock.callLater(wait_s, self._look)
        else:
            self.end()

    def end(self) -> None:
        """Stop waiting, because there is no connection left."""
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
