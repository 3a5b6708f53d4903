"""What an answer quotes from a passage: sentences, code, list items and table rows."""

import re
from collections.abc import Callable, Iterator

import pytest

from brunix_twisted.embedded.answers import Answer
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.question import wants_code
from brunix_twisted.embedded.retrieval import Retriever

Ask = Callable[[str, str], Answer]

FILLER = " ".join(f"Filler number {number} stands here." for number in range(20))


def code_in(given: Answer) -> list[str]:
    """Return the code blocks of an answer, without their fences."""
    return re.findall(r"^```\n(.*?)\n```$", given.text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def ask(split: Callable[..., tuple[Passage, ...]]) -> Iterator[Ask]:
    """Return a function that asks one page a question."""
    libraries: list[Retriever] = []

    def asked(page: str, question: str) -> Answer:
        libraries.append(Retriever(split(page)))
        return Assistant(libraries[-1], SessionHistory()).reply(question, "").answer

    yield asked
    for retriever in libraries:
        retriever.close()


@pytest.mark.parametrize(
    "question",
    [
        "How do I unpack an archive?",
        "And how can I unpack it?",
        "How to unpack an archive",
        "What do I type to unpack an archive?",
        "What must we run?",
        "Unpack an archive",
        "Is there an example?",
        "Show me the YAML",
    ],
)
def test_questions_that_want_code(question: str) -> None:
    """Questions that ask how to do something, and imperatives, want code."""
    assert wants_code(question)


@pytest.mark.parametrize(
    "question",
    ["How long does it wait?", "How does it unpack an archive?", "Which signal ends it?", "what is a checkpoint"],
)
def test_questions_that_want_a_fact(question: str) -> None:
    """Questions for a fact do not want code."""
    assert not wants_code(question)


KETTLE = "# Kettles\n\nA kettle boils water in three minutes.\n\n```\nkettle --boil\n```\n\nIt is made of steel.\n"


def test_adjacent_code(ask: Ask) -> None:
    """For a question that wants code, the code next to the sentence is quoted."""
    given = ask(KETTLE, "How do I boil water in a kettle?")
    assert "boils water in three minutes.\n\n```\nkettle --boil\n```" in given.text
    assert code_in(given) == ["kettle --boil"]


def test_code_after_the_sentence(ask: Ask) -> None:
    """Code after a sentence is preferred to code before it."""
    page = "# Kettles\n\n```\nfill\n```\n\nA kettle boils water.\n\n```\nboil\n```\n"
    assert code_in(ask(page, "How do I boil water in a kettle?")) == ["boil"]


def test_no_code_for_a_fact(ask: Ask) -> None:
    """For a question that wants a fact, adjacent code is not quoted."""
    given = ask(KETTLE, "How long does a kettle take to boil water?")
    assert "three minutes" in given.text
    assert "```" not in given.text


def test_introduced_code(ask: Ask) -> None:
    """Code that a colon introduces is quoted with its introduction."""
    given = ask(
        "# Kettles\n\nA kettle boils water like this:\n\n```\nkettle --boil\n```\n", "Does a kettle boil water?"
    )
    assert code_in(given) == ["kettle --boil"]


def test_unrelated_example(ask: Ask) -> None:
    """An introduction and code without terms of the question are left out."""
    page = "# Kettles\n\nA kettle:\n\n```\nkettle\n```\n\nIn another kitchen:\n\n```\ntoaster\n```\n"
    given = ask(page, "How do I use the kettle?")
    assert code_in(given) == ["kettle"]
    assert "another kitchen" not in given.text


def test_related_example(ask: Ask) -> None:
    """An introduction with terms of the question is quoted with its code."""
    page = "# A\n\nBoiling a kettle:\n\n```\nboil\n```\n\nCooling a kettle:\n\n```\ncool\n```\n"
    assert code_in(ask(page, "How do I go about boiling and cooling?")) == ["boil", "cool"]


def test_code_only(ask: Ask) -> None:
    """A section that contains only code is quoted."""
    assert code_in(ask("# Boiling a kettle\n\n```\nkettle --boil\n```\n", "Is boiling a kettle safe?")) == [
        "kettle --boil"
    ]


def test_further_sentence(ask: Ask) -> None:
    """A further sentence is quoted if it covers more of the question."""
    page = f"# A\n\nThe kettle is red. {FILLER} The kettle is steel. {FILLER} The toaster is blue. {FILLER}\n"
    assert ask(page, "colour of kettle and toaster").quotations == (
        "The kettle is red. Filler number 0 stands here. … The toaster is blue.",
    )


def test_short_list(ask: Ask) -> None:
    """A short list is quoted whole, with its introduction."""
    page = f"# A\n\n{FILLER}\n\nTwo steps:\n\n1. Fill the kettle.\n2. Wait.\n\n{FILLER}\n"
    assert ask(page, "fill the kettle").quotations == ("Two steps:\n\n1. Fill the kettle.\n2. Wait.",)


def test_long_list(ask: Ask) -> None:
    """Of a long list, the matching item and the introduction are quoted."""
    items = "\n".join(f"- Step {number} is long: {'word ' * 12}" for number in range(12))
    page = f"# A\n\nMany steps:\n\n{items}\n- Fill the kettle.\n"
    assert ask(page, "fill the kettle").quotations == ("Many steps:\n\n- Fill the kettle.",)


def test_short_table(ask: Ask) -> None:
    """A short table that a colon introduces is quoted whole."""
    page = "# A\n\nThe kettle has these parts:\n\n| part |\n|---|\n| lid |\n| spout |\n| foot |\n| plug |\n"
    assert "|---|\n| lid |\n| spout |\n| foot |\n| plug |" in ask(page, "What parts has the kettle?").text


def test_long_table(ask: Ask) -> None:
    """Of a long table that a colon introduces, the best three rows are quoted."""
    rows = "\n".join(f"| lid {number} |" for number in range(30))
    text = ask(f"# A\n\nThe kettle has these old parts:\n\n| part |\n|---|\n{rows}\n", "old kettle parts").text
    assert text.count("| lid") == 3


def test_worse_rows(ask: Ask) -> None:
    """Rows that cover less of the question are left out."""
    page = "# A\n\n| a |\n|---|\n| the red kettle whistles |\n| the red toaster |\n| the red lamp |\n"
    assert ask(page, "Which red kettle whistles?").quotations == ("| a |\n|---|\n| the red kettle whistles |",)


def test_row_of_another_table(ask: Ask) -> None:
    """Rows of another table are left out."""
    page = "# A\n\n| a |\n|---|\n| red kettle |\n\nThen:\n\n| b |\n|---|\n| red kettle |\n"
    assert ask(page, "red kettle").quotations == ("| a |\n|---|\n| red kettle |",)


def test_terms_of_the_header(ask: Ask) -> None:
    """Terms of the table header do not select further rows."""
    page = "# A\n\n| name | default |\n|---|---|\n| kettle | 1, the default |\n| toaster | 2, the default |\n"
    assert ask(page, "default of the kettle").quotations == (
        "| name | default |\n|---|---|\n| kettle | 1, the default |",
    )


def test_max_rows(ask: Ask) -> None:
    """At most three rows are quoted."""
    rows = "\n".join(f"| kettle {number} |" for number in range(30))
    given = ask(f"# A\n\n| a |\n|---|\n{rows}\n", "kettle")
    assert given.text.count("| kettle") == 3


def test_term_in_code_only(ask: Ask) -> None:
    """A question for a term that occurs only in code is answered."""
    assert ask(f"# A\n\n{FILLER}\n\n```\nfrobnicate --all\n```\n", "What is frobnicate?").answered
