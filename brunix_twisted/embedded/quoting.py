"""Choosing what an answer quotes of a passage that was found."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final

from brunix_twisted.embedded.chunks import Entry, Unit, frequencies
from brunix_twisted.embedded.retrieval import covered

# A text no longer than this, in characters, is quoted whole: cut, it would lose more than it saves.
_SHORT_TEXT: Final = 500

# A further sentence is quoted when it has this share of the question that the ones before it have not.
_NEWS: Final = 0.15
_MOST_SENTENCES: Final = 3

# A further row is quoted when it covers this share of what the best row does.
_NEAR_THE_BEST_ROW: Final = 0.8
_MOST_ROWS: Final = 3

# An announced table of no more rows than this is quoted whole.
_SHORT_TABLE: Final = 6

# "How do I", "how to" and "what can I" ask for something to be done; "how long" and "how does it" do not.
_HOW_TO: Final = re.compile(
    r"\bhow\s+(?:do\s|can\b|could\b|should\b|to\b)|\b(?:what|where|which)\b.*\b(?:do|can|should|must)\s+(?:i|we|you)\b",
    re.IGNORECASE | re.DOTALL,
)
_NAMES_CODE: Final = re.compile(
    r"\b(?:examples?|code|commands?|snippets?|scripts?|configuration|config|yaml|json|curl)\b", re.IGNORECASE
)
_BEGINS_A_QUESTION: Final = re.compile(
    r"(?:what|which|who|whose|when|where|why|how|is|are|was|were|do|does|did|can|could|may|must|should|shall|will|would"
    r"|has|have|and|or|but|so|then|also|my|i)\b",
    re.IGNORECASE,
)


def wants_code(question: str) -> bool:
    """Tell whether a question asks how something is done, or for code; an order such as "Install it" does as well."""
    asked = question.strip()
    is_order = not asked.endswith("?") and not _BEGINS_A_QUESTION.match(asked)
    return is_order or bool(_HOW_TO.search(asked) or _NAMES_CODE.search(asked))


def quoted_units(entry: Entry, shares: Mapping[str, float], *, wants_code: bool) -> list[Unit]:
    """Choose what to quote of the passage that a part stands for, in the passage's order."""
    if entry.part.row:
        return _rows(entry, shares)
    text = [unit for unit in entry.own_units if unit.block.kind != "code"]
    chosen = _sentences(text, shares) if text else list(entry.own_units[:1])
    places = {unit.place for unit in chosen}
    for unit in chosen:
        places.update(_inseparable(entry.units, unit.place, shares))
    if wants_code and not any(entry.units[place].block.kind == "code" for place in places):
        places.update(_code_beside(entry.units, chosen, shares))
    return [entry.units[place] for place in sorted(places)]


def _rows(entry: Entry, shares: Mapping[str, float]) -> list[Unit]:
    """Choose the rows of a table that answer: the one that was found, and those that say as much."""
    (best,) = entry.own_units
    # What the head says, every row says.
    head = frequencies(best.block.head)
    left = {each: share for each, share in shares.items() if each not in head}
    enough = _NEAR_THE_BEST_ROW * covered(left, best.frequencies)
    table = [unit for unit in entry.units if unit is not best and unit.block.head == best.block.head]
    others = [unit for unit in table if covered(left, unit.frequencies) >= enough > 0]
    others.sort(key=lambda unit: (-covered(left, unit.frequencies), unit.place))
    return sorted((best, *others[: _MOST_ROWS - 1]), key=lambda unit: unit.place)


def _sentences(text: Sequence[Unit], shares: Mapping[str, float]) -> list[Unit]:
    """Choose sentences and items: all of a short text, of a long one the best and what adds to it."""
    # Of equals the earlier: a section says first what it is about.
    best = max(text, key=lambda unit: (covered(shares, unit.frequencies), -unit.place))
    if sum(len(unit.text) for unit in text) <= _SHORT_TEXT:
        return [unit for unit in text if unit is best or not _announces_another(unit, text, shares)]
    chosen: list[Unit] = []
    left = dict(shares)
    while len(chosen) < _MOST_SENTENCES and (not chosen or covered(left, best.frequencies) >= _NEWS):
        chosen.append(best)
        left = {each: share for each, share in left.items() if each not in best.frequencies}
        best = max(text, key=lambda unit: (covered(left, unit.frequencies), -unit.place))
    # The sentence after the best one often is the answer.
    after = [unit for unit in text if unit.place == chosen[0].place + 1 and unit.block is chosen[0].block]
    return chosen + [unit for unit in after if unit not in chosen]


def _announces_another(unit: Unit, text: Sequence[Unit], shares: Mapping[str, float]) -> bool:
    """Tell whether a unit is a paragraph such as "In another shell:", with no word of the question, before code."""
    alone = unit.block.kind == "prose" and unit.text.endswith(":") and unit.text == unit.block.text
    return alone and not covered(shares, unit.frequencies) and all(each.place != unit.place + 1 for each in text)


def _inseparable(units: Sequence[Unit], place: int, shares: Mapping[str, float]) -> Iterator[int]:
    """Give the places of what a unit cannot be read without: what it announces, or what announces it."""
    unit = units[place]
    if unit.text.endswith(":"):
        yield from _announced(units, place, shares)
    before = place - 1
    while unit.block.kind == "item" and before >= 0 and units[before].block.kind == "item":
        before -= 1
    if before >= 0 and units[before].text.endswith(":"):
        yield before
        listed = [each.text for each in takewhile(lambda each: each.block.kind == "item", units[before + 1 :])]
        if sum(map(len, listed)) <= _SHORT_TEXT:
            yield from range(before + 1, before + 1 + len(listed))


def _announced(units: Sequence[Unit], place: int, shares: Mapping[str, float]) -> Iterator[int]:
    """Give the places of what follows a colon: a list, code, a short table, or the best rows of a long one."""
    after = units[place + 1 :]
    if not after or after[0].block.kind not in ("item", "row"):
        yield from (unit.place for unit in after[:1])
        return
    announced = list(takewhile(lambda unit: unit.block.kind == after[0].block.kind, after))
    if after[0].block.kind == "row" and len(announced) > _SHORT_TABLE:
        announced.sort(key=lambda unit: (-covered(shares, unit.frequencies), unit.place))
        announced = announced[:_MOST_ROWS]
    yield from (unit.place for unit in announced)


def _code_beside(units: Sequence[Unit], chosen: Sequence[Unit], shares: Mapping[str, float]) -> Iterator[int]:
    """Give the place of the code next to the best of the chosen, after it rather than before it, if there is any."""
    for unit in sorted(chosen, key=lambda unit: -covered(shares, unit.frequencies)):
        for place in (unit.place + 1, unit.place - 1):
            if 0 <= place < len(units) and units[place].block.kind == "code":
                yield place
                return
