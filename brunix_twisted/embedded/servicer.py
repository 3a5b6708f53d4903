"""The three rpcs of ``brunix.AssistanceEngine``. Everything here runs on the threads of the gRPC server."""

import base64
import logging
import re
import threading
import time
from collections.abc import Iterator
from typing import Final, NoReturn, Self

import grpc

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from brunix_twisted.embedded.assistant import Assistant, Reply
from brunix_twisted.embedded.evaluation import evaluate
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.pacing import Pace

log: Final = logging.getLogger("brunix_twisted.embedded")

_REQUEST_ID: Final = "x-request-id"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._:/+=@-]")
_LONGEST_REQUEST_ID: Final = 128

_EDITOR_FIELDS: Final = ("editor_content", "selected_text", "extra_context")


class Servicer(brunix_pb2_grpc.AssistanceEngineServicer):
    """The engine behind its contract."""

    def __init__(self, assistant: Assistant, golden: tuple[GoldenQuestion, ...], pace: Pace) -> None:
        """Answer with the assistant, at the pace; evaluate with the golden questions."""
        self._assistant = assistant
        self._golden = golden
        self._pace = pace

    def AskAgent(  # noqa: N802 - the contract's name
        self, request: brunix_pb2.AgentRequest, context: grpc.ServicerContext
    ) -> Iterator[brunix_pb2.AgentResponse]:
        """Send one message with the whole answer."""
        with _Logged("AskAgent", context) as logged:
            reply = self._reply(request, logged)
            yield brunix_pb2.AgentResponse(text=reply.answer.text, avap_code=reply.answer.code, is_final=True)
            self._keep(request, context, reply, logged)

    def AskAgentStream(  # noqa: N802 - the contract's name
        self, request: brunix_pb2.AgentRequest, context: grpc.ServicerContext
    ) -> Iterator[brunix_pb2.AgentResponse]:
        """Send one message a token, then an empty one that is final."""
        with _Logged("AskAgentStream", context) as logged:
            reply = self._reply(request, logged)
            ended = threading.Event()
            if not context.add_callback(ended.set):
                return
            for token in self._pace.spread(reply.answer.text, ended.wait):
                yield brunix_pb2.AgentResponse(text=token)
                logged.tokens += 1
            if not ended.is_set():
                yield brunix_pb2.AgentResponse(is_final=True)
                self._keep(request, context, reply, logged)

    def EvaluateRAG(  # noqa: N802 - the contract's name
        self, request: brunix_pb2.EvalRequest, context: grpc.ServicerContext
    ) -> brunix_pb2.EvalResponse:
        """Ask the golden questions and measure what is found and said. No session is read or written."""
        with _Logged("EvaluateRAG", context) as logged:
            if request.limit < 0:
                logged.refuse("limit must be 0 (all) or more")
            response = evaluate(self._assistant.retriever, self._golden, request, context.is_active)
            logged.outcome = response.status if context.is_active() else "CANCELLED"
            return response

    def _reply(self, request: brunix_pb2.AgentRequest, logged: "_Logged") -> Reply:
        """Answer, or refuse a question without words and an editor's text that is not base64 of UTF-8."""
        if not request.query.strip():
            logged.refuse("query must not be empty")
        selected = ""
        for name in _EDITOR_FIELDS:
            try:
                text = base64.b64decode(getattr(request, name), validate=True).decode()
            except ValueError:  # binascii.Error and UnicodeDecodeError both are
                logged.refuse(f"{name} must be base64 of UTF-8 text")
            if name == "selected_text":
                selected = text
        return self._assistant.reply(request.query, request.session_id, selected)

    def _keep(
        self,
        request: brunix_pb2.AgentRequest,
        context: grpc.ServicerContext,
        reply: Reply,
        logged: "_Logged",
    ) -> None:
        """Remember the turn, now that the last message has been taken. A call that was broken off loses its turn.

        gRPC asks for what follows a message only when that message has left, and drops the iterator of a call that
        was cancelled: then nothing gets here. The turn is in the history before the caller sees the end of the call,
        so that its next question finds it.
        """
        if context.is_active():
            self._assistant.remember(request.session_id, reply.turn)
            logged.outcome = "OK"


class _Logged:
    """One line in the log for a call, whatever its end. It tells nothing of what was asked or answered."""

    def __init__(self, rpc: str, context: grpc.ServicerContext) -> None:
        self.tokens = 0
        self.outcome = "CANCELLED"
        self._rpc = rpc
        self._context = context
        self._request_id = _request_id(context)
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # GeneratorExit: grpc dropped the iterator of a cancelled call. What else was not refused is a fault of ours,
        # and grpc logs its traceback.
        if kind not in (None, GeneratorExit) and self.outcome == "CANCELLED":
            self.outcome = "FAILED"
        log.info(
            "%s request=%s outcome=%s tokens=%d ms=%.1f",
            self._rpc,
            self._request_id,
            self.outcome,
            self.tokens,
            (time.monotonic() - self._start) * 1000,
        )

    def refuse(self, reason: str) -> NoReturn:
        """End the call with INVALID_ARGUMENT."""
        self.outcome = "INVALID_ARGUMENT"
        self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)


def _request_id(context: grpc.ServicerContext) -> str:
    """Give the caller's id of the request, fit for a log line: no spaces, no control characters, not long."""
    for name, value in context.invocation_metadata():
        if name == _REQUEST_ID and isinstance(value, str):
            return _UNSAFE.sub("?", value[:_LONGEST_REQUEST_ID]) or "-"
    return "-"
