"""
The spans of requests and of their engine calls, and their way to an OpenTelemetry collector.

Only this module knows OpenTelemetry, and it is imported only where traces are on. Everything here runs on the reactor's
thread, but for the export, which has a thread of the SDK's. A span is handed from one room to the next like any value:
what is current in a context of Python's would be current for whatever the reactor runs next, too.

The names of attributes are OpenTelemetry's semantic conventions for HTTP, for RPC and for generative AI. No prompt, no
answer and no session's id is among the values.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import urlsplit
from uuid import uuid4

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.http import Request

from brunix_twisted import __version__
from brunix_twisted.config.settings import Settings
from brunix_twisted.dialects.endpoints import endpoint_of
from brunix_twisted.engine import Call
from brunix_twisted.engine.connection import proxy_options
from brunix_twisted.errors import GatewayError
from brunix_twisted.limits import OutputLimiter, count_tokens
from brunix_twisted.model import CompletionRequest, Question, TraceContext
from brunix_twisted.observability.request_record import RequestRecord, masked, session_digest
from brunix_twisted.runtime.reactors import Reactor, cancel_when_fired

FLUSH_S: Final = 2.0
"""How long the last spans may take to reach the collector when the gateway stops."""

_PROMPTS: Final = frozenset({"/v1/completions", "/api/generate"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_SERVER_ERROR: Final = 500
# Of what a request may end with: the client's own doing, and what may happen in the middle of an answer.
_CLIENTS_DOING: Final = frozenset({"client_gone", "stalled"})
_FAILURES: Final = frozenset({"engine_error", "timeout", "overloaded", "draining", "internal"})
_SERVICE: Final = "brunix.AssistanceEngine"

# By their numbers.
_GRPC_STATUSES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)

# The longest name that a model may be given in the settings.
_MODEL_CHARACTERS: Final = 128


def _collector(environment: Mapping[str, str]) -> str:
    """Give the host and port that the exporter connects to, by its own variables."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    endpoint = next((environment[name] for name in names if environment.get(name)), "localhost:4317")
    return urlsplit(endpoint).netloc or endpoint


class Tracing:
    """Begins the spans, and sees to it that they reach the collector."""

    def __init__(self, reactor: Reactor, settings: Settings, digest_key: bytes) -> None:
        """
        Begin to export to where the variables ``OTEL_…`` say, which the SDK reads by itself.

        Make it after twistd's fork: it starts a thread.

        :param digest_key: of the digests that stand for sessions.
        """
        self.digest_key = digest_key
        self._reactor = reactor
        self.model_id = settings.model_id
        self.engine = _address(settings.grpc_target)
        self._logs = _Logs(reactor)
        options = cast("Any", proxy_options(_collector(os.environ)))
        self._exporter = OTLPSpanExporter(channel_options=options)
        # At the end the gateway asks for itself, and within a time of its own.
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("brunix_twisted", __version__)
        logging.getLogger("opentelemetry").addHandler(self._logs)

    def begin(self, request: Request, request_id: str, trace: TraceContext | None) -> RequestSpan:
        """Begin the span of a request, below what its caller gave."""
        method = request.method.decode("latin-1")
        path = request.path.decode("latin-1")
        endpoint, _ = endpoint_of(path)
        route = None if endpoint == "other" else endpoint
        known = method if method in _METHODS else "_OTHER"
        attributes: dict[str, AttributeValue] = {
            "http.request.method": known,
            "url.path": masked(path),
            "url.scheme": "https" if request.isSecure() else "http",
            "network.protocol.version": request.clientproto.decode("latin-1").removeprefix("HTTP/"),
            "brunix.request_id": request_id,
        }
        if route is not None:
            attributes["http.route"] = route
        if agent := request.getHeader(b"User-Agent"):
            attributes["user_agent.original"] = agent.decode("latin-1")
        if host := request.getHeader(b"Host"):
            attributes |= _address(host.decode("latin-1"))
        now_ns = _clock()
        verb = "HTTP" if known == "_OTHER" else known
        span = self.tracer.start_span(
            verb if route is None else f"{verb} {route}",
            # Not the current one, which belongs to nobody here.
            context=_parent(trace),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=now_ns(),
        )
        return RequestSpan(self, path, span, now_ns)

    def stop(self) -> Deferred[None]:
        """
        Export what has ended, for so long as :data:`FLUSH_S` allows, and stop.

        Fires when the SDK's thread has left. No span may be begun or ended afterwards.
        """
        stopped: Deferred[None] = maybeDeferred(deferToThread, self._provider.shutdown)
        # With a collector that is away the SDK would try on; an exporter that is shut down makes it give up.
        deadline = self._reactor.callLater(FLUSH_S, self._give_up)

        def ended(result: Failure | None) -> Failure | None:
            logging.getLogger("opentelemetry").removeHandler(self._logs)
            return result

        return cancel_when_fired(stopped, deadline).addBoth(ended)

    def _give_up(self) -> None:
        self._logs.warn(f"Spans that the collector had not taken after {FLUSH_S:g} s are lost")
        deferToThread(self._exporter.shutdown)


class RequestSpan:
    """The span of one request, and those of its engine calls, which end with it at the latest."""

    def __init__(self, tracing: Tracing, path: str, span: Span, now_ns: Callable[[], int]) -> None:
        """Go on with a span that has begun."""
        self._tracing = tracing
        self._path = path
        self._span = span
        self._now_ns = now_ns
        self._calls: list[TracedCall] = []
        self.context = _context(span)
        """What belongs below the request."""

    def call(self, call: Call, question: Question, requested: CompletionRequest, limiter: OutputLimiter) -> Call:
        """Give an engine call that has a span of its own from its start on, in place of one that has none."""
        if not self._span.is_recording():
            return call
        operation = "text_completion" if self._path in _PROMPTS else "chat"
        model = requested.model[:_MODEL_CHARACTERS]
        rpc = "AskAgentStream" if question.stream else "AskAgent"
        # What `usage` says of the whole answer, unless there are several calls to share it.
        prompt = requested.prompt if len(requested.queries) == 1 else question.query
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "brunix",
            "gen_ai.request.model": model,
            "gen_ai.request.stream": requested.stream,
            "gen_ai.response.model": self._tracing.model_id,
            "gen_ai.usage.input_tokens": count_tokens(prompt),
            "rpc.system": "grpc",
            "rpc.system.name": "grpc",
            "rpc.method": f"{_SERVICE}/{rpc}",
            **self._tracing.engine,
        }
        if requested.limits.max_tokens is not None:
            attributes["gen_ai.request.max_tokens"] = requested.limits.max_tokens
        if question.session_id:
            # As in the log: the id itself may name a person or a ticket.
            attributes["gen_ai.conversation.id"] = session_digest(question.session_id, self._tracing.digest_key)

        def begin() -> Span:
            return self._tracing.tracer.start_span(
                f"{operation} {model}",
                context=set_span_in_context(self._span, Context()),
                kind=SpanKind.CLIENT,
                attributes=attributes,
                start_time=self._now_ns(),
            )

        traced = TracedCall(call, limiter, begin, self._now_ns, streams=requested.stream)
        self._calls.append(traced)
        return traced

    def end(self, record: RequestRecord) -> None:
        """End the span; once."""
        span, status, reason = self._span, record.status, record.reason
        gone = reason in _CLIENTS_DOING
        for call in self._calls:
            call.finish(gone=gone)
        # They lead to the request, which leads here.
        self._calls.clear()
        if not span.is_recording():
            return
        span.set_attribute("brunix.ended", reason)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
        error = None
        if status is not None and status >= _SERVER_ERROR:
            error = str(status)
        elif status == HTTPStatus.OK and reason in _FAILURES:
            # It could only be told within the answer.
            error = reason
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR)
        span.end(self._now_ns())


class TracedCall:
    """
    An engine call with a span: see :class:`brunix_twisted.engine.Call`.

    The span lasts until the engine has ended, however slowly the client reads; what became
    of the answer is known later.
    """

    trace: TraceContext | None = None
    """Not asked for: the span's own is what the engine is told."""

    def __init__(
        self, call: Call, limiter: OutputLimiter, begin: Callable[[], Span], now_ns: Callable[[], int], *, streams: bool
    ) -> None:
        """
        Stand for a call that has not started.

        :param begin: begins the span.
        :param cutter: knows, in the end, what of the text went to the client.
        """
        self.statuses = call.statuses
        self._call = call
        self._limiter = limiter
        self._begin = begin
        self._now_ns = now_ns
        self._streams = streams
        self._span: Span | None = None
        self._began_ns = 0
        self._heard = False
        self._ended_ns: int | None = None
        self._fault: BaseException | None = None

    def start(self, arrived: Callable[[], None], buffer_bytes: int) -> Deferred[None]:
        """See :class:`brunix_twisted.engine.Call`."""
        self._span = span = self._begin()
        self._began_ns = self._now_ns()
        self._call.trace = _context(span)
        return self._call.start(arrived, buffer_bytes).addBoth(self._ended)

    def _ended(self, result: Failure | None) -> Failure | None:
        self._ended_ns = self._now_ns()
        if isinstance(result, Failure):
            self._fault = result.value
        return result

    def take(self, about_bytes: int) -> list[str]:
        """See :class:`brunix_twisted.engine.Call`."""
        texts = self._call.take(about_bytes)
        if texts and not self._heard and self._span is not None:
            self._heard = True
            # It may be the last as well.
            heard_ns = self._ended_ns or self._now_ns()
            self._span.add_event("first_token", timestamp=heard_ns)
            if self._streams:
                self._span.set_attribute("gen_ai.response.time_to_first_chunk", (heard_ns - self._began_ns) / 1e9)
        return texts

    @property
    def is_empty(self) -> bool:
        """See :class:`brunix_twisted.engine.Call`."""
        return self._call.is_empty

    def cancel(self) -> None:
        """See :class:`brunix_twisted.engine.Call`."""
        self._call.cancel()

    def finish(self, *, gone: bool) -> None:
        """
        End the span, now that the request has ended.

        :param gone: whether that was the client's doing, in which case a cancelled call is no error.
        """
        span, fault, limiter = self._span, self._fault, self._limiter
        if span is None:
            return
        # The last attempt's. A call that was cancelled before its first has none.
        status = self.statuses[-1] if self.statuses else "CANCELLED"
        cancelled = fault is None and status == "CANCELLED"
        reason = limiter.finish_reason
        if reason is None and fault is None and not cancelled:
            reason = "stop"
        if reason is not None:
            span.set_attribute("gen_ai.response.finish_reasons", [reason])
        span.set_attribute("gen_ai.usage.output_tokens", limiter.tokens)
        if status in _GRPC_STATUSES:
            span.set_attribute("rpc.grpc.status_code", _GRPC_STATUSES.index(status))
        span.set_attribute("rpc.response.status_code", status)
        error = None
        if fault is not None:
            error = _error_type(fault, status)
        elif cancelled and reason is None and not gone:
            error = "CANCELLED"
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR, fault.message if isinstance(fault, GatewayError) else None)
        # Without an end of the call's own, with the request.
        span.end(self._ended_ns or self._now_ns())


def _clock() -> Callable[[], int]:
    """Give the time of day for one request's spans, whose differences are durations even if the clock is set."""
    shift_ns = time.time_ns() - time.monotonic_ns()
    return lambda: time.monotonic_ns() + shift_ns


def _error_type(fault: BaseException, status: str) -> str:
    if status != "OK":
        return status
    # An answer that ended well for gRPC, but without its final message.
    return (fault.kind.code if isinstance(fault, GatewayError) else None) or type(fault).__qualname__


def _resource() -> Resource:
    """Say who exports; what the variables ``OTEL_…`` say of it counts more."""
    own: dict[str, AttributeValue] = {
        "service.name": "brunix-gateway",
        "service.version": __version__,
        # Each of several processes has its own.
        "service.instance.id": str(uuid4()),
    }
    return Resource.create(own | dict(OTELResourceDetector().detect().attributes))


def _address(text: str) -> dict[str, AttributeValue]:
    """Take a host and port apart; of a gRPC target, too."""
    text = text.removeprefix("dns:///")
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        # Several of them, or whatever else a client calls it by.
        return {"server.address": text}
    if not host or parts.netloc != text:
        return {"server.address": text}
    return {"server.address": host} if port is None else {"server.address": host, "server.port": port}


def _parent(trace: TraceContext | None) -> Context:
    """Write as OpenTelemetry's what a request's caller gave."""
    if trace is None:
        return Context()
    _, trace_id, parent_id, flags = trace.traceparent.split("-")
    context = SpanContext(
        int(trace_id, 16),
        int(parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([trace.tracestate]),
    )
    return set_span_in_context(NonRecordingSpan(context), Context())


def _context(span: Span) -> TraceContext | None:
    """Write as headers what belongs below a span; None if it belongs to no trace, as where the SDK is turned off."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return TraceContext(traceparent, context.trace_state.to_header())


class _Logs(logging.Handler):
    """Writes what the SDK logs, from whatever thread, to the gateway's log."""

    _log = Logger()

    def __init__(self, reactor: Reactor) -> None:
        super().__init__(logging.WARNING)
        self._reactor = reactor

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        self._reactor.callFromThread(self.warn, record.getMessage())

    def warn(self, text: str) -> None:
        """Write a line."""
        self._log.emit(LogLevel.warn, "Traces: {text}", text=text)
