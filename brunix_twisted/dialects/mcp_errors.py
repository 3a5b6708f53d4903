"""The errors of the Model Context Protocol, and their codes in JSON-RPC."""

from __future__ import annotations

from typing import Any, Final

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError, Kind

PARSE_ERROR: Final = Kind(400, "invalid_request_error", "parse_error", retry=False)
INVALID_MESSAGE: Final = Kind(400, "invalid_request_error", "invalid_message", retry=False)
UNKNOWN_METHOD: Final = Kind(404, "invalid_request_error", "method_not_found", retry=False)
INVALID_PARAMS: Final = Kind(400, "invalid_request_error", "invalid_params", retry=False)
HEADER_MISMATCH: Final = Kind(400, "invalid_request_error", "header_mismatch", retry=False)
UNSUPPORTED_VERSION: Final = Kind(400, "invalid_request_error", "unsupported_protocol_version", retry=False)

_CODES: Final = {
    PARSE_ERROR: -32700,
    INVALID_MESSAGE: -32600,
    UNKNOWN_METHOD: -32601,
    INVALID_PARAMS: -32602,
    HEADER_MISMATCH: -32020,
    UNSUPPORTED_VERSION: -32022,
}
_INVALID_REQUEST_CODE: Final = -32600
_INTERNAL_ERROR_CODE: Final = -32603


def error_object(error: GatewayError, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the ``error`` of a JSON-RPC response."""
    client_error = error.kind.status < errors.INTERNAL.status
    code = _CODES.get(error.kind, _INVALID_REQUEST_CODE if client_error else _INTERNAL_ERROR_CODE)
    return {"code": code, "message": error.message} | ({} if data is None else {"data": data})
