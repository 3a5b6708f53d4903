"""The folder of documents: which files are read, and how their bytes become text."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

MARKDOWN_SUFFIXES: Final = frozenset({".md", ".markdown"})
TEXT_SUFFIXES: Final = frozenset({".txt"})


@attrs.frozen
class Document:
    """One file: its path below the folder, with slashes, and its lines without their ends."""

    source: str
    lines: tuple[str, ...]
    is_markdown: bool


def decoded(content_bytes: bytes) -> str:
    """Give the text of a file of unknown encoding; it never fails.

    UTF-8 is tried first, then UTF-16 where a byte order mark says so. What is neither is read as Windows-1252, the
    likeliest of the old encodings, so that a stray byte costs one letter and not the document.
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
    """Cut a text at the line ends that an editor counts: LF, CRLF and CR, and no other."""
    return tuple(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))


def read_documents(folder: Path) -> tuple[Document, ...]:
    """Read every Markdown and text file below a folder, in the order of their paths.

    Hidden files and folders are left out, and links to folders are not followed. Raises OSError when a folder or a
    file cannot be read.
    """
    return tuple(
        Document(
            source=path.relative_to(folder).as_posix(),
            lines=lines_of(decoded(path.read_bytes())),
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
    """Let a folder that cannot be listed be an error: os.walk passes over it in silence otherwise."""
    raise error
