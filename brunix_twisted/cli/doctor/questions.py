"""What the engine is asked: in each of the APIs once, then two follow-up questions, and one that is left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import attrs

from brunix_twisted.cli.api_formats import CHAT, DIALECTS, GENERATE, Dialect, Messages
from brunix_twisted.cli.diagnosis import TroubleError
from brunix_twisted.cli.doctor import sessions, streams
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.doctor.sessions import Cancelled
from brunix_twisted.cli.doctor.streams import Heard, listen
from brunix_twisted.cli.doctor.time_budget import Limits, together
from brunix_twisted.cli.http_client import Target

QUESTION: Final = "What can you help me with? Answer in a few sentences."
_FOLLOW_UP: Final = "And what else?"
_MOST_TOKENS: Final = 24
"""Of answers that only have to be there."""
_AT_ONCE: Final = 3
_WHOLE: Final = (CHAT, GENERATE)
"""Those whose answers are read to their end, for what their pieces tell."""


@attrs.define
class Interview:
    """One run's questions, and what came of them."""

    target: Target
    limits: Limits
    model: str
    question: str = QUESTION
    metrics: str | None = None
    asked: int = 0
    """How many questions it has been so far."""
    heard: dict[str, Heard] = attrs.field(factory=dict)
    """By dialect."""
    unnamed: Heard | None = None
    named: Heard | None = None
    cancelled: Cancelled | None = None
    _counting: threading.Lock = attrs.field(factory=threading.Lock)

    def findings(self) -> Iterator[Finding]:
        """Ask everything, some of it at once, and say what was found."""
        rest = [dialect for dialect in DIALECTS if dialect not in _WHOLE]
        work: list[Callable[[], None]] = [self._converse, self._prompt]
        work += [partial(self._ask, dialect, _MOST_TOKENS) for dialect in rest]
        together(work, _AT_ONCE, self.limits.left_s)
        # Alone: an answer that ends at a number of tokens is cancelled, too.
        with suppress(TroubleError):
            self._leave()
        return self._judged(dict(self.heard))

    def _judged(self, heard: Mapping[str, Heard]) -> Iterator[Finding]:
        for dialect in DIALECTS:
            if dialect.id in heard:
                yield streams.judge_answer(dialect.name, heard[dialect.id])
            else:
                yield Finding(
                    "answers", "note", f"{dialect.name}: no time was left for it", todo="--patient takes longer."
                )
        for dialect in _WHOLE:
            if dialect.id in heard and (judged := streams.judge_stream(dialect.name, heard[dialect.id])):
                yield judged
        yield streams.judge_silence(list(heard.values()), patient=self.limits.patience_s is not None)
        if CHAT.id in heard:
            prompted = heard.get(GENERATE.id)
            named_id = prompted.session_id if prompted else ""
            yield from sessions.judge_sessions(heard[CHAT.id], self.unnamed, self.named, named_id)
        yield sessions.judge_cancel(self.cancelled)

    def _ask(self, dialect: Dialect, most_tokens: int | None) -> None:
        self.heard[dialect.id] = self._listen(dialect, _said(self.question), most_tokens)

    def _converse(self) -> None:
        self._ask(CHAT, None)
        first = self.heard[CHAT.id]
        if not first.complete or not first.session_id:
            return
        so_far = [*_said(self.question), {"role": "assistant", "content": first.text}, *_said(_FOLLOW_UP)]
        self.unnamed = self._listen(CHAT, so_far, _MOST_TOKENS)

    def _prompt(self) -> None:
        self._ask(GENERATE, None)
        first = self.heard[GENERATE.id]
        # Not the conversation's session: once that has been presented, its name does not lead there any more.
        if first.complete and first.session_id:
            self.named = self._listen(CHAT, _said(_FOLLOW_UP), _MOST_TOKENS, first.session_id)

    def _leave(self) -> None:
        if self.metrics is not None:
            limit_s = self.limits.question_s()
            self._count()
            self.cancelled = sessions.measure_cancel(self.target, self.model, self.question, self.metrics, limit_s)

    def _listen(self, dialect: Dialect, messages: Messages, most_tokens: int | None, session_id: str = "") -> Heard:
        limit_s = self.limits.question_s()
        self._count()
        return listen(
            self.target,
            dialect,
            dialect.request(self.model, messages, most_tokens),
            session_id=session_id,
            limit_s=limit_s,
        )

    def _count(self) -> None:
        with self._counting:
            self.asked += 1


def _said(text: str) -> Messages:
    return [{"role": "user", "content": text}]
