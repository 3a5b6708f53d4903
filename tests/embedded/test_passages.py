from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brunix_twisted.embedded.documents import Document, lines_of
from brunix_twisted.embedded.passages import LONGEST_PASSAGE, Passage, anchor, passages_of

Cut = Callable[..., tuple[Passage, ...]]


def named(passages: tuple[Passage, ...], heading: str) -> Passage:
    [found] = [passage for passage in passages if passage.headings[-1:] == (heading,)]
    return found


def test_headings_cut_and_their_path_is_kept(cut: Cut) -> None:
    """A citation would name the wrong section."""
    text = "# A\none\n## B\ntwo\n### C\nthree\n## D\nfour\n"
    assert [(each.headings, each.body) for each in cut(text)] == [
        (("A",), "one"),
        (("A", "B"), "two"),
        (("A", "B", "C"), "three"),
        (("A", "D"), "four"),
    ]


def test_underlined_headings_cut_too(passages: tuple[Passage, ...]) -> None:
    """Documents in the older style would be one long passage."""
    assert named(passages, "Checkpoints").headings == ("SQLite", "Write-ahead log", "Checkpoints")


def test_text_before_the_first_heading_is_a_passage(passages: tuple[Passage, ...]) -> None:
    """An introduction could not be found."""
    first = next(passage for passage in passages if passage.source == "cron.md")
    assert (first.headings, first.title, first.first_line) == ((), "Scheduling with cron", 6)
    assert first.body.startswith("Cron runs commands at fixed times.")


def test_front_matter_is_no_text(passages: tuple[Passage, ...]) -> None:
    """The metadata of a page would be quoted as its contents."""
    assert not any("unseen" in f"{passage.title} {passage.headings} {passage.body}" for passage in passages)


def test_lines_count_from_one_and_include_the_last(cut: Cut) -> None:
    """Citations would be off by a line."""
    [passage] = cut("# A\n\none\ntwo\n\n```\ncode\n```\n\nthree\n")
    assert [(block.first_line, block.last_line) for block in passage.blocks] == [(3, 4), (6, 8), (10, 10)]
    assert (passage.first_line, passage.last_line) == (3, 10)


def test_carriage_returns_change_nothing(cut: Cut) -> None:
    """A document written on Windows would be cited wrongly, or show control characters in the chat."""
    text = "# A\n\none\ntwo\n\n```sh\ncode\n```\n\n| a |\n|---|\n| b |\n"
    assert cut(text.replace("\n", "\r\n")) == cut(text)


def test_a_heading_inside_code_cuts_nothing(cut: Cut) -> None:
    """A comment in a shell script would tear the script apart."""
    [passage] = cut("# A\n\n```sh\n# not a heading\nrun\n```\n")
    assert passage.blocks[0].content == "# not a heading\nrun"


def test_a_heading_inside_a_quotation_cuts_nothing(cut: Cut) -> None:
    """A quoted heading would take over the text below it."""
    assert [passage.headings for passage in cut("# A\n\n> ## B\n> quoted\n\nmore\n")] == [("A",)]


def test_code_in_a_list_keeps_its_fence_without_the_indentation(passages: tuple[Passage, ...]) -> None:
    """Code from numbered steps would be shown as text, or indented."""
    keys = named(passages, "Keys")
    assert "1. Make the pair:" in [block.text for block in keys.blocks]
    assert "```sh\nssh-keygen -t ed25519\n```" in [block.text for block in keys.blocks]
    assert "2. Copy the public half to the server:" in [block.text for block in keys.blocks]


def test_a_fence_of_tildes_and_indented_code_are_code(cut: Cut) -> None:
    """Code would be quoted as prose, its lines run together."""
    [passage] = cut("~~~ini\n[core]\n~~~\n\n    indented\n")
    assert [(block.kind, block.text) for block in passage.blocks] == [
        ("code", "~~~ini\n[core]\n~~~"),
        ("code", "```\nindented\n```"),
    ]


def test_indented_code_with_a_fence_in_it_stays_in_one_piece(cut: Cut) -> None:
    """Half of a piece of code would be shown as text."""
    [passage] = cut("Text:\n\n    ```\n    inner\n    ```\n")
    assert passage.blocks[1].text == "````\n```\ninner\n```\n````"


def test_a_row_of_a_table_is_a_block_with_the_tables_head(cut: Cut) -> None:
    """The one row that matters would be shown among dozens, or without the names of its columns."""
    [passage] = cut("# A\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\nafter\n")
    head = "| a | b |\n|---|---|"
    assert [(block.kind, block.head, block.text, block.first_line, block.last_line) for block in passage.blocks] == [
        ("row", head, "| 1 | 2 |", 5, 5),
        ("row", head, "| 3 | 4 |", 6, 6),
        ("prose", "", "after", 8, 8),
    ]


def test_a_long_table_stays_in_one_passage(cut: Cut) -> None:
    """A table would fill the first places of every search, one for each of its pieces."""
    rows = "\n".join(f"| name{number} | {'word ' * 20} |" for number in range(40))
    [passage] = cut(f"# A\n\n| a | b |\n|---|---|\n{rows}\n\nafter\n")
    assert len(passage.blocks) == 41


def test_a_table_without_rows_says_nothing(cut: Cut) -> None:
    """One unfinished table would keep the engine from starting."""
    assert cut("| a | b |\n|---|---|\n") == ()


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ("| [Other](other.md) | what stands there |", False),
        ("[Other](other.md#x) | what stands there", False),
        ("| [The web](https://example.com/) | what stands there |", True),
        ("| see [Other](other.md) | what stands there |", True),
    ],
)
def test_a_row_that_only_points_to_a_page_is_no_text(cut: Cut, row: str, *, kept: bool) -> None:
    """A question would be answered with the name of the page that has the answer, and no way to get there."""
    texts = [block.text for passage in cut(f"| a | b |\n|---|---|\n{row}\n| 1 | 2 |\n") for block in passage.blocks]
    assert texts[-1] == "| 1 | 2 |"
    assert len(texts) == 1 + kept


def test_links_that_lead_nowhere_lose_their_target(cut: Cut) -> None:
    """A chat window would show links that do not work."""
    [passage] = cut("See [the page](other.md#x), [the web](https://example.com/) and ![a picture](a.png).\n")
    assert passage.body == "See the page, [the web](https://example.com/) and a picture."


def test_comments_are_no_text(cut: Cut) -> None:
    """Notes to the authors would be quoted."""
    assert [passage.body for passage in cut("<!-- generated -->\n\ntext\n")] == ["text"]


def test_a_long_section_becomes_several_passages(cut: Cut) -> None:
    """A good sentence would drown in a long section and not be found."""
    paragraph = "word " * 100
    passages = cut("# A\n\n" + "\n\n".join([paragraph] * 6))
    assert len(passages) == 3
    assert all(len(passage.body) <= LONGEST_PASSAGE for passage in passages)
    assert {passage.headings for passage in passages} == {("A",)}


def test_what_a_colon_announces_stays_with_it(cut: Cut) -> None:
    """An answer would end in a colon."""
    text = "word " * 230 + "\n\nRun this:\n\n```\n" + "x\n" * 100 + "```\n"
    assert [[block.kind for block in passage.blocks] for passage in cut(text)] == [["prose", "prose", "code"]]


def test_plain_text_is_cut_at_empty_lines(passages: tuple[Passage, ...]) -> None:
    """A text file could not be cited by its lines."""
    [passage] = [passage for passage in passages if passage.source == "signals.txt"]
    assert (passage.title, passage.headings) == ("signals", ())
    assert [(block.first_line, block.last_line) for block in passage.blocks] == [(1, 1), (3, 4), (6, 6), (8, 9)]


def test_markdown_in_a_text_file_is_not_read_as_such(cut: Cut) -> None:
    """A line of a log that begins with # would become a heading."""
    [passage] = cut("# not a heading\n", "log.txt")
    assert passage.headings == ()


def test_anchors_are_those_of_the_rendered_page() -> None:
    """A golden question that names a heading would never be counted as found."""
    assert [anchor(each) for each in ("The five fields", "`BRUNIX_DOCS`, and so on", "Another user's table")] == [
        "the-five-fields",
        "brunix_docs-and-so-on",
        "another-users-table",
    ]


@given(st.text('ab#-|`~> \n\t\r*1.[]()<!"', max_size=200))
def test_any_text_can_be_cut(text: str) -> None:
    """One odd document would keep the engine from starting."""
    lines = lines_of(text)
    for passage in passages_of(Document("page.md", lines, is_markdown=True)):
        assert 1 <= passage.first_line <= passage.last_line <= len(lines)
        assert passage.blocks
        assert passage.body.strip()
