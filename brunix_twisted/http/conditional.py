"""Conditional requests (RFC 9110, 13): a client that has the current response already receives 304 without a body."""

from __future__ import annotations

from hashlib import sha256
from http import HTTPStatus

from twisted.web.http import Request


def etag_of(body_bytes: bytes) -> bytes:
    """Return the strong entity tag of a body, with its quotes."""
    return b'"%b"' % sha256(body_bytes).hexdigest()[:32].encode("ascii")


def is_current(request: Request, etag: bytes, *, weak: bool = False) -> bool:
    """
    Set a response's ``ETag``; if the client has this body already, set the status 304 and return True.

    :param etag: a strong entity tag.
    :param weak: whether bodies with this tag are equivalent, but may differ in bytes.
    """
    request.setHeader(b"ETag", b"W/" + etag if weak else etag)
    # 13.1.2: weak comparison. A proxy that compresses the response makes its tag weak.
    tags = {
        tag.strip().removeprefix(b"W/")
        for line in request.requestHeaders.getRawHeaders(b"If-None-Match", ())
        for tag in line.split(b",")
    }
    current = etag in tags or b"*" in tags
    if current:
        request.setResponseCode(HTTPStatus.NOT_MODIFIED)
    return current
