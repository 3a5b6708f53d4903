"""
Wake-ups of the reactor, shared by all workers.

A wake-up costs two system calls and a thread switch. Only the first text needs one: texts that arrive until the reactor
runs are taken in the same iteration. If many streams are active, the reactor polls after a short pause instead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from brunix_twisted.runtime.reactors import Reactor

_log = Logger("brunix.engine")

# Measured at 500 streams: this pause halves the cost of a token, and a pause twice as long saves no more.
_PAUSE_S: Final = 0.001

# With this many calls in one iteration, more are expected, and the reactor polls. At 100 streams of 20 tokens per
# second that is rare, so their texts do not wait for the pause.
_MIN_CALLS_TO_POLL: Final = 4


class ReactorWaker:
    """Runs functions of the workers on the reactor's thread."""

    def __init__(self, reactor: Reactor) -> None:
        """Wake this reactor."""
        self.reactor = reactor
        self._pending: deque[Callable[[], None]] = deque()
        self._scheduled = False
        """Whether the reactor is going to run the pending functions."""

    def schedule(self, function: Callable[[], None]) -> None:
        """Run a function soon on the reactor's thread. Call this on any thread."""
        self._pending.append(function)
        # Two threads may see the flag unset at once; that costs a wake-up and nothing else. A function appended before
        # the flag is seen set is in the queue before the flag is cleared, so none is missed.
        if not self._scheduled:
            self._wake(self.reactor.callFromThread, self._run_pending)

    def _wake(self, schedule: Callable[..., object], *arguments: object) -> None:
        self._scheduled = True
        try:
            schedule(*arguments)
        except BaseException:
            # Let the next text try again; otherwise no stream would continue.
            self._scheduled = False
            raise

    def _run_pending(self) -> None:
        self._scheduled = False
        pending = self._pending
        count = len(pending)
        for _ in range(count):
            try:
                pending.popleft()()
            except Exception:  # noqa: BLE001 - one stream's failure must not stop the others
                _log.failure("Processing a stream failed")
        if count >= _MIN_CALLS_TO_POLL and not self._scheduled:
            self._wake(self.reactor.callLater, _PAUSE_S, self._run_pending)
