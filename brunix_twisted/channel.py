"""
What a connection must obey before there is a request: sizes, deadlines, the protocol's grammar, the gateway's name.

Twisted's own parser does the work; what is added here is where it takes what RFC 9112 says must be refused, or has no
limit. Whoever breaks a rule is answered like everyone else: with an id, in the dialect of the path as far as one is
known, with a line in the log. Then the connection ends, since nobody can tell where a next request would begin.

A client that closes only its own side of the connection (``shutdown(SHUT_WR)``) counts as gone, whatever it waits for:
it looks the same as one that left, and an answer that nobody reads would keep the engine busy.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any, Final, Protocol

import attrs
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from brunix_twisted import errors, heads
from brunix_twisted.errors import GatewayError
from brunix_twisted.hosts import Hosts

_MAX_REQUEST_LINE_BYTES: Final = 16_384
_MAX_FIELDS: Final = 500
_LINGER_S: Final = 5.0
# What may stand around a body's chunks, beyond once more the body's own limit.
_CHUNKING_BYTES: Final = 65_536


@attrs.frozen(kw_only=True)
class Bounds:
    """How much a client may send, and how long it may take."""

    max_body_bytes: int
    max_header_bytes: int
    headers_timeout_s: float
    """From the request's first byte."""
    body_timeout_s: float
    """From the end of the headers."""


class _Site(Protocol):
    bounds: Bounds
    hosts: Hosts | None
    connections: set[GatewayChannel]

    def connection_lost(self, connection: GatewayChannel) -> None: ...


class _Stage(Enum):
    IDLE = auto()
    HEADERS = auto()
    BODY = auto()
    ANSWERING = auto()
    CLOSING = auto()


_NOTHING_AWAITED: Final = (_Stage.ANSWERING, _Stage.CLOSING)


class GatewayChannel(HTTPChannel):
    """A connection, as long as there is one known to its site."""

    factory: _Site

    MAX_LENGTH = _MAX_REQUEST_LINE_BYTES
    _stage = _Stage.IDLE
    _awaited = _Stage.IDLE
    """What the timeout that now runs is for."""
    _first: heads.RequestLine
    _header_bytes = _fields = _body_bytes = 0
    _lingers = False

    def connectionMade(self) -> None:
        """Join the site's connections."""
        self._idle_s = self.timeOut
        # Twisted's own limit would be answered with 400; the one in lineReceived is always reached before it.
        self.totalHeadersSize = _MAX_REQUEST_LINE_BYTES + self.factory.bounds.max_header_bytes
        super().connectionMade()
        self.factory.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the site's connections."""
        self._stage = _Stage.CLOSING
        super().connectionLost(reason)
        self.factory.connection_lost(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sent, and see to it that the rest comes in time."""
        if self._stage is _Stage.CLOSING:
            return
        nested = self._busyReceiving
        super().dataReceived(data)
        if nested or self._stage in _NOTHING_AWAITED:
            return
        # A request that has come as a whole, as nearly all do, needs no deadline and does not get here with one.
        awaited = _Stage.HEADERS if self._stage is _Stage.IDLE and self._buffer else self._stage
        if awaited is _Stage.HEADERS and b"\n" in self._buffer:
            # RFC 9112, 2.2 allows to take it for a line's end, and 11.2 tells what comes of it when two differ in that.
            self.refuse(heads.not_http("a line ends without CR"))
        elif awaited is not self._awaited:
            bounds = self.factory.bounds
            limits = {_Stage.HEADERS: bounds.headers_timeout_s, _Stage.BODY: bounds.body_timeout_s}
            self._awaited = awaited
            self.setTimeout(limits.get(awaited, self._idle_s))

    def resetTimeout(self) -> None:
        """Start the idle timeout anew; the deadlines of a request are not put off by its bytes."""
        if self._awaited is _Stage.IDLE:
            super().resetTimeout()

    def timeoutConnection(self) -> None:
        """Answer a client that is too slow; a connection without a request is closed silently."""
        if self._stage is _Stage.CLOSING:
            self.transport.abortConnection()  # type: ignore[union-attr]  # there is one as long as there is a timeout
        elif self._awaited is _Stage.IDLE:
            super().timeoutConnection()
        else:
            part = self._awaited.name.lower()
            self.refuse(GatewayError(errors.TOO_SLOW, f"The request's {part} did not arrive in time"))

    # The head.

    def lineReceived(self, line: bytes) -> None:
        """Take a line of the request's head."""
        if self._stage is _Stage.HEADERS:
            self._header_bytes += len(line) + len(self.delimiter)
            self._fields += 1
            # The empty line at the end is not counted.
            if line and (self._header_bytes > self.factory.bounds.max_header_bytes or self._fields > _MAX_FIELDS):
                self._refuse_headers()
                return
            if line.startswith((b" ", b"\t")):
                # RFC 9112, 5.2: obs-fold is rejected or replaced; 2.2: as is such a line before the first header.
                self.refuse(heads.not_http("a header begins with a space"))
                return
        elif line:
            try:
                self._first = heads.request_line(line)
            except GatewayError as error:
                self.refuse(error, line)
                return
            self._stage = _Stage.HEADERS
            self._header_bytes = self._fields = 0
            self.MAX_LENGTH = self.factory.bounds.max_header_bytes
        super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that is too long, whether its end has come or not."""
        if self._stage is _Stage.HEADERS:
            self._refuse_headers()
        else:
            # RFC 9112, 3.
            message = f"A request's first line may have {_MAX_REQUEST_LINE_BYTES} bytes"
            self.refuse(GatewayError(errors.URL_TOO_LONG, message), line)

    def _refuse_headers(self) -> None:
        message = f"A request may have {_MAX_FIELDS} headers, of {self.factory.bounds.max_header_bytes} bytes together"
        self.refuse(GatewayError(errors.HEADERS_TOO_LARGE, message))

    def headerReceived(self, line: bytes) -> bool:
        """Take one header."""
        try:
            heads.check_field(line, self._first.version)
            return bool(super().headerReceived(line))
        except GatewayError as error:
            self.refuse(error)
        except ValueError:
            # Of a Content-Length with more digits than Python makes a number of; see RFC 9110, 8.6.
            self.refuse_body()
        return False

    def allHeadersReceived(self) -> None:
        """Look at the headers as a whole, before the body is asked for or read."""
        headers, bounds, hosts = self.requests[-1].requestHeaders, self.factory.bounds, self.factory.hosts
        try:
            host = heads.host(headers.getRawHeaders(b"Host", ()), self._first)
        except GatewayError as error:
            self.refuse(error)
            return
        if hosts is not None and host is not None and not hosts.allow(host):
            message = "The gateway may not be called by this Host; PROXY_ALLOWED_HOSTS says by which it may"
            self.refuse(GatewayError(errors.WRONG_HOST, message))
        elif self.length is not None and self.length > bounds.max_body_bytes:
            self.refuse_body()
        else:
            self._stage = _Stage.BODY
            self._body_bytes = 0
            self.MAX_LENGTH = _MAX_REQUEST_LINE_BYTES
            super().allHeadersReceived()

    def checkPersistence(self, request: Any, version: bytes) -> bool:  # noqa: ANN401 - as in the base class
        """Say whether the connection may stay open after this request."""
        # RFC 9110, 7.6.1: a list separated by commas. The base class separates it by spaces.
        options = request.requestHeaders.getRawHeaders(b"Connection")
        if options and b"close" in re.split(rb"[, \t]+", b",".join(options).lower()):
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            return False
        return bool(super().checkPersistence(request, version))

    # The body.

    def rawDataReceived(self, data: bytes) -> None:
        """Take a piece of the body, or of what comes behind a request that is being answered."""
        if self._stage is _Stage.BODY:
            # The request counts what is in the chunks; but one of a single byte may have a thousand around it.
            self._body_bytes += len(data)
            if self._body_bytes > 2 * self.factory.bounds.max_body_bytes + _CHUNKING_BYTES:
                self.refuse_body()
                return
        super().rawDataReceived(data)

    def refuse_body(self) -> None:
        """Refuse the request because its body is too large; in chunks, that is known only once it is."""
        message = f"A request's body may have {self.factory.bounds.max_body_bytes} bytes"
        self.refuse(GatewayError(errors.BODY_TOO_LARGE, message))

    def allContentReceived(self) -> None:
        """Hand the request on."""
        if self._stage is _Stage.CLOSING:
            return
        try:
            # RFC 9112, 7.1.2: they are fields like those before the body. The base class drops them as they are.
            for trailer in getattr(self._transferDecoder, "_trailerHeaders", ()):
                heads.check_field(trailer, self._first.version)
        except GatewayError as error:
            self.refuse(error)
            return
        self._stage = _Stage.ANSWERING
        # What the base class goes back to once the request is answered.
        self._awaited, self.timeOut = _Stage.IDLE, self._idle_s
        super().allContentReceived()

    # The end.

    def requestDone(self, request: Any) -> None:  # noqa: ANN401 - as in the base class
        """Go on to the next request, or close."""
        if self._stage is _Stage.ANSWERING:
            self._stage = _Stage.IDLE if self.persistent else _Stage.CLOSING
        super().requestDone(request)

    def refuse(self, error: GatewayError, line: bytes | None = None) -> None:
        """
        Answer a request that goes no further, and end the connection.

        :param line: its first line, in which something is wrong; None stands for what has been read of it.
        """
        if self._stage is _Stage.CLOSING:
            return
        begun = self._first if self._stage in {_Stage.HEADERS, _Stage.BODY} else heads.begun(line or self._buffer)
        self._stage = _Stage.CLOSING
        self.persistent, self._lingers = 0, True
        self.clearLineBuffer()
        if not self.requests:
            self.requests.append(self.requestFactory(self))
        request = self.requests[-1]
        request.method, request.path, request.clientproto = begun.method, begun.target.partition(b"?")[0], begun.version
        request.setHeader(b"Connection", b"close")
        request.refuse(error)

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Private, but all of Twisted's own refusals come through here, and the tests would notice if they did not.
        part = "the body's chunks are" if self._stage is _Stage.BODY else "the first line or the body's length is"
        self.refuse(heads.not_http(f"{part} malformed"))

    def loseConnection(self) -> None:
        """
        Close the connection, once what has been written is sent.

        After a refusal in two steps, as RFC 9112, 9.6 has it: to a client that is still sending, TCP would answer with
        a reset, which may reach it before it has read why.
        """
        self._stage = _Stage.CLOSING
        lingers, self._lingers = self._lingers, False
        if lingers and ITCPTransport.providedBy(self.transport) and not self.isSecure():
            self.transport.unregisterProducer()  # type: ignore[attr-defined]  # every TCP transport is a consumer
            self.transport.loseWriteConnection()
        else:
            super().loseConnection()
        if lingers:
            self.setTimeout(_LINGER_S)
