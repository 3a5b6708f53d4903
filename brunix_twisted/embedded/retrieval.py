"""From a question to the passages that speak of it."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import attrs

from brunix_twisted.embedded.chunks import Entry, parts_of
from brunix_twisted.embedded.index import Index
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.stemming import stem

# How many parts of the index's choice are weighed again.
_CANDIDATES: Final = 60

# BM25 as SQLite has it likes a short row with one word of a question better than a paragraph with three. So the
# candidates are weighed by BM25 again, with a word's first occurrence counting for most of what it can (k1), and length
# for less (b). Words that stand together in one sentence are added. Measured: each of the three finds more.
_SATURATION: Final = 0.5
_LENGTH_MATTERS: Final = 0.2
_TOGETHER: Final = 0.5

# Two words in common say more than one, whatever share of the question they are; a fourth adds nothing. Measured: with
# this the questions that the documents do not answer are told apart better than by the share alone.
_IN_COMMON: Final = 1 / 12
_MOST_IN_COMMON: Final = 3

# How many parts keep their words once they were weighed: some kilobytes each.
_KEPT: Final = 4096


@attrs.frozen
class Found:
    """A passage that was found by one of its parts.

    ``score`` ranks it among the others; ``confidence``, from 0 to 1.25, tells how far its words are those of the
    question.
    """

    entry: Entry
    score: float
    confidence: float

    @property
    def passage(self) -> Passage:
        """The passage itself."""
        return self.entry.part.passage


class Retriever:
    """Every passage, and the index over them. Any thread may call any method."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        """Index the passages. Raises SearchUnavailableError when SQLite has no FTS5."""
        parts = tuple(part for passage in passages for part in parts_of(passage))
        self._index = Index(parts)
        # Python's cache is safe for threads; two that miss at once compute the same.
        self._entry: Callable[[int], Entry] = lru_cache(_KEPT)(lambda number: Entry(number, parts[number]))

    def close(self) -> None:
        """Free the index. No search may follow."""
        self._index.close()

    def knows(self, word: str) -> bool:
        """Tell whether any passage has the word."""
        return self._index.knows(word)

    def rarity(self, word: str) -> float:
        """Weigh a word by how little of the documents has it."""
        return self._index.rarity(word)

    def shares(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Turn the weights of a question's words into shares of the question by stem, rare words more; their sum is 1.

        A word that no document has counts fully: it is what the documents do not say.
        """
        by_stem: dict[str, float] = {}
        for word, weight in weights.items():
            by_stem[stem(word)] = max(weight * self._index.rarity(word), by_stem.get(stem(word), 0.0))
        total = sum(by_stem.values())
        return {each: value / total for each, value in by_stem.items()} if total else {}

    def find(self, weights: Mapping[str, float], limit: int) -> list[Found]:
        """Find the passages for a question given as words with weights, the best first, each by its best part."""
        shares = self.shares(weights)
        by_stem = {stem(word): weight for word, weight in weights.items()}
        found = [
            self._weighed(self._entry(number), shares, by_stem) for number in self._index.search(weights, _CANDIDATES)
        ]
        best: dict[int, Found] = {}
        for each in sorted(found, key=lambda each: (-each.score, each.entry.number)):
            best.setdefault(id(each.passage), each)
        return list(best.values())[:limit]

    def _weighed(self, entry: Entry, shares: Mapping[str, float], by_stem: Mapping[str, float]) -> Found:
        relative_length = entry.length / self._index.mean_length
        flat = _SATURATION * (1 - _LENGTH_MATTERS + _LENGTH_MATTERS * relative_length)
        counts = {each: entry.frequencies.get(each, 0.0) for each in shares}
        bm25 = sum(share * counts[each] * (1 + _SATURATION) / (counts[each] + flat) for each, share in shares.items())
        together = max(covered(shares, spoken) for spoken in entry.spoken)
        # A word that stands only in code is said all the same, however little it helps to rank.
        said = dict.fromkeys(entry.frequencies, 1.0)
        in_common = min(covered(by_stem, said), _MOST_IN_COMMON)
        return Found(
            entry, score=bm25 + _TOGETHER * together, confidence=covered(shares, said) + _IN_COMMON * in_common
        )


def covered(shares: Mapping[str, float], frequencies: Mapping[str, float]) -> float:
    """Add up what a question's stems count for, over those that a text has; one that half counts there counts half."""
    return sum(share * min(1.0, frequencies.get(each, 0.0)) for each, share in shares.items())
