"""The engine's log: a thread writes it to standard error, so that a slow reader never blocks a call.

The gateway has the same in ``brunix_twisted.runtime.background``; the engine is a separate program and shares no code
with it.
"""

import logging
import os
import signal
import sys
from contextlib import suppress
from queue import Full, Queue
from threading import Thread
from typing import Final

MAX_LINES: Final = 4096
FLUSH_S: Final = 1.0
"""Maximum time that the end of the process waits for lines that have not been written."""


class BackgroundHandler(logging.Handler):
    """Write to a descriptor on a separate thread. When the queue is full, drop lines, then log how many."""

    def __init__(self, descriptor: int) -> None:
        """Start the thread; it ends with the process."""
        super().__init__()
        self._descriptor = descriptor
        self._lines: Queue[bytes] = Queue(MAX_LINES)
        self._dropped = 0
        # The thread keeps this mask: a stop signal is for the main thread, which may not wait for it yet. Here it would
        # kill the process.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            Thread(target=self._run, name="log", daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line. Called with the handler's lock held."""
        try:
            if self._dropped:
                self._lines.put_nowait(b"%d log lines dropped: standard error was not read in time\n" % self._dropped)
                self._dropped = 0
            self._lines.put_nowait(f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))
        except Full:
            self._dropped += 1

    def _run(self) -> None:
        while True:
            rest = self._lines.get()
            # If the reader has closed the pipe, there is nowhere to report it.
            with suppress(OSError):
                # Do not use sys.stderr: Python acquires its lock at exit.
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            self._lines.task_done()

    def finish(self) -> None:
        """Wait until all lines are written, for at most FLUSH_S."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, FLUSH_S)


def log_to_standard_error() -> BackgroundHandler:
    """Set up logging for the process."""
    handler = BackgroundHandler(sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[handler])
    return handler
