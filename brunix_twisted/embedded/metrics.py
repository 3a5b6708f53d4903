"""The figures of an evaluation, computed from words and ranks. Every score is between 0 and 1."""

import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Final

from brunix_twisted.embedded.tokenizer import STOP_WORDS, stems, words

_MARKUP: Final = re.compile(r"[`*_\s]+")


def mean(values: Sequence[float]) -> float:
    """Return the mean; 0 for an empty sequence."""
    return fmean(values) if values else 0.0


def reciprocal_rank(rank: int) -> float:
    """Return 1 / rank; 0 for rank 0, which means not found."""
    return 1 / rank if rank else 0.0


def average_precision(relevant: Sequence[bool]) -> float:
    """Return the mean of the precision at each relevant position of a ranking."""
    return mean([sum(relevant[: index + 1]) / (index + 1) for index, each in enumerate(relevant) if each])


def contains_fact(text: str, key_fact: str) -> bool:
    """Return whether a text contains a key fact word for word, ignoring case, white space and emphasis."""
    return _plain(key_fact) in _plain(text)


def token_f1(text: str, key_fact: str) -> float:
    """Compare two texts as bags of stems: the harmonic mean of precision and recall."""
    predicted, expected = Counter(stems(text)), Counter(stems(key_fact))
    shared = (predicted & expected).total()
    return 2 * shared / (predicted.total() + expected.total()) if shared else 0.0


def term_recall(text: str, within: str) -> float:
    """Return the share of a text's terms that occur in another text. Stop words count only if it has no other words."""
    terms = set(stems(" ".join(word for word in words(text) if word not in STOP_WORDS))) or set(stems(text))
    return len(terms & set(stems(within))) / len(terms) if terms else 0.0


def _plain(text: str) -> str:
    return _MARKUP.sub(" ", text.lower().replace("`", "")).strip()
