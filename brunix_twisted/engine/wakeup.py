"""
The wake-ups of the reactor, shared by all workers.

A wake-up costs a system call on either side and a change of threads, and it is needed for the first text only: whatever
else has come until the reactor comes round is fetched in the same turn. And where texts come from everywhere, the
reactor comes round by itself a moment later, and nobody has to wake it at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from brunix_twisted.runtime.reactors import Reactor

# Measured at 500 streams: a pause of this length saves half the cost of a token, and one of twice the length no more.
_PAUSE_S: Final = 0.001

# So many at once are taken for a sign of more to come. At 100 streams of 20 tokens a second it seldom is so, and then
# nobody waits.
_MANY: Final = 4


class ReactorWaker:
    """Calls functions on the reactor's thread, for workers that have something there."""

    _log = Logger()

    def __init__(self, reactor: Reactor) -> None:
        """Ring at a reactor."""
        self.reactor = reactor
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False
        """Whether the reactor is going to come by."""

    def schedule(self, function: Callable[[], None]) -> None:
        """Have a function called soon on the reactor's thread. From any thread."""
        self._waiting.append(function)
        # Two threads may find it so at once; that costs a wake-up and nothing else. What is appended before the flag
        # is seen set is there before it is cleared, so nothing stays behind.
        if not self._scheduled:
            self._wake(self.reactor.callFromThread, self._run_pending)

    def _wake(self, schedule: Callable[..., object], *arguments: object) -> None:
        self._scheduled = True
        try:
            schedule(*arguments)
        except BaseException:
            # The next text is to try again; otherwise no stream would ever be served again.
            self._scheduled = False
            raise

    def _run_pending(self) -> None:
        self._scheduled = False
        waiting = self._waiting
        count = len(waiting)
        for _ in range(count):
            try:
                waiting.popleft()()
            except Exception:  # noqa: BLE001 - one stream's failure must not keep the others waiting
                self._log.failure("A stream could not be served")
        if count >= _MANY and not self._scheduled:
            self._wake(self.reactor.callLater, _PAUSE_S, self._run_pending)
