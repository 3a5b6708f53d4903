"""The blocks of a document, as its author separated them: paragraphs, list items, code and the rows of tables."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import attrs
from markdown_it import MarkdownIt
from markdown_it.token import Token

Kind = Literal["prose", "item", "code", "row"]

_PARSER: Final = MarkdownIt("commonmark").enable("table")

# A link into the documents leads nowhere from a chat window: its text stays, its target goes.
_RELATIVE_LINK: Final = re.compile(r"(?<!!)\[([^\]\[]+)\]\((?![a-z]+:)[^()\s]*\)")
_SIGNPOST: Final = re.compile(rf"\s*\|?\s*{_RELATIVE_LINK.pattern}\s*(?:\||$)")
_IMAGE: Final = re.compile(r"!\[([^\]\[]*)\]\([^()]*\)")

_HEAD_LINES: Final = 2  # the names of a table's columns, and the line of dashes


@attrs.frozen
class Block:
    """A piece of a document that is quoted in one go or cut into sentences.

    ``text`` is Markdown; ``content`` is what it says without fences: for code the code itself. ``head`` is that of the
    table for a row, which is no Markdown without it. Lines count from 1, the last included.
    """

    kind: Kind
    text: str
    content: str
    first_line: int
    last_line: int
    head: str = ""


@attrs.frozen
class Section:
    """What stands under one heading, before the next: the path of headings down to it, and the blocks."""

    headings: tuple[str, ...]
    blocks: tuple[Block, ...]


def markdown_sections(lines: Sequence[str]) -> Iterator[Section]:
    """Cut Markdown at its headings. A heading inside a quotation or a list cuts nothing."""
    tokens = _PARSER.parse("\n".join(_without_front_matter(lines)))
    path: list[tuple[int, str]] = []
    blocks: list[Block] = []
    markers: list[str] = []
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0:
            yield _section(path, blocks)
            depth = int(token.tag[1:])
            path = [above for above in path if above[0] < depth]
            path.append((depth, _heading_text(tokens[place + 1])))
            blocks = []
        elif token.type == "list_item_open":
            markers.append(f"{token.info}{token.markup} ")
        elif token.type == "list_item_close":
            markers.clear()
        elif token.type in ("paragraph_open", "heading_open"):
            text = _shown_links(" ".join(tokens[place + 1].content.split()))
            kind: Kind = "item" if markers else "prose"
            blocks.append(Block(kind, "".join(markers[-1:]) + text, text, *_lines(token)))
            markers.clear()
        elif token.type in ("fence", "code_block"):
            content = token.content.rstrip("\n")
            fence = token.markup or _fence_around(content)
            text = f"{fence}{token.info.strip()}\n{content}\n{fence}"
            blocks.append(Block("code", text, content, *_lines(token)))
            markers.clear()
        elif token.type == "table_open":
            blocks.extend(_rows(lines, *_lines(token)))
            markers.clear()
    yield _section(path, blocks)


def text_sections(lines: Sequence[str]) -> Iterator[Section]:
    """Give plain text as one section without headings: its blocks are what empty lines separate."""
    blocks = []
    start = 0
    for end in range(len(lines) + 1):
        if end == len(lines) or not lines[end].strip():
            if end > start:
                text = "\n".join(lines[start:end])
                blocks.append(Block("prose", text, text, start + 1, end))
            start = end + 1
    yield Section((), tuple(blocks))


def _section(path: Sequence[tuple[int, str]], blocks: Sequence[Block]) -> Section:
    return Section(tuple(text for _, text in path), tuple(block for block in blocks if block.content.strip()))


def _without_front_matter(lines: Sequence[str]) -> list[str]:
    """Blank the metadata between two ``---`` at a document's top, which Markdown would take for a heading."""
    if lines and lines[0].rstrip() == "---":
        for end, line in enumerate(lines[1:], start=1):
            if line.rstrip() in ("---", "..."):
                return [""] * (end + 1) + list(lines[end + 1 :])
    return list(lines)


def _lines(token: Token) -> tuple[int, int]:
    """Give a token's first and last line from 1; the parser counts from 0 and leaves the last out."""
    start, end = token.map or [0, 1]
    return start + 1, max(start + 1, end)


def _rows(lines: Sequence[str], first_line: int, last_line: int) -> Iterator[Block]:
    """Give the rows of a table one by one: a row of thirty is an answer, all thirty are none.

    A row that begins with a link into the documents is left out. It says where an answer stands, and is none.
    """
    table = [_shown_links(line.strip()) for line in lines[first_line - 1 : last_line]]
    head = "\n".join(table[:_HEAD_LINES])
    for number, row in enumerate(table[_HEAD_LINES:], start=first_line + _HEAD_LINES):
        if row and not _SIGNPOST.match(lines[number - 1]):
            yield Block("row", row, row, number, number, head)


def _heading_text(inline: Token) -> str:
    """Give a heading without its markup: the text of its text and code, and of its links."""
    children = inline.children or []
    return " ".join("".join(child.content for child in children if child.type in ("text", "code_inline")).split())


def _fence_around(content: str) -> str:
    """Give a fence longer than any in the code it is put around."""
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    return "`" * max(3, longest + 1)


def _shown_links(text: str) -> str:
    return _RELATIVE_LINK.sub(r"\1", _IMAGE.sub(r"\1", text))
