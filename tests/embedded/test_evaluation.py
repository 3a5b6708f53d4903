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


def test_all_questions_by_default(served: "Served", questions: Questions) -> None:
    """Without a category or limit, all questions are evaluated."""
    response = served.evaluate()
    assert response.status == "ok"
    assert response.questions_evaluated == len(questions)
    assert [detail.id for detail in response.details] == [question.id for question in questions]
    assert response.judge_model == "none (lexical)"
    assert response.index == "embedded"


def test_search_quality(served: "Served") -> None:
    """The search quality on the test documents does not drop."""
    verdict = served.evaluate().verdict
    figures = dict(line.split(": ") for line in verdict.splitlines() if line.count(": ") == 1)
    assert float(figures["hit@1"]) >= 0.85
    assert float(figures["hit@3"]) >= 0.95
    assert float(figures["MRR"]) >= 0.91
    assert float(figures["key fact"]) >= 0.78
    assert float(figures["lexical support"]) == 1.0


def test_judged_figures_are_zero(served: "Served") -> None:
    """Figures that require a judge are 0, and the report says so."""
    response = served.evaluate()
    assert (response.faithfulness, response.answer_relevancy, response.global_score) == (0, 0, 0)
    assert "faithfulness, answer_relevancy and global_score require a judge and are always 0" in response.verdict
    assert 0 < response.context_recall <= 1
    assert 0 < response.context_precision <= 1
    assert "context_recall " in response.verdict
    assert "context_precision " in response.verdict


def test_category(served: "Served", questions: Questions) -> None:
    """With a category, only its questions are evaluated."""
    response = served.evaluate(brunix_pb2.EvalRequest(category="network"))
    assert [detail.id for detail in response.details] == [each.id for each in questions if each.category == "network"]
    assert {detail.category for detail in response.details} == {"network"}


def test_limit(served: "Served") -> None:
    """A limit restricts the number of questions."""
    response = served.evaluate(brunix_pb2.EvalRequest(category="network", limit=2))
    assert response.questions_evaluated == len(response.details) == 2


def test_large_limit(served: "Served", questions: Questions) -> None:
    """A limit above the number of questions evaluates all of them."""
    assert served.evaluate(brunix_pb2.EvalRequest(limit=10_000)).questions_evaluated == len(questions)


def test_negative_limit(served: "Served") -> None:
    """A negative limit is INVALID_ARGUMENT."""
    with pytest.raises(grpc.RpcError) as error:
        served.evaluate(brunix_pb2.EvalRequest(limit=-1))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_unknown_category(served: "Served") -> None:
    """An unknown category is reported with the categories that exist."""
    response = served.evaluate(brunix_pb2.EvalRequest(category="netwrok"))
    assert response.status.startswith("unknown category 'netwrok'; available: databases, files, network")
    assert response.questions_evaluated == 0


def test_unknown_index(served: "Served") -> None:
    """An unknown index is reported with the index that exists."""
    response = served.evaluate(brunix_pb2.EvalRequest(index="production"))
    assert response.status == "unknown index 'production'; available: 'embedded'"
    assert served.evaluate(brunix_pb2.EvalRequest(index="embedded", limit=1)).status == "ok"


def test_sessions_are_unchanged(served: "Served") -> None:
    """An evaluation does not change any session."""
    served.evaluate()
    assert served.sessions.turns("") == ()


def test_cancelled_evaluation(retriever: Retriever, questions: Questions) -> None:
    """An evaluation stops when its caller has cancelled the call."""
    left = iter((True, True, False))
    response = evaluate(retriever, questions, brunix_pb2.EvalRequest(), lambda: next(left))
    assert response.questions_evaluated == 2


@pytest.mark.parametrize(("key_fact", "recall"), [("kept", 1.0), ("Moved", 0.0)])
def test_context_of_a_table(retriever: Retriever, key_fact: str, recall: float) -> None:
    """The context of a table is the row that was found."""
    golden = (GoldenQuestion("1", "c", "Which redirect keeps the POST method?", key_fact, "network/http-status.md"),)
    assert evaluate(retriever, golden, brunix_pb2.EvalRequest(), always).context_recall == recall


def test_rank_of_each_question(retriever: Retriever) -> None:
    """The report has the rank of each question."""
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


def test_expected_refusals_and_small_talk(retriever: Retriever) -> None:
    """A golden file may contain questions that are not to be answered, small talk, and follow-ups."""
    golden = (
        GoldenQuestion("1", "unanswerable", "Who wrote Don Quixote?", expect="refusal"),
        GoldenQuestion("2", "unanswerable", "What is a checkpoint?", expect="refusal"),
        GoldenQuestion("3", "small talk", "hi", expect="small talk"),
        GoldenQuestion("4", "small talk", "Who wrote Don Quixote?", expect="small talk"),
        GoldenQuestion(
            "5", "follow-up", "and does it work over a network?", "network", "sqlite.md", ("What is WAL in SQLite?",)
        ),
    )
    verdict = evaluate(retriever, golden, brunix_pb2.EvalRequest(), always).verdict
    assert "\nuseful: 0.600\n" in verdict
    assert "\nhit@1: 1.000\n" in verdict
    assert "Who wrote Don Quixote?               -  (refusal)" in verdict


def test_long_questions_are_shortened(retriever: Retriever) -> None:
    """The report shows a question of many lines on one line."""
    golden = (GoldenQuestion("1", "c", "What is\na checkpoint?\n" + "x = 1\n" * 100, "1000 pages", "sqlite.md"),)
    first = evaluate(retriever, golden, brunix_pb2.EvalRequest(), always).verdict.splitlines()[1]
    assert first.startswith("What is a checkpoint? x = 1")
    assert len(first) < 150
