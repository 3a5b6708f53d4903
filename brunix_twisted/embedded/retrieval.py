"""Find the passages for a question."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import attrs

from brunix_twisted.embedded.chunks import IndexedChunk, chunks_of, vocabulary_of
from brunix_twisted.embedded.expansion import Expansion
from brunix_twisted.embedded.index import Index
from brunix_twisted.embedded.passages import Passage, Place
from brunix_twisted.embedded.query import Query
from brunix_twisted.embedded.question import Intent, Question
from brunix_twisted.embedded.ranking import defines, has_amount, heading_match, is_history, recency
from brunix_twisted.embedded.recency import version_in
from brunix_twisted.embedded.semantic import Embedder, SemanticIndex
from brunix_twisted.embedded.spelling import Spelling
from brunix_twisted.embedded.tokenizer import stems, words

# Maximum number of chunks that the index selects and that are ranked again.
_MAX_CANDIDATES: Final = 60

# Maximum number of chunks with "X is" that are added for "What is X?".
_MAX_DEFINITIONS: Final = 60

# SQLite's BM25 ranks a short row with one word of a question above a paragraph with three. So candidates are ranked
# again by BM25 with other constants: a low k1, so that the first occurrence of a term counts most, and a low b, so that
# length matters little. The coverage of the best sentence is added. Measured: each of the three finds more.
_K1: Final = 0.5
_B: Final = 0.2
_SENTENCE_WEIGHT: Final = 0.5

# Embeddings: how many chunks they add to the candidates, the similarity above which they count, and how much it adds to
# the score and to the confidence.
_MAX_SIMILAR: Final = 60
_MIN_SIMILARITY: Final = 0.25
_SIMILARITY_WEIGHT: Final = 1.0
_SIMILARITY_CONFIDENCE: Final = 1.0

# What is added to the score of a chunk that defines what is asked for, that contains a number if one is asked for, and
# that is in the passage, section or document of the answer before a follow-up.
_DEFINITION_WEIGHT: Final = 1.0

# Weight of two neighbouring words of a question that are one word in the documents; each of them counts too.
_COMPOUND_WEIGHT: Final = 0.3
_AMOUNT_WEIGHT: Final = 0.08
_HEADING_WEIGHT: Final = 0.3
_CODE_WEIGHT: Final = 0.05

# What is subtracted from the score of a chunk of a changelog, unless versions are asked for.
_HISTORY_WEIGHT: Final = 0.3

# The confidence adds this for each term that matches, up to a maximum. Measured: this separates questions that the
# documents answer from others better than the share of matching terms alone.
_MATCHED_TERM_BONUS: Final = 1 / 12
_MAX_MATCHED_TERMS: Final = 3

# A chunk with the newest date must be from the document of a chunk whose score is at least this share of the best.
_MIN_RECENT_SCORE: Final = 0.5
_MIN_DATED: Final = 2

# Maximum number of ranked chunks that keep their term frequencies, some kilobytes each.
_MAX_CACHED_CHUNKS: Final = 4096


@attrs.frozen
class Near:
    """The place of the last answer, and how much being in its section, or its document, adds to a chunk's score."""

    place: Place
    section: float
    document: float

    def bonus(self, passage: Passage) -> float:
        """Return what to add for a passage: most for the same section."""
        if passage.source != self.place.source:
            return 0.0
        return self.section if passage.headings == self.place.headings else self.document


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

    def __init__(self, passages: Sequence[Passage], embedder: Embedder | None = None) -> None:
        """Index the passages, with embeddings too if there is a model. Raises SearchUnavailableError without FTS5."""
        chunks = tuple(chunk for passage in passages for chunk in chunks_of(passage))

        def indexed(number: int) -> IndexedChunk:
            return IndexedChunk(number, chunks[number])

        self._chunks = chunks
        self._by_source: defaultdict[str, list[int]] = defaultdict(list)
        for number, chunk in enumerate(chunks):
            self._by_source[chunk.passage.source].append(number)
        self._index = Index(chunks)
        self.semantic: Final = SemanticIndex(embedder, chunks) if embedder else None
        self._lock = threading.Lock()
        self._spelling: Spelling | None = None
        self._versioned: list[str] | None = None
        self._expansion = Expansion(self._index, self._known_words, self._similar_words)
        # lru_cache is thread-safe; if two threads miss at the same time, both compute the same value.
        self._indexed: Callable[[int], IndexedChunk] = lru_cache(_MAX_CACHED_CHUNKS)(indexed)

    def close(self) -> None:
        """Free the index. Do not search afterwards."""
        if self.semantic:
            self.semantic.close()
        self._index.close()

    @property
    def document_count(self) -> int:
        """Number of documents."""
        return len(self._by_source)

    def has_term(self, word: str) -> bool:
        """Return whether any passage contains the word."""
        return self._index.has_term(word)

    def idf(self, word: str) -> float:
        """Return how rare a word is in the documents; see Index.idf."""
        return self._index.idf(word)

    def query(self, question: Question, context: Mapping[str, float]) -> Query:
        """Make a query of a question and the words of its context, with their weights."""
        compounds = dict.fromkeys(self._expansion.compounds(words(question.text)), _COMPOUND_WEIGHT)
        query = self._expansion.query(
            {**question.terms, **compounds},
            context,
            names=question.names,
            exact=question.intent.subject if len(question.intent.subject) == 1 else (),
            is_spanish=question.is_spanish,
        )
        return attrs.evolve(query, text=question.text)

    def find(
        self,
        query: Query,
        limit: int,
        intent: Intent = Intent(),  # noqa: B008 - it is immutable
        near: Near | None = None,
    ) -> list[SearchHit]:
        """Find the passages for a query; best first, each with its best chunk."""
        similar = self.semantic.similarities(query.text, _MAX_SIMILAR) if self.semantic else {}
        numbers = dict.fromkeys((*self._index.search(query.spellings, _MAX_CANDIDATES), *similar))
        if intent.subject:
            # Every passage may contain the subject; few begin a sentence with what it is.
            subject = " ".join(intent.subject)
            numbers |= dict.fromkeys(self._index.search([f"{subject} is", f"{subject} are"], _MAX_DEFINITIONS))
        if near:
            numbers |= dict.fromkeys(
                number
                for number in self._by_source.get(near.place.source, ())
                if self._chunks[number].passage.headings == near.place.headings
            )
        hits = [self._rank(self._indexed(number), query, intent, near, similar.get(number, 0.0)) for number in numbers]
        hits.sort(key=lambda hit: (-hit.score, hit.indexed.number))
        if intent.newest:
            hits = [*self._newest(hits, query, intent), *hits]
        best: dict[int, SearchHit] = {}
        for hit in hits:
            best.setdefault(id(hit.passage), hit)
        return list(best.values())[:limit]

    def _rank(
        self, indexed: IndexedChunk, query: Query, intent: Intent, near: Near | None, similarity: float = 0.0
    ) -> SearchHit:
        length_norm = 1 - _B + _B * indexed.length / self._index.mean_length
        frequencies = indexed.frequencies
        bm25 = sum(concept.share * concept.bm25(frequencies, _K1, length_norm) for concept in query.concepts)
        best = max(indexed.sentence_terms, key=query.coverage)
        score = bm25 + _SENTENCE_WEIGHT * query.coverage(best)
        if intent.subject:
            score += _DEFINITION_WEIGHT * defines(indexed, tuple(stems(" ".join(intent.subject))))
        if intent.wants_amount and has_amount(indexed, query):
            score += _AMOUNT_WEIGHT
        score += _HEADING_WEIGHT * heading_match(indexed, query)
        if intent.wants_code and indexed.chunk.code:
            score += _CODE_WEIGHT
        if is_history(indexed.chunk.passage) and not intent.wants_history:
            score -= _HISTORY_WEIGHT
        if near:
            score += near.bonus(indexed.chunk.passage)
        similar = max(0.0, similarity - _MIN_SIMILARITY)
        score += _SIMILARITY_WEIGHT * similar
        # For the confidence, a term that occurs only in code counts fully.
        terms = dict.fromkeys(frequencies, 1.0)
        matched = min(query.matched(terms), _MAX_MATCHED_TERMS)
        coverage = query.own_coverage(terms)
        confidence = max(coverage, query.coverage(terms)) + _MATCHED_TERM_BONUS * matched - query.doubt
        # Similarity stands for the part of the question that no word covers.
        confidence += _SIMILARITY_CONFIDENCE * similar * (1 - coverage)
        return SearchHit(indexed, score=score, confidence=confidence)

    def _newest(self, hits: Sequence[SearchHit], query: Query, intent: Intent) -> list[SearchHit]:
        """Return the chunk with the newest version or date in the document that matches best and has several."""
        close = [hit for hit in hits if hit.score >= _MIN_RECENT_SCORE * hits[0].score] if hits else []
        confidences: dict[str, float] = {}
        for hit in close:
            source = hit.passage.source
            confidences[source] = max(hit.confidence, confidences.get(source, 0.0))
        subject = [concept for concept in query.concepts if concept.weight == 1.0 and concept.own_share]
        if intent.names_version and not subject:
            # A changelog often has no word but its numbers in common with "What is the newest version?".
            confidences |= dict.fromkeys(self._versioned_sources(), 1.0)
        for source, confidence in confidences.items():
            dated = [
                (key, -number) for number in self._by_source[source] if (key := recency(self._indexed(number), intent))
            ]
            if len(dated) >= _MIN_DATED:
                _, number = max(dated) if intent.newest > 0 else min(dated)
                found = self._rank(self._indexed(-number), query, intent, None)
                best = hits[0].score if hits else 0.0
                return [attrs.evolve(found, score=best, confidence=max(found.confidence, confidence))]
        return []

    def _versioned_sources(self) -> Sequence[str]:
        """Return the documents with versions in their headings, those with most of them first."""
        with self._lock:
            if self._versioned is None:
                places = dict.fromkeys(chunk.passage.place for chunk in self._chunks)
                counts = Counter(place.source for place in places if place.headings and version_in(place.headings[-1]))
                self._versioned = [source for source, count in counts.most_common() if count >= _MIN_DATED]
            return self._versioned

    def _similar_words(self, word: str) -> Mapping[str, float]:
        return self.semantic.similar_words(word) if self.semantic else {}

    def _known_words(self) -> Spelling:
        """Return the words of the documents, collected when a question first contains an unknown one."""
        with self._lock:
            if self._spelling is None:
                self._spelling = Spelling(vocabulary_of(self._chunks))
            return self._spelling
