"""The state of the caller's editor, sent by an IDE extension in the ``user`` field of a chat completion."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import EditorContext

_TEXTS = ("editor_content", "selected_text", "extra_context")
_FIELDS = {*_TEXTS, "user_info"}
_NO_CONTEXT = EditorContext()


def read_editor(user: str | None) -> EditorContext:
    """
    Read the editor's fields from ``user``.

    A JSON object with at least one of the fields is the editor's state. Any other value is an end user's id, and
    ignored. The texts stay in base64; ``user_info`` may be an object, or a text with one.

    :raises GatewayError: INVALID_REQUEST for an invalid field; ``param`` is ``user.`` and its name.
    """
    fields = _object(user) if user else None
    if fields is None or not _FIELDS & fields.keys():
        return _NO_CONTEXT
    return EditorContext(
        **{name: _text(name, fields.get(name)) for name in _TEXTS}, user_info=_user_info(fields.get("user_info"))
    )


def ignored_user(user: str | None) -> tuple[str, ...]:
    """Return ``user`` if it seems to contain the editor's fields, but has no effect because it is not valid JSON."""
    if not user or not user.lstrip().startswith("{"):
        return ()
    is_attempt = any(f'"{field}"' in user for field in _FIELDS)
    return ("user",) if is_attempt and _object(user) is None else ()


def _object(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return None


def _text(name: str, value: object) -> str | None:
    if value is None:
        return None
    try:
        base64.b64decode(value, validate=True).decode()  # type: ignore[arg-type]  # raises TypeError unless it is a string
    except (binascii.Error, TypeError, ValueError):
        raise _malformed(name, "base64 of UTF-8 text") from None
    return str(value)


def _user_info(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and _object(value) is not None:
        return value
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    raise _malformed("user_info", "a JSON object, or a text with one")


def _malformed(name: str, expected: str) -> GatewayError:
    param = f"user.{name}"
    return GatewayError(errors.INVALID_REQUEST, f"Invalid value for '{param}': it must be {expected}", param=param)
