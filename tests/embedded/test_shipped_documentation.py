"""What the engine says of this project's own documentation: the first answers that anybody sees."""

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.embedded import __main__ as command
from brunix_twisted.embedded.answers import Answer
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.documents import read_documents
from brunix_twisted.embedded.evaluation import evaluate
from brunix_twisted.embedded.golden import GoldenQuestion, read_golden
from brunix_twisted.embedded.history import Sessions
from brunix_twisted.embedded.options import default_docs
from brunix_twisted.embedded.passages import passages_of_all
from brunix_twisted.embedded.retrieval import Retriever

Ask = Callable[[str], Answer]


@pytest.fixture(scope="module")
def documentation() -> Iterator[Retriever]:
    retriever = Retriever(passages_of_all(read_documents(default_docs())))
    yield retriever
    retriever.close()


@pytest.fixture(scope="module")
def golden() -> tuple[GoldenQuestion, ...]:
    return read_golden(Path(command.__file__).with_name("golden.jsonl"))


@pytest.fixture
def ask(documentation: Retriever) -> Ask:
    """Give a function that asks in one session."""
    assistant = Assistant(documentation, Sessions())

    def asked(question: str) -> Answer:
        reply = assistant.reply(question, "talk")
        assistant.remember("talk", reply.turn)
        return reply.answer

    return asked


def test_a_setting_is_answered_with_its_row_and_so_is_the_follow_up(ask: Ask) -> None:
    """The first question of the tutorial would be answered with a table of everything else."""
    for question in ("Which variable sets the number of worker threads?", "And what is its default?"):
        (quotation,) = ask(question).quotations
        _, _, row = quotation.split("\n")
        assert row.startswith("| `PROXY_THREAD_WORKERS` |")


def test_the_row_that_states_a_fact_beats_the_example_that_asks_for_it(ask: Ask) -> None:
    """A question of the documentation's examples would be answered with the example."""
    (quotation,) = ask("How long does a question wait for a worker?").quotations
    _, _, row = quotation.split("\n")
    assert row.startswith("| `PROXY_QUEUE_TIMEOUT_S` |")


def test_a_how_to_is_answered_with_what_is_to_be_copied(ask: Ask) -> None:
    """Somebody who wants to use an editor would be told that it can be done."""
    given = ask("How do I point Continue at this gateway?")
    assert "apiBase: http://127.0.0.1:8000/v1" in given.code
    assert f"```yaml\n{given.code}\n```" in given.text


def test_the_documentation_is_searched_as_well_as_it_was(
    documentation: Retriever, golden: tuple[GoldenQuestion, ...]
) -> None:
    """The first answers that anybody sees would have got worse unnoticed."""
    verdict = evaluate(documentation, golden, brunix_pb2.EvalRequest(), lambda: True).verdict
    figures = dict(line.split(": ") for line in verdict.splitlines() if line.count(": ") == 1)
    assert float(figures["hit@3"]) >= 0.9
    assert float(figures["lexical support"]) == 1.0


def test_answers_fit_a_chat_window(ask: Ask, golden: tuple[GoldenQuestion, ...]) -> None:
    """Every question would be answered with a page of text."""
    assert median(len(ask(question.question).text) for question in golden) <= 500
