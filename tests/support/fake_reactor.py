"""A reactor whose time and turns a test makes itself."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.task import Clock

from brunix_twisted.runtime.reactors import Reactor

LIMIT_S = 60
"""Only for what would otherwise hang a failing run."""


class FakeReactor:
    """Twisted's Clock, and calls from threads that wait for the test to let them run."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._from_threads: queue.Queue[Callable[[], object]] = queue.Queue()
        self.seconds = self._clock.seconds
        self.callLater = self._clock.callLater
        self.advance = self._clock.advance
        self.pump = self._clock.pump

    def callFromThread(self, function: Callable[..., Any], *arguments: Any) -> None:  # noqa: ANN401 - IReactorFromThreads
        self._from_threads.put(lambda: function(*arguments))

    def wakes(self) -> int:
        """How many calls from threads are waiting."""
        return self._from_threads.qsize()

    def turn(self) -> None:
        """Run what was waiting when the turn began."""
        for _ in range(self.wakes()):
            self._from_threads.get_nowait()()

    def wait(self) -> None:
        """Run the next call from a thread; blocks until there is one."""
        self._from_threads.get(timeout=LIMIT_S)()

    def delayed_calls(self) -> list[float]:
        """When, in seconds, something is still going to happen."""
        return [call.getTime() for call in self._clock.getDelayedCalls()]

    @property
    def as_reactor(self) -> Reactor:
        return cast("Reactor", self)
