"""
What is reported about a request at its end: to the log, the metrics and the traces.

Each request fills in its :class:`RequestInProgress`. At its end, whatever the outcome, that becomes one
:class:`RequestRecord`, which every observer receives; nothing else knows the observers. The values of a record are
numbers or come from closed sets, except where a field's description says otherwise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final, Literal, Protocol, get_args

import attrs

from brunix_twisted import errors
from brunix_twisted.dialects.endpoints import DialectName, endpoint_of
from brunix_twisted.errors import Kind
from brunix_twisted.model import Choice, Processes

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
Why a request ended. Answers end ``complete``, or ``cut`` at a stop sequence or the caller's limit; ``client_gone`` and
``stalled`` are the client's doing, which left or read no more; the rest are failures, ``refused`` the caller's own.
"""

Rpc = Literal["AskAgent", "AskAgentStream"]

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

_REASONS: Final[dict[Kind, Reason]] = {
    errors.ENGINE_ERROR: "engine_error",
    errors.ENGINE_AUTH: "engine_error",
    errors.ENGINE_UNAVAILABLE: "engine_error",
    errors.RATE_LIMITED: "engine_error",
    errors.ENGINE_TIMEOUT: "timeout",
    errors.TOO_SLOW: "timeout",
    errors.OVERLOADED: "overloaded",
    errors.STOPPING: "draining",
    errors.INTERNAL: "internal",
}

_STORED_ANSWER: Final = re.compile(r"\A/v1/responses/resp_[^/]*")

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"})


@attrs.frozen(kw_only=True)
class RequestRecord:
    """What one request came to. Durations are in seconds."""

    request_id: str
    """Of the caller's choice, as far as it is sane; for the log."""
    spelled_method: str
    """As the caller wrote it; for the log."""
    method: str
    """``other`` where HTTP does not define it."""
    path: str
    """In its one spelling, but of the caller's choice, and :func:`masked`; for the log."""
    endpoint: str
    """One of :data:`brunix_twisted.dialects.endpoints.ENDPOINTS`, or ``other``."""
    dialect: DialectName
    status: int | None
    """None for a client that left before the headers."""
    streamed: bool
    session: str
    """See :func:`session_digest`."""
    queue_s: float | None
    """Waiting for a place with the engine; None for a request that asked for none."""
    first_token_s: float | None
    """From the request's arrival to the engine's first text."""
    engine_s: float | None
    """With the engine, from the place to the end of the call."""
    total_s: float
    """From the request's arrival to the end of its answer."""
    tokens: int
    """Of text that was sent or would have been."""
    prompt_tokens: int
    """Of an answer that was complete; otherwise nobody counts them."""
    calls: tuple[tuple[Rpc, str], ...]
    """Every engine call and the name of its gRPC status."""
    reason: Reason
    gone: bool
    """Whether the connection ended before the answer."""
    sent_bytes: int
    """Of the body."""
    trace_id: str = ""
    """Of the caller's trace, or the gateway's own; empty where there is none."""


@attrs.frozen(kw_only=True)
class Readings:
    """How things stand now."""

    requests: int
    """Being answered."""
    streams: int
    waiting: int
    """In the queue for a place with the engine."""
    queue_size: int
    busy: int
    """Places with the engine that are taken."""
    places: int
    processes: Processes | None
    """None for a gateway of one process."""


def session_digest(session_id: str, key: bytes) -> str:
    """
    Stand for a session in the log and in traces: 12 hexadecimal digits, or nothing for no session.

    A session's id may name a person or a ticket, and whoever knows it can ask in the session. Without the key nobody
    can try ids until one has the same digest.

    :param key: random, up to 32 bytes; the same for all that is to be compared.
    """
    return hashlib.blake2s(session_id.encode(), digest_size=6, key=key).hexdigest() if session_id else ""


def masked(path: str) -> str:
    """
    Write a path without a stored answer's id, for the log and for traces.

    Whoever knows such an id can read the answer, and ask in its session.
    """
    return _STORED_ANSWER.sub("/v1/responses/{id}", path)


Observer = Callable[[RequestRecord], object]
"""Is told of each request at its end, on the reactor's thread."""


class _Counts(Protocol):
    @property
    def tokens(self) -> int: ...


@attrs.define(eq=False)
class EngineCall:
    """One question with the engine. Times are the reactor's clock."""

    rpc: Rpc
    statuses: list[str]
    """Grows with each attempt; see :class:`brunix_twisted.engine.Call`."""
    text: _Counts
    """Counts the tokens of what it has said so far."""
    began_s: float = 0.0
    ended_s: float | None = None


@attrs.define(eq=False)
class RequestInProgress:
    """What is known by now of a request under way. Times are the reactor's clock."""

    started_s: float
    streamed: bool = False
    reason: Reason | None = None
    """Set by whoever knows first."""
    prompt_tokens: int = 0
    trace_id: str = ""
    anthropic: bool = False
    """Whether the request names a version of Anthropic's API, which decides where its path does not."""
    first_text_s: float | None = None
    """When the first text of the answer arrived."""
    calls: list[EngineCall] = attrs.Factory(list)
    _queue_s: float | None = None
    _queued_since_s: float | None = None

    def queued(self, now_s: float) -> None:
        """Wait for a place from now on."""
        self._queued_since_s = now_s

    def admitted(self, now_s: float) -> None:
        """Wait no more."""
        self._queue_s = self._waited(now_s)
        self._queued_since_s = None

    def _waited(self, now_s: float) -> float | None:
        since_s = self._queued_since_s
        return self._queue_s if since_s is None else (self._queue_s or 0.0) + now_s - since_s

    def failed(self, kind: Kind) -> None:
        """Take the kind of a failure for the end's reason, unless another failure is known already."""
        # An answer whose end could not be sent was taken for complete just before.
        if self.reason in {None, "complete", "cut"}:
            self.reason = _REASONS.get(kind, "refused")

    def completed(self, choices: list[Choice], prompt_tokens: int) -> None:
        """Say that the answer is whole."""
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
        Write the ``Server-Timing`` of an answer whose headers go out now, in milliseconds; b"" for nothing to tell.

        https://www.w3.org/TR/server-timing/. Of a stream the end is not known yet.
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

    def finish(  # noqa: PLR0913 - what only the request knows
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
    ) -> RequestRecord:
        """
        Make the record, once.

        :param gone: the connection ended before the answer.
        :param session: the session's digest, of :func:`session_digest`.
        """
        endpoint, dialect = endpoint_of(path, anthropic=self.anthropic)
        return RequestRecord(
            request_id=request_id,
            spelled_method=method,
            method=method if method in _METHODS else "other",
            path=masked(path),
            endpoint=endpoint,
            dialect=dialect,
            status=status,
            streamed=self.streamed,
            session=session,
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
            trace_id=self.trace_id,
        )
