"""What proxies may change about HTTP: connections, ids, dates, body sizes, CORS and the Host header."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from secrets import token_hex
from typing import Final

import attrs

from brunix_twisted.cli.address import GatewayAddress
from brunix_twisted.cli.diagnosis import diagnose_response
from brunix_twisted.cli.doctor.findings import Finding, Level
from brunix_twisted.cli.http_client import MAX_PAGE_BYTES, Connection, FullResponse, Response, Target, get

_LIVE: Final = "/health/live"
LARGE_BYTES: Final = 1_200_000
"""More than nginx's default limit, and much less than the gateway's."""
DEFAULT_ORIGIN: Final = "http://localhost:3000"
"""An origin that a gateway allows by default."""
UNKNOWN_ORIGIN: Final = "https://brunix-doctor.invalid"
UNKNOWN_HOST: Final = "brunix-doctor.invalid"
_MAX_SKEW_S: Final = 60.0


# Connection, request id and clock: two requests over one connection.


@attrs.frozen
class RoundTrip:
    """What two small requests show."""

    http_version: str
    """``1.0`` or ``1.1``."""
    keep_alive: bool
    """Whether both requests used the same connection."""
    sent_id: str
    received_id: str
    """The X-Request-Id of the response."""
    skew_s: float | None
    """How far the server's clock is ahead; None if the response has no date."""
    round_trip_s: float


def measure_round_trip(target: Target, timeout_s: float) -> RoundTrip:
    """Send two small requests. Raises network errors."""
    sent_id = f"doctor-{token_hex(8)}"
    with Connection(target) as connection:
        connection.open(timeout_s)
        first = connection.socket
        took_s = []

        def request() -> Response:
            started_s = time.monotonic()
            response = connection.request("GET", _LIVE, headers=[("X-Request-Id", sent_id)], timeout_s=timeout_s)
            response.read(MAX_PAGE_BYTES)
            took_s.append(time.monotonic() - started_s)
            return response

        request()
        response = request()
        now_s = time.time()
        keep_alive = connection.socket is first
        received_id = response.headers.get("X-Request-Id")
        skew_s = clock_skew_s(response.headers.get("Date"), now_s, took_s[-1])
        return RoundTrip(response.http_version, keep_alive, sent_id, received_id, skew_s, min(took_s))


def clock_skew_s(date: str, now_s: float, round_trip_s: float) -> float | None:
    """Return how far a server's clock is ahead; 0 if rounding to seconds and the round trip explain the difference."""
    try:
        server_s = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return None
    earliest_s, latest_s = now_s - round_trip_s - 1, now_s
    if server_s < earliest_s:
        return server_s - earliest_s
    return max(0.0, server_s - latest_s)


def check_round_trip(seen: RoundTrip) -> list[Finding]:
    """Check the connection, the request id and the clock."""
    return [_check_connection(seen), _check_request_id(seen), _check_clock(seen)]


def _check_connection(seen: RoundTrip) -> Finding:
    figures = {
        "http_version": float(seen.http_version),
        "kept": seen.keep_alive,
        "round_trip_ms": round(seen.round_trip_s * 1e3, 2),
    }
    if seen.http_version == "1.0":
        return Finding(
            "connection",
            "warning",
            "responses use HTTP/1.0",
            "The gateway speaks HTTP/1.1. A proxy is old, or configured for 1.0, and will buffer answers.",
            "In nginx: proxy_http_version 1.1.",
            figures,
        )
    if not seen.keep_alive:
        return Finding(
            "connection",
            "note",
            "the connection is closed after each response",
            "Every question needs a new connection. The gateway itself keeps connections open.",
            "Let the proxy keep client connections open (nginx: keepalive_timeout).",
            figures,
        )
    says = f"HTTP/1.1 with keep-alive; a response without the engine takes {seen.round_trip_s * 1000:.1f} ms"
    return Finding("connection", "ok", says, figures=figures)


def _check_request_id(seen: RoundTrip) -> Finding:
    if seen.received_id == seen.sent_id:
        return Finding("request id", "ok", "X-Request-Id passes through in both directions")
    if seen.received_id:
        return Finding(
            "request id",
            "note",
            "X-Request-Id is replaced",
            "A client's own request id does not appear in the gateway's log.",
            "In nginx: proxy_set_header X-Request-Id $http_x_request_id.",
        )
    return Finding(
        "request id",
        "warning",
        "X-Request-Id is missing from responses",
        "Users cannot find their request in the gateway's log. X-Session-Id may be missing as well.",
        "Let the proxy pass response headers through.",
    )


def _check_clock(seen: RoundTrip) -> Finding:
    if seen.skew_s is None:
        return Finding("clock", "note", "responses have no Date header")
    figures = {"skew_s": round(seen.skew_s, 1)}
    if abs(seen.skew_s) < _MAX_SKEW_S:
        return Finding("clock", "ok", "the clocks of the server and of this machine agree", figures=figures)
    side = "ahead of" if seen.skew_s > 0 else "behind"
    return Finding(
        "clock",
        "warning",
        f"the server's clock is {_duration(abs(seen.skew_s))} {side} this machine's",
        "Certificates may be rejected, and the times in logs do not match.",
        "Synchronise both clocks with NTP.",
        figures,
    )


def _duration(seconds: float) -> str:
    for unit, length_s in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} seconds"


# Large bodies.


def measure_large_body(target: Target, timeout_s: float) -> FullResponse:
    """Send a large request that does not reach the engine. Raises network errors."""
    body = b'{"model": "", "messages": [], "padding": "%b"}' % (b"x" * LARGE_BYTES)
    with Connection(target) as connection:
        return connection.request("POST", "/v1/chat/completions", body, timeout_s=timeout_s).read(MAX_PAGE_BYTES)


def check_large_body(response: FullResponse | None, where: GatewayAddress) -> Finding:
    """
    Check whether a long conversation gets through.

    :param response: None if the connection broke.
    """
    size = f"{LARGE_BYTES / 1e6:.1f} MB"
    if response is None:
        return Finding(
            "body size",
            "warning",
            f"the connection breaks during a request of {size}",
            "The gateway accepts 4 MiB by default. A proxy has a lower limit, or breaks the connection.",
            "In nginx: client_max_body_size 5m.",
        )
    if response.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Finding("body size", "ok", f"a request of {size} gets through", figures={"bytes": LARGE_BYTES})
    if diagnose_response(response, where).kind == "request_too_large":
        return Finding(
            "body size",
            "note",
            f"the gateway rejects a request of {size}",
            "PROXY_MAX_BODY_BYTES is below its default. Long conversations fail with 413.",
            "Raise it, unless this is intended.",
        )
    return Finding(
        "body size",
        "warning",
        f"a proxy rejects a request of {size}",
        "Long conversations, and editors that send whole files, fail with the proxy's 413.",
        "In nginx: client_max_body_size 5m.",
    )


# CORS.


@attrs.frozen
class Preflight:
    """The response to a browser's CORS preflight."""

    origin: str
    status: int
    allowed: Sequence[str]
    """Every Access-Control-Allow-Origin."""
    methods: str
    headers: str


def measure_preflight(target: Target, origin: str, timeout_s: float) -> Preflight:
    """Send a CORS preflight. Raises network errors."""
    # Without the key: browsers do not send one with a preflight.
    bare = attrs.evolve(target, headers=(), address=attrs.evolve(target.address, authorization=None))
    with Connection(bare) as connection:
        response = connection.request(
            "OPTIONS",
            "/v1/chat/completions",
            headers=[
                ("Origin", origin),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "authorization,content-type"),
            ],
            timeout_s=timeout_s,
        )
        response.read(MAX_PAGE_BYTES)
        return Preflight(
            origin,
            response.status,
            response.headers.get_all("Access-Control-Allow-Origin"),
            response.headers.get("Access-Control-Allow-Methods"),
            response.headers.get("Access-Control-Allow-Headers"),
        )


def is_allowed(seen: Preflight) -> bool:
    """Whether a browser would let the page send its request."""
    # A * does not cover Authorization: https://fetch.spec.whatwg.org/#cors-non-wildcard-request-header-name
    headers = {name.strip().lower() for name in seen.headers.split(",")}
    return (
        HTTPStatus.OK <= seen.status < HTTPStatus.MULTIPLE_CHOICES
        and list(seen.allowed) in ([seen.origin], ["*"])
        and (not seen.methods or "POST" in seen.methods.upper() or "*" in seen.methods)
        and {"authorization", "content-type"} <= headers
    )


def check_preflight(seen: Preflight, unknown: Preflight, *, requested: bool) -> Finding:
    """
    Check which web pages may use the gateway.

    :param unknown: the response to an origin that should not be allowed.
    :param requested: whether the user asked for this origin.
    """
    figures = {
        "origin": seen.origin,
        "status": seen.status,
        "allow_origin": list(seen.allowed),
        "strange_allowed": is_allowed(unknown),
    }
    if len(seen.allowed) > 1 or any("," in allowed for allowed in seen.allowed):
        return Finding(
            "browsers",
            "problem",
            f"the CORS response to {seen.origin} has two values of Access-Control-Allow-Origin",
            "Browsers reject that. A proxy adds its own header to the gateway's.",
            "Remove the proxy's header, and list the allowed pages in PROXY_CORS_ORIGINS.",
            figures,
        )
    if is_allowed(seen):
        says = f"pages of {seen.origin} may use the gateway"
        if is_allowed(unknown):
            return Finding(
                "browsers",
                "note",
                f"{says}, and so may pages of every other origin",
                "Every web page that a user of this network opens can ask the engine.",
                "List the intended origins in PROXY_CORS_ORIGINS.",
                figures,
            )
        return Finding("browsers", "ok", f"{says}; an unknown origin is rejected", figures=figures)
    level: Level = "problem" if requested else "note"
    if seen.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}:
        return Finding(
            "browsers",
            level,
            f"the CORS preflight of a page of {seen.origin} needs a key ({seen.status} to OPTIONS)",
            "Browsers send no key with a preflight, so the page cannot use the gateway.",
            "Let the proxy accept OPTIONS without a key.",
            figures,
        )
    return Finding(
        "browsers",
        level,
        f"pages of {seen.origin} may not use the gateway ({seen.status} to OPTIONS)",
        "Clients outside a browser need no permission.",
        f"To allow the page, add it to PROXY_CORS_ORIGINS: {seen.origin}.",
        figures,
    )


# The Host header.


def measure_unknown_host(target: Target, timeout_s: float) -> FullResponse:
    """Send a request with an unknown Host. Raises network errors."""
    return get(target, _LIVE, timeout_s=timeout_s, headers=[("Host", UNKNOWN_HOST)])


def check_unknown_host(response: FullResponse, where: GatewayAddress) -> Finding:
    """Check whether a web page can reach the gateway under a name of its choice (DNS rebinding)."""
    if diagnose_response(response, where).kind == "host_not_allowed":
        return Finding("names", "ok", f"the gateway accepts the name {where.host} and rejects an unknown one")
    if response.ok:
        return Finding(
            "names",
            "note",
            "the gateway accepts any name",
            "This is the default if it listens beyond its own machine and PROXY_ALLOWED_HOSTS is empty.",
            f"PROXY_ALLOWED_HOSTS={where.host} prevents DNS rebinding by web pages.",
        )
    return Finding("names", "ok", f"an unknown name does not reach the gateway: {response.status}")
