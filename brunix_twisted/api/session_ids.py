"""The ids by which clients name sessions; pure."""

from __future__ import annotations

import re
from urllib.parse import unquote

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError

_SAFE_SESSION_ID = re.compile(r"[!-~]{1,256}")


def check_session_id(session_id: str) -> str:
    """
    Return a client's session id if it is safe in a log line, an HTTP header and gRPC metadata.

    Allowed are 1 to 256 printable ASCII characters, U+0021 to U+007E. Spaces are not allowed: headers lose them at the
    ends, and in a log line a space would end the id.

    :raises GatewayError: INVALID_REQUEST for any other id.
    """
    if not _SAFE_SESSION_ID.fullmatch(session_id):
        raise GatewayError(
            errors.INVALID_REQUEST,
            "Invalid value for 'session_id': it must be 1 to 256 printable ASCII characters without spaces",
            param="session_id",
        )
    return session_id


_PLACEHOLDERS = frozenset(
    {
        # A missing value as text, in the languages of clients.
        *("", "null", "(null)", "undefined", "none", "nil", "nan", "n/a", "false", "true", "unknown"),
        # What API documentation browsers put into a text field.
        "string",
    }
)
# The nil UUID, with and without hyphens.
_ZEROS = re.compile(r"0{8}-?(0{4}-?){3}0{12}")
# A variable's name that was sent instead of its value, such as {{CHAT_ID}}, chat-${session} or $CHAT_ID.
_UNFILLED = re.compile(r"\{\{.*\}\}|[$#]\{.*\}|\A(\{.*\}|<.*>|\$[a-z_]\w*|%s|%\(?[a-z_]+[%)]s?)\Z")


def is_placeholder(session_id: str) -> bool:
    """
    Return whether an id is a placeholder that names no session.

    Many clients send the same placeholder, and would share a session. Open WebUI sends ``local`` and ``local:…`` for
    every temporary chat: the first for all users, the second followed by the id of a browser's connection, or by
    ``undefined``, and the same for several chats.
    """
    # Some clients encode header values, as JSON or for a URL.
    name = unquote(session_id).lower().strip("\"'")
    parts = name.split(":")
    if parts[0] == "local" or all(part in _PLACEHOLDERS for part in parts):
        return True
    return _ZEROS.fullmatch(name) is not None or _UNFILLED.search(name) is not None
