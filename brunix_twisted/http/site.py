"""
The HTTP server: what happens to every request before its route, and to every response after it.

The server assigns the request id, normalizes the path and checks the web page's origin. At the end of a request,
whatever the outcome, it passes the request record to the observers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from io import BytesIO
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from brunix_twisted import errors
from brunix_twisted.config.allowed_hosts import Hosts
from brunix_twisted.config.cors_origins import Origins
from brunix_twisted.dialects import ErrorFormat, codings
from brunix_twisted.dialects.endpoints import with_version
from brunix_twisted.errors import GatewayError
from brunix_twisted.http import cors, syntax
from brunix_twisted.http.bodies import PARSED_AT_ONCE_BYTES, Bodies
from brunix_twisted.http.channel import Bounds, GatewayChannel
from brunix_twisted.http.quiet import QuietPeriod
from brunix_twisted.http.response import ResponseRequest, http_date
from brunix_twisted.model import TraceContext
from brunix_twisted.observability.request_record import Observer, RequestInProgress, RequestRecord, session_digest
from brunix_twisted.observability.trace_context import trace_context
from brunix_twisted.runtime.random_ids import random_id
from brunix_twisted.runtime.reactors import Reactor, cancel_when_fired

if TYPE_CHECKING:
    # OpenTelemetry is an optional dependency.
    from brunix_twisted.observability.spans import RequestSpan
    from brunix_twisted.observability.tracing import Tracing

_log = Logger("brunix.gateway")

T = TypeVar("T")

Refuse = Callable[["GatewayRequest", GatewayError], bytes]
"""Sets the status and headers of a failed request, and returns the error's body in the dialect of its path."""

# Safe in a header, a log line and gRPC metadata. Any other id is replaced and not rejected: it may come from a proxy,
# which the caller cannot change.
_VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

# Maximum time from the abort of a connection until it is reported as lost.
_ABORTED_S = 1.0


class GatewayRequest(ResponseRequest):
    """A request with an id, a trace and a request record."""

    site: GatewaySite

    request_id = ""
    """The caller's ``X-Request-Id`` if it is valid, otherwise a new one. The response and the engine receive it."""
    session_id = ""
    """The id of the engine session, once it is known."""
    trace: TraceContext | None = None
    """The parent of the engine calls' spans: the request's span, or the caller's if traces are off."""
    span: RequestSpan | None = None
    """None if traces are off."""
    error_format: ErrorFormat | None = None
    """How this request reports errors, if not in the format of its path."""
    in_progress: RequestInProgress
    """The data for the request record. Set together with the request id."""
    received_bytes = 0
    """Received size of the body."""
    _bodies: Bodies
    _held_bytes = 0
    """The part of ``received_bytes`` that is counted in ``_bodies``."""

    def process(self) -> None:
        """Pass the request to its route."""
        if not self._begin():
            message = "Origin not allowed. Add it to PROXY_CORS_ORIGINS."
            self._answer(self.site.refuse(self, GatewayError(errors.WRONG_ORIGIN, message)))
        elif self.method == b"OPTIONS":
            self.setResponseCode(HTTPStatus.NO_CONTENT)
            cors.allow_preflight(self)
            self._answer(b"")
        else:
            self.setHeader(b"Server", server.version)
            self._set_date()
            try:
                self.render(self.site.resource)
            except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer
                self.processingFailed(Failure())

    def _set_date(self) -> None:
        self.setHeader(b"Date", http_date(int(time.time())))

    def disconnect(self) -> None:
        """Abort the connection at once, so that the client notices that the response is truncated."""
        cast("GatewayChannel", self.channel).forceAbortClient()

    def truncate(self, data: bytes) -> None:
        """Send a part of the body, and close the connection without the end of the body (RFC 9112, 8)."""
        self.write(data)
        # The router ends the response, but without the last chunk.
        self.chunked = 0
        cast("GatewayChannel", self.channel).loseConnection()

    def refuse(self, error: GatewayError) -> None:
        """Send an error response to a request that the channel has rejected."""
        self._begin()
        self._answer(self.site.refuse(self, error))

    def handleContentChunk(self, data: bytes) -> None:
        """Receive a part of the body."""
        if self.finished:
            return  # data that was received together with the part that exceeded a limit
        channel = cast("GatewayChannel", self.channel)
        self.received_bytes += len(data)
        if self.received_bytes > channel.factory.bounds.max_body_bytes:
            channel.refuse_body()
        elif not channel.factory.bodies.grow(self._held_bytes, len(data)):
            channel.refuse_overloaded()
        else:
            self._held_bytes += len(data)
            super().handleContentChunk(data)

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002 - as in the base class
        """Keep the body in memory; the base class writes a large one to a temporary file."""
        self.content = BytesIO()
        self._bodies = cast("GatewayChannel", self.channel).factory.bodies

    def _begin(self) -> bool:
        """Set the id, the path and common headers; return False if the origin of the web page is not allowed."""
        self.site = self.channel.site  # type: ignore[attr-defined]  # server.Site sets it on every channel
        self.in_progress = RequestInProgress(self.site.clock.seconds())
        given = self.requestHeaders.getRawHeaders(b"X-Request-Id", [b""])[0]
        self.request_id = (given if _VALID_REQUEST_ID.fullmatch(given) else random_id().encode()).decode("ascii")
        self.setHeader(b"X-Request-Id", self.request_id.encode("ascii"))
        if self.path != b"*":
            path = syntax.normalized_path(self.path).decode("ascii")
            self.path = with_version(path).encode("ascii")
        if traceparents := self.requestHeaders.getRawHeaders(b"traceparent"):
            self.trace = trace_context(traceparents, self.requestHeaders.getRawHeaders(b"tracestate", ()))
        if self.site.tracing is not None:
            self.span = self.site.tracing.begin(self, self.request_id, self.trace)
            self.trace = self.span.context
        if self.trace is not None:
            self.in_progress.trace_id = self.trace.trace_id
        # RFC 9111, 5.2.2.5. No response can be reused, not even a list of models: a restart may change it.
        self.setHeader(b"Cache-Control", b"no-store")
        return cors.admit(self, self.site.origins)

    def _answer(self, body_bytes: bytes) -> None:
        self._set_date()
        self.finish_with(body_bytes)

    async def parsed(self, parse: Callable[[bytes], T]) -> T:
        """
        Decode and parse the body, then release it.

        Large and compressed bodies are parsed on another thread. A small body is parsed before this returns.

        :param parse: turns the body into a value. It must be pure, since any thread may run it.
        :raises GatewayError: from ``parse``, or if the Content-Encoding is not supported or the body does not match it.
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
        """End the response, and release the body."""
        self._release_body()
        super().finish()

    def getRequestHostname(self) -> bytes:
        """Return a constant host name: no route depends on it, and the client's may be malformed."""
        return b"localhost"

    def processingFailed(self, reason: Failure) -> Failure:
        """Report an unexpected exception: with a 500, or by aborting a response that has begun."""
        _log.failure("Request {request_id} failed", failure=reason, request_id=self.request_id)
        if self.startedWriting:
            self.in_progress.failed(errors.INTERNAL)
            # The client cannot recognise more body text as an error, but it does notice an aborted connection. On a
            # normal close, the router would still send the end of the body.
            self.disconnect()
        else:
            self._answer(self.site.refuse(self, GatewayError(errors.INTERNAL, "The gateway failed; see its log")))
        return reason

    def connectionLost(self, reason: Failure) -> None:
        """Record that the client disconnected, and notify everything that waits for this request."""
        # Without an id, the client disconnected before the request was complete: there is nothing to record.
        if self.request_id and not self.finished:
            self.finish_record("gone")
        self._release_body()
        super().connectionLost(reason)

    def finish_record(self, status: str) -> None:
        """Pass the request record to the observers. Never raises, so that the caller can finish its cleanup."""
        try:
            self._log_end(gone=status == "gone")
        except Exception:  # noqa: BLE001 - see the docstring
            _log.failure("Could not record the end of request {request_id}", request_id=self.request_id)

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
            client=self.site.describe_client and self.site.describe_client(self),
        )
        if self.span is not None:
            self.span.end(record)
        self.site.observe(record)


class GatewaySite(server.Site):
    """The gateway's HTTP server."""

    noisy = False
    protocol = GatewayChannel  # type: ignore[assignment]  # only HTTP/1.1, so there is nothing to negotiate

    hosts: Hosts | None = None
    """The allowed values of the Host header; None allows any."""
    observers: Sequence[Observer] = ()
    """Receive the record of each request at its end, whatever the outcome."""
    tracing: Tracing | None = None
    """None if traces are off."""
    describe_client: Callable[[IRequest], Mapping[str, str]] | None = None
    """Returns what the log says about the client of a request; None if it says nothing."""

    def __init__(
        self, resource: IResource, *, reactor: IReactorTime, refuse: Refuse, origins: Origins, bounds: Bounds
    ) -> None:
        """
        Serve a resource.

        :param bounds: limits on the size and duration of requests.
        :param origins: the origins of the web pages that may use the gateway.
        :param refuse: renders the errors of requests that have not reached a route.
        """
        # A body is JSON whatever its Content-Type, so no body is parsed as a form.
        super().__init__(resource, GatewayRequest, parsePOSTFormSubmission=False, reactor=reactor)
        self.clock = reactor
        self.refuse = refuse
        self.origins = origins
        self.bounds = bounds
        self.digest_key = token_bytes(16)
        """The key of the session digests in the log."""
        # One body of the maximum size must always fit.
        self.bodies = Bodies(cast("Reactor", reactor), max(bounds.max_bodies_bytes, bounds.max_body_bytes))
        self.connections: set[GatewayChannel] = set()
        self.stopping = False
        """Whether each connection is closed after its next response."""
        self._arriving: set[GatewayChannel] = set()
        self._arrived: Deferred[None] | None = None
        self._quiet = QuietPeriod(reactor)
        self._closed: Deferred[None] | None = None

    def acceptableProtocols(self) -> list[bytes]:
        """Return the ALPN protocols: only HTTP/1.1, although Twisted supports more."""
        return [b"http/1.1"]

    def drain_incoming(self, timeout_s: float) -> Deferred[None]:
        """
        Begin to stop: receive the requests in flight, and close each connection after its next response.

        Fires when they have arrived, or after ``timeout_s`` seconds. A new connection counts as well: its client may
        have sent a request that has not been read yet, and closing the connection would lose it.
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
        """Stop waiting for this connection's request."""
        self._arriving.discard(connection)
        if not self._arriving:
            self._all_arrived()

    def linger(self, quiet_s: float, timeout_s: float) -> Deferred[None]:
        """Leave idle connections open until they are no longer used; see :class:`QuietPeriod`."""
        return self._quiet.wait(quiet_s, timeout_s) if self.connections else succeed(None)

    def close(self, timeout_s: float) -> Deferred[None]:
        """
        Close every connection after its written data has been sent.

        Fires when all are closed. A connection whose client has not read everything within ``timeout_s`` seconds is
        aborted.
        """
        for connection in tuple(self.connections):
            connection.loseConnection()
        # A connection that was half closed is lost at once.
        if not self.connections:
            return succeed(None)
        self._closed = Deferred()
        return cancel_when_fired(
            self._closed,
            self.clock.callLater(timeout_s, self._abort_all),
            # A transport that never reports the loss must not block the shutdown.
            self.clock.callLater(timeout_s + _ABORTED_S, self._all_closed),
        )

    def _abort_all(self) -> None:
        for connection in tuple(self.connections):
            connection.forceAbortClient()

    def _all_closed(self) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            closed.callback(None)

    def connection_lost(self, connection: GatewayChannel) -> None:
        """Remove a closed connection."""
        self.connections.discard(connection)
        self.request_arrived(connection)
        if not self.connections:
            self._quiet.end()
            self._all_closed()

    def observe(self, record: RequestRecord) -> None:
        """Pass a request record to every observer, and log the exceptions they raise."""
        self._quiet.disturb()
        for observer in self.observers:
            try:
                observer(record)
            except Exception:  # noqa: BLE001 - an observer must not affect the request or the other observers
                _log.failure("An observer failed on request {request_id}", request_id=record.request_id)

    @property
    def requests(self) -> int:
        """Number of requests in progress."""
        return sum(connection.is_answering for connection in self.connections)

    def log(self, request: Any) -> None:  # noqa: ANN401 - as in the base class
        """Record the end of a request that has its full response."""
        request.finish_record(str(request.code))
