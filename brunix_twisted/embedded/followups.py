"""Distinguish a follow-up ("and how do I turn it off?") from a self-contained question."""

import re
from collections.abc import Sequence
from typing import Final

from brunix_twisted.embedded.history import Turn
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

_INTERROGATIVES: Final = frozenset(
    {"what", "which", "who", "when", "where", "why", "how", "is", "are", "does", "do", "can", "if"}
)

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


def is_fragment(question: str) -> bool:
    """Return whether a question such as "And on Debian?" says only what differs from the question before it."""
    asked = words(question)
    return bool(asked) and (
        bool(_WHAT_ABOUT.match(question))
        or asked[0] in _PREPOSITIONS
        or (asked[0] in _CONJUNCTIONS and (len(asked) == 1 or asked[1] not in _INTERROGATIVES))
    )


def context_weights(own_count: int, context: Sequence[str], weight: float = CONTEXT_WEIGHT) -> dict[str, float]:
    """Weigh the words of the context of a question with a number of terms: together at most half of the question."""
    context = context[:MAX_CONTEXT_TERMS]
    each = weight * max(1, own_count) / max(1, len(context))
    return dict.fromkeys(context, min(each, weight))


def last_answered(turns: Sequence[Turn]) -> Turn | None:
    """Return the last turn with an answer: a follow-up does not refer to one without."""
    return next((turn for turn in reversed(turns) if turn.answered), None)


def context_of(turn: Turn | None) -> tuple[str, ...]:
    """Return the terms that a follow-up to a turn is about: of its question, and of the headings of its answer."""
    return tuple(dict.fromkeys((*turn.terms, *turn.subject))) if turn else ()
