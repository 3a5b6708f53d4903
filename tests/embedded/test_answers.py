import re
from collections.abc import Callable

import pytest

from brunix_twisted.embedded.answers import NOT_SAID, Answer, answer
from brunix_twisted.embedded.followups import weigh
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.retrieval import Library, sentences


def asked(library: Library, question: str) -> Answer:
    return answer(library, weigh(question))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Use e.g. Git, i.e. Git, vs. Other things. Next.", ["Use e.g. Git, i.e. Git, vs. Other things.", "Next."]),
        ("It takes 3.5 s. `PATH` is short.", ["It takes 3.5 s.", "`PATH` is short."]),
        ("Type `a. B` there. Then go.", ["Type `a. B` there.", "Then go."]),
        ('He said "no." Then left.', ['He said "no."', "Then left."]),
        ("Open file. txt follows.", ["Open file. txt follows."]),
        ("", []),
    ],
)
def test_sentences_are_cut_where_they_end(text: str, expected: list[str]) -> None:
    """Answers would begin or end in the middle of a sentence."""
    assert sentences(text) == expected


def test_a_code_fence_that_is_the_answer_is_quoted_whole(library: Library) -> None:
    """A command would be shown in pieces, or as text that cannot be copied."""
    given = asked(library, "How do I safely copy a live SQLite file?")
    assert '```sh\nsqlite3 app.db ".backup copy.db"\n```' in given.text
    assert given.code == 'sqlite3 app.db ".backup copy.db"'


def test_a_table_that_is_the_answer_is_quoted_whole(library: Library) -> None:
    """A row without its head would mean nothing."""
    given = asked(library, "Which redirect keeps the POST method?")
    assert "| code | name | method kept? |\n|---|---|---|\n| 301 |" in given.text
    assert "| 308 | Permanent Redirect | kept |\n\n" in given.text
    assert given.code == ""


def test_every_quotation_names_its_source(library: Library) -> None:
    """A reader could not look up where an answer comes from."""
    given = asked(library, "Why does my script fail under cron although it works in a terminal?")
    assert "\n\n— `cron.md`, Scheduling with cron › Environment, lines 46–48" in given.text  # noqa: RUF001 - as shown


def test_a_citation_of_a_text_file_names_no_heading(library: Library) -> None:
    """A citation would have a hole in it."""
    assert "\n\n— `signals.txt`, lines " in asked(library, "Which signal can neither be caught nor ignored?").text


def test_what_is_quoted_stands_in_the_documents(library: Library, passages: tuple[Passage, ...]) -> None:
    """The engine would have made something up."""
    told = " ".join(" ".join(block.text.split()) for passage in passages for block in passage.blocks)
    for question in ("How do I run a job every quarter of an hour?", "Unpack a tar archive", "What is WAL?"):
        for quotation in asked(library, question).quotations:
            for line in filter(None, (" ".join(each.split()) for each in re.split("\n| … ", quotation))):
                assert line in told


def test_what_the_documents_do_not_say_is_said_so(library: Library) -> None:
    """Somebody would be sent to a passage about something else."""
    given = asked(library, "Who wrote Don Quixote?")
    assert given == Answer(NOT_SAID, "", (), ())
    assert not given.answered


def test_a_question_of_stop_words_alone_is_not_answered(library: Library) -> None:
    """Asking "What is it?" would be answered with something at random."""
    assert not asked(library, "What is it?").answered


def test_a_long_passage_is_quoted_in_part(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """The one sentence that matters would be lost in a page of others."""
    filler = " ".join(f"Filler number {number} stands here." for number in range(30))
    library = Library(cut(f"# Ports\n\n{filler} The engine uses port 50051. It may be changed. {filler}\n"))
    text = asked(library, "Which port does the engine listen on?").text
    library.close()
    assert "The engine uses port 50051. It may be changed." in text
    assert text.count("Filler") < 5


def test_what_is_left_out_is_marked(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """Two sentences that do not belong together would read as if they did."""
    filler = " ".join(f"Filler number {number} stands here." for number in range(30))
    library = Library(cut(f"# A\n\nThe lamp is red. It is old. {filler} The lamp is not blue. {filler}\n"))
    text = asked(library, "colour of the red and blue lamp").text
    library.close()
    assert "The lamp is red. It is old. … The lamp is not blue.\n\n— " in text


def test_parts_of_a_table_are_shown_as_one(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """A long table would be shown in pieces, each with the same head."""
    rows = "\n".join(f"| lamp {number} | {'red' if number in {1, 13} else 'x'} |" for number in range(20))
    library = Library(cut(f"# A\n\n| a | b |\n|---|---|\n{rows}\n\n{'Filler stands here. ' * 30}\n"))
    text = asked(library, "red lamp").text
    library.close()
    assert text.count("|---|") == 1
    assert "| lamp 1 | red |" in text
    assert "| lamp 13 | red |" in text


def test_an_announcement_comes_with_what_it_announces(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """An answer would end in a colon, or begin with a list of nobody knows what."""
    filler = " ".join(f"Filler number {number} stands here." for number in range(30))
    library = Library(cut(f"# A\n\n{filler}\n\nThe colours of the lamp are:\n\n- red\n- blue\n\n{filler}\n"))
    text = asked(library, "colours of the lamp").text
    library.close()
    assert "The colours of the lamp are:\n\n- red\n- blue\n\n" in text
