"""
Checks of an HTTP/1.1 request's head where RFC 9112 is stricter than Twisted's parser, and its normalized path. Pure.

All lines come without their CRLF. Functions raise GatewayError for what a server must reject.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(%b) ([!-~]+) (HTTP/[0-9]\.[0-9])" % _TOKEN)
_BEGINNING: Final = re.compile(rb"(%b) ([!-~]{1,256})" % _TOKEN)
_FIELD: Final = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % _TOKEN)
ORDINARY_FIELD: Final = re.compile(rb"(?!(?i:transfer-encoding|content-length):)%b:[\t -~\x80-\xff]*" % _TOKEN)
"""A header that :func:`check_field` certainly accepts."""
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::[0-9]*)?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)
_MAX_DIGITS: Final = 18
_CONTENT_LENGTH: Final = len(b"content-length")
# Without a header that decides where the body ends: only Content-Length may, and it is read later.
_ORDINARY_HEAD: Final = re.compile(
    rb"(?P<method>(?!CONNECT )[A-Z]+) (?P<target>/[!-~]*) HTTP/1\.1"
    rb"(?P<fields>(?:\r\n(?!(?i:transfer-encoding):)%b:[\t -~\x80-\xff]*)+)" % _TOKEN
)
# The headers that an error response depends on.
_RESPONSE_FIELD: Final = re.compile(rb"(origin|x-request-id):[ \t]*([!-~]{1,1024})[ \t]*", re.IGNORECASE)
_MAX_REMAINDER_BYTES: Final = 262_144
_MAX_KEPT_BYTES: Final = 2_048
_NORMALIZED_PATH: Final = re.compile(rb"(/[A-Za-z0-9._-]+)+")
_AUTHORITY: Final = re.compile(rb"\Ahttps?://[^/?]*", re.IGNORECASE)


class RequestLine(NamedTuple):
    """The request line: method, target and version."""

    method: bytes
    target: bytes
    version: bytes
    authority: bytes | None = None
    """The host and port of a target in absolute form."""


class Head(NamedTuple):
    """The head of a request that is in no way unusual."""

    first: RequestLine
    fields: tuple[tuple[bytes, bytes], ...]
    length: int
    """The size of the body."""


def ordinary_head(data: bytes, end: int) -> Head | None:
    """
    Parse a complete head in one pass; return None if it has anything unusual, right or wrong.

    :param end: where the head's last line ends in the data.
    """
    found = _ORDINARY_HEAD.fullmatch(data, 0, end)
    if found is None:
        return None
    method, target, lines = found.groups()
    fields, length = [], b""
    for line in lines.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        fields.append((name, value))
        if len(name) == _CONTENT_LENGTH and name.lower() == b"content-length":
            if length or not value.isdigit() or len(value) > _MAX_DIGITS:
                return None
            length = value
    return Head(RequestLine(method, target, b"HTTP/1.1"), tuple(fields), int(length or 0))


def malformed(fault: str) -> GatewayError:
    """Return the error for a violation of RFC 9112."""
    return GatewayError(errors.INVALID_REQUEST, f"Not a valid HTTP/1.1 request (RFC 9112): {fault}")


def request_line(line: bytes) -> RequestLine:
    """
    Parse a request line.

    :raises GatewayError: it is malformed, or the gateway does not support its version or method.
    """
    parts = _REQUEST_LINE.fullmatch(line)
    if parts is None:
        raise malformed("the request line is malformed")
    method, target, version = parts.groups()
    if version not in {b"HTTP/1.1", b"HTTP/1.0"}:
        # RFC 9110, 15.6.6.
        raise GatewayError(errors.UNKNOWN_VERSION, "HTTP version not supported. Use HTTP/1.1 or HTTP/1.0.")
    if method == b"CONNECT" or not method.isupper():
        # RFC 9110, 9.1: 501 for a method that no path supports. Methods are case-sensitive, but the router ignores it.
        raise GatewayError(errors.NOT_IMPLEMENTED, f"Method not implemented: {method.decode('ascii')[:32]}")
    if target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*"):
        return RequestLine(method, target, version)
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        # RFC 9112, 3.2 defines no other forms.
        raise malformed("the request target is neither a path nor a URL")
    return RequestLine(method, target, version, absolute[1])


def partial_request_line(line: bytes) -> RequestLine:
    """Parse an incomplete or malformed request line as far as possible, for the response's dialect and the log."""
    parts = _BEGINNING.match(line)
    method, target = parts.groups() if parts else (b"-", b"/")
    return RequestLine(method, target, b"HTTP/1.1")


class Remainder:
    """The rest of a rejected request's head: discarded, except for the headers that the response depends on."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        """The names and values of these headers, as far as received."""
        self._line = b""
        self._remaining_bytes = _MAX_REMAINDER_BYTES

    def add(self, data: bytes) -> bool:
        """Receive more of the head; return True once it has ended or exceeds the limit."""
        self._remaining_bytes -= len(data)
        *lines, self._line = (self._line + data).split(b"\r\n")
        for line in lines:
            if not line:
                return True
            if field := _RESPONSE_FIELD.fullmatch(line):
                self.fields.append((field[1], field[2]))
        if len(self._line) > _MAX_KEPT_BYTES:
            # Too long for one of these headers. Keep the last byte: it may be the CR of a CRLF.
            self._line = self._line[:_MAX_KEPT_BYTES] + self._line[-1:]
        return self._remaining_bytes < 0


def check_field(line: bytes, version: bytes) -> None:
    """
    Check a header or a trailer.

    :raises GatewayError: it is malformed, or it is a Content-Length or Transfer-Encoding that the gateway rejects.
    """
    field = _FIELD.fullmatch(line)
    if field is None:
        # RFC 9112, 5.2: reject or replace obs-fold; 2.2: also a space before the first header; 5.1: reject a space
        # before the colon. RFC 9110, 5.1 and 5.5: only these characters.
        raise malformed("a header is malformed")
    name, value = field[1].lower(), field[2].strip(b" \t")
    if name == b"content-length" and value.isdigit() and len(value) > _MAX_DIGITS:
        # RFC 9110, 8.6: expect large values. Python's int() raises ValueError for thousands of digits.
        raise GatewayError(errors.BODY_TOO_LARGE, "Content-Length is too large")
    if name != b"transfer-encoding":
        return
    *others, last = (coding.strip(b" \t").lower() for coding in value.split(b","))
    if version == b"HTTP/1.0" or last != b"chunked" or last in others:
        # RFC 9112, 6.1: not in HTTP/1.0, and chunked only once; 6.3: chunked must be last, or the body has no end.
        raise malformed("Transfer-Encoding must be chunked")
    if others:
        # RFC 9112, 6.1.
        raise GatewayError(errors.NOT_IMPLEMENTED, "Transfer-Encoding not supported. Only chunked is.")


def host(given: Iterable[bytes], first: RequestLine) -> str | None:
    """
    Return the host that a request is addressed to, a name or address without a port; None if it names no host.

    :param given: the values of its Host headers.
    :raises GatewayError: it does not have exactly one valid Host header (RFC 9112, 3.2).
    """
    values = list(given)
    if not values and first.version == b"HTTP/1.0":
        values = [] if first.authority is None else [first.authority]
        if not values:
            return None
    found = [_HOST.fullmatch(value) for value in values]
    if len(found) != 1 or found[0] is None:
        raise malformed("it must have exactly one valid Host header")
    # RFC 9112, 3.2.2: the host of a target in absolute form takes precedence over the Host header.
    chosen = found[0] if first.authority is None else _HOST.fullmatch(first.authority)
    if chosen is None:
        raise malformed("the host in the request target is malformed")
    return chosen[1].decode("ascii")


def is_websocket(upgrade: Iterable[bytes]) -> bool:
    """Whether the ``Upgrade`` headers of a request ask for WebSocket."""
    return b"websocket" in {protocol.strip(b" \t") for protocol in b",".join(upgrade).lower().split(b",")}


def normalized_path(path_bytes: bytes) -> bytes:
    """
    Return the path as the routes expect it: without scheme and host, double slashes and a trailing slash.

    Clients build paths by joining strings, and many do not follow the redirect of a POST. The result is always
    percent-encoded UTF-8.
    """
    if _NORMALIZED_PATH.fullmatch(path_bytes):
        return path_bytes
    path = unquote(_AUTHORITY.sub(b"", path_bytes, count=1).decode("latin-1"), encoding="utf-8", errors="replace")
    path = "/" + re.sub(r"/+", "/", path).strip("/")
    return quote(path, safe="/:@+,;=!$&'()*~").encode("ascii")
