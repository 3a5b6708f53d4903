"""Any text goes out as one line of ASCII and comes back as it was."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers import bounded
from brunix_twisted.dialects.framing import SSE_COMMENT, SSE_DONE, encode_json, ndjson, sse, sse_event
from wire import ndjson_lines, sse_comments, sse_events


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, b"{}"),
        ({"b": [1, True, None], "a": 0.5}, b'{"b":[1,true,null],"a":0.5}'),  # in the order that was given
        ("", b'""'),
        ("plain", b'"plain"'),
        ("a\nb\r\n", b'"a\\nb\\r\\n"'),
        ('"\\/', b'"\\"\\\\/"'),
        ("\x00\x1f\x7f", b'"\\u0000\\u001f\\u007f"'),
        # Each of these ends a line for some reader.
        ("\x0b\x0c\x1c\x1d\x1e", b'"\\u000b\\f\\u001c\\u001d\\u001e"'),
        ("\u0085\u2028\u2029", b'"\\u0085\\u2028\\u2029"'),
        ("é", b'"\\u00e9"'),
        ("😀", b'"\\ud83d\\ude00"'),
    ],
)
def test_json(value: object, expected: bytes) -> None:
    """An answer with an unusual character in it is cut in two, or reads differently from what the engine said."""
    assert encode_json(value) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_is_not_written(value: float) -> None:
    """A client's JSON reader fails on NaN, which no standard allows."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_json({"value": value})


def test_frames() -> None:
    """A client waits for the end of an event that has been sent, or drops a last line that did not end."""
    assert sse(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert sse_event("ping", b'{"a":1}') == b'event: ping\ndata: {"a":1}\n\n'
    assert ndjson(b'{"a":1}') == b'{"a":1}\n'
    assert SSE_DONE == b"data: [DONE]\n\n"


def test_a_comment_is_no_event() -> None:
    """A heartbeat shows up as a piece of the answer, or ends the stream."""
    body = sse(b"{}") + SSE_COMMENT + sse(b"{}") + SSE_DONE
    assert sse_events(body) == [{}, {}]
    assert sse_comments(body) == ["keep-alive"]


@bounded
@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_comes_back(texts: list[str]) -> None:
    """An answer loses or gains characters, or falls apart, on its way through a stream."""
    values = [{"text": text} for text in texts]
    assert ndjson_lines(b"".join(ndjson(encode_json(value)) for value in values)) == values
    assert sse_events(b"".join(sse(encode_json(value)) for value in values) + SSE_DONE) == values
