"""
The seam between the worker that reads the engine and the reactor that writes to the client.

The first text wakes the reactor, once; whatever has gathered until the reactor comes round goes out in one write. So
what a fast engine can cost is one wake-up a reactor turn, however many tokens it sends, and what a slow client can cost
is one worker and a bounded piece of memory.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


class Mailbox:
    """
    Text on its way from a worker's thread to the reactor's, in order.

    The only state that the two threads share. One condition guards all of it.
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
        self._condition = threading.Condition()
        self._texts: list[str] = []
        self._bytes = 0
        self._awake = False
        self._closed = False

    def put(self, text: str) -> bool:
        """
        Add a text; wait while there is no room. On the worker's thread.

        Returns whether more is wanted: False once the mailbox is closed.
        """
        with self._condition:
            while self._bytes >= self._max_bytes and not self._closed:
                self._condition.wait()
            if self._closed:
                return False
            self._texts.append(text)
            self._bytes += sys.getsizeof(text)
            wake = not self._awake
            self._awake = True
        if wake:
            self._wake()
        return True

    def take(self, about_bytes: int = sys.maxsize) -> list[str]:
        """
        Take the oldest texts, hardly more than so much memory of them. On the reactor's thread.

        Whoever leaves some behind has to come back for them: nobody is woken for what is there already.
        """
        with self._condition:
            if self._bytes <= about_bytes:
                texts, self._texts = self._texts, []
                self._bytes = 0
            else:
                count = taken_bytes = 0
                while taken_bytes < about_bytes:
                    taken_bytes += sys.getsizeof(self._texts[count])
                    count += 1
                texts = self._texts[:count]
                del self._texts[:count]
                self._bytes -= taken_bytes
            self._awake = bool(self._texts)
            self._condition.notify()
        return texts

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take. On the reactor's thread."""
        with self._condition:
            return not self._texts

    def close(self) -> None:
        """Want no more, and let go of a worker that waits for room. On the reactor's thread, any number of times."""
        with self._condition:
            self._closed = True
            self._texts = []
            self._bytes = 0
            self._condition.notify()
