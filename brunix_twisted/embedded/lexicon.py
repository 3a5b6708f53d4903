"""The word lists that are shipped: synonyms, common words, and Spanish words with their translations."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from brunix_twisted.embedded.tokenizer import stem, words

_FOLDER: Final = Path(__file__).with_name("lexicon")

# Endings of Spanish nouns, adjectives and verbs, longest first. What they leave is no linguistic stem, only a key that
# all forms of most words share.
_SPANISH_ENDING: Final = re.compile(
    r"(?<=\w{3})(?:aciones|iciones|acion|icion|ciones|cion|amientos?|imientos?|adores?|aremos|eremos|iremos|ieron|iendo"
    r"|aban|ados|adas|aron|ando|amos|emos|idos|idas|imos|ado|ada|aba|ara|era|ido|ida|ira|iera|ar|er|ir|as|es|is|os|an"
    r"|en|a|e|o|s)\Z"
)


@cache
def _synonyms() -> Mapping[str, frozenset[str]]:
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for line in _lines("synonyms.txt"):
        group = words(line)
        for each in group:
            groups[stem(each)].update(group)
    return {each: frozenset(group) for each, group in groups.items()}


def synonyms(word: str) -> frozenset[str]:
    """Return the synonyms of a word; empty if it is not in the list."""
    return _synonyms().get(stem(word), frozenset())


@cache
def known_words() -> frozenset[str]:
    """Return the English words in the lists, whose spelling is right although the documents may lack them."""
    listed = {word for group in _synonyms().values() for word in group}
    return frozenset(listed | {word for line in _lines("common.txt") for word in words(line)})


@cache
def common_stems() -> frozenset[str]:
    """Return the stems of words that say little about the subject of a question."""
    return frozenset(stem(word) for line in _lines("common.txt") for word in words(line))


@cache
def spanish_stop_words() -> frozenset[str]:
    """Return the Spanish words, without accents, that questions about any subject consist of."""
    return frozenset(word for line in _lines("spanish_stop.txt") for word in words(line))


@cache
def _phrases() -> Mapping[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]:
    by_first: defaultdict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = defaultdict(list)
    for line in _lines("phrases.txt"):
        phrase, _, meaning = line.partition(":")
        by_first[words(phrase)[0]].append((tuple(words(phrase)), tuple(words(meaning))))
    return {first: tuple(sorted(each, key=lambda pair: -len(pair[0]))) for first, each in by_first.items()}


def without_phrases(in_order: Sequence[str]) -> list[str]:
    """Replace phrases such as "get rid of" with the word that they mean."""
    replaced: list[str] = []
    position = 0
    while position < len(in_order):
        for phrase, meaning in _phrases().get(in_order[position], ()):
            if tuple(in_order[position : position + len(phrase)]) == phrase:
                replaced += meaning
                position += len(phrase)
                break
        else:
            replaced.append(in_order[position])
            position += 1
    return replaced


def translations(word: str) -> tuple[str, ...]:
    """Return the English translations of a Spanish word without accents, in any form."""
    exact, by_key = _spanish()
    return exact.get(word) or by_key.get(spanish_key(word), ())


def spanish_key(word: str) -> str:
    """Return what all forms of a Spanish word begin with, if it is regular."""
    return _SPANISH_ENDING.sub("", word)


@cache
def _spanish() -> tuple[Mapping[str, tuple[str, ...]], Mapping[str, tuple[str, ...]]]:
    exact: dict[str, tuple[str, ...]] = {}
    by_key: dict[str, tuple[str, ...]] = {}
    for line in _lines("spanish.txt"):
        spanish, _, english = line.partition(":")
        meanings = tuple(words(english))
        for word in words(spanish):
            exact[word] = exact.get(word, ()) + meanings
            key = spanish_key(word)
            by_key[key] = by_key.get(key, ()) + meanings
    return exact, by_key


def _lines(name: str) -> Iterator[str]:
    for line in (_FOLDER / name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line
