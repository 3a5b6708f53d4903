"""
The spans of requests and of their engine calls.

Everything here runs on the reactor's thread. Spans are passed as values: Python's current context would also apply to
whatever the reactor runs next.

The names of attributes follow OpenTelemetry's semantic conventions for HTTP, RPC and generative AI. No attribute
contains a prompt, an answer or a session id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import attrs
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http import Request

from brunix_twisted.dialects.endpoints import endpoint_of
from brunix_twisted.engine import Call
from brunix_twisted.errors import GatewayError
from brunix_twisted.limits import OutputLimiter, count_tokens
from brunix_twisted.model import CompletionRequest, Question, Source, TraceContext
from brunix_twisted.observability.request_record import RequestRecord, masked, session_digest

_PROMPTS: Final = frozenset({"/v1/completions", "/api/generate"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_SERVER_ERROR: Final = 500
# Reasons of a request's end: caused by the client, and failures that may happen in the middle of an answer.
_CAUSED_BY_CLIENT: Final = frozenset({"client_gone", "stalled"})
_FAILURES: Final = frozenset({"engine_error", "timeout", "overloaded", "draining", "internal"})
_SERVICE: Final = "brunix.AssistanceEngine"

# In the order of their numbers.
_GRPC_STATUSES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)

# Maximum length of a model name in the settings.
_MODEL_CHARACTERS: Final = 128


@attrs.frozen(kw_only=True)
class SpanSource:
    """What all spans of the gateway have in common."""

    tracer: Tracer
    model_id: str
    engine: Mapping[str, AttributeValue]
    """The attributes of the engine's address."""
    digest_key: bytes
    """The key of the session digests."""


def begin_request(source: SpanSource, request: Request, request_id: str, trace: TraceContext | None) -> RequestSpan:
    """Begin the span of a request, as a child of the caller's span if there is one."""
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
        attributes |= address_attributes(host.decode("latin-1"))
    now_ns = _clock()
    verb = "HTTP" if known == "_OTHER" else known
    span = source.tracer.start_span(
        verb if route is None else f"{verb} {route}",
        # An explicit parent, since the current context may be another request's.
        context=_parent(trace),
        kind=SpanKind.SERVER,
        attributes=attributes,
        start_time=now_ns(),
    )
    return RequestSpan(source, path, span, now_ns)


class RequestSpan:
    """The span of one request, and the spans of its engine calls, which end no later."""

    def __init__(self, source: SpanSource, path: str, span: Span, now_ns: Callable[[], int]) -> None:
        """Manage a span that has begun."""
        self._source = source
        self._path = path
        self._span = span
        self._now_ns = now_ns
        self._calls: list[TracedCall] = []
        self.context = _context(span)
        """The parent of the engine calls' spans."""

    def call(self, call: Call, question: Question, requested: CompletionRequest, limiter: OutputLimiter) -> Call:
        """Wrap an engine call so that it has a span from its start."""
        if not self._span.is_recording():
            return call
        operation = "text_completion" if self._path in _PROMPTS else "chat"
        model = requested.model[:_MODEL_CHARACTERS]
        rpc = "AskAgentStream" if question.stream else "AskAgent"
        # The prompt that `usage` counts, unless several calls share it.
        prompt = requested.prompt if len(requested.queries) == 1 else question.query
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "brunix",
            "gen_ai.request.model": model,
            "gen_ai.request.stream": requested.stream,
            "gen_ai.response.model": self._source.model_id,
            "gen_ai.usage.input_tokens": count_tokens(prompt),
            "rpc.system": "grpc",
            "rpc.system.name": "grpc",
            "rpc.method": f"{_SERVICE}/{rpc}",
            **self._source.engine,
        }
        if requested.limits.max_tokens is not None:
            attributes["gen_ai.request.max_tokens"] = requested.limits.max_tokens
        if question.session_id:
            # The digest, as in the log: the id may name a person or a ticket.
            attributes["gen_ai.conversation.id"] = session_digest(question.session_id, self._source.digest_key)

        def begin() -> Span:
            return self._source.tracer.start_span(
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
        """End the span. Call it once."""
        span, status, reason = self._span, record.status, record.reason
        gone = reason in _CAUSED_BY_CLIENT
        for call in self._calls:
            call.finish(gone=gone)
        # Breaks the reference cycle with the request.
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
            # The error is in the body of the response.
            error = reason
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR)
        span.end(self._now_ns())


class TracedCall:
    """
    An engine call with a span: see :class:`brunix_twisted.engine.Call`.

    The span ends when the engine call ends, however slowly the client reads. Its attributes are complete only at the
    end of the request.
    """

    trace: TraceContext | None = None
    """Unused: the engine receives the context of this call's span."""

    def __init__(
        self, call: Call, limiter: OutputLimiter, begin: Callable[[], Span], now_ns: Callable[[], int], *, streams: bool
    ) -> None:
        """
        Wrap a call that has not started.

        :param limiter: knows, at the end, which part of the text the client received.
        :param begin: begins the span.
        :param now_ns: returns the time of day in nanoseconds.
        :param streams: whether the response is a stream.
        """
        self.statuses = call.statuses
        self._call = call
        self._limiter = limiter
        self._begin = begin
        self._now_ns = now_ns
        self._streams = streams
        self._span: Span | None = None
        self._began_ns = 0
        self._has_text = False
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
        if texts and not self._has_text and self._span is not None:
            self._has_text = True
            # The call may have ended with the same text.
            first_text_ns = self._ended_ns or self._now_ns()
            self._span.add_event("first_token", timestamp=first_text_ns)
            if self._streams:
                self._span.set_attribute("gen_ai.response.time_to_first_chunk", (first_text_ns - self._began_ns) / 1e9)
        return texts

    @property
    def is_empty(self) -> bool:
        """See :class:`brunix_twisted.engine.Call`."""
        return self._call.is_empty

    @property
    def sources(self) -> tuple[Source, ...]:
        """See :class:`brunix_twisted.engine.Call`."""
        return self._call.sources

    def cancel(self) -> None:
        """See :class:`brunix_twisted.engine.Call`."""
        self._call.cancel()

    def finish(self, *, gone: bool) -> None:
        """
        End the span, at the end of the request.

        :param gone: whether the client caused that end; then a cancelled call is not an error.
        """
        span, fault, limiter = self._span, self._fault, self._limiter
        if span is None:
            return
        # The status of the last attempt. A call that was cancelled before the first attempt has none.
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
        # A call that has not ended ends with the request.
        span.end(self._ended_ns or self._now_ns())


def _clock() -> Callable[[], int]:
    """Return a clock for one request's spans: the time of day at first, and then monotonic."""
    shift_ns = time.time_ns() - time.monotonic_ns()
    return lambda: time.monotonic_ns() + shift_ns


def _error_type(fault: BaseException, status: str) -> str:
    if status != "OK":
        return status
    # The gRPC call succeeded, but its final message was missing.
    return (fault.kind.code if isinstance(fault, GatewayError) else None) or type(fault).__qualname__


def address_attributes(text: str) -> dict[str, AttributeValue]:
    """Return the attributes of a host and port, or of a gRPC target."""
    text = text.removeprefix("dns:///")
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        # Several addresses, or a malformed Host.
        return {"server.address": text}
    if not host or parts.netloc != text:
        return {"server.address": text}
    return {"server.address": host} if port is None else {"server.address": host, "server.port": port}


def _parent(trace: TraceContext | None) -> Context:
    """Convert the caller's trace context to OpenTelemetry's."""
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
    """Return the trace context of a span; None if it is in no trace, as when the SDK is disabled."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return TraceContext(traceparent, context.trace_state.to_header())
