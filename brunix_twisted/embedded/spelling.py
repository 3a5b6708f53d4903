"""Find the words of the documents that a misspelled word may stand for."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import takewhile
from typing import Final

# Shorter words have too many neighbours.
_MIN_LENGTH: Final = 4
# Words of this length may have two typing errors.
_MIN_LENGTH_OF_TWO: Final = 8
# A shorter word must begin with the same letter.
_MIN_LENGTH_OF_FREE_START: Final = 6
_MAX_LENGTH: Final = 32

_KEYS: Final = {
    key: (row, column)
    for row, keys in enumerate(("qwertyuiop", "asdfghjkl", "zxcvbnm"))
    for column, key in enumerate(keys)
}
_VOWELS: Final = frozenset("aeiou")
# Shorter words that differ in a vowel are other words: "paint" is no "point".
_MIN_LENGTH_OF_VOWELS: Final = 7
# Letters that sound alike.
_ALIKE: Final = frozenset({"ck", "cs", "dt", "iy", "mn", "kc", "sc", "td", "yi", "nm"})


class Spelling:
    """The words of the documents, to look up similar ones."""

    def __init__(self, vocabulary: Collection[str]) -> None:
        """Sort the words by first letter and length."""
        self._words = frozenset(vocabulary)
        self._in_order = sorted(self._words)
        self._groups: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for word in self._words:
            if _MIN_LENGTH <= len(word) <= _MAX_LENGTH and not any(map(str.isdigit, word)):
                self._groups[word[0], len(word)].append(word)
        self._letters = sorted({letter for letter, _ in self._groups})

    def similar(self, word: str) -> list[str]:
        """Return the words at the smallest distance: 1, or 2 for a long word. The list may be empty."""
        if not _MIN_LENGTH <= len(word) <= _MAX_LENGTH or any(map(str.isdigit, word)):
            return []
        limit = 2 if len(word) >= _MIN_LENGTH_OF_TWO else 1
        found: defaultdict[int, list[str]] = defaultdict(list)
        for candidate in self._candidates(word, limit):
            distance = _distance(word, candidate, limit)
            if distance <= limit and not (distance == 1 and _is_another_word(word, candidate)):
                found[distance].append(candidate)
        return sorted(found[min(found)]) if found else []

    def beginning_with(self, prefix: str) -> list[str]:
        """Return the words that begin with a prefix."""
        found = self._in_order[bisect_left(self._in_order, prefix) :]
        return list(takewhile(lambda word: word.startswith(prefix), found))

    def parts(self, word: str) -> tuple[str, str] | None:
        """Return the two words that a compound consists of."""
        for end in range(3, len(word) - 2):
            if word[:end] in self._words and word[end:] in self._words:
                return word[:end], word[end:]
        return None

    def _candidates(self, word: str, limit: int) -> Iterator[str]:
        letters = self._letters if len(word) >= _MIN_LENGTH_OF_FREE_START else [word[0]]
        for letter in letters:
            # Only one error may be in the beginning.
            tolerance = limit if letter == word[0] else 1
            for length in range(len(word) - tolerance, len(word) + tolerance + 1):
                for candidate in self._groups.get((letter, length), ()):
                    if (
                        letter == word[0]
                        or candidate[1:] == word[1:]
                        or candidate[1:] == word
                        or word[1:] == candidate
                        or (candidate[:2] == word[1::-1] and candidate[2:] == word[2:])
                    ):
                        yield candidate


def _is_another_word(word: str, other: str) -> bool:
    """Return whether two words differ in one letter that is rarely mistaken: "shipping" and "skipping" do."""
    if len(word) != len(other):
        return False
    different = [pair for pair in zip(word, other, strict=True) if pair[0] != pair[1]]
    if len(different) != 1:
        return False
    ((letter, correct),) = different
    if len(word) == _MIN_LENGTH:
        return True
    if letter in _VOWELS and correct in _VOWELS:
        return len(word) < _MIN_LENGTH_OF_VOWELS
    return letter + correct not in _ALIKE and not _are_neighbours(letter, correct)


def _are_neighbours(letter: str, other: str) -> bool:
    """Return whether two keys are next to each other on a keyboard."""
    if letter not in _KEYS or other not in _KEYS:
        return True
    (row, column), (other_row, other_column) = _KEYS[letter], _KEYS[other]
    return abs(row - other_row) <= 1 and abs(column - other_column) <= 1


def _distance(word: str, other: str, limit: int) -> int:
    """Count insertions, deletions, replacements and swaps of neighbours; stop above the limit."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, start=1):
        older, before, row = before, row, [i]
        for j, candidate in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != candidate))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == candidate:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return row[-1]
