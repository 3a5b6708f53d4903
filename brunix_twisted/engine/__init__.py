"""
The engine's gRPC client: calls, cancellation, health, and the mapping of gRPC statuses to errors.

Two clients implement the contract below. :mod:`brunix_twisted.engine.blocking`, the default, runs each call on a worker
thread; :mod:`brunix_twisted.engine.aio` runs all calls on the reactor's thread. No other package of the gateway imports
grpc or the generated code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred

from brunix_twisted.engine import affinity
from brunix_twisted.model import Question, Source, TraceContext

# gRPC writes to standard error directly, for example when a TLS handshake fails. That bypasses the log, and blocks
# gRPC's threads if standard error is not read. The status of a call has the same information. grpc reads the variable
# on import, so it is set here, before any module of this package imports grpc; an operator's value is kept.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Here as well, because every program that opens a channel imports this package first.
os.environ.setdefault(affinity.VARIABLE, "true")


def keeps_sessions(target: str) -> bool:
    """Whether a target is several engines, and all calls of a session go to the same one."""
    return affinity.keeps_sessions(target, os.environ)


@attrs.frozen
class Tls:
    """Certificates of the connection to the engine: paths of PEM files."""

    authorities: str
    """The certificate authorities that may have signed the engine's certificate."""
    certificate: str | None = None
    """The client certificate that the gateway presents, with its ``key``."""
    key: str | None = None
    name: str | None = None
    """The name in the engine's certificate, if it differs from the target's."""


@attrs.frozen
class ConnectionLimits:
    """Timeouts and the maximum message size of the connection to the engine."""

    connect_s: float = 1.0
    """Timeout of one attempt to connect to one address, in seconds, with the TLS and HTTP/2 handshakes."""
    acknowledge_s: float = 5.0
    """Timeout for the engine to acknowledge sent data or a keepalive ping, in seconds."""
    max_answer_bytes: int = 16 * 1024 * 1024
    """Maximum size of the text in one message."""


class Call(Protocol):
    """
    One engine call and the texts that it has received. Use it on the reactor's thread.

    If the engine is unreachable, the call is retried once, provided that no message has been received. The engine may
    be reachable again while gRPC still waits before it reconnects, or another engine may be.
    """

    trace: TraceContext | None
    """The trace context to send to the engine. Set it before :meth:`start`; None sends no trace."""

    statuses: list[str]
    """
    The name of each attempt's gRPC status, in order. An attempt that has not ended has CANCELLED, because only
    cancelling can end it without another status.
    """

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of the answer, once the call has ended. Most engines report none."""

    def start(self, arrived: Callable[[], None], buffer_bytes: int) -> Deferred[None]:
        """
        Start the call; only once.

        The Deferred fires when the call has ended and its worker is free. It fails with GatewayError if the engine
        failed, or ended the stream without a final message.

        :param arrived: called when there is text to take, and not again before :meth:`take`.
        :param buffer_bytes: memory for texts that were not taken. While it is full, the engine's stream is not read.
        """

    def take(self, about_bytes: int) -> list[str]:
        """
        Remove and return the oldest texts, none of them empty, until they occupy ``about_bytes`` of memory.

        ``arrived`` is not called for texts that remain, so call this again for them.
        """

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""

    def cancel(self) -> None:
        """Cancel the call: it ends soon, without an error. Call this at any time, any number of times."""


class Engine(Protocol):
    """
    The connection to the engine. Use it on the reactor's thread; no method blocks.

    Create it after twistd forks: gRPC's threads do not survive a fork. The first call opens the connection.
    """

    sample_questions: tuple[str, ...]
    """Questions to offer to users, as the engine reported them at its last health check. Most engines report none."""

    def call(self, question: Question) -> Call:
        """Prepare a call. The time that it waits from now on counts towards its timeout."""

    def check(self, timeout_s: float) -> Deferred[str | None]:
        """
        Check the engine's health, also while all workers are busy.

        The Deferred fires within about ``timeout_s`` seconds, with None if the engine is healthy. Otherwise it fires
        with the reason in a few words, without internals.
        """

    def close(self) -> Deferred[None]:
        """
        Close the connections and stop the threads. The Deferred fires when that is done.

        No call may be running, and none may be started afterwards.
        """
