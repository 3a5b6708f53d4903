"""
The engine's client without threads: gRPC's asyncio library, on the reactor's event loop.

It is for thousands of streams in one process, and needs the asyncio reactor: ``twistd --reactor=asyncio``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cached_property
from typing import Any, Protocol

import attrs
import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from brunix_twisted import errors
from brunix_twisted._pb import brunix_pb2_grpc
from brunix_twisted.engine import ConnectionLimits, Tls, keeps_sessions
from brunix_twisted.engine.connection import as_metadata, as_request, open_channel
from brunix_twisted.engine.retry import RetryBudget
from brunix_twisted.engine.sample_questions import sample_questions
from brunix_twisted.engine.sources import sources
from brunix_twisted.engine.status_mapping import failure, status_name, truncated, unhealthy_reason
from brunix_twisted.engine.text_queue import TextBuffer
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Question, Source, TraceContext

Sink = Callable[[str], Awaitable[None] | None]
"""Takes a text, never empty; returns what to await before the next text, or None."""


class _Cancellable(Protocol):
    """A call that can be cancelled."""

    def cancel(self) -> object: ...


class AioCall:
    """See :class:`brunix_twisted.engine.Call`. Everything runs on the reactor's thread."""

    trace: TraceContext | None = None
    """See :class:`brunix_twisted.engine.Call`."""

    def __init__(
        self,
        start_rpc: Callable[[float, TraceContext | None], Any],
        start_probe: Callable[[float], Any],
        timeout_s: float,
    ) -> None:
        """
        Prepare a call.

        :param start_rpc: starts the rpc with a deadline in seconds.
        :param start_probe: starts an rpc that ends when the engine is reachable, or at the deadline in seconds. Its
            result does not matter.
        :param timeout_s: the deadline of the call, with its retry.
        """
        self._start_rpc = start_rpc
        self._start_probe = start_probe
        self._retry_budget = RetryBudget(timeout_s)
        self._running: _Cancellable | None = None
        self._cancelled = False
        self._texts = TextBuffer()
        self._room: asyncio.Future[None] | None = None
        """Set while the buffer is full."""
        self.sources: tuple[Source, ...] = ()
        self.statuses: list[str] = []

    def start(self, arrived: Callable[[], None], buffer_bytes: int) -> Deferred[None]:
        """See :class:`brunix_twisted.engine.Call`."""

        def put(text: str) -> Awaitable[None] | None:
            if self._cancelled:
                return None
            if self._texts.add(text):
                arrived()
            if self._texts.bytes < buffer_bytes or self._cancelled:
                return None
            self._room = asyncio.get_running_loop().create_future()
            return self._room

        return Deferred.fromFuture(asyncio.ensure_future(self.run(put)))

    def take(self, about_bytes: int) -> list[str]:
        """See :class:`brunix_twisted.engine.Call`."""
        texts = self._texts.take(about_bytes)
        self._resume()
        return texts

    @property
    def is_empty(self) -> bool:
        """See :class:`brunix_twisted.engine.Call`."""
        return not self._texts

    def cancel(self) -> None:
        """See :class:`brunix_twisted.engine.Call`."""
        self._cancelled = True
        self._texts.clear()
        if self._running is not None:
            self._running.cancel()
        self._resume()

    def _resume(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)

    async def run(self, sink: Sink) -> None:
        """
        Run the call, and pass each text to the sink, also one in the final message.

        Return early, without an error, once the call is cancelled.

        :raises GatewayError: the engine failed, or ended the stream without a final message.
        """
        retry_budget = self._retry_budget
        retry_budget.begin()
        try:
            await self._attempt(retry_budget.timeout_s, sink)
        except GatewayError as error:
            wait_s = retry_budget.wait_s(error)
            if wait_s:
                await self._await_reachable(wait_s)
            await self._attempt(retry_budget.remaining_s(error), sink)

    async def _attempt(self, timeout_s: float, sink: Sink) -> None:
        if self._cancelled:
            return
        self._running = messages = self._start_rpc(timeout_s, self.trace)
        self.statuses.append("CANCELLED")
        try:
            complete = await self._read(messages, sink)
        except grpc.RpcError as error:
            if self._cancelled:
                return
            self.statuses[-1] = status_name(error)
            raise failure(error) from error
        except asyncio.CancelledError:
            if self._cancelled:
                return
            raise
        finally:
            # No effect if the call has ended. If the sink failed, the rest is not needed.
            messages.cancel()
        self.statuses[-1] = "OK"
        if not complete:
            raise truncated()

    async def _read(self, messages: Any, sink: Sink) -> bool:  # noqa: ANN401 - a call of grpc.aio's
        """Pass the texts to the sink; return whether the engine has sent its final message."""
        complete = False
        # Not its read(), which discards unread messages when the call ends.
        async for message in messages:
            self._retry_budget.received = True
            if message is None:
                self.statuses[-1] = "INTERNAL"
                raise GatewayError(
                    errors.ENGINE_ERROR, "The engine failed to answer", detail="INTERNAL: no valid message"
                )
            complete = complete or message.is_final
            if message.text and (room := sink(message.text)) is not None:
                await room
        self.sources = sources(await messages.trailing_metadata())
        return complete

    async def _await_reachable(self, timeout_s: float) -> None:
        if self._cancelled:
            return
        self._running = probe = self._start_probe(timeout_s)
        # The result does not matter: the retry finds out whether the engine is reachable.
        await asyncio.wait([asyncio.ensure_future(_ended(probe))])


async def _ended(awaitable: Awaitable[Any]) -> None:
    with suppress(grpc.RpcError, asyncio.CancelledError):
        await awaitable


@attrs.frozen
class _Connection:
    """A channel and its stubs."""

    channel: Any
    engine: Any
    health: Any


class AioEngine:
    """See :class:`brunix_twisted.engine.Engine`."""

    def __init__(
        self,
        target: str,
        timeout_s: float,
        tls: Tls | None = None,
        limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - frozen
    ) -> None:
        """
        Prepare the connection.

        :param target: see :func:`brunix_twisted.engine.connection.open_channel`.
        :param timeout_s: the deadline of one call in seconds, from its start to the end of the answer.
        """
        self.sample_questions: tuple[str, ...] = ()
        self._target = target
        self._keeps_sessions = keeps_sessions(target)
        self._timeout_s = timeout_s
        self._tls = tls
        self._limits = limits
        self._checks: set[asyncio.Future[str | None]] = set()

    @cached_property
    def _connection(self) -> _Connection:
        # Created on first use, when the event loop is running: grpc.aio looks it up here.
        channel = open_channel(grpc.aio, self._target, self._tls, limits=self._limits)
        return _Connection(
            channel,
            brunix_pb2_grpc.AssistanceEngineStub(channel),
            health_pb2_grpc.HealthStub(channel),
        )

    def call(self, question: Question) -> AioCall:
        """See :class:`brunix_twisted.engine.Engine`."""
        engine = self._connection.engine
        rpc = engine.AskAgentStream if question.stream else engine.AskAgent
        request = as_request(question)
        with_session = self._keeps_sessions
        return AioCall(
            lambda timeout_s, trace: rpc(
                request, timeout=timeout_s, metadata=as_metadata(question, trace, with_session=with_session)
            ),
            self._start_probe,
            self._timeout_s,
        )

    def _start_probe(self, timeout_s: float) -> Any:  # noqa: ANN401 - a call of grpc.aio's
        # The only call that waits for a connection. A question must not, because it would not fail in time without one.
        request = health_pb2.HealthCheckRequest()
        return self._connection.health.Check(request, timeout=timeout_s, wait_for_ready=True)

    def check(self, timeout_s: float) -> Deferred[str | None]:
        """See :class:`brunix_twisted.engine.Engine`."""
        checking = asyncio.ensure_future(self._check(timeout_s))
        self._checks.add(checking)
        checking.add_done_callback(self._checks.discard)
        return Deferred.fromFuture(checking).addErrback(_stopped)

    async def _check(self, timeout_s: float) -> str | None:
        try:
            call = self._connection.health.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
            response = await call
            self.sample_questions = sample_questions(await call.trailing_metadata())
            return unhealthy_reason(response)
        except grpc.RpcError as error:
            return unhealthy_reason(error)

    def close(self) -> Deferred[None]:
        """See :class:`brunix_twisted.engine.Engine`."""
        if "_connection" not in vars(self):
            return succeed(None)
        return Deferred.fromFuture(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        # The channel does not know checks that have not started yet, so it does not cancel them.
        for checking in self._checks:
            checking.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await self._connection.channel.close()


def _stopped(cancelled: Failure) -> str:
    cancelled.trap(asyncio.CancelledError)
    return "The gateway is stopping"
