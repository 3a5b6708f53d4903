"""Split texts into words, and select the content terms of a question."""

import re
import unicodedata
from typing import Final

from brunix_twisted.embedded.stemming import stem

_WORD: Final = re.compile(r"[^\W_]+")
_MARKS_CATEGORY: Final = "Mn"

# Words that occur in questions about any subject. "off", "up", "down", "without" and similar words are not in the list,
# because they are often essential to a question.
STOP_WORDS: Final = frozenset(
    """
    a about after afterwards all along already also although am among an and any anybody anyone anything are as at be
    because been being but by can cannot cant come comes could d did didn do does doesn doing don done each either else
    ever every exactly example explain for from get gets give given go goes going got had happen happens has have
    having he help her here hers him his how however i if im in instead into is isn it its itself just know let like ll
    m made make makes many may me mean means might mine more much must my need needed needs not now of on one ones only
    or other others ought our ours out own please possible quite rather re really s same say says see seem seems shall
    she should show so some somebody someone something still such sure t tell than that the their theirs them then
    there these they thing things this those though to too toward upon us use used uses using ve very want wants was
    wasn way ways we were what whatever when where whether which while who whom whose why will with won work works
    would yet you your yours yourself
    """.split()  # noqa: SIM905 - as a list it would be two hundred lines
)


def words(text: str) -> list[str]:
    """Split a text into words as the index does: letters and digits, in lower case, without accents."""
    if not text.isascii():
        apart = unicodedata.normalize("NFKD", text)
        text = "".join(letter for letter in apart if unicodedata.category(letter) != _MARKS_CATEGORY)
    return _WORD.findall(text.lower())


def stems(text: str) -> list[str]:
    """Return the stem of every word of a text, in order, including stop words."""
    return [stem(word) for word in words(text)]


def content_terms(text: str) -> tuple[str, ...]:
    """Return the words that say what a question is about, in order: no stop words, and each stem once."""
    by_stem: dict[str, str] = {}
    for word in words(text):
        if word not in STOP_WORDS:
            by_stem.setdefault(stem(word), word)
    return tuple(by_stem.values())
