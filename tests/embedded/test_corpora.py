"""Questions of users about three folders: the product and the language are tuned on, the handbook is not."""

from collections.abc import Sequence
from functools import cache

import pytest

from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.language_model import LanguageModel
from brunix_twisted.embedded.writing import NOT_ANSWERED, Writer
from evaluated_corpora import TUNED, UNSEEN, Outcome, evaluated, retriever_of, table, written
from language_models import ScriptedModel, completion


@cache
def outcomes(name: str) -> Sequence[Outcome]:
    return tuple(evaluated(name))


def share(name: str, *kinds: str) -> float:
    """Return the share of useful replies to questions of some kinds; without kinds, to all."""
    chosen = [each.is_useful for each in outcomes(name) if not kinds or each.golden.category in kinds]
    assert chosen
    return sum(chosen) / len(chosen)


@pytest.mark.parametrize("name", [*TUNED, UNSEEN])
def test_useful_replies(name: str) -> None:
    """At least four in five replies are useful."""
    assert share(name) >= 0.8


@pytest.mark.parametrize("name", [*TUNED, UNSEEN])
@pytest.mark.parametrize(
    ("kind", "minimum"),
    [
        ("plain", 0.9),
        ("paraphrased", 0.5),
        ("typos", 0.9),
        ("follow-up", 0.75),
        ("spanish", 0.7),
        ("pasted code", 0.8),
        ("unanswerable", 0.8),
        ("small talk", 1.0),
    ],
)
def test_each_kind(name: str, kind: str, minimum: float) -> None:
    """The quality of the answers to no kind of question drops."""
    assert share(name, kind) >= minimum


@pytest.mark.parametrize(("kind", "minimum"), [("follow-up", 0.95), ("pasted code", 0.85), ("unanswerable", 0.9)])
def test_each_kind_in_all_folders(kind: str, minimum: float) -> None:
    """The quality of the answers in all folders together drops even less."""
    useful = [each.is_useful for name in (*TUNED, UNSEEN) for each in outcomes(name) if each.golden.category == kind]
    assert sum(useful) / len(useful) >= minimum


def test_table() -> None:
    """The table has a row for each kind, and one for all questions."""
    lines = table({"keywords": outcomes("product")}).splitlines()
    assert lines[0].split() == ["kind", "keywords"]
    assert {line[:14].strip() for line in lines[1:]} == {*(each.golden.category for each in outcomes("product")), "all"}
    assert lines[-1].split()[-1] == f"{share('product'):.0%}"


def test_answers_of_a_language_model() -> None:
    """A written answer is useful if it contains the key fact, or says as expected that the documents do not answer."""
    golden = (
        GoldenQuestion("1", "plain", "What does the Home plan cost?", "4 euros", "index.md"),
        GoldenQuestion("2", "follow-up", "And the Team plan?", "19 euros", "index.md", ("What does Home cost?",)),
        GoldenQuestion("3", "unanswerable", "What does the Mansion plan cost?", expect="refusal"),
        GoldenQuestion("4", "small talk", "hello", expect="small talk"),
    )
    scripts = ("It costs 4 euros [1].", "4 euros [1].", "I do not know the price.", NOT_ANSWERED)
    with ScriptedModel(*map(completion, scripts)).running() as model, retriever_of("product") as retriever:
        writer = Writer(LanguageModel(model.url, "llama"), lambda: "fence")
        useful = [written(writer, retriever, question).is_useful for question in golden]
    assert useful == [True, False, True, True]
