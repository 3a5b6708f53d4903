from collections.abc import Callable

import pytest

from brunix_twisted.embedded.chunks import IndexedChunk, chunks_of, sentences
from brunix_twisted.embedded.passages import Passage

Split = Callable[..., tuple[Passage, ...]]


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
def test_sentences(text: str, expected: list[str]) -> None:
    """A paragraph is split at the ends of its sentences, not at abbreviations, numbers or code."""
    assert sentences(text) == expected


def test_rows_are_separate_chunks(split: Split) -> None:
    """Each table row is a chunk, and the remaining text is another."""
    [passage] = split("# A\n\nprose\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\n```\ncode\n```\n\n- item\n")
    head = ["A", "|", "a", "|", "b", "|", "|---|---|"]
    assert [(chunk.headings.split(), chunk.prose, chunk.code) for chunk in chunks_of(passage)] == [
        (["A"], "prose\nitem", "code"),
        (head, "| 1 | 2 |", ""),
        (head, "| 3 | 4 |", ""),
    ]


def test_table_only(split: Split) -> None:
    """A passage that contains only a table has no empty chunk."""
    [passage] = split("# A\n\n| a |\n|---|\n| 1 |\n")
    assert [chunk.prose for chunk in chunks_of(passage)] == ["| 1 |"]


def test_title_instead_of_headings(split: Split) -> None:
    """A document without headings is indexed with its title."""
    [passage] = split("text", "kettle-care.txt")
    assert [chunk.headings.split() for chunk in chunks_of(passage)] == [["kettle", "care"]]


def test_term_weights(split: Split) -> None:
    """A term in a heading counts twice; a term that occurs only in code counts a fraction."""
    [passage] = split("# Lamps\n\nA kettle, a kettle.\n\n```\nkettle toaster toaster\n```\n")
    [chunk] = chunks_of(passage)
    counts = IndexedChunk(0, chunk).frequencies
    assert (counts["lamp"], counts["kettl"]) == (2, 2)
    assert 0 < counts["toaster"] < 0.5


def test_words_of_names(split: Split) -> None:
    """A name with underscores or hyphens is indexed by its words."""
    [passage] = split("`PROXY_THREAD_WORKERS` and `--queue-size`\n")
    [chunk] = chunks_of(passage)
    assert {"proxi", "thread", "worker", "queue", "size"} <= set(IndexedChunk(0, chunk).frequencies)


def test_row_with_its_header(split: Split) -> None:
    """A row and its table header count as one sentence."""
    [passage] = split("| name | default |\n|---|---|\n| kettle | 3 |\n")
    [chunk] = chunks_of(passage)
    [sentence_terms] = IndexedChunk(0, chunk).sentence_terms
    assert {"default", "kettl"} <= set(sentence_terms)
