"""
Server-streaming rpcs that are read on the calling thread.

grpc reads such a call on a separate thread by default, and passes each message to the reader, which costs four times
as much per token. Its experimental option ``SingleThreadedUnaryStream`` avoids that, but starts a call with three
operations and reads each message with another, and each of them wakes the reader. Here the first message is read with
the operation that starts the call, so an answer of one message wakes the reader three times and not five.

This uses grpc's layer below its public interface. Releases that it has not been tested with are used through the public
interface, which is slower: see :func:`is_tested`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

import grpc

with suppress(ImportError):
    from grpc._common import CYGRPC_STATUS_CODE_TO_STATUS_CODE as STATUS_CODES
    from grpc._cython import cygrpc  # type: ignore[attr-defined]  # it has no types


class Message(Protocol):
    """A protobuf message."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return its bytes."""

    @staticmethod
    def FromString(s: bytes, /) -> Message:  # noqa: N802 - likewise
        """Parse its bytes."""


M = TypeVar("M", bound=Message)
M_co = TypeVar("M_co", bound=Message, covariant=True)

_TESTED: Final = ("1.85.",)
"""What the names of tested releases begin with, as pyproject.toml allows them."""

# gRPC's flags for an operation that has none of them.
_NO_FLAGS: Final = 0

Metadata = tuple[tuple[str, str], ...]


class Messages(Iterator[M_co], Protocol[M_co]):
    """
    The messages of one call. Only one thread reads them; any thread may cancel.

    Reading raises :class:`grpc.RpcError`, which has the call's status, if the call has failed or is cancelled.
    """

    def cancel(self) -> object:
        """End the call now, with the status ``CANCELLED``."""

    def trailing_metadata(self) -> Any:  # noqa: ANN401 - see grpc.Call
        """Return the metadata that came with the status. Only after the last message."""


class Start(Protocol[M_co]):
    """Starts a call without blocking. Any thread may call it."""

    def __call__(
        self, request: Message, timeout_s: float, metadata: Metadata = (), *, wait_for_ready: bool = False
    ) -> Messages[M_co]:
        """
        Start a call.

        :param wait_for_ready: whether it waits for a connection, or fails without one.
        :raises ValueError: the channel has been closed.
        """


def is_tested(version: str = grpc.__version__) -> bool:
    """Return whether the installed grpc is one that this module has been tested with."""
    return version.startswith(_TESTED)


def server_streaming(channel: grpc.Channel, path: str, kind: type[M]) -> Start[M]:
    """
    Return what starts calls of an rpc.

    Do this once for a channel: on one that has been closed it crashes the process.

    :param path: such as ``/brunix.AssistanceEngine/AskAgent``.
    :param kind: the class of the response messages.
    """
    return _direct(channel, path, kind) if is_tested() else _public(channel, path, kind)


def drain(messages: Messages[M]) -> None:
    """
    Read what is left of a cancelled call, on the thread that has read its messages. It does not block.

    A channel keeps a call until its status has been read, which is about 20 kB.
    """
    with suppress(grpc.RpcError):
        for _ in messages:
            pass


def _public(channel: grpc.Channel, path: str, kind: type[M]) -> Start[M]:
    rpc: Any = channel.unary_stream(path, lambda request: request.SerializeToString(), kind.FromString)

    def start(request: Message, timeout_s: float, metadata: Metadata = (), *, wait_for_ready: bool = False) -> Any:  # noqa: ANN401 - grpc has no name for it
        return rpc(request, timeout=timeout_s, metadata=metadata, wait_for_ready=wait_for_ready or None)

    return start


def _direct(channel: Any, path: str, kind: type[M]) -> Start[M]:  # noqa: ANN401 - what is used of it has no types
    core = channel._channel  # noqa: SLF001 - see the module
    method = path.encode()
    handle = core.get_registered_call_handle(method)
    context = cygrpc.build_census_context()
    flags = cygrpc.InitialMetadataFlags
    waits = flags.wait_for_ready | flags.wait_for_ready_explicitly_set

    def start(request: Message, timeout_s: float, metadata: Metadata = (), *, wait_for_ready: bool = False) -> Any:  # noqa: ANN401 - Messages[M]
        # The status is an operation of its own: it is also complete if the call fails before its first message.
        first_read = (
            cygrpc.SendInitialMetadataOperation(metadata, waits if wait_for_ready else _NO_FLAGS),
            cygrpc.SendMessageOperation(request.SerializeToString(), _NO_FLAGS),
            cygrpc.SendCloseFromClientOperation(_NO_FLAGS),
            cygrpc.ReceiveInitialMetadataOperation(_NO_FLAGS),
            cygrpc.ReceiveMessageOperation(_NO_FLAGS),
        )
        status = (cygrpc.ReceiveStatusOnClientOperation(_NO_FLAGS),)
        call = core.segregated_call(
            cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS,
            method,
            None,
            time.time() + timeout_s,
            metadata,
            None,
            ((first_read, None), (status, None)),
            context,
            handle,
        )
        return _DirectMessages(call, kind.FromString)

    return start


class _Failed(grpc.RpcError):
    """The status of a call that has not ended well."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        """See :meth:`grpc.Call.code`."""
        return self._code

    def details(self) -> str:
        """See :meth:`grpc.Call.details`."""
        return self._details


class _DirectMessages(Generic[M]):
    """See :class:`Messages`."""

    __slots__ = ("_call", "_is_reading", "_parse", "_status")

    def __init__(self, call: Any, parse: Callable[[bytes], M]) -> None:  # noqa: ANN401 - grpc's, without types
        self._call = call
        self._parse = parse
        # Whether the read of a message has been started and has not ended.
        self._is_reading = True
        # The operation that has received the status, once it has.
        self._status: Any = None

    def __iter__(self) -> _DirectMessages[M]:
        return self

    def __next__(self) -> M:
        if not self._is_reading and self._status is None:
            self._is_reading = self._call.operate((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), None)
        # Without a message, the read ends when the call does; the status may come before it or after it.
        while self._is_reading or self._status is None:
            for operation in self._call.next_event().batch_operations:
                kind = operation.type()
                if kind == cygrpc.OperationType.receive_message:
                    self._is_reading = False
                    data = operation.message()
                    if data is not None:
                        return self._parsed(data)
                elif kind == cygrpc.OperationType.receive_status_on_client:
                    self._status = operation
        code = STATUS_CODES.get(self._status.code(), grpc.StatusCode.UNKNOWN)
        if code is grpc.StatusCode.OK:
            raise StopIteration
        raise _Failed(code, self._status.details())

    def _parsed(self, data: bytes) -> M:
        try:
            return self._parse(data)
        except Exception as error:
            self.cancel()
            drain(self)
            raise _Failed(grpc.StatusCode.INTERNAL, f"Exception deserializing response: {error}") from error

    def cancel(self) -> None:
        """See :meth:`Messages.cancel`."""
        self._call.cancel(cygrpc.StatusCode.cancelled, "Locally cancelled by application!")

    def trailing_metadata(self) -> Any:  # noqa: ANN401 - see grpc.Call
        """See :meth:`Messages.trailing_metadata`."""
        return self._status.trailing_metadata()
