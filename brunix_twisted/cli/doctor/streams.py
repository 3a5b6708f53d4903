"""Whether an answer arrives complete, and piece by piece as the engine produces it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from itertools import pairwise
from typing import Any, Final

import attrs

from brunix_twisted.cli.api_formats import ApiFormat
from brunix_twisted.cli.diagnosis import EXPECTED, Diagnosis, diagnose_exception, diagnose_response, find_error
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.http_client import MAX_PAGE_BYTES, Chunk, Connection, Target
from brunix_twisted.cli.sockets import DeadlineExceededError

_MIN_GENERATION_S: Final = 0.25
"""An answer that is generated faster shows nothing: network delays make as much of a difference."""
_MIN_SPREAD_RATIO: Final = 0.5
"""An answer is buffered if it arrives in less than this part of the time in which it was generated."""
_BURST_GAP_S: Final = 0.02
_MIN_BURST_BYTES: Final = 1024
_MAX_TEXTS_PER_BURST: Final = 8
"""More than any engine sends at once."""


@attrs.frozen(kw_only=True)
class StreamObservation:
    """One streamed answer. All times are in seconds since the question was sent."""

    api: str
    status: int
    head_s: float = 0.0
    end_s: float = 0.0
    text_s: Sequence[float] = ()
    """When each piece of text arrived."""
    heartbeat_s: Sequence[float] = ()
    """When each heartbeat arrived."""
    text: str = ""
    body_bytes: int = 0
    complete: bool = False
    """Whether the stream reported the end of the answer."""
    stopped: bool = False
    """Whether reading stopped because time was up."""
    engine_first_text_s: float | None = None
    """When the gateway received the engine's first text, as it reports in Server-Timing."""
    generation_s: float | None = None
    """How long the engine took after that. Only Ollama's API reports it."""
    encoding: str = ""
    """The Content-Encoding."""
    session_id: str = ""
    session_outcome: str = ""
    """The X-Brunix-Session: how the gateway found the session."""
    request_id: str = ""
    diagnosis: Diagnosis | None = None

    @property
    def max_silence_s(self) -> float:
        """The longest time without any data."""
        moments = sorted([0.0, self.head_s, *self.text_s, *self.heartbeat_s, self.end_s])
        return max(after - before for before, after in pairwise(moments))


def observe(target: Target, api: ApiFormat, body: Any, *, session_id: str = "", timeout_s: float) -> StreamObservation:  # noqa: ANN401 - any JSON value
    """Ask a question, and record what arrives when. Network errors become part of the result."""
    # Many clients accept compression, and then a proxy may compress.
    headers = [*api.headers, ("Accept-Encoding", "gzip, deflate")]
    if session_id:
        headers.append(("X-Session-Id", session_id))
    with Connection(target) as connection:
        sent_s = time.monotonic()
        try:
            response = connection.request("POST", api.path, body, headers=headers, timeout_s=timeout_s)
            sent_s = response.sent_s
            if not response.ok:
                diagnosis = diagnose_response(response.read(MAX_PAGE_BYTES), target.address)
                return StreamObservation(api=api.id, status=response.status, diagnosis=diagnosis)
        except DeadlineExceededError:
            return StreamObservation(api=api.id, status=0, end_s=time.monotonic() - sent_s, stopped=True)
        except EXPECTED as error:
            diagnosis = diagnose_exception(error, target.address)
            return StreamObservation(api=api.id, status=0, end_s=time.monotonic() - sent_s, diagnosis=diagnosis)
        recorder = _StreamRecorder(api)
        stopped = False
        try:
            for event in api.events(recorder.count(response.chunks())):
                recorder.record(event.data, event.at_s - sent_s)
        except DeadlineExceededError:
            stopped = True
        except ConnectionError:
            pass  # reported as an incomplete answer
        except EXPECTED as error:
            recorder.diagnosis = recorder.diagnosis or diagnose_exception(error, target.address)
        return StreamObservation(
            api=api.id,
            status=response.status,
            head_s=response.head_s - sent_s,
            end_s=time.monotonic() - sent_s,
            text_s=recorder.text_s,
            heartbeat_s=recorder.heartbeat_s,
            text="".join(recorder.texts),
            body_bytes=recorder.body_bytes,
            complete=recorder.complete,
            stopped=stopped,
            engine_first_text_s=parse_server_timing(response.headers.get("Server-Timing")),
            generation_s=recorder.generation_s,
            encoding=response.headers.get("Content-Encoding").lower().replace("identity", ""),
            session_id=response.headers.get("X-Session-Id"),
            session_outcome=response.headers.get("X-Brunix-Session"),
            request_id=response.headers.get("X-Request-Id"),
            diagnosis=recorder.diagnosis,
        )


class _StreamRecorder:
    """Collects the events of one stream."""

    def __init__(self, api: ApiFormat) -> None:
        self._api = api
        self.texts: list[str] = []
        self.text_s: list[float] = []
        self.heartbeat_s: list[float] = []
        self.body_bytes = 0
        self.complete = False
        self.generation_s: float | None = None
        self.diagnosis: Diagnosis | None = None

    def count(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Count the bytes of the body."""
        for chunk in chunks:
            self.body_bytes += len(chunk.data)
            yield chunk

    def record(self, data: Any, at_s: float) -> None:  # noqa: ANN401 - any JSON value
        """Record an event."""
        if data is None:
            self.heartbeat_s.append(at_s)
            return
        if error := find_error(data):
            self.diagnosis = Diagnosis(error.code or "broken_off", error.message)
            return
        if text := self._api.text_of(data):
            self.texts.append(text)
            self.text_s.append(at_s)
        self.complete = self.complete or self._api.is_end(data)
        with suppress(LookupError, TypeError):
            self.generation_s = data["eval_duration"] / 1e9


def parse_server_timing(value: str) -> float | None:
    """Return when the gateway received the engine's first text, in seconds, from a Server-Timing header."""
    found = re.search(r"(?:\A|,)\s*first;dur=([0-9.]+)", value)
    return float(found[1]) / 1000 if found else None


def check_answer(name: str, seen: StreamObservation) -> Finding:
    """Check whether an API answers."""
    diagnosis = seen.diagnosis
    figures: dict[str, Any] = {"dialect": seen.api, "status": seen.status, "complete": seen.complete}
    if diagnosis is not None:
        if diagnosis.kind in {"unknown_url", "not_offered"}:
            return Finding("answers", "note", f"{name}: not implemented by this release", figures=figures)
        figures["kind"] = diagnosis.kind
        return Finding("answers", "problem", f"{name}: {diagnosis.message}", "", diagnosis.remedy, figures)
    if seen.text_s:
        figures["first_text_ms"] = round(seen.text_s[0] * 1000, 1)
        figures["pieces"] = len(seen.text_s)
    if seen.stopped and not seen.text_s:
        heartbeats = ""
        if seen.heartbeat_s:
            heartbeats = f" {len(seen.heartbeat_s)} heartbeats arrived, the first after {seen.heartbeat_s[0]:.1f} s."
        return Finding(
            "answers",
            "warning",
            f"{name}: no text within {seen.end_s:.0f} s",
            f"The engine is slow or busy. That alone breaks nothing.{heartbeats}",
            "--patient waits longer.",
            figures,
        )
    if seen.complete or seen.stopped:
        if not seen.text_s:
            return Finding("answers", "warning", f"{name}: the answer has no text", figures=figures)
        says = f"{name}: answers, first text after {seen.text_s[0] * 1000:.0f} ms"
        return Finding("answers", "ok", says, figures=figures)
    silent_s = seen.end_s - max(seen.head_s, *seen.text_s, *seen.heartbeat_s, 0.0)
    return Finding(
        "answers",
        "problem",
        f"{name}: the answer is truncated after {seen.end_s:.1f} s, {silent_s:.1f} s after the last data",
        "The gateway ends every answer with its last text or with an error. Something closed the connection, probably "
        "a proxy whose timeout passed.",
        "Raise the proxy's timeout (nginx: proxy_read_timeout 660s; HAProxy: timeout server 660s), or set "
        "PROXY_HEARTBEAT_S well below it.",
        figures,
    )


def bursts(moments: Sequence[float]) -> int:
    """Count the moments at which data arrived; what arrives within 20 ms is one burst."""
    return sum(after - before > _BURST_GAP_S for before, after in pairwise(moments)) + bool(moments)


def check_stream(name: str, seen: StreamObservation) -> Finding | None:
    """Check whether text arrives when it is generated. Returns None if there was no text."""
    if not seen.text_s or seen.diagnosis is not None:
        return None
    first_s, last_s = seen.text_s[0], seen.text_s[-1]
    spread_s = last_s - first_s
    generation_s, engine_first_s = seen.generation_s, seen.engine_first_text_s
    if generation_s is None and engine_first_s is not None:
        generation_s = max(0.0, last_s - engine_first_s)
    figures: dict[str, Any] = {
        "dialect": seen.api,
        "pieces": len(seen.text_s),
        "lumps": bursts(seen.text_s),
        "bytes": seen.body_bytes,
        "head_ms": round(seen.head_s * 1000, 1),
        "first_text_ms": round(first_s * 1000, 1),
        "last_text_ms": round(last_s * 1000, 1),
        "engine_first_ms": None if engine_first_s is None else round(engine_first_s * 1000, 1),
        "made_in_ms": None if generation_s is None else round(generation_s * 1000, 1),
        "content_encoding": seen.encoding or None,
    }
    if generation_s is None:
        return Finding(
            "streams",
            "note",
            f"{name}: {len(seen.text_s)} pieces in {spread_s:.2f} s; their generation time is unknown",
            "Server-Timing is missing from the response, or was sent before the first text.",
            "",
            figures,
        )
    if generation_s < _MIN_GENERATION_S:
        return Finding(
            "streams",
            "note",
            f"{name}: generated in {generation_s * 1000:.0f} ms, too fast to detect buffering",
            "",
            "Use --question with something that takes the engine at least a second.",
            figures,
        )
    if spread_s < _MIN_SPREAD_RATIO * generation_s:
        return Finding(
            "streams",
            "problem",
            f"{name}: generated over {generation_s:.1f} s, but arrives within {spread_s:.1f} s",
            "A proxy buffers the answer, and users wait for all of it"
            + (f". It also compresses it ({seen.encoding})." if seen.encoding else "."),
            _COMPRESSION_TODO if seen.encoding else _BUFFERING_TODO,
            figures,
        )
    return _check_bursts(name, seen, figures, spread_s)


def _check_bursts(name: str, seen: StreamObservation, figures: dict[str, Any], spread_s: float) -> Finding:
    """Check an answer that streams for small buffers and compression."""
    count = bursts(seen.text_s)
    if len(seen.text_s) / count > _MAX_TEXTS_PER_BURST and seen.body_bytes / count > _MIN_BURST_BYTES:
        return Finding(
            "streams",
            "warning",
            f"{name}: arrives in {count} bursts of about {seen.body_bytes // count} bytes",
            "A proxy fills a buffer before it sends, or the engine itself sends text in bursts.",
            f"Compare with a run on the gateway's machine. {_BUFFERING_TODO}",
            figures,
        )
    if seen.encoding:
        return Finding(
            "streams",
            "warning",
            f"{name}: arrives piece by piece, but compressed ({seen.encoding})",
            "The gateway does not compress. A proxy does, and may delay text.",
            _COMPRESSION_TODO,
            figures,
        )
    says = f"{name}: piece by piece, {len(seen.text_s)} in {spread_s:.1f} s"
    return Finding("streams", "ok", says, figures=figures)


_BUFFERING_TODO: Final = (
    "nginx: proxy_buffering off, and no proxy_ignore_headers X-Accel-Buffering. HAProxy: option http-no-delay. "
    "A second proxy or a CDN needs its own setting."
)
_COMPRESSION_TODO: Final = (
    "Turn off compression for text/event-stream and application/x-ndjson (nginx: gzip off), and buffering too: "
    "proxy_buffering off."
)


def check_silence(observations: Sequence[StreamObservation], *, patient: bool) -> Finding:
    """Check for heartbeats while the engine was silent."""
    answered = [seen for seen in observations if seen.status == HTTPStatus.OK]
    max_s = max((seen.max_silence_s for seen in answered), default=0.0)
    gaps = [gap for seen in answered for gap in _gaps(seen)]
    figures = {"longest_silence_s": round(max_s, 2), "signs": sum(len(seen.heartbeat_s) for seen in answered)}
    if gaps:
        return Finding(
            "silence",
            "ok",
            f"heartbeats arrive while the engine is silent, after {min(gaps):.1f} to {max(gaps):.1f} s",
            figures=figures,
        )
    return Finding(
        "silence",
        "note",
        f"no answer was silent for more than {max(0.1, max_s):.1f} s, and no timeout occurred",
        "This does not show whether a proxy ends longer silences.",
        "Use a --question that keeps the engine silent for longer."
        if patient
        else "Use --patient with a --question that takes the engine long.",
        figures,
    )


def _gaps(seen: StreamObservation) -> list[float]:
    """Return the silence before each heartbeat."""
    moments = sorted([0.0, seen.head_s, *seen.text_s, *seen.heartbeat_s])
    # If an answer starts with a heartbeat, its headers arrive together with it.
    return [
        at_s - max((moment for moment in moments if moment < at_s - _BURST_GAP_S), default=0.0)
        for at_s in seen.heartbeat_s
    ]
