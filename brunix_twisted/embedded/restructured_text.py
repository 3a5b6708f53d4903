"""Split reStructuredText into sections and blocks, as Sphinx and docutils projects write it.

This is a reader for searching and quoting, not a renderer: it needs no docutils, runs no directive and includes no
other file. What it does not know is kept as text.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from textwrap import dedent
from typing import Final

from brunix_twisted.embedded.blocks import Block, Kind, Section, fence_around, table_header, table_row

_ADORNMENT: Final = re.compile(r"([!-/:-@\[-`{-~])\1+\s*$")
_DIRECTIVE: Final = re.compile(r"\.\.\s+(?:\|[^|\n]+\|\s+)?([A-Za-z][\w:.+-]*)::(?:\s+(.*))?$")
_BULLET: Final = re.compile(r"([-*+•‣]|(?:\d+|#|[A-Za-z])[.)]|\((?:\d+|#|[A-Za-z])\))\s+(?=\S)")
_FIELD: Final = re.compile(r":([^:\s][^:]*):(?:\s+|$)")
_OPTION: Final = re.compile(r"((?:--?|/)[A-Za-z?][^\s,]*(?:[ =]\S+)?(?:, (?:--?|/)\S+(?:[ =]\S+)?)*)(?:\s{2,}|$)")
_MAX_OPTION_LINE: Final = 200
_GRID_LINE: Final = re.compile(r"\+(?:[-=]+\+)+\s*$")
_SIMPLE_LINE: Final = re.compile(r"=+(?: +=+)+\s*$")
_OPTIONS: Final = re.compile(r"\s*:[\w-]+:")

_CODE: Final = frozenset({"code", "code-block", "sourcecode", "parsed-literal", "prompt", "console", "doctest", "math"})
_SKIPPED: Final = frozenset(
    """
    contents currentmodule default-role figure highlight image include index literalinclude meta module raw
    sectionauthor codeauthor sectnum tabularcolumns target-notes toctree
    """.split()  # noqa: SIM905 - as a list it would be twenty lines
)
_CONTAINERS: Final = frozenset(
    """
    admonition attention caution compound container danger deprecated dropdown epigraph error glossary grid hint
    important list-table note only pull-quote rst-class seealso sidebar tab-item tab-set table tabs tip topic
    versionadded versionchanged versionremoved warning
    """.split()  # noqa: SIM905 - as a list it would be twenty lines
)
# Roles whose text names a thing in a program.
_CODE_ROLES: Final = frozenset(
    """
    attr class cls cmd code command confval const data dfn envvar exc file func guilabel kbd keyword literal meth
    mod obj option program samp setting type var
    """.split()  # noqa: SIM905 - as a list it would be twenty lines
)
# What is nested deeper is kept as text, so that no file makes this recurse without limit.
_MAX_DEPTH: Final = 12

# Each repetition that could match what the next one matches has a limit, so that no text takes quadratic time.
_INLINE: Final = re.compile(
    r"``(?P<literal>.+?)``"
    r"|:(?P<role>[A-Za-z][\w:+.-]{0,40}):`(?P<role_text>[^`]+)`"
    r"|`(?P<link>[^`<>]{1,300})<(?P<target>[^`<>]+)>`__?"
    r"|`(?P<phrase>[^`]+)`(?:__?)?"
    r"|\[(?:#?[\w-]*|\*)\]_"
    r"|\b(?P<word>[A-Za-z0-9][\w.-]{0,60}?[A-Za-z0-9])__?(?=[\s.,;:!?)\]]|$)"
    r"|\|(?P<substitution>[^\s|][^|]*?)\|_{0,2}"
    r"|\\(?P<escaped>.)"
)


def rst_sections(lines: Sequence[str]) -> Iterator[Section]:
    """Split reStructuredText at its section titles, and at descriptions of functions, options and the like."""
    reader = _Reader()
    reader.read([line.expandtabs(8).rstrip() for line in lines], 1, 0)
    reader.end_section()
    return iter(reader.sections)


def _plain(text: str) -> str:
    """Turn inline markup into Markdown."""
    return _INLINE.sub(_inline, text).strip()


def _inline(found: re.Match[str]) -> str:
    if found["literal"]:
        return f"`{found['literal']}`"
    if found["role_text"]:
        title, _, target = found["role_text"].partition(" <")
        text = title if target else found["role_text"].lstrip("!~")
        return f"`{text}`" if found["role"].rpartition(":")[2] in _CODE_ROLES else text
    if found["target"]:
        is_web = found["target"].startswith(("http://", "https://", "mailto:"))
        link = found["link"].rstrip()
        return f"[{link}]({found['target']})" if is_web else link
    return found["phrase"] or found["word"] or found["substitution"] or (found["escaped"] or "").strip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


class _Reader:
    """Reads lines into blocks. ``first_line`` is the number of the first of the lines in the file, from 1."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self._styles: list[str] = []
        self._path: list[tuple[int, str]] = []
        self._blocks: list[Block] = []
        self._marker = ""
        """The marker of a list item whose text has not come yet."""

    def end_section(self) -> None:
        """Add a section with the blocks since the last one."""
        self.sections.append(Section(tuple(title for _, title in self._path), tuple(self._blocks)))
        self._blocks = []

    def read(self, lines: Sequence[str], first_line: int, depth: int) -> None:
        """Read the elements of a body, each of which begins at the left margin."""
        position = 0
        while position < len(lines):
            if not lines[position]:
                position += 1
            elif depth > _MAX_DEPTH:
                self._add(
                    " ".join(" ".join(lines[position:]).split()), first_line + position, first_line + len(lines) - 1
                )
                return
            else:
                position = self._element(lines, position, first_line, depth)

    def _element(self, lines: Sequence[str], start: int, first_line: int, depth: int) -> int:
        """Read one element, and return where the next one begins."""
        line = lines[start]
        if depth == 0 and (end := self._title(lines, start)):
            return end
        if line.startswith(".. ") or line == "..":
            end = _end_of_indented(lines, start + 1, 1)
            self._explicit(lines[start:end], first_line + start, depth)
            return end
        if _indent(line):
            end = _end_of_indented(lines, start, 1)
            self.read(dedent("\n".join(lines[start:end])).split("\n"), first_line + start, depth + 1)
            return end
        if _GRID_LINE.match(line) or _SIMPLE_LINE.match(line):
            return self._table(lines, start, first_line)
        marked = _BULLET.match(line) or _FIELD.match(line) or _OPTION.match(line[:_MAX_OPTION_LINE])
        if marked:
            return self._item(lines, start, first_line, depth, marked)
        return self._paragraph(lines, start, first_line, depth)

    def _title(self, lines: Sequence[str], start: int) -> int:
        """Read a section title, with a line below it or also above it; return 0 if no title begins here."""
        above = _ADORNMENT.match(lines[start])
        title = start + 1 if above else start
        below = _ADORNMENT.match(lines[title + 1]) if title + 1 < len(lines) else None
        if above and (not below or below[1] != above[1]):
            # A line between two paragraphs, or the beginning of a table.
            return 0 if _SIMPLE_LINE.match(lines[start]) or len(lines[start]) < 4 else start + 1  # noqa: PLR2004 - as docutils
        text = lines[title].strip()
        if not below or not text or len(lines[title + 1]) < min(len(text), 4) or (_indent(lines[title]) and not above):
            return 0
        style = below[1] * (2 if above else 1)
        if style not in self._styles:
            self._styles.append(style)
        self._begin(self._styles.index(style), _plain(text))
        return title + 2

    def _begin(self, level: int, title: str) -> None:
        self.end_section()
        self._path = [above for above in self._path if above[0] < level]
        self._path.append((level, title.replace("`", "")))

    def _explicit(self, lines: Sequence[str], first_line: int, depth: int) -> None:
        """Read a directive; skip comments, link targets and the like."""
        found = _DIRECTIVE.match(lines[0])
        if not found or found[1] in _SKIPPED or found[1].startswith("auto"):
            return
        name, argument = found[1], (found[2] or "").strip()
        body = lines[1:]
        skipped = 0
        while skipped < len(body) and _OPTIONS.match(body[skipped]):
            skipped += 1
        inner, inner_line = dedent("\n".join(body[skipped:])).split("\n"), first_line + 1 + skipped
        if name in _CODE:
            self._code(inner, inner_line, argument)
        elif name == "csv-table":
            rows = list(csv.reader((_plain(line) for line in inner if line), skipinitialspace=True))
            self._rows([(row, first_line, first_line + len(lines) - 1) for row in rows])
        elif name == "list-table":
            self._list_table(inner, inner_line)
        elif name in _CONTAINERS:
            if argument and not name.startswith(("version", "deprecated", "list-", "only", "container", "rst-")):
                self._add(_plain(argument), first_line, first_line)
            self.read(inner, inner_line, depth + 1)
        elif argument and any(inner):
            # A function, an option, a setting: what follows is about it.
            outer = list(self._path)
            self._begin(100 + depth, argument)
            self.read(inner, inner_line, depth + 1)
            self.end_section()
            self._path = outer
        else:
            self.read(inner, inner_line, depth + 1)

    def _item(self, lines: Sequence[str], start: int, first_line: int, depth: int, marked: re.Match[str]) -> int:
        """Read an item of a list, a field or an option of a command."""
        end = _end_of_indented(lines, start + 1, 1)
        if marked.re is _BULLET:
            marker = f"{marked[1]} " if marked[1] in "-*+" or marked[1][:-1].isdigit() else "- "
            text, indent = lines[start][marked.end() :], marked.end()
        else:
            marker = "- "
            term = f"``{marked[1]}``" if marked.re is _OPTION else marked[1]
            rest = lines[start][marked.end() :] or next((line.strip() for line in lines[start + 1 : end] if line), "")
            if not rest:
                return end
            text = f"{term}: {lines[start][marked.end() :]}".rstrip()
            indent = min((_indent(line) for line in lines[start + 1 : end] if line), default=0)
        body = [line[min(indent, _indent(line)) :] for line in lines[start + 1 : end]]
        self._marker = marker
        self.read([text, *body], first_line + start, depth + 1)
        self._marker = ""
        return end

    def _paragraph(self, lines: Sequence[str], start: int, first_line: int, depth: int) -> int:
        """Read a paragraph, a term with its definition, or a paragraph that code follows."""
        end = start
        while end < len(lines) and lines[end] and (end == start or not _indent(lines[end])):
            end += 1
        text = " ".join(line.strip() for line in lines[start:end])
        if end < len(lines) and lines[end] and end == start + 1 and not text.endswith("::"):
            return self._definition(lines, start, first_line, depth)
        if text.startswith(">>> "):
            self._code(lines[start:end], first_line + start, "pycon")
        elif not text.endswith("::"):
            self._add(_plain(text), first_line + start, first_line + end - 1)
        else:
            shown = text[:-2].rstrip() if text.endswith((" ::", "\n::")) or text == "::" else text[:-1]
            self._add(_plain(shown), first_line + start, first_line + end - 1)
            code = _end_of_indented(lines, end, 1)
            self._code(dedent("\n".join(lines[end:code])).split("\n"), first_line + end, "")
            return code
        return end

    def _definition(self, lines: Sequence[str], start: int, first_line: int, depth: int) -> int:
        end = _end_of_indented(lines, start + 1, 1)
        body = dedent("\n".join(lines[start + 1 : end])).split("\n")
        self._marker = "- "
        self.read([f"{lines[start].strip()}: {body[0]}", *body[1:]], first_line + start, depth + 1)
        self._marker = ""
        return end

    def _add(self, text: str, first_line: int, last_line: int) -> None:
        if text:
            kind: Kind = "item" if self._marker else "prose"
            self._blocks.append(Block(kind, self._marker + text, text, first_line, last_line))
            self._marker = ""

    def _code(self, lines: Sequence[str], first_line: int, language: str) -> None:
        used = [number for number, line in enumerate(lines) if line]
        if used:
            content = "\n".join(lines[used[0] : used[-1] + 1])
            fence = fence_around(content)
            text = f"{fence}{language.partition(' ')[0]}\n{content}\n{fence}"
            self._blocks.append(Block("code", text, content, first_line + used[0], first_line + used[-1]))
            self._marker = ""

    def _table(self, lines: Sequence[str], start: int, first_line: int) -> int:
        """Read a table that is drawn with lines."""
        end = start
        while end < len(lines) and lines[end]:
            end += 1
        is_grid = bool(_GRID_LINE.match(lines[start]))
        borders = _GRID_LINE if is_grid else _SIMPLE_LINE
        # A row of a simple table may be followed by an empty line: it ends with the last line of equals signs.
        if not is_grid:
            ends = [number for number in range(start, min(len(lines), start + 2000)) if borders.match(lines[number])]
            end = max(end, (ends[2:] or ends[-1:])[0] + 1)
        edges = [found.start() for found in re.finditer(r"\+" if is_grid else r"(?<!=)=", lines[start])]
        rows: list[tuple[list[str], int, int]] = []
        is_new = True
        for number in range(start, end):
            line = lines[number]
            if borders.match(line) or not line:
                is_new = True
                continue
            bounds = zip(edges, [*edges[1:], None], strict=True)
            width = len(lines[start]) - is_grid
            cells = [line[begin:stop].strip("| ") for begin, stop in bounds if begin < width]
            # In a simple table, each line whose first column is not empty is a row.
            if is_new or (not is_grid and cells[0]):
                rows.append((cells, first_line + number, first_line + number))
            else:
                before, first, _ = rows[-1]
                joined = [f"{above} {below}".strip() for above, below in zip(before, cells, strict=True)]
                rows[-1] = joined, first, first_line + number
            is_new = False
        self._rows([([_plain(cell) for cell in cells], first, last) for cells, first, last in rows])
        return end

    def _list_table(self, lines: Sequence[str], first_line: int) -> None:
        """Read a table that is written as a list of lists."""
        rows: list[tuple[list[str], int, int]] = []
        for number, line in enumerate(lines, start=first_line):
            row = re.match(r"[-*+]\s+[-*+](?:\s+(.*))?$", line)
            cell = re.match(r"\s+[-*+](?:\s+(.*))?$", line)
            if row:
                rows.append(([row[1] or ""], number, number))
            elif rows and line:
                cells, first, _ = rows[-1]
                cells = [*cells, cell[1] or ""] if cell else [*cells[:-1], f"{cells[-1]} {line.strip()}"]
                rows[-1] = cells, first, number
        self._rows([([_plain(cell) for cell in cells], first, last) for cells, first, last in rows])

    def _rows(self, rows: Sequence[tuple[Sequence[str], int, int]]) -> None:
        """Add the rows of a table, whose first row is its header."""
        if not rows:
            return
        header = table_header(rows[0][0])
        for cells, first, last in rows[1:]:
            row = table_row(cells)
            self._blocks.append(Block("row", row, row, first, last, header))


def _end_of_indented(lines: Sequence[str], start: int, indent: int) -> int:
    """Return where the lines end that are empty or indented; empty lines at the end are not included."""
    end = position = start
    while position < len(lines) and (not lines[position] or _indent(lines[position]) >= indent):
        position += 1
        if lines[position - 1]:
            end = position
    return end
