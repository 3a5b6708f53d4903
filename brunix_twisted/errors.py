"""
Errors of requests, in the form that every dialect renders.

The code that detects an error raises a :class:`GatewayError`; the dialect of the request's path turns it into bytes.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Kind:
    """A class of errors: its HTTP status, and OpenAI's type and code."""

    status: int
    type: str
    code: str | None = None
    retry: bool | None = None
    """
    Whether the same request may succeed later. None leaves the decision to the client.

    The OpenAI SDKs retry 408, 409, 429 and every 5xx twice unless the response has ``x-should-retry: false``.
    """


INVALID_REQUEST = Kind(400, "invalid_request_error", retry=False)
WRONG_HOST = Kind(403, "invalid_request_error", "host_not_allowed", retry=False)
WRONG_ORIGIN = Kind(403, "invalid_request_error", "origin_not_allowed", retry=False)
SIDE_REQUEST = Kind(400, "invalid_request_error", "side_request_refused", retry=False)
UNKNOWN_MODEL = Kind(404, "invalid_request_error", "model_not_found", retry=False)
PREVIOUS_NOT_FOUND = Kind(404, "invalid_request_error", "previous_response_not_found", retry=False)
UNKNOWN_PATH = Kind(404, "invalid_request_error", "unknown_url", retry=False)
WRONG_METHOD = Kind(405, "invalid_request_error", "method_not_supported", retry=False)
NOT_FOUND = Kind(404, "invalid_request_error", "not_found", retry=False)
NOT_OFFERED = Kind(404, "invalid_request_error", "not_offered", retry=False)
TOO_SLOW = Kind(408, "invalid_request_error", "request_timeout", retry=False)
BODY_TOO_LARGE = Kind(413, "invalid_request_error", "request_too_large", retry=False)
URL_TOO_LONG = Kind(414, "invalid_request_error", "url_too_long", retry=False)
UNSUPPORTED_CODING = Kind(415, "invalid_request_error", "unsupported_content_encoding", retry=False)
NO_WEBSOCKET = Kind(426, "invalid_request_error", "websocket_not_supported", retry=False)
RATE_LIMITED = Kind(429, "rate_limit_error", "rate_limit_exceeded", retry=True)
QUEUE_PER_CALLER = Kind(429, "rate_limit_error", "too_many_waiting", retry=True)
HEADERS_TOO_LARGE = Kind(431, "invalid_request_error", "headers_too_large", retry=False)
CANCELLED = Kind(499, "invalid_request_error", "cancelled", retry=False)
INTERNAL = Kind(500, "server_error", "internal_error", retry=False)
NOT_IMPLEMENTED = Kind(501, "invalid_request_error", "not_implemented", retry=False)
ENGINE_ERROR = Kind(502, "server_error", "engine_error", retry=False)
ENGINE_AUTH = Kind(502, "server_error", "engine_auth", retry=False)
ENGINE_UNAVAILABLE = Kind(503, "server_error", "engine_unavailable", retry=True)
OVERLOADED = Kind(503, "server_error", "overloaded", retry=True)
STOPPING = Kind(503, "server_error", "stopping", retry=True)
ENGINE_TIMEOUT = Kind(504, "server_error", "engine_timeout", retry=False)
UNKNOWN_VERSION = Kind(505, "invalid_request_error", "http_version_not_supported", retry=False)

RETRY_AFTER_S = 1
"""Sent with every kind that may succeed later. The gateway reconnects to a restarted engine within a second."""


@attrs.define(eq=False)
class GatewayError(Exception):
    """A request that cannot be answered."""

    kind: Kind
    message: str
    """For the caller: names the fault and the fix, and contains none of the engine's internals."""
    param: str | None = None
    """The path of the invalid parameter, such as ``messages[0].role``."""
    detail: str | None = None
    """For the log only."""

    @property
    def message_with_param(self) -> str:
        """The message, prefixed with the parameter unless it names it; for APIs whose errors have no other field."""
        named = self.param is None or self.param in self.message
        return self.message if named else f"{self.param}: {self.message}"

    def __str__(self) -> str:
        """Format status, message and detail for the log."""
        return f"{self.kind.status} {self.message}" + (f" ({self.detail})" if self.detail else "")


def answer_too_large(detail: str) -> GatewayError:
    """
    Return the error for an answer that is larger than ``PROXY_MAX_ANSWER_BYTES``.

    :param detail: how the gateway detected it, for the log.
    """
    message = "The engine's answer is too large; PROXY_MAX_ANSWER_BYTES is the limit"
    return GatewayError(ENGINE_ERROR, message, detail=detail)


class StartError(SystemExit, Exception):
    """
    The gateway cannot start. The message is one line for the user.

    It has two base classes because of twistd. For an Exception, twistd removes the pid file and reports the error from
    a daemon to the shell. For a SystemExit, the process prints only the message, without a traceback.
    """
