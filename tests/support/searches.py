"""Search documents for words, or for a question without a session."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from brunix_twisted.embedded.question import read
from brunix_twisted.embedded.retrieval import Retriever, SearchHit


def find(retriever: Retriever, words: Iterable[str], limit: int = 3) -> list[SearchHit]:
    """Find the passages for words that weigh the same."""
    question = attrs.evolve(read("?"), terms=dict.fromkeys(words, 1.0))
    return retriever.find(retriever.query(question, {}), limit)


def find_answer(retriever: Retriever, question: str, limit: int = 3) -> list[SearchHit]:
    """Find the passages for a question."""
    asked = read(question)
    return retriever.find(retriever.query(asked, {}), limit, asked.intent)
