"""Split Word files (.docx) into sections and blocks, with the standard library. Paragraphs take the place of lines."""

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final
from xml.etree import ElementTree as ET

import attrs

from brunix_twisted.embedded.blocks import Block, Section, fence_around, table_header, table_row

_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
# Text that was deleted, the code of a field, and what repeats the content for old programs.
_IGNORED: Final = frozenset({f"{_W}del", f"{_W}moveFrom", f"{_W}instrText", f"{_W}delText", _FALLBACK})
_SPACES: Final = frozenset({f"{_W}tab", f"{_W}br", f"{_W}cr", f"{_W}ptab"})

_MAX_PART_BYTES: Final = 64 * 1024 * 1024
_BODY_LEVEL: Final = 9
"""The outline level of text that is no heading."""
_PSEUDO_HEADING: Final = 8
_MAX_PSEUDO_HEADING_CHARACTERS: Final = 80

_HEADING_STYLE: Final = re.compile(r"heading (\d)")
_CODE_STYLE: Final = re.compile(r"code|preformatted|source|macro|listing", re.IGNORECASE)
_CODE_FONT: Final = re.compile(r"mono|courier|consolas|menlo", re.IGNORECASE)


class WordFileError(ValueError):
    """The file is not a Word file that can be read; the text says why."""


@attrs.frozen
class _Style:
    level: int
    is_list: bool
    is_code: bool


def word_sections(path: Path) -> list[Section]:
    """Split a Word file at its headings. Raises WordFileError, or OSError."""
    try:
        with zipfile.ZipFile(path) as archive:
            styles = _styles(archive)
            with _part(archive, "word/document.xml") as part:
                body = ET.parse(part).getroot().find(f"{_W}body")  # noqa: S314 - read with limits of size, time and memory
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise WordFileError("it is no Word file, or is protected with a password") from error
    except (KeyError, ET.ParseError, EOFError, RuntimeError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise WordFileError("it is damaged") from error
    reader = _Reader(styles)
    if body is not None:
        reader.read(body)
    reader.end_section()
    return reader.sections


def _part(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # zipfile reads no more than the size that it has checked here.
    if archive.getinfo(name).file_size > _MAX_PART_BYTES:
        raise WordFileError(f"its text is larger than {_MAX_PART_BYTES >> 20} MiB")
    return archive.open(name)


def _styles(archive: zipfile.ZipFile) -> dict[str, _Style]:
    """Read the styles by their ids: their names are English in every language of Word, and their ids are not."""
    if "word/styles.xml" not in archive.namelist():
        return {}
    with _part(archive, "word/styles.xml") as part:
        root = ET.parse(part).getroot()  # noqa: S314 - see word_sections()
    styles = {}
    for style in root.iter(f"{_W}style"):
        name = _value(style.find(f"{_W}name")).lower()
        heading = _HEADING_STYLE.match(name)
        outline = _value(style.find(f"{_W}pPr/{_W}outlineLvl"))
        level = int(heading[1]) if heading else int(outline) + 1 if outline.isdecimal() else _BODY_LEVEL + 1
        styles[style.get(f"{_W}styleId", "")] = _Style(
            level=0 if name == "title" else level,
            is_list=name.startswith("list ") or style.find(f"{_W}pPr/{_W}numPr") is not None,
            is_code=bool(_CODE_STYLE.search(name)),
        )
    return styles


def _value(element: ET.Element | None) -> str:
    return "" if element is None else element.get(f"{_W}val", "")


def _texts(element: ET.Element) -> Iterator[str]:
    """Return the texts of a paragraph in order."""
    for child in element:
        if child.tag == f"{_W}t":
            yield child.text or ""
        elif child.tag in _SPACES:
            yield "\n" if child.tag == f"{_W}br" else " "
        elif child.tag not in _IGNORED:
            yield from _texts(child)


class _Reader:
    def __init__(self, styles: dict[str, _Style]) -> None:
        self.sections: list[Section] = []
        self._styles = styles
        self._path: list[tuple[int, str]] = []
        self._blocks: list[Block] = []
        self._code: list[tuple[int, str]] = []
        """Paragraphs of code that belong together, with their numbers."""
        self._number = 0
        """Of the last paragraph, from 1."""

    def end_section(self) -> None:
        self._end_code()
        if self._blocks:
            self.sections.append(Section(tuple(title for _, title in self._path), tuple(self._blocks)))
        self._blocks = []

    def read(self, parent: ET.Element) -> None:
        """Read the paragraphs and tables in an element, also those in content controls."""
        for child in parent:
            if child.tag == f"{_W}p":
                self._paragraph(child)
            elif child.tag == f"{_W}tbl":
                self._table(child)
            elif child.tag not in _IGNORED:
                self.read(child)

    def _paragraph(self, paragraph: ET.Element) -> None:
        self._number += 1
        raw = "".join(_texts(paragraph))
        text = " ".join(raw.split())
        if not text:
            return
        properties = paragraph.find(f"{_W}pPr")
        named = _value(properties.find(f"{_W}pStyle")) if properties is not None else ""
        style = self._styles.get(named, _Style(_BODY_LEVEL + 1, is_list=False, is_code=False))
        level = self._level(paragraph, properties, style, text)
        if level < _BODY_LEVEL:
            self.end_section()
            self._path = [above for above in self._path if above[0] < level]
            self._path.append((level, text))
        elif style.is_code or _all_runs(paragraph, _is_code):
            self._code.append((self._number, raw))
        else:
            self._end_code()
            is_item = style.is_list or (properties is not None and properties.find(f"{_W}numPr") is not None)
            if is_item:
                self._blocks.append(Block("item", f"- {text}", text, self._number, self._number))
            else:
                self._blocks.append(Block("prose", text, text, self._number, self._number))

    def _level(self, paragraph: ET.Element, properties: ET.Element | None, style: _Style, text: str) -> int:
        outline = _value(properties.find(f"{_W}outlineLvl")) if properties is not None else ""
        if outline.isdecimal():
            return int(outline) + 1
        # Many authors write a heading as a short line in bold.
        is_short = len(text) <= _MAX_PSEUDO_HEADING_CHARACTERS and not text.endswith((".", ":", ",", ";"))
        if style.level > _BODY_LEVEL and not style.is_list and is_short and _all_runs(paragraph, _is_bold):
            return _PSEUDO_HEADING
        return style.level

    def _end_code(self) -> None:
        if self._code:
            content = "\n".join(text for _, text in self._code)
            fence = fence_around(content)
            text = f"{fence}\n{content}\n{fence}"
            self._blocks.append(Block("code", text, content, self._code[0][0], self._code[-1][0]))
            self._code = []

    def _table(self, table: ET.Element) -> None:
        self._end_code()
        rows = []
        for row in table.iter(f"{_W}tr"):
            first = self._number + 1
            cells = []
            for cell in row.findall(f"{_W}tc"):
                paragraphs = list(cell.iter(f"{_W}p"))
                self._number += len(paragraphs)
                cells.append(" ".join(" ".join("".join(_texts(each)) for each in paragraphs).split()))
            if any(cells):
                rows.append((cells, first, self._number))
        if rows and max(len(cells) for cells, _, _ in rows) > 1:
            header = table_header(rows[0][0])
            texts = [(table_row(cells), first, last) for cells, first, last in rows[1:]]
            self._blocks += [Block("row", text, text, first, last, header) for text, first, last in texts]
        else:
            self._blocks += [Block("prose", cells[0], cells[0], first, last) for cells, first, last in rows]


def _all_runs(paragraph: ET.Element, is_so: Callable[[ET.Element], bool]) -> bool:
    runs = [run for run in paragraph.iter(f"{_W}r") if run.find(f"{_W}t") is not None]
    return bool(runs) and all((properties := run.find(f"{_W}rPr")) is not None and is_so(properties) for run in runs)


def _is_bold(properties: ET.Element) -> bool:
    bold = properties.find(f"{_W}b")
    return bold is not None and _value(bold) not in ("0", "false")


def _is_code(properties: ET.Element) -> bool:
    fonts = properties.find(f"{_W}rFonts")
    return fonts is not None and bool(_CODE_FONT.search(fonts.get(f"{_W}ascii", "")))
