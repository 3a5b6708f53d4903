import re
from collections.abc import Callable

from brunix_twisted.embedded.answers import NOT_SAID, Answer, answer
from brunix_twisted.embedded.followups import weigh
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.quoting import wants_code
from brunix_twisted.embedded.retrieval import Retriever


def asked(retriever: Retriever, question: str) -> Answer:
    return answer(retriever, weigh(question), wants_code=wants_code(question))


def test_a_code_fence_that_is_the_answer_is_quoted_whole(retriever: Retriever) -> None:
    """A command would be shown in pieces, or as text that cannot be copied."""
    given = asked(retriever, "How do I safely copy a live SQLite file?")
    assert '```sh\nsqlite3 app.db ".backup copy.db"\n```' in given.text
    assert given.code == 'sqlite3 app.db ".backup copy.db"'


def test_only_the_rows_that_answer_are_quoted(retriever: Retriever) -> None:
    """A reader would have to find the one row in question among all the others, or not know what its columns are."""
    given = asked(retriever, "Which redirect keeps the POST method?")
    assert given.text.startswith(
        "| code | name | method kept? |\n|---|---|---|\n"
        "| 307 | Temporary Redirect | kept |\n| 308 | Permanent Redirect | kept |\n\n"
        "— `network/http-status.md`, HTTP status codes › Redirects, lines 12–13"  # noqa: RUF001 - as shown
    )
    assert "301" not in given.text
    assert given.code == ""


def test_an_answer_is_one_quotation_when_that_says_it_all(retriever: Retriever) -> None:
    """A good answer would be followed by two others that have nothing to do with it."""
    for question in ("What is a checkpoint?", "How do I switch on the write-ahead log of SQLite?"):
        assert len(asked(retriever, question).passages) == 1


def test_a_second_passage_adds_what_the_first_does_not_say(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """A question about two things would be answered for one of them."""
    retriever = Retriever(cut("# A\n\n## Kettles\n\nA kettle boils water.\n\n## Toasters\n\nA toaster burns bread.\n"))
    given = asked(retriever, "kettle and toaster")
    retriever.close()
    assert given.quotations == ("A kettle boils water.", "A toaster burns bread.")


def test_a_second_passage_must_be_an_answer_of_its_own(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """A good answer would be followed by a passage that happens to have one word of the question."""
    retriever = Retriever(cut("# A\n\n## Kettles\n\nA kettle boils water.\n\n## Toasters\n\nA toaster burns bread.\n"))
    given = asked(retriever, "kettle boils toaster")
    retriever.close()
    assert given.quotations == ("A kettle boils water.",)


def test_a_second_passage_does_not_make_an_answer_long(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """A chat window would be filled with a page of text."""
    filler = "This line is the same as the one below it. " * 9
    retriever = Retriever(cut(f"# A\n\n## Kettles\n\nA kettle. {filler}\n\n## Toasters\n\nA toaster. {filler}\n"))
    given = asked(retriever, "kettle and toaster")
    retriever.close()
    assert len(given.passages) == 1


def test_answers_are_short(retriever: Retriever, questions: tuple[GoldenQuestion, ...]) -> None:
    """A chat window would be filled with a page of text."""
    assert max(len(asked(retriever, question.question).text) for question in questions) <= 700


def test_every_quotation_names_its_source(retriever: Retriever) -> None:
    """A reader could not look up where an answer comes from."""
    given = asked(retriever, "Why does my script fail under cron although it works in a terminal?")
    assert "\n\n— `cron.md`, Scheduling with cron › Environment, lines 46–48" in given.text  # noqa: RUF001 - as shown


def test_a_citation_of_a_text_file_names_no_heading(retriever: Retriever) -> None:
    """A citation would have a hole in it."""
    assert "\n\n— `signals.txt`, lines " in asked(retriever, "Which signal can neither be caught nor ignored?").text


def test_what_is_quoted_stands_in_the_documents(retriever: Retriever, passages: tuple[Passage, ...]) -> None:
    """The engine would have made something up."""
    told = " ".join(" ".join(f"{block.head} {block.text}".split()) for passage in passages for block in passage.blocks)
    for question in ("How do I run a job every quarter of an hour?", "Unpack a tar archive", "What is WAL?"):
        for quotation in asked(retriever, question).quotations:
            for line in filter(None, (" ".join(each.split()) for each in re.split("\n| … ", quotation))):
                assert line in told


def test_what_the_documents_do_not_say_is_said_so(retriever: Retriever) -> None:
    """Somebody would be sent to a passage about something else."""
    given = asked(retriever, "Who wrote Don Quixote?")
    assert given == Answer(NOT_SAID, "", (), ())
    assert not given.answered


def test_a_question_of_stop_words_alone_is_not_answered(retriever: Retriever) -> None:
    """Asking "What is it?" would be answered with something at random."""
    assert not asked(retriever, "What is it?").answered


def test_a_long_passage_is_quoted_in_part(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """The one sentence that matters would be lost in a page of others."""
    filler = " ".join(f"Filler number {number} stands here." for number in range(30))
    retriever = Retriever(cut(f"# Ports\n\n{filler} The engine uses port 50051. It may be changed. {filler}\n"))
    text = asked(retriever, "Which port does the engine listen on?").text
    retriever.close()
    assert "The engine uses port 50051. It may be changed." in text
    assert text.count("Filler") < 5


def test_what_is_left_out_is_marked(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """Two sentences that do not belong together would read as if they did."""
    filler = " ".join(f"Filler number {number} stands here." for number in range(30))
    retriever = Retriever(cut(f"# A\n\nThe lamp is red. It is old. {filler} The lamp is not blue. {filler}\n"))
    text = asked(retriever, "colour of the red and blue lamp").text
    retriever.close()
    assert "The lamp is red. It is old. … The lamp is not blue.\n\n— " in text


def test_rows_apart_are_shown_as_one_table_and_cited_apart(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """A table would be shown in pieces, each with the same head, or cited by lines that say something else."""
    rows = "\n".join(f"| lamp {number} | {'red' if number in {1, 13, 14} else 'x'} |" for number in range(20))
    retriever = Retriever(cut(f"# A\n\n| a | b |\n|---|---|\n{rows}\n\n{'Filler stands here. ' * 30}\n"))
    text = asked(retriever, "red lamp").text
    retriever.close()
    assert text == (
        "| a | b |\n|---|---|\n| lamp 1 | red |\n| lamp 13 | red |\n| lamp 14 | red |\n\n— `page.md`, A, lines 6, 18–19"
    )


def test_tables_with_other_heads_are_shown_apart(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """A row would stand under the names of another table's columns."""
    [passage] = cut("# A\n\nTwo:\n\n| a |\n|---|\n| red |\n\n| b |\n|---|\n| blue |\n")
    retriever = Retriever([passage])
    text = asked(retriever, "two").text
    retriever.close()
    assert text.startswith("Two:\n\n| a |\n|---|\n| red |\n\n| b |\n|---|\n| blue |\n\n— ")


def test_an_announcement_comes_with_what_it_announces(cut: Callable[..., tuple[Passage, ...]]) -> None:
    """An answer would end in a colon, or begin with a list of nobody knows what."""
    filler = " ".join(f"Filler number {number} stands here." for number in range(30))
    retriever = Retriever(cut(f"# A\n\n{filler}\n\nThe colours of the lamp are:\n\n- red\n- blue\n\n{filler}\n"))
    text = asked(retriever, "colours of the lamp").text
    retriever.close()
    assert "The colours of the lamp are:\n\n- red\n- blue\n\n" in text
