"""Responses that reach their transport in as few writes as possible."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Final

from twisted.web import server
from twisted.web.http import NO_BODY_CODES, datetimeToString

# Python's names for the first two are older than RFC 9110. 499 and 529 are not registered: nginx logs the one, and
# Anthropic's API uses the other.
_REASON_PHRASES: Final = {
    413: b"Content Too Large",
    414: b"URI Too Long",
    499: b"Client Closed Request",
    529: b"Overloaded",
}


_LARGE_BYTES: Final = 65_536


@lru_cache(2)
def http_date(time_s: int) -> bytes:
    """Return a time for a ``Date`` header. Formatting it takes longer than all other headers together."""
    date: bytes = datetimeToString(time_s)
    return date


@lru_cache
def _reason_phrase(code: int) -> bytes:
    return _REASON_PHRASES.get(code) or HTTPStatus(code).phrase.encode("ascii")


class ResponseRequest(server.Request):
    """A request whose response is sent in few writes: the head with the body's first part, the end with its last."""

    # Every response with a body has a Content-Type.
    defaultContentType = None  # noqa: N815 - Twisted's name

    @property
    def has_ended(self) -> bool:
        """Whether the response is complete, or the client has disconnected."""
        return bool(self.finished or self._disconnected)

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:
        """Set the status, with the reason phrase registered for it."""
        super().setResponseCode(code, message or _reason_phrase(code))

    def write(self, data: bytes) -> None:
        """Send a part of the body, the first one together with the headers."""
        if self.has_ended:
            super().write(data)  # raises an error, or does nothing
        else:
            self._send(data)

    def finish_with(self, data: bytes) -> None:
        """Send the last part of the body together with the end of the response."""
        if not self.has_ended:
            self._send(data, last=True)
        self.finish()

    def _send(self, data: bytes, *, last: bool = False) -> None:
        head, end = b"" if self.startedWriting else self._begin_response(), b""
        if self.method == b"HEAD" or self.code in NO_BODY_CODES:
            data = b""
        self.sentLength += len(data)
        if self.chunked:
            if data:
                head, end = head + b"%x\r\n" % len(data), b"\r\n"
            if last:
                end += b"0\r\n\r\n"
                # Otherwise the base class sends it once more.
                self.chunked = 0
        if len(data) > _LARGE_BYTES:
            # Not joined: there may be no memory for a copy.
            for part in filter(None, (head, data, end)):
                self.channel.write(part)
        elif joined := head + data + end:
            self.channel.write(joined)

    def _begin_response(self) -> bytes:
        headers = self.responseHeaders
        if (
            self.clientproto == b"HTTP/1.1"
            and self.method != b"HEAD"
            and self.code not in NO_BODY_CODES
            and not headers.hasHeader(b"Content-Length")
        ):
            headers.setRawHeaders(b"Transfer-Encoding", [b"chunked"])
            self.chunked = 1
        self.startedWriting = 1
        lines = [b"%b %d %b\r\n" % (self.clientproto, self.code, self.code_message)]
        lines += [b"%b: %b\r\n" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        lines.append(b"\r\n")
        return b"".join(lines)
