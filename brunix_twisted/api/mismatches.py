"""
Explain why a request that presents a conversation got a new session.

An explanation consists of numbers and of the digest by which the log names a session. It contains no text of the
conversation, and only its caller may read it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import attrs
from twisted.logger import Logger, LogLevel

from brunix_twisted.api.conversations import (
    ASKED_KEY,
    MAX_NODES,
    NODE_KEY,
    NOTHING,
    TURN_KEY,
    WINDOW_NODES,
    Candidate,
    Kind,
    Presented,
    record_of,
    select,
    window_of,
)
from brunix_twisted.runtime.coroutines import attempt
from brunix_twisted.state import SessionEntry, StateStore

Reason = Literal["busy", "several", "changed", "elsewhere", "window", "unknown", "exact", "unavailable"]
"""
Why no session continues.

- ``busy``: the session that fits was answering another question
- ``several``: several sessions fit, and none contains exactly this conversation
- ``changed``: the first turns match a session, or the first question does, and the next turn differs
- ``elsewhere``: the first turns match a session, and the next one was not asked there
- ``window``: only the last turns match a session, and they are too few
- ``unknown``: no turn is known
- ``exact``: a session fits, but only a complete conversation may continue one
- ``unavailable``: the state could not be read
"""

MAX_RECORDED: Final = 100
"""Maximum number of explanations that are kept."""
MAX_PER_CALLER: Final = 20
"""Maximum number that is kept for one caller."""

_MAX_FOUND: Final = 16
# Only the question of the latest turn leads to a session, and few clients change more than the last answers.
_ASKED_TURNS: Final = 16

_log = Logger("brunix.gateway")


@attrs.frozen
class Unmatched:
    """A conversation that no session continues, as it was when its request arrived."""

    presented: Presented
    rejected: Sequence[Candidate] = ()
    """The sessions that fit."""
    is_read: bool = True
    """Whether the state could be read."""


@attrs.frozen(kw_only=True)
class Mismatch:
    """Why no session continues."""

    reason: Reason
    turns: int
    """Number of presented turns."""
    first: int = 0
    """How many of the first turns are the session's."""
    last: int = 0
    """How many of the last turns are the session's."""
    differs: Literal["question", "answer"] | None = None
    """What is different in the turn after the first ones; None if that is not known."""
    sessions: int = 0
    """Number of sessions that fit."""
    session_id: str = ""
    """The session that is compared; empty if there is not one."""

    @property
    def differing_turn(self) -> int | None:
        """The number of the first turn that is not the session's, from 1; None if that is not known."""
        return self.first + 1 if self.reason in {"changed", "elsewhere"} else None

    def sentence(self, session: str) -> str:
        """
        Explain it to an operator.

        :param session: the digest of :attr:`session_id`, as the log shows it.
        """
        sentence = _FIRST_ANSWER if self.reason == "changed" and self.first == 0 else _SENTENCES[self.reason]
        return sentence.format(
            session=session,
            sessions=f"{self.sessions} or more" if self.sessions >= _MAX_FOUND else self.sessions,
            turns="1 turn" if self.turns == 1 else f"{self.turns} turns",
            first=self.first,
            last=self.last,
            number=self.first + 1,
            differs=f"the {self.differs}" if self.differs else "the question or the answer",
        )


_SENTENCES: Final[dict[Reason, str]] = {
    "busy": "Session {session} fits, but was still answering another question.",
    "several": "{sessions} sessions fit, and none of them contains exactly this conversation.",
    "changed": "The first {first} of {turns} match session {session}, but {differs} of turn {number} differs.",
    "elsewhere": "The first {first} of {turns} match session {session}, but turn {number} was not asked there.",
    "window": "Only the last {last} of {turns} match session {session}, which is too few.",
    "unknown": "No turn of the conversation is known for this caller.",
    "exact": "A session fits, but PROXY_SESSION_MATCH=exact requires its complete conversation.",
    "unavailable": "The stored sessions could not be read.",
}
_FIRST_ANSWER: Final = "The first question matches session {session}, but its answer differs."


def trace_keys(presented: Presented) -> list[bytes]:
    """Return the keys of the sessions that have any part of a conversation."""
    keys = [NODE_KEY + chain for chain in presented.chains[1:][-MAX_NODES:]]
    keys += [TURN_KEY + turn for turn in presented.turns[-WINDOW_NODES:]]
    return keys + [ASKED_KEY + chain for chain in _asked(presented)]


def _asked(presented: Presented) -> dict[bytes, int]:
    """Return the indices of the last turns, by the conversation up to the turn's question."""
    count = len(presented.turns)
    return {presented.asked(index): index for index in range(max(0, count - _ASKED_TURNS), count)}


def explain(unmatched: Unmatched, entries: Iterable[SessionEntry], *, exact: bool) -> Mismatch:
    """
    Explain why no session continues a conversation. Pure.

    :param entries: the other sessions that have a part of the conversation, see :func:`trace_keys`; not needed if any
        sessions fit.
    :param exact: whether only a complete conversation may continue a session.
    """
    presented = unmatched.presented
    turns = len(presented.turns)
    if not unmatched.is_read:
        return Mismatch(reason="unavailable", turns=turns)
    fitting, entries = unmatched.rejected, list(entries)
    if not fitting:
        # With exact, the keys of the request found only sessions that fit exactly. Otherwise the turn that makes a
        # session fit was recorded after the request arrived.
        now = select(presented, entries, exact=False)
        fitting = now.candidates or now.rejected
    if fitting:
        session_id = fitting[0].entry.session_id
        if any(each.record.head == presented.chain for each in fitting) or (len(fitting) == 1 and not exact):
            return Mismatch(reason="busy", turns=turns, sessions=len(fitting), session_id=session_id)
        return Mismatch(reason="exact" if exact else "several", turns=turns, sessions=len(fitting))
    asked = _asked(presented)
    traces = [trace for entry in entries if (trace := _trace(presented, entry, asked)) is not None]
    best = max(traces, key=lambda trace: (trace.reason != "window", trace.first, trace.last), default=None)
    return best or Mismatch(reason="unknown", turns=turns)


def _trace(presented: Presented, entry: SessionEntry, asked: dict[bytes, int]) -> Mismatch | None:
    """Compare a conversation with a session; None if they have nothing in common."""
    record = record_of(entry)
    if record is None or record.named or record.caller != presented.caller:
        return None
    chains = record.by_chain
    if presented.chain in chains:
        # It came before the session, which does not contain it.
        return None
    first = max((index for index, chain in enumerate(presented.chains) if chain in chains), default=0)
    answered = [asked[chain] for node in record.nodes for chain in (node.asked, node.chain) if chain in asked]
    window = window_of(presented, entry, record)
    found = Mismatch(
        reason="window",
        turns=len(presented.turns),
        first=first,
        last=0 if window is None else window.run,
        session_id=entry.session_id,
    )
    if answered and max(answered) >= first:
        return attrs.evolve(found, reason="changed", first=max(answered), differs="answer")
    if first:
        later = [node for node in record.nodes if node.before == presented.chains[first]]
        is_question = any(node.kind is Kind.TURN and node.asked != NOTHING for node in later)
        return attrs.evolve(
            found, reason="changed" if later else "elsewhere", differs="question" if is_question else None
        )
    return found if found.last else None


@attrs.frozen
class _Recorded:
    """An explanation that is kept."""

    time_s: float
    request_id: str
    endpoint: str
    caller: bytes
    mismatch: Mismatch
    session: str

    def as_json(self) -> dict[str, Any]:
        mismatch = self.mismatch
        return {
            "time": datetime.fromtimestamp(self.time_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "request_id": self.request_id,
            "endpoint": self.endpoint,
            "outcome": "new",
            "reason": mismatch.reason,
            "explanation": mismatch.sentence(self.session),
            "turns": mismatch.turns,
            "first_matching_turns": mismatch.first,
            "last_matching_turns": mismatch.last,
            "differing_turn": mismatch.differing_turn,
            "differs": mismatch.differs,
            "sessions": mismatch.sessions,
            "session": self.session or None,
        }


class Mismatches:
    """The latest explanations, in memory. All methods belong to the reactor's thread."""

    def __init__(
        self,
        store: StateStore,
        match: Literal["fitting", "exact", "off"],
        digest: Callable[[str], str],
        now_s: Callable[[], float] = time.time,
        *,
        is_working: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Keep nothing yet.

        :param match: what a request must present to continue a session; off: no conversation leads to its session.
        :param digest: returns the digest by which the log names a session; see
            :func:`brunix_twisted.observability.request_record.session_digest`.
        :param is_working: returns whether the store's latest answer is complete.
        """
        self._store = store
        self._match = match
        self._digest = digest
        self._now_s = now_s
        self._is_working = is_working
        self._recorded: deque[_Recorded] = deque(maxlen=MAX_RECORDED)

    async def record(self, unmatched: Unmatched, *, request_id: str, endpoint: str, session_ids: Sequence[str]) -> None:
        """
        Explain, log and keep why a request got a new session.

        :param session_ids: the request's own sessions.
        """
        presented = unmatched.presented
        entries: Sequence[SessionEntry] = ()
        if unmatched.is_read and not unmatched.rejected:
            found = await attempt(self._store.find, trace_keys(presented), _MAX_FOUND)
            entries = [entry for entry in found or () if entry.session_id not in session_ids]
            unmatched = attrs.evolve(unmatched, is_read=found is not None and self._is_working())
        mismatch = explain(unmatched, entries, exact=self._match == "exact")
        session = self._digest(mismatch.session_id)
        recorded = _Recorded(self._now_s(), request_id, endpoint, presented.caller, mismatch, session)
        own = [each for each in self._recorded if each.caller == presented.caller]
        if len(own) >= MAX_PER_CALLER:
            self._recorded.remove(own[0])
        self._recorded.append(recorded)
        # Formatted here, as the line of a request is.
        line = f"Request {request_id}: new session. {mismatch.sentence(session)}"
        _log.emit(LogLevel.info, "{line}", line=line, request_id=request_id, mismatch=mismatch.reason, session=session)

    def of(self, caller: bytes) -> dict[str, Any]:
        """Return what a caller may read, as a JSON object: its own explanations only, the latest first."""
        own = [each.as_json() for each in self._recorded if each.caller == caller]
        return {"match": self._match, "mismatches": own[::-1]}
