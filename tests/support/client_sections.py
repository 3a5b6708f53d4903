"""
The sections of ``docs/clients.md`` that say what each client is told, made from the clients' own data.

Run as a script, it writes them into the page.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from brunix_twisted.connect import Client, Snippet, clients, filled
from paths import ROOT

PAGE: Final = ROOT / "docs" / "clients.md"

BEGIN: Final = "<!-- From here on written by `make docs-tables`, from brunix_twisted/connect/clients.toml. -->\n"
END: Final = "<!-- Up to here. -->\n"


def sections() -> str:
    """Render every client, by groups, as an installation with all settings at their defaults would have it."""
    parts: list[str] = []
    for group, members in groupby(clients(), key=lambda client: client.group):
        parts.append(f"## {group}")
        for client in members:
            parts += section(filled(client, "http://127.0.0.1:8000", "brunix"))
    return "\n\n".join(["", *parts, ""])[1:]


def section(client: Client) -> Iterator[str]:
    """Render one client's parts: its heading, its texts and what else is to be known."""
    yield f"### {client.name}"
    yield f"`brunix connect {client.id}`. " + (f"Tried: {client.tested}." if client.tested else "Not tested.")
    for snippet in client.snippets:
        if said := introduction(snippet):
            yield wrapped(said)
        yield f"```{snippet.language}\n{snippet.code}```"
    if client.note:
        yield wrapped(client.note)


def introduction(snippet: Snippet) -> str:
    """Say what is to be said before a text, on one line."""
    return " ".join(filter(None, (snippet.note, f"In `{snippet.file}`:" if snippet.file else "")))


def wrapped(paragraph: str) -> str:
    """Break a paragraph into lines as the other pages have them, but not within code."""
    whole = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", "\0"), paragraph)
    return textwrap.fill(whole, 120, break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def rewritten(page: str) -> str:
    """Put the sections in place of those in the page."""
    between = re.compile(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", re.DOTALL)
    assert between.search(page), "the page lacks the two lines that its sections stand between"
    return between.sub(lambda _: sections(), page)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
