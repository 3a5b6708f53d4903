"""
The head of an HTTP/1.1 request, where RFC 9112 is stricter than the parser that reads it. Pure.

Everything here gets lines without their ends, and raises a GatewayError for what a server must refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(%b) ([!-~]+) (HTTP/[0-9]\.[0-9])" % _TOKEN)
_BEGINNING: Final = re.compile(rb"(%b) ([!-~]{1,256})" % _TOKEN)
_FIELD: Final = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % _TOKEN)
ORDINARY_FIELD: Final = re.compile(rb"(?!(?i:transfer-encoding|content-length):)%b:[\t -~\x80-\xff]*" % _TOKEN)
"""A header that check_field has nothing against."""
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::[0-9]*)?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)
_MAX_DIGITS: Final = 18
_NEEDED_FIELD: Final = re.compile(rb"(origin|x-request-id):[ \t]*([!-~]{1,1024})[ \t]*", re.IGNORECASE)
_MAX_REMAINDER_BYTES: Final = 262_144
_MAX_KEPT_BYTES: Final = 2_048


class RequestLine(NamedTuple):
    """The first line of a request."""

    method: bytes
    target: bytes
    version: bytes
    authority: bytes | None = None
    """The host and port of a target that is a whole URL."""


def not_http(fault: str) -> GatewayError:
    """Make the error for what breaks the protocol's own rules."""
    return GatewayError(errors.INVALID_REQUEST, f"The request is not HTTP/1.1 as in RFC 9112: {fault}")


def request_line(line: bytes) -> RequestLine:
    """
    Read the first line of a request.

    :raises GatewayError: it is none, or one that this server does not serve.
    """
    parts = _REQUEST_LINE.fullmatch(line)
    if parts is None:
        raise not_http("the first line is malformed")
    method, target, version = parts.groups()
    if version not in {b"HTTP/1.1", b"HTTP/1.0"}:
        # RFC 9110, 15.6.6.
        raise GatewayError(errors.UNKNOWN_VERSION, "The gateway speaks HTTP/1.1 and HTTP/1.0")
    if method == b"CONNECT" or not method.isupper():
        # RFC 9110, 9.1: 501 for one that no path has; and case matters, though not to the router.
        raise GatewayError(errors.NOT_IMPLEMENTED, f"The gateway has no method {method.decode('ascii')[:32]}")
    if target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*"):
        return RequestLine(method, target, version)
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        # RFC 9112, 3.2 has no other forms.
        raise not_http("the target is neither a path nor a URL")
    return RequestLine(method, target, version, absolute[1])


def begun(line: bytes) -> RequestLine:
    """Read what there is of a first line that is incomplete or malformed, for the answer's dialect and the log."""
    parts = _BEGINNING.match(line)
    method, target = parts.groups() if parts else (b"-", b"/")
    return RequestLine(method, target, b"HTTP/1.1")


class Remainder:
    """The rest of a head that is refused: dropped as it comes, except for the headers that the answer depends on."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        """The names and values of those that have come."""
        self._line = b""
        self._room_bytes = _MAX_REMAINDER_BYTES

    def add(self, data: bytes) -> bool:
        """Take more of it; True once the head has ended, or has become too long to wait for its end."""
        self._room_bytes -= len(data)
        *lines, self._line = (self._line + data).split(b"\r\n")
        for line in lines:
            if not line:
                return True
            if field := _NEEDED_FIELD.fullmatch(line):
                self.fields.append((field[1], field[2]))
        if len(self._line) > _MAX_KEPT_BYTES:
            # Too long to be one of them; its last byte may be half of the line's end.
            self._line = self._line[:_MAX_KEPT_BYTES] + self._line[-1:]
        return self._room_bytes < 0


def check_field(line: bytes, version: bytes) -> None:
    """
    Check a header, or a trailer.

    :raises GatewayError: it is malformed, or does not say where the body ends though it is there for that.
    """
    field = _FIELD.fullmatch(line)
    if field is None:
        # RFC 9112, 5.2: obs-fold is rejected or replaced, 2.2: as is a space before the first header; 5.1: no space
        # before the colon. RFC 9110, 5.1 and 5.5: no characters but these.
        raise not_http("a header is malformed")
    name, value = field[1].lower(), field[2].strip(b" \t")
    if name == b"content-length" and value.isdigit() and len(value) > _MAX_DIGITS:
        # RFC 9110, 8.6: be ready for large ones. Python makes no number of some thousand digits.
        raise GatewayError(errors.BODY_TOO_LARGE, "Nobody has a body of this Content-Length")
    if name != b"transfer-encoding":
        return
    *others, last = (coding.strip(b" \t").lower() for coding in value.split(b","))
    if version == b"HTTP/1.0" or last != b"chunked" or last in others:
        # RFC 9112, 6.1: not in HTTP/1.0, and chunked no more than once; 6.3: chunked last, or the body has no end.
        raise not_http("Transfer-Encoding is not chunked")
    if others:
        # RFC 9112, 6.1.
        raise GatewayError(errors.NOT_IMPLEMENTED, "The only Transfer-Encoding is chunked")


def host(given: Iterable[bytes], first: RequestLine) -> str | None:
    """
    Read the host that a request is for: its name or address without the port, or None if it names none.

    :param given: the values of its Host headers.
    :raises GatewayError: there is not one valid Host (RFC 9112, 3.2).
    """
    values = list(given)
    if not values and first.version == b"HTTP/1.0":
        values = [] if first.authority is None else [first.authority]
        if not values:
            return None
    found = [_HOST.fullmatch(value) for value in values]
    if len(found) != 1 or found[0] is None:
        raise not_http("it needs one valid Host")
    # RFC 9112, 3.2.2: the host of a target that is a whole URL goes before that in Host.
    chosen = found[0] if first.authority is None else _HOST.fullmatch(first.authority)
    if chosen is None:
        raise not_http("the target's host is malformed")
    return chosen[1].decode("ascii")
