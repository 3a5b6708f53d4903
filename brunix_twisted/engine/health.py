"""One health check over a separate channel, with details for the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from twisted.internet.defer import Deferred

from brunix_twisted.engine import ConnectionLimits, Tls
from brunix_twisted.engine.connection import open_channel
from brunix_twisted.engine.status_mapping import failure, unhealthy_reason
from brunix_twisted.runtime.reactors import Reactor

if TYPE_CHECKING:
    Health = grpc.Future[health_pb2.HealthCheckResponse]


@attrs.frozen
class HealthResult:
    """The result of a health check."""

    took_s: float
    unhealthy_reason: str | None
    """Why the engine is unhealthy, in a few words; None: it is healthy."""
    detail: str = ""
    """gRPC's message; it may contain the engine's internals."""


def check_engine(
    reactor: Reactor,
    target: str,
    tls: Tls | None,
    timeout_s: float,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - frozen
) -> Deferred[HealthResult]:
    """
    Check the engine's health over a new channel.

    The Deferred fires within about ``timeout_s`` seconds; it never fails.
    """
    checked: Deferred[HealthResult] = Deferred()
    channel = open_channel(grpc, target, tls, limits=limits)
    started_s = reactor.seconds()

    def ended(future: Health) -> None:
        result = _result(future, reactor.seconds() - started_s)
        channel.close()
        checked.callback(result)

    request = health_pb2.HealthCheckRequest()
    future = health_pb2_grpc.HealthStub(channel).Check.future(request, timeout=timeout_s)  # type: ignore[attr-defined]  # not in its types
    # gRPC calls it on one of its threads, or at once if the result is already known.
    future.add_done_callback(lambda future: reactor.callFromThread(ended, future))
    return checked


def _result(future: Health, took_s: float) -> HealthResult:
    try:
        return HealthResult(took_s, unhealthy_reason(future.result()))
    except grpc.RpcError as error:
        return HealthResult(took_s, unhealthy_reason(error), failure(error).detail or "")


# A part of gRPC's message, and its cause and fix. The first match counts.
_NO_ADDRESS: Final = "DNS lookup failed. Correct BRUNIX_GRPC_TARGET, or the DNS server"
_NOT_LISTENING: Final = "Nothing listens there. Start the engine, or correct BRUNIX_GRPC_TARGET"
_TIMED_OUT: Final = "It timed out. Check whether the engine is overloaded, or a firewall drops packets"
_CAUSES_WITH_TLS: Final = (
    ("WRONG_VERSION_NUMBER", "It does not use TLS. Unset BRUNIX_GRPC_TLS_CA, or turn on TLS in the engine"),
    ("certificate has expired", "Its certificate has expired. Renew it"),
    ("CERTIFICATE_VERIFY_FAILED", "No certificate in BRUNIX_GRPC_TLS_CA has signed its certificate. Add its CA"),
    ("Hostname Verification", "Its certificate is for another name. Set BRUNIX_GRPC_TLS_NAME to that name"),
    (
        "Socket closed",
        "It closed the connection during the TLS handshake. Check the client certificate in BRUNIX_GRPC_TLS_CERT",
    ),
    ("Endpoint closing", "That port does not use TLS. Check that it is the engine's port"),
)
_CAUSES_WITHOUT_TLS: Final = (
    ("Socket closed", "It closed the connection. If it uses TLS, set BRUNIX_GRPC_TLS_CA to its CA certificate"),
    ("SETTINGS frame", "That port does not use gRPC. Check that it is the engine's port"),
)
_CAUSES: Final = (
    ("Connection refused", _NOT_LISTENING),
    ("No such file", _NOT_LISTENING),
    ("errors resolving", _NO_ADDRESS),
    ("DNS resolution failed", _NO_ADDRESS),
    ("DEADLINE_EXCEEDED", _TIMED_OUT),
    ("timed out", _TIMED_OUT),
)


def remedy(result: HealthResult, tls: Tls | None) -> str | None:
    """Return the cause of a failed health check and its fix, without a final period; None if it is unknown."""
    causes = (*(_CAUSES_WITHOUT_TLS if tls is None else _CAUSES_WITH_TLS), *_CAUSES)
    return next((cause for text, cause in causes if text in result.detail), None)
