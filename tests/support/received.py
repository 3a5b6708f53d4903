"""What comes out of a connection or a response, piece by piece."""

from __future__ import annotations

from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ClientCreator, Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from fake_reactor import LIMIT_S


class Received(Protocol):
    """Gathers what is received, and tells when something has come."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended: Deferred[None] = _limited()
        """Fires at the end, however it came."""
        self._wanted = b""
        self._found: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - IProtocol
        self.ended.callback(None)

    def until(self, wanted: bytes) -> Deferred[None]:
        """Fire once this has come."""
        self._wanted, self._found = wanted, _limited()
        found = self._found
        self._look()
        return found

    def leave(self) -> None:
        """Close the connection, whatever is still to come."""
        cast("Connection", self.transport).loseConnection()

    def _look(self) -> None:
        if self._found is not None and self._wanted in self.data:
            found, self._found = self._found, None
            found.callback(None)


def _limited() -> Deferred[None]:
    return Deferred[None]().addTimeout(LIMIT_S, cast("IReactorTime", reactor))


async def connect(url: str, data: bytes = b"") -> Received:
    """Open a connection of its own to a server, and send this as it is."""
    host, _, port = url.removeprefix("http://").partition(":")
    received: Received = await ClientCreator(reactor, Received).connectTCP(host, int(port))
    cast("Connection", received.transport).write(data)
    return received
