from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brunix_twisted.embedded.documents import lines_of, text_document
from brunix_twisted.embedded.passages import MAX_PASSAGE_CHARACTERS, Passage, anchor, passages_of

Split = Callable[..., tuple[Passage, ...]]


def named(passages: tuple[Passage, ...], heading: str) -> Passage:
    [found] = [passage for passage in passages if passage.headings[-1:] == (heading,)]
    return found


def test_headings(split: Split) -> None:
    """A document is split at its headings, and each passage has the path of its headings."""
    text = "# A\none\n## B\ntwo\n### C\nthree\n## D\nfour\n"
    assert [(each.headings, each.body) for each in split(text)] == [
        (("A",), "one"),
        (("A", "B"), "two"),
        (("A", "B", "C"), "three"),
        (("A", "D"), "four"),
    ]


def test_underlined_headings(passages: tuple[Passage, ...]) -> None:
    """Underlined headings split a document too."""
    assert named(passages, "Checkpoints").headings == ("SQLite", "Write-ahead log", "Checkpoints")


def test_text_before_the_first_heading(passages: tuple[Passage, ...]) -> None:
    """Text before the first heading is a passage."""
    first = next(passage for passage in passages if passage.source == "cron.md")
    assert (first.headings, first.title, first.first_line) == ((), "Scheduling with cron", 6)
    assert first.body.startswith("Cron runs commands at fixed times.")


def test_front_matter(passages: tuple[Passage, ...]) -> None:
    """Front matter is not searched or quoted."""
    assert not any("unseen" in f"{passage.title} {passage.headings} {passage.body}" for passage in passages)


def test_admonitions(split: Split) -> None:
    """Notes and tabs of MkDocs are prose, and code in them is code."""
    note = "!!! note\n\n    Be careful.\n\n    ```sh\n    run\n    ```\n"
    tab = '=== "Linux"\n    !!! tip "Fast"\n        Use it.\n'
    text = f"# A\n\n{note}\n{tab}\nEnd.\n"
    [passage] = split(text)
    assert [(block.kind, block.content, block.first_line) for block in passage.blocks] == [
        ("prose", "Be careful.", 5),
        ("code", "run", 7),
        ("prose", "**Linux** **Fast** Use it.", 11),
        ("prose", "End.", 15),
    ]


def test_indented_code_and_short_underlines(split: Split) -> None:
    """What only resembles a note or a tab is read as before."""
    [passage] = split("A\n===\n\n!!! wow, that is it\n\n    code\n")
    assert passage.headings == ("A",)
    assert [block.kind for block in passage.blocks] == ["prose", "code"]


def test_attributes_of_a_heading(split: Split) -> None:
    """The attributes of a heading are not part of it."""
    assert [each.headings for each in split("# A {#first}\none\n## B {: .big #b }\ntwo\n## C {x}\nthree\n")] == [
        ("A",),
        ("A", "B"),
        ("A", "C {x}"),
    ]


def test_line_numbers(split: Split) -> None:
    """Lines count from 1, and the last line is included."""
    [passage] = split("# A\n\none\ntwo\n\n```\ncode\n```\n\nthree\n")
    assert [(block.first_line, block.last_line) for block in passage.blocks] == [(3, 4), (6, 8), (10, 10)]
    assert (passage.first_line, passage.last_line) == (3, 10)


def test_carriage_returns(split: Split) -> None:
    """Windows line ends do not change the result."""
    text = "# A\n\none\ntwo\n\n```sh\ncode\n```\n\n| a |\n|---|\n| b |\n"
    assert split(text.replace("\n", "\r\n")) == split(text)


def test_comment_in_code(split: Split) -> None:
    """A comment that looks like a heading does not split code."""
    [passage] = split("# A\n\n```sh\n# not a heading\nrun\n```\n")
    assert passage.blocks[0].content == "# not a heading\nrun"


def test_heading_in_a_quotation(split: Split) -> None:
    """A heading inside a quotation does not split a document."""
    assert [passage.headings for passage in split("# A\n\n> ## B\n> quoted\n\nmore\n")] == [("A",)]


def test_code_in_a_list(passages: tuple[Passage, ...]) -> None:
    """Code in a list keeps its fence and loses its indentation."""
    keys = named(passages, "Keys")
    assert "1. Make the pair:" in [block.text for block in keys.blocks]
    assert "```sh\nssh-keygen -t ed25519\n```" in [block.text for block in keys.blocks]
    assert "2. Copy the public half to the server:" in [block.text for block in keys.blocks]


def test_other_code_blocks(split: Split) -> None:
    """Code fenced with tildes and indented code are code."""
    [passage] = split("~~~ini\n[core]\n~~~\n\n    indented\n")
    assert [(block.kind, block.text) for block in passage.blocks] == [
        ("code", "~~~ini\n[core]\n~~~"),
        ("code", "```\nindented\n```"),
    ]


def test_fence_in_indented_code(split: Split) -> None:
    """Indented code that contains a fence gets a longer fence."""
    [passage] = split("Text:\n\n    ```\n    inner\n    ```\n")
    assert passage.blocks[1].text == "````\n```\ninner\n```\n````"


def test_table_rows(split: Split) -> None:
    """Each table row is a block with the table's header."""
    [passage] = split("# A\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\nafter\n")
    head = "| a | b |\n|---|---|"
    assert [(block.kind, block.header, block.text, block.first_line, block.last_line) for block in passage.blocks] == [
        ("row", head, "| 1 | 2 |", 5, 5),
        ("row", head, "| 3 | 4 |", 6, 6),
        ("prose", "", "after", 8, 8),
    ]


def test_long_table(split: Split) -> None:
    """A long table stays in one passage."""
    rows = "\n".join(f"| name{number} | {'word ' * 20} |" for number in range(40))
    [passage] = split(f"# A\n\n| a | b |\n|---|---|\n{rows}\n\nafter\n")
    assert len(passage.blocks) == 41


def test_table_without_rows(split: Split) -> None:
    """A table without rows has no passage."""
    assert split("| a | b |\n|---|---|\n") == ()


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ("| [Other](other.md) | what stands there |", False),
        ("[Other](other.md#x) | what stands there", False),
        ("| [The web](https://example.com/) | what stands there |", True),
        ("| see [Other](other.md) | what stands there |", True),
    ],
)
def test_link_rows(split: Split, row: str, *, kept: bool) -> None:
    """A table row that starts with a relative link is skipped."""
    texts = [block.text for passage in split(f"| a | b |\n|---|---|\n{row}\n| 1 | 2 |\n") for block in passage.blocks]
    assert texts[-1] == "| 1 | 2 |"
    assert len(texts) == 1 + kept


def test_relative_links(split: Split) -> None:
    """Relative links and images are replaced by their text."""
    [passage] = split("See [the page](other.md#x), [the web](https://example.com/) and ![a picture](a.png).\n")
    assert passage.body == "See the page, [the web](https://example.com/) and a picture."


def test_html_comments(split: Split) -> None:
    """HTML comments are not searched or quoted."""
    assert [passage.body for passage in split("<!-- generated -->\n\ntext\n")] == ["text"]


def test_long_section(split: Split) -> None:
    """A long section becomes several passages."""
    paragraph = "word " * 100
    passages = split("# A\n\n" + "\n\n".join([paragraph] * 6))
    assert len(passages) == 3
    assert all(len(passage.body) <= MAX_PASSAGE_CHARACTERS for passage in passages)
    assert {passage.headings for passage in passages} == {("A",)}


def test_introduced_block(split: Split) -> None:
    """A block that a colon introduces stays in the passage of its introduction."""
    text = "word " * 230 + "\n\nRun this:\n\n```\n" + "x\n" * 100 + "```\n"
    assert [[block.kind for block in passage.blocks] for passage in split(text)] == [["prose", "prose", "code"]]


def test_plain_text(passages: tuple[Passage, ...]) -> None:
    """A text file is split into blocks at empty lines."""
    [passage] = [passage for passage in passages if passage.source == "signals.txt"]
    assert (passage.title, passage.headings) == ("signals", ())
    assert [(block.first_line, block.last_line) for block in passage.blocks] == [(1, 1), (3, 4), (6, 6), (8, 9)]


def test_markdown_in_plain_text(split: Split) -> None:
    """Markdown in a text file is not interpreted."""
    [passage] = split("# not a heading\n", "log.txt")
    assert passage.headings == ()


def test_anchors() -> None:
    """Anchors are those of the rendered page."""
    assert [anchor(each) for each in ("The five fields", "`BRUNIX_DOCS`, and so on", "Another user's table")] == [
        "the-five-fields",
        "brunix_docs-and-so-on",
        "another-users-table",
    ]


@given(st.text('ab#-|`~> \n\t\r*1.[]()<!"', max_size=200))
def test_any_text(text: str) -> None:
    """No text makes the split fail."""
    lines = lines_of(text)
    for passage in passages_of(text_document("page.md", text)):
        assert 1 <= passage.first_line <= passage.last_line <= len(lines)
        assert passage.blocks
        assert passage.body.strip()
