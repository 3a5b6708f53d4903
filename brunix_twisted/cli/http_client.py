"""
Asks a gateway over HTTP, and knows when each piece of an answer came.

This is the standard library's client. It gives pieces as they arrive and the connection itself, it costs no dependency
and little time to start. What it lacks is a deadline: a socket's own timeout begins anew with every byte, so that a
server which drips is waited for without end. Here each wait of a connection ends at the connection's deadline.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from typing import Any, Final, Self

import attrs

from brunix_twisted.cli.address import GatewayAddress

CONNECT_LIMIT_S: Final = 5.0
"""For the name, the connection and TLS together."""
_TICK_S: Final = 0.5
"""Python on Windows notices Control-C only between two waits."""
_PIECE_BYTES: Final = 65_536
MAX_PAGE_BYTES: Final = 4_000_000
"""More of an answer than this is not read as a whole."""


class DeadlineExceededError(TimeoutError):
    """Something did not come in time."""

    def __init__(self, what: str, limit_s: float) -> None:
        super().__init__(f"{what} took longer than {limit_s:.3g} s")
        self.what = what
        self.limit_s = limit_s


class TruncatedError(ConnectionError):
    """The connection ended before the answer did."""


@attrs.frozen
class ResolvedAddress:
    """One of the addresses that a name stands for."""

    family: int
    sockaddr: tuple[Any, ...]

    @property
    def address(self) -> str:
        """The address alone, as a person writes it."""
        return str(self.sockaddr[0])


@attrs.frozen
class Target:
    """Whom to ask, and as whom."""

    address: GatewayAddress
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with everything: a key, say."""
    ca: str | None = None
    """A file of certificates to trust instead of the system's own."""


@attrs.frozen
class Chunk:
    """Some bytes of a body, as they came."""

    data: bytes
    at_s: float


def resolve(host: str, port: int, limit_s: float) -> list[ResolvedAddress]:
    """
    Look a name up.

    :raises OSError: nobody knows it.
    :raises TooLateError: nobody says so in time.
    """
    result: list[Any] = []

    def look_up() -> None:
        try:
            result.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        # Whatever it is, it is raised where it is waited for.
        except Exception as error:  # noqa: BLE001 - see above
            result.append(error)

    # The system's resolver has deadlines of its own, and they are long.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not result:
        raise DeadlineExceededError(f"looking up {host}", limit_s)
    if isinstance(result[0], UnicodeError):
        raise socket.gaierror(socket.EAI_NONAME, "not a name")
    if isinstance(result[0], Exception):
        raise result[0]
    return [ResolvedAddress(family, sockaddr) for family, _, _, _, sockaddr in result[0]]


def dial(resolved: ResolvedAddress, limit_s: float) -> socket.socket:
    """
    Connect to one address.

    :raises OSError: it cannot be reached.
    """
    connection = socket.socket(resolved.family, socket.SOCK_STREAM)
    try:
        connection.settimeout(max(0.001, limit_s))
        connection.connect(resolved.sockaddr)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError:
        connection.close()
        raise DeadlineExceededError(f"connecting to {resolved.address}", limit_s) from None
    except BaseException:
        connection.close()
        raise
    return connection


class DeadlineSocket:
    """A socket, as http.client uses one, whose every wait ends at a deadline."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.deadline_s = float("inf")
        """By the monotonic clock."""
        self.read_timeout_s = float("inf")
        """How long a single wait may be."""
        self._limit_s = 0.0
        self._readers = 0
        self._closed = False

    def until(self, limit_s: float, read_timeout_s: float) -> None:
        """Let everything from now on take so long, and each wait in it so long."""
        self._limit_s = limit_s
        self.deadline_s = time.monotonic() + limit_s
        self.read_timeout_s = read_timeout_s

    def recv_into(self, buffer: Any) -> int:  # noqa: ANN401 - whatever io has
        """Wait for the next bytes."""
        waited_until_s = min(self.deadline_s, time.monotonic() + self.read_timeout_s)
        while True:
            left_s = waited_until_s - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceededError("the answer", min(self._limit_s, self.read_timeout_s))
            self.socket.settimeout(min(left_s, _TICK_S))
            with suppress(TimeoutError):
                return self.socket.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        """Send everything."""
        view = memoryview(data)
        while view:
            left_s = self.deadline_s - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceededError("sending", self._limit_s)
            self.socket.settimeout(min(left_s, _TICK_S))
            with suppress(TimeoutError):
                view = view[self.socket.send(view) :]

    def makefile(self, *_: Any) -> io.BufferedReader:  # noqa: ANN401 - socket's signature
        """Give the answer's bytes as a file."""
        self._readers += 1
        return io.BufferedReader(_Reader(self), _PIECE_BYTES)

    def reader_closed(self) -> None:
        """Close with the last reader, as a socket does."""
        self._readers -= 1
        if self._closed and not self._readers:
            self.socket.close()

    def close(self) -> None:
        """Close, once nobody reads any more."""
        self._closed = True
        if not self._readers:
            self.socket.close()

    def abort(self) -> None:
        """Close now, whoever reads."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, connection: DeadlineSocket) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - io's signature
        return self._connection.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._connection.reader_closed()


class _Http(http.client.HTTPConnection):
    """What http.client knows of requests and answers; the connection is made elsewhere."""

    def __init__(self, address: GatewayAddress) -> None:
        super().__init__(address.host, address.port)
        self.default_port = 443 if address.secure else 80

    def connect(self) -> None:
        raise http.client.NotConnected


class Response:
    """An answer whose head is there."""

    def __init__(self, connection: Connection, raw: http.client.HTTPResponse, sent_s: float) -> None:
        self._connection = connection
        self._raw = raw
        self.sent_s = sent_s
        """When the request was on its way, by the monotonic clock."""
        self.head_s = time.monotonic()
        """When the head was there."""
        self.status = raw.status
        self.reason = raw.reason
        self.version = raw.version
        """10 or 11."""
        self.headers: Message = raw.headers

    @property
    def ok(self) -> bool:
        """Whether the status says that this is what was asked for."""
        return self.status == HTTPStatus.OK

    def header(self, name: str) -> str:
        """A header's value, or nothing."""
        return self.headers.get(name) or ""

    def chunks(self) -> Iterator[Chunk]:
        """
        Give the body as it comes, uncompressed.

        :raises BrokenOffError: it ended too early.
        """
        encoding = self.header("Content-Encoding").lower()
        # 32 more than the largest window: zlib's own form or gzip's, whichever it is.
        inflate = zlib.decompressobj(47).decompress if encoding in {"gzip", "x-gzip", "deflate"} else bytes
        expected = self._raw.length
        received = 0
        while True:
            try:
                data = self._raw.read1(_PIECE_BYTES)
            except http.client.IncompleteRead:
                raise TruncatedError("the connection ended within the answer") from None
            if not data:
                break
            received += len(data)
            yield Chunk(inflate(data), time.monotonic())
        # http.client does not notice by itself that an answer with a length has been read.
        self._raw.close()
        if expected is not None and received < expected:
            raise TruncatedError("the connection ended within the answer")

    def body(self) -> bytes:
        """Read the whole body."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk.data
            if len(body) > MAX_PAGE_BYTES:
                break
        return bytes(body)

    def close(self) -> None:
        """Break it off: the gateway sees its client leave, and cancels the engine's call."""
        self._connection.close()


class Connection:
    """A connection to a gateway; made when it is first needed."""

    def __init__(self, target: Target, resolved: ResolvedAddress | None = None) -> None:
        """
        Prepare one.

        :param place: which of the name's addresses to ask; None: the first that answers.
        """
        self._target = target
        self._place = resolved
        self._http = _Http(target.address)
        self._timely: DeadlineSocket | None = None

    def __enter__(self) -> Self:
        """Nothing to be done yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it, whatever is on its way."""
        self.close()

    @property
    def socket(self) -> socket.socket | None:
        """The socket, or TLS's, once there is one."""
        return None if self._timely is None else self._timely.socket

    def open(self, limit_s: float = CONNECT_LIMIT_S) -> DeadlineSocket:
        """
        Connect, unless that is done.

        :raises OSError: nobody is there.
        """
        # http.client lets go of a connection that the server wants closed.
        if self._timely is not None and self._http.sock is not None:
            return self._timely
        until_s = time.monotonic() + limit_s
        address = self._target.address
        addresses = [self._place] if self._place else resolve(address.host, address.port, limit_s)
        connection = _first(addresses, until_s)
        if address.secure:
            connection = _secured(connection, self._target, until_s, limit_s)
        self._timely = DeadlineSocket(connection)
        self._http.sock = self._timely
        return self._timely

    def ask(  # noqa: PLR0913 - what a request is made of
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 - whatever JSON holds
        *,
        headers: Iterable[tuple[str, str]] = (),
        limit_s: float,
        read_timeout_s: float = float("inf"),
    ) -> Response:
        """
        Send a request and return once the answer's head is there.

        :param path: without the address's prefix.
        :param body: bytes, or what becomes JSON.
        :param limit_s: for everything until the end of the answer.
        :param silence_s: for each wait in that.
        :raises OSError: it could not be sent, or nothing came back.
        :raises http.client.HTTPException: what came back is no HTTP.
        """
        self.open(min(limit_s, CONNECT_LIMIT_S)).until(limit_s, read_timeout_s)
        given = [("User-Agent", "brunix")]
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            given.append(("Content-Type", "application/json"))
        if authorization := self._target.address.authorization:
            given.append(("Authorization", authorization))
        # A later one of the same name is the one that is meant.
        sent = {name.lower(): (name, value) for name, value in (*given, *self._target.headers, *headers)}
        self._http.request(method, self._target.address.prefix + path, data, dict(sent.values()))
        sent_s = time.monotonic()
        return Response(self, self._http.getresponse(), sent_s)

    def stays_open(self, limit_s: float) -> bool:
        """Wait, and say whether the server has not closed the connection meanwhile."""
        if self._timely is None or self._http.sock is None:
            return False
        self._timely.until(limit_s, limit_s)
        try:
            # Nothing was asked, so that what comes is the end.
            return self._timely.recv_into(bytearray(1)) != 0
        except DeadlineExceededError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Close it now, whatever is on its way."""
        if self._timely is not None:
            self._timely.abort()
        with suppress(OSError):
            self._http.close()


def _first(addresses: list[ResolvedAddress], until_s: float) -> socket.socket:
    """Connect to the first address that can be reached."""
    parse_error_body: OSError = socket.gaierror(socket.EAI_NONAME, "no address")
    for number, resolved in enumerate(addresses):
        left_s = until_s - time.monotonic()
        try:
            # One that does not answer at all must not use up the time of the others.
            return dial(resolved, left_s / (len(addresses) - number))
        except OSError as error:
            parse_error_body = error
    raise parse_error_body


def _secured(connection: socket.socket, target: Target, until_s: float, limit_s: float) -> ssl.SSLSocket:
    try:
        context = ssl.create_default_context(cafile=target.ca)
        context.set_alpn_protocols(["http/1.1"])
        connection.settimeout(max(0.001, until_s - time.monotonic()))
        return context.wrap_socket(connection, server_hostname=target.address.host)
    except TimeoutError:
        connection.close()
        raise DeadlineExceededError("the beginning of TLS", limit_s) from None
    except BaseException:
        connection.close()
        raise


def get(
    target: Target, path: str, *, limit_s: float, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> tuple[Response, bytes]:
    """Ask for one thing over a connection of its own, and read all of it."""
    with Connection(target) as connection:
        response = connection.ask(method, path, headers=(headers or {}).items(), limit_s=limit_s)
        return response, response.body()
