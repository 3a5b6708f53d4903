"""Split a document into blocks: paragraphs, list items, code and table rows."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

import attrs
from markdown_it import MarkdownIt
from markdown_it.token import Token

Kind = Literal["prose", "item", "code", "row"]

_PARSER: Final = MarkdownIt("commonmark").enable("table")

# A relative link does not work in a chat window: keep its text and remove its target.
_RELATIVE_LINK: Final = re.compile(r"(?<!!)\[([^\]\[]+)\]\((?![a-z]+:)[^()\s]*\)")
_LINK_ROW: Final = re.compile(rf"\s*\|?\s*{_RELATIVE_LINK.pattern}\s*(?:\||$)")
_IMAGE: Final = re.compile(r"!\[([^\]\[]*)\]\([^()]*\)")

_HEADER_LINES: Final = 2  # column names and delimiter row


@attrs.frozen
class Block:
    """One block of a document.

    ``text`` is Markdown; ``content`` is the same without fences or list markers. ``header`` is the header of a row's
    table: without it, a row is not valid Markdown. Lines count from 1; the last line is included.
    """

    kind: Kind
    text: str
    content: str
    first_line: int
    last_line: int
    header: str = ""


# ``!!! note "Title"``, ``??? info`` and ``=== "Tab"`` of MkDocs, and the attributes of a heading such as ``{#anchor}``.
_ADMONITION: Final = re.compile(
    r"(?P<indentation> *)(?:(?:!!!|\?\?\?\+?) +\w[\w-]*(?: \w[\w-]*)*|===\+?(?= +\"))(?: +\"(?P<title>[^\"]*)\")? *\Z"
)
_ATTRIBUTES: Final = re.compile(r" ?\{[:#.][^{}]*\}\Z")


@attrs.frozen
class Section:
    """The blocks between one heading and the next. ``headings`` is the path of headings to it."""

    headings: tuple[str, ...]
    blocks: tuple[Block, ...]


def markdown_sections(lines: Sequence[str]) -> Iterator[Section]:
    """Split Markdown at its headings, except headings inside a quotation or a list."""
    lines = _without_admonitions(_without_front_matter(lines))
    tokens = _PARSER.parse("\n".join(lines))
    path: list[tuple[int, str]] = []
    blocks: list[Block] = []
    markers: list[str] = []
    for index, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0:
            yield _section(path, blocks)
            depth = int(token.tag[1:])
            path = [above for above in path if above[0] < depth]
            path.append((depth, _heading_text(tokens[index + 1])))
            blocks = []
        elif token.type == "list_item_open":
            markers.append(f"{token.info}{token.markup} ")
        elif token.type == "list_item_close":
            markers.clear()
        elif token.type in ("paragraph_open", "heading_open"):
            text = _without_relative_links(" ".join(tokens[index + 1].content.split()))
            kind: Kind = "item" if markers else "prose"
            blocks.append(Block(kind, "".join(markers[-1:]) + text, text, *_lines(token)))
            markers.clear()
        elif token.type in ("fence", "code_block"):
            content = token.content.rstrip("\n")
            fence = token.markup or fence_around(content)
            text = f"{fence}{token.info.strip()}\n{content}\n{fence}"
            blocks.append(Block("code", text, content, *_lines(token)))
            markers.clear()
        elif token.type == "table_open":
            blocks.extend(_rows(lines, *_lines(token)))
            markers.clear()
    yield _section(path, blocks)


def text_sections(lines: Sequence[str]) -> Iterator[Section]:
    """Return plain text as one section without headings, with a block for each paragraph."""
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
    """Blank the metadata between two ``---`` at the top, which would be parsed as a heading."""
    if lines and lines[0].rstrip() == "---":
        for end, line in enumerate(lines[1:], start=1):
            if line.rstrip() in ("---", "..."):
                return [""] * (end + 1) + list(lines[end + 1 :])
    return list(lines)


def _without_admonitions(lines: list[str]) -> list[str]:
    """Turn the admonitions and tabs of MkDocs into paragraphs. Their content is indented, as code is."""
    plain = list(lines)
    for number in range(len(lines)):
        marker = _ADMONITION.match(plain[number])
        if not marker:
            continue
        indentation, title = marker["indentation"], marker["title"]
        inner = f"{indentation}    "
        plain[number] = f"{indentation}**{title}**" if title else ""
        for after in range(number + 1, len(lines)):
            if plain[after].strip() and not plain[after].startswith(inner):
                break
            plain[after] = indentation + plain[after][len(inner) :]
    return plain


def _lines(token: Token) -> tuple[int, int]:
    """Return a token's first and last line, from 1; the parser counts from 0 and excludes the last."""
    start, end = token.map or [0, 1]
    return start + 1, max(start + 1, end)


def _rows(lines: Sequence[str], first_line: int, last_line: int) -> Iterator[Block]:
    """Return each row of a table as a block: one row is an answer, a table of thirty rows is too long.

    Skip rows that start with a relative link. Such a row says where an answer is, and does not contain it.
    """
    table = [_without_relative_links(line.strip()) for line in lines[first_line - 1 : last_line]]
    header = "\n".join(table[:_HEADER_LINES])
    for number, row in enumerate(table[_HEADER_LINES:], start=first_line + _HEADER_LINES):
        if row and not _LINK_ROW.match(lines[number - 1]):
            yield Block("row", row, row, number, number, header)


def _heading_text(inline: Token) -> str:
    """Return a heading without markup."""
    children = inline.children or []
    text = "".join(child.content for child in children if child.type in ("text", "code_inline"))
    return _ATTRIBUTES.sub("", " ".join(text.split()))


def fence_around(content: str) -> str:
    """Return a fence that is longer than any fence in the code."""
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    return "`" * max(3, longest + 1)


def table_row(cells: Iterable[str]) -> str:
    """Return a row of a table in Markdown."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"


def table_header(cells: Sequence[str]) -> str:
    """Return the header of a table in Markdown: the names of its columns, and the line below them."""
    return f"{table_row(cells)}\n|{'---|' * len(cells)}"


def _without_relative_links(text: str) -> str:
    return _RELATIVE_LINK.sub(r"\1", _IMAGE.sub(r"\1", text))
