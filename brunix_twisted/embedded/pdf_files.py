"""Split PDF files into sections and blocks with pypdf, which the extra ``documents`` installs. Pages replace lines."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brunix_twisted.embedded.blocks import Block, Section

if TYPE_CHECKING:
    from pypdf import PdfReader

_MAX_PAGES: Final = 3000
_MIN_PAGES_WITH_FURNITURE: Final = 4
_FURNITURE_LINES: Final = 2
"""Lines at the top and at the bottom of a page that may be the same on every page."""
_MIN_TEXT_CHARACTERS: Final = 20
_FULL_LINE: Final = 0.75
"""A line that is shorter than this share of the page's longest line ends its paragraph, if a sentence ends there."""

_DIGITS: Final = re.compile(r"\d+")
_HYPHEN: Final = re.compile(r"(?<=[^\W\d_])-$")
_BULLET: Final = re.compile(r"(?:[•‣▪◦●–*-]|\(?\d{1,2}[.)])\s+(?=\S)")


class PdfFileError(ValueError):
    """The file is not a PDF that can be read; the text says why."""


def can_read_pdf() -> bool:
    """Whether pypdf is installed."""
    return find_spec("pypdf") is not None


def pdf_sections(path: Path) -> list[Section]:
    """Split a PDF at the headings of its outline. Raises PdfFileError, or OSError."""
    from pypdf import PdfReader  # noqa: PLC0415 - optional, and slow to import
    from pypdf.errors import DependencyError, PyPdfError  # noqa: PLC0415 - likewise

    try:
        reader = PdfReader(path)
        # With an empty password, readers open a file that only restricts printing and copying.
        if reader.is_encrypted and not reader.decrypt(""):
            raise PdfFileError("it is protected with a password")
        if len(reader.pages) > _MAX_PAGES:
            raise PdfFileError(f"it has more than {_MAX_PAGES} pages")
        pages = [(page.extract_text() or "").split("\n") for page in reader.pages]
        titles = _titles(reader)
    except DependencyError as error:
        raise PdfFileError("it is encrypted: install brunix-twisted[documents]") from error
    except (PyPdfError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        if isinstance(error, PdfFileError):
            raise
        raise PdfFileError("it is damaged") from error
    if sum(len(line) for lines in pages for line in lines) < _MIN_TEXT_CHARACTERS:
        raise PdfFileError("it contains no text, only pictures of it")
    return list(_sections(_without_furniture(pages), titles))


def _titles(reader: "PdfReader") -> dict[int, list[tuple[int, str]]]:
    """Return the headings of each page, counted from 0, with their level: the entries of the outline."""
    titles: dict[int, list[tuple[int, str]]] = {}

    def collect(entries: Sequence[object], level: int) -> None:
        for entry in entries:
            if isinstance(entry, list):
                collect(entry, level + 1)
            else:
                number = reader.get_destination_page_number(entry)  # type: ignore[arg-type]  # an entry is a Destination
                title = " ".join(str(getattr(entry, "title", "")).split())
                if number is not None and title:
                    titles.setdefault(number, []).append((level, title))

    collect(reader.outline, 0)
    return titles


def _without_furniture(pages: Sequence[Sequence[str]]) -> list[list[str]]:
    """Remove headers, footers and page numbers: lines that, apart from digits, most pages begin or end with."""
    stripped = [[line.strip() for line in lines if line.strip()] for lines in pages]
    if len(stripped) < _MIN_PAGES_WITH_FURNITURE:
        return stripped

    def key(line: str) -> str:
        return _DIGITS.sub("#", line)

    counts = Counter(
        line
        for lines in stripped
        for line in {key(line) for line in (*lines[:_FURNITURE_LINES], *lines[-_FURNITURE_LINES:])}
    )
    furniture = {line for line, count in counts.items() if count > len(stripped) / 2}
    return [
        [
            line
            for position, line in enumerate(lines)
            if key(line) not in furniture or _FURNITURE_LINES <= position < len(lines) - _FURNITURE_LINES
        ]
        for lines in stripped
    ]


def _sections(pages: Sequence[Sequence[str]], titles: Mapping[int, Sequence[tuple[int, str]]]) -> Iterator[Section]:
    path: list[tuple[int, str]] = []
    blocks: list[Block] = []
    for number, lines in enumerate(pages):
        expected = list(titles.get(number, ()))
        start = 0
        for position, line in enumerate(lines):
            if expected and _is_title(line, expected[0][1]):
                blocks += _blocks(lines[start:position], number + 1)
                if blocks:
                    yield Section(tuple(title for _, title in path), tuple(blocks))
                level, title = expected.pop(0)
                path = [*(above for above in path if above[0] < level), (level, title)]
                blocks, start = [], position + 1
        blocks += _blocks(lines[start:], number + 1)
    if blocks:
        yield Section(tuple(title for _, title in path), tuple(blocks))


def _is_title(line: str, title: str) -> bool:
    """Compare a line with an entry of the outline, which often lacks the number of the section."""
    return "".join(line.split()).lower().removesuffix(".").endswith("".join(title.split()).lower()) and len(
        line
    ) <= len(title) + len("123.123.123. ")


def _blocks(lines: Sequence[str], page: int) -> Iterator[Block]:
    """Join lines into paragraphs. A PDF has no paragraphs, only lines."""
    full = _FULL_LINE * max(map(len, lines), default=0)
    paragraph = ""
    for line in lines:
        if paragraph and _BULLET.match(line):
            yield _block(paragraph, page)
            paragraph = ""
        # A hyphen at the end of a line divides a word, nearly always.
        joined = _HYPHEN.sub("", paragraph) if line[:1].islower() else paragraph
        paragraph = joined + line if joined != paragraph else f"{paragraph} {line}".strip()
        if line.endswith((".", "!", "?", ":")) and len(line) < full:
            yield _block(paragraph, page)
            paragraph = ""
    if paragraph:
        yield _block(paragraph, page)


def _block(text: str, page: int) -> Block:
    bullet = _BULLET.match(text)
    if bullet:
        content = text[bullet.end() :]
        return Block("item", f"- {content}", content, page, page)
    return Block("prose", text, text, page, page)
