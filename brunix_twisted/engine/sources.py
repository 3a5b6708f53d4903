"""The sources of an answer, as the embedded engine reports them in a call's trailing metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from brunix_twisted.model import Source

# The embedded engine has the same name: it shares no code with the gateway.
METADATA: Final = "brunix-sources-bin"

_MAX_SOURCES: Final = 50
_MAX_CHARACTERS: Final = 2_000
# Of an address that is not relative: clients may open it (RFC 3986, 3.1), and not only http does that.
_SCHEME: Final = re.compile(r"[\s\x00-\x20]*[A-Za-z][A-Za-z0-9+.-]*:")


def sources(trailing_metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[Source, ...]:
    """Return the sources in the metadata of a call; none for other engines, or if they are malformed."""
    for name, value in trailing_metadata or ():
        if name == METADATA:
            return _decoded(value)
    return ()


def _decoded(value: str | bytes) -> tuple[Source, ...]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(found, list):
        return ()
    return tuple(source for each in found[:_MAX_SOURCES] if (source := _source(each)) is not None)


def _source(entry: Any) -> Source | None:  # noqa: ANN401 - whatever JSON contains
    if not isinstance(entry, dict):
        return None
    texts = [entry.get("url"), entry.get("title"), entry.get("cited_text", "")]
    start, end = entry.get("start"), entry.get("end")
    if not all(isinstance(text, str) and len(text) <= _MAX_CHARACTERS and _is_unicode(text) for text in texts):
        return None
    if type(start) is not int or type(end) is not int or not 0 <= start <= end:
        return None
    url, title, cited_text = texts
    if _SCHEME.match(url) and not url.lower().startswith(("http://", "https://")):
        return None
    return Source(url, title, start, end, cited_text)


def _is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogate, which JSON can escape and UTF-8 cannot contain."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
