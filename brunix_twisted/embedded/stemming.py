"""Porter's stemmer, step for step as SQLite's FTS5 has it.

The index stems inside SQLite; sentences and questions are weighed here. Both must come to the same stem, or a word
that finds a passage would not count inside it. A test holds the two against each other.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Final

# FTS5 leaves shorter and longer words alone (FTS5_PORTER_MAX_TOKEN).
SHORTEST: Final = 3
LONGEST: Final = 64

_STEP_2: Final = (
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("logi", "log"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
)
_STEP_3: Final = (
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
)
_STEP_4: Final = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate"),
    *("iti", "ous", "ive", "ize"),
)


def _consonants(word: str) -> list[bool]:
    """Tell for every letter whether it is a consonant: a ``y`` after a consonant is a vowel."""
    marks: list[bool] = []
    consonant = False
    for letter in word:
        consonant = letter not in "aeiou" and not (letter == "y" and consonant)
        marks.append(consonant)
    return marks


def _measure(word: str) -> int:
    """Count the changes from a vowel to a consonant: Porter's m."""
    marks = _consonants(word)
    return sum(1 for before, after in pairwise(marks) if not before and after)


def _has_vowel(word: str) -> bool:
    """Tell whether there is a vowel; a ``y`` counts unless it is the first letter."""
    return any(letter in "aeiou" or (letter == "y" and place > 0) for place, letter in enumerate(word))


def _ends_cvc(word: str) -> bool:
    """Tell whether the word ends consonant, vowel, consonant, the last none of w, x and y: Porter's *o."""
    return not word.endswith(("w", "x", "y")) and _consonants(word)[-3:] == [True, False, True]


def _step_1a(word: str) -> str:
    # In SQLite a rule needs a letter before its suffix.
    if word[1:].endswith(("sses", "ies")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _step_1b(word: str) -> str:
    if word[1:].endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        stem = word.removesuffix(suffix)
        if stem != word and stem:
            return _step_1b_after(stem) if _has_vowel(stem) else word
    return word


def _step_1b_after(stem: str) -> str:
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if stem[-1:] == stem[-2:-1] and stem[-1] not in "aeioulsz":
        return stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _ends_cvc(stem) else stem


def _step_1c(word: str) -> str:
    return word[:-1] + "i" if word.endswith("y") and _has_vowel(word[:-1]) else word


def _replace(word: str, rules: tuple[tuple[str, str], ...]) -> str:
    for suffix, replacement in rules:
        stem = word.removesuffix(suffix)
        if stem != word:
            return stem + replacement if _measure(stem) > 0 else word
    return word


def _step_4(word: str) -> str:
    for suffix in _STEP_4:
        stem = word.removesuffix(suffix)
        if stem != word:
            drops = _measure(stem) > 1 and (suffix != "ion" or stem.endswith(("s", "t")))
            return stem if drops else word
    return word


def _step_5(word: str) -> str:
    if word.endswith("e"):
        stem = word[:-1]
        measure = _measure(stem)
        if measure > 1 or (measure == 1 and not _ends_cvc(stem)):
            word = stem
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Give the stem of one word of lower case letters and digits. Any thread may call it.

    Bytes outside ASCII count as consonants one by one, as in SQLite, whence the turn through Latin-1.
    """
    letters = word.encode("utf-8", "surrogatepass").decode("latin-1")
    if not SHORTEST <= len(letters) <= LONGEST:
        return word
    letters = _step_1c(_step_1b(_step_1a(letters)))
    letters = _step_5(_step_4(_replace(_replace(letters, _STEP_2), _STEP_3)))
    return letters.encode("latin-1").decode("utf-8", "replace")
