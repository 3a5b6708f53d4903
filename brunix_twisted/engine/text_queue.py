"""
What waits between the engine and the client.

The first text wakes the reactor, once; whatever has gathered until the reactor comes round goes out in one write. So
what a fast engine can cost is one wake-up a reactor turn, however many tokens it sends, and what a slow client can cost
is one worker and a bounded piece of memory.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


class TextBuffer:
    """Texts in order, and how much memory they take. For one thread, or under somebody's lock."""

    __slots__ = ("_texts", "_told", "bytes")

    def __init__(self) -> None:
        """Start empty."""
        self._texts: list[str] = []
        self._told = False
        self.bytes = 0

    def __bool__(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._texts)

    def add(self, text: str) -> bool:
        """Add a text; returns whether somebody has to be told: whoever was told before has not taken it yet."""
        self._texts.append(text)
        self.bytes += sys.getsizeof(text)
        tell = not self._told
        self._told = True
        return tell

    def take(self, about_bytes: int = sys.maxsize) -> list[str]:
        """
        Take the oldest texts, hardly more than so much memory of them.

        Whoever leaves some behind has to come back for them: nobody is told of what is there already.
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
        self._told = bool(self._texts)
        return texts

    def clear(self) -> None:
        """Forget what is there."""
        self._texts = []
        self._told = False
        self.bytes = 0


class TextQueue:
    """
    Texts on their way from a worker's thread to the reactor's.

    The only state that the two threads share. One lock guards all of it.
    """

    def __init__(self, wake: Callable[[], None], max_bytes: int) -> None:
        """
        Start empty and open.

        :param wake: called on the worker's thread when there is something to take, and then not again before it was
            taken.
        :param max_bytes: of memory; a worker that has put more waits.
        """
        self._wake = wake
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._texts = TextBuffer()
        self._closed = False

    def put(self, text: str, *, last: bool = False) -> bool:
        """
        Add a text; wait while there is no room. On the worker's thread.

        Returns whether more is wanted: False once the mailbox is closed.

        :param last: whether the reactor hears of the call's end right after this anyway, and looks here then: a second
            wake-up for nothing would be half the cost of an answer in one piece.
        """
        with self._lock:
            # A closed one is empty.
            while self._texts.bytes >= self._max_bytes:
                self._room.wait()
            if self._closed:
                return False
            wake = self._texts.add(text)
        if wake and not last:
            self._wake()
        return True

    def take(self, about_bytes: int = sys.maxsize) -> list[str]:
        """See :meth:`TextBuffer.take`. On the reactor's thread."""
        with self._lock:
            texts = self._texts.take(about_bytes)
            self._room.notify()
        return texts

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take. On the reactor's thread."""
        with self._lock:
            return not self._texts

    def close(self) -> None:
        """Want no more, and let go of a worker that waits for room. On any thread, any number of times."""
        with self._lock:
            self._closed = True
            self._texts.clear()
            self._room.notify()
