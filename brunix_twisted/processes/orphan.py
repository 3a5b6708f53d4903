"""
End a gateway process whose supervisor has exited, even if the process's reactor hangs.

This module imports only the standard library, so that it works before imports that may hang.
"""

from __future__ import annotations

import os
import select
import signal
import threading

_CLOSED = select.POLLHUP | select.POLLERR | select.POLLNVAL


class SupervisorWatch:
    """Watches the pipe from the supervisor on a separate thread, without reading from it."""

    def __init__(self, descriptor: int) -> None:
        """Start to watch. Until :meth:`serves` is called, the process exits as soon as the pipe is closed."""
        self._descriptor = descriptor
        self._exit_s = 0.0
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="supervisor", daemon=True).start()

    def serves(self, exit_s: float) -> None:
        """
        Leave the drain to the reactor, which from now on notices the end of the pipe itself.

        :param exit_s: maximum time from the end of the pipe to the exit, after which an alarm kills the process.
        """
        with self._lock:
            self._exit_s = exit_s

    def _watch(self) -> None:
        poll = select.poll()
        # No events: the end of the pipe is always reported.
        poll.register(self._descriptor, 0)
        while not any(event & _CLOSED for _, event in poll.poll()):
            pass
        with self._lock:
            if not self._exit_s:
                os._exit(0)
            # SIGALRM kills the process even if no Python thread can run.
            signal.setitimer(signal.ITIMER_REAL, self._exit_s)
