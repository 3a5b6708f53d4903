"""
The engine's client without threads: gRPC's asyncio library, on the reactor's own loop.

For thousands of streams in one process. It needs the reactor that runs asyncio's loop: ``twistd --reactor=asyncio``.
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
from brunix_twisted.engine import ConnectionLimits, Tls
from brunix_twisted.engine.connection import as_metadata, as_request, open_channel
from brunix_twisted.engine.retry import RetryBudget
from brunix_twisted.engine.status_mapping import failure, status_name, truncated, unhealthy_reason
from brunix_twisted.engine.text_queue import TextBuffer
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Question, TraceContext

Sink = Callable[[str], Awaitable[None] | None]
"""Takes a piece of text, never empty; gives what has to be waited for before the next, if anything."""


class _UnderWay(Protocol):
    """Something that is waited for until it is cancelled."""

    def cancel(self) -> object: ...


class AioCall:
    """See :class:`brunix_twisted.engine.Call`. Everything is on the loop's thread."""

    trace: TraceContext | None = None
    """See :class:`brunix_twisted.engine.Call`."""

    def __init__(
        self, requested: Callable[[float, TraceContext | None], Any], look: Callable[[float], Any], timeout_s: float
    ) -> None:
        """
        Prepare to ask, from now on.

        :param ask: begins the rpc with a deadline in seconds.
        :param look: begins something that ends, however it ends, when the engine can be reached, or at the deadline.
        """
        self._ask = requested
        self._look = look
        self._retry_budget = RetryBudget(timeout_s)
        self._under_way: _UnderWay | None = None
        self._cancelled = False
        self._texts = TextBuffer()
        self._room: asyncio.Future[None] | None = None
        """There while the engine has to wait."""
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
        self._go_on()
        return texts

    @property
    def is_empty(self) -> bool:
        """See :class:`brunix_twisted.engine.Call`."""
        return not self._texts

    def cancel(self) -> None:
        """See :class:`brunix_twisted.engine.Call`."""
        self._cancelled = True
        self._texts.clear()
        if self._under_way is not None:
            self._under_way.cancel()
        self._go_on()

    def _go_on(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)

    async def run(self, sink: Sink) -> None:
        """
        Ask, and hand over the answer's text as it comes, to the engine's end.

        Every text is handed over, also one in the final message. Returns early, without an error, once the call is
        cancelled.

        :raises GatewayError: the engine failed, or ended without saying that its answer was complete.
        """
        retry_budget = self._retry_budget
        retry_budget.begin()
        try:
            await self._attempt(retry_budget.timeout_s, sink)
        except GatewayError as error:
            wait_s = retry_budget.wait_s(error)
            if wait_s:
                await self._await_return(wait_s)
            await self._attempt(retry_budget.remaining_s(error), sink)

    async def _attempt(self, timeout_s: float, sink: Sink) -> None:
        if self._cancelled:
            return
        self._under_way = messages = self._ask(timeout_s, self.trace)
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
            # Nothing comes of it where the call has ended. Where its reader failed, nobody will read the rest.
            messages.cancel()
        self.statuses[-1] = "OK"
        if not complete:
            raise truncated()

    async def _read(self, messages: Any, sink: Sink) -> bool:  # noqa: ANN401 - a call of grpc.aio's
        """Hand the answer's text over; returns whether the engine has said that it is complete."""
        complete = False
        # Not its read(), which at the call's end forgets what it has not given yet.
        async for message in messages:
            self._retry_budget.heard = True
            if message is None:
                self.statuses[-1] = "INTERNAL"
                raise GatewayError(
                    errors.ENGINE_ERROR, "The engine failed to answer", detail="INTERNAL: no valid message"
                )
            complete = complete or message.is_final
            if message.text and (room := sink(message.text)) is not None:
                await room
        return complete

    async def _await_return(self, timeout_s: float) -> None:
        if self._cancelled:
            return
        self._under_way = seen = self._look(timeout_s)
        # Not when there is an answer, and not when there is none either: the question itself finds out.
        await asyncio.wait([asyncio.ensure_future(_ended(seen))])


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
        Prepare to call.

        :param target: see :func:`brunix_twisted.engine.connection.open_channel`.
        :param timeout_s: the deadline of one question, from its start to the end of the answer.
        """
        self._target = target
        self._timeout_s = timeout_s
        self._tls = tls
        self._limits = limits
        self._checking: set[asyncio.Future[str | None]] = set()

    @cached_property
    def _connection(self) -> _Connection:
        # Made when it is first needed, which is on the loop: before twistd starts that there is none to be found.
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
        return AioCall(
            lambda timeout_s, trace: rpc(request, timeout=timeout_s, metadata=as_metadata(question, trace)),
            self._look,
            self._timeout_s,
        )

    def _look(self, timeout_s: float) -> Any:  # noqa: ANN401 - a call of grpc.aio's
        # Alone among all calls it may wait for a connection: what waits cannot tell in time that there is none.
        request = health_pb2.HealthCheckRequest()
        return self._connection.health.Check(request, timeout=timeout_s, wait_for_ready=True)

    def check(self, timeout_s: float) -> Deferred[str | None]:
        """See :class:`brunix_twisted.engine.Engine`."""
        checking = asyncio.ensure_future(self._check(timeout_s))
        self._checking.add(checking)
        checking.add_done_callback(self._checking.discard)
        return Deferred.fromFuture(checking).addErrback(_stopped)

    async def _check(self, timeout_s: float) -> str | None:
        try:
            return unhealthy_reason(
                await self._connection.health.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
            )
        except grpc.RpcError as error:
            return unhealthy_reason(error)

    def close(self) -> Deferred[None]:
        """See :class:`brunix_twisted.engine.Engine`."""
        if "_connection" not in vars(self):
            return succeed(None)
        return Deferred.fromFuture(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        # Also ones that have not begun, which the channel does not know of.
        for checking in self._checking:
            checking.cancel()
        await asyncio.gather(*self._checking, return_exceptions=True)
        await self._connection.channel.close()


def _stopped(cancelled: Failure) -> str:
    cancelled.trap(asyncio.CancelledError)
    return "The gateway is stopping"
