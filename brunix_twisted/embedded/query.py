"""A query: the words of a question, with what may stand for each of them in the documents."""

from collections.abc import Mapping
from typing import Self

import attrs

from brunix_twisted.embedded.tokenizer import stem


@attrs.frozen
class Concept:
    """A word of a question.

    ``spellings`` maps each word that may stand for it to how much a match counts. ``share`` is its share of the
    question, and ``own_share`` the same without context.
    """

    word: str
    spellings: Mapping[str, float]
    weight: float
    share: float
    own_share: float
    is_name: bool = False
    forms: Mapping[str, float] = attrs.field(init=False)
    """The same by stem."""

    @forms.default
    def _forms(self) -> Mapping[str, float]:
        by_stem: dict[str, float] = {}
        for each, factor in self.spellings.items():
            key = stem(each)
            by_stem[key] = max(factor, by_stem.get(key, 0.0))
        return by_stem

    def presence(self, frequencies: Mapping[str, float]) -> float:
        """Return how much of the word a text contains, from 0 to 1."""
        return max((factor * min(1.0, frequencies.get(form, 0.0)) for form, factor in self.forms.items()), default=0.0)

    def bm25(self, frequencies: Mapping[str, float], k1: float, length_norm: float) -> float:
        """Return the word's part of BM25, without its rarity."""
        return max(
            (
                factor * count * (1 + k1) / (count + k1 * length_norm)
                for form, factor in self.forms.items()
                if (count := frequencies.get(form, 0.0))
            ),
            default=0.0,
        )


@attrs.frozen
class Query:
    """The concepts of a question."""

    concepts: tuple[Concept, ...]
    text: str = ""
    """The question, for embeddings."""
    doubt: float = 0.0
    """What to subtract from the confidence, because the documents lack names in the question."""

    def coverage(self, frequencies: Mapping[str, float]) -> float:
        """Sum the shares of the concepts that a text contains."""
        return sum(concept.share * concept.presence(frequencies) for concept in self.concepts)

    def own_coverage(self, frequencies: Mapping[str, float]) -> float:
        """Sum the shares of the concepts, without those of the context."""
        return sum(concept.own_share * concept.presence(frequencies) for concept in self.concepts)

    def matched(self, frequencies: Mapping[str, float]) -> float:
        """Sum the weights of the concepts that a text contains."""
        return sum(concept.weight * concept.presence(frequencies) for concept in self.concepts)

    def without(self, frequencies: Mapping[str, float]) -> Self:
        """Return the concepts that a text does not contain."""
        return attrs.evolve(
            self, concepts=tuple(concept for concept in self.concepts if not concept.presence(frequencies))
        )

    @property
    def words(self) -> tuple[str, ...]:
        """Its words."""
        return tuple(concept.word for concept in self.concepts)

    @property
    def spellings(self) -> tuple[str, ...]:
        """All words to search for, best first."""
        ranked: dict[str, float] = {}
        for concept in self.concepts:
            for spelling, factor in concept.spellings.items():
                ranked[spelling] = max(factor * concept.share, ranked.get(spelling, 0.0))
        return tuple(sorted(ranked, key=lambda spelling: -ranked[spelling]))
