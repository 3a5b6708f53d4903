"""One look at the engine over a channel of its own, for an operator, who may read everything that is known of it."""

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
    """What came of asking for the engine's health."""

    took_s: float
    unhealthy_reason: str | None
    """What is wrong, in a few words; None: it is well."""
    detail: str = ""
    """gRPC's own words on that; they may hold the engine's internals."""


def check_engine(
    reactor: Reactor,
    target: str,
    tls: Tls | None,
    timeout_s: float,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - frozen
) -> Deferred[HealthResult]:
    """
    Ask for the engine's health, as soon as there is a connection or none can be had.

    Fires within about ``timeout_s`` seconds; never fails.
    """
    checked: Deferred[HealthResult] = Deferred()
    channel = open_channel(grpc, target, tls, limits=limits)
    began_s = reactor.seconds()

    def ended(future: Health) -> None:
        result = _result(future, reactor.seconds() - began_s)
        channel.close()
        checked.callback(result)

    request = health_pb2.HealthCheckRequest()
    future = health_pb2_grpc.HealthStub(channel).Check.future(request, timeout=timeout_s)  # type: ignore[attr-defined]  # not in its types
    # It is called on a thread of gRPC's, or at once when the outcome is already known.
    future.add_done_callback(lambda future: reactor.callFromThread(ended, future))
    return checked


def _result(future: Health, took_s: float) -> HealthResult:
    try:
        return HealthResult(took_s, unhealthy_reason(future.result()))
    except grpc.RpcError as error:
        return HealthResult(took_s, unhealthy_reason(error), failure(error).detail or "")


# What gRPC says, and what it means; what a TLS library says of another's TLS is a riddle. The first that fits counts.
_NO_NAME: Final = "Its name cannot be looked up: correct BRUNIX_GRPC_TARGET, or the name service"
_NOBODY: Final = "Nobody listens there: start the engine, or correct BRUNIX_GRPC_TARGET"
_READINGS_OF_TLS: Final = (
    ("WRONG_VERSION_NUMBER", "It does not speak TLS: unset BRUNIX_GRPC_TLS_CA, or turn TLS on at the engine"),
    ("certificate has expired", "Its certificate has expired: renew it"),
    ("CERTIFICATE_VERIFY_FAILED", "Its certificate is signed by none of those in BRUNIX_GRPC_TLS_CA"),
    ("Hostname Verification", "Its certificate is for another name: give that one in BRUNIX_GRPC_TLS_NAME"),
    (
        "Socket closed",
        "It ended the handshake of TLS: it may want a certificate of the gateway's, or another: BRUNIX_GRPC_TLS_CERT",
    ),
    ("Endpoint closing", "Somebody listens there who does not answer in TLS: is that the engine's port?"),
)
_READINGS_WITHOUT_TLS: Final = (
    ("Socket closed", "It ended the connection: if it speaks TLS, BRUNIX_GRPC_TLS_CA has to name what signed it"),
    ("SETTINGS frame", "Somebody listens there who does not speak gRPC: is that the engine's port?"),
)
_READINGS: Final = (
    ("Connection refused", _NOBODY),
    ("No such file", _NOBODY),
    ("errors resolving", _NO_NAME),
    ("DNS resolution failed", _NO_NAME),
    ("DEADLINE_EXCEEDED", "It did not answer in time: is it overloaded, or is a firewall in between?"),
    ("timed out", "It did not answer in time: is it overloaded, or is a firewall in between?"),
)


def remedy(result: HealthResult, tls: Tls | None) -> str | None:
    """Say what a trial's failure means here, and what can be done; None if nobody knows."""
    readings = (*(_READINGS_WITHOUT_TLS if tls is None else _READINGS_OF_TLS), *_READINGS)
    return next((meaning for words, meaning in readings if words in result.detail), None)
