"""
The engine's client: how the gateway asks, cancels and hears, and what a gRPC status means to a caller.

Two clients keep the one contract below. :mod:`brunix_twisted.engine.blocking` gives each question a worker's thread of
its own, which is the default; :mod:`brunix_twisted.engine.aio` reads all of them on the reactor's thread. Nothing else
on the gateway's side imports grpc or the generated code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred

from brunix_twisted.model import Question, TraceContext

# What gRPC writes to standard error by itself, at a failed TLS handshake for one, is no line of the log, and blocks its
# threads where nobody reads it. What matters of it is in the status of a call. grpc reads this when it is imported, so
# it is set here, before any module of this package imports it; an operator's own value stays.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


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
class ConnectionLimits:
    """How long the connection to the engine may take to show that it works, and how much it may bring at once."""

    connect_s: float = 1.0
    """In seconds, for one attempt to connect to one address, the TLS and HTTP/2 handshakes included."""
    acknowledge_s: float = 5.0
    """In seconds, for the engine's machine to acknowledge what was sent to it, or to answer a keepalive ping."""
    max_answer_bytes: int = 16 * 1024 * 1024
    """The largest text that one message may have."""


class Call(Protocol):
    """
    One question on its way to the engine, and the texts that come back. All on the reactor's thread.

    A question that meets an engine which is away is put a second time, as long as nothing has come of the first: the
    engine may be back already while gRPC still waits before it tries to connect again, or another may be there.
    """

    trace: TraceContext | None
    """What the engine is told of the trace that the question belongs to. To be set before the start, if at all."""

    statuses: list[str]
    """
    The name of each attempt's gRPC status, in order. One that has not ended is said to be cancelled, for that is what
    ends it unless it ends by itself.
    """

    def start(self, arrived: Callable[[], None], buffer_bytes: int) -> Deferred[None]:
        """
        Ask; once.

        Fires when nothing more will come, and whatever the call occupied is free again; fails with GatewayError when
        the engine failed, or ended without saying that its answer was complete.

        :param arrived: called when there is something to take, and then not again before it was taken.
        :param buffer_bytes: of memory; with more than that waiting to be taken, the engine's answer is not read on.
        """

    def take(self, about_bytes: int) -> list[str]:
        """
        Take the oldest texts, none of them empty, hardly more than so much memory of them.

        Whoever leaves some behind has to come back for them: nobody is told of what is there already.
        """

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""

    def cancel(self) -> None:
        """Want no more: soon the call ends, without an error. At any time, any number of times."""


class Engine(Protocol):
    """
    The connection to the engine. All on the reactor's thread; nothing here blocks.

    Make it after twistd's fork: gRPC's threads do not survive one. Nothing is sent before the first question.
    """

    def call(self, question: Question) -> Call:
        """Prepare to ask; what the question waits for from now on counts as its time."""

    def check(self, timeout_s: float) -> Deferred[str | None]:
        """
        Ask for the engine's health, whatever number of questions is with it.

        Fires within about ``timeout_s`` seconds, with None when the engine is well and otherwise with a few words on
        what is wrong, fit for anyone to read.
        """

    def close(self) -> Deferred[None]:
        """
        Let go of the connections, and of everything else; fires when that is done.

        No call may be under way, and none may be made afterwards.
        """
