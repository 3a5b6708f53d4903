"""
The one path by which every request for a completion gets its answer.

The APIs differ in their dialect and in nothing here: streamed or whole, chat or prompt. Everything runs on the
reactor's thread.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from brunix_twisted import errors
from brunix_twisted.api.admission import Admission
from brunix_twisted.api.caller import caller_of
from brunix_twisted.api.in_flight import Entry, InFlight
from brunix_twisted.api.mismatches import Mismatches
from brunix_twisted.api.relay import Answer
from brunix_twisted.api.session_ids import is_placeholder
from brunix_twisted.api.sessions import SessionAssignment, Sessions
from brunix_twisted.api.side_requests import SideRequests
from brunix_twisted.api.streaming import AnswerProducer, StreamTimeouts
from brunix_twisted.api.system_prompts import SystemPrompt, is_ignored, query_with_context
from brunix_twisted.api.whole import WholeAnswer
from brunix_twisted.config.trusted_proxies import TrustedProxies
from brunix_twisted.dialects import Dialect
from brunix_twisted.dialects.endpoints import endpoint_of
from brunix_twisted.engine import Call, Engine
from brunix_twisted.errors import GatewayError
from brunix_twisted.http.site import GatewayRequest
from brunix_twisted.limits import OutputLimiter, count_tokens
from brunix_twisted.model import Choice, CompletedAnswer, CompletionEnd, CompletionRequest, Question, ResponseMeta
from brunix_twisted.observability.request_record import EngineCall
from brunix_twisted.runtime.coroutines import start
from brunix_twisted.runtime.random_ids import random_id
from brunix_twisted.runtime.reactors import Reactor

_log = Logger("brunix.gateway")


@attrs.frozen
class Job:
    """A completion request that is ready to run."""

    request: GatewayRequest
    requested: CompletionRequest
    assignment: SessionAssignment
    meta: ResponseMeta
    dialect: Dialect


@attrs.frozen
class _Events:
    """
    Accounts for one answer; see :class:`brunix_twisted.api.streaming.AnswerEvents`.

    It sets the headers that are sent with an answer only. Those that an error has too, such as the session, are set by
    :meth:`Completion.prepare` and by the site.
    """

    _request: GatewayRequest
    _seconds: Callable[[], float]
    _stall_timeout_s: float
    _began: Callable[[], object]

    def on_headers(self, content_type: bytes, length_bytes: int | None) -> None:
        """Set the headers that belong to an answer, and to no error."""
        set_header = self._request.setHeader
        if timing := self._request.in_progress.server_timing(self._seconds()):
            set_header(b"Server-Timing", timing)
        # Not without a body: a client may try to parse what is not there.
        if length_bytes != 0:
            set_header(b"Content-Type", content_type)
        if length_bytes is None:
            self._began()
        else:
            set_header(b"Content-Length", b"%d" % length_bytes)
        # Asks nginx to pass a stream on as it arrives.
        set_header(b"X-Accel-Buffering", b"no")

    def on_first_text(self) -> None:
        """Note the time."""
        self._request.in_progress.first_text_s = self._seconds()

    def on_stalled(self) -> None:
        """Log it."""
        self._request.in_progress.reason = "stalled"
        _log.warn(
            "Request {request_id}: disconnected, because its client has read nothing for {stall_timeout_s:g} s",
            request_id=self._request.request_id,
            stall_timeout_s=self._stall_timeout_s,
        )


class Completion:
    """Runs completion requests."""

    def __init__(  # noqa: PLR0913 - what an answer needs
        self,
        reactor: Reactor,
        engine: Engine,
        admission: Admission,
        sessions: Sessions,
        timeouts: StreamTimeouts,
        *,
        proxies: TrustedProxies,
        side_requests: SideRequests,
        mismatches: Mismatches,
        system_prompt: SystemPrompt = "ignore",
    ) -> None:
        """
        Use one engine, behind one queue.

        :param timeouts: of a streamed answer. A whole answer has no first-token timeout.
        :param proxies: the proxies that may name a caller.
        :param system_prompt: what the engine receives of a request's system prompt.
        """
        self._reactor = reactor
        self._engine = engine
        self._admission = admission
        self._sessions = sessions
        self._side_requests = side_requests
        self._mismatches = mismatches
        self._timeouts = timeouts
        self._proxies = proxies
        self._system_prompt = system_prompt
        self.in_flight = InFlight(reactor, admission)

    async def complete(
        self,
        request: GatewayRequest,
        dialect: Dialect,
        keep: Callable[[CompletedAnswer], Awaitable[object]] | None = None,
    ) -> None:
        """
        Answer a request in its dialect. Cancelling cancels the engine call.

        :param keep: stores a complete answer, before its end is sent.
        :raises GatewayError: nothing has been sent yet. Answer the request with this error.
        """
        requested = await request.parsed(dialect.parse)
        request.in_progress.streamed = requested.stream
        request.setResponseCode(requested.status)
        ignored = requested.ignored
        if is_ignored(self._system_prompt, requested):
            ignored = ("system", *ignored)
        if ignored:
            request.setHeader(b"X-Brunix-Ignored", ", ".join(ignored).encode("ascii"))
        requested = self._as_side_request(request, requested)
        if requested.cancels is not None:
            self.in_flight.cancel(requested.cancels)
        with self.in_flight.entry(stream=requested.stream, call_id=requested.call_id) as entry:
            job = await self.prepare(request, requested, dialect)
            try:
                await self.run(job, entry, keep)
            finally:
                self._sessions.release(job.assignment)
                self._explain(job)

    def _explain(self, job: Job) -> None:
        """Explain in the background why a request got a new session, if its client has received an answer."""
        request, unmatched = job.request, job.assignment.unmatched
        if unmatched is not None and request.startedWriting:
            endpoint, _ = endpoint_of(request.path.decode("latin-1"))
            start(
                self._mismatches.record,
                unmatched,
                request_id=request.request_id,
                endpoint=endpoint,
                session_ids=job.assignment.session_ids,
            )

    def caller(self, request: GatewayRequest) -> bytes:
        """Return the digest of a request's caller."""
        return self._sessions.identify(caller_of(request, self._proxies))

    async def prepare(self, request: GatewayRequest, requested: CompletionRequest, dialect: Dialect) -> Job:
        """
        Assign the sessions of a request. Nothing is sent and no engine is called yet.

        :raises GatewayError: the request is not valid.
        """
        assignment = await self._sessions.assign(requested, _named_session(request), caller_of(request, self._proxies))
        request.session_id = ", ".join(dict.fromkeys(assignment.session_ids))
        meta = ResponseMeta(id=random_id(), created_s=time.time(), session_id=request.session_id)
        if request.session_id:
            request.in_progress.session_outcome = assignment.outcome
            request.setHeader(b"X-Session-Id", request.session_id.encode("ascii"))
            request.setHeader(b"X-Brunix-Session", assignment.outcome.encode("ascii"))
        return Job(request, requested, assignment, meta, dialect)

    def _as_side_request(self, request: GatewayRequest, requested: CompletionRequest) -> CompletionRequest:
        """
        Mark a request that its client makes for itself.

        :raises GatewayError: SIDE_REQUEST if such requests are refused.
        """
        side_request = self._side_requests.name_of(requested)
        if side_request is None:
            return requested
        request.in_progress.side_request = side_request
        if self._side_requests.refuse:
            raise GatewayError(
                errors.SIDE_REQUEST,
                f"Side requests are refused; this is {side_request}. Set PROXY_SIDE_REQUESTS=answer to answer them.",
            )
        return attrs.evolve(requested, side_request=side_request)

    async def run(
        self, job: Job, entry: Entry, keep: Callable[[CompletedAnswer], Awaitable[object]] | None = None
    ) -> None:
        """Call the engine for each query of a job, and send its answer; see :meth:`complete`."""
        request, requested, assignment = job.request, job.requested, job.assignment
        timeouts = self._timeouts
        began = partial(self._sessions.began, assignment)
        events = _Events(request, self._reactor.seconds, timeouts.stall_timeout_s, began)
        encoder = job.dialect.encoder(requested, job.meta)
        answer: Answer
        if requested.stream:
            answer = AnswerProducer(self._reactor, request, encoder, timeouts, events)
        else:
            answer = WholeAnswer(
                self._reactor,
                request,
                encoder,
                events,
                buffer_bytes=timeouts.buffer_bytes,
                max_bytes=timeouts.max_answer_bytes,
                # In HTTP/1.0 the end of the connection is the end of the body, so a failed answer would look complete.
                heartbeat_s=timeouts.whole_heartbeat_s if request.clientproto == b"HTTP/1.1" else 0,
                errors_are_answers=_errors_are_answers(request),
            )
        try:
            entry.begin(answer)
            choices = [await self._call_engine(job, answer, index) for index in range(len(requested.queries))]
            end = self._end(job, choices)
            if keep is not None:
                await keep(CompletedAnswer(requested, job.meta, end, request.session_id, assignment.caller))
            await self._sessions.settle(assignment)
            # Before the end is written: the record is made when it is.
            request.in_progress.completed(choices, end.prompt_tokens)
            answer.finish(end)
            self._sessions.completed(assignment, choices)
        except CancelledError:
            raise
        except Exception as fault:
            error = _as_gateway_error(request, fault)
            request.in_progress.failed(error.kind)
            if not answer.started:
                if error is fault:
                    raise
                raise error from fault
            _log.warn("Request {request_id}: {error}", request_id=request.request_id, error=error)
            answer.fail(error)
        finally:
            answer.stopProducing()

    async def _call_engine(self, job: Job, answer: Answer, index: int) -> Choice:
        """Call the engine for one query of a job, and send what it answers."""
        request, requested, in_progress = job.request, job.requested, job.request.in_progress
        query = requested.queries[index]
        sent, editor = query_with_context(self._system_prompt, requested, query)
        question = Question(
            query=sent,
            session_id=job.assignment.session_ids[index],
            request_id=request.request_id,
            stream=requested.stream,
            editor=editor,
        )
        call: Call = self._engine.call(question)
        limiter = OutputLimiter(requested.limits)
        measured = EngineCall("AskAgentStream" if requested.stream else "AskAgent", call.statuses, limiter)
        call.trace = request.trace
        if request.span is not None:
            call = request.span.call(call, question, requested, limiter)

        def start(begin: Callable[[], Deferred[None]]) -> Deferred[None]:
            started_s = self._reactor.seconds()
            in_progress.admitted(started_s)
            if requested.echo:
                answer.prepend_text(index, query)
            # Last: once the call has started, nothing here may raise before it has ended.
            ended = begin()
            measured.began_s = started_s
            in_progress.calls.append(measured)
            return ended.addBoth(has_ended)

        def has_ended(result: Failure | None) -> Failure | None:
            measured.ended_s = self._reactor.seconds()
            return result

        in_progress.queued(self._reactor.seconds())
        caller = job.assignment.caller
        return await answer.relay_call(
            index, call, limiter, lambda begin: self._admission.run(caller, lambda: start(begin))
        )

    def _end(self, job: Job, choices: list[Choice]) -> CompletionEnd:
        load_s, prompt_s, text_s = job.request.in_progress.durations_s(self._reactor.seconds())
        return CompletionEnd(
            choices=tuple(choices),
            prompt_tokens=count_tokens(job.requested.prompt),
            finished_s=time.time(),
            load_duration_ns=_nanoseconds(load_s),
            prompt_eval_duration_ns=_nanoseconds(prompt_s),
            eval_duration_ns=_nanoseconds(text_s),
        )


def _as_gateway_error(request: GatewayRequest, fault: Exception) -> GatewayError:
    if isinstance(fault, GatewayError):
        return fault
    _log.failure("Request {request_id} failed", request_id=request.request_id)
    return GatewayError(errors.INTERNAL, "The gateway failed; see its log")


def _errors_are_answers(request: GatewayRequest) -> bool:
    error_format = request.error_format
    return error_format is not None and error_format.error_status(errors.ENGINE_ERROR) == HTTPStatus.OK


def _named_session(request: GatewayRequest) -> str | None:
    """Read the session that a request's headers name: the gateway's header, or Open WebUI's for its chats."""
    for header in (b"X-Session-Id", b"X-OpenWebUI-Chat-Id"):
        # Any bytes become text here; a name that is not safe is rejected where the session is assigned.
        named = (request.getHeader(header) or b"").decode("latin-1")
        if named and not is_placeholder(named):
            return named
    return None


def _nanoseconds(duration_s: float) -> int:
    return max(0, int(duration_s * 1_000_000_000))
