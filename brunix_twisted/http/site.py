"""
What every request passes before a route sees it, and every answer after.

The request gets an id, its path is put into the one spelling that the routes know, and at its end, however it ended,
whoever observes requests is told of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from io import BytesIO
from secrets import token_bytes, token_hex
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, unquote

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import datetimeToString
from twisted.web.resource import IResource

from brunix_twisted import errors
from brunix_twisted.config.allowed_hosts import Hosts
from brunix_twisted.config.cors_origins import Origins
from brunix_twisted.dialects import codings
from brunix_twisted.errors import GatewayError
from brunix_twisted.http.bodies import PARSED_AT_ONCE_BYTES, Bodies
from brunix_twisted.http.channel import Bounds, GatewayChannel
from brunix_twisted.http.sockets import DirectWriteMixin
from brunix_twisted.model import TraceContext
from brunix_twisted.observability.request_record import Observer, RequestInProgress, RequestRecord, session_digest
from brunix_twisted.observability.trace_context import trace_context
from brunix_twisted.runtime.reactors import Reactor, cancel_when_fired

if TYPE_CHECKING:
    # It needs what is only installed where it is wanted.
    from brunix_twisted.observability.tracing import RequestSpan, Tracing

T = TypeVar("T")

Refuse = Callable[["GatewayRequest", GatewayError], bytes]
"""Sets the status and headers of a failed request, and returns its body, in the dialect of its path."""

# What may stand in a header, a log line and gRPC metadata as it is. Anything else is replaced, not refused: an id that
# a proxy on the way invented is no fault of the caller's.
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

_METHODS = b"GET, HEAD, POST, DELETE, OPTIONS"
# How long it takes at most until a connection that was aborted is gone.
_ABORTED_S = 1.0
_EXPOSED = b"X-Request-Id, Request-Id, X-Session-Id, X-Brunix-Ignored, Retry-After, Server-Timing"
_WRONG_ORIGIN = "Pages of this origin may not use the gateway; PROXY_CORS_ORIGINS says which may"

# Python's own names for these are older than RFC 9110, and 529 is Anthropic's alone.
_PHRASES = {413: b"Content Too Large", 414: b"URI Too Long", 529: b"Overloaded"}

_SPELLED = re.compile(rb"(/[A-Za-z0-9._-]+)+")
_AUTHORITY = re.compile(rb"\Ahttps?://[^/?]*", re.IGNORECASE)


def one_spelling(path_bytes: bytes) -> bytes:
    """
    The path as the routes spell it: no scheme and host, no double slashes, no slash at the end.

    Clients make paths by joining strings, and many do not follow a redirect of a POST. The result is percent-encoded
    UTF-8, whatever came in.
    """
    if _SPELLED.fullmatch(path_bytes):
        return path_bytes
    path = unquote(_AUTHORITY.sub(b"", path_bytes, count=1).decode("latin-1"), encoding="utf-8", errors="replace")
    path = "/" + re.sub(r"/+", "/", path).strip("/")
    return quote(path, safe="/:@+,;=!$&'()*~").encode("ascii")


class GatewayRequest(server.Request):
    """A request with an id of its own."""

    _log = Logger()
    site: GatewaySite

    request_id = ""
    """The caller's ``X-Request-Id`` if it is sane, otherwise a new one; the answer and the engine get the same."""
    session_id = ""
    """The engine session the request is asked in, once that is known."""
    trace: TraceContext | None = None
    """Below what in which trace the engine's calls belong: the request's own span, or else what its caller gave."""
    span: RequestSpan | None = None
    """There where traces are exported."""
    in_progress: RequestInProgress
    """What will be told of the request at its end; there once it has an id."""
    received_bytes = 0
    """How much of the body has come."""
    _bodies: Bodies
    _held_bytes = 0
    """How much of it is counted among the bodies that the gateway holds."""

    def process(self) -> None:
        """Hand the request to its route."""
        if not self._begin():
            self._answer(self.site.refuse(self, GatewayError(errors.WRONG_ORIGIN, _WRONG_ORIGIN)))
        elif self.method == b"OPTIONS":
            self._preflight()
        else:
            super().process()

    def write(self, data: bytes) -> None:
        """Send a piece of the answer, the first one together with the headers."""
        if self.chunked and not self.finished and not self._disconnected:
            # As the base class does it, in one piece: this runs once a token.
            self.sentLength += len(data)
            if data:
                self.channel.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif self.startedWriting:
            super().write(data)
        else:
            self._in_one_piece(super().write, data)

    def finish_with(self, data: bytes) -> None:
        """Send the last piece, and the answer's end with it."""
        self._in_one_piece(self._conclude, data)

    def _conclude(self, data: bytes) -> None:
        self.write(data)
        self.finish()

    def _in_one_piece(self, send: Callable[[bytes], None], data: bytes) -> None:
        transport = self.transport
        # Not every transport can: TLS makes a record of what it is given.
        if not isinstance(transport, DirectWriteMixin) or transport.holds:
            send(data)
            return
        transport.hold()
        try:
            send(data)
        finally:
            transport.release()

    def disconnect(self) -> None:
        """Drop the connection at once, so that the client sees that the answer is not whole."""
        cast("GatewayChannel", self.channel).forceAbortClient()

    def refuse(self, error: GatewayError) -> None:
        """Answer a request that its connection lets go no further."""
        self._begin()
        self._answer(self.site.refuse(self, error))

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:
        """Set the status, with the phrase that is registered for it."""
        super().setResponseCode(code, message or _PHRASES.get(code) or HTTPStatus(code).phrase.encode("ascii"))

    def handleContentChunk(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self.finished:
            return  # what was read together with the piece that was too much
        channel = cast("GatewayChannel", self.channel)
        self.received_bytes += len(data)
        if self.received_bytes > channel.factory.bounds.max_body_bytes:
            channel.refuse_body()
        elif not channel.factory.bodies.grow(self._held_bytes, len(data)):
            channel.refuse_for_now()
        else:
            self._held_bytes += len(data)
            super().handleContentChunk(data)

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002 - as in the base class
        """Keep the body in memory; the base class puts a large one into a temporary file."""
        self.content = BytesIO()
        self._bodies = cast("GatewayChannel", self.channel).factory.bodies

    def _begin(self) -> bool:
        """Prepare the request for whoever answers it; False if it comes from a page that may not ask."""
        self.site = self.channel.site  # type: ignore[attr-defined]  # server.Site gives it to every channel
        self.in_progress = RequestInProgress(self.site.clock.seconds())
        given = self.requestHeaders.getRawHeaders(b"X-Request-Id", [b""])[0]
        self.request_id = (given if _SANE_REQUEST_ID.fullmatch(given) else token_hex(16).encode()).decode("ascii")
        self.setHeader(b"X-Request-Id", self.request_id.encode("ascii"))
        if self.path != b"*":
            self.path = one_spelling(self.path)
        if traceparents := self.requestHeaders.getRawHeaders(b"traceparent"):
            self.trace = trace_context(traceparents, self.requestHeaders.getRawHeaders(b"tracestate", ()))
        if self.site.tracing is not None:
            self.span = self.site.tracing.begin(self, self.request_id, self.trace)
            self.trace = self.span.context
        if self.trace is not None:
            self.in_progress.trace_id = self.trace.trace_id
        # No answer may be served again: not an engine's health, nor a list that a restart changes. RFC 9111, 5.2.2.5.
        self.setHeader(b"Cache-Control", b"no-store")
        # Whoever stores this answer has to store another for another origin.
        self.setHeader(b"Vary", b"Origin")
        origin = self.requestHeaders.getRawHeaders(b"Origin", [b""])[0]
        return not origin or self._admit(origin)

    def _admit(self, origin: bytes) -> bool:
        """Let a web page read the answer, if it may."""
        if not self.site.origins.allow(origin.decode("latin-1")):
            # A page at the gateway's own address. Over plain HTTP either scheme may be meant: a proxy may end TLS.
            schemes = (b"https",) if self.isSecure() else (b"http", b"https")
            host = (self.getHeader(b"Host") or b"").lower()
            return origin.lower() in {b"%b://%b" % (scheme, host) for scheme in schemes}
        self.setHeader(b"Access-Control-Allow-Origin", origin)
        self.setHeader(b"Access-Control-Expose-Headers", _EXPOSED)
        return True

    def _preflight(self) -> None:
        """
        Say that a browser may send the request it asks about.

        Whatever headers it wants to send are allowed: a list of them would be out of date with the next client.
        """
        self.setResponseCode(HTTPStatus.NO_CONTENT)
        self.setHeader(b"Allow", _METHODS)
        self.setHeader(b"Access-Control-Allow-Methods", _METHODS)
        if headers := self.getHeader(b"Access-Control-Request-Headers"):
            self.setHeader(b"Access-Control-Allow-Headers", headers)
        if self.getHeader(b"Access-Control-Request-Private-Network"):
            self.setHeader(b"Access-Control-Allow-Private-Network", b"true")
        self.setHeader(b"Access-Control-Max-Age", b"7200")
        self._answer(b"")

    def _answer(self, body_bytes: bytes) -> None:
        self.setHeader(b"Date", datetimeToString())
        self.finish_with(body_bytes)

    async def parsed(self, parse: Callable[[bytes], T]) -> T:
        """
        Parse the whole body, decoded, and keep it no longer.

        Large and compressed bodies are parsed on a thread of their own. A small one is parsed before this returns.

        :param parse: makes a value of the body. It is pure, so it does not matter which thread runs it.
        :raises GatewayError: what ``parse`` raises, or the body's Content-Encoding is not supported or not kept.
        """
        body_bytes = cast("BytesIO", self.content).getvalue()
        self.content = BytesIO()
        try:
            encodings = self.requestHeaders.getRawHeaders(b"Content-Encoding")
            coding = None if encodings is None else codings.coding(encodings)
            if coding is not None:
                decode = partial(codings.decoded, name=coding, max_bytes=self.site.bounds.max_body_bytes)
                return await self.site.bodies.parse(lambda body_bytes: parse(decode(body_bytes)), body_bytes)
            if len(body_bytes) > PARSED_AT_ONCE_BYTES:
                return await self.site.bodies.parse(parse, body_bytes)
            return parse(body_bytes)
        finally:
            self._release_body()

    def _release_body(self) -> None:
        if self._held_bytes:
            self._bodies.release(self._held_bytes)
            self._held_bytes = 0

    def finish(self) -> None:
        """End the answer; what has been received and not been used is kept no longer."""
        self._release_body()
        super().finish()

    def getRequestHostname(self) -> bytes:
        """Give the router a host's name; no route depends on it, and the one in the request may be anything."""
        return b"localhost"

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer a request that met a mistake of the gateway's own."""
        self._log.failure("Request {request_id} failed", failure=reason, request_id=self.request_id)
        if self.startedWriting:
            self.in_progress.failed(errors.INTERNAL)
            # Nothing that could be added would be read as an error; a connection that breaks is. Closed in good order,
            # it would still get the end of a body, from the router.
            self.disconnect()
        else:
            self._answer(self.site.refuse(self, GatewayError(errors.INTERNAL, "The gateway failed; see its log")))
        return reason

    def connectionLost(self, reason: Failure) -> None:
        """Tell everyone who waits for this request, and who observes requests, that its client is gone."""
        # One whose client left before it had sent all of it has no id yet, and nothing that could be told of it.
        if self.request_id and not self.finished:
            self.finish_record("gone")
        self._release_body()
        super().connectionLost(reason)

    def finish_record(self, status: str) -> None:
        """Tell of the request's end. Raises nothing: what still has to be done for the request comes after this."""
        try:
            self._log_end(gone=status == "gone")
        except Exception:  # noqa: BLE001 - as said
            self._log.failure("The end of request {request_id} was not recorded", request_id=self.request_id)

    def _log_end(self, *, gone: bool) -> None:
        record = self.in_progress.finish(
            self.site.clock.seconds(),
            request_id=self.request_id,
            method=self.method.decode("latin-1"),
            path=self.path.decode("latin-1"),
            status=None if gone and not self.startedWriting else int(self.code),
            gone=gone,
            session=session_digest(self.session_id, self.site.digest_key),
            sent_bytes=self.sentLength,
        )
        if self.span is not None:
            self.span.end(record)
        self.site.observe(record)


class GatewaySite(server.Site):
    """The gateway's HTTP server."""

    _log = Logger()
    noisy = False
    protocol = GatewayChannel  # type: ignore[assignment]  # HTTP/1.1 alone, so there is nothing to negotiate

    hosts: Hosts | None = None
    """By which names it may be called; None: by any."""
    observers: Sequence[Observer] = ()
    """Are told of each request at its end, however it ended."""
    tracing: Tracing | None = None
    """What the requests' traces are told to, if to anything."""

    def __init__(
        self, resource: IResource, *, reactor: IReactorTime, refuse: Refuse, origins: Origins, bounds: Bounds
    ) -> None:
        """
        Serve a resource.

        :param bounds: how much its clients may send, and for how long.
        :param origins: the web pages that may use it.
        :param refuse: renders the failures that no route sees.
        """
        # A body is JSON whatever its Content-Type says: nothing is to be parsed as a form.
        super().__init__(resource, GatewayRequest, parsePOSTFormSubmission=False, reactor=reactor)
        self.clock = reactor
        self.refuse = refuse
        self.origins = origins
        self.bounds = bounds
        self.digest_key = token_bytes(16)
        """Of the digests that stand for sessions in the log."""
        # One body of the largest size has room in any case.
        self.bodies = Bodies(cast("Reactor", reactor), max(bounds.max_bodies_bytes, bounds.max_body_bytes))
        self.connections: set[GatewayChannel] = set()
        self.stopping = False
        """Whether each connection is closed after its next answer."""
        self._arriving: set[GatewayChannel] = set()
        self._arrived: Deferred[None] | None = None
        self._closed: Deferred[None] | None = None

    def acceptableProtocols(self) -> list[bytes]:
        """Offer over TLS what is spoken here, and not all that Twisted could speak."""
        return [b"http/1.1"]

    def drain_incoming(self, timeout_s: float) -> Deferred[None]:
        """
        Begin to stop: take the requests that are on their way, and close each connection after its next answer.

        Fires when they are there, or after ``timeout_s`` seconds. Whoever has connected may have sent a request already
        that nobody has read; to close the connection would lose it.
        """
        self.stopping = True
        self._arriving = {connection for connection in self.connections if connection.has_request_in_flight}
        if not self._arriving or not timeout_s:
            return succeed(None)
        self._arrived = Deferred()
        return cancel_when_fired(self._arrived, self.clock.callLater(timeout_s, self._all_arrived))

    def _all_arrived(self) -> None:
        self._arriving.clear()
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived.callback(None)

    def request_arrived(self, connection: GatewayChannel) -> None:
        """Wait for this connection's request no longer."""
        self._arriving.discard(connection)
        if not self._arriving:
            self._all_arrived()

    def close(self, timeout_s: float) -> Deferred[None]:
        """
        Close every connection, but let what has been written to it arrive.

        Fires when none is left. One whose client has not read everything within ``timeout_s`` seconds is broken off.
        """
        for connection in tuple(self.connections):
            connection.loseConnection()
        # One that is half closed already is gone at once.
        if not self.connections:
            return succeed(None)
        self._closed = Deferred()
        return cancel_when_fired(
            self._closed,
            self.clock.callLater(timeout_s, self._break_off),
            # They are gone by then, even one that fails to say so.
            self.clock.callLater(timeout_s + _ABORTED_S, self._all_closed),
        )

    def _break_off(self) -> None:
        for connection in tuple(self.connections):
            connection.forceAbortClient()

    def _all_closed(self) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            closed.callback(None)

    def connection_lost(self, connection: GatewayChannel) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        self.request_arrived(connection)
        if not self.connections:
            self._all_closed()

    def observe(self, record: RequestRecord) -> None:
        """Hand a request's record to every observer; one that fails harms nobody."""
        for observer in self.observers:
            try:
                observer(record)
            except Exception:  # noqa: BLE001 - whatever it is, the request has been answered
                self._log.failure("Request {request_id} was not told of", request_id=record.request_id)

    @property
    def requests(self) -> int:
        """How many requests are being answered."""
        return sum(connection.is_answering for connection in self.connections)

    def log(self, request: Any) -> None:  # noqa: ANN401 - as in the base class
        """Tell of the end of a request that was answered."""
        request.finish_record(str(request.code))
