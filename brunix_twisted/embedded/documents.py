"""The folder of documents: which files are read, and the text formats."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Final, Literal

import attrs

from brunix_twisted.embedded.blocks import Section, markdown_sections, text_sections
from brunix_twisted.embedded.restructured_text import rst_sections

Unit = Literal["line", "page", "paragraph"]
"""What a citation counts: a PDF has pages, a Word file has paragraphs."""

_TEXT_FORMATS: Final[Mapping[str, Callable[[Sequence[str]], Iterator[Section]]]] = {
    ".md": markdown_sections,
    ".markdown": markdown_sections,
    ".txt": text_sections,
    ".rst": rst_sections,
}
HTML_SUFFIXES: Final = frozenset({".html", ".htm", ".xhtml"})
WORD_SUFFIXES: Final = frozenset({".docx", ".docm"})
PDF_SUFFIXES: Final = frozenset({".pdf"})
_CONVERTED: Final = HTML_SUFFIXES | WORD_SUFFIXES | PDF_SUFFIXES
SUFFIXES: Final = frozenset(_TEXT_FORMATS) | _CONVERTED

# Documents that users expect to be read, and that are not: the engine reports them.
_UNSUPPORTED: Final = frozenset({".doc", ".epub", ".odt", ".pages", ".ppt", ".pptx", ".rtf", ".tex", ".xls", ".xlsx"})
_SKIPPED_FOLDERS: Final = frozenset({"node_modules", "__pycache__"})

MAX_DOCUMENTS: Final = 20_000
_MAX_TEXT_BYTES: Final = 8 * 1024 * 1024
_MAX_CONVERTED_BYTES: Final = 64 * 1024 * 1024
_MAX_ZERO_SHARE: Final = 0.01
"""Share of zero bytes in a file without a byte order mark from which on it is not text."""


class DocumentError(Exception):
    """A file cannot be read. The text says why, as the second half of "skipped notes.md: …"."""


@attrs.frozen
class Document:
    """One file: its path relative to the folder, with slashes, and its sections."""

    source: str
    sections: tuple[Section, ...]
    unit: Unit = "line"


@attrs.frozen
class File:
    """A file in the folder. ``identity`` changes whenever its content may have changed."""

    path: Path
    identity: tuple[int, ...]
    size_bytes: int

    @property
    def is_converted(self) -> bool:
        """Whether a separate process reads it, because its format is complicated."""
        return self.path.suffix.lower() in _CONVERTED


@attrs.frozen
class Listing:
    """The files to read by their source, the folders that cannot be listed, and the numbers of other documents."""

    files: Mapping[str, File]
    problems: Mapping[str, str]
    unsupported: Mapping[str, int]
    """How many files of each suffix are not read; those of which no format is known are not in it."""


def list_files(folder: Path) -> Listing:
    """List the documents below a folder, sorted by path. Raises OSError if the folder itself cannot be listed.

    Skip hidden files and folders; do not follow links to folders.
    """
    os.scandir(folder).close()
    problems: dict[str, str] = {}
    unsupported: Counter[str] = Counter()
    files: dict[str, File] = {}
    unreadable = _UNSUPPORTED if find_spec("pypdf") else _UNSUPPORTED | PDF_SUFFIXES

    def report(error: OSError) -> None:
        problems[_source(Path(error.filename), folder)] = error.strerror or str(error)

    for root, folders, names in os.walk(folder, onerror=report):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - ten times faster, for every file of every poll
            if name.startswith((".", "~$")) or suffix not in SUFFIXES | unreadable:
                continue
            if suffix in unreadable:
                unsupported[suffix] += 1
            elif len(files) >= MAX_DOCUMENTS:
                unsupported["more"] += 1
            elif file := _file(Path(root, name)):
                files[_source(file.path, folder)] = file
    return Listing(dict(sorted(files.items())), problems, unsupported)


def _file(path: Path) -> File | None:
    try:
        status = path.stat()
    except OSError:
        # It has just been removed, or is a link to nothing.
        return None
    identity = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
    # Opening anything else, such as a named pipe, could wait without limit.
    return File(path, identity, status.st_size) if stat.S_ISREG(status.st_mode) else None


def _source(path: Path, folder: Path) -> str:
    """Name a file in a citation. Its name may contain any bytes, and the citation is text on one line."""
    name = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)


def check_size(file: File) -> None:
    """Raise DocumentError if a file is too large to be read."""
    maximum = _MAX_CONVERTED_BYTES if file.path.suffix.lower() in PDF_SUFFIXES | WORD_SUFFIXES else _MAX_TEXT_BYTES
    if file.size_bytes > maximum:
        raise DocumentError(f"it is larger than {maximum >> 20} MiB")


def text_of(path: Path) -> str:
    """Read a text file. Raises DocumentError if it is not text, or OSError."""
    content_bytes = path.read_bytes()
    if content_bytes.count(0) > _MAX_ZERO_SHARE * len(content_bytes) and not _has_utf_16_mark(content_bytes):
        raise DocumentError("it is not a text file")
    return decode(content_bytes)


def decode(content_bytes: bytes) -> str:
    """Decode a file of unknown encoding; never fails.

    Try UTF-16 after a byte order mark, then UTF-8, then Windows-1252, the most common of the older encodings. So a
    stray byte affects one letter and not the document.
    """
    if _has_utf_16_mark(content_bytes):
        text = content_bytes.decode("utf-16", "replace")
    else:
        try:
            text = content_bytes.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content_bytes.decode("cp1252", "replace")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _has_utf_16_mark(content_bytes: bytes) -> bool:
    return content_bytes.startswith((b"\xff\xfe", b"\xfe\xff"))


def lines_of(text: str) -> tuple[str, ...]:
    """Split a text at LF, CRLF and CR only, as editors count lines."""
    return tuple(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))


def text_document(source: str, text: str) -> Document:
    """Split a text into sections; the suffix of its source says in which format it is."""
    read = _TEXT_FORMATS[PurePosixPath(source).suffix.lower()]
    return Document(source, tuple(read(lines_of(text))))


def read_documents(folder: Path) -> tuple[Document, ...]:
    """Read every document below a folder that is in a text format. Raises OSError or DocumentError."""
    return tuple(
        text_document(source, text_of(file.path))
        for source, file in list_files(folder).files.items()
        if not file.is_converted
    )
