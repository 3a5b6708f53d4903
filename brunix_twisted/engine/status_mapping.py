"""What a gRPC status means to whoever asked, and what an engine's health is called."""

from __future__ import annotations

from typing import Final, cast

import attrs
import grpc
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError, Kind

# Enough of the engine's own words to know what it means.
_DETAIL_CHARACTERS: Final = 1000

# What gRPC says of a message beyond the limit of the side that received it, and how it marks this side.
_TOO_LARGE: Final = "Received message larger than max"
_HERE: Final = "CLIENT:"


@attrs.frozen
class _Meaning:
    kind: Kind
    message: str


_ENGINE_FAILED = _Meaning(errors.ENGINE_ERROR, "The engine failed to answer")
_REFUSED = _Meaning(errors.INVALID_REQUEST, "The engine refused the question as invalid")
_NO_ACCESS = _Meaning(errors.ENGINE_AUTH, "The engine does not accept this gateway's credentials")
_MEANINGS = {
    StatusCode.INVALID_ARGUMENT: _REFUSED,
    StatusCode.FAILED_PRECONDITION: _REFUSED,
    StatusCode.OUT_OF_RANGE: _REFUSED,
    StatusCode.UNAUTHENTICATED: _NO_ACCESS,
    StatusCode.PERMISSION_DENIED: _NO_ACCESS,
    StatusCode.NOT_FOUND: _Meaning(errors.NOT_FOUND, "The engine does not know what was asked for"),
    StatusCode.RESOURCE_EXHAUSTED: _Meaning(errors.RATE_LIMITED, "The engine has too much to do; try again shortly"),
    StatusCode.UNAVAILABLE: _Meaning(errors.ENGINE_UNAVAILABLE, "The engine cannot be reached"),
    StatusCode.DEADLINE_EXCEEDED: _Meaning(errors.ENGINE_TIMEOUT, "The engine did not answer in time"),
}


def failure(error: grpc.RpcError) -> GatewayError:
    """
    Say what a failed call means to the caller.

    The engine's own words may hold its internals: they are for the log.
    """
    call = cast("grpc.Call", error)
    details = call.details() or ""
    detail = f"{call.code().name}: {_one_line(details)}"
    # gRPC has one status for three things. Those that its own limits raise come again with every retry.
    if call.code() is StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        if _HERE in details:
            return errors.answer_too_large(detail)
        return GatewayError(errors.INVALID_REQUEST, "The engine does not accept a question of this size", detail=detail)
    meaning = _MEANINGS.get(call.code(), _ENGINE_FAILED)
    return GatewayError(meaning.kind, meaning.message, detail=detail)


def status_name(error: grpc.RpcError) -> str:
    """Give the name of the status that a call failed with."""
    return cast("grpc.Call", error).code().name


def truncated() -> GatewayError:
    """Make the error of an answer that ended without its final message."""
    return GatewayError(
        errors.ENGINE_ERROR, "The engine broke off before its answer was complete", detail="no final message"
    )


def _one_line(text: str) -> str:
    """What the log can show of a text from outside, in which no line break or control character is left."""
    shown = text[:_DETAIL_CHARACTERS]
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in shown
    )


def unhealthy_reason(answer: health_pb2.HealthCheckResponse | grpc.RpcError) -> str | None:
    """Say what is wrong with an engine that answered, or did not answer, a question for its health; None if nothing."""
    if isinstance(answer, grpc.RpcError):
        # An engine without the health service has answered all the same.
        code = cast("grpc.Call", answer).code()
        return None if code is StatusCode.UNIMPLEMENTED else failure(answer).message
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return None
    return f"The engine says it is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status).lower()}"
