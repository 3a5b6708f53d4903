import re
from collections.abc import Callable

from brunix_twisted.embedded.answers import NO_ANSWER, Answer
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.retrieval import Retriever

TWO_SECTIONS = "# A\n\n## Kettles\n\nA kettle boils water.\n\n## Toasters\n\nA toaster burns bread.\n"


def asked(retriever: Retriever, question: str) -> Answer:
    return Assistant(retriever, SessionHistory()).reply(question, "").answer


def test_code_is_quoted_whole(retriever: Retriever) -> None:
    """A fenced command that answers the question is quoted with its fence, so that it can be copied."""
    given = asked(retriever, "How do I safely copy a live SQLite file?")
    assert '```sh\nsqlite3 app.db ".backup copy.db"\n```' in given.text


def test_matching_table_rows(retriever: Retriever) -> None:
    """Of a table, only the header and the rows that answer the question are quoted."""
    given = asked(retriever, "Which redirect keeps the POST method?")
    assert given.text.startswith(
        "| code | name | method kept? |\n|---|---|---|\n"
        "| 307 | Temporary Redirect | kept |\n| 308 | Permanent Redirect | kept |\n\n"
        "— `network/http-status.md`, HTTP status codes › Redirects, lines 12–13"  # noqa: RUF001 - as shown
    )
    assert "301" not in given.text
    assert "```" not in given.text


def test_one_quotation_is_enough(retriever: Retriever) -> None:
    """An answer has one quotation if that covers the question."""
    for question in ("What is a checkpoint?", "How do I switch on the write-ahead log of SQLite?"):
        assert len(asked(retriever, question).passages) == 1


def test_second_passage(split: Callable[..., tuple[Passage, ...]]) -> None:
    """A question about two subjects is answered from two passages."""
    retriever = Retriever(split(TWO_SECTIONS))
    given = asked(retriever, "kettle and toaster")
    retriever.close()
    assert given.quotations == ("A kettle boils water.", "A toaster burns bread.")


def test_second_passage_needs_confidence(split: Callable[..., tuple[Passage, ...]]) -> None:
    """A passage below the confidence threshold is not quoted after another one."""
    retriever = Retriever(split(TWO_SECTIONS))
    given = asked(retriever, "kettle boils toaster")
    retriever.close()
    assert given.quotations == ("A kettle boils water.",)


def test_second_passage_is_limited(split: Callable[..., tuple[Passage, ...]]) -> None:
    """A second passage is left out if it would make the answer long."""
    filler = "This line is the same as the one below it. " * 9
    retriever = Retriever(split(f"# A\n\n## Kettles\n\nA kettle. {filler}\n\n## Toasters\n\nA toaster. {filler}\n"))
    given = asked(retriever, "kettle and toaster")
    retriever.close()
    assert len(given.passages) == 1


def test_answers_are_short(retriever: Retriever, questions: tuple[GoldenQuestion, ...]) -> None:
    """No answer to the test questions is longer than 700 characters."""
    assert max(len(asked(retriever, question.question).text) for question in questions) <= 700


def test_citation(retriever: Retriever) -> None:
    """A quotation ends with its file, headings and lines."""
    given = asked(retriever, "Why does my script fail under cron although it works in a terminal?")
    assert "\n\n— `cron.md`, Scheduling with cron › Environment, lines 46–48" in given.text  # noqa: RUF001 - as shown


def test_citation_without_headings(retriever: Retriever) -> None:
    """The citation of a text file has no empty heading."""
    assert "\n\n— `signals.txt`, lines " in asked(retriever, "Which signal can neither be caught nor ignored?").text


def test_quotations_are_verbatim(retriever: Retriever, passages: tuple[Passage, ...]) -> None:
    """Every quoted line occurs in the documents."""
    documents = " ".join(
        " ".join(f"{block.header} {block.text}".split()) for passage in passages for block in passage.blocks
    )
    for question in ("How do I run a job every quarter of an hour?", "Unpack a tar archive", "What is WAL?"):
        for quotation in asked(retriever, question).quotations:
            for line in filter(None, (" ".join(each.split()) for each in re.split("\n| … ", quotation))):
                assert line in documents


def test_no_answer(retriever: Retriever) -> None:
    """A question that the documents do not answer gets the fixed text, and no passage."""
    given = asked(retriever, "Who wrote Don Quixote?")
    assert given == Answer(NO_ANSWER, (), ())
    assert not given.answered


def test_stop_words_only(retriever: Retriever) -> None:
    """A question without content terms is not answered."""
    assert not asked(retriever, "What is it?").answered


def test_long_passage(split: Callable[..., tuple[Passage, ...]]) -> None:
    """Of a long passage, only the matching sentence and the one after it are quoted."""
    filler = " ".join(f"Filler number {number} stands here." for number in range(30))
    retriever = Retriever(split(f"# Ports\n\n{filler} The engine uses port 50051. It may be changed. {filler}\n"))
    text = asked(retriever, "Which port does the engine listen on?").text
    retriever.close()
    assert "The engine uses port 50051. It may be changed." in text
    assert text.count("Filler") < 5


def test_omissions_are_marked(split: Callable[..., tuple[Passage, ...]]) -> None:
    """Sentences that are not adjacent are joined with an ellipsis."""
    filler = " ".join(f"Filler number {number} stands here." for number in range(30))
    retriever = Retriever(split(f"# A\n\nThe lamp is red. It is old. {filler} The lamp is not blue. {filler}\n"))
    text = asked(retriever, "colour of the red and blue lamp").text
    retriever.close()
    assert "The lamp is red. It is old. … The lamp is not blue.\n\n— " in text


def test_rows_that_are_not_adjacent(split: Callable[..., tuple[Passage, ...]]) -> None:
    """Rows that are not adjacent are shown in one table and cited with separate line numbers."""
    rows = "\n".join(f"| lamp {number} | {'red' if number in {1, 13, 14} else 'x'} |" for number in range(20))
    retriever = Retriever(split(f"# A\n\n| a | b |\n|---|---|\n{rows}\n\n{'Filler stands here. ' * 30}\n"))
    text = asked(retriever, "red lamp").text
    retriever.close()
    assert text == (
        "| a | b |\n|---|---|\n| lamp 1 | red |\n| lamp 13 | red |\n| lamp 14 | red |\n\n— `page.md`, A, lines 6, 18–19"
    )


def test_tables_with_different_headers(split: Callable[..., tuple[Passage, ...]]) -> None:
    """Rows of different tables are shown under their own headers."""
    [passage] = split("# A\n\nTwo:\n\n| a |\n|---|\n| red |\n\n| b |\n|---|\n| blue |\n")
    retriever = Retriever([passage])
    text = asked(retriever, "two").text
    retriever.close()
    assert text.startswith("Two:\n\n| a |\n|---|\n| red |\n\n| b |\n|---|\n| blue |\n\n— ")


def test_introduced_list(split: Callable[..., tuple[Passage, ...]]) -> None:
    """A sentence that ends with a colon is quoted together with the list it introduces."""
    filler = " ".join(f"Filler number {number} stands here." for number in range(30))
    retriever = Retriever(split(f"# A\n\n{filler}\n\nThe colours of the lamp are:\n\n- red\n- blue\n\n{filler}\n"))
    text = asked(retriever, "colours of the lamp").text
    retriever.close()
    assert "The colours of the lamp are:\n\n- red\n- blue\n\n" in text
