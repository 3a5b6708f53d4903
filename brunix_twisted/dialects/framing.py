"""How pieces of JSON follow one another on the wire: Server-Sent Events, and JSON one object a line."""

from __future__ import annotations

import json
from typing import Any

JSON = b"application/json; charset=utf-8"
SSE = b"text/event-stream; charset=utf-8"
NDJSON = b"application/x-ndjson"

# A heartbeat for Server-Sent Events: a comment line, which carries no event.
SSE_COMMENT = b": keep-alive\n\n"
# How OpenAI's streams end, whether or not they failed.
SSE_DONE = b"data: [DONE]\n\n"

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def encode_json(value: Any) -> bytes:  # noqa: ANN401 - whatever JSON can say
    r"""
    Write a value as compact ASCII JSON.

    ASCII because some clients split a stream at every Unicode line break: a raw U+2028 or U+0085 in an answer would
    cut their line in two. Escaped as ``\u2028`` it means the same and breaks nothing.
    """
    return _encode(value).encode("ascii")


def sse(data_bytes: bytes) -> bytes:
    """One event. ``data_bytes`` is JSON without a line break."""
    return b"data: " + data_bytes + b"\n\n"


def sse_event(name: str, data_bytes: bytes) -> bytes:
    """One event that has a name. ``data_bytes`` is JSON without a line break."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data_bytes)


def ndjson(data_bytes: bytes) -> bytes:
    """One line. Some clients drop a last line that does not end."""
    return data_bytes + b"\n"
