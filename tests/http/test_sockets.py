"""Ports and connections for many streams, over real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IListeningPort, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from brunix_twisted.http.sockets import DirectWriteMixin, configure_port
from gateways import RunningGateway
from received import Received


class Server(Protocol):
    """The gateway's side of a connection."""

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()
        self.events: list[str] = []

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - IProtocol
        self.lost.callback(None)

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")

    def stopProducing(self) -> None:
        self.events.append("stop")


class Pair:
    """Both ends of a connection."""

    def __init__(self, server: Server, client: Received) -> None:
        self.server = server
        self.client = client

    @property
    def transport(self) -> DirectWriteMixin:
        assert isinstance(self.server.transport, DirectWriteMixin)
        return self.server.transport


@pytest_twisted.async_yield_fixture(params=["tcp:0:interface=127.0.0.1", "unix:{}/socket"], ids=["tcp", "unix"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    accepted: Deferred[Server] = Deferred()

    class Accepting(Server):
        def connectionMade(self) -> None:
            accepted.callback(self)

    description = request.param.format(tmp_path)
    port: IListeningPort = await serverFromString(reactor, description).listen(Factory.forProtocol(Accepting))
    configure_port(port)
    host = cast("Any", port.getHost())
    to = f"unix:{tmp_path}/socket" if description.startswith("unix") else f"tcp:127.0.0.1:{host.port}"
    client = await clientFromString(reactor, to).connect(Factory.forProtocol(Received))
    server = await accepted
    yield Pair(server, client)
    cast("ITransport", client.transport).loseConnection()
    await server.lost
    await maybeDeferred(port.stopListening)


def counted(transport: DirectWriteMixin, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count how often the reactor is asked to say that a socket can be written to."""
    asked: list[str] = []
    start = transport.startWriting

    def counting() -> None:
        asked.append("asked")
        start()

    monkeypatch.setattr(transport, "startWriting", counting)
    return asked


@pytest_twisted.ensureDeferred
async def test_a_word_leaves_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each word of each stream costs a turn of the reactor and two more system calls."""
    asked = counted(pair.transport, monkeypatch)
    pair.transport.write(b"word")
    pair.transport.writeSequence([b" and", b" word"])
    assert asked == []
    await pair.client.until(b"word and word")


@pytest_twisted.ensureDeferred
async def test_more_than_the_socket_takes(pair: Pair) -> None:
    """A long answer loses a part, or its parts change places, or a slow client is sent more than it can take."""
    cast("Any", pair.client.transport).pauseProducing()
    pair.transport.registerProducer(pair.server, True)  # noqa: FBT003 - IConsumer's positional "streaming"
    written = b""
    while "pause" not in pair.server.events:
        piece = os.urandom(60_000) if len(written) % 3 else os.urandom(7_000)
        written += piece
        pair.transport.write(piece)
    # It goes on being added behind what waits.
    written += b"the very end"
    pair.transport.write(b"the very end")
    cast("Any", pair.client.transport).resumeProducing()
    await pair.client.until(b"the very end")
    assert pair.client.data == written
    assert (pair.server.events[0], pair.server.events[-1]) == ("pause", "resume")
    pair.transport.unregisterProducer()


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_gone(pair: Pair) -> None:
    """A client that leaves between two words raises an error inside the gateway, or is never noticed."""
    pair.client.leave()
    for _ in range(100):
        pair.transport.write(b"word")
    await pair.server.lost
    pair.transport.write(b"too late")
    assert not pair.transport.connected
    pair.server.lost = Deferred()
    pair.server.lost.callback(None)


@pytest_twisted.ensureDeferred
async def test_the_last_words_of_a_connection(pair: Pair) -> None:
    """What is written right before the gateway closes a connection is lost."""
    pair.transport.write(b"x" * 1_000_000)
    pair.transport.write(b"last words")
    pair.transport.loseConnection()
    await pair.client.until(b"last words")


@pytest_twisted.ensureDeferred
async def test_many_come_at_once(gateway: RunningGateway) -> None:
    """Of two hundred streams that an editor opens together most get their first word a second later."""
    port = cast("Any", gateway.service.port)
    address = ("127.0.0.1", port.getHost().port)
    # The reactor does not turn meanwhile, so nobody accepts.
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(address, timeout=3))


@pytest_twisted.ensureDeferred
async def test_the_gateways_own_connections(gateway: RunningGateway) -> None:
    """The gateway answers, and each word of each stream costs what it was to save."""
    port = cast("Any", gateway.service.port)
    assert issubclass(port.transport, DirectWriteMixin)
