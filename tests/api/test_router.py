"""From a request to its route, and what happens to what the route does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from brunix_twisted import errors
from brunix_twisted.api.router import Router
from brunix_twisted.api.routes import refuse
from brunix_twisted.config import cors_origins
from brunix_twisted.errors import GatewayError
from brunix_twisted.http.channel import Bounds
from brunix_twisted.http.site import GatewayRequest, GatewaySite
from log_lines import LogLines, log_lines
from raw_http import replies


class Routes:
    """One route of each kind."""

    app = Klein()

    def __init__(self) -> None:
        self.cancelled = False
        self.waited: Deferred[bytes] = Deferred(self._cancel)

    def _cancel(self, _: Deferred[bytes]) -> None:
        self.cancelled = True

    @app.route("/exact", methods=["GET"])
    def exact(self, request: GatewayRequest) -> bytes:
        request.setHeader(b"Content-Length", b"5")
        return b"exact"

    @app.route("/named/<name>", methods=["GET"])
    def named(self, request: GatewayRequest, name: str) -> bytes:
        request.setHeader(b"Content-Length", b"%d" % len(name))
        return name.encode()

    @app.route("/wait", methods=["GET"])
    async def wait(self, _: GatewayRequest) -> bytes:
        return await self.waited

    @app.route("/refuse", methods=["GET"])
    def refuse(self, _: GatewayRequest) -> bytes:
        raise GatewayError(errors.OVERLOADED, "busy")

    @app.route("/break", methods=["GET"])
    def broken(self, _: GatewayRequest) -> bytes:
        raise MemoryError


class Connection:
    """A connection to these routes."""

    def __init__(self, *, breaks_again: bool = False) -> None:
        def failed(request: GatewayRequest, failure: Failure) -> bytes:
            if breaks_again:
                raise MemoryError
            assert isinstance(failure.value, GatewayError)
            return refuse(request, failure.value)

        self.routes = Routes()
        site = GatewaySite(
            Router(self.routes.app, failed),
            reactor=Clock(),
            refuse=refuse,
            origins=cors_origins.read("*"),
            bounds=Bounds(max_body_bytes=9, max_header_bytes=999, headers_timeout_s=9, body_timeout_s=9),
        )
        self.channel = site.buildProtocol(None)
        assert self.channel is not None
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)

    def get(self, path: str) -> list[tuple[int, bytes]]:
        """Request a path; return the responses so far."""
        assert self.channel is not None
        self.channel.dataReceived(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return [(reply.status, reply.body) for reply in replies(self.transport.value())]


@pytest.fixture
def log() -> Iterator[LogLines]:
    with log_lines() as lines:
        yield lines


def test_both_kinds_of_path() -> None:
    """A path is looked up where it is not."""
    connection = Connection()
    assert connection.get("/exact") == [(200, b"exact")]
    assert connection.get("/named/x")[-1] == (200, b"x")


def test_a_route_that_refuses(log: LogLines) -> None:
    """A refusal becomes an internal error."""
    assert Connection().get("/refuse")[0][0] == errors.OVERLOADED.status
    assert log.errors == []


@pytest.mark.parametrize(("path", "breaks_again"), [("/break", False), ("/refuse", True)])
def test_a_route_that_breaks(log: LogLines, path: str, *, breaks_again: bool) -> None:
    """A client waits for a response that never comes, because the gateway has failed."""
    assert Connection(breaks_again=breaks_again).get(path)[0][0] == errors.INTERNAL.status
    assert len(log.errors) == 1


def test_a_client_that_disconnects(log: LogLines) -> None:
    """A route goes on for a client that has gone, or the log is full of its cancellation."""
    connection = Connection()
    assert connection.get("/wait") == []
    assert connection.channel is not None
    connection.channel.connectionLost(Failure(ConnectionError()))
    assert connection.routes.cancelled
    assert log.errors == []
