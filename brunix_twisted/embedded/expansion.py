"""Make a query of the words of a question: correct, translate and expand them with the words of the documents."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Final

import attrs

from brunix_twisted.embedded.index import MAX_QUERY_TERMS, Index
from brunix_twisted.embedded.lexicon import common_stems, known_words, spanish_key, synonyms, translations
from brunix_twisted.embedded.query import Concept, Query
from brunix_twisted.embedded.spelling import Spelling
from brunix_twisted.embedded.tokenizer import STOP_WORDS, stem

# How much a match counts if it is not the word itself.
_TRANSLATION: Final = 0.9
_CORRECTION: Final = 0.85
_PREFIX: Final = 0.7
_SYNONYM: Final = 0.75
_SYNONYM_OF_KNOWN: Final = 0.6

# The same for a word that an embedding finds: all of it from the upper similarity, nothing at the lower. Below the
# minimum, more questions that the documents do not answer get an answer. Measured: without the lists of synonyms and
# translations, 10 instead of 6 of 12 Spanish questions get a useful answer.
_MEANING: Final = 0.9
_SAME_MEANING: Final = 0.8
_MIN_SIMILARITY: Final = 0.7
_NO_SIMILARITY: Final = 0.5

# How much the rarity of a common word counts; of one that the documents lack; and of a name that they lack.
_COMMON: Final = 0.6
_UNKNOWN_COMMON: Final = 0.35
_UNKNOWN_NAME: Final = 1.3
_KNOWN_NAME: Final = 1.3
# Part of the share of unknown names, and of other unknown words, that is subtracted from the confidence.
_DOUBT_ABOUT_NAMES: Final = 0.5
_DOUBT: Final = 0.15

# Maximum number of words whose spelling is corrected in a question, and of words that may stand for one.
_MAX_CORRECTED: Final = 12
_MAX_FORMS: Final = 24
_MIN_PREFIX: Final = 4
_LONG_PREFIX: Final = 6
# The spelling of a shorter name is not corrected: "Rust" is no "rest".
_MIN_NAME: Final = 7
# A shorter word is not corrected to one that the documents lack.
_MIN_LISTED: Final = 5


@attrs.frozen
class _Weighed:
    """A word of a question, what may stand for it, its weight, and its weight times its rarity."""

    word: str
    forms: Mapping[str, float]
    weight: float
    value: float
    is_own: bool


class Expansion:
    """Expands questions with the words of one index. Thread-safe."""

    def __init__(
        self, index: Index, spelling: Callable[[], Spelling], similar_words: Callable[[str], Mapping[str, float]]
    ) -> None:
        """Know the index, and how to get the spelling of its words and those that are similar in meaning to a word.

        The last two are only needed for unknown words.
        """
        self._index = index
        self._similar_words = similar_words
        self._spelling = spelling

    def query(
        self,
        weights: Mapping[str, float],
        context: Mapping[str, float],
        *,
        names: frozenset[str] = frozenset(),
        exact: Collection[str] = (),
        is_spanish: bool = False,
    ) -> Query:
        """Make a query of a question's words and those of its context, with their weights.

        No synonym stands for the ``exact`` words.
        """
        by_stem: dict[str, _Weighed] = {}
        unknown_count = 0
        for word, weight in weights.items():
            is_known = self._index.has_term(word)
            unknown_count += not is_known
            forms: Mapping[str, float] = {word: 1.0}
            is_searched = not is_known and unknown_count <= _MAX_CORRECTED
            if is_spanish or is_searched:
                forms = self._replacements(word, is_spanish=is_spanish, is_name=word in names, is_searched=is_searched)
            if forms:
                is_name = word in names
                if word not in exact:
                    forms = self._with_synonyms(word, forms)
                    if is_searched and not is_name:
                        forms = {**self._related_in_meaning(word), **forms}
                value = weight * self._rarity(word, forms, is_name=is_name)
                if stem(word) in common_stems() and not is_name:
                    weight *= _COMMON  # noqa: PLW2901
                self._add(by_stem, _Weighed(word, forms, weight, value, is_own=True))
        for word, weight in context.items():
            value = weight * self._index.idf(word)
            self._add(by_stem, _Weighed(word, {word: 1.0}, weight, value, is_own=False))
        weighed = list(by_stem.values())[:MAX_QUERY_TERMS]
        total = sum(each.value for each in weighed) or 1.0
        own_total = sum(each.value for each in weighed if each.is_own) or 1.0
        return Query(
            tuple(
                Concept(
                    each.word,
                    each.forms,
                    weight=each.weight,
                    share=each.value / total,
                    own_share=each.value / own_total if each.is_own else 0.0,
                    is_name=each.word in names,
                )
                for each in weighed
            ),
            doubt=self._doubt(weighed, names),
        )

    def compounds(self, in_order: Sequence[str]) -> tuple[str, ...]:
        """Return neighbouring words that are one word in the documents, such as "log in"."""
        pairs = pairwise(in_order)
        return tuple(
            dict.fromkeys(
                first + second
                for first, second in pairs
                if min(len(first), len(second)) > 1 and self._index.has_term(first + second)
            )
        )

    def _doubt(self, weighed: Sequence[_Weighed], names: frozenset[str]) -> float:
        """Return what to subtract from the confidence for words that the documents lack, and nothing stands for."""
        own = [each for each in weighed if each.is_own]
        missing = [each for each in own if not any(map(self._index.has_term, each.forms))]
        value = sum(
            each.value * (_DOUBT_ABOUT_NAMES if each.word in names else _DOUBT)
            for each in missing
            if each.word in names or stem(each.word) not in common_stems()
        )
        return value / (sum(each.value for each in own) or 1.0)

    @staticmethod
    def _add(by_stem: dict[str, _Weighed], added: _Weighed) -> None:
        before = by_stem.get(stem(added.word))
        if before is None or (before.value < added.value and before.is_own == added.is_own):
            by_stem[stem(added.word)] = added

    def _replacements(self, word: str, *, is_spanish: bool, is_name: bool, is_searched: bool) -> Mapping[str, float]:
        """Return what a word may stand for that the documents lack; empty if it is a misspelled stop word.

        ``is_searched``: whether the words of the documents are searched for similar ones, which takes longest.
        """
        forms = {word: 1.0}
        if is_spanish:
            forms |= dict.fromkeys(translations(word), _TRANSLATION)
            if len(forms) == 1 and is_searched:
                forms |= dict.fromkeys(self._beginning_like(word), _PREFIX)
        if len(forms) > 1 or not is_searched or word in known_words():
            return forms
        if related := self._related(word):
            return forms | dict.fromkeys(related, _PREFIX)
        return self._corrections(word, is_name=is_name)

    def _related(self, word: str) -> Sequence[str]:
        """Return the words of the documents that a word repeats or consists of."""
        if word.startswith("re") and self._index.has_term(word[2:]):
            return (word[2:],)
        return [part for part in self._spelling().parts(word) or () if part not in STOP_WORDS]

    def _corrections(self, word: str, *, is_name: bool) -> Mapping[str, float]:
        """Return a misspelled word and its corrections; empty if it is a misspelled stop word."""
        forms = {word: 1.0}
        spelling = self._spelling()
        similar = spelling.similar(word) if len(word) >= _MIN_NAME or not is_name else []
        if is_name and not similar:
            return forms
        if not similar or all(each in STOP_WORDS for each in similar):
            listed = _listed_spelling().similar(word)
            if len(word) < _MIN_LISTED:
                listed = [each for each in listed if each in STOP_WORDS]
            if any(each in STOP_WORDS for each in (*listed, *similar)):
                return {}
            similar = listed
        return forms | {each: _CORRECTION for each in similar if each not in STOP_WORDS}

    def _beginning_like(self, word: str) -> Iterable[str]:
        """Return the words of the documents that begin as a Spanish word does: many technical ones do."""
        key = spanish_key(word)
        prefix = key if len(key) >= _MIN_PREFIX else word
        if len(prefix) > _LONG_PREFIX:
            prefix = prefix[:-1]
        return self._spelling().beginning_with(prefix)[:_MAX_FORMS] if len(prefix) >= _MIN_PREFIX else ()

    def _related_in_meaning(self, word: str) -> Mapping[str, float]:
        """Return the words of the documents that an embedding finds, with how much a match counts."""
        return {
            each: min(_MEANING, _MEANING * (similarity - _NO_SIMILARITY) / (_SAME_MEANING - _NO_SIMILARITY))
            for each, similarity in self._similar_words(word).items()
            if similarity >= _MIN_SIMILARITY
        }

    def _with_synonyms(self, word: str, forms: Mapping[str, float]) -> Mapping[str, float]:
        related = {
            synonym: (_SYNONYM_OF_KNOWN if self._index.has_term(word) else _SYNONYM) * factor
            for form, factor in sorted(forms.items(), key=lambda each: each[1])
            for synonym in synonyms(form)
            if self._index.has_term(synonym)
        }
        return dict(
            list({**forms, **{each: related[each] for each in related if each not in forms}}.items())[:_MAX_FORMS]
        )

    def _rarity(self, word: str, forms: Mapping[str, float], *, is_name: bool) -> float:
        """Return the rarity of a word: of its best forms that the documents contain."""
        known = [form for form in forms if self._index.has_term(form)]
        # "Continue" is a common word, and the name of a program.
        is_common = stem(word) in common_stems() and not is_name
        if not known:
            return self._index.idf_of(()) * (_UNKNOWN_COMMON if is_common else _UNKNOWN_NAME if is_name else 1.0)
        best = max(forms[form] for form in known)
        rarity = self._index.idf_of([stem(form) for form in known if forms[form] == best])
        return rarity * (_COMMON if is_common else _KNOWN_NAME if is_name else 1.0)


@cache
def _listed_spelling() -> Spelling:
    return Spelling(known_words() | STOP_WORDS)
