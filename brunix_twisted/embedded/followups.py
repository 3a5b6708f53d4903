"""Distinguish a follow-up ("and how do I turn it off?") from a self-contained question."""

import re
from collections.abc import Sequence
from typing import Final

from brunix_twisted.embedded.history import Turn
from brunix_twisted.embedded.index import MAX_QUERY_TERMS
from brunix_twisted.embedded.tokenizer import content_terms, words

# Maximum weight of a context term. Context decides between two passages; it does not outvote the question.
CONTEXT_WEIGHT: Final = 0.5

# Maximum number of context terms, so that a long conversation does not add its entire past to every search.
MAX_CONTEXT_TERMS: Final = 8

_CONJUNCTIONS: Final = frozenset({"and", "also", "but", "or", "plus", "so", "then"})
_PRONOUNS: Final = frozenset(
    {"it", "its", "that", "this", "those", "these", "they", "them", "their", "one", "ones", "same", "else", "instead"}
)
_PREPOSITIONS: Final = frozenset({"as", "at", "by", "for", "from", "in", "on", "under", "with", "without"})

# The "it" of "is it possible to" refers to nothing.
_DUMMY_IT: Final = re.compile(
    r"\b(?:is|was|would|will|does)\s+it\s+\w+\s+(?:to|that|if)\b|\bit\s+is\s+\w+\s+to\b", re.IGNORECASE
)
_WHAT_ABOUT: Final = re.compile(r"\s*(?:what|how)\s+(?:about|if)\b", re.IGNORECASE)

# A question with a pronoun and more content terms than this is self-contained: "Which signal ends a process that
# ignores the others?"
_MAX_TERMS_WITH_PRONOUN: Final = 3

_MAX_SHORT_TERMS: Final = 2


def needs_context(question: str) -> bool:
    """Return whether a question cannot be understood without the turn before it."""
    asked = words(_DUMMY_IT.sub(" ", question))
    terms = content_terms(question)
    if not terms or asked[0] in _CONJUNCTIONS or _WHAT_ABOUT.match(question):
        return True
    if len(terms) <= _MAX_TERMS_WITH_PRONOUN and not _PRONOUNS.isdisjoint(asked):
        return True
    # "On a slow network?" and "The default?", but not a search for two words.
    is_fragment = len(terms) == 1 and len(asked) <= _MAX_SHORT_TERMS
    return len(terms) <= _MAX_SHORT_TERMS and (asked[0] in _PREPOSITIONS or is_fragment)


def weighted_terms(question: str, context: Sequence[str] = ()) -> dict[str, float]:
    """Return the words to search for, with their weights: first the question's, which weigh 1, then the context's.

    All context words together weigh at most half of the question's words. Each word costs time in every chunk that is
    ranked, so there are at most as many as the index searches for.
    """
    weights = dict.fromkeys(content_terms(question)[:MAX_QUERY_TERMS], 1.0)
    added = [word for word in context[:MAX_CONTEXT_TERMS] if word not in weights]
    weight = CONTEXT_WEIGHT * max(1, len(weights)) / max(1, len(added))
    return weights | dict.fromkeys(added, min(weight, CONTEXT_WEIGHT))


def context_of(turns: Sequence[Turn]) -> tuple[str, ...]:
    """Return the search terms of the last answered turn.

    Skip turns without an answer: a follow-up does not refer to them.
    """
    return next((turn.terms for turn in reversed(turns) if turn.answered), ())
