from collections.abc import Callable

import pytest

from brunix_twisted.embedded.chunks import Entry, parts_of, sentences
from brunix_twisted.embedded.passages import Passage

Cut = Callable[..., tuple[Passage, ...]]


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


def test_each_row_is_a_part_and_the_rest_is_another(cut: Cut) -> None:
    """A row could not be found among its neighbours, or a text would be found by the words of its tables."""
    [passage] = cut("# A\n\nprose\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\n```\ncode\n```\n\n- item\n")
    head = ["A", "|", "a", "|", "b", "|", "|---|---|"]
    assert [(part.headings.split(), part.prose, part.code) for part in parts_of(passage)] == [
        (["A"], "prose\nitem", "code"),
        (head, "| 1 | 2 |", ""),
        (head, "| 3 | 4 |", ""),
    ]


def test_a_table_alone_has_no_other_part(cut: Cut) -> None:
    """An empty text would be found by its headings and quoted as nothing."""
    [passage] = cut("# A\n\n| a |\n|---|\n| 1 |\n")
    assert [part.prose for part in parts_of(passage)] == ["| 1 |"]


def test_a_document_without_headings_is_found_by_its_title(cut: Cut) -> None:
    """A text file could not be found by its name."""
    [passage] = cut("text", "kettle-care.txt")
    assert [part.headings.split() for part in parts_of(passage)] == [["kettle", "care"]]


def test_words_count_by_where_they_stand(cut: Cut) -> None:
    """An example would outdo the text that it belongs to."""
    [passage] = cut("# Lamps\n\nA kettle, a kettle.\n\n```\nkettle toaster toaster\n```\n")
    [part] = parts_of(passage)
    counts = Entry(0, part).frequencies
    assert (counts["lamp"], counts["kettl"]) == (2, 2)
    assert 0 < counts["toaster"] < 0.5


def test_names_are_found_by_their_words(cut: Cut) -> None:
    """A question in plain words would not find the setting that is named with underscores."""
    [passage] = cut("`PROXY_THREAD_WORKERS` and `--queue-size`\n")
    [part] = parts_of(passage)
    assert {"proxi", "thread", "worker", "queue", "size"} <= set(Entry(0, part).frequencies)


def test_a_row_says_its_head_and_itself_in_one_breath(cut: Cut) -> None:
    """Asking for the default of a setting, a row under "default" would lose to one that has the word in its text."""
    [passage] = cut("| name | default |\n|---|---|\n| kettle | 3 |\n")
    [part] = parts_of(passage)
    [spoken] = Entry(0, part).spoken
    assert {"default", "kettl"} <= set(spoken)
