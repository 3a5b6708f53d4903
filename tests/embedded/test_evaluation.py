from typing import TYPE_CHECKING

import grpc
import pytest

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.embedded.evaluation import evaluate
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.retrieval import Retriever

if TYPE_CHECKING:
    from served_engine import Served

Questions = tuple[GoldenQuestion, ...]


def always() -> bool:
    return True


def test_everything_is_evaluated_by_default(served: "Served", questions: Questions) -> None:
    """Figures would stand for fewer questions than thought."""
    response = served.evaluate()
    assert response.status == "ok"
    assert response.questions_evaluated == len(questions)
    assert [detail.id for detail in response.details] == [question.id for question in questions]
    assert response.judge_model == "none (lexical)"
    assert response.index == "embedded"


def test_the_search_is_as_good_as_it_was(served: "Served") -> None:
    """Answers would have got worse unnoticed."""
    verdict = served.evaluate().verdict
    figures = dict(line.split(": ") for line in verdict.splitlines() if line.count(": ") == 1)
    assert float(figures["hit@1"]) >= 0.85
    assert float(figures["hit@3"]) >= 0.95
    assert float(figures["MRR"]) >= 0.91
    assert float(figures["key fact"]) >= 0.78
    assert float(figures["lexical support"]) == 1.0


def test_what_needs_a_judge_stays_zero_and_is_said(served: "Served") -> None:
    """A figure would be taken for something that nobody has measured."""
    response = served.evaluate()
    assert (response.faithfulness, response.answer_relevancy, response.global_score) == (0, 0, 0)
    assert "faithfulness, answer_relevancy and global_score need a judge and stay 0" in response.verdict
    assert 0 < response.context_recall <= 1
    assert 0 < response.context_precision <= 1
    assert "context_recall " in response.verdict
    assert "context_precision " in response.verdict


def test_a_category_is_all_that_is_asked(served: "Served", questions: Questions) -> None:
    """Figures for one subject would be those of all."""
    response = served.evaluate(brunix_pb2.EvalRequest(category="network"))
    assert [detail.id for detail in response.details] == [each.id for each in questions if each.category == "network"]
    assert {detail.category for detail in response.details} == {"network"}


def test_a_limit_is_kept(served: "Served") -> None:
    """A quick look would take as long as the whole."""
    response = served.evaluate(brunix_pb2.EvalRequest(category="network", limit=2))
    assert response.questions_evaluated == len(response.details) == 2


def test_a_limit_beyond_the_questions_asks_them_all(served: "Served", questions: Questions) -> None:
    """A generous limit would be an error."""
    assert served.evaluate(brunix_pb2.EvalRequest(limit=10_000)).questions_evaluated == len(questions)


def test_a_negative_limit_is_refused(served: "Served") -> None:
    """A slip of the pen would leave out the last questions in silence."""
    with pytest.raises(grpc.RpcError) as error:
        served.evaluate(brunix_pb2.EvalRequest(limit=-1))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_category_is_told(served: "Served") -> None:
    """Somebody would take a slip of the pen for a score of 0."""
    response = served.evaluate(brunix_pb2.EvalRequest(category="netwrok"))
    assert response.status.startswith("unknown category 'netwrok': there are databases, files, network")
    assert response.questions_evaluated == 0


def test_an_unknown_index_is_told(served: "Served") -> None:
    """Somebody would take the figures of this engine for those of another index."""
    response = served.evaluate(brunix_pb2.EvalRequest(index="production"))
    assert response.status == "unknown index 'production': there is 'embedded'"
    assert served.evaluate(brunix_pb2.EvalRequest(index="embedded", limit=1)).status == "ok"


def test_an_evaluation_leaves_the_sessions_alone(served: "Served") -> None:
    """Somebody's follow-up would be about a golden question."""
    served.evaluate()
    assert served.sessions.turns("") == ()


def test_a_caller_who_has_gone_ends_the_evaluation(retriever: Retriever, questions: Questions) -> None:
    """An evaluation that nobody waits for would keep the engine busy."""
    left = iter((True, True, False))
    response = evaluate(retriever, questions, brunix_pb2.EvalRequest(), lambda: next(left))
    assert response.questions_evaluated == 2


@pytest.mark.parametrize(("key_fact", "recall"), [("kept", 1.0), ("Moved", 0.0)])
def test_of_a_table_only_the_row_that_was_found_is_context(retriever: Retriever, key_fact: str, recall: float) -> None:
    """Any fact of a long table would count as found."""
    golden = (GoldenQuestion("1", "c", "Which redirect keeps the POST method?", key_fact, "network/http-status.md"),)
    assert evaluate(retriever, golden, brunix_pb2.EvalRequest(), always).context_recall == recall


def test_ranks_are_told_question_by_question(retriever: Retriever) -> None:
    """Nobody could see which question was missed."""
    golden = (
        GoldenQuestion("1", "c", "What is a checkpoint?", "1000 pages", "sqlite.md#checkpoints"),
        GoldenQuestion("2", "c", "Who wrote Don Quixote?", "Cervantes", "books.md"),
    )
    verdict = evaluate(retriever, golden, brunix_pb2.EvalRequest(), always).verdict
    assert verdict.splitlines()[:3] == [
        "question                rank  source",
        "What is a checkpoint?      1  sqlite.md#checkpoints",
        "Who wrote Don Quixote?     -  books.md",
    ]
    assert "\nhit@1: 0.500\n" in verdict
    assert "\nMRR: 0.500\n" in verdict
    assert "\nanswered: 1\n" in verdict
