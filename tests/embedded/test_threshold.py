"""The measurement by which the threshold was chosen: answerable and unanswerable questions."""

from pathlib import Path

import pytest

from brunix_twisted.embedded.answers import CONFIDENCE_THRESHOLD
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.retrieval import Retriever

Confidences = tuple[list[float], list[float]]


@pytest.fixture
def confidences(retriever: Retriever, questions: tuple[GoldenQuestion, ...]) -> Confidences:
    """The confidence of each answerable question, and of each unanswerable one."""

    def confidence(question: str) -> float:
        found = Assistant(retriever, SessionHistory()).reply(question, "").hits
        return found[0].confidence if found else 0.0

    unanswerable = Path(__file__).with_name("unanswerable.txt").read_text().splitlines()
    return [confidence(question.question) for question in questions], [confidence(each) for each in unanswerable]


def answered_shares(confidences: Confidences, threshold: float) -> tuple[float, float]:
    """Return the share of answerable questions that are answered, and of unanswerable ones that are not."""
    answerable, unanswerable = confidences
    answered = sum(each >= threshold for each in answerable) / len(answerable)
    return answered, sum(each < threshold for each in unanswerable) / len(unanswerable)


def test_threshold(confidences: Confidences) -> None:
    """The threshold separates answerable questions from unanswerable ones."""
    answered, held_back = answered_shares(confidences, CONFIDENCE_THRESHOLD)
    assert answered >= 0.85
    assert held_back >= 0.85


def test_no_threshold_is_much_better(confidences: Confidences) -> None:
    """No other threshold separates them much better."""
    best = max(sum(answered_shares(confidences, hundredth / 100)) for hundredth in range(5, 126))
    assert sum(answered_shares(confidences, CONFIDENCE_THRESHOLD)) >= best - 0.05
