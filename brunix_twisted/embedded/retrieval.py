"""Find the passages for a question."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import attrs

from brunix_twisted.embedded.chunks import IndexedChunk, chunks_of
from brunix_twisted.embedded.index import Index
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.tokenizer import stem

# Maximum number of chunks that the index selects and that are ranked again.
_MAX_CANDIDATES: Final = 60

# SQLite's BM25 ranks a short row with one word of a question above a paragraph with three. So candidates are ranked
# again by BM25 with other constants: a low k1, so that the first occurrence of a term counts most, and a low b, so that
# length matters little. The coverage of the best sentence is added. Measured: each of the three finds more.
_K1: Final = 0.5
_B: Final = 0.2
_SENTENCE_WEIGHT: Final = 0.5

# The confidence adds this for each term that matches, up to a maximum. Measured: this separates questions that the
# documents answer from others better than the share of matching terms alone.
_MATCHED_TERM_BONUS: Final = 1 / 12
_MAX_MATCHED_TERMS: Final = 3

# Maximum number of ranked chunks that keep their term frequencies, some kilobytes each.
_MAX_CACHED_CHUNKS: Final = 4096


@attrs.frozen
class SearchHit:
    """A chunk that was found.

    ``score`` ranks it. ``confidence``, from 0 to 1.25, says how closely its terms match the question.
    """

    indexed: IndexedChunk
    score: float
    confidence: float

    @property
    def passage(self) -> Passage:
        """The passage of the chunk."""
        return self.indexed.chunk.passage


class Retriever:
    """All passages, and the index of their chunks. Thread-safe."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        """Index the passages. Raises SearchUnavailableError if SQLite lacks FTS5."""
        chunks = tuple(chunk for passage in passages for chunk in chunks_of(passage))

        def indexed(number: int) -> IndexedChunk:
            return IndexedChunk(number, chunks[number])

        self._index = Index(chunks)
        # lru_cache is thread-safe; if two threads miss at the same time, both compute the same value.
        self._indexed: Callable[[int], IndexedChunk] = lru_cache(_MAX_CACHED_CHUNKS)(indexed)

    def close(self) -> None:
        """Free the index. Do not search afterwards."""
        self._index.close()

    def has_term(self, word: str) -> bool:
        """Return whether any passage contains the word."""
        return self._index.has_term(word)

    def idf(self, word: str) -> float:
        """Return how rare a word is in the documents; see Index.idf."""
        return self._index.idf(word)

    def term_shares(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return each term's share of the question: weight times rarity, by stem, normalized to a sum of 1.

        A word that no document contains counts fully, because it is what the documents do not answer.
        """
        by_stem: dict[str, float] = {}
        for word, weight in weights.items():
            by_stem[stem(word)] = max(weight * self._index.idf(word), by_stem.get(stem(word), 0.0))
        total = sum(by_stem.values())
        return {term: value / total for term, value in by_stem.items()} if total else {}

    def find(self, weights: Mapping[str, float], limit: int) -> list[SearchHit]:
        """Find the passages for a question, given as words with weights; best first, each with its best chunk."""
        shares = self.term_shares(weights)
        by_stem = {stem(word): weight for word, weight in weights.items()}
        numbers = self._index.search(weights, _MAX_CANDIDATES)
        hits = [self._rank(self._indexed(number), shares, by_stem) for number in numbers]
        best: dict[int, SearchHit] = {}
        for hit in sorted(hits, key=lambda hit: (-hit.score, hit.indexed.number)):
            best.setdefault(id(hit.passage), hit)
        return list(best.values())[:limit]

    def _rank(self, indexed: IndexedChunk, shares: Mapping[str, float], weights: Mapping[str, float]) -> SearchHit:
        length_norm = 1 - _B + _B * indexed.length / self._index.mean_length
        counts = {term: indexed.frequencies.get(term, 0.0) for term in shares}
        bm25 = sum(
            share * counts[term] * (1 + _K1) / (counts[term] + _K1 * length_norm) for term, share in shares.items()
        )
        best_sentence = max(coverage(shares, terms) for terms in indexed.sentence_terms)
        # For the confidence, a term that occurs only in code counts fully.
        terms = dict.fromkeys(indexed.frequencies, 1.0)
        matched = min(coverage(weights, terms), _MAX_MATCHED_TERMS)
        return SearchHit(
            indexed,
            score=bm25 + _SENTENCE_WEIGHT * best_sentence,
            confidence=coverage(shares, terms) + _MATCHED_TERM_BONUS * matched,
        )


def coverage(shares: Mapping[str, float], frequencies: Mapping[str, float]) -> float:
    """Sum the shares of the terms that a text contains; a term with a frequency below 1 counts in proportion."""
    return sum(share * min(1.0, frequencies.get(term, 0.0)) for term, share in shares.items())
