"""The parts of a passage that are searched and weighed alone, and the units that an answer quotes of it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Final

import attrs

from brunix_twisted.embedded.blocks import Block
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.tokenizer import stems

# How often a word in the headings counts, and one that stands only in code. An example has the words of many questions,
# and states no fact.
_IN_HEADINGS: Final = 2
_IN_CODE: Final = 0.2

# A sentence ends at its stop, with the quote or bracket that closes there, before white space and a new beginning. The
# abbreviations that are common in technical prose end none.
_SENTENCE_END: Final = re.compile(
    r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bcf\.)(?<!\bvs\.)(?:(?<=[.!?])|(?<=[.!?][)\"'”’*_]))\s+(?=[^a-z\s])"  # noqa: RUF001 - a typeset quotation ends with it
)


@attrs.frozen
class Unit:
    """The least that an answer quotes: a sentence, a list item, a piece of code or a row of a table.

    ``place`` counts the units of a passage from 0; ``frequencies`` is how often each of its words counts.
    """

    place: int
    block: Block
    text: str
    frequencies: Mapping[str, float]


@attrs.frozen
class Part:
    """What is searched and weighed alone: a passage without its tables, or one row of them."""

    passage: Passage
    row: Block | None = None

    @property
    def headings(self) -> str:
        """What stands above it: the headings, or the title where there is none, and the head of its table."""
        return "\n".join((*(self.passage.headings or (self.passage.title,)), self.row.head if self.row else ""))

    @property
    def prose(self) -> str:
        """What it says, but for code."""
        return self.row.content if self.row else self._text("prose", "item")

    @property
    def code(self) -> str:
        """The code in it."""
        return "" if self.row else self._text("code")

    def has(self, block: Block) -> bool:
        """Tell whether a block of its passage belongs to it."""
        return block is self.row if self.row else block.kind != "row"

    def _text(self, *kinds: str) -> str:
        return "\n".join(block.content for block in self.passage.blocks if block.kind in kinds)


@attrs.define(slots=False, eq=False)  # cached_property keeps what it has computed in the instance's dictionary
class Entry:
    """A part with its words. What is computed late is computed alike by any thread, so that none needs a lock."""

    number: int
    part: Part

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """What can be quoted of its passage, in the passage's order."""
        return units_of(self.part.passage)

    @cached_property
    def own_units(self) -> tuple[Unit, ...]:
        """What can be quoted of the part itself."""
        return tuple(unit for unit in self.units if self.part.has(unit.block))

    @cached_property
    def spoken(self) -> tuple[Mapping[str, float], ...]:
        """How often each word counts in what is said in one breath: a sentence, an item, or a row under its head."""
        if self.part.row:
            return (frequencies(f"{self.part.row.head}\n{self.part.row.content}"),)
        return tuple(unit.frequencies for unit in self.own_units)

    @cached_property
    def frequencies(self) -> dict[str, float]:
        """How often each of its words counts."""
        return frequencies(self.part.prose, self.part.code, self.part.headings)

    @cached_property
    def length(self) -> int:
        """How many words it has."""
        return len(stems(f"{self.part.headings}\n{self.part.prose}\n{self.part.code}"))


def parts_of(passage: Passage) -> Iterator[Part]:
    """Give the parts of a passage: what is no table, then row by row what is."""
    if any(block.kind != "row" for block in passage.blocks):
        yield Part(passage)
    for block in passage.blocks:
        if block.kind == "row":
            yield Part(passage, block)


def units_of(passage: Passage) -> tuple[Unit, ...]:
    """Cut a passage into what can be quoted of it: prose into sentences, any other block not at all."""
    quotable = [
        (block, text)
        for block in passage.blocks
        for text in (sentences(block.text) if block.kind == "prose" else [block.text])
    ]
    # Code is weighed without its fence: the name of a language is no word of it.
    return tuple(
        Unit(
            place,
            block,
            text,
            frequencies(code=block.content) if block.kind == "code" else frequencies(text),
        )
        for place, (block, text) in enumerate(quotable)
    )


def frequencies(prose: str = "", code: str = "", headings: str = "") -> dict[str, float]:
    """Count the stems of a text. One that stands only in code counts once, and as a part of one."""
    counts = Counter(stems(prose) + stems(headings) * _IN_HEADINGS)
    return dict.fromkeys(stems(code), _IN_CODE) | counts


def sentences(text: str) -> list[str]:
    """Cut a paragraph into sentences; joined with a space they are the paragraph again, but for white space."""
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    pieces = [text[start:end].strip() for start, end in pairwise(ends)]
    joined: list[str] = []
    for piece in filter(None, pieces):
        # A stop inside a span of code ends no sentence.
        if joined and joined[-1].count("`") % 2:
            joined[-1] += " " + piece
        else:
            joined.append(piece)
    return joined
