"""Composing an answer of quotations, each with its source."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import attrs

from brunix_twisted.embedded.blocks import HEAD_ROWS
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.retrieval import Entry, Found, Library, Unit, covered

# The least confidence that the best passage must have to be an answer. Chosen by measuring, on questions that a set of
# documents answers and others that it does not; tests/embedded/test_threshold.py keeps the measurement.
THRESHOLD: Final = 0.42

# How many passages one answer quotes at most, and how many units it picks from each.
_PICKS: Final = (3, 2, 2)

# A unit is picked only when it covers at least this share of what the best unit of its passage covers.
_WORTH_QUOTING: Final = 0.5

# A passage after the first is quoted only when its score comes this near to the first one's.
_NEAR_ENOUGH: Final = 0.6

# A passage no longer than this, in characters, is quoted whole if it comes first: cut, it would lose more than
# it saves.
_SHORT_PASSAGE: Final = 500

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


def answer(library: Library, weights: Mapping[str, float]) -> Answer:
    """Answer a question given as words with weights. Any thread may call it."""
    found = library.find(weights, len(_PICKS))
    if not is_answered(found):
        return Answer(NOT_SAID, "", (), ())
    shares = library.shares(weights)
    quoted: list[tuple[Passage, list[Unit]]] = []
    for rank, each in enumerate(found):
        if rank and (each.score < _NEAR_ENOUGH * found[0].score or each.confidence < THRESHOLD):
            continue
        quoted.append((each.entry.passage, _picked(each.entry, shares, rank)))
    return Answer(
        text="\n\n".join(f"{_shown(units)}\n\n{citation(passage, units)}" for passage, units in quoted),
        code="\n\n".join(unit.block.content for _, units in quoted for unit in units if unit.block.kind == "code"),
        passages=tuple(passage for passage, _ in quoted),
        quotations=tuple(_shown(units) for _, units in quoted),
    )


def citation(passage: Passage, units: Sequence[Unit]) -> str:
    """Name where a quotation stands: the file, the headings down to it, and the lines."""
    first = min(unit.block.first_line for unit in units)
    last = max(unit.block.last_line for unit in units)
    lines = f"line {first}" if first == last else f"lines {first}–{last}"  # noqa: RUF001 - a range is set with a dash
    headings = " › ".join(passage.headings)  # noqa: RUF001 - ">" would begin a quotation in Markdown
    return "— " + ", ".join(filter(None, (f"`{passage.source}`", headings, lines)))


def _picked(entry: Entry, shares: Mapping[str, float], rank: int) -> list[Unit]:
    """Choose what to quote of a passage, in the passage's order."""
    units = entry.units
    if rank == 0 and len(entry.passage.body) <= _SHORT_PASSAGE:
        return list(units)
    worth = [covered(shares, unit.stems) for unit in units]
    # Of equals the earlier: a section says first what it is about.
    order = sorted(range(len(units)), key=lambda place: (-worth[place], place))
    picked = {place for place in order[: _PICKS[rank]] if worth[place] >= _WORTH_QUOTING * worth[order[0]]}
    if rank == 0:
        # The sentence after the best one often is the answer; so is the code beside it.
        picked.update(place for place in (order[0] + 1,) if place < len(units))
    for place in tuple(picked):
        picked.update(_inseparable(units, place))
    return [units[place] for place in sorted(picked)]


def _inseparable(units: Sequence[Unit], place: int) -> set[int]:
    """Give the places of the units without which one unit cannot be read: what it announces, or what announces it."""
    places = {place}
    if place and units[place - 1].text.endswith(":"):
        places.add(place - 1)
    if units[place].text.endswith(":"):
        following = range(place + 1, len(units))
        kind = units[place + 1].block.kind if following else ""
        for after in following:
            if units[after].block.kind != kind:
                break
            places.add(after)
            if kind != "item":
                break
    return places


def _shown(units: Sequence[Unit]) -> str:
    """Set units as Markdown: sentences of a paragraph on a line, items and the rows of a table under each other."""
    text = units[0].text
    for before, unit in pairwise(units):
        if unit.block is before.block:
            # What is left out between two sentences is marked, as in any quotation.
            text += (" " if unit.place == before.place + 1 else " … ") + unit.text
        elif unit.block.kind == before.block.kind == "item":
            text += "\n" + unit.text
        elif unit.block.kind == before.block.kind == "table" and _head(unit) == _head(before):
            text += unit.text.removeprefix(_head(unit))
        else:
            text += "\n\n" + unit.text
    return text


def _head(table: Unit) -> str:
    """Give the head of a table, which every part of a long one repeats."""
    return "\n".join(table.text.split("\n", HEAD_ROWS)[:HEAD_ROWS])
