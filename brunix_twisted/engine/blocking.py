"""
The engine's client with threads: one worker of a pool for each question, in a call that blocks.

It is the default. A thread waits in gRPC for each text; what it hears crosses to the reactor's thread in a mailbox.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import grpc
import grpc.experimental
from grpc_health.v1 import health_pb2, health_pb2_grpc
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool

from brunix_twisted import errors
from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from brunix_twisted.engine import ConnectionLimits, Tls
from brunix_twisted.engine.connection import as_metadata, as_request, open_channel
from brunix_twisted.engine.retry import RetryBudget
from brunix_twisted.engine.status_mapping import failure, status_name, truncated, unhealthy_reason
from brunix_twisted.engine.text_queue import TextQueue
from brunix_twisted.engine.wakeup import ReactorWaker
from brunix_twisted.engine.workers import Workers
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Question, TraceContext
from brunix_twisted.runtime.reactors import Reactor


class Sink(Protocol):
    """Where a worker puts what it hears."""

    def __call__(self, text: str, /, *, last: bool) -> bool:
        """
        Take a piece of text, never empty, on the worker's thread; False means that no more is wanted.

        :param last: whether the engine has said that it is, so that the call's end follows at once.
        """


T = TypeVar("T", bound="_UnderWay")

if TYPE_CHECKING:
    from twisted.python.threadpool import ThreadPool

    # What a stub returns; grpc has no public name for it.
    Messages = grpc._CallIterator[brunix_pb2.AgentResponse]  # noqa: SLF001 - the only name there is
    Watched = grpc._CallIterator[health_pb2.HealthCheckResponse]  # noqa: SLF001 - likewise

# Reads a stream on the thread that asks for it in place of handing every message over from a thread of gRPC's own: a
# quarter of the cost a token. Experimental in grpc, which is why it stands on a line of its own.
_READ_ON_ONE_THREAD = (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)


def _take_the_rest(messages: Any) -> None:  # noqa: ANN401 - what it needs is in no type of grpc's
    """
    Take the end of a cancelled call off its queue, on the worker that has read it.

    A stream that is read on one thread is forgotten by its channel only when its status has been taken, which reading
    on does not do once it is cancelled: without this each client that leaves would cost some 20 kB for ever. grpc has
    no public way to it. The end is there at once, for the call has been cancelled.
    """
    take = getattr(messages, "_consume_next_event", None)
    while take is not None and messages._state.due:  # noqa: SLF001 - as said
        take()


class _UnderWay(Protocol):
    """Something that blocks a worker until it is cancelled."""

    def cancel(self) -> object: ...


class BlockingCall:
    """
    See :class:`brunix_twisted.engine.Call`.

    Both threads hold it: a worker runs it, the reactor may cancel it, and the lock makes the order of the two not
    matter.
    """

    trace: TraceContext | None = None
    """See :class:`brunix_twisted.engine.Call`."""

    def __init__(
        self,
        requested: Callable[[float, TraceContext | None], Messages],
        look: Callable[[float], Watched],
        timeout_s: float,
        workers: Workers,
        waker: ReactorWaker,
    ) -> None:
        """
        Prepare to ask, from now on.

        :param ask: begins the rpc with a deadline in seconds, without waiting for anything.
        :param look: begins something that ends, however it ends, when the engine can be reached, or at the deadline.
        :param workers: one of them is free when the call is started.
        """
        self._ask = requested
        self._look = look
        self._retry_budget = RetryBudget(timeout_s)
        self._workers = workers
        self._waker = waker
        self._lock = threading.Lock()
        self._under_way: _UnderWay | None = None
        self._cancelled = False
        self._text_queue: TextQueue | None = None
        self.statuses: list[str] = []

    # The reactor's side.

    def start(self, arrived: Callable[[], None], buffer_bytes: int) -> Deferred[None]:
        """See :class:`brunix_twisted.engine.Call`."""
        waker = self._waker
        self._text_queue = text_queue = TextQueue(lambda: waker.schedule(arrived), buffer_bytes)
        threads = cast("IReactorFromThreads", waker.reactor)
        try:
            return deferToThreadPool(threads, cast("ThreadPool", self._workers), self.run, text_queue.put)
        except RuntimeError as error:
            # What the standard library says when the system refuses another thread: a limit of the container's, or
            # of the user's. It is over when others have ended theirs.
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
        """Make :meth:`run` return soon. From any thread, at any time, any number of times."""
        with self._lock:
            self._cancelled = True
            under_way = self._under_way
        try:
            if under_way is not None:
                under_way.cancel()
        finally:
            if self._text_queue is not None:
                self._text_queue.close()

    # The worker's side.

    def run(self, sink: Sink) -> None:
        """
        Ask, and hand over the answer's text as it comes. Blocks until the engine has ended, so call it from a worker.

        Every text is handed over, also one in the final message. Returns early, without an error, once the call is
        cancelled or the sink wants no more.

        :raises GatewayError: the engine failed, or ended without saying that its answer was complete.
        """
        retry_budget = self._retry_budget
        retry_budget.begin()
        try:
            self._attempt(retry_budget.timeout_s, sink)
        except GatewayError as error:
            wait_s = retry_budget.wait_s(error)
            if wait_s:
                self._await_return(wait_s)
            self._attempt(retry_budget.remaining_s(error), sink)

    def _attempt(self, timeout_s: float, sink: Sink) -> None:
        messages = self._begin(lambda: self._ask(timeout_s, self.trace))
        if messages is None:
            return
        self.statuses.append("CANCELLED")
        complete = False
        try:
            for message in messages:
                self._retry_budget.heard = True
                complete = complete or message.is_final
                if message.text and not sink(message.text, last=message.is_final):
                    self.cancel()
                    _take_the_rest(messages)
                    return
        except grpc.RpcError as error:
            if self._cancelled:
                _take_the_rest(messages)
                return
            self.statuses[-1] = status_name(error)
            raise failure(error) from error
        except BaseException:
            # The gateway's own failure, say for want of memory: nobody will read the rest of the answer.
            messages.cancel()
            _take_the_rest(messages)
            raise
        self.statuses[-1] = "OK"
        if not complete:
            raise truncated()

    def _await_return(self, timeout_s: float) -> None:
        seen = self._begin(lambda: self._look(timeout_s))
        if seen is not None:
            # Not when there is an answer, and not when there is none either: the question itself finds out.
            with suppress(grpc.RpcError, StopIteration):
                next(seen)
            seen.cancel()
            _take_the_rest(seen)

    def _begin(self, start: Callable[[], T]) -> T | None:
        """Start something that :meth:`cancel` ends; None when it was cancelled already."""
        if self._cancelled:
            return None
        # Not under the lock: gRPC may take its time, and the reactor waits for this lock to cancel.
        begun = start()
        with self._lock:
            self._under_way = begun
            cancelled = self._cancelled
        if cancelled:
            begun.cancel()
        return begun


class BlockingEngine:
    """See :class:`brunix_twisted.engine.Engine`."""

    def __init__(  # noqa: PLR0913 - all of them are chosen by the operator
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
        Prepare to call.

        :param target: see :func:`brunix_twisted.engine.connection.open_channel`.
        :param timeout_s: the deadline of one question, from its start to the end of the answer.
        :param workers: how many questions may be under way at once; whoever asks more sees to it that they wait.
        :raises OSError: a file of the TLS cannot be read.
        """
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._channel: grpc.Channel = open_channel(grpc, target, tls, _READ_ON_ONE_THREAD, limits=limits)
        # Made once: making a stub on a channel that has been closed crashes the process.
        self._stub = brunix_pb2_grpc.AssistanceEngineStub(self._channel)
        # Its methods are in none of its types.
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._workers = Workers(workers)
        self._checker = Workers(1)
        self._waker = ReactorWaker(reactor)

    def call(self, question: Question) -> BlockingCall:
        """See :class:`brunix_twisted.engine.Engine`."""
        rpc = self._stub.AskAgentStream if question.stream else self._stub.AskAgent
        request = as_request(question)
        return BlockingCall(
            lambda timeout_s, trace: rpc(request, timeout=timeout_s, metadata=as_metadata(question, trace)),
            self._look,
            self._timeout_s,
            self._workers,
            self._waker,
        )

    def _look(self, timeout_s: float) -> Watched:
        # Alone among all calls it may wait for a connection: what waits cannot tell in time that there is none. A
        # stream, since it is read by the worker itself: see check().
        request = health_pb2.HealthCheckRequest()
        return cast("Watched", self._health.Watch(request, timeout=timeout_s, wait_for_ready=True))

    def check(self, timeout_s: float) -> Deferred[str | None]:
        """
        See :class:`brunix_twisted.engine.Engine`. It takes no worker, but a thread of its own.

        gRPC's own futures need one as well. When the system refuses it, the channel answers no future ever again.
        """
        threads = cast("IReactorFromThreads", self._reactor)
        try:
            return deferToThreadPool(threads, cast("ThreadPool", self._checker), self._check, timeout_s)
        except RuntimeError:
            return succeed("The gateway cannot start another thread")

    def _check(self, timeout_s: float) -> str | None:
        try:
            return unhealthy_reason(self._health.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s))
        except grpc.RpcError as error:
            return unhealthy_reason(error)

    def close(self) -> Deferred[None]:
        """See :class:`brunix_twisted.engine.Engine`."""
        # A call made on a closed channel would crash the process, so the last worker has left by now.
        try:
            self._channel.close()
        finally:
            self._checker.stop()
            self._workers.stop()
        return succeed(None)
