"""The measurement that the threshold was chosen by, on questions that the documents answer and others they do not."""

from pathlib import Path

from brunix_twisted.embedded.answers import THRESHOLD
from brunix_twisted.embedded.followups import weigh
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.retrieval import Retriever


def confidence(retriever: Retriever, question: str) -> float:
    found = retriever.find(weigh(question), 1)
    return found[0].confidence if found else 0.0


def shares(retriever: Retriever, questions: tuple[GoldenQuestion, ...], threshold: float) -> tuple[float, float]:
    """Give the share of the answerable that is answered, and the share of the unanswerable that is not."""
    unanswerable = Path(__file__).with_name("unanswerable.txt").read_text().splitlines()
    answered = [confidence(retriever, question.question) >= threshold for question in questions]
    held_back = [confidence(retriever, question) < threshold for question in unanswerable]
    return sum(answered) / len(answered), sum(held_back) / len(held_back)


def test_the_threshold_parts_what_is_known_from_what_is_not(
    retriever: Retriever, questions: tuple[GoldenQuestion, ...]
) -> None:
    """The engine would answer what the documents do not say, or keep back what they do."""
    answered, held_back = shares(retriever, questions, THRESHOLD)
    assert answered >= 0.85
    assert held_back >= 0.85


def test_no_other_threshold_would_do_much_better(retriever: Retriever, questions: tuple[GoldenQuestion, ...]) -> None:
    """A change to the search would have left the threshold where it no longer belongs."""
    best = max(sum(shares(retriever, questions, hundredth / 100)) for hundredth in range(5, 126))
    assert sum(shares(retriever, questions, THRESHOLD)) >= best - 0.05
