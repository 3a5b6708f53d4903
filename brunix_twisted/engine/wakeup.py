"""
Wake-ups of the reactor, shared by all workers.

A wake-up costs two system calls and a thread switch. Only the first text needs one: texts that arrive until the reactor
runs are taken in the same iteration. If many streams are active, the reactor polls after a short pause instead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
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
        self._reactor = reactor
        self._pending: deque[Callable[[], object]] = deque()
        self._scheduled = False
        """Whether the reactor is going to run the pending functions at once."""
        self._polling = False
        """Whether the reactor is going to run them after a pause."""

    def schedule(self, function: Callable[[], object]) -> None:
        """Run a function soon on the reactor's thread. Call this on any thread."""
        self._pending.append(function)
        # Two threads may see the flags unset at once; that costs a wake-up and nothing else. A function appended before
        # a flag is seen set is in the queue before the flag is cleared, so none is missed.
        if not self._scheduled and not self._polling:
            self._wake()

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """
        Run a function at once on the reactor's thread, together with all others. Call this on any thread.

        The end of a call uses it: an answer must not wait for the pause, and another need not be reported separately.
        """
        self._pending.append(partial(function, *arguments))
        if not self._scheduled:
            self._wake()

    def _wake(self) -> None:
        self._scheduled = True
        try:
            self._reactor.callFromThread(self._run_pending)
        except BaseException:
            # Let the next text try again; otherwise no stream would continue.
            self._scheduled = False
            raise

    def _poll(self) -> None:
        self._polling = False
        self._run_pending()

    def _run_pending(self) -> None:
        self._scheduled = False
        pending = self._pending
        count = len(pending)
        for _ in range(count):
            try:
                pending.popleft()()
            except Exception:  # noqa: BLE001 - one stream's failure must not stop the others
                _log.failure("Processing a stream failed")
        if count >= _MIN_CALLS_TO_POLL and not self._scheduled and not self._polling:
            self._reactor.callLater(_PAUSE_S, self._poll)
            # Last: if the timer cannot be set, the next text wakes the reactor.
            self._polling = True
