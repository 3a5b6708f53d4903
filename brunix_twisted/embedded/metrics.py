"""What the evaluation measures, as plain arithmetic on words and ranks. Every score is from 0 to 1."""

import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Final

from brunix_twisted.embedded.tokenizer import STOP_WORDS, stems, words

_MARKUP: Final = re.compile(r"[`*_\s]+")


def mean(values: Sequence[float]) -> float:
    """Give the mean, and 0 of nothing."""
    return fmean(values) if values else 0.0


def reciprocal(rank: int) -> float:
    """Give 1 over a rank from 1, and 0 for rank 0, which is not found."""
    return 1 / rank if rank else 0.0


def average_precision(relevant: Sequence[bool]) -> float:
    """Give the mean, over the relevant places of a ranking, of the share that was relevant down to each."""
    return mean([sum(relevant[: place + 1]) / (place + 1) for place, each in enumerate(relevant) if each])


def contains(text: str, key_fact: str) -> bool:
    """Tell whether a text has a key fact in it word for word, whatever the case, the spacing and the emphasis."""
    return _plain(key_fact) in _plain(text)


def token_f1(text: str, key_fact: str) -> float:
    """Compare two texts as bags of stems: the harmonic mean of precision and recall."""
    said, wanted = Counter(stems(text)), Counter(stems(key_fact))
    shared = (said & wanted).total()
    return 2 * shared / (said.total() + wanted.total()) if shared else 0.0


def word_share(text: str, within: str) -> float:
    """Give the share of a text's telling words that stand within another text; of a text without any, of all words."""
    telling = set(stems(" ".join(word for word in words(text) if word not in STOP_WORDS))) or set(stems(text))
    return len(telling & set(stems(within))) / len(telling) if telling else 0.0


def _plain(text: str) -> str:
    return _MARKUP.sub(" ", text.lower().replace("`", "")).strip()
