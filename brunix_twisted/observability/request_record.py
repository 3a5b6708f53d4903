"""
The record of a request, from which the log line, the metrics and the span are made.

Each request fills in its :class:`RequestInProgress`. At its end, whatever the outcome, that becomes one
:class:`RequestRecord`, which every observer receives. The values of a record are numbers or come from closed sets,
unless a field's description says otherwise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, Protocol, get_args

import attrs

from brunix_twisted import errors
from brunix_twisted.dialects.endpoints import DialectName, endpoint_of
from brunix_twisted.errors import Kind
from brunix_twisted.model import Choice, Processes, SessionOutcome
from brunix_twisted.state import StateReadings

Reason = Literal[
    "complete",
    "cut",
    "client_gone",
    "stalled",
    "engine_error",
    "timeout",
    "overloaded",
    "refused",
    "draining",
    "internal",
]
"""
Why a request ended.

- ``complete``: the whole answer; ``cut``: up to a stop sequence or the caller's limit
- ``client_gone``: the client disconnected or cancelled; ``stalled``: it stopped reading
- the others are failures; ``refused`` is an error of the caller
"""

Rpc = Literal["AskAgent", "AskAgentStream"]

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

_REASONS: Final[dict[Kind, Reason]] = {
    errors.ENGINE_ERROR: "engine_error",
    errors.ENGINE_AUTH: "engine_error",
    errors.ENGINE_UNAVAILABLE: "engine_error",
    errors.RATE_LIMITED: "engine_error",
    errors.QUEUE_PER_CALLER: "overloaded",
    errors.ENGINE_TIMEOUT: "timeout",
    errors.TOO_SLOW: "timeout",
    errors.OVERLOADED: "overloaded",
    errors.STOPPING: "draining",
    errors.CANCELLED: "client_gone",
    errors.INTERNAL: "internal",
}

_STORED_ANSWER: Final = re.compile(r"\A/v1/responses/resp_[^/]*")

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"})


@attrs.frozen(kw_only=True)
class RequestRecord:
    """The outcome of one request. Durations are in seconds."""

    request_id: str
    """For the log; the caller may choose it."""
    original_method: str
    """For the log; the method as the caller wrote it."""
    method: str
    """``other`` if HTTP does not define it."""
    path: str
    """For the log; normalized and :func:`masked`, but the caller may choose it."""
    endpoint: str
    """One of :data:`brunix_twisted.dialects.endpoints.ENDPOINTS`, or ``other``."""
    dialect: DialectName
    status: int | None
    """None if the client disconnected before the response's headers."""
    streamed: bool
    session: str
    """See :func:`session_digest`."""
    session_outcome: SessionOutcome | None
    """None for a request without a session."""
    queue_s: float | None
    """Time in the queue; None for a request that needs no worker."""
    first_token_s: float | None
    """From the start of the request to the engine's first text."""
    engine_s: float | None
    """Total time of the engine calls."""
    total_s: float
    """From the start of the request to the end of the response."""
    tokens: int
    """Tokens of the answer, sent or not."""
    prompt_tokens: int
    """0 unless the answer was complete."""
    calls: tuple[tuple[Rpc, str], ...]
    """Every engine call and the name of its gRPC status."""
    reason: Reason
    gone: bool
    """Whether the connection was lost before the end of the response."""
    sent_bytes: int
    """Size of the response's body."""
    side_request: str = ""
    """The kind of side request; empty for a user's question. See :mod:`brunix_twisted.api.side_requests`."""
    trace_id: str = ""
    """The id of the caller's trace, or of the gateway's; empty without a trace."""
    client: Mapping[str, str] = attrs.Factory(dict)
    """For the log: what ``PROXY_LOG_CLIENT`` selects of the client. The client may choose the values."""


@attrs.frozen(kw_only=True)
class Readings:
    """The current values of the gauges."""

    requests: int
    """Requests in progress."""
    streams: int
    waiting: int
    """Questions in the queue."""
    queue_size: int
    busy: int
    """Workers in use."""
    places: int
    """Number of workers."""
    processes: Processes | None
    """None if there is only one process."""
    state: StateReadings | None
    """The store that several processes or gateways share; None if the state is in this process's memory."""


def session_digest(session_id: str, key: bytes) -> str:
    """
    Return the digest of a session id for the log and traces: 12 hexadecimal digits, or an empty text for no session.

    A session id may name a person or a ticket, and gives access to the session. The key prevents attackers from finding
    an id by computing the digests of many.

    :param key: up to 32 random bytes. Digests are comparable only with the same key.
    """
    return hashlib.blake2s(session_id.encode(), digest_size=6, key=key).hexdigest() if session_id else ""


def masked(path: str) -> str:
    """
    Return a path without the id of a stored response, for the log and traces.

    The id gives access to the response and to its session.
    """
    return _STORED_ANSWER.sub("/v1/responses/{id}", path)


Observer = Callable[[RequestRecord], object]
"""Receives the record of each request at its end, on the reactor's thread."""


class _Counts(Protocol):
    @property
    def tokens(self) -> int: ...


@attrs.define(eq=False)
class EngineCall:
    """One engine call. Times are in seconds of the reactor's clock."""

    rpc: Rpc
    statuses: list[str]
    """The gRPC status of each attempt so far; see :class:`brunix_twisted.engine.Call`."""
    text: _Counts
    """Counts the tokens of the text so far."""
    began_s: float = 0.0
    ended_s: float | None = None


@attrs.define(eq=False)
class RequestInProgress:
    """The data of a request in progress. Times are in seconds of the reactor's clock."""

    started_s: float
    streamed: bool = False
    reason: Reason | None = None
    """The first reason that was reported, except that a failure replaces success."""
    prompt_tokens: int = 0
    trace_id: str = ""
    side_request: str = ""
    """See :attr:`RequestRecord.side_request`."""
    anthropic: bool = False
    """Whether the request has Anthropic's version header, which selects the dialect of an ambiguous path."""
    session_outcome: SessionOutcome | None = None
    first_text_s: float | None = None
    """When the first text of the answer arrived."""
    calls: list[EngineCall] = attrs.Factory(list)
    _queue_s: float | None = None
    _queued_since_s: float | None = None

    def queued(self, now_s: float) -> None:
        """Begin to wait for a worker."""
        self._queued_since_s = now_s

    def admitted(self, now_s: float) -> None:
        """Stop waiting for a worker."""
        self._queue_s = self._waited(now_s)
        self._queued_since_s = None

    def _waited(self, now_s: float) -> float | None:
        since_s = self._queued_since_s
        return self._queue_s if since_s is None else (self._queue_s or 0.0) + now_s - since_s

    def failed(self, kind: Kind) -> None:
        """Set the reason from a failure's kind, unless an earlier failure has set it."""
        # An answer counts as complete before its end is sent, and sending may still fail.
        if self.reason in {None, "complete", "cut"}:
            self.reason = _REASONS.get(kind, "refused")

    def completed(self, choices: list[Choice], prompt_tokens: int) -> None:
        """Set the reason of a successful answer, and the tokens of its prompt."""
        self.reason = "cut" if any(choice.cut for choice in choices) else "complete"
        self.prompt_tokens = prompt_tokens

    def _first_token_s(self) -> float | None:
        return None if self.first_text_s is None else self.first_text_s - self.started_s

    def _engine_s(self, now_s: float) -> float | None:
        if not self.calls:
            return None
        return sum((now_s if call.ended_s is None else call.ended_s) - call.began_s for call in self.calls)

    def durations_s(self, now_s: float) -> tuple[float, float, float]:
        """
        Divide the time of an answer that ends now, in seconds.

        :return: from the request to the start of its first engine call, from there to the first text, and from there to
            now.
        """
        call_s = self.calls[0].began_s if self.calls else self.started_s
        text_s = now_s if self.first_text_s is None else self.first_text_s
        return call_s - self.started_s, text_s - call_s, now_s - text_s

    def server_timing(self, now_s: float) -> bytes:
        """
        Return the value of ``Server-Timing`` for headers that are sent now, in milliseconds; b"" for no engine call.

        A stream has no value for its end, which is not known yet. See https://www.w3.org/TR/server-timing/.
        """
        queue_s, first_s, engine_s = self._waited(now_s), self._first_token_s(), self._engine_s(now_s)
        if queue_s is None or engine_s is None:
            return b""
        parts = [b"queue;dur=%.1f" % (queue_s * 1000)]
        if first_s is not None:
            parts.append(b"first;dur=%.1f" % (first_s * 1000))
        if not self.streamed:
            gateway_s = max(0.0, now_s - self.started_s - queue_s - engine_s)
            parts.append(b"engine;dur=%.1f, gateway;dur=%.1f" % (engine_s * 1000, gateway_s * 1000))
        return b", ".join(parts)

    def finish(  # noqa: PLR0913 - values that only the request has
        self,
        now_s: float,
        *,
        request_id: str,
        method: str,
        path: str,
        status: int | None,
        gone: bool,
        session: str,
        sent_bytes: int,
        client: Mapping[str, str] | None = None,
    ) -> RequestRecord:
        """
        Return the record. Call it once.

        :param gone: whether the connection was lost before the end of the response.
        :param session: the session's digest, from :func:`session_digest`.
        :param client: see :attr:`RequestRecord.client`.
        """
        endpoint, dialect = endpoint_of(path, anthropic=self.anthropic)
        return RequestRecord(
            request_id=request_id,
            original_method=method,
            method=method if method in _METHODS else "other",
            path=masked(path),
            endpoint=endpoint,
            dialect=dialect,
            status=status,
            streamed=self.streamed,
            session=session,
            session_outcome=self.session_outcome,
            queue_s=self._waited(now_s),
            first_token_s=self._first_token_s(),
            engine_s=self._engine_s(now_s),
            total_s=now_s - self.started_s,
            tokens=sum(call.text.tokens for call in self.calls),
            prompt_tokens=self.prompt_tokens,
            calls=tuple((call.rpc, name) for call in self.calls for name in call.statuses),
            reason=self.reason or ("client_gone" if gone else "complete"),
            gone=gone,
            sent_bytes=sent_bytes,
            side_request=self.side_request,
            trace_id=self.trace_id,
            client=client or {},
        )
