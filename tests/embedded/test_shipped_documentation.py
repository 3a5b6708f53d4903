"""Answers from this project's own documentation, which new users see first."""

import re
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
from brunix_twisted.embedded.history import SessionHistory
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
    """Return a function that asks in one session."""
    assistant = Assistant(documentation, SessionHistory())

    def asked(question: str) -> Answer:
        reply = assistant.reply(question, "talk")
        assistant.remember("talk", reply.turn)
        return reply.answer

    return asked


def test_setting_and_follow_up(ask: Ask) -> None:
    """The tutorial's first question and its follow-up are answered with the row of the setting."""
    for question in ("Which variable sets the number of worker threads?", "And what is its default?"):
        (quotation,) = ask(question).quotations
        _, _, row = quotation.split("\n")
        assert row.startswith("| `PROXY_THREAD_WORKERS` |")


def test_row_beats_example(ask: Ask) -> None:
    """The row that states a fact ranks above the example that contains the question."""
    first, *_ = ask("How long does a question wait for a worker?").quotations
    _, _, row, *_ = first.split("\n")
    assert row.startswith("| `PROXY_QUEUE_TIMEOUT_S` |")


def test_how_to(ask: Ask) -> None:
    """A how-to question is answered with the configuration to copy."""
    given = ask("How do I point Continue at this gateway?")
    configurations = re.findall(r"^```yaml\n(.*?)^```$", given.text, re.MULTILINE | re.DOTALL)
    assert any("apiBase: http://127.0.0.1:8000/v1" in each for each in configurations)


def test_search_quality(documentation: Retriever, golden: tuple[GoldenQuestion, ...]) -> None:
    """The search quality on the documentation does not drop."""
    verdict = evaluate(documentation, golden, brunix_pb2.EvalRequest(), lambda: True).verdict
    figures = dict(line.split(": ") for line in verdict.splitlines() if line.count(": ") == 1)
    assert float(figures["hit@3"]) >= 0.9
    assert float(figures["lexical support"]) == 1.0


def test_median_length(ask: Ask, golden: tuple[GoldenQuestion, ...]) -> None:
    """The median answer to the golden questions has at most 500 characters."""
    assert median(len(ask(question.question).text) for question in golden) <= 500
