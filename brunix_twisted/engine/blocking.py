"""
The engine's client with threads, the default: each call blocks one worker thread of a pool.

The worker waits in gRPC for each text, and passes it to the reactor's thread through a text queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from brunix_twisted import errors
from brunix_twisted._pb import brunix_pb2
from brunix_twisted.engine import ConnectionLimits, Tls, keeps_sessions
from brunix_twisted.engine.connection import as_metadata, as_request, open_channel
from brunix_twisted.engine.retry import RetryBudget
from brunix_twisted.engine.rpc import Messages, drain, is_tested, server_streaming
from brunix_twisted.engine.sample_questions import sample_questions
from brunix_twisted.engine.sources import sources
from brunix_twisted.engine.status_mapping import failure, status_name, truncated, unhealthy_reason
from brunix_twisted.engine.text_queue import TextQueue
from brunix_twisted.engine.wakeup import ReactorWaker
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Question, Source, TraceContext
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.runtime.workers import Workers


class Sink(Protocol):
    """Receives the texts of a call."""

    def __call__(self, text: str, /, *, last: bool) -> bool:
        """
        Take a text, never empty, on the worker's thread. Return False if no more text is needed.

        :param last: whether the text is in the engine's final message, so that the call ends right after it.
        """


T = TypeVar("T", bound="_Cancellable")

if TYPE_CHECKING:
    from twisted.python.threadpool import ThreadPool

_log = Logger("brunix.engine")

_ASK = f"/{brunix_pb2.DESCRIPTOR.services_by_name['AssistanceEngine'].full_name}"
_WATCH = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/Watch"


class _Cancellable(Protocol):
    """An rpc that can be cancelled."""

    def cancel(self) -> object: ...


class BlockingCall:
    """
    See :class:`brunix_twisted.engine.Call`.

    A worker runs it, and the reactor may cancel it at the same time; a lock makes both orders safe.
    """

    trace: TraceContext | None = None
    """See :class:`brunix_twisted.engine.Call`."""

    def __init__(
        self,
        start_rpc: Callable[[float, TraceContext | None], Messages[brunix_pb2.AgentResponse]],
        start_probe: Callable[[float], Messages[health_pb2.HealthCheckResponse]],
        timeout_s: float,
        workers: Workers,
        waker: ReactorWaker,
    ) -> None:
        """
        Prepare a call.

        :param start_rpc: starts the rpc with a deadline in seconds, without blocking.
        :param start_probe: starts an rpc that ends when the engine is reachable, or at the deadline in seconds. Its
            result does not matter.
        :param timeout_s: the deadline of the call, with its retry.
        :param workers: has an idle thread when the call is started.
        """
        self._start_rpc = start_rpc
        self._start_probe = start_probe
        self._retry_budget = RetryBudget(timeout_s)
        self._workers = workers
        self._waker = waker
        self._lock = threading.Lock()
        self._running: _Cancellable | None = None
        self._cancelled = False
        self._text_queue: TextQueue | None = None
        self.sources: tuple[Source, ...] = ()
        self.statuses: list[str] = []

    # On the reactor's thread.

    def start(self, arrived: Callable[[], None], buffer_bytes: int) -> Deferred[None]:
        """See :class:`brunix_twisted.engine.Call`."""
        waker = self._waker
        self._text_queue = text_queue = TextQueue(lambda: waker.schedule(arrived), buffer_bytes)
        threads = cast("IReactorFromThreads", waker)
        try:
            return deferToThreadPool(threads, cast("ThreadPool", self._workers), self.run, text_queue.put)
        except RuntimeError as error:
            # Raised if the system refuses another thread, because of a limit of the container or the user. It is
            # temporary: other threads end.
            raise GatewayError(
                errors.OVERLOADED, "The gateway cannot start another thread; try again shortly", detail=str(error)
            ) from error

    def take(self, about_bytes: int) -> list[str]:
        """See :class:`brunix_twisted.engine.Call`."""
        return [] if self._text_queue is None else self._text_queue.take(about_bytes)

    @property
    def is_empty(self) -> bool:
        """See :class:`brunix_twisted.engine.Call`."""
        return self._text_queue is None or self._text_queue.is_empty

    def cancel(self) -> None:
        """Make :meth:`run` return soon. Call this on any thread, at any time, any number of times."""
        with self._lock:
            self._cancelled = True
            running = self._running
        try:
            if running is not None:
                running.cancel()
        finally:
            if self._text_queue is not None:
                self._text_queue.close()

    # On the worker's thread.

    def run(self, sink: Sink) -> None:
        """
        Run the call, and pass each text to the sink, also one in the final message. Blocks until the call has ended.

        Return early, without an error, once the call is cancelled or the sink returns False.

        :raises GatewayError: the engine failed, or ended the stream without a final message.
        """
        retry_budget = self._retry_budget
        retry_budget.begin()
        try:
            try:
                self._attempt(retry_budget.timeout_s, sink)
            except GatewayError as error:
                wait_s = retry_budget.wait_s(error)
                if wait_s:
                    self._await_reachable(wait_s)
                self._attempt(retry_budget.remaining_s(error), sink)
        finally:
            # gRPC's object is freed on this thread, not on the reactor's, where that would delay other answers.
            with self._lock:
                self._running = None

    def _attempt(self, timeout_s: float, sink: Sink) -> None:
        messages = self._start_unless_cancelled(lambda: self._start_rpc(timeout_s, self.trace))
        if messages is None:
            return
        self.statuses.append("CANCELLED")
        complete = False
        try:
            for message in messages:
                self._retry_budget.received = True
                complete = complete or message.is_final
                if message.text and not sink(message.text, last=message.is_final):
                    self.cancel()
                    drain(messages)
                    return
        except grpc.RpcError as error:
            if self._cancelled:
                return
            self.statuses[-1] = status_name(error)
            raise failure(error) from error
        except BaseException:
            # The gateway failed, for example with MemoryError, so the rest of the answer is not needed.
            messages.cancel()
            drain(messages)
            raise
        self.statuses[-1] = "OK"
        if not complete:
            raise truncated()
        self.sources = sources(messages.trailing_metadata())

    def _await_reachable(self, timeout_s: float) -> None:
        probe = self._start_unless_cancelled(lambda: self._start_probe(timeout_s))
        if probe is not None:
            # The result does not matter: the retry finds out whether the engine is reachable.
            with suppress(grpc.RpcError, StopIteration):
                next(probe)
            probe.cancel()
            drain(probe)

    def _start_unless_cancelled(self, start: Callable[[], T]) -> T | None:
        """Start an rpc that :meth:`cancel` cancels; return None if the call was cancelled already."""
        if self._cancelled:
            return None
        # Not under the lock: gRPC may take some time, and the reactor needs the lock to cancel.
        rpc = start()
        with self._lock:
            self._running = rpc
            cancelled = self._cancelled
        if cancelled:
            rpc.cancel()
        return rpc


class BlockingEngine:
    """See :class:`brunix_twisted.engine.Engine`."""

    def __init__(  # noqa: PLR0913 - all of them are settings
        self,
        reactor: Reactor,
        target: str,
        timeout_s: float,
        tls: Tls | None = None,
        limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - frozen
        *,
        workers: int,
    ) -> None:
        """
        Prepare the connection.

        :param target: see :func:`brunix_twisted.engine.connection.open_channel`.
        :param timeout_s: the deadline of one call in seconds, from its start to the end of the answer.
        :param workers: maximum number of concurrent calls. The caller queues further calls.
        :raises OSError: a certificate or key file cannot be read.
        """
        self.sample_questions: tuple[str, ...] = ()
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._keeps_sessions = keeps_sessions(target)
        self._channel: grpc.Channel = open_channel(grpc, target, tls, limits=limits)
        if not is_tested():
            _log.warn(
                "grpcio {version} is not a release that the gateway has been tested with; "
                "answers are read through its public interface, which is slower",
                version=grpc.__version__,
            )
        # Created once: see server_streaming().
        self._ask = server_streaming(self._channel, f"{_ASK}/AskAgent", brunix_pb2.AgentResponse)
        self._ask_stream = server_streaming(self._channel, f"{_ASK}/AskAgentStream", brunix_pb2.AgentResponse)
        self._watch = server_streaming(self._channel, _WATCH, health_pb2.HealthCheckResponse)
        # Its type has no methods.
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._workers = Workers(workers)
        self._checker = Workers(1)
        self._waker = ReactorWaker(reactor)

    def call(self, question: Question) -> BlockingCall:
        """See :class:`brunix_twisted.engine.Engine`."""
        start = self._ask_stream if question.stream else self._ask
        request = as_request(question)
        with_session = self._keeps_sessions
        return BlockingCall(
            lambda timeout_s, trace: start(request, timeout_s, as_metadata(question, trace, with_session=with_session)),
            self._start_probe,
            self._timeout_s,
            self._workers,
            self._waker,
        )

    def _start_probe(self, timeout_s: float) -> Messages[health_pb2.HealthCheckResponse]:
        # The only call that waits for a connection. A question must not, because it would not fail in time without one.
        # Watch is a stream, so the worker reads it itself and needs no other thread: see check().
        return self._watch(health_pb2.HealthCheckRequest(), timeout_s, wait_for_ready=True)

    def check(self, timeout_s: float) -> Deferred[str | None]:
        """
        See :class:`brunix_twisted.engine.Engine`. It runs on a separate thread, not on a worker.

        gRPC's futures need a thread too, and if the system refuses it, no future of the channel ever completes.
        """
        threads = cast("IReactorFromThreads", self._reactor)
        try:
            return deferToThreadPool(threads, cast("ThreadPool", self._checker), self._check, timeout_s)
        except RuntimeError:
            return succeed("The gateway cannot start another thread")

    def _check(self, timeout_s: float) -> str | None:
        try:
            response, call = self._health.Check.with_call(health_pb2.HealthCheckRequest(), timeout=timeout_s)
            self.sample_questions = sample_questions(call.trailing_metadata())
            return unhealthy_reason(response)
        except grpc.RpcError as error:
            return unhealthy_reason(error)
        except ValueError:
            # The thread was late, and the channel has been closed.
            return "The gateway is stopping"

    def close(self) -> Deferred[None]:
        """See :class:`brunix_twisted.engine.Engine`."""
        # A call on a closed channel would crash the process. All calls have ended by now: see Engine.close().
        try:
            self._channel.close()
        finally:
            self._checker.stop()
            self._workers.stop()
        return succeed(None)
