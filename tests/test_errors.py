"""What can go wrong: each with one status, one type, and one answer to whether to try again."""

from __future__ import annotations

import pytest

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError, Kind

KINDS = {name: value for name, value in vars(errors).items() if isinstance(value, Kind)}


def test_kinds() -> None:
    """A client that tells failures apart by status, type or code is told another failure than the one that happened."""
    assert {name: (kind.status, kind.type, kind.code, kind.retry) for name, kind in KINDS.items()} == {
        "INVALID_REQUEST": (400, "invalid_request_error", None, False),
        "SIDE_REQUEST": (400, "invalid_request_error", "side_request_refused", False),
        "WRONG_HOST": (403, "invalid_request_error", "host_not_allowed", False),
        "WRONG_ORIGIN": (403, "invalid_request_error", "origin_not_allowed", False),
        "UNKNOWN_MODEL": (404, "invalid_request_error", "model_not_found", False),
        "UNKNOWN_PATH": (404, "invalid_request_error", "unknown_url", False),
        "WRONG_METHOD": (405, "invalid_request_error", "method_not_supported", False),
        "NOT_OFFERED": (404, "invalid_request_error", "not_offered", False),
        "NOT_FOUND": (404, "invalid_request_error", "not_found", False),
        "PREVIOUS_NOT_FOUND": (404, "invalid_request_error", "previous_response_not_found", False),
        "TOO_SLOW": (408, "invalid_request_error", "request_timeout", False),
        "BODY_TOO_LARGE": (413, "invalid_request_error", "request_too_large", False),
        "URL_TOO_LONG": (414, "invalid_request_error", "url_too_long", False),
        "UNSUPPORTED_CODING": (415, "invalid_request_error", "unsupported_content_encoding", False),
        "NO_WEBSOCKET": (426, "invalid_request_error", "websocket_not_supported", False),
        "RATE_LIMITED": (429, "rate_limit_error", "rate_limit_exceeded", True),
        "QUEUE_PER_CALLER": (429, "rate_limit_error", "too_many_waiting", True),
        "HEADERS_TOO_LARGE": (431, "invalid_request_error", "headers_too_large", False),
        "CANCELLED": (499, "invalid_request_error", "cancelled", False),
        "INTERNAL": (500, "server_error", "internal_error", False),
        "NOT_IMPLEMENTED": (501, "invalid_request_error", "not_implemented", False),
        "ENGINE_ERROR": (502, "server_error", "engine_error", False),
        "ENGINE_AUTH": (502, "server_error", "engine_auth", False),
        "ENGINE_UNAVAILABLE": (503, "server_error", "engine_unavailable", True),
        "OVERLOADED": (503, "server_error", "overloaded", True),
        "STOPPING": (503, "server_error", "stopping", True),
        "ENGINE_TIMEOUT": (504, "server_error", "engine_timeout", False),
        "UNKNOWN_VERSION": (505, "invalid_request_error", "http_version_not_supported", False),
    }


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_is_consistent(kind: Kind) -> None:
    """A client blames itself for the engine's failure, or repeats what cannot succeed."""
    assert 400 <= kind.status <= 599
    # What a client asks of HTTP that nobody here has is 5xx by HTTP's own count, and still the client's to mend.
    assert (kind.type == "server_error") is (kind.status >= 500 and kind.status not in {501, 505})
    assert (kind.type == "rate_limit_error") is (kind.status == 429)
    # What the SDKs would repeat of their own accord says whether that helps.
    if kind.status in {408, 409, 429} or kind.status >= 500:
        assert kind.retry is not None
    if kind.retry:
        assert kind.status in {429, 503}
    assert kind.code is None or kind.code.isascii()


def test_codes_are_distinct() -> None:
    """A client cannot tell two failures apart."""
    codes = [kind.code for kind in KINDS.values()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (GatewayError(errors.INVALID_REQUEST, "No", param="n"), "400 No"),
        (
            GatewayError(errors.ENGINE_ERROR, "The engine failed", detail="disk full"),
            "502 The engine failed (disk full)",
        ),
    ],
)
def test_the_log_has_the_detail(error: GatewayError, logged: str) -> None:
    """An operator finds nothing in the log of what the client was not told."""
    assert str(error) == logged
