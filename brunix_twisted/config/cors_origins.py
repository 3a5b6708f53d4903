"""Which web pages may use the gateway: a request's Origin header against what the operator allows. Pure."""

from __future__ import annotations

import re

import attrs

# Ollama's own list: pages of this machine itself, and applications that are made of web pages.
DEFAULT = (
    "http://localhost:*,https://localhost:*,http://127.0.0.1:*,https://127.0.0.1:*,http://[::1]:*,https://[::1]:*,"
    "http://0.0.0.0:*,https://0.0.0.0:*,app://*,file://*,tauri://*,vscode-webview://*,vscode-file://*"
)

_PATTERN = re.compile(r"\*|[a-z][a-z0-9+.-]*://(\*|(\*\.)?([a-z0-9_.-]+|\[[0-9a-f:]+\])(:(\*|[0-9]{1,5}))?)")


@attrs.frozen
class Origins:
    """Patterns of origins; see :func:`read`."""

    patterns: tuple[str, ...]
    _expression: re.Pattern[str]

    def allow(self, origin: str) -> bool:
        """Whether a page of this origin may use the gateway."""
        return self._expression.fullmatch(origin.lower()) is not None


def read(text: str) -> Origins:
    """
    Patterns separated by commas.

    ``*`` is every origin; ``https://example.com`` is this one; ``https://example.com:*`` is it with any port or none;
    ``https://*.example.com`` is every host below it; ``app://*`` is everything of this scheme.

    :raises ValueError: one of them is none of these.
    """
    patterns = tuple(pattern.strip().lower() for pattern in text.split(",") if pattern.strip())
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(pattern)
    return Origins(patterns, re.compile("|".join(map(_expression, patterns)) or "(?!)"))


def _expression(pattern: str) -> str:
    # What stands for anything stands for what an origin is made of, and neither for a line break nor for a "#" behind
    # which another host may hide.
    if pattern == "*":
        return "[!-~]*"
    scheme, _, rest = pattern.partition("://")
    if rest == "*":
        return f"{re.escape(scheme)}://[!-~]*"
    host, any_port, _ = rest.partition(":*") if rest.endswith(":*") else (rest, "", "")
    below = r"[a-z0-9_.-]+\." if host.startswith("*.") else ""
    return f"{re.escape(scheme)}://{below}{re.escape(host.removeprefix('*.'))}" + ("(:[0-9]+)?" if any_port else "")
