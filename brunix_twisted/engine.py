"""
The gateway's side of the engine's gRPC: blocking calls, their cancellation, and what a gRPC status means to a caller.

Nothing else on the gateway's side imports grpc or the generated code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import attrs
import grpc
import grpc.experimental
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from brunix_twisted import errors
from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import Question

Sink = Callable[[str], bool]
"""Takes a piece of text, never empty, on the worker's thread; False means that no more is wanted."""

if TYPE_CHECKING:
    # What a stub returns; grpc has no public name for it.
    Messages = grpc._CallIterator[brunix_pb2.AgentResponse]  # noqa: SLF001 - the only name there is


_CHANNEL_OPTIONS = (
    # Reads a stream on the thread that asks for it in place of handing every message over from a thread of gRPC's own:
    # a quarter of the cost a token. Experimental in grpc, which is why it stands on a line of its own.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
    # An attempt to connect is given up after the first of these, so that an unreachable engine is a refusal within a
    # second and not after grpc's twenty; and after an outage the next attempt is never further off than the last.
    ("grpc.min_reconnect_backoff_ms", 900),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A whole answer is one message; grpc's 4 MiB is less than an engine may say.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


@attrs.frozen
class _Meaning:
    kind: Kind
    message: str


_ENGINE_FAILED = _Meaning(errors.ENGINE_ERROR, "The engine failed to answer")
_REFUSED = _Meaning(errors.INVALID_REQUEST, "The engine refused the question as invalid")
_NO_ACCESS = _Meaning(errors.ENGINE_AUTH, "The engine does not accept this gateway's credentials")
_MEANINGS = {
    StatusCode.INVALID_ARGUMENT: _REFUSED,
    StatusCode.FAILED_PRECONDITION: _REFUSED,
    StatusCode.OUT_OF_RANGE: _REFUSED,
    StatusCode.UNAUTHENTICATED: _NO_ACCESS,
    StatusCode.PERMISSION_DENIED: _NO_ACCESS,
    StatusCode.NOT_FOUND: _Meaning(errors.NOT_FOUND, "The engine does not know what was asked for"),
    StatusCode.RESOURCE_EXHAUSTED: _Meaning(errors.RATE_LIMITED, "The engine has too much to do; try again shortly"),
    StatusCode.UNAVAILABLE: _Meaning(errors.ENGINE_UNAVAILABLE, "The engine cannot be reached"),
    StatusCode.DEADLINE_EXCEEDED: _Meaning(errors.ENGINE_TIMEOUT, "The engine did not answer in time"),
}


def _failure(error: grpc.RpcError) -> GatewayError:
    """
    Say what a failed call means to the caller.

    The engine's own words may hold its internals: they are for the log.
    """
    call = cast("grpc.Call", error)
    meaning = _MEANINGS.get(call.code(), _ENGINE_FAILED)
    return GatewayError(meaning.kind, meaning.message, detail=f"{call.code().name}: {call.details()}")


class EngineCall:
    """
    One question on its way to the engine.

    Both threads hold it: a worker runs it, the reactor may cancel it, and the lock makes the order of the two not
    matter.
    """

    def __init__(self, start: Callable[[], Messages]) -> None:
        """``start`` begins the rpc without waiting for anything."""
        self._start = start
        self._lock = threading.Lock()
        self._messages: Messages | None = None
        self._cancelled = False

    def run(self, sink: Sink) -> None:
        """
        Ask, and hand over the answer's text as it comes. Blocks until the engine has ended, so call it from a worker.

        Every text is handed over, also one in the final message. Returns early, without an error, once the call is
        cancelled or the sink wants no more.

        :raises GatewayError: the engine failed, or ended without saying that its answer was complete.
        """
        with self._lock:
            if self._cancelled:
                return
            self._messages = messages = self._start()
        complete = False
        try:
            for message in messages:
                complete = complete or message.is_final
                if message.text and not sink(message.text):
                    self.cancel()
                    return
        except grpc.RpcError as error:
            if self._cancelled:
                return
            raise _failure(error) from error
        if not complete:
            raise GatewayError(
                errors.ENGINE_ERROR, "The engine broke off before its answer was complete", detail="no final message"
            )

    def cancel(self) -> None:
        """Make :meth:`run` return soon. From any thread, at any time, any number of times."""
        with self._lock:
            self._cancelled = True
            messages = self._messages
        if messages is not None:
            messages.cancel()


class Engine:
    """
    The channel to the engine.

    Make it after twistd's fork: gRPC's threads do not survive one. All methods may be called from the reactor's
    thread; none blocks.
    """

    def __init__(self, target: str, timeout_s: float) -> None:
        """
        Prepare to call; nothing is sent before the first question.

        :param target: a gRPC target, such as ``localhost:50051``.
        :param timeout_s: the deadline of one question, from its start to the end of the answer.
        """
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
        # Made once: making a stub on a channel that has been closed crashes the process.
        self._stub = brunix_pb2_grpc.AssistanceEngineStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def call(self, question: Question) -> EngineCall:
        """Prepare a call; it starts when a worker runs it."""
        rpc = self._stub.AskAgentStream if question.stream else self._stub.AskAgent
        request = brunix_pb2.AgentRequest(
            query=question.query, session_id=question.session_id, **attrs.asdict(question.editor)
        )
        metadata = (("x-request-id", question.request_id),)
        return EngineCall(lambda: rpc(request, timeout=self._timeout_s, metadata=metadata))

    def check(self, timeout_s: float, done: Callable[[str | None], None]) -> None:
        """
        Ask for the engine's health without using a worker.

        :param done: called once, within about ``timeout_s`` seconds, with None when the engine is well and otherwise
            with a few words on what is wrong, fit for anyone to read. **On a thread of gRPC's**, or within this call
            when the outcome is already known.
        """
        request = health_pb2.HealthCheckRequest()
        future = self._health.Check.future(request, timeout=timeout_s)  # type: ignore[attr-defined]  # not in its types
        future.add_done_callback(lambda ended: done(_illness(ended)))

    def close(self) -> None:
        """Cancel whatever is still under way and let go of the connections. No call may be made afterwards."""
        self._channel.close()


def _illness(ended: grpc.Future[health_pb2.HealthCheckResponse]) -> str | None:
    try:
        status = ended.result().status
    except grpc.FutureCancelledError:
        return "The gateway is stopping"
    except grpc.RpcError as error:
        code = cast("grpc.Call", error).code()
        # An engine without the health service has answered all the same.
        return None if code is StatusCode.UNIMPLEMENTED else _failure(error).message
    if status == health_pb2.HealthCheckResponse.SERVING:
        return None
    return f"The engine says it is {health_pb2.HealthCheckResponse.ServingStatus.Name(status).lower()}"
