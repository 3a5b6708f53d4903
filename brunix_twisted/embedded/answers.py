"""Composing an answer of quotations, each with its source."""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from brunix_twisted.embedded.chunks import Unit
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.quoting import quoted_units
from brunix_twisted.embedded.retrieval import Found, Retriever, covered

# The least confidence that the best passage must have to be an answer. Chosen by measuring, on questions that a set of
# documents answers and others that it does not; tests/embedded/test_threshold.py keeps the measurement.
THRESHOLD: Final = 0.42

# How many passages one answer quotes at most. One after the first is quoted only when a sentence of it has this share
# of the question that the passages before it have not.
_MOST_PASSAGES: Final = 3
_NEWS: Final = 0.25

# An answer that would be longer than this, in characters, gets no further quotation.
_LONG_ENOUGH: Final = 700

NOT_SAID: Final = "The documents do not say. Nothing in them comes near enough to this question to be quoted."


@attrs.frozen
class Answer:
    """What the engine says: Markdown, the code in it if any, and the passages that it quotes, the best first.

    ``quotations`` is what it quotes of each of them: the text without the citations.
    """

    text: str
    code: str
    passages: tuple[Passage, ...]
    quotations: tuple[str, ...]

    @property
    def answered(self) -> bool:
        """Whether the documents say anything."""
        return bool(self.passages)


def is_answered(found: Sequence[Found]) -> bool:
    """Tell whether what was found, the best first, is near enough to the question to be quoted."""
    return bool(found) and found[0].confidence >= THRESHOLD


def answer(retriever: Retriever, weights: Mapping[str, float], *, wants_code: bool) -> Answer:
    """Answer a question given as words with weights. Any thread may call it."""
    found = retriever.find(weights, _MOST_PASSAGES)
    if not is_answered(found):
        return Answer(NOT_SAID, "", (), ())
    left = retriever.shares(weights)
    quoted: list[tuple[Passage, list[Unit]]] = []
    text = ""
    for each in found:
        units = quoted_units(each.entry, left, wants_code=wants_code)
        quotation = f"{_shown(units)}\n\n{citation(each.passage, units)}"
        if quoted:
            new = max(covered(left, unit.frequencies) for unit in units) >= _NEWS
            if not new or each.confidence < THRESHOLD or len(text) + len(quotation) > _LONG_ENOUGH:
                continue
        text += f"\n\n{quotation}" if text else quotation
        quoted.append((each.passage, units))
        left = {stem: share for stem, share in left.items() if stem not in each.entry.frequencies}
    return Answer(
        text=text,
        code="\n\n".join(unit.block.content for _, units in quoted for unit in units if unit.block.kind == "code"),
        passages=tuple(passage for passage, _ in quoted),
        quotations=tuple(_shown(units) for _, units in quoted),
    )


def citation(passage: Passage, units: Sequence[Unit]) -> str:
    """Name where a quotation stands: the file, the headings down to it, and the lines."""
    headings = " › ".join(passage.headings)  # noqa: RUF001 - ">" would begin a quotation in Markdown
    return "— " + ", ".join(filter(None, (f"`{passage.source}`", headings, _lines(units))))


def _lines(units: Sequence[Unit]) -> str:
    """Name the lines of some units; what stands side by side is one range."""
    ranges: list[tuple[int, int]] = []
    for before, unit in zip((None, *units), units, strict=False):
        first, last = unit.block.first_line, unit.block.last_line
        if before and (unit.block is before.block or unit.place == before.place + 1):
            ranges[-1] = (ranges[-1][0], last)
        else:
            ranges.append((first, last))
    shown = ", ".join(f"{first}" if first == last else f"{first}–{last}" for first, last in ranges)
    return f"line {shown}" if shown.isdecimal() else f"lines {shown}"


def _shown(units: Sequence[Unit]) -> str:
    """Set units as Markdown: sentences of a paragraph on a line, items and the rows of a table under each other."""
    text = ""
    for before, unit in zip((None, *units), units, strict=False):
        block = unit.block
        if before and block is before.block:
            # What is left out between two sentences is marked, as in any quotation.
            text += " " if unit.place == before.place + 1 else " … "
        elif (
            before
            and block.kind in ("item", "row")
            and (block.kind, block.head) == (before.block.kind, before.block.head)
        ):
            text += "\n"
        else:
            text += "\n\n" if before else ""
            text += f"{block.head}\n" if block.head else ""
        text += unit.text
    return text
