"""Read the folder of documents: choose the files and decode their bytes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

MARKDOWN_SUFFIXES: Final = frozenset({".md", ".markdown"})
TEXT_SUFFIXES: Final = frozenset({".txt"})


@attrs.frozen
class Document:
    """One file: its path relative to the folder, with slashes, and its lines without line ends."""

    source: str
    lines: tuple[str, ...]
    is_markdown: bool


def decode(content_bytes: bytes) -> str:
    """Decode a file of unknown encoding; never fails.

    Try UTF-16 after a byte order mark, then UTF-8, then Windows-1252, the most common of the older encodings. So a
    stray byte affects one letter and not the document.
    """
    if content_bytes.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content_bytes.decode("utf-16", "replace")
    else:
        try:
            text = content_bytes.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content_bytes.decode("cp1252", "replace")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def lines_of(text: str) -> tuple[str, ...]:
    """Split a text at LF, CRLF and CR only, as editors count lines."""
    return tuple(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))


def read_documents(folder: Path) -> tuple[Document, ...]:
    """Read every Markdown and text file below a folder, sorted by path.

    Skip hidden files and folders; do not follow links to folders. Raises OSError if a folder or a file cannot be read.
    """
    return tuple(
        Document(
            source=path.relative_to(folder).as_posix(),
            lines=lines_of(decode(path.read_bytes())),
            is_markdown=path.suffix.lower() in MARKDOWN_SUFFIXES,
        )
        for path in sorted(_files(folder))
    )


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            suffix = path.suffix.lower()
            if not name.startswith(".") and suffix in MARKDOWN_SUFFIXES | TEXT_SUFFIXES and path.is_file():
                yield path


def _raise(error: OSError) -> None:
    """Report a folder that cannot be listed; os.walk ignores it by default."""
    raise error
