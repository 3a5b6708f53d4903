"""Telling a follow-up ("and how do I turn it off?") from a question that stands alone."""

import re
from collections.abc import Sequence
from typing import Final

from brunix_twisted.embedded.history import Turn
from brunix_twisted.embedded.tokenizer import telling_words, words

# A word of the context weighs less than one of the question: it settles which of two passages is meant and cannot
# outvote what was asked.
CONTEXT_WEIGHT: Final = 0.5

# How many words a follow-up takes over, so that a long talk does not carry its whole past into every search.
MOST_CONTEXT: Final = 8

_OPENERS: Final = frozenset({"and", "also", "but", "or", "plus", "so", "then"})
_POINTERS: Final = frozenset(
    {"it", "its", "that", "this", "those", "these", "they", "them", "their", "one", "ones", "same", "else", "instead"}
)
_LINKS: Final = frozenset({"as", "at", "by", "for", "from", "in", "on", "under", "with", "without"})

# "Is it possible to" and its like point at nothing.
_EMPTY_IT: Final = re.compile(
    r"\b(?:is|was|would|will|does)\s+it\s+\w+\s+(?:to|that|if)\b|\bit\s+is\s+\w+\s+to\b", re.IGNORECASE
)
_WHAT_ABOUT: Final = re.compile(r"\s*(?:what|how)\s+(?:about|if)\b", re.IGNORECASE)

# With a pointer, a question of more telling words than this is its own context: "Which signal ends a process that
# ignores the others?" asks nothing of the turn before.
_MOST_WITH_POINTER: Final = 3

_SHORT: Final = 2


def needs_context(question: str) -> bool:
    """Tell whether a question cannot be understood without what was said before it."""
    asked = words(_EMPTY_IT.sub(" ", question))
    own = telling_words(question)
    if not own or asked[0] in _OPENERS or _WHAT_ABOUT.match(question):
        return True
    if len(own) <= _MOST_WITH_POINTER and not _POINTERS.isdisjoint(asked):
        return True
    # "On a slow network?" and "The default?", but not a search by two bare words.
    return len(own) <= _SHORT and (asked[0] in _LINKS or (len(own) == 1 and len(asked) <= _SHORT))


def weigh(question: str, context: Sequence[str] = ()) -> dict[str, float]:
    """Give the words that a question is searched by, with their weights: 1 for its own, then those of its context.

    However many they are, the words of the context weigh half of the question's own together.
    """
    weights = dict.fromkeys(telling_words(question), 1.0)
    added = [word for word in context[:MOST_CONTEXT] if word not in weights]
    each = CONTEXT_WEIGHT * max(1, len(weights)) / max(1, len(added))
    return weights | dict.fromkeys(added, min(each, CONTEXT_WEIGHT))


def context_of(turns: Sequence[Turn]) -> tuple[str, ...]:
    """Give the words that the last answered turn was searched by.

    A turn that the documents had nothing to say to is passed over: there was nothing to follow up.
    """
    return next((turn.words for turn in reversed(turns) if turn.answered), ())
