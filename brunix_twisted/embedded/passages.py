"""Split documents into passages, which are found, quoted and cited."""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

import attrs

from brunix_twisted.embedded.blocks import Block, Section
from brunix_twisted.embedded.documents import Document, Unit

# A longer section becomes several passages, split between blocks. In a long passage, a good sentence is hard to find; a
# short one lacks context.
MAX_PASSAGE_CHARACTERS: Final = 1200

# Characters that GitHub and most other Markdown renderers remove from a heading's anchor.
_NOT_IN_ANCHOR: Final = re.compile(r"[^\w\- ]")


@attrs.frozen
class Place:
    """The document and the headings of a passage. They stay the same when the documents are read again."""

    source: str
    headings: tuple[str, ...]


@attrs.frozen
class Passage:
    """Some blocks under one heading of one document. Lines count from 1; the last line is included.

    For a PDF, lines are pages, and for a Word file paragraphs: ``unit`` says so.
    """

    source: str
    title: str
    headings: tuple[str, ...]
    first_line: int
    last_line: int
    blocks: tuple[Block, ...]
    unit: Unit = "line"

    @property
    def body(self) -> str:
        """Its text without headings."""
        return "\n".join(block.content for block in self.blocks)

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.source, self.headings)

    @property
    def anchors(self) -> frozenset[str]:
        """The anchors of its heading and of the headings above, as on a rendered page."""
        return frozenset(anchor(heading) for heading in self.headings)


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as a link to it uses."""
    return _NOT_IN_ANCHOR.sub("", heading.strip().lower()).replace(" ", "-")


def passages_of(document: Document) -> tuple[Passage, ...]:
    """Split a document into passages, in order; skip sections without text."""
    title = next(
        (section.headings[0] for section in document.sections if section.headings),
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
            unit=document.unit,
        )
        for section in document.sections
        for blocks in _pack(section)
    )


def passages_of_all(documents: Iterable[Document]) -> tuple[Passage, ...]:
    """Split documents into passages, in order."""
    return tuple(passage for document in documents for passage in passages_of(document))


def _pack(section: Section) -> Iterator[tuple[Block, ...]]:
    """Pack a section's blocks into passages. A block that a colon introduces stays with its introduction.

    The rows of a table stay together and do not count towards the length, because each row is searched separately.
    """
    packed: list[Block] = []
    length = 0
    for block in section.blocks:
        size = 0 if block.kind == "row" else len(block.content)
        introduced = bool(packed) and packed[-1].text.endswith(":")
        if packed and not introduced and length + size > MAX_PASSAGE_CHARACTERS:
            yield tuple(packed)
            packed, length = [], 0
        packed.append(block)
        length += size
    if packed:
        yield tuple(packed)
