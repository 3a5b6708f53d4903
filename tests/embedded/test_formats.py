"""What is read of reStructuredText, HTML, Word and PDF."""

from collections.abc import Iterable
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brunix_twisted.embedded.blocks import Section
from brunix_twisted.embedded.html_pages import html_sections
from brunix_twisted.embedded.pdf_files import PdfFileError, pdf_sections
from brunix_twisted.embedded.restructured_text import rst_sections
from brunix_twisted.embedded.word_files import WordFileError, word_sections
from office_files import paragraph, table, write_docx, write_pdf

Read = list[tuple[tuple[str, ...], list[str]]]


def read(sections: Iterable[Section]) -> Read:
    """Return the headings and the text of each section that has any."""
    return [(section.headings, [block.text for block in section.blocks]) for section in sections if section.blocks]


def rst(text: str) -> Read:
    return read(rst_sections(dedent(text).split("\n")))


# reStructuredText.


def test_rst_titles() -> None:
    """Titles have the levels in which their lines first appear, and a line above makes another level."""
    text = """\
        =====
        Floop
        =====

        Zero.

        Use
        ===

        One.

        More
        ----

        Two.

        API
        ===

        Three.
        """
    assert rst(text) == [
        (("Floop",), ["Zero."]),
        (("Floop", "Use"), ["One."]),
        (("Floop", "Use", "More"), ["Two."]),
        (("Floop", "API"), ["Three."]),
    ]


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        (
            "Run this::\n\n    pip install x\n\n    y\n\nThen go.",
            ["Run this:", "```\npip install x\n\ny\n```", "Then go."],
        ),
        ("::\n\n    code", ["```\ncode\n```"]),
        (".. code-block:: python\n   :linenos:\n\n   import x", ["```python\nimport x\n```"]),
        (">>> 1 + 1\n2", ["```pycon\n>>> 1 + 1\n2\n```"]),
        (".. note:: Mind it.\n\n   And this.", ["Mind it.", "And this."]),
        (".. versionadded:: 2.0\n   It came.", ["It came."]),
        (".. a comment\n   of two lines\n\ntext", ["text"]),
        (".. _target:\n\ntext", ["text"]),
        (".. toctree::\n   :maxdepth: 2\n\n   one\n   two\n\ntext", ["text"]),
        (".. include:: /etc/passwd\n\ntext", ["text"]),
        (".. raw:: html\n\n   <script>\n\ntext", ["text"]),
        ("- one\n- two\n  more\n\n  - three", ["- one", "- two more", "- three"]),
        ("1. one\n2. two::\n\n     code", ["1. one", "2. two:", "```\ncode\n```"]),
        ("term\n   What it is.", ["- term: What it is."]),
        (":Author: Kim\n:orphan:\n\ntext", ["- Author: Kim", "text"]),
        ("-v, --verbose  Say more.", ["- `-v, --verbose`: Say more."]),
        ("   A quotation.", ["A quotation."]),
        ("one\n\n----\n\ntwo", ["one", "two"]),
    ],
)
def test_rst_blocks(text: str, blocks: list[str]) -> None:
    """Each kind of element becomes the blocks that can be quoted; what is no text is left out."""
    assert rst(text) == [((), blocks)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("``a``", "`a`"),
        (":func:`fold`", "`fold`"),
        (":py:meth:`~floop.Map.fold`", "`floop.Map.fold`"),
        (":ref:`this page <target>`", "this page"),
        (":doc:`install`", "install"),
        ("`site <https://x.example>`_", "[site](https://x.example)"),
        ("`local <page.html>`_", "local"),
        ("the `whole thing`_ and one_.", "the whole thing and one."),
        ("a |name| here [1]_", "a name here"),
        (r"a\_b", "a_b"),
        ("snake_case stays", "snake_case stays"),
        ("*soft* and **loud**", "*soft* and **loud**"),
    ],
)
def test_rst_inline(text: str, shown: str) -> None:
    """Inline markup becomes Markdown, and references become their text."""
    assert rst(text) == [((), [shown])]


@pytest.mark.parametrize(
    "text",
    [
        (
            "+---+-------+\n| k | v     |\n+===+=======+\n| a | one   |\n|   | two   |\n+---+-------+\n"
            "| b | three |\n+---+-------+"
        ),
        "==  =====\nk   v\n==  =====\na   one\n    two\n\nb   three\n==  =====",
        (
            ".. list-table::\n   :header-rows: 1\n\n   * - k\n     - v\n   * - a\n     - one\n       two\n   * - b\n"
            "     - three"
        ),
        '.. csv-table::\n   :header-rows: 1\n\n   k, v\n   a, one two\n   b, "three"',
    ],
    ids=["grid", "simple", "list-table", "csv-table"],
)
def test_rst_tables(text: str) -> None:
    """Each row is a block, in every notation for tables."""
    [section] = rst_sections([*text.split("\n"), "", "after"])
    assert [block.text for block in section.blocks] == ["| a | one two |", "| b | three |", "after"]
    assert section.blocks[0].header == "| k | v |\n|---|---|"


def test_rst_descriptions() -> None:
    """A function, an option or a setting is a section with its name, so that it can be found and cited."""
    text = """\
        Options
        =======

        .. option:: --speed N

           How fast it folds.

        .. py:function:: fold(map)

           Folds a map.

        And so on.
        """
    assert rst(text) == [
        (("Options", "--speed N"), ["How fast it folds."]),
        (("Options", "fold(map)"), ["Folds a map."]),
        (("Options",), ["And so on."]),
    ]


def test_rst_lines() -> None:
    """Blocks know their lines, also within other elements."""
    text = "Title\n=====\n\none\ntwo\n\n.. note::\n\n   three\n\n   - four\n     five\n\n::\n\n   code\n"
    [_, section] = rst_sections(text.split("\n"))
    assert [(block.first_line, block.last_line) for block in section.blocks] == [(4, 5), (9, 9), (11, 12), (16, 16)]


MARKUP = st.text("ab=-~`*|_:.<>[]()+#\\ \n  ", max_size=300)


@given(MARKUP)
def test_any_rst(text: str) -> None:
    """No text makes the reader fail, and lines are lines of the file."""
    lines = text.split("\n")
    for section in rst_sections(lines):
        assert all(1 <= block.first_line <= block.last_line <= len(lines) for block in section.blocks)


@pytest.mark.parametrize(
    "text",
    [
        *(part * 30_000 for part in ("`", "`a ", ":a", "a-", "-a=", "|a", " \n", "- ", "== ==\n", "a\n b\n", "``a`` ")),
        "\n".join(" " * depth + "a" for depth in range(500)),
    ],
    ids=lambda text: repr(text[:6]),
)
def test_hostile_rst(text: str) -> None:
    """Text that makes patterns repeat is read in linear time: this test would take hours otherwise."""
    assert list(rst_sections(text.split("\n"))) is not None


# HTML.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<title>T &amp; U</title><p>one", [(("T & U",), ["one"])]),
        ("<h1>A<a href='#a'>¶</a></h1><p>one<h2>B</h2>two", [(("A",), ["one"]), (("A", "B"), ["two"])]),
        ("<nav>menu</nav><main><p>one</main><footer>foot</footer>", [((), ["one"])]),
        ("<div role=main><div>one</div></div><div>two</div>", [((), ["one"])]),
        ("<script>x<p>y</script><style>z</style><p hidden>w</p><p>one", [((), ["one"])]),
        ("<p>a <code>b</code> <b>c</b> <i>d</i><br>e", [((), ["a `b` **c** d e"])]),
        ("<p><a href='https://x.example'>x</a> <a href='y.html'>y</a>", [((), ["[x](https://x.example) y"])]),
        ("<p><a href='javascript:alert(1)'>x</a> <a href='https://x.example'><img></a>", [((), ["x"])]),
        ("<ul><li>a<li><p>b</p><p>c</p></ul><ol><li>d<li>e</ol>", [((), ["- a", "- b", "c", "1. d", "2. e"])]),
        ("<dl><dt>a</dt><dd>b</dd></dl>", [((), ["- a: b"])]),
        ("<pre class='language-sh'>\na  b\nc\n</pre>d", [((), ["```sh\na  b\nc\n```", "d"])]),
        ("<div class='highlight-python'><pre><span>a</span>\n</pre></div>", [((), ["```python\na\n```"])]),
        ("<table><tr><td><p>one<table><tr><td>two</table></table>", [((), ["one", "two"])]),
        ("</p></main></table></ul>one", [((), ["one"])]),
        ("<table><tr><td>one", [((), ["one"])]),
        ("<!-- <p>no --><p>one", [((), ["one"])]),
    ],
)
def test_html(text: str, expected: Read) -> None:
    """A page becomes its main content as Markdown, and what is malformed is read as a browser would."""
    assert read(html_sections(text)) == expected


def test_html_table() -> None:
    """A table with a header has the names of its columns, and one without has empty ones."""
    [section] = html_sections(
        "<table><thead><tr><th>k<th>v</thead><tr><td>a<td>one|two</table>\n<table><tr><td>x<td>y</table>"
    )
    assert [(block.text, block.header) for block in section.blocks] == [
        (r"| a | one\|two |", "| k | v |\n|---|---|"),
        ("| x | y |", "|  |  |\n|---|---|"),
    ]


def test_html_lines() -> None:
    """Blocks know their lines in the source."""
    [section] = html_sections("<h1>A</h1>\n<p>\none\ntwo\n</p>\n<pre>\na\nb\n</pre>")
    assert [(block.first_line, block.last_line) for block in section.blocks] == [(3, 4), (7, 8)]


TAGS = (
    "<p>",
    "</p>",
    "<table>",
    "<tr>",
    "<td>",
    "</td>",
    "</table>",
    "<h1>",
    "</h1>",
    "<ul>",
    "<li>",
    "a",
    "<pre>",
    "<a",
)


@given(st.lists(st.sampled_from(TAGS)))
def test_any_html(parts: list[str]) -> None:
    """No sequence of tags makes the reader fail."""
    for section in html_sections("".join(parts)):
        assert all(1 <= block.first_line <= block.last_line for block in section.blocks)


# Word.


def test_word(tmp_path: Path) -> None:
    """Headings are found by their style in every language, and lists, code and tables are blocks of their kind."""
    bold = "<w:b/>"
    write_docx(
        tmp_path / "a.docx",
        paragraph("Handbuch", "Titel")
        + paragraph("Urlaub", "berschrift1")
        + paragraph("Sie haben 30 Tage.")
        + paragraph("Antrag", "berschrift2")
        + paragraph("Kim fragen", properties="<w:numPr/>")
        + paragraph("pip install x", "Quelltext")
        + paragraph("  y", run='<w:rFonts w:ascii="Courier New"/>')
        + table(("Jahr", "Tage"), ("2025", "30"))
        + paragraph("Krankheit", run=bold)
        + paragraph("Das ist wichtig.", run=bold)
        + "<w:sdt><w:sdtContent>"
        + paragraph("Rufen Sie an.")
        + "</w:sdtContent></w:sdt>"
        + "<w:p><w:del><w:r><w:t>Alt</w:t></w:r></w:del><w:r><w:t>Neu</w:t><w:br/><w:t>hier</w:t></w:r></w:p>",
    )
    assert read(word_sections(tmp_path / "a.docx")) == [
        (("Handbuch", "Urlaub"), ["Sie haben 30 Tage."]),
        (("Handbuch", "Urlaub", "Antrag"), ["- Kim fragen", "```\npip install x\n  y\n```", "| 2025 | 30 |"]),
        (("Handbuch", "Urlaub", "Antrag", "Krankheit"), ["Das ist wichtig.", "Rufen Sie an.", "Neu hier"]),
    ]


def test_word_paragraphs(tmp_path: Path) -> None:
    """Blocks are cited by their paragraphs, and those in a table count."""
    write_docx(tmp_path / "a.docx", paragraph("A", "berschrift1") + table(("k", "v"), ("a", "b")) + paragraph("end"))
    [section] = word_sections(tmp_path / "a.docx")
    assert [(block.text, block.first_line, block.last_line) for block in section.blocks] == [
        ("| a | b |", 4, 5),
        ("end", 6, 6),
    ]


@pytest.mark.parametrize(
    ("content_bytes", "reason"),
    [
        (b"\xd0\xcf\x11\xe0 an old or encrypted file", "password"),
        (b"PK\x05\x06" + b"\0" * 18, "damaged"),
        (b"", "no Word"),
    ],
)
def test_no_word_file(tmp_path: Path, content_bytes: bytes, reason: str) -> None:
    """What is no Word file is reported as such."""
    (tmp_path / "a.docx").write_bytes(content_bytes)
    with pytest.raises(WordFileError, match=reason):
        word_sections(tmp_path / "a.docx")


def test_word_bomb(tmp_path: Path) -> None:
    """A small file that unpacks to a huge one is not unpacked."""
    write_docx(tmp_path / "a.docx", " " * (65 * 1024 * 1024))
    assert (tmp_path / "a.docx").stat().st_size < 1024 * 1024
    with pytest.raises(WordFileError, match="larger than 64 MiB"):
        word_sections(tmp_path / "a.docx")


# PDF.


def test_pdf(tmp_path: Path) -> None:
    """Lines are joined to paragraphs, the outline gives the headings, and blocks know their page."""
    write_pdf(
        tmp_path / "a.pdf",
        [
            [
                "1. Holidays",
                "Every employee has thirty days of holi-",
                "days in each year. Ask the office for them.",
                "Short.",
            ],
            ["2. Illness", "Call the office in the morning, and say", "• when you fell ill", "• when you will be back"],
        ],
        outline={"Holidays": 0, "Illness": 1},
    )
    sections = pdf_sections(tmp_path / "a.pdf")
    assert read(sections) == [
        (("Holidays",), ["Every employee has thirty days of holidays in each year. Ask the office for them. Short."]),
        (("Illness",), ["Call the office in the morning, and say", "- when you fell ill", "- when you will be back"]),
    ]
    assert [block.first_line for section in sections for block in section.blocks] == [1, 2, 2, 2]


def test_pdf_furniture(tmp_path: Path) -> None:
    """What every page begins and ends with, page numbers included, is not text."""
    pages = [
        ["ACME handbook", f"Chapter {name} is about {name}.", f"page {number}"] for number, name in enumerate("abcd")
    ]
    write_pdf(tmp_path / "a.pdf", pages)
    [section] = pdf_sections(tmp_path / "a.pdf")
    assert [block.text for block in section.blocks] == [f"Chapter {name} is about {name}." for name in "abcd"]


@pytest.mark.parametrize(
    ("content_bytes", "reason"),
    [(b"", "damaged"), (b"%PDF-1.4\nnothing", "damaged"), (b"%PDF-1.4\ntrailer << /Root 1 0 R >>\n%%EOF", "damaged")],
)
def test_no_pdf(tmp_path: Path, content_bytes: bytes, reason: str) -> None:
    """A damaged file is reported as such."""
    (tmp_path / "a.pdf").write_bytes(content_bytes)
    with pytest.raises(PdfFileError, match=reason):
        pdf_sections(tmp_path / "a.pdf")


def test_pdf_without_text(tmp_path: Path) -> None:
    """A scan is reported as such: its text cannot be searched."""
    write_pdf(tmp_path / "a.pdf", [[], []])
    with pytest.raises(PdfFileError, match="only pictures"):
        pdf_sections(tmp_path / "a.pdf")


def test_pdf_with_a_password(tmp_path: Path) -> None:
    """A file with a password is reported as such."""
    write_pdf(tmp_path / "a.pdf", [["The secret is in the drawer of the desk."]], password="secret")  # noqa: S106 - a test's
    with pytest.raises(PdfFileError, match="password"):
        pdf_sections(tmp_path / "a.pdf")
