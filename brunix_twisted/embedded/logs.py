"""The engine's log: written to standard error by a thread, so that no call waits for whoever reads it."""

import logging
import os
import sys
from contextlib import suppress
from queue import Full, Queue
from threading import Thread
from typing import Final

MAX_LINES: Final = 4096
FLUSH_S: Final = 1.0
"""How long the end of the process waits for lines that have not been written."""


class BackgroundHandler(logging.Handler):
    """Writes to a descriptor. While too many lines wait, more are dropped; then it tells how many."""

    def __init__(self, descriptor: int) -> None:
        """Start the thread; it ends with the process."""
        super().__init__()
        self._descriptor = descriptor
        self._lines: Queue[bytes] = Queue(MAX_LINES)
        self._dropped = 0
        Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line. The handler's lock is held."""
        try:
            if self._dropped:
                self._lines.put_nowait(b"%d log lines dropped: they were not read in time\n" % self._dropped)
                self._dropped = 0
            self._lines.put_nowait(f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))
        except Full:
            self._dropped += 1

    def _run(self) -> None:
        while True:
            rest = self._lines.get()
            # A reader that is gone cannot be told.
            with suppress(OSError):
                # Not by sys.stderr, whose lock Python takes when it ends.
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            self._lines.task_done()

    def finish(self) -> None:
        """Wait a short time until everything is written."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, FLUSH_S)


def log_to_standard_error() -> BackgroundHandler:
    """Set up logging for the process."""
    handler = BackgroundHandler(sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[handler])
    return handler
