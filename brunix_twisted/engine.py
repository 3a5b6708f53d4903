"""
The gateway's side of the engine's gRPC: blocking calls, their cancellation, and what a gRPC status means to a caller.

Nothing else on the gateway's side imports grpc or the generated code.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

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

T = TypeVar("T", bound="_UnderWay")

if TYPE_CHECKING:
    # What a stub returns; grpc has no public name for it.
    Messages = grpc._CallIterator[brunix_pb2.AgentResponse]  # noqa: SLF001 - the only name there is
    Health = grpc.Future[health_pb2.HealthCheckResponse]


# So long after it was asked a question still waits for an engine that is away. Longer than the pause between two
# attempts to connect, so that one that is back is found; the rest of the second in which to be told is the network's.
_RETURN_S: Final = 0.5

_CHANNEL_OPTIONS = (
    # Reads a stream on the thread that asks for it in place of handing every message over from a thread of gRPC's own:
    # a quarter of the cost a token. Experimental in grpc, which is why it stands on a line of its own.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
    # An attempt to connect is given up after the first of these, so that an unreachable engine is a refusal within a
    # second and not after grpc's twenty; and after an outage the next attempt is never further off than the last, with
    # the fifth more that grpc adds at random.
    ("grpc.min_reconnect_backoff_ms", 900),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # An engine that comes back under its name at another address is looked up again after a second, not after thirty.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # A whole answer is one message; grpc's 4 MiB is less than an engine may say.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)

# While a question is with the engine, a connection on which nothing moves is tested, and so kept alive where a
# firewall forgets silent ones. gRPC's servers take it amiss more often than every five minutes, and end every call of
# the connection. What is sent, a test or a question, has to be acknowledged in the time that follows: an engine whose
# machine is gone is noticed then, and not after the quarter of an hour that TCP takes.
_KEEPALIVE_OPTIONS = (
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # gRPC sends tests of its own, to measure the connection; one of them that is under way stands for ours.
    ("grpc.http2.ping_timeout_ms", 20_000),
)

# A target that is a list, or asks for all the addresses of a name, means all of them; a plain host and port one engine,
# whose name may well have an address at which nobody listens, as localhost often has.
_SEVERAL_ENGINES: Final = ("dns:", "ipv4:", "ipv6:")
_BALANCING_OPTIONS = (("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),)

# Enough of the engine's own words to know what it means.
_DETAIL_CHARACTERS: Final = 1000


@attrs.frozen
class Tls:
    """How the engine is known, and the gateway to it; paths of files in PEM form."""

    authorities: str
    """The certificates that the engine's has to be signed by."""
    certificate: str | None = None
    """With its key what the gateway shows the engine."""
    key: str | None = None
    name: str | None = None
    """The name in the engine's certificate, where it is not the target's."""


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
    return GatewayError(meaning.kind, meaning.message, detail=f"{call.code().name}: {_one_line(call.details() or '')}")


def _one_line(text: str) -> str:
    """What the log can show of a text from outside, in which no line break or control character is left."""
    shown = text[:_DETAIL_CHARACTERS]
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in shown
    )


def _take_the_rest(messages: Messages) -> None:
    """
    Take the end of a cancelled call off its queue, on the worker that has read it.

    A stream that is read on one thread is forgotten by its channel only when its status has been taken, which reading
    on does not do once it is cancelled: without this each client that leaves would cost some 20 kB for ever. grpc has
    no public way to it. The end is there at once, for the call has been cancelled.
    """
    take = getattr(messages, "_consume_next_event", None)
    while take is not None and messages._state.due:  # type: ignore[attr-defined]  # noqa: SLF001 - as said
        take()


class _UnderWay(Protocol):
    """Something that blocks a worker until it is cancelled."""

    def cancel(self) -> object: ...


class EngineCall:
    """
    One question on its way to the engine.

    Both threads hold it: a worker runs it, the reactor may cancel it, and the lock makes the order of the two not
    matter.

    A question that meets an engine which is away is put a second time, as long as nothing has come of the first: the
    engine may be back already while gRPC still waits before it tries to connect again, or another may be there.
    """

    def __init__(self, ask: Callable[[float], Messages], look: Callable[[float], Health], timeout_s: float) -> None:
        """
        Prepare to ask, from now on.

        :param ask: begins the rpc with a deadline in seconds, without waiting for anything.
        :param look: begins something that ends, however it ends, when the engine can be reached, or at the deadline.
        """
        self._ask = ask
        self._look = look
        self._timeout_s = timeout_s
        self._made_s = time.monotonic()
        self._lock = threading.Lock()
        self._under_way: _UnderWay | None = None
        self._cancelled = False
        self._heard = False

    def run(self, sink: Sink) -> None:
        """
        Ask, and hand over the answer's text as it comes. Blocks until the engine has ended, so call it from a worker.

        Every text is handed over, also one in the final message. Returns early, without an error, once the call is
        cancelled or the sink wants no more.

        :raises GatewayError: the engine failed, or ended without saying that its answer was complete.
        """
        deadline_s = time.monotonic() + self._timeout_s
        try:
            self._attempt(self._timeout_s, sink)
        except GatewayError as error:
            if error.kind is not errors.ENGINE_UNAVAILABLE or self._heard:
                raise
            # What the question has waited for a worker, or for a connection, counts: so however many wait, all of them
            # are told within a second that the engine is away.
            now_s = time.monotonic()
            patience_s = min(self._made_s + _RETURN_S, deadline_s) - now_s
            if patience_s > 0:
                self._await_return(patience_s)
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise
            self._attempt(left_s, sink)

    def _attempt(self, timeout_s: float, sink: Sink) -> None:
        messages = self._begin(lambda: self._ask(timeout_s))
        if messages is None:
            return
        complete = False
        try:
            for message in messages:
                self._heard = True
                complete = complete or message.is_final
                if message.text and not sink(message.text):
                    self.cancel()
                    _take_the_rest(messages)
                    return
        except grpc.RpcError as error:
            if self._cancelled:
                _take_the_rest(messages)
                return
            raise _failure(error) from error
        if not complete:
            raise GatewayError(
                errors.ENGINE_ERROR, "The engine broke off before its answer was complete", detail="no final message"
            )

    def _await_return(self, timeout_s: float) -> None:
        seen = self._begin(lambda: self._look(timeout_s))
        if seen is not None:
            # Not when there is an answer, and not when there is none either: the question itself finds out.
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                seen.result()

    def _begin(self, start: Callable[[], T]) -> T | None:
        """Start something that :meth:`cancel` ends; None when it was cancelled already."""
        with self._lock:
            if self._cancelled:
                return None
            self._under_way = begun = start()
        return begun

    def cancel(self) -> None:
        """Make :meth:`run` return soon. From any thread, at any time, any number of times."""
        with self._lock:
            self._cancelled = True
            under_way = self._under_way
        if under_way is not None:
            under_way.cancel()


class Engine:
    """
    The channel to the engine.

    Make it after twistd's fork: gRPC's threads do not survive one. All methods may be called from the reactor's
    thread; none blocks.
    """

    def __init__(self, target: str, timeout_s: float, tls: Tls | None = None) -> None:
        """
        Prepare to call; nothing is sent before the first question.

        :param target: a gRPC target: ``localhost:50051`` for one engine; ``dns:///engines:50051`` or
            ``ipv4:10.0.0.1:50051,10.0.0.2:50051`` for several, which are asked in turn.
        :param timeout_s: the deadline of one question, from its start to the end of the answer.
        :param tls: None for a connection that is not encrypted.
        :raises OSError: a file of the TLS cannot be read.
        """
        self._timeout_s = timeout_s
        self._channel = _open(target, tls)
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
        return EngineCall(
            lambda timeout_s: rpc(request, timeout=timeout_s, metadata=metadata), self._look, self._timeout_s
        )

    def _look(self, timeout_s: float) -> Health:
        # Alone among all calls it may wait for a connection: what waits cannot tell in time that there is none.
        request = health_pb2.HealthCheckRequest()
        future = self._health.Check.future(request, timeout=timeout_s, wait_for_ready=True)  # type: ignore[attr-defined]  # as below
        return cast("Health", future)

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


def _open(target: str, tls: Tls | None) -> grpc.Channel:
    options: tuple[tuple[str, str | int], ...] = (*_CHANNEL_OPTIONS, *_KEEPALIVE_OPTIONS)
    if target.startswith(_SEVERAL_ENGINES):
        options += _BALANCING_OPTIONS
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    if tls.name is not None:
        options += (("grpc.ssl_target_name_override", tls.name), ("grpc.default_authority", tls.name))
    authorities, key, certificate = (
        None if path is None else Path(path).read_bytes() for path in (tls.authorities, tls.key, tls.certificate)
    )
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(authorities, key, certificate), options=options)


def _illness(ended: Health) -> str | None:
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
