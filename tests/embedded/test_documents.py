from pathlib import Path

import pytest

from brunix_twisted.embedded.documents import decode, lines_of, read_documents

UNREADABLE = Path("/proc/self/mem")


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


@pytest.mark.skipif(not UNREADABLE.exists(), reason="there is no file that not even the superuser can read")
def test_unreadable_document(tmp_path: Path) -> None:
    """An unreadable document is an error."""
    (tmp_path / "page.md").symlink_to(UNREADABLE)
    with pytest.raises(OSError, match=r".+"):
        read_documents(tmp_path)


def test_unreadable_folder(tmp_path: Path) -> None:
    """A folder that cannot be listed is an error."""
    with pytest.raises(FileNotFoundError):
        read_documents(tmp_path / "missing")
