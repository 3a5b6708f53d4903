"""From a question to the passages that speak of it."""

import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final

import attrs

from brunix_twisted.embedded.blocks import Block
from brunix_twisted.embedded.index import Index
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.stemming import stem
from brunix_twisted.embedded.words import stems

# How many passages of the index's choice are weighed again. BM25 alone likes a passage that says one of the words
# often better than one that has them all: so the share of the question that it covers is added, and in part what its
# whole document covers, since a passage does not repeat what its page is about. Both were measured to find more.
_CANDIDATES: Final = 40
_AROUND: Final = 0.5

# Two words in common say more than one, whatever share of the question they are; a fourth adds nothing. Measured: with
# this the questions that the documents do not answer are told apart better than by the share alone.
_IN_COMMON: Final = 1 / 12
_MOST_IN_COMMON: Final = 3

# How many passages keep their words once they were weighed: some kilobytes each.
_KEPT: Final = 4096

# A sentence ends at its stop, with the quote or bracket that closes there, before white space and a new beginning. The
# abbreviations that are common in technical prose end none.
_SENTENCE_END: Final = re.compile(
    r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bcf\.)(?<!\bvs\.)(?:(?<=[.!?])|(?<=[.!?][)\"'”’*_]))\s+(?=[^a-z\s])"  # noqa: RUF001 - a typeset quotation ends with it
)


@attrs.frozen
class Unit:
    """The least that an answer quotes: a sentence, a list item, a piece of code or a table.

    ``place`` counts the units of a passage from 0.
    """

    place: int
    block: Block
    text: str
    stems: frozenset[str]


@attrs.define(slots=False)  # cached_property keeps what it has computed in the instance's dictionary
class Entry:
    """A passage with its words. What is computed late is computed alike by any thread, so that none needs a lock."""

    number: int
    passage: Passage

    @cached_property
    def heading_stems(self) -> frozenset[str]:
        """The words of its headings and of its document's title."""
        return frozenset(stems(" ".join((self.passage.title, *self.passage.headings))))

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """What can be quoted of it, in its order."""
        quotable = [(block, text) for block in self.passage.blocks for text in quotable_texts(block)]
        # Code is weighed without its fence: the name of a language is no word of it.
        return tuple(
            Unit(place, block, text, frozenset(stems(text if block.kind == "prose" else block.content)))
            for place, (block, text) in enumerate(quotable)
        )

    @cached_property
    def all_stems(self) -> frozenset[str]:
        """Every word of its headings and blocks."""
        return self.heading_stems.union(*(unit.stems for unit in self.units))


@attrs.frozen
class Found:
    """A passage that was found.

    ``score`` ranks it among the others; ``confidence``, from 0 to 1.25, tells how far its words are those of the
    question.
    """

    entry: Entry
    score: float
    confidence: float


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


def quotable_texts(block: Block) -> list[str]:
    """Cut a block into what can be quoted of it: prose into sentences, anything else not at all."""
    return sentences(block.text) if block.kind == "prose" else [block.text]


class Library:
    """Every passage, and the index over them. Any thread may call any method."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        """Index the passages. Raises SearchUnavailableError when SQLite has no FTS5."""
        self._passages = tuple(passages)
        self._index = Index(passages)
        # Python's cache is safe for threads; two that miss at once compute the same.
        self._entry: Callable[[int], Entry] = lru_cache(_KEPT)(lambda number: Entry(number, self._passages[number]))

    def close(self) -> None:
        """Free the index. No search may follow."""
        self._index.close()

    def knows(self, word: str) -> bool:
        """Tell whether any passage has the word."""
        return self._index.knows(word)

    def rarity(self, word: str) -> float:
        """Weigh a word by how few passages have it."""
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
        """Find the passages for a question given as words with weights, the best first."""
        rows = self._index.search(weights, _CANDIDATES)
        shares = self.shares(weights)
        by_stem = {stem(word): weight for word, weight in weights.items()}
        candidates = [(self._entry(number), bm25) for number, bm25 in rows]
        # What a document says of the question stands in those of its passages that are candidates too.
        documents: dict[str, set[str]] = {}
        for entry, _ in candidates:
            documents.setdefault(entry.passage.source, set()).update(entry.all_stems)
        found: list[Found] = []
        for entry, bm25 in candidates:
            coverage = covered(shares, entry.all_stems)
            around = covered(shares, documents[entry.passage.source])
            in_common = covered(by_stem, entry.all_stems)
            found.append(
                Found(
                    entry,
                    score=bm25 / rows[0][1] + coverage + _AROUND * around,
                    confidence=coverage + _IN_COMMON * min(in_common, _MOST_IN_COMMON),
                )
            )
        return sorted(found, key=lambda each: (-each.score, each.entry.number))[:limit]


def covered(shares: Mapping[str, float], present: AbstractSet[str]) -> float:
    """Add up what a question's stems count for, over those that are present."""
    return sum(share for each, share in shares.items() if each in present)
