"""The questions that the first screen offers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from brunix_twisted.embedded.answers import is_answered
from brunix_twisted.embedded.documents import read_documents
from brunix_twisted.embedded.options import default_docs
from brunix_twisted.embedded.passages import Passage, passages_of_all
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.samples import SHIPPED, sample_questions
from searches import find_answer

Split = Callable[..., tuple[Passage, ...]]


def samples(*passages: Passage) -> tuple[str, ...]:
    retriever = Retriever(passages)
    try:
        return sample_questions(passages, retriever)
    finally:
        retriever.close()


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("# Kettles\n## How often should I descale it?\nDescale it once a month.", "How often should I descale it?"),
        ("# Tea\n## How to brew Assam\nYou brew it for four minutes in a pot.", "How do I brew Assam?"),
        ("# Garden\n## Planting the tomatoes\nThe tomatoes go into the ground in May.", "How do I plant the tomatoes?"),
        ("# Coffee\n## Descaling the pot\nYou descale it with citric acid.", "How does descaling the pot work?"),
        ("# SDK\n## Install the SDK\nTo install it, run this:\n\n```\npip install x\n```", "How do I install the SDK?"),
        ("# Rota\n## Submit your hours\nSubmit the hours on a Friday, to Kim.", "How do I submit my hours?"),
        ("# Floop\n## Installation\nIt is on the shelf for you: run the setup of Floop.", "How do I install Floop?"),
        ("# Floop\nFloop is a tool for the people who fold maps.", "What is Floop?"),
        ("# Pipeline\nThe pipeline is a set of jobs that you start.", "What is the pipeline?"),
        ("# 3.2 Checkpoints\nIf you need the old state, use the checkpoints.", "What should I know about checkpoints?"),
        ("# Install options\nWhen you install it, these are the options.", "What should I know about install options?"),
        ("# Vacaciones\nCada empleado tiene veinte días de vacaciones al año.", "Vacaciones"),
    ],
)
def test_forms(split: Split, text: str, question: str) -> None:
    """A heading becomes the question that a reader would ask, in the form that fits it."""
    assert samples(*split(text)) == (question,)


@pytest.mark.parametrize(
    "text",
    [
        "# Overview\nThis is a page about nothing that you can ask for.",
        "# 2.0.1\nIn this release the lights are on.",
        "# Notes?\nThe notes are in the hall, and they are for you.",
        "# For administrators\nThe keys are in the hall, and they are for you.",
    ],
)
def test_no_question(split: Split, text: str) -> None:
    """A heading that says nothing gives no question."""
    assert samples(*split(text)) == ()


def test_each_document_has_a_turn(split: Split) -> None:
    """The three questions are from three documents; introductions come first and changelogs last."""
    folder = [
        *split("# Changes\n## Upgrade the lamp\nTo upgrade the lamp, you unplug it.", "changelog.md"),
        *split("# Lamps\n## Clean the lamp\nYou clean it.\n## Mount the lamp\nYou mount the lamp to it.", "lamps.md"),
        *split("# Rugs\n## Clean the rug\nYou clean the rug with water.", "rugs.md"),
        *split("# House\n## Open the door\nYou open the door with the key.", "README.md"),
    ]
    assert samples(*folder) == ("How do I open the door?", "How do I clean the lamp?", "How do I clean the rug?")


def test_every_sample_is_answered(corpus: Path) -> None:
    """A question that the engine does not answer, or answers from another document, is not offered."""
    passages = passages_of_all(read_documents(corpus))
    found = samples(*passages)
    assert len(found) == 3
    without = [passage for passage in passages if passage.source != "cron.md"]
    assert not any("cron" in question for question in samples(*without))


def test_a_question_that_is_not_found(split: Split) -> None:
    """A heading of words that the search leaves out, or that another document explains, gives no question."""
    assert samples(*split("# Use\n\n## How to use it\n\nYou use it with the lamp.", "README.md")) == ()
    better = split("# Lamps\n\n## Lamp\n\nThe lamp is lit. Light the lamp: the lamp is a lamp.\n", "b.md")
    worse = split("# Index\n\n## What is a lamp?\n\nIt is on that page.\n", "a.md")
    assert "What is a lamp?" in samples(*worse)
    assert "What is a lamp?" not in samples(*worse, *better)


def test_shipped_questions() -> None:
    """The questions for the project's documentation are answered from it."""
    passages = passages_of_all(read_documents(default_docs()))
    retriever = Retriever(passages)
    assert all(is_answered(find_answer(retriever, question, 1)) for question in SHIPPED)
    retriever.close()
