"""Split HTML pages into sections and blocks: their main content, without navigation, scripts and forms."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Final

from brunix_twisted.embedded.blocks import Block, Kind, Section, fence_around, table_header, table_row

_SKIPPED: Final = frozenset(
    """
    audio button canvas datalist dialog iframe math nav noscript object script select style svg template textarea
    video
    """.split()  # noqa: SIM905 - as a list it would be twenty lines
)
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_BLOCK_TAGS: Final = frozenset(
    """
    address article aside blockquote body center dd details div dl dt fieldset figcaption figure footer form
    header hr html legend li main ol p pre section summary table tbody td tfoot th thead tr ul
    """.split()  # noqa: SIM905 - as a list it would be twenty lines
) | frozenset(_HEADINGS)
_VOID_TAGS: Final = frozenset({"area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
_CODE_TAGS: Final = frozenset({"code", "kbd", "samp", "tt", "var"})
_BOLD_TAGS: Final = frozenset({"b", "strong"})
_MAIN: Final = re.compile(r"<main[\s>]|\srole=[\"']?main\b", re.IGNORECASE)
_LANGUAGE: Final = re.compile(r"\b(?:language|lang|highlight(?:-source)?)-([\w+#-]+)")
_HIGHLIGHT: Final = re.compile(r"\bhighlight-(?!default\b|none\b)(\w+)")
_EMPTY_MARKUP: Final = re.compile(r"\[\s*\]\([^()\s]*\)|``|\*\*\s*\*\*")
_PERMALINK: Final = re.compile(r"\s*(?:[¶§]|(?<=\s)#)\s*$")


def html_sections(text: str) -> list[Section]:
    """Split a page at its headings. A page without headings has its title as the heading."""
    page = _Page(has_main=_MAIN.search(text) is not None)
    page.feed(text)
    page.close()
    page.end()
    if page.title and not any(section.headings for section in page.sections):
        return [Section((page.title,), section.blocks) for section in page.sections]
    return page.sections


class _Region:
    """An element whose end is found by counting the elements of its name within it."""

    def __init__(self) -> None:
        self.tag = ""
        self._depth = 0

    def __bool__(self) -> bool:
        return bool(self.tag)

    def starts(self, tag: str) -> None:
        """Note a start tag; the first begins the region."""
        self.tag = self.tag or tag
        self._depth += tag == self.tag

    def ends(self, tag: str) -> bool:
        """Note an end tag, and return whether it ends the region."""
        self._depth -= bool(self.tag) and tag == self.tag
        if self.tag and not self._depth:
            self.tag = ""
            return True
        return False


class _Page(HTMLParser):
    def __init__(self, *, has_main: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.sections: list[Section] = []
        self._path: list[tuple[int, str]] = []
        self._blocks: list[Block] = []
        self._has_main = has_main
        self._main, self._skipped, self._title, self._pre = (_Region() for _ in range(4))
        self._language = ""
        self._text: list[str] = []
        self._first_line = self._last_line = 0
        self._links: list[str] = []
        self._heading = 0
        self._marker = ""
        """The marker of a list item whose text has not come yet."""
        self._lists: list[int | None] = []
        """For each open list, the number of its last item; None if its items have none."""
        self._term = ""
        self._rows: list[tuple[list[str], int, int]] | None = None
        """The rows of the table that is being read; None outside a table."""
        self._has_header = False

    # What the parser calls.

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        is_hidden = tag in _SKIPPED or attributes.get("aria-hidden") == "true" or "hidden" in attributes
        if self._skipped or is_hidden:
            if tag not in _VOID_TAGS:
                self._skipped.starts(tag)
            return
        if tag == "title":
            self._title.starts(tag)
        elif self._main or (self._has_main and (tag == "main" or attributes.get("role") == "main")):
            self._main.starts(tag)
        # Sphinx names the language in the element around the code.
        if tag == "div" and (found := _HIGHLIGHT.search(attributes.get("class", ""))):
            self._language = found[1]
        if self._pre or tag == "pre":
            self._start_code(tag, attributes)
        elif tag in _BLOCK_TAGS:
            self._start_block(tag)
        elif tag == "a":
            href = attributes.get("href", "")
            self._links.append(href if href.startswith(("http://", "https://")) and not self._heading else "")
            self._text.append("[" if self._links[-1] else "")
        else:
            self._mark(tag)

    def _mark(self, tag: str) -> None:
        if tag == "br":
            self._text.append(" ")
        elif tag in _CODE_TAGS:
            self._text.append("`")
        elif tag in _BOLD_TAGS and not self._heading:
            self._text.append("**")

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            self._skipped.ends(tag)
            return
        self._title.ends(tag)
        if self._pre:
            if self._pre.ends(tag):
                self._end_code()
        elif tag in _BLOCK_TAGS:
            self._end_block(tag)
        elif tag == "a" and self._links:
            href = self._links.pop()
            self._text.append(f"]({href})" if href and not re.search(r"[()\s]", href) else "]" if href else "")
        elif tag != "br":
            self._mark(tag)
        self._main.ends(tag)

    def handle_data(self, data: str) -> None:
        if self._title:
            self.title += " ".join(data.split())
        elif not self._skipped and (self._main or not self._has_main):
            if text := data.strip():
                before = data.partition(text)[0].count("\n")
                self._last_line = self.getpos()[0] + before + text.count("\n")
                self._first_line = self._first_line or self.getpos()[0] + before
            self._text.append(data)

    # Blocks.

    def end(self) -> None:
        """End the page: add what has not been added."""
        self._end_table()
        self._flush()
        self._end_section()

    def _end_section(self) -> None:
        if self._blocks:
            self.sections.append(Section(tuple(title for _, title in self._path), tuple(self._blocks)))
        self._blocks = []

    def _start_block(self, tag: str) -> None:
        if tag == "table":
            if self._rows is not None:
                # A table in a table is a matter of layout: the cells outside are text.
                self._end_table(is_layout=True)
            self._flush()
            self._rows, self._has_header = [], False
        elif self._rows is not None:
            self._start_in_table(tag)
        else:
            self._flush()
            if tag in ("ul", "ol"):
                self._lists.append(0 if tag == "ol" else None)
            elif tag == "li":
                number = self._lists[-1] if self._lists else None
                if number is not None:
                    self._lists[-1] = number + 1
                self._marker = "- " if number is None else f"{number + 1}. "
            self._heading = _HEADINGS.get(tag, 0)

    def _start_in_table(self, tag: str) -> None:
        assert self._rows is not None  # noqa: S101 - for the types
        line = self.getpos()[0]
        if tag == "tr":
            self._end_cell()
            self._rows.append(([], line, line))
        elif tag in ("td", "th"):
            self._end_cell()
            if not self._rows:
                self._rows.append(([], line, line))
            self._has_header |= tag == "th" and len(self._rows) == 1
            self._rows[-1][0].append("")
        else:
            self._text.append(" ")

    def _end_block(self, tag: str) -> None:
        if tag == "table":
            self._end_table()
        elif self._rows is not None:
            self._text.append(" ")
            if tag == "tr":
                self._end_cell()
        elif self._heading and tag in _HEADINGS:
            self._end_heading()
        elif tag == "dt":
            self._term, _ = self._take()
        else:
            self._flush()
            if tag in ("ul", "ol") and self._lists:
                self._lists.pop()
            if tag in ("li", "ul", "ol"):
                self._marker = ""

    def _end_heading(self) -> None:
        text, _ = self._take()
        level, self._heading = self._heading, 0
        title = _PERMALINK.sub("", text.replace("`", ""))
        if title:
            self._end_section()
            self._path = [above for above in self._path if above[0] < level]
            self._path.append((level, title))

    def _take(self) -> tuple[str, int]:
        """Return the text since the last block, and the line in which it begins."""
        text = _EMPTY_MARKUP.sub("", " ".join("".join(self._text).split())).strip()
        first_line = self._first_line or self.getpos()[0]
        self._text, self._first_line = [], 0
        self._links.clear()
        return text, first_line

    def _flush(self) -> None:
        if self._heading:
            self._end_heading()
            return
        text, first_line = self._take()
        if not text:
            return
        marker, kind = self._marker, "item" if self._marker else "prose"
        if self._term:
            text, marker, kind = f"{self._term}: {text}", "- ", "item"
        self._marker = self._term = ""
        self._add(kind, marker + text, text, first_line)  # type: ignore[arg-type]  # one of the kinds

    def _add(self, kind: Kind, text: str, content: str, first_line: int) -> None:
        self._blocks.append(Block(kind, text, content, first_line, max(first_line, self._last_line)))

    def _start_code(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._pre and self._rows is None:
            self._flush()
        self._pre.starts(tag)
        if found := _LANGUAGE.search(attributes.get("class", "")):
            self._language = self._language or found[1]
        if tag == "br":
            self._text.append("\n")

    def _end_code(self) -> None:
        if self._rows is not None:
            self._text = ["`", " ".join("".join(self._text).split()), "`"]
            return
        language, self._language = self._language, ""
        content = "\n".join(line.rstrip() for line in "".join(self._text).strip("\n").split("\n"))
        _, first_line = self._take()
        if content.strip():
            fence = fence_around(content)
            self._add("code", f"{fence}{language}\n{content}\n{fence}", content, first_line)

    # Tables.

    def _end_cell(self) -> None:
        text, _ = self._take()
        if self._rows and self._rows[-1][0]:
            cells, first_line, _ = self._rows[-1]
            cells[-1] = f"{cells[-1]} {text}".strip()
            self._rows[-1] = cells, first_line, self.getpos()[0]

    def _end_table(self, *, is_layout: bool = False) -> None:
        if self._rows is None:
            return
        self._end_cell()
        rows = [row for row in self._rows if any(row[0])]
        self._rows = None
        width = max((len(cells) for cells, _, _ in rows), default=0)
        if is_layout or width < 2:  # noqa: PLR2004 - one column is no table
            for cells, first_line, last_line in rows:
                for text in filter(None, cells):
                    self._blocks.append(Block("prose", text, text, first_line, last_line))
            return
        names: Sequence[str] = rows.pop(0)[0] if self._has_header else [""]
        header = table_header([*names, *[""] * (width - len(names))])
        for cells, first_line, last_line in rows:
            row = table_row([*cells, *[""] * (width - len(cells))])
            self._blocks.append(Block("row", row, row, first_line, last_line, header))
