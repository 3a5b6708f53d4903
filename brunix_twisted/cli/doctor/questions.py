"""The questions for the engine: one in each API, two follow-ups, and one that is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import attrs

from brunix_twisted.cli.api_formats import API_FORMATS, CHAT, GENERATE, ApiFormat, Messages
from brunix_twisted.cli.diagnosis import EXPECTED, DiagnosisError
from brunix_twisted.cli.doctor import mismatches, sessions, streams
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.doctor.mismatches import SessionReport
from brunix_twisted.cli.doctor.sessions import CancelObservation
from brunix_twisted.cli.doctor.streams import StreamObservation, observe
from brunix_twisted.cli.doctor.time_budget import TimeBudget, run_concurrently
from brunix_twisted.cli.http_client import Target

QUESTION: Final = "What can you help me with? Answer in a few sentences."
_FOLLOW_UP: Final = "And what else?"
_MAX_TOKENS: Final = 24
"""For answers that are only checked for existence."""
_MAX_CONCURRENT: Final = 3
_COMPLETE: Final = (CHAT, GENERATE)
"""The APIs whose answers are read to the end, to check how they stream."""


@attrs.define
class EngineQuestions:
    """The questions of one run, and what was observed."""

    target: Target
    budget: TimeBudget
    model: str
    question: str = QUESTION
    metrics: str | None = None
    processes: int = 1
    """The number of gateway processes."""
    asked: int = 0
    """The number of questions so far."""
    observations: dict[str, StreamObservation] = attrs.field(factory=dict)
    """The answer to the first question, by API."""
    unnamed: StreamObservation | None = None
    """The follow-up that sends the conversation so far."""
    named: StreamObservation | None = None
    """The follow-up that sends a session id."""
    report: SessionReport | None = None
    """The gateway's explanations, if the first follow-up got a new session."""
    cancelled: CancelObservation | None = None
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def findings(self) -> Iterator[Finding]:
        """Ask all questions, some of them concurrently, and return the findings."""
        short = [api for api in API_FORMATS if api not in _COMPLETE]
        work: list[Callable[[], None]] = [self._ask_chat, self._ask_generate]
        work += [partial(self._ask, api, _MAX_TOKENS) for api in short]
        run_concurrently(work, _MAX_CONCURRENT, self.budget.remaining_s)
        if self.unnamed is not None and self.unnamed.session_outcome == "new":
            with suppress(*EXPECTED):
                self.report = mismatches.measure_report(self.target, self.processes, self.budget.step_s())
        # Not concurrently: answers that reach their token limit are cancelled as well.
        with suppress(DiagnosisError):
            self._cancel()
        return self._check(dict(self.observations))

    def _check(self, observations: Mapping[str, StreamObservation]) -> Iterator[Finding]:
        for api in API_FORMATS:
            if api.id in observations:
                yield streams.check_answer(api.name, observations[api.id])
            else:
                yield Finding("answers", "note", f"{api.name}: not checked, no time left", todo="Use --patient.")
        for api in _COMPLETE:
            if api.id in observations and (finding := streams.check_stream(api.name, observations[api.id])):
                yield finding
        yield streams.check_silence(list(observations.values()), patient=self.budget.patience_s is not None)
        if CHAT.id in observations:
            generated = observations.get(GENERATE.id)
            named_id = generated.session_id if generated else ""
            yield from sessions.check_sessions(observations[CHAT.id], self.unnamed, self.named, named_id, self.report)
        yield sessions.check_cancellation(self.cancelled)

    def _ask(self, api: ApiFormat, max_tokens: int | None) -> None:
        self.observations[api.id] = self._observe(api, _from_user(self.question), max_tokens)

    def _ask_chat(self) -> None:
        self._ask(CHAT, None)
        first = self.observations[CHAT.id]
        if first.complete and first.session_id:
            history = [*_from_user(self.question), {"role": "assistant", "content": first.text}]
            self.unnamed = self._observe(CHAT, [*history, *_from_user(_FOLLOW_UP)], _MAX_TOKENS)

    def _ask_generate(self) -> None:
        self._ask(GENERATE, None)
        first = self.observations[GENERATE.id]
        # Not the session of the chat: once its conversation was sent again, its id no longer leads there.
        if first.complete and first.session_id:
            self.named = self._observe(CHAT, _from_user(_FOLLOW_UP), _MAX_TOKENS, first.session_id)

    def _cancel(self) -> None:
        if self.metrics is not None:
            timeout_s = self._next_question_s()
            self.cancelled = sessions.measure_cancellation(
                self.target, self.model, self.question, self.metrics, timeout_s
            )

    def _observe(
        self, api: ApiFormat, messages: Messages, max_tokens: int | None, session_id: str = ""
    ) -> StreamObservation:
        timeout_s = self._next_question_s()
        body = api.request(self.model, messages, max_tokens)
        return observe(self.target, api, body, session_id=session_id, timeout_s=timeout_s)

    def _next_question_s(self) -> float:
        """Count a question, and return its timeout. Raises DiagnosisError if no time is left."""
        timeout_s = self.budget.question_s()
        with self._lock:
            self.asked += 1
        return timeout_s


def _from_user(text: str) -> Messages:
    return [{"role": "user", "content": text}]
