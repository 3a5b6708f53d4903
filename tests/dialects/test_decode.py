"""A body is read as a checked value, or refused with a fault that its caller can act on."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers import body_of, bounded
from brunix_twisted import errors
from brunix_twisted.dialects.decode import Integer, decode, keys
from brunix_twisted.errors import GatewayError


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """An object inside the body."""

    kind: Literal["top", "rest"]
    text: str | list[str] | None = None


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of each sort."""

    name: str
    count: Integer | None = None
    share: float | None = None
    on: bool | None = None
    lines: list[Line] | None = None
    free: dict[str, Any] | None = None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"name":"x"}', Body(name="x")),
        (b' \r\n\t{ "name" : "x" }\n', Body(name="x")),
        (b'{"\\u006eame":"x"}', Body(name="x")),
        # An explicit null means absent.
        (b'{"name":"x","count":null,"share":null,"on":null,"lines":null,"free":null}', Body(name="x")),
        # JSON has one kind of number.
        (b'{"name":"x","count":256}', Body(name="x", count=256)),
        (b'{"name":"x","count":256.0}', Body(name="x", count=256)),
        (b'{"name":"x","count":2.56e2}', Body(name="x", count=256)),
        (b'{"name":"x","count":-0}', Body(name="x", count=0)),
        (b'{"name":"x","count":12345678901234567890123}', Body(name="x", count=12345678901234567890123.0)),
        (b'{"name":"x","share":1}', Body(name="x", share=1.0)),
        # Every character comes through, escaped or not.
        ('{"name":"é\u2028😀"}'.encode(), Body(name="é\u2028😀")),
        (b'{"name":"\\ud83d\\ude00\\u0000\\n\\""}', Body(name='😀\x00\n"')),
        (b'{"name":"x","lines":[{"kind":"top","text":["a"]}]}', Body(name="x", lines=[Line(kind="top", text=["a"])])),
        # Of a key that comes twice the last counts.
        (b'{"name":"x","on":true,"on":false,"name":"y"}', Body(name="y", on=False)),
        # What is not known is ignored, whatever it holds.
        (b'{"name":"x","more":{"count":"x","deep":[[[]]]},"mood":1e999,"NAME":5,"":null}', Body(name="x")),
        (b'{"name":"x","free":{"any":[1,null,{"a":true}]}}', Body(name="x", free={"any": [1, None, {"a": True}]})),
    ],
)  # fmt: skip
def test_bodies_are_read(body: bytes, expected: Body) -> None:
    """A client is refused, or understood to say something else, for the way in which it writes its JSON."""
    assert msgspec.to_builtins(decode(Body, body)) == msgspec.to_builtins(expected)


NO_JSON = "The body is not valid JSON"
NO_OBJECT = "The body must be a JSON object"


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"", None, NO_JSON),
        (b" \n", None, NO_JSON),
        (b"{", None, NO_JSON),
        (b'{"name":"x"', None, NO_JSON),
        (b'{"name":"x",}', None, NO_JSON),
        (b'{"name":"x"} more', None, NO_JSON),
        (b'{"name":"x"}{"name":"x"}', None, NO_JSON),
        (b"{'name':'x'}", None, NO_JSON),
        (b"{name:1}", None, NO_JSON),
        (b"name=x&count=1", None, NO_JSON),
        (b"<html>", None, NO_JSON),
        (b"[]", None, NO_OBJECT),
        (b'[{"name":"x"}]', None, NO_OBJECT),
        (b"null", None, NO_OBJECT),
        (b"1", None, NO_OBJECT),
        (b'"x"', None, NO_OBJECT),
        # Not text that JSON can hold.
        ('{"name":"x"}'.encode("utf-16"), None, NO_JSON),
        ('{"name":"x"}'.encode("utf-16-be"), None, NO_JSON),
        (b'{"name":"\xff"}', None, NO_JSON),
        (b'{"name":"\xed\xa0\x80"}', None, NO_JSON),  # a surrogate, encoded as if it were a character
        (b'{"name":"\xc0\x80"}', None, NO_JSON),
        (b'{"name":"x","more":"\xff"}', None, NO_JSON),  # also where it is ignored
        (b'{"name":"x","mor\xff":1}', None, NO_JSON),
        (b'{"name":"\\ud800"}', None, f"{NO_JSON}: \\ud800 at character 9 is a lone surrogate"),
        (b'{"name":"\\ud800 and more text"}', None, f"{NO_JSON}: \\ud800 at character 9 is a lone surrogate"),
        (b'{"name":"\\\\\\uD83D\\n"}', None, f"{NO_JSON}: \\uD83D at character 11 is a lone surrogate"),
        (b'{"name":"\\ud83d\\ude00\\udc00"}', None, f"{NO_JSON}: \\udc00 at character 21 is a lone surrogate"),
        (b'{"name":"\\ude00\\ud83d"}', None, f"{NO_JSON}: \\ude00 at character 9 is a lone surrogate"),
        # Truncated within a pair, and next to something that only looks like half a pair.
        (b'{"name":"\\ud83d', None, f"{NO_JSON}: Input data was truncated"),
        (b'{"name":"\\ud83d\\ude', None, f"{NO_JSON}: Input data was truncated"),
        (b'{"name":"\\\\ud800', None, f"{NO_JSON}: Input data was truncated"),
        (b'{"name":"a\x00b"}', None, NO_JSON),
        (b'{"name":"a\nb"}', None, NO_JSON),
        # Not numbers that JSON has, or not within reach.
        (b'{"name":"x","share":NaN}', None, NO_JSON),
        (b'{"name":"x","share":-Infinity}', None, NO_JSON),
        (b'{"name":"x","more":NaN}', None, NO_JSON),
        (b'{"name":"x","count":01}', None, NO_JSON),
        (b'{"name":"x","share":1e999}', "share", "Invalid value for 'share'"),
        (b'{"name":"x","count":' + b"9" * 5_000 + b"}", "count", "Invalid value for 'count'"),
        # Deeper than anything that is asked for.
        (b'{"name":"x","more":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "The body is nested too deeply"),
        (b'{"name":"x","free":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, None, "The body is nested too deeply"),
        (b"[" * 100_000, None, NO_OBJECT),
        (b'{"a":' * 100_000, None, "The body is nested too deeply"),
        # Not of the type.
        (b"{}", "name", "Missing required parameter: 'name'"),
        (b'{"name":null}', "name", "Missing required parameter: 'name'"),
        (b'{"name":"x","count":256.5}', "count", "Invalid value for 'count': Expected `number` that's a multiple"),
        (b'{"name":"x","count":true}', "count", "Invalid value for 'count': Expected `number | null`, got `bool`"),
        (b'{"name":"x","count":"5"}', "count", "Invalid value for 'count': Expected `number | null`, got `str`"),
        (b'{"name":"x","on":1}', "on", "Invalid value for 'on': Expected `bool | null`, got `int`"),
        (b'{"name":"x","on":"true"}', "on", "Invalid value for 'on': Expected `bool | null`, got `str`"),
        (b'{"name":"x","lines":{}}', "lines", "Invalid value for 'lines': Expected `array | null`, got `object`"),
        (b'{"name":"x","lines":[null]}', "lines[0]", "Invalid value for 'lines[0]': Expected `object`, got `null`"),
        (b'{"name":"x","lines":[{"kind":"top"},{}]}', "lines[1].kind", "Missing required parameter: 'lines[1].kind'"),
        (b'{"name":"x","lines":[{"kind":"TOP"}]}', "lines[0].kind", "Invalid value for 'lines[0].kind': Invalid enum"),
        (b'{"name":"x","lines":[{"kind":"top","text":["a",1]}]}', "lines[0].text[1]", "Invalid value for 'lines[0].te"),
        # The place is the reader's, whatever the caller writes.
        (b'{"name":"x","lines":[{"kind":"a` - at `$.name`"}]}', "lines[0].kind", "Invalid value for 'lines[0].kind'"),
    ],
)  # fmt: skip
def test_faults_are_named(body: bytes, param: str | None, message: str) -> None:
    """A caller is not told what was wrong with the body and where, or a broken body is taken for a whole one."""
    with pytest.raises(GatewayError) as caught:
        decode(Body, body)
    assert caught.value.kind is errors.INVALID_REQUEST
    assert caught.value.param == param
    assert caught.value.message.startswith(message)


def test_keys() -> None:
    """A body that was just not too deep for its own reader must not fail when its unknown parameters are listed."""
    assert keys(b'{"a":1,"b":null,"c":"null"}') == ("a", "c")
    assert keys(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}") == ()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@bounded
@given(st.dictionaries(st.sampled_from(Body.__struct_fields__) | st.text(max_size=3), values))
def test_any_json_is_read_or_refused(parameters: dict[str, object]) -> None:
    """A body that nobody thought of breaks the gateway in place of being refused."""
    try:
        body = decode(Body, body_of(**parameters))
    except GatewayError as refusal:
        fault = refusal
    else:
        assert body.name == parameters["name"]
        return
    assert fault.kind is errors.INVALID_REQUEST
    assert fault.param is not None
    assert re.split(r"[.\[]", fault.param)[0] in Body.__struct_fields__


@bounded
@given(st.binary(max_size=40))
def test_any_bytes_are_refused(body: bytes) -> None:
    """A body that is no JSON at all breaks the gateway in place of being refused."""
    with pytest.raises(GatewayError):
        decode(Body, body)
