"""What the engine is asked: in each of the APIs once, then two follow-up questions, and one that is left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import attrs

from brunix_twisted.cli.api_formats import API_FORMATS, CHAT, GENERATE, ApiFormat, Messages
from brunix_twisted.cli.diagnosis import DiagnosisError
from brunix_twisted.cli.doctor import sessions, streams
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.doctor.sessions import CancelObservation
from brunix_twisted.cli.doctor.streams import StreamObservation, observe
from brunix_twisted.cli.doctor.time_budget import TimeBudget, run_concurrently
from brunix_twisted.cli.http_client import Target

QUESTION: Final = "What can you help me with? Answer in a few sentences."
_FOLLOW_UP: Final = "And what else?"
_MAX_TOKENS: Final = 24
"""Of answers that only have to be there."""
_AT_ONCE: Final = 3
_WHOLE: Final = (CHAT, GENERATE)
"""Those whose answers are read to their end, for what their pieces tell."""


@attrs.define
class EngineQuestions:
    """One run's questions, and what came of them."""

    target: Target
    limits: TimeBudget
    model: str
    question: str = QUESTION
    metrics: str | None = None
    asked: int = 0
    """How many questions it has been so far."""
    observation: dict[str, StreamObservation] = attrs.field(factory=dict)
    """By dialect."""
    unnamed: StreamObservation | None = None
    named: StreamObservation | None = None
    cancelled: CancelObservation | None = None
    _counting: threading.Lock = attrs.field(factory=threading.Lock)

    def findings(self) -> Iterator[Finding]:
        """Ask everything, some of it at once, and say what was found."""
        rest = [api for api in API_FORMATS if api not in _WHOLE]
        work: list[Callable[[], None]] = [self._converse, self._prompt]
        work += [partial(self._ask, api, _MAX_TOKENS) for api in rest]
        run_concurrently(work, _AT_ONCE, self.limits.left_s)
        # Alone: an answer that ends at a number of tokens is cancelled, too.
        with suppress(DiagnosisError):
            self._leave()
        return self._judged(dict(self.observation))

    def _judged(self, observation: Mapping[str, StreamObservation]) -> Iterator[Finding]:
        for api in API_FORMATS:
            if api.id in observation:
                yield streams.check_answer(api.name, observation[api.id])
            else:
                yield Finding("answers", "note", f"{api.name}: no time was left for it", todo="--patient takes longer.")
        for api in _WHOLE:
            if api.id in observation and (judged := streams.check_stream(api.name, observation[api.id])):
                yield judged
        yield streams.check_silence(list(observation.values()), patient=self.limits.patience_s is not None)
        if CHAT.id in observation:
            prompted = observation.get(GENERATE.id)
            named_id = prompted.session_id if prompted else ""
            yield from sessions.check_sessions(observation[CHAT.id], self.unnamed, self.named, named_id)
        yield sessions.check_cancellation(self.cancelled)

    def _ask(self, api: ApiFormat, max_tokens: int | None) -> None:
        self.observation[api.id] = self._listen(api, _said(self.question), max_tokens)

    def _converse(self) -> None:
        self._ask(CHAT, None)
        first = self.observation[CHAT.id]
        if not first.complete or not first.session_id:
            return
        so_far = [*_said(self.question), {"role": "assistant", "content": first.text}, *_said(_FOLLOW_UP)]
        self.unnamed = self._listen(CHAT, so_far, _MAX_TOKENS)

    def _prompt(self) -> None:
        self._ask(GENERATE, None)
        first = self.observation[GENERATE.id]
        # Not the conversation's session: once that has been presented, its name does not lead there any more.
        if first.complete and first.session_id:
            self.named = self._listen(CHAT, _said(_FOLLOW_UP), _MAX_TOKENS, first.session_id)

    def _leave(self) -> None:
        if self.metrics is not None:
            timeout_s = self.limits.question_s()
            self._count()
            self.cancelled = sessions.measure_cancellation(
                self.target, self.model, self.question, self.metrics, timeout_s
            )

    def _listen(
        self, api: ApiFormat, messages: Messages, max_tokens: int | None, session_id: str = ""
    ) -> StreamObservation:
        timeout_s = self.limits.question_s()
        self._count()
        return observe(
            self.target,
            api,
            api.request(self.model, messages, max_tokens),
            session_id=session_id,
            timeout_s=timeout_s,
        )

    def _count(self) -> None:
        with self._counting:
            self.asked += 1


def _said(text: str) -> Messages:
    return [{"role": "user", "content": text}]
