"""One health check of the engine for all requests that arrive at about the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

MAX_AGE_S: Final = 0.5
"""How long a result is reused: less than the interval of any health check, and a limit for clients that poll."""


class SharedCheck:
    """A check whose result is shared. All methods belong to the reactor's thread."""

    def __init__(self, check: Callable[[], Deferred[str | None]], seconds: Callable[[], float]) -> None:
        """
        Check nothing yet.

        :param check: fires with None if the engine is healthy, otherwise with the reason.
        :param seconds: a monotonic clock.
        """
        self._check = check
        self._seconds = seconds
        self._waiting: list[Deferred[str | None]] = []
        self._checking = False
        self._result: tuple[str | None, float] | None = None

    def __call__(self) -> Deferred[str | None]:
        """
        Check, or share a check that is running or has just ended.

        Cancelling the Deferred does not cancel the check, which others may wait for.
        """
        if self._result is not None:
            unhealthy_reason, ended_s = self._result
            if self._seconds() - ended_s < MAX_AGE_S:
                return succeed(unhealthy_reason)
            self._result = None
        waiter: Deferred[str | None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        if not self._checking:
            self._checking = True
            try:
                checked = self._check()
            except Exception:  # noqa: BLE001 - every exception is a result
                checked = fail()
            checked.addCallbacks(self._succeeded, self._failed)
        return waiter

    def _succeeded(self, unhealthy_reason: str | None) -> None:
        self._result = unhealthy_reason, self._seconds()
        for waiter in self._all():
            waiter.callback(unhealthy_reason)

    def _failed(self, failure: Failure) -> None:
        for waiter in self._all():
            waiter.errback(failure)

    def _all(self) -> list[Deferred[str | None]]:
        self._checking = False
        waiting, self._waiting = self._waiting[:], []
        return waiting
