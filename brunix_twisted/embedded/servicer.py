"""The three rpcs of ``brunix.AssistanceEngine``. All code here runs on the threads of the gRPC server."""

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
from brunix_twisted.embedded.history import Turn
from brunix_twisted.embedded.language_model import ModelError
from brunix_twisted.embedded.pacing import Pace
from brunix_twisted.embedded.sources import metadata, sources_of
from brunix_twisted.embedded.writing import Writer, Writing

log: Final = logging.getLogger("brunix.embedded")

_REQUEST_ID: Final = "x-request-id"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._:/+=@-]")
_MAX_REQUEST_ID_CHARACTERS: Final = 128

LANGUAGE_VERSION: Final = "AVAP-2026"
"""The value of ``avap_code`` in whole answers, as the Brunix Assistance Engine sends it; streams have none."""

_EDITOR_FIELDS: Final = ("editor_content", "selected_text", "extra_context")


class Servicer(brunix_pb2_grpc.AssistanceEngineServicer):
    """The rpcs of the engine's contract."""

    def __init__(
        self,
        assistant: Assistant,
        golden: tuple[GoldenQuestion, ...],
        pace: Pace,
        writer: Writer | None = None,
        docs_url: str = "",
    ) -> None:
        """
        Answer with the assistant at the given pace, or with a writer; evaluate with the golden questions.

        ``docs_url`` is the address of the documents, for the sources of an answer.
        """
        self._assistant = assistant
        self._golden = golden
        self._pace = pace
        self._writer = writer
        self._docs_url = docs_url

    def use(self, assistant: Assistant) -> None:
        """Answer with another assistant from now on; running calls keep theirs. Any thread may call it."""
        self._assistant = assistant

    def AskAgent(  # noqa: N802 - the contract's name
        self, request: brunix_pb2.AgentRequest, context: grpc.ServicerContext
    ) -> Iterator[brunix_pb2.AgentResponse]:
        """Send the complete answer in one message."""
        with _CallLog("AskAgent", context) as call_log:
            reply, selected = self._reply(request, call_log)
            text, turn = reply.answer.text, reply.turn
            if writing := self._writing(request, selected, reply, context):
                text = "".join(writing.pieces(is_streamed=False))
                turn = writing.turn()
                call_log.note(writing)
            context.set_trailing_metadata(self._sources(reply, writing, text))
            yield brunix_pb2.AgentResponse(text=text, avap_code=LANGUAGE_VERSION, is_final=True)
            self._remember(request, context, turn, call_log)

    def AskAgentStream(  # noqa: N802 - the contract's name
        self, request: brunix_pb2.AgentRequest, context: grpc.ServicerContext
    ) -> Iterator[brunix_pb2.AgentResponse]:
        """Send one message per token, then an empty final message.

        If a model fails in the middle of its answer, the stream ends without the final message: it is truncated.
        """
        with _CallLog("AskAgentStream", context) as call_log:
            reply, selected = self._reply(request, call_log)
            ended = threading.Event()
            if not context.add_callback(ended.set):
                return
            writing = self._writing(request, selected, reply, context)
            written = writing.pieces(is_streamed=True) if writing else None
            try:
                for token in written or self._pace.stream(reply.answer.text, ended.wait):
                    yield brunix_pb2.AgentResponse(text=token)
                    call_log.tokens += 1
            except ModelError:
                # A cancelled call ends the model's answer in the same way.
                if context.is_active():
                    call_log.outcome = "TRUNCATED"
                return
            finally:
                if writing:
                    writing.cancel()
                    call_log.note(writing)
            if not ended.is_set():
                text = writing.text if writing else reply.answer.text
                context.set_trailing_metadata(self._sources(reply, writing, text))
                yield brunix_pb2.AgentResponse(is_final=True)
                self._remember(request, context, writing.turn() if writing else reply.turn, call_log)

    def EvaluateRAG(  # noqa: N802 - the contract's name
        self, request: brunix_pb2.EvalRequest, context: grpc.ServicerContext
    ) -> brunix_pb2.EvalResponse:
        """Ask the golden questions and measure the results. Does not read or write any session."""
        with _CallLog("EvaluateRAG", context) as call_log:
            if request.limit < 0:
                call_log.refuse("limit must be 0 (no limit) or more")
            response = evaluate(self._assistant.retriever, self._golden, request, context.is_active)
            call_log.outcome = response.status if context.is_active() else "CANCELLED"
            return response

    def _sources(self, reply: Reply, writing: Writing | None, text: str) -> tuple[tuple[str, bytes], ...]:
        """Return the metadata with the sources of an answer."""
        files = {passage.source for passage in reply.answer.passages} | (writing.files if writing else set())
        return metadata(sources_of(text, files, self._docs_url))

    def _writing(
        self, request: brunix_pb2.AgentRequest, selected: str, reply: Reply, context: grpc.ServicerContext
    ) -> Writing | None:
        """Let the model write the answer; return None without a model, or if there is nothing to write it from."""
        if self._writer is None:
            return None
        writing = self._writer.write(self._assistant, request.query, selected, request.session_id, reply)
        if writing is not None and not context.add_callback(writing.cancel):
            writing.cancel()
        return writing

    def _reply(self, request: brunix_pb2.AgentRequest, call_log: "_CallLog") -> tuple[Reply, str]:
        """Answer, and return the selected text; refuse an empty question, and a field that is not base64 of UTF-8."""
        if not request.query.strip():
            call_log.refuse("query must not be empty")
        selected = ""
        for name in _EDITOR_FIELDS:
            try:
                text = base64.b64decode(getattr(request, name), validate=True).decode()
            except ValueError:  # the base class of binascii.Error and UnicodeDecodeError
                call_log.refuse(f"{name} must be base64 of UTF-8 text")
            if name == "selected_text":
                selected = text
        return self._assistant.reply(request.query, request.session_id, selected), selected

    def _remember(
        self,
        request: brunix_pb2.AgentRequest,
        context: grpc.ServicerContext,
        turn: Turn,
        call_log: "_CallLog",
    ) -> None:
        """Remember the turn after its last message was sent. The turn of a cancelled call is not remembered.

        gRPC resumes the iterator only after it has sent a message, and drops the iterator of a cancelled call, which
        then does not get here. The turn is remembered before the caller sees the end of the call, so that its next
        question finds it.
        """
        if context.is_active():
            self._assistant.remember(request.session_id, turn)
            call_log.outcome = "OK"


class _CallLog:
    """Log one line per call, however it ends. The line contains neither the question nor the answer."""

    def __init__(self, rpc: str, context: grpc.ServicerContext) -> None:
        self.tokens = 0
        self.outcome = "CANCELLED"
        self._rpc = rpc
        self._context = context
        self._request_id = _request_id(context)
        self._start_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # GeneratorExit means that gRPC dropped the iterator of a cancelled call. Any other exception, unless the call
        # was refused, is a bug; gRPC logs its traceback.
        if kind not in (None, GeneratorExit) and self.outcome == "CANCELLED":
            self.outcome = "FAILED"
        log.info(
            "%s request=%s outcome=%s tokens=%d ms=%.1f",
            self._rpc,
            self._request_id,
            self.outcome,
            self.tokens,
            (time.monotonic() - self._start_s) * 1000,
        )

    def note(self, writing: Writing) -> None:
        """Log why the model did not write the answer, or not all of it, unless the caller is gone."""
        if writing.detail and self._context.is_active():
            log.warning("language model: request=%s: %s", self._request_id, writing.detail)

    def refuse(self, reason: str) -> NoReturn:
        """End the call with INVALID_ARGUMENT."""
        self.outcome = "INVALID_ARGUMENT"
        self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)


def _request_id(context: grpc.ServicerContext) -> str:
    """Return the caller's request id, shortened, with unsafe characters replaced; ``-`` without one."""
    for name, value in context.invocation_metadata():
        if name == _REQUEST_ID and isinstance(value, str):
            return _UNSAFE.sub("?", value[:_MAX_REQUEST_ID_CHARACTERS]) or "-"
    return "-"
