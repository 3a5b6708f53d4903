"""Map gRPC statuses and health responses to errors and reasons for the caller."""

from __future__ import annotations

from typing import Final, cast

import attrs
import grpc
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError, Kind

# Maximum length of the engine's error message in the log.
_MAX_DETAIL_CHARACTERS: Final = 1000

# gRPC's text for a message above the receiver's size limit, and its mark if that is the gateway.
_TOO_LARGE: Final = "Received message larger than max"
_BY_GATEWAY: Final = "CLIENT:"
_MUCH_METADATA: Final = "metadata size exceeds"


@attrs.frozen
class _Meaning:
    kind: Kind
    message: str


_ENGINE_FAILED = _Meaning(errors.ENGINE_ERROR, "The engine failed to answer")
_REJECTED = _Meaning(errors.INVALID_REQUEST, "The engine rejected the question as invalid")
_NO_ACCESS = _Meaning(errors.ENGINE_AUTH, "The engine rejected the gateway's credentials")
_MEANINGS = {
    StatusCode.INVALID_ARGUMENT: _REJECTED,
    StatusCode.FAILED_PRECONDITION: _REJECTED,
    StatusCode.OUT_OF_RANGE: _REJECTED,
    StatusCode.UNAUTHENTICATED: _NO_ACCESS,
    StatusCode.PERMISSION_DENIED: _NO_ACCESS,
    StatusCode.NOT_FOUND: _Meaning(errors.NOT_FOUND, "The engine returned NOT_FOUND for this question"),
    StatusCode.RESOURCE_EXHAUSTED: _Meaning(errors.RATE_LIMITED, "The engine is overloaded; try again shortly"),
    StatusCode.UNAVAILABLE: _Meaning(errors.ENGINE_UNAVAILABLE, "The engine is unreachable"),
    StatusCode.DEADLINE_EXCEEDED: _Meaning(errors.ENGINE_TIMEOUT, "The engine did not answer in time"),
}


def failure(error: grpc.RpcError) -> GatewayError:
    """
    Convert a failed call to the caller's error.

    The engine's message may contain internals, so it goes to ``detail``, for the log.
    """
    call = cast("grpc.Call", error)
    details = call.details() or ""
    detail = f"{call.code().name}: {_one_line(details)}"
    # gRPC has one status for four errors. A retry does not help if a message exceeds a size limit.
    if call.code() is StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        if _BY_GATEWAY in details:
            return errors.answer_too_large(detail)
        return GatewayError(errors.INVALID_REQUEST, "The question is too large for the engine", detail=detail)
    if call.code() is StatusCode.RESOURCE_EXHAUSTED and _MUCH_METADATA in details:
        return GatewayError(errors.ENGINE_ERROR, "The engine's answer has too much metadata", detail=detail)
    meaning = _MEANINGS.get(call.code(), _ENGINE_FAILED)
    return GatewayError(meaning.kind, meaning.message, detail=detail)


def status_name(error: grpc.RpcError) -> str:
    """Return the name of the status of a failed call."""
    return cast("grpc.Call", error).code().name


def truncated() -> GatewayError:
    """Return the error for an answer that ended without its final message."""
    return GatewayError(
        errors.ENGINE_ERROR, "The engine disconnected before the answer was complete", detail="no final message"
    )


def _one_line(text: str) -> str:
    """Shorten a text for the log, and escape its line breaks and control characters."""
    shown = text[:_MAX_DETAIL_CHARACTERS]
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in shown
    )


def unhealthy_reason(result: health_pb2.HealthCheckResponse | grpc.RpcError) -> str | None:
    """Return why the engine is unhealthy, from the result of its health check; None if it is healthy."""
    if isinstance(result, grpc.RpcError):
        # An engine without the health service is reachable, and counts as healthy.
        code = cast("grpc.Call", result).code()
        return None if code is StatusCode.UNIMPLEMENTED else failure(result).message
    if result.status == health_pb2.HealthCheckResponse.SERVING:
        return None
    return f"The engine reports {health_pb2.HealthCheckResponse.ServingStatus.Name(result.status)}"
