"""The allowed values of a request's Origin header: the web pages that may use the gateway. Pure."""

from __future__ import annotations

import re

import attrs

# The same as Ollama's: pages from this machine, and desktop applications based on a browser.
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
        """Return whether pages of this origin may use the gateway."""
        return self._expression.fullmatch(origin.lower()) is not None


def read(text: str) -> Origins:
    """
    Parse patterns separated by commas.

    ``*`` matches every origin; ``https://example.com`` matches this one; ``https://example.com:*`` matches any port or
    none; ``https://*.example.com`` matches every subdomain; ``app://*`` matches every origin of this scheme.

    :raises ValueError: a pattern has another form.
    """
    patterns = tuple(pattern.strip().lower() for pattern in text.split(",") if pattern.strip())
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(pattern)
    return Origins(patterns, re.compile("|".join(map(_expression, patterns)) or "(?!)"))


def _expression(pattern: str) -> str:
    # A wildcard matches only characters that an origin may contain: no line break, and no "#" that hides another host.
    if pattern == "*":
        return "[!-~]*"
    scheme, _, rest = pattern.partition("://")
    if rest == "*":
        return f"{re.escape(scheme)}://[!-~]*"
    host, any_port, _ = rest.partition(":*") if rest.endswith(":*") else (rest, "", "")
    below = r"[a-z0-9_.-]+\." if host.startswith("*.") else ""
    return f"{re.escape(scheme)}://{below}{re.escape(host.removeprefix('*.'))}" + ("(:[0-9]+)?" if any_port else "")
