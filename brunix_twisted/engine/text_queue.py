"""
The queue between the engine's stream and the client's.

The first text wakes the reactor; texts that arrive until the reactor runs are sent in the same write. So a fast engine
costs at most one wake-up per reactor iteration, and a slow client costs one worker and limited memory.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


class TextBuffer:
    """Texts in order, and the memory they occupy. Not thread-safe: use it on one thread, or with a lock."""

    __slots__ = ("_notified", "_texts", "bytes")

    def __init__(self) -> None:
        """Start empty."""
        self._texts: list[str] = []
        self._notified = False
        self.bytes = 0

    def __bool__(self) -> bool:
        """Whether there are texts to take."""
        return bool(self._texts)

    def add(self, text: str) -> bool:
        """Add a text; return whether to notify the consumer: False if it was notified, and has not taken them yet."""
        self._texts.append(text)
        self.bytes += sys.getsizeof(text)
        notify = not self._notified
        self._notified = True
        return notify

    def take(self, about_bytes: int = sys.maxsize) -> list[str]:
        """
        Remove and return the oldest texts, until they occupy ``about_bytes`` of memory.

        :meth:`add` does not report texts that remain, so call this again for them.
        """
        if self.bytes <= about_bytes:
            texts = self._texts
            self.clear()
            return texts
        count = taken_bytes = 0
        while taken_bytes < about_bytes:
            taken_bytes += sys.getsizeof(self._texts[count])
            count += 1
        texts = self._texts[:count]
        del self._texts[:count]
        self.bytes -= taken_bytes
        self._notified = bool(self._texts)
        return texts

    def clear(self) -> None:
        """Discard all texts."""
        self._texts = []
        self._notified = False
        self.bytes = 0


class TextQueue:
    """
    Passes texts from a worker's thread to the reactor's thread.

    One lock guards all of its state.
    """

    def __init__(self, wake: Callable[[], None], max_bytes: int) -> None:
        """
        Create an open, empty queue.

        :param wake: called on the worker's thread when there is text to take, and not again before :meth:`take`.
        :param max_bytes: of memory. While the texts occupy more, :meth:`put` blocks.
        """
        self._wake = wake
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._room: threading.Condition | None = None
        """Created when it is needed: few answers fill their queue, and creating it takes longer than a text."""
        self._texts = TextBuffer()
        self._closed = False

    def put(self, text: str, *, last: bool = False) -> bool:
        """
        Add a text; block while the queue is full. Call this on the worker's thread.

        Return False once the queue is closed: no more text is needed.

        :param last: whether the call ends right after this text. The end wakes the reactor anyway, and a second wake-up
            would be half the cost of an answer that is one message.
        """
        with self._lock:
            # A closed one is empty.
            while self._texts.bytes >= self._max_bytes:
                self._room = self._room or threading.Condition(self._lock)
                self._room.wait()
            if self._closed:
                return False
            wake = self._texts.add(text)
        if wake and not last:
            self._wake()
        return True

    def take(self, about_bytes: int = sys.maxsize) -> list[str]:
        """See :meth:`TextBuffer.take`. Call this on the reactor's thread."""
        with self._lock:
            texts = self._texts.take(about_bytes)
            if self._room is not None:
                self._room.notify()
        return texts

    @property
    def is_empty(self) -> bool:
        """Whether there are no texts to take. Use this on the reactor's thread."""
        # Without the lock: a text that is being added is reported later.
        return not self._texts

    def close(self) -> None:
        """Close the queue, discard its texts and unblock the worker. Call this on any thread, any number of times."""
        with self._lock:
            self._closed = True
            self._texts.clear()
            if self._room is not None:
                self._room.notify()
