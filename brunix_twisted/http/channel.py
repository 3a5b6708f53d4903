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
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Final, Protocol

import attrs
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from brunix_twisted import errors
from brunix_twisted.config.allowed_hosts import Hosts
from brunix_twisted.errors import GatewayError
from brunix_twisted.http import syntax
from brunix_twisted.http.bodies import Bodies

_MAX_REQUEST_LINE_BYTES: Final = 16_384
_LINGER_S: Final = 5.0
# How long to wait for the end of a head that is refused, and so for the headers that the refusal depends on.
_HEAD_END_S: Final = 1.0
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
    max_bodies_bytes: int = 67_108_864
    """All bodies together that have not been parsed yet; see :class:`brunix_twisted.http.bodies.Bodies`."""


class _Site(Protocol):
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


# A member of an Enum is slow to look up in Python 3.11, and this is done for each line of a request.
_IDLE, _HEADERS, _BODY, _REFUSING, _ANSWERING, _CLOSING = _Stage
_NOTHING_AWAITED: Final = (_REFUSING, _ANSWERING, _CLOSING)


class GatewayChannel(HTTPChannel):
    """A connection, as long as there is one known to its site."""

    factory: _Site

    MAX_LENGTH = _MAX_REQUEST_LINE_BYTES
    _stage = _IDLE
    _awaited = _IDLE
    """What the timeout that now runs is for."""
    _first: syntax.RequestLine
    _previous_line: bytes | None = None
    _line: bytes | None = None
    """The last two lines of a head that is being read; the base class has not parsed them when the head is refused."""
    _refusal: GatewayError
    _remainder: syntax.Remainder
    """What is left of a head that is refused."""
    _hosts: Sequence[bytes] = ()
    """The Host of a request before, which may be that of the next without being looked at again."""
    _body_bytes = 0
    _lingers = False
    _is_new = True

    def connectionMade(self) -> None:
        """Join the site's connections."""
        self._idle_s = self.timeOut
        super().connectionMade()
        self.factory.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the site's connections."""
        self._stage = _CLOSING
        try:
            super().connectionLost(reason)
        finally:
            # Whatever a request makes of it: the site waits for every connection that it knows.
            self.factory.connection_lost(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sent, and see to it that the rest comes in time."""
        if self._stage is _CLOSING:
            return
        if self._stage is _REFUSING:
            if self._remainder.add(data):
                self._answer_refusal()
            return
        nested = self._busyReceiving
        super().dataReceived(data)
        if nested or self._stage in _NOTHING_AWAITED:
            return
        # A request that has come as a whole, as nearly all do, needs no deadline and does not get here with one.
        awaited = _HEADERS if self._stage is _IDLE and self._buffer else self._stage
        if awaited is _HEADERS and b"\n" in self._buffer:
            # RFC 9112, 2.2 allows to take it for a line's end, and 11.2 tells what comes of it when two differ in that.
            self.refuse(syntax.not_http("a line ends without CR"))
        elif awaited is not self._awaited:
            bounds = self.factory.bounds
            limits = {_HEADERS: bounds.headers_timeout_s, _BODY: bounds.body_timeout_s}
            self._awaited = awaited
            self.setTimeout(limits.get(awaited, self._idle_s))

    def resetTimeout(self) -> None:
        """Start the idle timeout anew; the deadlines of a request are not put off by its bytes."""
        if self._awaited is _IDLE:
            super().resetTimeout()

    def timeoutConnection(self) -> None:
        """Answer a client that is too slow; a connection without a request is closed silently."""
        if self._stage is _CLOSING:
            self.transport.abortConnection()  # type: ignore[union-attr]  # there is one as long as there is a timeout
        elif self._stage is _REFUSING:
            self._answer_refusal()
        elif self._awaited is _IDLE:
            super().timeoutConnection()
        else:
            part = self._awaited.name.lower()
            self.refuse(GatewayError(errors.TOO_SLOW, f"The request's {part} did not arrive in time"))

    @property
    def has_request_in_flight(self) -> bool:
        """Whether a request is on its way, as far as anyone can tell: on a new connection, or where one has begun."""
        return (
            self._is_new or self._stage in {_HEADERS, _BODY, _REFUSING} or (self._stage is _IDLE and bool(self._buffer))
        )

    @property
    def is_answering(self) -> bool:
        """Whether a request has arrived and its answer has not ended."""
        return self._stage is _ANSWERING

    # The head.

    def lineReceived(self, line: bytes) -> None:
        """Take a line of the request's head: the first one, a header, or the empty one at the end."""
        self._previous_line, self._line = self._line, line
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
        """Refuse a line that is too long, whether its end has come or not."""
        if self._stage is _HEADERS:
            self._refuse_headers(line)
        else:
            # RFC 9112, 3.
            message = f"A request's first line may have {_MAX_REQUEST_LINE_BYTES} bytes"
            self.refuse(GatewayError(errors.URL_TOO_LONG, message), line)

    def _refuse_headers(self, unread: bytes = b"") -> None:
        limit = self.factory.bounds.max_header_bytes
        message = f"A request may have {self.maxHeaders} headers, of {limit} bytes together"
        self.refuse(GatewayError(errors.HEADERS_TOO_LARGE, message), unread)

    def allHeadersReceived(self) -> None:
        """Look at the headers as a whole, before the body is asked for or read."""
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
        if self.length is not None and not self.factory.bodies.has_room(self.length):
            self.refuse_for_now()
            return
        self._previous_line = self._line = None
        self._stage = _BODY
        self._body_bytes = 0
        self.MAX_LENGTH = _MAX_REQUEST_LINE_BYTES
        super().allHeadersReceived()

    def _check_host(self, given: Sequence[bytes]) -> None:
        host, hosts = syntax.host(given, self._first), self.factory.hosts
        if hosts is not None and host is not None and not hosts.allow(host):
            message = "The gateway may not be called by this Host; PROXY_ALLOWED_HOSTS says by which it may"
            raise GatewayError(errors.WRONG_HOST, message)
        self._hosts = given if self._first.authority is None else ()

    def checkPersistence(self, request: Any, version: bytes) -> bool:  # noqa: ANN401 - as in the base class
        """Say whether the connection may stay open after this request."""
        if self.factory.stopping:
            # The client's next request is for whoever serves next, and has to come by another connection.
            request.setHeader(b"Connection", b"close")
            return False
        # RFC 9110, 7.6.1: a list separated by commas. The base class separates it by spaces, and has the same rule.
        options = request.requestHeaders.getRawHeaders(b"Connection")
        if options and b"close" in re.split(rb"[, \t]+", b",".join(options).lower()):
            request.setHeader(b"Connection", b"close")
            return False
        return version == b"HTTP/1.1"

    # The body.

    def rawDataReceived(self, data: bytes) -> None:
        """Take a piece of the body, or of what comes behind a request that is being answered."""
        if self._stage is _BODY:
            # The request counts what is in the chunks; but one of a single byte may have a thousand around it.
            self._body_bytes += len(data)
            if self._body_bytes > 2 * self.factory.bounds.max_body_bytes + _CHUNKING_BYTES:
                self.refuse_body()
                return
        super().rawDataReceived(data)
        if self._stage is _BODY and self.length is None:
            decoder: Any = self._transferDecoder
            announced = decoder.length if decoder.state == "BODY" else 0
            if self.requests[-1].received_bytes + announced > self.factory.bounds.max_body_bytes:
                # A chunk that says it is too large is not waited for.
                self.refuse_body()

    def refuse_body(self) -> None:
        """Refuse the request because its body is too large; in chunks, that is known only once it is."""
        message = f"A request's body may have {self.factory.bounds.max_body_bytes} bytes"
        self.refuse(GatewayError(errors.BODY_TOO_LARGE, message))

    def refuse_for_now(self) -> None:
        """Refuse the request because the bodies of others take up what there is for all of them."""
        message = "The gateway is busy: it holds too many large requests already; try again shortly"
        self.refuse(GatewayError(errors.OVERLOADED, message))

    def allContentReceived(self) -> None:
        """Hand the request on."""
        if self._stage is _CLOSING:
            return
        try:
            # RFC 9112, 7.1.2: they are fields like those before the body. The base class drops them as they are.
            for trailer in getattr(self._transferDecoder, "_trailerHeaders", ()):
                syntax.check_field(trailer, self._first.version)
        except GatewayError as error:
            self.refuse(error)
            return
        self._stage = _ANSWERING
        # What the base class goes back to once the request is answered.
        self._awaited, self.timeOut = _IDLE, self._idle_s
        super().allContentReceived()
        if self.factory.stopping:
            # Not before its question has been admitted: none is once the last request has arrived.
            self.factory.request_arrived(self)

    # The end.

    def requestDone(self, request: Any) -> None:  # noqa: ANN401 - as in the base class
        """Go on to the next request, or close."""
        if self._stage is _ANSWERING:
            self._stage = _IDLE if self.persistent else _CLOSING
        super().requestDone(request)

    def refuse(self, error: GatewayError, unread: bytes = b"") -> None:
        """
        Answer a request that goes no further, and end the connection.

        A head is read to its end first where one can be expected to come, for the ``Origin`` in it: without the CORS
        headers a browser would not let its page read the answer.

        :param unread: what has been received of the head and is no longer in the buffer.
        """
        if self._stage in {_REFUSING, _CLOSING}:
            return
        self._refusal, self._remainder = error, syntax.Remainder()
        if self._stage is not _BODY:
            if self._stage is _IDLE:
                self._first = syntax.begun(unread or self._buffer)
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
        request, begun = self.requests[-1], self._first
        for name, value in self._remainder.fields:
            if not request.requestHeaders.hasHeader(name):
                request.requestHeaders.addRawHeader(name, value)
        request.method, request.path, request.clientproto = begun.method, begun.target.partition(b"?")[0], begun.version
        request.setHeader(b"Connection", b"close")
        request.refuse(self._refusal)
        self.factory.request_arrived(self)

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Private, but all of Twisted's own refusals come through here, and the tests would notice if they did not.
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self._refuse_headers()
            return
        part = "the body's chunks are" if self._stage is _BODY else "the first line or the body's length is"
        self.refuse(syntax.not_http(f"{part} malformed"))

    def loseConnection(self) -> None:
        """
        Close the connection, once what has been written is sent.

        After a refusal in two steps, as RFC 9112, 9.6 has it: to a client that is still sending, TCP would answer with
        a reset, which may reach it before it has read why.
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
