"""
Ends a gateway process whose supervisor has gone, also while nothing of the gateway's can notice.

It imports nothing but the standard library, so that it is at work before the imports that may hang.
"""

from __future__ import annotations

import os
import select
import signal
import threading

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class SupervisorWatch:
    """Watches the pipe from the supervisor, on a thread that does nothing else and reads nothing from it."""

    def __init__(self, descriptor: int) -> None:
        """Watch from now on: as long as this process does not serve, it ends at once when the pipe does."""
        self._descriptor = descriptor
        self._leave_s = 0.0
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="supervisor", daemon=True).start()

    def serves(self, leave_s: float) -> None:
        """
        From now on the reactor hears of the pipe's end and lets the answers end.

        :param leave_s: how long after that this process may still be there, even if its reactor hangs.
        """
        with self._lock:
            self._leave_s = leave_s

    def _watch(self) -> None:
        poll = select.poll()
        # Only its end, which is always reported.
        poll.register(self._descriptor, 0)
        while not any(event & _GONE for _, event in poll.poll()):
            pass
        with self._lock:
            if not self._leave_s:
                os._exit(0)
            # The alarm needs neither this thread nor Python's.
            signal.setitimer(signal.ITIMER_REAL, self._leave_s)
