"""
A small HTTP/1.1 client: h11 for the protocol, plain sockets for the rest.

It reports when each chunk of a body arrived, and gives access to the socket: ``brunix doctor`` measures with it.
"""

from __future__ import annotations

import json
import re
import socket
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, Self

import attrs
import h11

from brunix_twisted.cli.address import GatewayAddress
from brunix_twisted.cli.sockets import (
    CONNECT_TIMEOUT_S,
    DeadlineExceededError,
    DeadlineSocket,
    ResolvedAddress,
    connect_any,
    resolve,
    start_tls,
)

MAX_PAGE_BYTES: Final = 4_000_000
"""A limit for bodies that are only inspected, such as error pages and metrics."""
_MAX_HEAD_BYTES: Final = 65_536


class TruncatedError(ConnectionError):
    """The connection ended before the response was complete."""


class ProtocolError(Exception):
    """The server sent something that is not valid HTTP/1.1."""

    def __init__(self, reason: str, received: bytes) -> None:
        super().__init__(reason)
        self.received = received
        """How the server's bytes begin."""


@attrs.frozen
class Target:
    """The gateway to call, and what to send with every request."""

    address: GatewayAddress
    headers: tuple[tuple[str, str], ...] = ()
    ca: str | None = None
    """A file of CA certificates to trust instead of the system's."""


@attrs.frozen
class Headers:
    """The headers of a response; names are case-insensitive."""

    items: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """Return the first value of a header, or an empty string."""
        return next(iter(self.get_all(name)), "")

    def get_all(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.items if key.lower() == name.lower()]


@attrs.frozen
class FullResponse:
    """A response with its body."""

    status: int
    headers: Headers = Headers()
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the status is 200."""
        return self.status == HTTPStatus.OK

    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """Parse the body; an empty dict if it is not JSON."""
        with suppress(ValueError, RecursionError):
            return json.loads(self.body)
        return {}


@attrs.frozen
class Chunk:
    """A part of a body, and when it arrived by the monotonic clock."""

    data: bytes
    at_s: float


class Response:
    """A response whose headers have arrived."""

    def __init__(self, connection: Connection, head: h11.Response, sent_s: float) -> None:
        self._connection = connection
        self.sent_s = sent_s
        """When the request had been sent, by the monotonic clock."""
        self.head_s = connection.received_s
        """When the headers had arrived."""
        self.status = head.status_code
        self.http_version = head.http_version.decode("ascii")
        self.headers = Headers(tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers))

    @property
    def ok(self) -> bool:
        """Whether the status is 200."""
        return self.status == HTTPStatus.OK

    def chunks(self) -> Iterator[Chunk]:
        """
        Yield the body as it arrives, decompressed.

        :raises TruncatedError: the connection ended before the body did.
        :raises ProtocolError: the framing of the body is invalid.
        """
        compressed = self.headers.get("Content-Encoding").lower() in {"gzip", "x-gzip", "deflate"}
        # 15 is the largest window; 32 more detects whether the format is gzip or zlib.
        decode = zlib.decompressobj(15 + 32).decompress if compressed else bytes
        while isinstance(event := self._connection.next_event(), h11.Data):
            yield Chunk(decode(bytes(event.data)), self._connection.received_s)

    def read(self, max_bytes: int | None = None) -> FullResponse:
        """
        Read the body, or only the first ``max_bytes`` of it.

        Raises what :meth:`chunks` raises.
        """
        body = bytearray()
        for chunk in self.chunks():
            body += chunk.data
            if max_bytes is not None and len(body) >= max_bytes:
                break
        return FullResponse(self.status, self.headers, bytes(body[:max_bytes]))


class Connection:
    """A connection to a gateway, opened by the first request."""

    def __init__(self, target: Target, resolved: ResolvedAddress | None = None) -> None:
        """
        Connect to nothing yet.

        :param resolved: the address to use; by default the first that accepts a connection.
        """
        self._target = target
        self._resolved = resolved
        self._socket: DeadlineSocket | None = None
        self._http = h11.Connection(h11.CLIENT)
        self._received = b""
        self.received_s = 0.0
        """When the latest bytes arrived, by the monotonic clock."""

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection; the gateway cancels a request that is in flight."""
        self.close()

    @property
    def socket(self) -> socket.socket | None:
        """The socket, or its TLS wrapper, while the connection is open."""
        return None if self._socket is None else self._socket.raw

    def open(self, timeout_s: float = CONNECT_TIMEOUT_S) -> DeadlineSocket:
        """
        Connect, unless there is a connection.

        :raises OSError: the connection or the TLS handshake failed.
        """
        if self._socket is None:
            deadline_s = time.monotonic() + timeout_s
            address = self._target.address
            addresses = [self._resolved] if self._resolved else resolve(address.host, address.port, timeout_s)
            connection = connect_any(addresses, deadline_s)
            if address.secure:
                connection = start_tls(connection, address.host, self._target.ca, deadline_s, timeout_s)
            self._socket = DeadlineSocket(connection)
            self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        return self._socket

    def request(  # noqa: PLR0913 - what a request consists of
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 - any JSON value
        *,
        headers: Iterable[tuple[str, str]] = (),
        timeout_s: float,
        idle_timeout_s: float = float("inf"),
    ) -> Response:
        """
        Send a request and wait for the response's headers.

        :param path: without the prefix of the gateway's address.
        :param body: bytes, or a value to send as JSON.
        :param timeout_s: for everything until the end of the response.
        :param idle_timeout_s: how long the server may neither send nor receive anything.
        :raises OSError: the request could not be sent, or no response arrived.
        :raises ProtocolError: the response is not HTTP/1.1.
        :raises ValueError: the path or a header cannot be sent.
        """
        self._end_previous()
        connection = self.open(min(timeout_s, CONNECT_TIMEOUT_S))
        connection.start(timeout_s, idle_timeout_s)
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        data = self._serialise(method, path, content, self._headers(None if body is None else content, headers))
        self._received = b""
        failure: ConnectionError | None = None
        try:
            connection.send(data)
        except ConnectionError as error:
            # A server may refuse a large request before it has read all of it. Its response is still worth reading.
            failure = error
            self._http.send_failed()
        sent_s = time.monotonic()
        try:
            while not isinstance(head := self.next_event(), h11.Response):
                pass  # 100 Continue, 103 Early Hints
        except ConnectionError as error:
            raise failure or error from None
        return Response(self, head, sent_s)

    def _end_previous(self) -> None:
        """Make the connection ready for another request, or close it."""
        if self._http.our_state is h11.IDLE:
            return
        unread, _ = self._http.trailing_data
        if unread or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            self.close()
        else:
            self._http.start_next_cycle()

    def _headers(self, content: bytes | None, given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Collect the headers of a request; of several with one name the last is sent."""
        # The zone of an IPv6 address (fe80::1%eth0) means nothing to the server.
        headers = [("Host", re.sub(r"%[^\]]*", "", self._target.address.authority))]
        # Only what a caller asks for: a proxy must not compress on its own account.
        headers += [("Accept-Encoding", "identity"), ("User-Agent", "brunix")]
        if content is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        if authorization := self._target.address.authorization:
            headers.append(("Authorization", authorization))
        by_name = {
            name.lower(): (name, value.strip(" \t")) for name, value in (*headers, *self._target.headers, *given)
        }
        return list(by_name.values())

    def _serialise(self, method: str, path: str, content: bytes, headers: list[tuple[str, str]]) -> bytes:
        try:
            request = h11.Request(method=method, target=self._target.address.prefix + path, headers=headers)
            sent = [self._http.send(event) for event in (request, h11.Data(data=content), h11.EndOfMessage())]
        except h11.LocalProtocolError as error:
            raise ValueError(f"the request cannot be sent: {error}") from None
        return b"".join(part for part in sent if part)

    def next_event(self) -> h11.Event:
        """
        Wait for the next event of the response.

        :raises OSError: the connection failed, ended too early, or was too slow.
        :raises ProtocolError: the server does not speak HTTP/1.1.
        """
        connection = self._socket
        if connection is None:
            raise ConnectionAbortedError("the connection has been closed")
        ended = False
        try:
            while True:
                event = self._http.next_event()
                if event is h11.PAUSED:
                    raise ProtocolError("an upgrade to another protocol", self._received)
                if isinstance(event, h11.Event):
                    return event
                data = connection.receive()
                ended = not data
                self.received_s = time.monotonic()
                self._note_start(data)
                self._http.receive_data(data)
        except h11.RemoteProtocolError as error:
            if ended:
                raise TruncatedError("the connection ended before the response did") from None
            raise ProtocolError(str(error), self._received) from None
        except ConnectionError as error:
            if self._received:
                raise TruncatedError("the connection was reset before the response ended") from error
            raise

    def _note_start(self, data: bytes) -> None:
        """Look at the first bytes: a program that does not speak HTTP may never send the line that h11 waits for."""
        if not data and not self._received:
            raise ConnectionResetError("the server closed the connection without a response")
        if len(self._received) < len(b"HTTP/"):
            self._received += data[:64]
            if not self._received.startswith(b"HTTP/"[: len(self._received)]):
                raise ProtocolError("no HTTP status line", self._received)

    def is_open_after(self, wait_s: float) -> bool:
        """Wait, and return whether the server has kept the connection open."""
        if self._socket is None:
            return False
        self._socket.start(wait_s)
        try:
            # No request is in flight: all that can arrive is the end of the connection.
            return bool(self._socket.receive())
        except DeadlineExceededError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Close at once; the gateway cancels a request that is in flight."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._http = h11.Connection(h11.CLIENT)


def get(target: Target, path: str, *, timeout_s: float, headers: Iterable[tuple[str, str]] = ()) -> FullResponse:
    """Send one GET request over a new connection. Reads at most :data:`MAX_PAGE_BYTES` of the body."""
    with Connection(target) as connection:
        return connection.request("GET", path, headers=headers, timeout_s=timeout_s).read(MAX_PAGE_BYTES)
