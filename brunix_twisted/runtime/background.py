"""
Write lines on a background thread.

Writing to a pipe that is not read blocks. The background thread may block; the threads that log never do.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

MAX_BYTES: Final = 1024 * 1024
"""Maximum size of the lines that wait to be written."""
FLUSH_S: Final = 1.0
"""How long the exit of the process waits, in total, for lines that have not been written."""
# Maximum size of one write: few system calls for many lines, and little to lose when the process is killed.
_WRITE_BYTES: Final = 64 * 1024
# How long a line waits for others to be written with it. Waking the thread for each line would take longer than
# formatting it, because the threads take turns in the interpreter.
_GATHER_S: Final = 0.01


def write_all(descriptor: int, data: bytes) -> None:
    """
    Write all data to a descriptor, in blocking or non-blocking mode.

    :raises OSError: the write failed.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Another program that shares the descriptor may have made it non-blocking.
            select.select([], [descriptor], [])


class BackgroundWriter:
    """
    A bounded queue of lines, and the daemon thread that writes them in order.

    When the queue is full, new lines are dropped until half of it has been written; then one line reports how many.
    Methods may be called from any thread. After a fork, the child has an empty queue and starts a new thread.
    """

    def __init__(
        self, write: Callable[[bytes], object], describe_dropped: Callable[[int], bytes], max_bytes: int = MAX_BYTES
    ) -> None:
        """
        Start nothing yet: the thread starts with the first line.

        :param write: writes one or more whole lines; may block. If it raises OSError or ValueError, they are lost.
        :param describe_dropped: returns the line that reports the number of dropped lines.
        :param max_bytes: maximum size of the queue.
        """
        self._write = write
        self._describe_dropped = describe_dropped
        self._max_bytes = max_bytes
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        # Reentrant: Twisted logs in its signal handlers, which may interrupt a thread that holds the lock.
        self._changed = threading.Condition(threading.RLock())
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        """Size of the lines that wait or are being written."""
        self._dropped = 0
        self._is_idle = False
        """Whether the thread waits for lines, and must be notified."""
        self._flushing = 0
        """The number of threads that wait until everything is written."""
        self._thread: threading.Thread | None = None
        self._flush_s = FLUSH_S

    def put(self, line: bytes, *, keep: bool = False) -> None:
        """
        Queue a line. Never blocks.

        :param keep: queue it even if the queue is full.
        """
        if self._pid != os.getpid():
            self._reset()
        with self._changed:
            max_bytes = self._max_bytes // 2 if self._dropped else self._max_bytes
            if self._bytes + len(line) > max_bytes and self._bytes and not keep:
                self._dropped += 1
                return
            if self._dropped and not keep:
                self._add(self._describe_dropped(self._dropped))
                self._dropped = 0
            self._add(line)
            if self._is_idle:
                self._is_idle = False
                self._changed.notify_all()
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        # If the system cannot start a thread, the line stays in the queue, and the next line tries again.
        with suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """
        Wait until everything is written; return whether it is.

        All calls together wait no longer than `FLUSH_S`, so that a process always ends.
        """
        if self._pid != os.getpid():
            return True
        began_s = time.monotonic()
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            written = self._changed.wait_for(
                lambda: not self._bytes and not self._dropped, min(timeout_s, self._flush_s)
            )
            self._flushing -= 1
            self._flush_s = max(0.0, self._flush_s - (time.monotonic() - began_s))
        return written

    def _run(self) -> None:
        while True:
            data = self._next()
            # The reader is gone, and there is nowhere else to report it.
            with suppress(OSError, ValueError):
                self._write(data)
            with self._changed:
                self._bytes -= len(data)

    def _next(self) -> bytes:
        with self._changed:
            while not self._lines:
                if self._dropped:
                    self._add(self._describe_dropped(self._dropped))
                    self._dropped = 0
                    break
                self._is_idle = True
                self._changed.notify_all()
                self._changed.wait()
            self._changed.wait_for(lambda: self._flushing, _GATHER_S)
            taken = [self._lines.popleft()]
            size = len(taken[0])
            while self._lines and size + len(self._lines[0]) <= _WRITE_BYTES:
                taken.append(self._lines.popleft())
                size += len(taken[-1])
        return b"".join(taken)
