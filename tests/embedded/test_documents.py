import os
import sys
from pathlib import Path

import pytest

from brunix_twisted.embedded.documents import (
    DocumentError,
    check_size,
    decode,
    lines_of,
    list_files,
    read_documents,
    text_of,
)


def test_subfolders(corpus: Path) -> None:
    """Documents are read from all folders except hidden ones."""
    assert [document.source for document in read_documents(corpus)] == sorted(
        path.relative_to(corpus).as_posix()
        for path in corpus.rglob("*.*")
        if path.is_file() and path.suffix in {".md", ".markdown", ".txt"} and ".hidden" not in path.parts
    )


def test_hidden_files(tmp_path: Path) -> None:
    """Hidden files and folders are skipped."""
    (tmp_path / ".page.md").write_text("old")
    (tmp_path / ".drafts").mkdir()
    (tmp_path / ".drafts" / "page.md").write_text("older")
    (tmp_path / "page.MD").write_text("new")
    assert [document.source for document in read_documents(tmp_path)] == ["page.MD"]


@pytest.mark.parametrize(
    ("content_bytes", "text"),
    [
        (b"caf\xc3\xa9", "café"),
        (b"\xef\xbb\xbf# Title", "# Title"),
        (b"caf\xe9 \x93so\x94", "café “so”"),
        ("café".encode("utf-16"), "café"),
        (b"a\0b", "a\ufffdb"),
        (b"\x81\xe9", "\ufffdé"),
        (b"\xff\xfea", "\ufffd"),
    ],
)
def test_encodings(content_bytes: bytes, text: str) -> None:
    """UTF-8, UTF-16 and Windows-1252 are decoded, and invalid bytes are replaced."""
    assert decode(content_bytes) == text


def test_line_ends() -> None:
    """Lines are counted as editors count them."""
    assert lines_of("a\r\nb\rc\nd\x0ce\u2028f") == ("a", "b", "c", "d\x0ce\u2028f")


def test_unreadable_folder(tmp_path: Path) -> None:
    """A folder that does not exist is an error; a file or a folder in it that cannot be read is not."""
    with pytest.raises(FileNotFoundError):
        list_files(tmp_path / "missing")
    (tmp_path / "nothing.md").symlink_to("missing")
    os.mkfifo(tmp_path / "pipe.md")
    assert not list_files(tmp_path).files


def test_what_is_listed(tmp_path: Path) -> None:
    """Known formats are listed by path, others that users expect are counted, and temporary files are left out."""
    for name in ("b.md", "a.HTML", "c/d.docx", "c/~$d.docx", "e.pptx", "f.py", "node_modules/x/readme.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    listing = list_files(tmp_path)
    assert list(listing.files) == ["a.HTML", "b.md", "c/d.docx"]
    assert listing.unsupported == {".pptx": 1}


def test_strange_names(tmp_path: Path) -> None:
    """A file whose name is not UTF-8, or has a line end, is read, and can be cited."""
    for name in (b"caf\xe9.md", b"two\nlines.md"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("# Coffee\n\nIt is hot.")
    sources = [document.source for document in read_documents(tmp_path)]
    assert sources == ["caf\ufffd.md", "two\ufffdlines.md"]


def test_pdf_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pypdf, PDF files are counted and not listed."""
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    assert list(list_files(tmp_path).files) == ["a.pdf"]
    monkeypatch.setitem(sys.modules, "pypdf", None)
    listing = list_files(tmp_path)
    assert (dict(listing.files), listing.unsupported) == ({}, {".pdf": 1})


def test_no_text(tmp_path: Path) -> None:
    """A binary file with the suffix of a text file is not read as text; UTF-16 is."""
    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 2 + b"\0" * 100)
    with pytest.raises(DocumentError, match="not a text file"):
        text_of(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("plain", "utf-16")
    assert text_of(tmp_path / "b.txt") == "plain"


def test_large_file(tmp_path: Path) -> None:
    """A log of many megabytes is not read."""
    with (tmp_path / "log.txt").open("wb") as file:
        file.truncate(9 * 1024 * 1024)
    with pytest.raises(DocumentError, match="larger than 8 MiB"):
        check_size(list_files(tmp_path).files["log.txt"])
