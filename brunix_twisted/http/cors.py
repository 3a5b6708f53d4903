"""CORS: which web pages may send a request, and the headers with which a browser lets them read the response."""

from __future__ import annotations

from typing import Final

from twisted.web.http import Request

from brunix_twisted.config.cors_origins import Origins

_METHODS: Final = b"GET, HEAD, POST, DELETE, OPTIONS"
_EXPOSED_HEADERS: Final = (
    b"X-Request-Id, Request-Id, X-Session-Id, X-Brunix-Session, X-Brunix-Ignored, Retry-After, Server-Timing, "
    b"Mcp-Session-Id"
)


def admit(request: Request, origins: Origins) -> bool:
    """Set the CORS headers of the response; return False if the request comes from a page that is not allowed."""
    # The response depends on the origin, so a cache must store one for each.
    request.setHeader(b"Vary", b"Origin")
    origin = request.requestHeaders.getRawHeaders(b"Origin", [b""])[0]
    if not origin:
        return True
    if not origins.allow(origin.decode("latin-1")):
        return _is_same_origin(request, origin)
    request.setHeader(b"Access-Control-Allow-Origin", origin)
    request.setHeader(b"Access-Control-Expose-Headers", _EXPOSED_HEADERS)
    return True


def _is_same_origin(request: Request, origin: bytes) -> bool:
    # Over plain HTTP, both schemes are possible: a proxy may terminate TLS.
    schemes = (b"https",) if request.isSecure() else (b"http", b"https")
    host = (request.getHeader(b"Host") or b"").lower()
    return origin.lower() in {b"%b://%b" % (scheme, host) for scheme in schemes}


def allow_preflight(request: Request) -> None:
    """
    Set the headers of the response to a preflight request.

    All requested headers are allowed: a list of them would be out of date with the next client.
    """
    request.setHeader(b"Allow", _METHODS)
    request.setHeader(b"Access-Control-Allow-Methods", _METHODS)
    if headers := request.getHeader(b"Access-Control-Request-Headers"):
        request.setHeader(b"Access-Control-Allow-Headers", headers)
    if request.getHeader(b"Access-Control-Request-Private-Network"):
        request.setHeader(b"Access-Control-Allow-Private-Network", b"true")
    request.setHeader(b"Access-Control-Max-Age", b"7200")
