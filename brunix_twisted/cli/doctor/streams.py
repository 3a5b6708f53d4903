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

from brunix_twisted.cli import diagnosis
from brunix_twisted.cli.api_formats import Dialect
from brunix_twisted.cli.diagnosis import EXPECTED, Trouble
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.http_client import Connection, Target, TooLateError

_QUICK_S: Final = 0.25
"""An answer that is made in less tells nothing: any network makes as much of a difference."""
_HELD_PART: Final = 0.5
"""Held back is what gives a client less than this of the time in which the answer was made."""
_LUMP_S: Final = 0.02
_LUMP_BYTES: Final = 1024


@attrs.frozen(kw_only=True)
class Heard:
    """One streamed answer, as it came. All times are in seconds from when the question was sent."""

    dialect: str
    status: int
    head_s: float = 0.0
    end_s: float = 0.0
    text_s: Sequence[float] = ()
    """When each piece of the text came."""
    sign_s: Sequence[float] = ()
    """When each sign of life came."""
    text: str = ""
    body_bytes: int = 0
    complete: bool = False
    """Whether the stream said that it was the whole answer."""
    stopped: bool = False
    """Whether it was the doctor who stopped reading, because time was up."""
    first_s: float | None = None
    """When the engine's first text was at the gateway, by the gateway's own account."""
    making_s: float | None = None
    """How long the engine then took, by the gateway's own account; only Ollama's API tells."""
    encoding: str = ""
    """The Content-Encoding."""
    session_id: str = ""
    trouble: Trouble | None = None

    @property
    def longest_silence_s(self) -> float:
        """The longest wait for anything at all."""
        moments = sorted([0.0, self.head_s, *self.text_s, *self.sign_s, self.end_s])
        return max(after - before for before, after in pairwise(moments))


def listen(target: Target, dialect: Dialect, body: Any, *, session_id: str = "", limit_s: float) -> Heard:  # noqa: ANN401 - JSON
    """Ask a question, and note when what came. Fails for nothing that a network can do."""
    # Compression is what many clients offer to take, and what a proxy then does.
    headers = [*dialect.headers, ("Accept-Encoding", "gzip, deflate")]
    if session_id:
        headers.append(("X-Session-Id", session_id))
    with Connection(target) as connection:
        sent_s = time.monotonic()
        try:
            response = connection.ask("POST", dialect.path, body, headers=headers, limit_s=limit_s)
            sent_s = response.sent_s
            if not response.ok:
                trouble = diagnosis.of_reply(response.status, response.headers, response.body(), target.address)
                return Heard(dialect=dialect.id, status=response.status, trouble=trouble)
        except TooLateError:
            return Heard(dialect=dialect.id, status=0, end_s=time.monotonic() - sent_s, stopped=True)
        except EXPECTED as error:
            trouble = diagnosis.of_exception(error, target.address)
            return Heard(dialect=dialect.id, status=0, end_s=time.monotonic() - sent_s, trouble=trouble)
        broken: Trouble | None = None
        heard = _Hearing(dialect)
        stopped = False
        try:
            for event in dialect.events(heard.counted(response.pieces())):
                heard.note(event.data, event.at_s - sent_s)
        except TooLateError:
            stopped = True
        except ConnectionError:
            pass  # the answer is not complete, and that is told of
        except EXPECTED as error:
            broken = diagnosis.of_exception(error, target.address)
        return Heard(
            dialect=dialect.id,
            status=response.status,
            head_s=response.head_s - sent_s,
            end_s=time.monotonic() - sent_s,
            text_s=heard.text_s,
            sign_s=heard.sign_s,
            text="".join(heard.texts),
            body_bytes=heard.body_bytes,
            complete=heard.complete,
            stopped=stopped,
            first_s=first_text_s(response.header("Server-Timing")),
            making_s=heard.making_s,
            encoding=response.header("Content-Encoding").lower().replace("identity", ""),
            session_id=response.header("X-Session-Id"),
            trouble=heard.trouble or broken,
        )


class _Hearing:
    """What is noted while a stream comes."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.texts: list[str] = []
        self.text_s: list[float] = []
        self.sign_s: list[float] = []
        self.body_bytes = 0
        self.complete = False
        self.making_s: float | None = None
        self.trouble: Trouble | None = None

    def counted(self, pieces: Any) -> Any:  # noqa: ANN401 - the iterator it is given
        for piece in pieces:
            self.body_bytes += len(piece.data)
            yield piece

    def note(self, data: Any, at_s: float) -> None:  # noqa: ANN401 - whatever JSON holds
        """Take an event."""
        if data is None:
            self.sign_s.append(at_s)
            return
        if failed := diagnosis.fault_in(data):
            self.trouble = Trouble(failed.code or "broken_off", failed.message)
            return
        if text := self._dialect.text_of(data):
            self.texts.append(text)
            self.text_s.append(at_s)
        self.complete = self.complete or self._dialect.is_end(data)
        with suppress(LookupError, TypeError):
            self.making_s = data["eval_duration"] / 1e9


def first_text_s(server_timing: str) -> float | None:
    """Read when the engine began to speak, from the header that browsers show among the timings of a request."""
    found = re.search(r"(?:\A|,)\s*first;dur=([0-9.]+)", server_timing)
    return float(found[1]) / 1000 if found else None


def judge_answer(name: str, heard: Heard) -> Finding:
    """Say whether an API answers."""
    trouble = heard.trouble
    figures: dict[str, Any] = {"dialect": heard.dialect, "status": heard.status, "complete": heard.complete}
    if trouble is not None:
        if trouble.kind in {"unknown_url", "not_offered"}:
            return Finding("answers", "note", f"{name}: this release does not have it", figures=figures)
        figures["kind"] = trouble.kind
        return Finding("answers", "problem", f"{name}: {trouble.says}", "", trouble.remedy, figures)
    if heard.text_s:
        figures["first_text_ms"] = round(heard.text_s[0] * 1000, 1)
        figures["pieces"] = len(heard.text_s)
    if heard.stopped and not heard.text_s:
        return Finding(
            "answers",
            "warning",
            f"{name}: not a word within {heard.end_s:.0f} s",
            "The engine is slow, or busy; that by itself breaks nothing." + _signs(heard),
            "--patient waits for longer.",
            figures,
        )
    if heard.complete or heard.stopped:
        if not heard.text_s:
            return Finding("answers", "warning", f"{name}: an answer without a word", figures=figures)
        return Finding(
            "answers", "ok", f"{name}: answers, the first word after {heard.text_s[0] * 1000:.0f} ms", figures=figures
        )
    return Finding("answers", "problem", f"{name}: {_cut(heard)}", _CUT_MEANS, _CUT_TODO, figures)


def _signs(heard: Heard) -> str:
    if not heard.sign_s:
        return ""
    return f" Signs of life come: {len(heard.sign_s)}, the first after {heard.sign_s[0]:.1f} s."


def _cut(heard: Heard) -> str:
    moments = [heard.head_s, *heard.text_s, *heard.sign_s]
    silent_s = heard.end_s - max(moments)
    return f"the answer is cut off after {heard.end_s:.1f} s, {silent_s:.1f} s after the last that came"


_CUT_MEANS: Final = (
    "The gateway ends an answer with its last words or with an error, never without either: what stands in between "
    "closed the connection, most likely since nothing came for a while."
)
_CUT_TODO: Final = (
    "Let it wait for longer than the gateway is silent (nginx: proxy_read_timeout 660s; HAProxy: timeout server 660s), "
    "or set PROXY_HEARTBEAT_S well below its limit."
)


def lumps(moments: Sequence[float]) -> int:
    """Count the moments at which anything came; what comes within 20 ms comes at once."""
    return sum(after - before > _LUMP_S for before, after in pairwise(moments)) + bool(moments)


def judge_stream(name: str, heard: Heard) -> Finding | None:  # noqa: PLR0911 - each end has its own words
    """Say whether an answer's pieces come when they are made. None: there is no answer to judge by."""
    if not heard.text_s or heard.trouble is not None:
        return None
    first_s, last_s = heard.text_s[0], heard.text_s[-1]
    spread_s = last_s - first_s
    made_s = heard.making_s
    if made_s is None and heard.first_s is not None:
        made_s = max(0.0, last_s - heard.first_s)
    count = lumps(heard.text_s)
    figures: dict[str, Any] = {
        "dialect": heard.dialect,
        "pieces": len(heard.text_s),
        "lumps": count,
        "bytes": heard.body_bytes,
        "head_ms": round(heard.head_s * 1000, 1),
        "first_text_ms": round(first_s * 1000, 1),
        "last_text_ms": round(last_s * 1000, 1),
        "engine_first_ms": None if heard.first_s is None else round(heard.first_s * 1000, 1),
        "made_in_ms": None if made_s is None else round(made_s * 1000, 1),
        "content_encoding": heard.encoding or None,
    }
    if made_s is None:
        return Finding(
            "streams",
            "note",
            f"{name}: {len(heard.text_s)} pieces over {spread_s:.2f} s; nothing tells when they were made",
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
            + (f"; it compresses it, too ({heard.encoding})." if heard.encoding else "."),
            _BUFFERS_TODO if not heard.encoding else _COMPRESSES_TODO,
            figures,
        )
    pieces_in_one = len(heard.text_s) / count
    if pieces_in_one > 8 and heard.body_bytes / count > _LUMP_BYTES:  # noqa: PLR2004 - more than any engine gives at once
        return Finding(
            "streams",
            "warning",
            f"{name}: it arrives in {count} lumps of some {heard.body_bytes // count} bytes",
            "Something in between fills a buffer each time; or the engine itself gives its words in lumps.",
            f"Compare it with the same on the gateway's own machine. {_BUFFERS_TODO}",
            figures,
        )
    if heard.encoding:
        return Finding(
            "streams",
            "warning",
            f"{name}: it arrives piece by piece, but compressed ({heard.encoding})",
            "The gateway compresses nothing: something in between does, and may hold words back by it.",
            _COMPRESSES_TODO,
            figures,
        )
    return Finding(
        "streams", "ok", f"{name}: piece by piece, {len(heard.text_s)} over {spread_s:.1f} s", figures=figures
    )


_BUFFERS_TODO: Final = (
    "nginx: proxy_buffering off, and no proxy_ignore_headers X-Accel-Buffering; HAProxy: option http-no-delay. A "
    "second proxy or a content network needs its own setting."
)
_COMPRESSES_TODO: Final = (
    "Turn compression off for text/event-stream and application/x-ndjson (nginx: gzip off), and buffering too: "
    "proxy_buffering off."
)


def judge_silence(heard: Sequence[Heard], *, patient: bool) -> Finding:
    """Say what was seen of silences, of the signs of life in them, and of what cuts them."""
    answered = [each for each in heard if each.status == HTTPStatus.OK]
    longest_s = max((each.longest_silence_s for each in answered), default=0.0)
    gaps = [gap for each in answered for gap in _gaps(each)]
    figures = {"longest_silence_s": round(longest_s, 2), "signs": sum(len(each.sign_s) for each in answered)}
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


def _gaps(heard: Heard) -> list[float]:
    """Give how long it was silent before each sign of life."""
    moments = sorted([0.0, heard.head_s, *heard.text_s, *heard.sign_s])
    # The head of an answer that begins with a sign of life comes along with it.
    return [
        sign_s - max((moment for moment in moments if moment < sign_s - _LUMP_S), default=0.0)
        for sign_s in heard.sign_s
    ]
