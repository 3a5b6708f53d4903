"""
The one way by which everything that is asked gets its answer.

The APIs, streamed and whole, chats and prompts differ in the dialect that is handed in, and in nothing here. Everything
runs on the reactor's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from secrets import token_hex

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from brunix_twisted import errors
from brunix_twisted.api.admission import Admission
from brunix_twisted.api.sessions import SessionAssignment, Sessions, is_placeholder
from brunix_twisted.api.streaming import AnswerProducer, StreamTimeouts
from brunix_twisted.dialects import Dialect
from brunix_twisted.engine import Call, Engine
from brunix_twisted.errors import GatewayError
from brunix_twisted.http.site import GatewayRequest
from brunix_twisted.limits import OutputLimiter, count_tokens
from brunix_twisted.model import Choice, CompletedAnswer, CompletionEnd, CompletionRequest, Question, ResponseMeta
from brunix_twisted.observability.request_record import EngineCall
from brunix_twisted.runtime.reactors import Reactor


class Completion:
    """Completes what requests ask, and knows which of them are under way."""

    _log = Logger()

    def __init__(
        self, reactor: Reactor, engine: Engine, admission: Admission, sessions: Sessions, timeouts: StreamTimeouts
    ) -> None:
        """
        Ask one engine, by way of one admission.

        :param terms: of a streamed answer; a whole one has no first word that could be late, and no room for a sign of
            life.
        """
        self._reactor = reactor
        self._engine = engine
        self._admission = admission
        self._sessions = sessions
        self._timeouts = timeouts
        self._whole_terms = attrs.evolve(timeouts, first_token_timeout_s=0, heartbeat_s=0)
        self._answers: dict[AnswerProducer, bool] = {}
        """Those under way, and whether each is a stream."""
        self.draining = False
        """Whether new questions are turned away because the gateway stops."""
        self._drained: Deferred[None] = Deferred()

    async def complete(self, request: GatewayRequest, dialect: Dialect) -> CompletedAnswer | None:
        """
        Answer what a request asks, in its dialect. Cancelling stops the engine's call.

        Returns the answer, whose last bytes have just been sent; None if it has been sent in part, and its failure.

        :raises GatewayError: nothing has been sent yet, and the request is still to be answered with this error.
        """
        asked_s = self._reactor.seconds()
        requested = await request.parsed(dialect.parse)
        in_progress = request.in_progress
        in_progress.streamed = requested.stream
        if requested.ignored:
            request.setHeader(b"X-Brunix-Ignored", ", ".join(requested.ignored).encode("ascii"))
        if self.draining:
            raise _stopping()
        assignment = self._sessions.assign(requested, _named_session(request), asked_s)
        request.session_id = ", ".join(dict.fromkeys(assignment.session_ids))
        if request.session_id:
            request.setHeader(b"X-Session-Id", request.session_id.encode("ascii"))
        meta = ResponseMeta(id=token_hex(16), created_s=time.time())
        encoder = dialect.encoder(requested, meta)
        timeouts = self._timeouts if requested.stream else self._whole_terms
        answer = AnswerProducer(self._reactor, request, encoder, timeouts, lambda: self._stalled(request))
        answer.on_headers = lambda: self._time(request)
        in_progress.answer = answer
        self._answers[answer] = requested.stream
        try:
            choices = [
                await self._ask(request, requested, assignment, answer, index)
                for index in range(len(requested.queries))
            ]
            admitted_s = in_progress.calls[0].began_s if in_progress.calls else asked_s
            end = self._ending(requested, choices, asked_s, admitted_s, answer.first_text_s)
            # Before the end is written, for that is what the record is made at.
            in_progress.completed(choices, end.prompt_tokens)
            answer.finish(end)
            self._sessions.completed(assignment, requested, choices, self._reactor.seconds())
            return CompletedAnswer(requested=requested, meta=meta, end=end, session_id=request.session_id)
        except CancelledError:
            raise
        except Exception as fault:
            error = self._as_gateway_error(request, fault)
            in_progress.failed(error.kind)
            if not answer.started:
                if error is fault:
                    raise
                raise error from fault
            self._log.warn("Request {request_id}: {error}", request_id=request.request_id, error=error)
            answer.fail(error)
            return None
        finally:
            # First: the drain waits for every answer that is in here.
            del self._answers[answer]
            answer.stopProducing()
            if self.draining and not self._answers:
                self._drained.callback(None)

    async def _ask(
        self,
        request: GatewayRequest,
        requested: CompletionRequest,
        assignment: SessionAssignment,
        answer: AnswerProducer,
        index: int,
    ) -> Choice:
        """Ask the engine one of a request's questions, and send what it says."""
        query, in_progress = requested.queries[index], request.in_progress
        question = Question(
            query=query,
            session_id=assignment.session_ids[index],
            request_id=request.request_id,
            stream=requested.stream,
            editor=requested.editor,
        )
        call: Call = self._engine.call(question)
        limiter = OutputLimiter(requested.limits)
        asked = EngineCall("AskAgentStream" if requested.stream else "AskAgent", call.statuses, limiter)
        call.trace = request.trace
        if request.span is not None:
            call = request.span.call(call, question, requested, limiter)

        def start(begin: Callable[[], Deferred[None]]) -> Deferred[None]:
            placed_s = self._reactor.seconds()
            in_progress.admitted(placed_s)
            if requested.echo:
                answer.prepend_text(index, query)
            # Last: once the call has begun, nothing here may raise before it has ended.
            ended = begin()
            asked.began_s = placed_s
            in_progress.calls.append(asked)
            return ended.addBoth(left)

        def left(result: Failure | None) -> Failure | None:
            asked.ended_s = self._reactor.seconds()
            return result

        in_progress.queued(self._reactor.seconds())
        try:
            return await answer.stream_call(
                index, call, limiter, lambda begin: self._admission.run(lambda: start(begin))
            )
        except Exception:
            if asked not in in_progress.calls:
                # Nothing was asked, so the session still holds the conversation that it was chosen for.
                self._sessions.release(assignment, self._reactor.seconds())
            raise

    def _time(self, request: GatewayRequest) -> None:
        if timing := request.in_progress.server_timing(self._reactor.seconds()):
            request.setHeader(b"Server-Timing", timing)

    @property
    def streams(self) -> int:
        """How many streamed answers are under way, or wait for a place."""
        return sum(self._answers.values())

    def _stalled(self, request: GatewayRequest) -> None:
        request.in_progress.reason = "stalled"
        self._log.warn(
            "Request {request_id}: cut off, for its client has read nothing for {stall_timeout_s:g} s",
            request_id=request.request_id,
            stall_timeout_s=self._timeouts.stall_timeout_s,
        )

    def _ending(
        self,
        requested: CompletionRequest,
        choices: list[Choice],
        asked_s: float,
        admitted_s: float,
        first_text_s: float | None,
    ) -> CompletionEnd:
        ended_s = self._reactor.seconds()
        first_s = ended_s if first_text_s is None else first_text_s
        return CompletionEnd(
            choices=tuple(choices),
            prompt_tokens=count_tokens(requested.prompt),
            finished_s=time.time(),
            load_duration_ns=_nanoseconds(admitted_s - asked_s),
            prompt_eval_duration_ns=_nanoseconds(first_s - admitted_s),
            eval_duration_ns=_nanoseconds(ended_s - first_s),
        )

    def _as_gateway_error(self, request: GatewayRequest, fault: Exception) -> GatewayError:
        if isinstance(fault, GatewayError):
            return fault
        self._log.failure("Request {request_id} failed", request_id=request.request_id)
        return GatewayError(errors.INTERNAL, "The gateway failed; see its log")

    def drain(self, timeout_s: float) -> Deferred[None]:
        """
        Turn new questions away, and let those under way end.

        Fires when all have ended. Those that still wait for a place are turned away too; those that still run after
        ``timeout_s`` seconds end with an error.
        """
        self.draining = True
        self._admission.refuse(_stopping)
        if not self._answers:
            return succeed(None)

        def abort() -> None:
            # Who asks several questions may have come to wait again.
            self._admission.refuse(_stopping)
            for answer in tuple(self._answers):
                answer.abort(_stopping())

        deadline = self._reactor.callLater(timeout_s, abort)

        def ended(_: None) -> None:
            if deadline.active():
                deadline.cancel()

        return self._drained.addCallback(ended)


def _stopping() -> GatewayError:
    return GatewayError(errors.STOPPING, "The gateway is stopping")


def _named_session(request: GatewayRequest) -> str | None:
    """Read the session that a request's headers name: ours, or Open WebUI's for its conversation."""
    for header in (b"X-Session-Id", b"X-OpenWebUI-Chat-Id"):
        # Whatever bytes it holds become text here; a name that is not safe is refused where it is chosen.
        named = (request.getHeader(header) or b"").decode("latin-1")
        if named and not is_placeholder(named):
            return named
    return None


def _nanoseconds(duration_s: float) -> int:
    return max(0, int(duration_s * 1_000_000_000))
