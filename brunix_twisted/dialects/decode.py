"""A request's body as a checked value, or the fault that its caller can act on."""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import attrs
import msgspec

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError

T = TypeVar("T", bound=attrs.AttrsInstance)

Integer = Annotated[float, msgspec.Meta(multiple_of=1)]
"""
A whole number. JSON has one kind of number, and clients written in JavaScript or Lua send ``256.0`` for 256: both are
the same value, unlike 256.5.
"""


class Element(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    What a body may have very many of: a message, or a part of one.

    Reading it takes a seventh of the time that an attrs class takes, in which no other thread runs. ``gc=False`` keeps
    the garbage collector from going through all of them; JSON has no cycles.
    """


# msgspec's messages end in the path of the fault, as in: Expected `str`, got `int` - at `$.messages[0].content`
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
# A pair of surrogates, half a pair that is followed by something else, or any other escape.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})(?!\\?u?[0-9a-fA-F]{0,4}\Z)"
    r"|\\.",
    re.DOTALL,
)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
_NULL = re.compile(r"Expected `[^`]+`, got `null`")


def decode(body_type: type[T], body_bytes: bytes) -> T:
    """
    Read a JSON body, whatever Content-Type it came with.

    An explicit null is the same as an absent key for every field that ``body_type`` gives the default None. Keys that
    ``body_type`` does not have are ignored. Of a key that comes twice the last counts.

    :raises GatewayError: INVALID_REQUEST for anything that is not JSON, or not of this type; ``param`` is the path of
        the value at fault.
    """
    try:
        # As text, for the decoder of bytes looks at the encoding only of what it keeps.
        return _decoder(body_type).decode(body_bytes.decode("utf-8"))
    except msgspec.ValidationError as fault:
        raise _invalid(str(fault)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        reason = _lone_surrogate(body_bytes) or fault
        raise GatewayError(errors.INVALID_REQUEST, f"The body is not valid JSON: {reason}") from None
    except RecursionError:
        raise GatewayError(errors.INVALID_REQUEST, "The body is nested too deeply") from None


def keys(body_bytes: bytes) -> tuple[str, ...]:
    """List the keys of a body that has been decoded, and so is a JSON object; those that hold null count as absent."""
    try:
        return tuple(key for key, value in _keys.decode(body_bytes).items() if bytes(value) != b"null")
    except RecursionError:  # it was just not deep enough for the first reader, which had more of the stack left
        return ()


def _lone_surrogate(body_bytes: bytes) -> str | None:
    """Name half a surrogate pair, which the decoder reports as a body that was truncated, or not at all."""
    for escape in _ESCAPE.finditer(body_bytes.decode("utf-8", errors="replace")):
        if lone := escape["lone"]:
            return f"{lone} at character {escape.start()} is one half of a surrogate pair without the other"
    return None


_keys = msgspec.json.Decoder(dict[str, msgspec.Raw])
_decoders: dict[type, msgspec.json.Decoder[attrs.AttrsInstance]] = {}


def _decoder(body_type: type[T]) -> msgspec.json.Decoder[T]:
    """Made once for a type: making one walks all of the type's annotations."""
    if body_type not in _decoders:
        _decoders[body_type] = msgspec.json.Decoder(body_type)
    return _decoders[body_type]  # type: ignore[return-value]  # the key is the value's type


def _invalid(fault: str) -> GatewayError:
    place = _PATH.search(fault)
    path = place["path"] if place else ""
    # JSON knows numbers, and this reader takes them all as float.
    reason = fault[: place.start() if place else None].replace("`float", "`number")
    missing = _MISSING.match(reason)
    if missing:
        path = f"{path}.{missing['name']}" if path else missing["name"]
    # A parameter sent as null counts as absent; an element of a list does not.
    if missing or (path and not path.endswith("]") and _NULL.fullmatch(reason)):
        return GatewayError(errors.INVALID_REQUEST, f"Missing required parameter: '{path}'", param=path)
    if not path:
        return GatewayError(errors.INVALID_REQUEST, f"The body must be a JSON object: {reason}")
    return GatewayError(errors.INVALID_REQUEST, f"Invalid value for '{path}': {reason}", param=path)
