"""The measurement by which the threshold was chosen: answerable and unanswerable questions."""

from pathlib import Path

from brunix_twisted.embedded.answers import CONFIDENCE_THRESHOLD
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.retrieval import Retriever


def confidence(retriever: Retriever, question: str) -> float:
    found = Assistant(retriever, SessionHistory()).reply(question, "").hits
    return found[0].confidence if found else 0.0


def answered_shares(
    retriever: Retriever, questions: tuple[GoldenQuestion, ...], threshold: float
) -> tuple[float, float]:
    """Return the share of answerable questions that are answered, and of unanswerable ones that are not."""
    unanswerable = Path(__file__).with_name("unanswerable.txt").read_text().splitlines()
    answered = [confidence(retriever, question.question) >= threshold for question in questions]
    held_back = [confidence(retriever, question) < threshold for question in unanswerable]
    return sum(answered) / len(answered), sum(held_back) / len(held_back)


def test_threshold(retriever: Retriever, questions: tuple[GoldenQuestion, ...]) -> None:
    """The threshold separates answerable questions from unanswerable ones."""
    answered, held_back = answered_shares(retriever, questions, CONFIDENCE_THRESHOLD)
    assert answered >= 0.85
    assert held_back >= 0.85


def test_no_threshold_is_much_better(retriever: Retriever, questions: tuple[GoldenQuestion, ...]) -> None:
    """No other threshold separates them much better."""
    best = max(sum(answered_shares(retriever, questions, hundredth / 100)) for hundredth in range(5, 126))
    assert sum(answered_shares(retriever, questions, CONFIDENCE_THRESHOLD)) >= best - 0.05
