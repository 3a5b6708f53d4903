from pathlib import Path

import pytest

from brunix_twisted.embedded.documents import decoded, lines_of, read_documents

UNREADABLE = Path("/proc/self/mem")


def test_documents_are_read_from_all_folders_but_hidden_ones(corpus: Path) -> None:
    """Half of the documentation would be missing, or a file that was put out of sight would be quoted."""
    assert [document.source for document in read_documents(corpus)] == sorted(
        path.relative_to(corpus).as_posix()
        for path in corpus.rglob("*.*")
        if path.is_file() and path.suffix in {".md", ".markdown", ".txt"} and ".hidden" not in path.parts
    )


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    """An editor's backup copy would be quoted beside the document."""
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
def test_bytes_of_any_encoding_become_text(content_bytes: bytes, text: str) -> None:
    """One old file in the folder would keep the engine from starting, or its words would not be found."""
    assert decoded(content_bytes) == text


def test_lines_are_those_of_an_editor() -> None:
    """Citations would name lines that are not where the reader looks."""
    assert lines_of("a\r\nb\rc\nd\x0ce\u2028f") == ("a", "b", "c", "d\x0ce\u2028f")


@pytest.mark.skipif(not UNREADABLE.exists(), reason="there is no file that not even the superuser can read")
def test_a_document_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """The engine would start without a document and say that nothing is known."""
    (tmp_path / "page.md").symlink_to(UNREADABLE)
    with pytest.raises(OSError, match=r".+"):
        read_documents(tmp_path)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    """The engine would start without a folder and say that nothing is known."""
    with pytest.raises(FileNotFoundError):
        read_documents(tmp_path / "missing")
