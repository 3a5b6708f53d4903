"""What the gateway writes to its log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogLevel, eventAsText, globalLogPublisher
from zope.interface import implementer

from fake_reactor import LIMIT_S


@implementer(ILogObserver)
class LogLines:
    """Everything that is logged, as it would be written, and which of it is an error."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.errors: list[str] = []
        self._wanted = ""
        self._found: Deferred[None] | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if text.startswith(("Starting factory", "Stopping factory")):
            # The test's own client.
            return
        self.texts.append(text)
        if event["log_level"] in {LogLevel.error, LogLevel.critical}:
            self.errors.append(text)
        self._look()

    def of_requests(self) -> list[str]:
        """List the lines that tell of requests' ends."""
        return [text for text in self.texts if " bytes " in text]

    def until(self, wanted: str) -> Deferred[None]:
        """Fire once a line has this in it."""
        found = Deferred[None]().addTimeout(LIMIT_S, cast("IReactorTime", reactor))
        self._wanted, self._found = wanted, found
        self._look()
        return found

    def _look(self) -> None:
        if self._found is not None and any(self._wanted in text for text in self.texts):
            found, self._found = self._found, None
            found.callback(None)


@contextmanager
def log_lines() -> Iterator[LogLines]:
    """Read along while something happens."""
    lines = LogLines()
    globalLogPublisher.addObserver(lines)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(lines)
