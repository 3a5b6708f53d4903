"""
The rules of a connection that apply before a request exists: sizes, deadlines, syntax and the Host header.

Twisted parses HTTP. This module adds what its parser lacks: limits, and rejecting what RFC 9112 forbids. A client that
breaks a rule receives a normal error response, with a request id, in the dialect of the path if that is known, and with
a line in the log. Then the connection is closed, because the start of the next request cannot be determined.

A client that closes only its sending side (``shutdown(SHUT_WR)``) counts as disconnected: the two look the same,
and generating an answer that no client reads would keep the engine busy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Final, Protocol

import attrs
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from brunix_twisted import errors
from brunix_twisted.config.allowed_hosts import Hosts
from brunix_twisted.errors import GatewayError
from brunix_twisted.http import syntax
from brunix_twisted.http.bodies import Bodies
from brunix_twisted.http.connections import LongLivedChannel

_MAX_REQUEST_LINE_BYTES: Final = 16_384
_LINGER_S: Final = 5.0
# Maximum time to wait for the rest of a rejected head: the response depends on some of its headers.
_HEAD_END_S: Final = 1.0
# A chunked body may take twice the body limit plus this, chunk headers included.
_CHUNKING_BYTES: Final = 65_536


@attrs.frozen(kw_only=True)
class Bounds:
    """Limits on the size and duration of requests."""

    max_body_bytes: int
    max_header_bytes: int
    headers_timeout_s: float
    """From the request's first byte to the end of the headers."""
    body_timeout_s: float
    """From the end of the headers to the end of the body."""
    max_bodies_bytes: int = 67_108_864
    """All bodies together that have not been parsed; see :class:`brunix_twisted.http.bodies.Bodies`."""


class _Site(Protocol):
    clock: IReactorTime
    bounds: Bounds
    bodies: Bodies
    hosts: Hosts | None
    connections: set[GatewayChannel]
    stopping: bool

    def request_arrived(self, connection: GatewayChannel) -> None: ...
    def connection_lost(self, connection: GatewayChannel) -> None: ...


class _Stage(Enum):
    IDLE = auto()
    HEADERS = auto()
    BODY = auto()
    REFUSING = auto()
    ANSWERING = auto()
    CLOSING = auto()


# Looking up an Enum member is slow in Python 3.11, and happens for every line of a request.
_IDLE, _HEADERS, _BODY, _REFUSING, _ANSWERING, _CLOSING = _Stage
_WITHOUT_DEADLINE: Final = (_REFUSING, _ANSWERING, _CLOSING)


class GatewayChannel(LongLivedChannel):
    """A connection. Its site knows it from connectionMade to connectionLost."""

    factory: _Site

    MAX_LENGTH = _MAX_REQUEST_LINE_BYTES
    _stage = _IDLE
    _awaited = _IDLE
    """The stage that the current timeout applies to."""
    _first: syntax.RequestLine
    _previous_line: bytes | None = None
    _line: bytes | None = None
    """The last two lines of the head. The base class has not parsed them when the head is rejected."""
    _refusal: GatewayError
    _remainder: syntax.Remainder
    """The rest of a rejected head."""
    _hosts: Sequence[bytes] = ()
    """The last Host values that were checked; the same values are not checked again."""
    _body_bytes = 0
    _lingers = False
    _is_new = True
    _skipped_line = False
    """Whether an empty line before the next request has been received. Only one is allowed."""

    def connectionMade(self) -> None:
        """Register the connection with its site."""
        self._idle_s = self.timeOut
        super().connectionMade()
        self.factory.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remove the connection from its site."""
        self._stage = _CLOSING
        try:
            super().connectionLost(reason)
        finally:
            # Even if a request raises: a stopping site waits for every registered connection.
            self.factory.connection_lost(self)

    def dataReceived(self, data: bytes) -> None:
        """Parse received data, and set the deadline for the rest of the request."""
        if self._stage is _CLOSING:
            return
        if self._stage is _REFUSING:
            if self._remainder.add(data):
                self._answer_refusal()
            return
        nested = self._busyReceiving
        if nested or not self._receive_ordinary(data):
            super().dataReceived(data)
        if nested or self._stage in _WITHOUT_DEADLINE:
            return
        # Most requests arrive in one piece: they return above, and cost no timer.
        awaited = _HEADERS if self._stage is _IDLE and self._buffer else self._stage
        if awaited is _HEADERS and b"\n" in self._buffer:
            # RFC 9112, 2.2 allows a bare LF as the end of a line. But when a proxy and a server disagree about it, an
            # attacker can smuggle a request (11.2).
            self.refuse(syntax.malformed("a line ends with LF instead of CRLF"))
        elif awaited is not self._awaited:
            bounds = self.factory.bounds
            limits = {_HEADERS: bounds.headers_timeout_s, _BODY: bounds.body_timeout_s}
            self._awaited = awaited
            self.setTimeout(limits.get(awaited, self._idle_s))

    def _receive_ordinary(self, data: bytes) -> bool:
        """Receive a request whose complete head has nothing unusual; return False, and do nothing, for any other."""
        if self._stage is not _IDLE or self._buffer or self._skipped_line or not self.persistent:
            return False
        bounds, end = self.factory.bounds, data.find(b"\r\n\r\n")
        if not 0 < end <= min(bounds.max_header_bytes, _MAX_REQUEST_LINE_BYTES):
            return False
        head = syntax.ordinary_head(data, end)
        body = data[end + 4 :]
        # Data after the request could be the next one, and the next, each parsed within the one before.
        if head is None or len(head.fields) > self.maxHeaders or len(body) > head.length:
            return False
        request = self.requestFactory(self)
        self.requests.append(request)
        add_header = request.requestHeaders.addRawHeader
        for name, value in head.fields:
            add_header(name, value)
        self._first, self._is_new = head.first, False
        self._command, self._path, self._version = head.first[:3]
        self._stage = _HEADERS
        # A refused head has ended: see refuse().
        self._line = b""
        if head.length:
            self._maybeChooseTransferDecoder(b"Content-Length", b"%d" % head.length)
        self.allHeadersReceived()
        if self._stage is not _BODY:
            return True
        if not head.length:
            self.allContentReceived()
        else:
            self.setRawMode()
            if body:
                self.rawDataReceived(body)
        return True

    def resetTimeout(self) -> None:
        """Restart the idle timeout. Received data does not extend the deadlines of a request."""
        if self._awaited is _IDLE:
            super().resetTimeout()

    def timeoutConnection(self) -> None:
        """Send an error to a client that is too slow; close a connection without a request silently."""
        if self._stage is _CLOSING:
            self.transport.abortConnection()  # type: ignore[union-attr]  # set while a timeout is active
        elif self._stage is _REFUSING:
            self._answer_refusal()
        elif self._awaited is _IDLE:
            super().timeoutConnection()
        else:
            part = self._awaited.name.lower()
            self.refuse(GatewayError(errors.TOO_SLOW, f"Timed out while receiving the request's {part}"))

    @property
    def has_request_in_flight(self) -> bool:
        """Whether a request is being received, or may be in flight because the connection is new."""
        return (
            self._is_new or self._stage in {_HEADERS, _BODY, _REFUSING} or (self._stage is _IDLE and bool(self._buffer))
        )

    @property
    def is_answering(self) -> bool:
        """Whether a request has been received and its response has not ended."""
        return self._stage is _ANSWERING

    # The head.

    def lineReceived(self, line: bytes) -> None:
        """Receive a line of the head: the request line, a header, or the empty line at the end."""
        self._previous_line, self._line = self._line, line
        self._skipped_line = not line and self._stage is _IDLE
        if line and (self._stage is not _HEADERS or not syntax.ORDINARY_FIELD.fullmatch(line)):
            try:
                if self._stage is _HEADERS:
                    syntax.check_field(line, self._first.version)
                else:
                    self._first = syntax.request_line(line)
                    self._stage = _HEADERS
                    self._is_new = False
                    self.MAX_LENGTH = self.factory.bounds.max_header_bytes
                    self.totalHeadersSize = self.MAX_LENGTH + len(line)
            except GatewayError as error:
                self.refuse(error, line + b"\r\n")
                return
        super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Reject a line that is too long, complete or not."""
        if self._stage is _HEADERS:
            self._refuse_headers(line)
        else:
            # RFC 9112, 3.
            message = f"The request line is too long; the maximum is {_MAX_REQUEST_LINE_BYTES} bytes"
            self.refuse(GatewayError(errors.URL_TOO_LONG, message), line)

    def _refuse_headers(self, unread: bytes = b"") -> None:
        limit = self.factory.bounds.max_header_bytes
        message = f"The request's headers are too large; the maximum is {self.maxHeaders} headers with {limit} bytes"
        self.refuse(GatewayError(errors.HEADERS_TOO_LARGE, message), unread)

    def allHeadersReceived(self) -> None:
        """Check Host and Content-Length, before the body is requested (100 Continue) or read."""
        given = self.requests[-1].requestHeaders.getRawHeaders(b"Host", ())
        if given != self._hosts or self._first.authority is not None or not given:
            try:
                self._check_host(given)
            except GatewayError as error:
                self.refuse(error)
                return
        if self.length is not None and self.length > self.factory.bounds.max_body_bytes:
            self.refuse_body()
            return
        if self.length is not None and not self.factory.bodies.fits(self.length):
            self.refuse_overloaded()
            return
        self._previous_line = self._line = None
        self._stage = _BODY
        self._body_bytes = 0
        self.MAX_LENGTH = _MAX_REQUEST_LINE_BYTES
        super().allHeadersReceived()

    def _check_host(self, given: Sequence[bytes]) -> None:
        host, hosts = syntax.host(given, self._first), self.factory.hosts
        if hosts is not None and host is not None and not hosts.allow(host):
            raise GatewayError(errors.WRONG_HOST, "Host not allowed. Add it to PROXY_ALLOWED_HOSTS.")
        self._hosts = given if self._first.authority is None else ()

    def checkPersistence(self, request: Any, version: bytes) -> bool:  # noqa: ANN401 - as in the base class
        """Return whether the connection stays open after this request."""
        if self.factory.stopping:
            # The next request must go to a process that is not stopping, over a new connection.
            request.setHeader(b"Connection", b"close")
            return False
        # RFC 9110, 7.6.1: a list separated by commas. The base class splits it at spaces.
        options = request.requestHeaders.getRawHeaders(b"Connection")
        if options and b"close" in re.split(rb"[, \t]+", b",".join(options).lower()):
            request.setHeader(b"Connection", b"close")
            return False
        return version == b"HTTP/1.1"

    # The body.

    def rawDataReceived(self, data: bytes) -> None:
        """Receive a part of the body, or data after a request that is being answered."""
        if self._stage is _BODY:
            # The request counts the content of chunks only, but a chunk of one byte may have a header of a thousand.
            self._body_bytes += len(data)
            if self._body_bytes > 2 * self.factory.bounds.max_body_bytes + _CHUNKING_BYTES:
                self.refuse_body()
                return
        super().rawDataReceived(data)
        if self._stage is _BODY and self.length is None:
            decoder: Any = self._transferDecoder
            announced = decoder.length if decoder.state == "BODY" else 0
            if self.requests[-1].received_bytes + announced > self.factory.bounds.max_body_bytes:
                # The announced size of the chunk exceeds the limit: do not wait for its content.
                self.refuse_body()

    def refuse_body(self) -> None:
        """Reject the request because its body is too large: announced, or received in chunks."""
        message = f"The request body is too large; the maximum is {self.factory.bounds.max_body_bytes} bytes"
        self.refuse(GatewayError(errors.BODY_TOO_LARGE, message))

    def refuse_overloaded(self) -> None:
        """Reject the request because all bodies together would exceed their limit."""
        message = "The gateway is busy: too many large requests at once. Try again shortly."
        self.refuse(GatewayError(errors.OVERLOADED, message))

    def allContentReceived(self) -> None:
        """Check the trailers, and process the request."""
        if self._stage is _CLOSING:
            return
        try:
            # RFC 9112, 7.1.2: trailers follow the rules of headers. The base class discards them unchecked.
            for trailer in getattr(self._transferDecoder, "_trailerHeaders", ()):
                syntax.check_field(trailer, self._first.version)
        except GatewayError as error:
            self.refuse(error)
            return
        self._stage = _ANSWERING
        # The base class restores this timeout after the response.
        self._awaited, self.timeOut = _IDLE, self._idle_s
        super().allContentReceived()
        if self.factory.stopping:
            # Only after its question has been admitted: after the last arrival, no question is.
            self.factory.request_arrived(self)

    # The end.

    def requestDone(self, request: Any) -> None:  # noqa: ANN401 - as in the base class
        """Continue with the next request, or close the connection."""
        if self._stage is _ANSWERING:
            self._stage = _IDLE if self.persistent else _CLOSING
        super().requestDone(request)

    def refuse(self, error: GatewayError, unread: bytes = b"") -> None:
        """
        Send an error response to a request that is not processed, and close the connection.

        If the rest of the head is expected, it is read first for its ``Origin``: without CORS headers in the response,
        a browser hides the error from its page.

        :param unread: a received part of the head that is no longer in the buffer.
        """
        if self._stage in {_REFUSING, _CLOSING}:
            return
        self._refusal, self._remainder = error, syntax.Remainder()
        if self._stage is not _BODY:
            if self._stage is _IDLE:
                self._first = syntax.partial_request_line(unread or self._buffer)
            last = b"".join(line + b"\r\n" for line in (self._previous_line, self._line) if line is not None)
            ended = self._remainder.add(last + unread + self.clearLineBuffer())
            if not ended and error.kind not in {errors.INVALID_REQUEST, errors.TOO_SLOW}:
                self._stage = self._awaited = _REFUSING
                self.setTimeout(_HEAD_END_S)
                return
        self._answer_refusal()

    def _answer_refusal(self) -> None:
        self._stage = _CLOSING
        self._is_new = False
        self.persistent, self._lingers = 0, True
        self.clearLineBuffer()
        if not self.requests:
            self.requests.append(self.requestFactory(self))
        request, first = self.requests[-1], self._first
        for name, value in self._remainder.fields:
            if not request.requestHeaders.hasHeader(name):
                request.requestHeaders.addRawHeader(name, value)
        request.method, request.path, request.clientproto = first.method, first.target.partition(b"?")[0], first.version
        request.setHeader(b"Connection", b"close")
        request.refuse(self._refusal)
        self.factory.request_arrived(self)

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Private, but Twisted calls it for everything it rejects, and the tests check that.
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self._refuse_headers()
            return
        part = "the body's chunks are" if self._stage is _BODY else "the request line or Content-Length is"
        self.refuse(syntax.malformed(f"{part} malformed"))

    def loseConnection(self) -> None:
        """
        Close the connection after the written data has been sent.

        After an error response this takes two steps (RFC 9112, 9.6). Otherwise TCP would send a reset to a client that
        is still sending, and the client might lose the error response.
        """
        self._stage = _CLOSING
        lingers, self._lingers = self._lingers, False
        if lingers and ITCPTransport.providedBy(self.transport) and not self.isSecure():
            self.transport.unregisterProducer()  # type: ignore[attr-defined]  # every TCP transport is a consumer
            self.transport.loseWriteConnection()
        else:
            super().loseConnection()
        if lingers:
            self.setTimeout(_LINGER_S)
