"""Whether an answer arrives as it is made, piece by piece, and whole."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from itertools import pairwise
from typing import Any, Final

import attrs

from brunix_twisted.cli.api_formats import ApiFormat
from brunix_twisted.cli.diagnosis import (
    EXPECTED,
    Diagnosis,
    diagnose_exception,
    diagnose_response,
    find_error,
)
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.http_client import MAX_PAGE_BYTES, Connection, Target
from brunix_twisted.cli.sockets import DeadlineExceededError

_QUICK_S: Final = 0.25
"""An answer that is made in less tells nothing: any network makes as much of a difference."""
_HELD_PART: Final = 0.5
"""Held back is what gives a client less than this of the time in which the answer was made."""
_BURST_GAP_S: Final = 0.02
_MIN_BURST_BYTES: Final = 1024


@attrs.frozen(kw_only=True)
class StreamObservation:
    """One streamed answer, as it came. All times are in seconds from when the question was sent."""

    api: str
    status: int
    head_s: float = 0.0
    end_s: float = 0.0
    text_s: Sequence[float] = ()
    """When each piece of the text came."""
    heartbeat_s: Sequence[float] = ()
    """When each sign of life came."""
    text: str = ""
    body_bytes: int = 0
    complete: bool = False
    """Whether the stream said that it was the whole answer."""
    stopped: bool = False
    """Whether it was the doctor who stopped reading, because time was up."""
    engine_first_text_s: float | None = None
    """When the engine's first text was at the gateway, by the gateway's own account."""
    generation_s: float | None = None
    """How long the engine then took, by the gateway's own account; only Ollama's API tells."""
    encoding: str = ""
    """The Content-Encoding."""
    session_id: str = ""
    diagnosis: Diagnosis | None = None

    @property
    def max_silence_s(self) -> float:
        """The longest wait for anything at all."""
        moments = sorted([0.0, self.head_s, *self.text_s, *self.heartbeat_s, self.end_s])
        return max(after - before for before, after in pairwise(moments))


def observe(target: Target, api: ApiFormat, body: Any, *, session_id: str = "", timeout_s: float) -> StreamObservation:  # noqa: ANN401 - JSON
    """Ask a question, and note when what came. Fails for nothing that a network can do."""
    # Compression is what many clients offer to take, and what a proxy then does.
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
        broken: Diagnosis | None = None
        observation = _StreamRecorder(api)
        stopped = False
        try:
            for event in api.events(observation.counted(response.chunks())):
                observation.note(event.data, event.at_s - sent_s)
        except DeadlineExceededError:
            stopped = True
        except ConnectionError:
            pass  # the answer is not complete, and that is told of
        except EXPECTED as error:
            broken = diagnose_exception(error, target.address)
        return StreamObservation(
            api=api.id,
            status=response.status,
            head_s=response.head_s - sent_s,
            end_s=time.monotonic() - sent_s,
            text_s=observation.text_s,
            heartbeat_s=observation.heartbeat_s,
            text="".join(observation.texts),
            body_bytes=observation.body_bytes,
            complete=observation.complete,
            stopped=stopped,
            engine_first_text_s=parse_server_timing(response.headers.get("Server-Timing")),
            generation_s=observation.generation_s,
            encoding=response.headers.get("Content-Encoding").lower().replace("identity", ""),
            session_id=response.headers.get("X-Session-Id"),
            diagnosis=observation.diagnosis or broken,
        )


class _StreamRecorder:
    """What is noted while a stream comes."""

    def __init__(self, api: ApiFormat) -> None:
        self._dialect = api
        self.texts: list[str] = []
        self.text_s: list[float] = []
        self.heartbeat_s: list[float] = []
        self.body_bytes = 0
        self.complete = False
        self.generation_s: float | None = None
        self.diagnosis: Diagnosis | None = None

    def counted(self, chunks: Any) -> Any:  # noqa: ANN401 - the iterator it is given
        for chunk in chunks:
            self.body_bytes += len(chunk.data)
            yield chunk

    def note(self, data: Any, at_s: float) -> None:  # noqa: ANN401 - whatever JSON holds
        """Take an event."""
        if data is None:
            self.heartbeat_s.append(at_s)
            return
        if failed := find_error(data):
            self.diagnosis = Diagnosis(failed.code or "broken_off", failed.message)
            return
        if text := self._dialect.text_of(data):
            self.texts.append(text)
            self.text_s.append(at_s)
        self.complete = self.complete or self._dialect.is_end(data)
        with suppress(LookupError, TypeError):
            self.generation_s = data["eval_duration"] / 1e9


def parse_server_timing(server_timing: str) -> float | None:
    """Read when the engine began to speak, from the header that browsers show among the timings of a request."""
    found = re.search(r"(?:\A|,)\s*first;dur=([0-9.]+)", server_timing)
    return float(found[1]) / 1000 if found else None


def check_answer(name: str, observation: StreamObservation) -> Finding:
    """Say whether an API answers."""
    diagnosis = observation.diagnosis
    figures: dict[str, Any] = {
        "dialect": observation.api,
        "status": observation.status,
        "complete": observation.complete,
    }
    if diagnosis is not None:
        if diagnosis.kind in {"unknown_url", "not_offered"}:
            return Finding("answers", "note", f"{name}: this release does not have it", figures=figures)
        figures["kind"] = diagnosis.kind
        return Finding("answers", "problem", f"{name}: {diagnosis.message}", "", diagnosis.remedy, figures)
    if observation.text_s:
        figures["first_text_ms"] = round(observation.text_s[0] * 1000, 1)
        figures["pieces"] = len(observation.text_s)
    if observation.stopped and not observation.text_s:
        return Finding(
            "answers",
            "warning",
            f"{name}: not a word within {observation.end_s:.0f} s",
            "The engine is slow, or busy; that by itself breaks nothing." + _signs(observation),
            "--patient waits for longer.",
            figures,
        )
    if observation.complete or observation.stopped:
        if not observation.text_s:
            return Finding("answers", "warning", f"{name}: an answer without a word", figures=figures)
        return Finding(
            "answers",
            "ok",
            f"{name}: answers, the first word after {observation.text_s[0] * 1000:.0f} ms",
            figures=figures,
        )
    return Finding("answers", "problem", f"{name}: {_cut(observation)}", _CUT_MEANS, _CUT_TODO, figures)


def _signs(observation: StreamObservation) -> str:
    if not observation.heartbeat_s:
        return ""
    return f" Signs of life come: {len(observation.heartbeat_s)}, the first after {observation.heartbeat_s[0]:.1f} s."


def _cut(observation: StreamObservation) -> str:
    moments = [observation.head_s, *observation.text_s, *observation.heartbeat_s]
    silent_s = observation.end_s - max(moments)
    return f"the answer is cut off after {observation.end_s:.1f} s, {silent_s:.1f} s after the last that came"


_CUT_MEANS: Final = (
    "The gateway ends an answer with its last words or with an error, never without either: what stands in between "
    "closed the connection, most likely since nothing came for a while."
)
_CUT_TODO: Final = (
    "Let it wait for longer than the gateway is silent (nginx: proxy_read_timeout 660s; HAProxy: timeout server 660s), "
    "or set PROXY_HEARTBEAT_S well below its limit."
)


def bursts(moments: Sequence[float]) -> int:
    """Count the moments at which anything came; what comes within 20 ms comes at once."""
    return sum(after - before > _BURST_GAP_S for before, after in pairwise(moments)) + bool(moments)


def check_stream(name: str, observation: StreamObservation) -> Finding | None:  # noqa: PLR0911 - each end has its own words
    """Say whether an answer's pieces come when they are made. None: there is no answer to judge by."""
    if not observation.text_s or observation.diagnosis is not None:
        return None
    engine_first_text_s, last_s = observation.text_s[0], observation.text_s[-1]
    spread_s = last_s - engine_first_text_s
    made_s = observation.generation_s
    if made_s is None and observation.engine_first_text_s is not None:
        made_s = max(0.0, last_s - observation.engine_first_text_s)
    count = bursts(observation.text_s)
    figures: dict[str, Any] = {
        "dialect": observation.api,
        "pieces": len(observation.text_s),
        "lumps": count,
        "bytes": observation.body_bytes,
        "head_ms": round(observation.head_s * 1000, 1),
        "first_text_ms": round(engine_first_text_s * 1000, 1),
        "last_text_ms": round(last_s * 1000, 1),
        "engine_first_ms": None
        if observation.engine_first_text_s is None
        else round(observation.engine_first_text_s * 1000, 1),
        "made_in_ms": None if made_s is None else round(made_s * 1000, 1),
        "content_encoding": observation.encoding or None,
    }
    if made_s is None:
        return Finding(
            "streams",
            "note",
            f"{name}: {len(observation.text_s)} pieces over {spread_s:.2f} s; nothing tells when they were made",
            "Server-Timing does not arrive, or came too early to say it.",
            "",
            figures,
        )
    if made_s < _QUICK_S:
        return Finding(
            "streams",
            "note",
            f"{name}: the answer was made in {made_s * 1000:.0f} ms, too quickly to tell whether it is held back",
            "",
            "--question with something that takes the engine a second or more shows it.",
            figures,
        )
    if spread_s < _HELD_PART * made_s:
        return Finding(
            "streams",
            "problem",
            f"{name}: it was made over {made_s:.1f} s and arrives within {spread_s:.1f} s",
            "Something in between holds the answer back, and a reader waits for the whole of it"
            + (f"; it compresses it, too ({observation.encoding})." if observation.encoding else "."),
            _BUFFERS_TODO if not observation.encoding else _COMPRESSES_TODO,
            figures,
        )
    pieces_in_one = len(observation.text_s) / count
    if pieces_in_one > 8 and observation.body_bytes / count > _MIN_BURST_BYTES:  # noqa: PLR2004 - more than any engine gives at once
        return Finding(
            "streams",
            "warning",
            f"{name}: it arrives in {count} lumps of some {observation.body_bytes // count} bytes",
            "Something in between fills a buffer each time; or the engine itself gives its words in lumps.",
            f"Compare it with the same on the gateway's own machine. {_BUFFERS_TODO}",
            figures,
        )
    if observation.encoding:
        return Finding(
            "streams",
            "warning",
            f"{name}: it arrives piece by piece, but compressed ({observation.encoding})",
            "The gateway compresses nothing: something in between does, and may hold words back by it.",
            _COMPRESSES_TODO,
            figures,
        )
    return Finding(
        "streams", "ok", f"{name}: piece by piece, {len(observation.text_s)} over {spread_s:.1f} s", figures=figures
    )


_BUFFERS_TODO: Final = (
    "nginx: proxy_buffering off, and no proxy_ignore_headers X-Accel-Buffering; HAProxy: option http-no-delay. A "
    "second proxy or a content network needs its own setting."
)
_COMPRESSES_TODO: Final = (
    "Turn compression off for text/event-stream and application/x-ndjson (nginx: gzip off), and buffering too: "
    "proxy_buffering off."
)


def check_silence(observation: Sequence[StreamObservation], *, patient: bool) -> Finding:
    """Say what was seen of silences, of the signs of life in them, and of what cuts them."""
    answered = [each for each in observation if each.status == HTTPStatus.OK]
    longest_s = max((each.max_silence_s for each in answered), default=0.0)
    gaps = [gap for each in answered for gap in _gaps(each)]
    figures = {"longest_silence_s": round(longest_s, 2), "signs": sum(len(each.heartbeat_s) for each in answered)}
    if gaps:
        return Finding(
            "silence",
            "ok",
            f"signs of life come while the engine is silent, after {min(gaps):.1f} to {max(gaps):.1f} s of it",
            figures=figures,
        )
    todo = (
        "A --question that keeps the engine silent for longer shows it."
        if patient
        else "--patient, with a --question that takes the engine long, shows it."
    )
    return Finding(
        "silence",
        "note",
        f"no answer was silent for longer than {max(0.1, longest_s):.1f} s, and no time-out in between was met",
        "Whether a longer silence is cut cannot be told from that.",
        todo,
        figures,
    )


def _gaps(observation: StreamObservation) -> list[float]:
    """Give how long it was silent before each sign of life."""
    moments = sorted([0.0, observation.head_s, *observation.text_s, *observation.heartbeat_s])
    # The head of an answer that begins with a sign of life comes along with it.
    return [
        heartbeat_s - max((moment for moment in moments if moment < heartbeat_s - _BURST_GAP_S), default=0.0)
        for heartbeat_s in observation.heartbeat_s
    ]
