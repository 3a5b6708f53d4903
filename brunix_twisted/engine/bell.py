"""
The wake-ups of the reactor, shared by all workers.

A wake-up costs a system call on either side and a change of threads, and it is needed for the first text only: whatever
else has come until the reactor comes round is fetched in the same turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from brunix_twisted.reactors import Reactor

TICK_S = 0.001


class Bell:
    """Calls functions on the reactor's thread, for workers that have something there."""

    def __init__(self, reactor: Reactor, tick_s: float = TICK_S) -> None:
        """Ring at a reactor."""
        self.reactor = reactor
        self._tick_s = tick_s
        self._waiting: deque[Callable[[], None]] = deque()
        self._rung = False
        self._answered_s = 0.0

    def ring(self, function: Callable[[], None]) -> None:
        """Have a function called soon on the reactor's thread. From any thread."""
        self._waiting.append(function)
        # Two threads may find it so at once; that costs a wake-up and nothing else. What is appended before the flag
        # is seen set is there before it is cleared, so nothing stays behind.
        if not self._rung:
            self._rung = True
            self.reactor.callFromThread(self._answer)

    def _answer(self) -> None:
        self._rung = False
        waiting = self._waiting
        for _ in range(len(waiting)):
            waiting.popleft()()
