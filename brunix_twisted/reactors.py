"""What the gateway needs of a reactor, so that a test can hand in one whose time it sets itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall


class Reactor(Protocol):
    """The part of IReactorTime and IReactorFromThreads that is used."""

    def seconds(self) -> float:
        """Seconds on a clock that only differences are taken of."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> IDelayedCall:  # noqa: A002, ANN401 - IReactorTime
        """Run something on the reactor's thread after this many seconds."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> None:  # noqa: A002, ANN401 - IReactorFromThreads
        """Run something on the reactor's thread soon; from any thread."""
