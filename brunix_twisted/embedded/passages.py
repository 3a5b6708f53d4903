"""Cutting documents into passages: what is found, and what an answer quotes and cites."""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

import attrs

from brunix_twisted.embedded.blocks import Block, Section, markdown_sections, text_sections
from brunix_twisted.embedded.documents import Document

# A section longer than this, in characters, becomes several passages, cut between blocks. Long passages drown a good
# sentence; short ones lose the context that its words are found by.
LONGEST_PASSAGE: Final = 1200

# What GitHub and most other renderers of Markdown leave out of a heading's anchor.
_NOT_IN_ANCHOR: Final = re.compile(r"[^\w\- ]")


@attrs.frozen
class Passage:
    """Some blocks under one heading of one document. Lines count from 1, the last included."""

    source: str
    title: str
    headings: tuple[str, ...]
    first_line: int
    last_line: int
    blocks: tuple[Block, ...]

    @property
    def body(self) -> str:
        """What it says, without its headings."""
        return "\n".join(block.content for block in self.blocks)

    @property
    def anchors(self) -> frozenset[str]:
        """The anchors of its heading and of those above it, as a web page of the document would have them."""
        return frozenset(anchor(heading) for heading in self.headings)


def anchor(heading: str) -> str:
    """Turn a heading into the name that a link to it uses."""
    return _NOT_IN_ANCHOR.sub("", heading.strip().lower()).replace(" ", "-")


def passages_of(document: Document) -> tuple[Passage, ...]:
    """Cut one document into passages, in its order; a section with nothing but its heading gives none."""
    sections = tuple(markdown_sections(document.lines) if document.is_markdown else text_sections(document.lines))
    title = next(
        (section.headings[0] for section in sections if section.headings),
        PurePosixPath(document.source).stem.replace("-", " ").replace("_", " "),
    )
    return tuple(
        Passage(
            source=document.source,
            title=title,
            headings=section.headings,
            first_line=blocks[0].first_line,
            last_line=blocks[-1].last_line,
            blocks=blocks,
        )
        for section in sections
        for blocks in _cut(section)
    )


def passages_of_all(documents: Iterable[Document]) -> tuple[Passage, ...]:
    """Cut every document into passages, in their order."""
    return tuple(passage for document in documents for passage in passages_of(document))


def _cut(section: Section) -> Iterator[tuple[Block, ...]]:
    """Pack a section's blocks into passages. What a colon announces stays with the announcement.

    The rows of a table stay together, and count nothing: each is searched alone.
    """
    packed: list[Block] = []
    length = 0
    for block in section.blocks:
        size = 0 if block.kind == "row" else len(block.content)
        announced = bool(packed) and packed[-1].text.endswith(":")
        if packed and not announced and length + size > LONGEST_PASSAGE:
            yield tuple(packed)
            packed, length = [], 0
        packed.append(block)
        length += size
    if packed:
        yield tuple(packed)
