"""
The sections of ``docs/clients.md`` and ``docs/agents.md`` with each client's configuration.

Run as a script, it writes them into the pages.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from brunix_twisted.connect import Client, Snippet, clients, filled
from paths import ROOT

PAGE: Final = ROOT / "docs" / "clients.md"
AGENTS_PAGE: Final = ROOT / "docs" / "agents.md"

BEGIN: Final = "<!-- From here on written by `make docs-tables`, from brunix_twisted/connect/clients.toml. -->\n"
END: Final = "<!-- Up to here. -->\n"


def shown(client: Client, page: Path) -> bool:
    """Return whether a page shows a client: those that call a tool have their own page."""
    return (client.api == "mcp") == (page == AGENTS_PAGE)


def sections(page: Path) -> str:
    """Render a page's clients, with the defaults of all settings. Groups have headings if there are several."""
    members_of = groupby((each for each in clients() if shown(each, page)), key=lambda client: client.group)
    groups = [(group, list(members)) for group, members in members_of]
    parts: list[str] = []
    for group, members in groups:
        if len(groups) > 1:
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


def rewritten(page: Path) -> str:
    """Return the page's text with its sections as they should be."""
    between = re.compile(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", re.DOTALL)
    text = page.read_text("utf-8")
    assert between.search(text), f"{page.name} lacks the two lines around its sections"
    return between.sub(lambda _: sections(page), text)


if __name__ == "__main__":
    for each in (PAGE, AGENTS_PAGE):
        each.write_text(rewritten(each), "utf-8")
