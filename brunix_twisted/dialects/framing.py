"""The framing of JSON in a stream: Server-Sent Events, and newline-delimited JSON."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii
from typing import Any

JSON = b"application/json; charset=utf-8"
SSE = b"text/event-stream; charset=utf-8"
NDJSON = b"application/x-ndjson"

# The heartbeat in Server-Sent Events: a comment, which clients ignore.
SSE_COMMENT = b": keep-alive\n\n"
# The end of OpenAI's streams, also of those that failed.
SSE_DONE = b"data: [DONE]\n\n"

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def encode_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    r"""
    Encode a value as compact ASCII JSON.

    ASCII because some clients split a stream at every Unicode line break: an unescaped U+2028 or U+0085 in an answer
    would split their line.
    """
    # Not with msgspec, which takes a tenth of the time, but ends the process if it gets no memory for a long answer.
    return _encode(value).encode("ascii")


def encode_text(text: str) -> bytes:
    """Encode a string as JSON, as :func:`encode_json` does. It runs for each token."""
    return encode_basestring_ascii(text).encode("ascii")


def sse(data_bytes: bytes) -> bytes:
    """Frame one event. ``data_bytes`` is JSON without a line break."""
    return b"data: " + data_bytes + b"\n\n"


def sse_event(name: str, data_bytes: bytes) -> bytes:
    """Frame one event with a name. ``data_bytes`` is JSON without a line break."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data_bytes)


def ndjson(data_bytes: bytes) -> bytes:
    """Frame one line. It ends with a line break, because some clients ignore a last line without one."""
    return data_bytes + b"\n"
