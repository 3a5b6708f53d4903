"""
The page at ``GET /``: its files, what is sent with each of them, and who gets the page.

The files are a fixed list, and read once. What a URL says is looked up among them and never reaches the file system.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Final

import attrs

from brunix_twisted import connect

HTML: Final = "page.html"
FILES: Final[Mapping[str, bytes]] = {
    HTML: b"text/html; charset=utf-8",
    "page.css": b"text/css; charset=utf-8",
    "mark.svg": b"image/svg+xml",
    "early.js": b"text/javascript; charset=utf-8",
    "page.js": b"text/javascript; charset=utf-8",
    "aloud.js": b"text/javascript; charset=utf-8",
    "ask.js": b"text/javascript; charset=utf-8",
    "connect.js": b"text/javascript; charset=utf-8",
    "copy.js": b"text/javascript; charset=utf-8",
    "dom.js": b"text/javascript; charset=utf-8",
    "markdown.js": b"text/javascript; charset=utf-8",
    "session.js": b"text/javascript; charset=utf-8",
    "sources.js": b"text/javascript; charset=utf-8",
    "sse.js": b"text/javascript; charset=utf-8",
    "status.js": b"text/javascript; charset=utf-8",
    "turn.js": b"text/javascript; charset=utf-8",
    "words.js": b"text/javascript; charset=utf-8",
    "vendor/markdown-it.esm.min.mjs": b"text/javascript; charset=utf-8",
}
"""Each file by its name below this folder, and its content type."""

CLIENTS: Final = "clients.json"

# Nothing from elsewhere, nothing written into the page, and no text that becomes HTML: whatever an engine may say, it
# stays words.
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

_HEADERS: Final = (
    (b"Content-Security-Policy", _POLICY),
    (b"X-Content-Type-Options", b"nosniff"),
    # Not no-referrer, with which some requests of a page name no origin either, and are refused as a stranger's.
    (b"Referrer-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    # May be kept, but is asked for each time: a newer release's page would not get along with an older one's files.
    (b"Cache-Control", b"no-cache"),
)

# Java's URLConnection says this for every program that does not say otherwise, so it tells nothing of who asks.
_OF_A_LIBRARY: Final = "text/html, image/gif, image/jpeg,"

# RFC 9110, 12.4.2; Java and others write .2 for 0.2.
_QUALITY: Final = re.compile(r"0(\.[0-9]{0,3})?|\.[0-9]{1,3}|1(\.0{0,3})?")


@attrs.frozen
class Asset:
    """A file as it is served."""

    body_bytes: bytes
    content_type: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    etag: bytes
    """Quoted, as it stands in the header."""

    def is_held(self, if_none_match: bytes | None) -> bool:
        """Whether a client that says this has the file already."""
        if if_none_match is None:
            return False
        # RFC 9110, 13.1.2: weak comparison. A proxy that compresses an answer makes its tag a weak one.
        held = {tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")}
        return self.etag in held or b"*" in held


def load() -> Mapping[str, Asset]:
    """
    Everything that is served, by its path below ``/page/``; the page itself is :data:`HTML`.

    ``clients.json`` is made from what :mod:`brunix_twisted.connect` knows.
    """
    folder = files(__name__)
    assets = {name: _asset(folder.joinpath(name).read_bytes(), kind) for name, kind in FILES.items()}
    assets[CLIENTS] = _asset(connect.clients_json(), b"application/json; charset=utf-8")
    return assets


def _asset(body_bytes: bytes, content_type: bytes) -> Asset:
    return Asset(body_bytes, content_type, _HEADERS, b'"%b"' % sha256(body_bytes).hexdigest()[:32].encode("ascii"))


def wants_page(accept: str) -> bool:
    """
    Whether an ``Accept`` header is a browser's that shows a page.

    It is when it names ``text/html`` and would rather have it than ``text/plain``, which is what everyone else gets:
    who says nothing, ``*/*``, or that JSON is wanted.
    """
    if accept.startswith(_OF_A_LIBRARY):
        return False
    qualities = dict(_ranges(accept))
    plain = next((qualities[each] for each in ("text/plain", "text/*", "*/*") if each in qualities), 0.0)
    return qualities.get("text/html", 0.0) > plain


def _ranges(accept: str) -> list[tuple[str, float]]:
    """The media ranges of a header, in lower case, each with its quality; what cannot be read counts for nothing."""
    ranges = []
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        given = next((value for value in parameters if value.startswith("q=")), "q=1")[2:]
        ranges.append((media, float(given) if _QUALITY.fullmatch(given) else 0.0))
    return ranges
