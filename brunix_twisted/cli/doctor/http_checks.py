"""What requests and answers have to keep on their way: their ids, sizes, headers, connections and dates."""

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
"""A little more than what nginx takes unless it is told otherwise, and far less than what the gateway takes."""
DEFAULT_ORIGIN: Final = "http://localhost:3000"
"""An origin that a gateway allows unless it is told otherwise."""
UNKNOWN_ORIGIN: Final = "https://brunix-doctor.invalid"
UNKNOWN_HOST: Final = "brunix-doctor.invalid"
_LARGE_SKEW_S: Final = 60.0


# Connections, dates, ids: two requests over one connection.


@attrs.frozen
class RoundTrip:
    """What was seen of requests that ask nothing."""

    http_version: str
    """``1.0`` or ``1.1``."""
    keep_alive: bool
    """Whether the connection served more than one request."""
    sent_id: str
    received_id: str
    """The request's id, there and back."""
    skew_s: float | None
    """How much the server's clock is ahead; None where it tells no date."""
    round_trip_s: float


def measure_round_trip(target: Target, timeout_s: float) -> RoundTrip:
    """Ask for the least there is, twice. Raises what asking over a network raises."""
    sent_id = f"doctor-{token_hex(8)}"
    with Connection(target) as connection:
        connection.open(timeout_s)
        first = connection.socket
        took_s = []

        def ask() -> Response:
            began_s = time.monotonic()
            response = connection.request("GET", _LIVE, headers=[("X-Request-Id", sent_id)], timeout_s=timeout_s)
            response.read()
            took_s.append(time.monotonic() - began_s)
            return response

        ask()
        response = ask()
        now_s = time.time()
        keep_alive = connection.socket is first
        received_id = response.headers.get("X-Request-Id")
        return RoundTrip(
            response.http_version,
            keep_alive,
            sent_id,
            received_id,
            clock_skew_s(response.headers.get("Date"), now_s, took_s[-1]),
            min(took_s),
        )


def clock_skew_s(date: str, now_s: float, round_trip_s: float) -> float | None:
    """Say how much a server's clock is ahead of ours; it tells whole seconds only, and may tell them late."""
    try:
        told_s = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return None
    # Anything that rounding and the way here explain is none.
    earliest_s, latest_s = now_s - round_trip_s - 1, now_s
    if told_s < earliest_s:
        return told_s - earliest_s
    return max(0.0, told_s - latest_s)


def check_round_trip(seen: RoundTrip) -> list[Finding]:
    """Say what of it will trouble clients."""
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
            "the answers are HTTP/1.0",
            "The gateway speaks HTTP/1.1: something in between is old, or set so, and will gather whole answers.",
            "In nginx: proxy_http_version 1.1.",
            figures,
        )
    if not seen.keep_alive:
        return Finding(
            "connection",
            "note",
            "the connection is closed after each answer",
            "Every question pays for a new connection. The gateway itself keeps them.",
            "Let what stands in between keep connections to its clients (nginx: keepalive_timeout).",
            figures,
        )
    return Finding(
        "connection",
        "ok",
        f"HTTP/1.1, the connection is kept, an answer without the engine takes {seen.round_trip_s * 1000:.1f} ms",
        figures=figures,
    )


def _check_request_id(seen: RoundTrip) -> Finding:
    if seen.received_id == seen.sent_id:
        return Finding("request id", "ok", "X-Request-Id passes through, there and back")
    if seen.received_id:
        return Finding(
            "request id",
            "note",
            "X-Request-Id is replaced on the way",
            "A caller's own id is not the one in the gateway's log.",
            "In nginx: proxy_set_header X-Request-Id $http_x_request_id.",
        )
    return Finding(
        "request id",
        "warning",
        "X-Request-Id is taken away from the answers",
        "Nobody can tell which line of the gateway's log is theirs. X-Session-Id may have gone too.",
        "Let the proxy pass the answers' headers on.",
    )


def _check_clock(seen: RoundTrip) -> Finding:
    if seen.skew_s is None:
        return Finding("clock", "note", "the answers have no date")
    figures = {"skew_s": round(seen.skew_s, 1)}
    if abs(seen.skew_s) < _LARGE_SKEW_S:
        return Finding("clock", "ok", "the server's clock and this machine's agree", figures=figures)
    side = "ahead of" if seen.skew_s > 0 else "behind"
    return Finding(
        "clock",
        "warning",
        f"the server's clock is {_duration(abs(seen.skew_s))} {side} this machine's",
        "One of them is wrong. Certificates are then refused, and the times in logs do not fit together.",
        "Synchronise both, by NTP.",
        figures,
    )


def _duration(seconds: float) -> str:
    for unit, length_s in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} seconds"


# Large bodies.


def measure_large_body(target: Target, timeout_s: float) -> FullResponse:
    """
    Send a large request that asks nothing of the engine. Raises what asking over a network raises.

    A server that refuses may close the connection before all of it was sent; its answer is lost then, as for clients.
    """
    body = b'{"model": "", "messages": [], "padding": "%b"}' % (b"x" * LARGE_BYTES)
    with Connection(target) as connection:
        response = connection.request("POST", "/v1/chat/completions", body, timeout_s=timeout_s)
        return response.read(MAX_PAGE_BYTES)


def check_large_body(answer: FullResponse | None, where: GatewayAddress) -> Finding:
    """
    Say whether a long conversation gets through.

    :param answer: None: the connection broke.
    """
    size = f"{LARGE_BYTES / 1e6:.1f} MB"
    if answer is None:
        return Finding(
            "body size",
            "warning",
            f"the connection breaks on a request of {size}",
            "The gateway takes 4 MiB unless it is told otherwise: something in between takes less, or breaks it.",
            "In nginx: client_max_body_size 5m.",
        )
    if answer.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Finding("body size", "ok", f"a request of {size} gets through", figures={"bytes": LARGE_BYTES})
    diagnosis = diagnose_response(answer, where)
    if diagnosis.kind == "request_too_large":
        return Finding(
            "body size",
            "note",
            f"the gateway takes no request of {size}",
            "That is PROXY_MAX_BODY_BYTES, which is set below its default. Long conversations are refused with 413.",
            "Raise it, if that is not meant so.",
        )
    return Finding(
        "body size",
        "warning",
        f"something before the gateway takes no request of {size}",
        "Long conversations, and editors that send whole files, are refused with 413, in words not the gateway's.",
        "In nginx: client_max_body_size 5m.",
    )


# Browsers.


@attrs.frozen
class Preflight:
    """What a browser is told when it asks for a page whether it may."""

    origin: str
    status: int
    allowed: Sequence[str]
    """Every Access-Control-Allow-Origin of the answer."""
    methods: str
    headers: str


def measure_preflight(target: Target, origin: str, timeout_s: float) -> Preflight:
    """Ask as a browser does. Raises what asking over a network raises."""
    # Without the key: a browser never sends one with this request.
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
        response.read()
        return Preflight(
            origin,
            response.status,
            response.headers.get_all("Access-Control-Allow-Origin"),
            response.headers.get("Access-Control-Allow-Methods"),
            response.headers.get("Access-Control-Allow-Headers"),
        )


def is_allowed(seen: Preflight) -> bool:
    """Whether a browser would let the page ask."""
    asked = {"authorization", "content-type"}
    headers = {name.strip().lower() for name in seen.headers.split(",")}
    return (
        HTTPStatus.OK <= seen.status < HTTPStatus.MULTIPLE_CHOICES
        and list(seen.allowed) in ([seen.origin], ["*"])
        and (not seen.methods or "POST" in seen.methods.upper() or "*" in seen.methods)
        and (asked <= headers or (headers == {"*"} and asked == {"content-type"}))
    )


def check_preflight(seen: Preflight, strange: Preflight, *, asked: bool) -> Finding:
    """
    Say which pages may use the gateway.

    :param strange: what a page gets that nobody is likely to have allowed.
    :param asked: whether somebody means to have this origin use it.
    """
    figures = {
        "origin": seen.origin,
        "status": seen.status,
        "allow_origin": list(seen.allowed),
        "strange_allowed": is_allowed(strange),
    }
    if len(seen.allowed) > 1 or any("," in allowed for allowed in seen.allowed):
        return Finding(
            "browsers",
            "problem",
            f"the answer to a page of {seen.origin} allows an origin twice",
            "Browsers refuse that. A proxy adds its own Access-Control-Allow-Origin to the gateway's.",
            "Take the proxy's away, and name the pages in PROXY_CORS_ORIGINS.",
            figures,
        )
    if is_allowed(seen):
        says = f"pages of {seen.origin} may use the gateway"
        if is_allowed(strange):
            return Finding(
                "browsers",
                "note",
                f"{says}, and so may those of any other origin",
                "Any page that somebody of this network opens can ask the engine.",
                "PROXY_CORS_ORIGINS can name those that are meant.",
                figures,
            )
        return Finding("browsers", "ok", f"{says}; a strange page is refused", figures=figures)
    level: Level = "problem" if asked else "note"
    if seen.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}:
        return Finding(
            "browsers",
            level,
            f"a page of {seen.origin} is asked for a key before it may ask ({seen.status} to OPTIONS)",
            "A browser sends no key with that request, and so the page never gets through.",
            "Let what wants the key let OPTIONS through.",
            figures,
        )
    return Finding(
        "browsers",
        level,
        f"pages of {seen.origin} may not use the gateway ({seen.status} to OPTIONS)",
        "Clients that are no web pages need no permission.",
        f"For a page that should: PROXY_CORS_ORIGINS={seen.origin}, beside what it holds already.",
        figures,
    )


# Names.


def measure_unknown_host(target: Target, timeout_s: float) -> FullResponse:
    """Call the gateway by a name that is nobody's. Raises what asking over a network raises."""
    return get(target, _LIVE, timeout_s=timeout_s, headers=[("Host", UNKNOWN_HOST)])


def check_unknown_host(answer: FullResponse, where: GatewayAddress) -> Finding:
    """Say whether a page can reach the gateway by a name of its own."""
    diagnosis = diagnose_response(answer, where)
    if diagnosis.kind == "host_not_allowed":
        return Finding("names", "ok", f"the gateway may be called {where.host}, and by a strange name it may not")
    if answer.ok:
        return Finding(
            "names",
            "note",
            "the gateway may be called by any name",
            "That is so where it listens beyond its own machine and PROXY_ALLOWED_HOSTS names nothing.",
            f"PROXY_ALLOWED_HOSTS={where.host} would keep web pages from reaching it by a name of their own.",
        )
    return Finding("names", "ok", f"a strange name does not lead to the gateway: {answer.status}")
