"""Which web pages may use the gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers import bounded
from brunix_twisted.config import cors_origins

ALLOWED = [
    # What Ollama allows, and so what its clients in browsers expect.
    *(
        (cors_origins.DEFAULT, origin)
        for scheme in ("http", "https")
        for host in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0")  # noqa: S104 - an origin's host, nothing is bound
        for origin in (f"{scheme}://{host}", f"{scheme}://{host}:1", f"{scheme}://{host}:65535")
    ),
    (cors_origins.DEFAULT, "app://obsidian.md"),
    (cors_origins.DEFAULT, "app://."),
    (cors_origins.DEFAULT, "file://"),
    (cors_origins.DEFAULT, "tauri://localhost"),
    (cors_origins.DEFAULT, "vscode-webview://0f1e2d3c4b5a"),
    (cors_origins.DEFAULT, "vscode-file://vscode-app"),
    # Each kind of pattern.
    ("https://chat.example", "https://chat.example"),
    ("https://chat.example:8443", "https://chat.example:8443"),
    ("https://chat.example:*", "https://chat.example"),
    ("https://chat.example:*", "https://chat.example:8443"),
    ("http://[fe80::1]:3000", "http://[fe80::1]:3000"),
    ("https://*.example.com", "https://a.example.com"),
    ("https://*.example.com", "https://a.b-c.example.com"),
    ("https://*.example.com:*", "https://a.example.com:8443"),
    ("https://*.example.com:8443", "https://a.example.com:8443"),
    ("chrome-extension://*", "chrome-extension://abcdefghijklmnop"),
    ("https://*", "https://whoever.example:1"),
    ("*", "https://whoever.example:1"),
    ("*", "null"),
    # Case, spaces around a comma, empty places, and any of several.
    ("HTTPS://Chat.Example", "https://chat.example"),
    ("https://chat.example", "HTTPS://CHAT.EXAMPLE"),
    (" https://a.example , ,https://b.example,", "https://b.example"),
]

REFUSED = [
    (cors_origins.DEFAULT, "http://localhost.evil.com"),
    (cors_origins.DEFAULT, "http://evil.com#localhost"),
    (cors_origins.DEFAULT, "http://evil.com/localhost"),
    (cors_origins.DEFAULT, "http://localhost:80@evil.com"),
    (cors_origins.DEFAULT, "http://localhost@evil.com"),
    (cors_origins.DEFAULT, "http://localhost:80.evil.com"),
    (cors_origins.DEFAULT, "http://localhost:"),
    (cors_origins.DEFAULT, "http://localhost:80/"),
    (cors_origins.DEFAULT, "http://localhost:x"),
    (cors_origins.DEFAULT, "http://evil-localhost"),
    (cors_origins.DEFAULT, "http://evil.localhost"),
    (cors_origins.DEFAULT, "http://127x0x0x1"),
    (cors_origins.DEFAULT, "http://127.0.0.10"),
    (cors_origins.DEFAULT, "ftp://localhost"),
    (cors_origins.DEFAULT, "xhttp://localhost"),
    (cors_origins.DEFAULT, "xapp://obsidian.md"),
    (cors_origins.DEFAULT, "https://app://obsidian.md"),
    (cors_origins.DEFAULT, "localhost"),
    (cors_origins.DEFAULT, "null"),
    (cors_origins.DEFAULT, ""),
    (cors_origins.DEFAULT, "*"),
    (cors_origins.DEFAULT, "http://localhost http://evil.com"),
    (cors_origins.DEFAULT, "http://localhost,http://evil.com"),
    ("https://chat.example", "http://chat.example"),
    ("https://chat.example", "https://chat.example:8443"),
    ("https://chat.example:8443", "https://chat.example"),
    ("https://chat.example:8443", "https://chat.example:84430"),
    ("https://chat.example", "https://chatxexample"),
    ("https://*.example.com", "https://xexample.com"),
    ("https://*.example.com", "https://example.com"),
    ("https://*.example.com", "https://.example.com"),
    ("https://*.example.com", "https://a.example.com:8443"),
    ("https://*.example.com", "https://a.example.com.evil.com"),
    ("https://*.example.com", "https://evil.com/.example.com"),
    ("https://*.example.com", "https://evil.com#.example.com"),
    ("https://*.example.com", "https://evil.com?.example.com"),
    ("https://*.example.com", "https://evil.com:80.example.com"),
    ("https://*.example.com", "https://evil.com\\.example.com"),
    ("https://*.example.com", "https://a@b.example.com"),
    ("https://*.example.com", "https://a b.example.com"),
    ("", "http://localhost"),
    ("", ""),
    (" , ", "http://localhost"),
]


@pytest.mark.parametrize(("patterns", "origin"), ALLOWED)
def test_allowed(patterns: str, origin: str) -> None:
    """A page that the operator, or Ollama, lets in would be told that the server cannot be reached."""
    assert cors_origins.read(patterns).allow(origin)


@pytest.mark.parametrize(("patterns", "origin"), REFUSED)
def test_refused(patterns: str, origin: str) -> None:
    """A page from anywhere in the web could ask the company's engine by way of a visitor's browser."""
    assert not cors_origins.read(patterns).allow(origin)


PATTERNS = ["*", "app://*", "https://*.example.com", "https://*.example.com:*", "https://a.example.com:*"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("unseen", ["\n", "\r", "\x00", "\t", " ", "\u2028", "é"])
def test_unseen_characters(pattern: str, unseen: str) -> None:
    """A page could write a header or a log line of its own by way of the origin that is sent back to it."""
    allowed = cors_origins.read(pattern)
    origin = f"{pattern.partition('://')[0]}://a.example.com" if pattern != "*" else "https://a.example.com"
    assert allowed.allow(origin)
    for place in range(len(origin) + 1):
        assert not allowed.allow(origin[:place] + unseen + origin[place:])


@bounded
@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=12))
def test_below_a_host(prefix: str) -> None:
    """Some name before the operator's own host would let a page of another host in."""
    if cors_origins.read("https://*.example.com").allow(f"https://{prefix}example.com"):
        assert prefix.endswith(".")
        assert not set(prefix.lower()) - set("abcdefghijklmnopqrstuvwxyz0123456789-_.")


@pytest.mark.parametrize(
    "pattern",
    [
        "localhost",
        "localhost:3000",
        "https://",
        "https://chat.example/",
        "https://chat.example/path",
        "https://user@chat.example",
        "https://chat.example:",
        "https://chat.example:port",
        "https://chat.example:123456",
        "https://chat.*",
        "https://chat*.example",
        "https://*.*.example",
        "https://*example",
        "https://*:8443",
        "*://chat.example",
        "https:chat.example",
        "https://chat example",
        "https://chat\n.example",
        "https://(chat|evil).example",
        "**",
        "null",
        "[::1]",
        "http://::1",
        "https://chat.example;https://b.example",
    ],
)
def test_malformed_pattern(pattern: str) -> None:
    """An operator's typing mistake would let in nobody, or everybody, without a word."""
    with pytest.raises(ValueError, match=r".") as caught:
        cors_origins.read(f"https://good.example,{pattern}")
    assert str(caught.value) == pattern


def test_patterns_are_told() -> None:
    """An operator could not see what the setting was read as."""
    assert cors_origins.read("https://A.example, *").patterns == ("https://a.example", "*")


@pytest.mark.parametrize(
    ("pattern", "origin", "other"),
    [
        ("https://a.example", "https://a.example", "https://axexample"),
        ("https://*.a.example", "https://b.a.example", "https://b.axexample"),
        ("app+x://*", "app+x://y", "appppx://y"),
    ],
)
def test_pattern_is_no_regular_expression(pattern: str, origin: str, other: str) -> None:
    """A dot or a plus in an operator's pattern would let in hosts that only resemble it."""
    assert cors_origins.read(pattern).allow(origin)
    assert not cors_origins.read(pattern).allow(other)
