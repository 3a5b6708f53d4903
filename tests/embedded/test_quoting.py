"""What is quoted of a passage that was found: sentences, code, items and rows."""

from collections.abc import Callable, Iterator

import pytest

from brunix_twisted.embedded.answers import Answer, answer
from brunix_twisted.embedded.followups import weigh
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.quoting import wants_code
from brunix_twisted.embedded.retrieval import Retriever

Ask = Callable[[str, str], Answer]

FILLER = " ".join(f"Filler number {number} stands here." for number in range(20))


@pytest.fixture
def ask(cut: Callable[..., tuple[Passage, ...]]) -> Iterator[Ask]:
    """Give a function that asks one page a question."""
    libraries: list[Retriever] = []

    def asked(page: str, question: str) -> Answer:
        libraries.append(Retriever(cut(page)))
        return answer(libraries[-1], weigh(question), wants_code=wants_code(question))

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
def test_questions_for_code_are_told_apart(question: str) -> None:
    """Somebody who asks how something is done would get the sentence beside the command and not the command."""
    assert wants_code(question)


@pytest.mark.parametrize(
    "question",
    ["How long does it wait?", "How does it unpack an archive?", "Which signal ends it?", "what is a checkpoint"],
)
def test_questions_for_a_fact_want_no_code(question: str) -> None:
    """A fact would come with an example that nobody asked for."""
    assert not wants_code(question)


KETTLE = "# Kettles\n\nA kettle boils water in three minutes.\n\n```\nkettle --boil\n```\n\nIt is made of steel.\n"


def test_code_is_quoted_for_who_asks_how(ask: Ask) -> None:
    """Somebody would read about a command, and not see it."""
    given = ask(KETTLE, "How do I boil water in a kettle?")
    assert "boils water in three minutes.\n\n```\nkettle --boil\n```" in given.text
    assert given.code == "kettle --boil"


def test_code_after_a_sentence_goes_before_code_ahead_of_it(ask: Ask) -> None:
    """A sentence would come with the example of the paragraph before it."""
    page = "# Kettles\n\n```\nfill\n```\n\nA kettle boils water.\n\n```\nboil\n```\n"
    assert ask(page, "How do I boil water in a kettle?").code == "boil"


def test_code_is_not_quoted_for_who_asks_a_fact(ask: Ask) -> None:
    """A fact would come with an example that nobody asked for."""
    given = ask(KETTLE, "How long does a kettle take to boil water?")
    assert "three minutes" in given.text
    assert "```" not in given.text
    assert given.code == ""


def test_announced_code_comes_with_its_announcement(ask: Ask) -> None:
    """An answer would end in a colon."""
    given = ask(
        "# Kettles\n\nA kettle boils water like this:\n\n```\nkettle --boil\n```\n", "Does a kettle boil water?"
    )
    assert given.code == "kettle --boil"


def test_another_example_stays_out(ask: Ask) -> None:
    """An example that has nothing to do with the question would make the answer twice as long."""
    page = "# Kettles\n\nA kettle:\n\n```\nkettle\n```\n\nIn another kitchen:\n\n```\ntoaster\n```\n"
    given = ask(page, "How do I use the kettle?")
    assert given.code == "kettle"
    assert "another kitchen" not in given.text


def test_an_example_that_speaks_of_the_question_stays_in(ask: Ask) -> None:
    """The half of the answer that is announced second would be missing."""
    page = "# A\n\nBoiling a kettle:\n\n```\nboil\n```\n\nCooling a kettle:\n\n```\ncool\n```\n"
    assert ask(page, "How do I go about boiling and cooling?").code == "boil\n\ncool"


def test_code_alone_is_quoted(ask: Ask) -> None:
    """A section that is nothing but a command would be quoted as nothing."""
    assert ask("# Boiling a kettle\n\n```\nkettle --boil\n```\n", "Is boiling a kettle safe?").code == "kettle --boil"


def test_a_further_sentence_is_quoted_when_it_says_something_new(ask: Ask) -> None:
    """A question about two things would be answered for one of them."""
    page = f"# A\n\nThe kettle is red. {FILLER} The kettle is steel. {FILLER} The toaster is blue. {FILLER}\n"
    assert ask(page, "colour of kettle and toaster").quotations == (
        "The kettle is red. Filler number 0 stands here. … The toaster is blue.",
    )


def test_a_short_list_is_quoted_whole(ask: Ask) -> None:
    """The second of three steps would stand alone."""
    page = f"# A\n\n{FILLER}\n\nTwo steps:\n\n1. Fill the kettle.\n2. Wait.\n\n{FILLER}\n"
    assert ask(page, "fill the kettle").quotations == ("Two steps:\n\n1. Fill the kettle.\n2. Wait.",)


def test_of_a_long_list_only_the_item_is_quoted(ask: Ask) -> None:
    """The one item that matters would be lost in a page of others."""
    items = "\n".join(f"- Step {number} is long: {'word ' * 12}" for number in range(12))
    page = f"# A\n\nMany steps:\n\n{items}\n- Fill the kettle.\n"
    assert ask(page, "fill the kettle").quotations == ("Many steps:\n\n- Fill the kettle.",)


def test_an_announced_short_table_is_quoted_whole(ask: Ask) -> None:
    """A sentence would announce five rows and show one."""
    page = "# A\n\nThe kettle has these parts:\n\n| part |\n|---|\n| lid |\n| spout |\n| foot |\n| plug |\n"
    assert "|---|\n| lid |\n| spout |\n| foot |\n| plug |" in ask(page, "What parts has the kettle?").text


def test_of_an_announced_long_table_the_best_rows_are_quoted(ask: Ask) -> None:
    """A sentence that announces a table would bring all of it into the chat window."""
    rows = "\n".join(f"| lid {number} |" for number in range(30))
    text = ask(f"# A\n\nThe kettle has these old parts:\n\n| part |\n|---|\n{rows}\n", "old kettle parts").text
    assert text.count("| lid") == 3


def test_a_row_that_says_less_is_left_out(ask: Ask) -> None:
    """The answer would stand among rows that only have a word of the question."""
    page = "# A\n\n| a |\n|---|\n| the red kettle whistles |\n| the red toaster |\n| the red lamp |\n"
    assert ask(page, "Which red kettle whistles?").quotations == ("| a |\n|---|\n| the red kettle whistles |",)


def test_a_row_of_another_table_is_left_out(ask: Ask) -> None:
    """The rows of two tables would be shown as an answer of one."""
    page = "# A\n\n| a |\n|---|\n| red kettle |\n\nThen:\n\n| b |\n|---|\n| red kettle |\n"
    assert ask(page, "red kettle").quotations == ("| a |\n|---|\n| red kettle |",)


def test_what_the_head_says_brings_no_further_row(ask: Ask) -> None:
    """Asking for the default of one setting would be answered with every row, as they all stand under "default"."""
    page = "# A\n\n| name | default |\n|---|---|\n| kettle | 1, the default |\n| toaster | 2, the default |\n"
    assert ask(page, "default of the kettle").quotations == (
        "| name | default |\n|---|---|\n| kettle | 1, the default |",
    )


def test_no_more_than_three_rows_are_quoted(ask: Ask) -> None:
    """A table in which every row has the word would be quoted whole."""
    rows = "\n".join(f"| kettle {number} |" for number in range(30))
    given = ask(f"# A\n\n| a |\n|---|\n{rows}\n", "kettle")
    assert given.text.count("| kettle") == 3


def test_what_stands_only_in_code_is_said(ask: Ask) -> None:
    """A question about a command by its name would be answered with "the documents do not say"."""
    assert ask(f"# A\n\n{FILLER}\n\n```\nfrobnicate --all\n```\n", "What is frobnicate?").answered
