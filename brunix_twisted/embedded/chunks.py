"""The chunks of a passage, which are searched and ranked, and its segments, which are quoted."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Final

import attrs

from brunix_twisted.embedded.blocks import Block
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.tokenizer import stems, words

# How often a term in the headings counts, and a term that occurs only in code. An example contains the words of many
# questions and states no fact.
_HEADING_WEIGHT: Final = 2
_CODE_WEIGHT: Final = 0.2

# A sentence ends at a full stop, with the quote or bracket that closes there, before white space and a new beginning.
# Common abbreviations in technical prose do not end a sentence.
_SENTENCE_END: Final = re.compile(
    r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bcf\.)(?<!\bvs\.)(?:(?<=[.!?])|(?<=[.!?][)\"'”’*_]))\s+(?=[^a-z\s])"  # noqa: RUF001 - a typeset quotation ends with it
)

_LINK_TARGET: Final = re.compile(r"(?<=\])\([^()\s]*")


@attrs.frozen
class Segment:
    """The smallest text that an answer quotes: a sentence, a list item, a piece of code or a table row.

    ``position`` counts the segments of a passage from 0. ``frequencies`` maps each term to how often it counts.
    """

    position: int
    block: Block
    text: str
    frequencies: Mapping[str, float]


@attrs.frozen
class Chunk:
    """The text that is searched and ranked as one: a passage without its table rows, or one row."""

    passage: Passage
    row: Block | None = None

    @property
    def headings(self) -> str:
        """The headings above it, or else the document's title; and the header of its table."""
        return "\n".join((*(self.passage.headings or (self.passage.title,)), self.row.header if self.row else ""))

    @property
    def prose(self) -> str:
        """Its text without code."""
        return without_targets(self.row.content if self.row else self._text("prose", "item"))

    @property
    def code(self) -> str:
        """The code in it."""
        return "" if self.row else self._text("code")

    @property
    def text(self) -> str:
        """Everything that is searched."""
        return f"{self.headings}\n{self.prose}\n{self.code}"

    def has(self, block: Block) -> bool:
        """Return whether a block of its passage belongs to it."""
        return block is self.row if self.row else block.kind != "row"

    def _text(self, *kinds: str) -> str:
        return "\n".join(block.content for block in self.passage.blocks if block.kind in kinds)


@attrs.define(slots=False, eq=False)  # cached_property stores its value in the instance's dictionary
class IndexedChunk:
    """A chunk, with its segments and term frequencies computed on first use.

    Every thread computes the same value, so no lock is needed.
    """

    number: int
    chunk: Chunk

    @cached_property
    def passage_segments(self) -> tuple[Segment, ...]:
        """All segments of its passage, in order."""
        return segments_of(self.chunk.passage)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of the chunk itself, in order."""
        return tuple(segment for segment in self.passage_segments if self.chunk.has(segment.block))

    @cached_property
    def heading_terms(self) -> Mapping[str, float]:
        """Term frequencies of the lowest heading above it, or else of the document's title."""
        passage = self.chunk.passage
        return frequencies(passage.headings[-1] if passage.headings else passage.title)

    @cached_property
    def path_terms(self) -> Mapping[str, float]:
        """Term frequencies of its heading and of those above it."""
        return frequencies("\n".join(self.chunk.passage.headings))

    @cached_property
    def sentence_terms(self) -> tuple[Mapping[str, float], ...]:
        """Term frequencies of each sentence, list item or piece of code, with its heading; of a row with its header."""
        if self.chunk.row:
            return (frequencies(f"{self.chunk.row.header}\n{self.chunk.prose}"),)
        return tuple({**self.heading_terms, **segment.frequencies} for segment in self.segments)

    @cached_property
    def frequencies(self) -> dict[str, float]:
        """How often each term counts."""
        return frequencies(self.chunk.prose, self.chunk.code, self.chunk.headings)

    @cached_property
    def length(self) -> int:
        """Number of words. Used first, it stems all words of the chunk in one query to SQLite."""
        return len(stems(self.chunk.text))


def chunks_of(passage: Passage) -> Iterator[Chunk]:
    """Split a passage into chunks: the text without tables, then each table row."""
    if any(block.kind != "row" for block in passage.blocks):
        yield Chunk(passage)
    for block in passage.blocks:
        if block.kind == "row":
            yield Chunk(passage, block)


def vocabulary_of(chunks: Iterable[Chunk]) -> set[str]:
    """Return all words in chunks."""
    return {word for chunk in chunks for word in words(chunk.text)}


def segments_of(passage: Passage) -> tuple[Segment, ...]:
    """Split a passage into segments: prose into sentences, every other block whole."""
    quotable = [
        (block, text)
        for block in passage.blocks
        for text in (sentences(block.text) if block.kind == "prose" else [block.text])
    ]
    # Count the terms of code without its fence: the name of the language is not part of the code.
    return tuple(
        Segment(
            position,
            block,
            text,
            frequencies(code=block.content) if block.kind == "code" else frequencies(without_targets(text)),
        )
        for position, (block, text) in enumerate(quotable)
    )


def without_targets(markdown: str) -> str:
    """Return a text without the addresses of its links, whose words say little."""
    return _LINK_TARGET.sub("(", markdown)


def frequencies(prose: str = "", code: str = "", headings: str = "") -> dict[str, float]:
    """Count the terms of a text. A term that occurs only in code counts 0.2, however often it occurs."""
    counts = Counter(stems(prose) + stems(headings) * _HEADING_WEIGHT)
    return dict.fromkeys(stems(code), _CODE_WEIGHT) | counts


def sentences(text: str) -> list[str]:
    """Split a paragraph into sentences. Joined with spaces they are the paragraph, except for white space."""
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    pieces = [text[start:end].strip() for start, end in pairwise(ends)]
    joined: list[str] = []
    for piece in filter(None, pieces):
        # A full stop inside a code span does not end a sentence.
        if joined and joined[-1].count("`") % 2:
            joined[-1] += " " + piece
        else:
            joined.append(piece)
    return joined
