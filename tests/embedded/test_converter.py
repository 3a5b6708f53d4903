"""The process that reads HTML, Word and PDF files: what it cannot read does not stop the engine."""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from brunix_twisted.embedded.converter import Converter
from brunix_twisted.embedded.documents import DocumentError, File
from office_files import paragraph, write_docx, write_pdf


@pytest.fixture
def converter() -> Iterator[Converter]:
    converter = Converter()
    yield converter
    converter.close()


def file(path: Path) -> File:
    return File(path, (), path.stat().st_size)


def texts(converter: Converter, path: Path) -> list[str]:
    document = converter.read(path.name, file(path))
    return [f"{document.unit}: {block.text}" for section in document.sections for block in section.blocks]


def test_formats(converter: Converter, tmp_path: Path) -> None:
    """Each format is read, and the blocks arrive with their unit."""
    write_pdf(tmp_path / "a.pdf", [["The machine is on the second floor."]])
    write_docx(tmp_path / "a.docx", paragraph("The machine is here."))
    (tmp_path / "a.html").write_text("<p>The machine is there.")
    assert texts(converter, tmp_path / "a.pdf") == ["page: The machine is on the second floor."]
    assert texts(converter, tmp_path / "a.docx") == ["paragraph: The machine is here."]
    assert texts(converter, tmp_path / "a.html") == ["line: The machine is there."]


@pytest.mark.parametrize(
    ("content_bytes", "text"),
    [
        (b'<meta charset="iso-8859-2"><p>\xb3', "ł"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=koi8-r"><p>\xc1', "а"),  # noqa: RUF001 - Cyrillic
        (b'<meta charset="nonsense"><p>\xe9', "é"),
        (b"<p>\xe9", "é"),
        ("<p>é".encode(), "é"),
        ('<meta charset="utf-8"><p>é'.encode(), "é"),
        ("<p>é".encode("utf-16"), "é"),
    ],
)
def test_encodings_of_pages(converter: Converter, tmp_path: Path, content_bytes: bytes, text: str) -> None:
    """A page is decoded by the encoding that it declares."""
    (tmp_path / "a.htm").write_bytes(content_bytes)
    assert texts(converter, tmp_path / "a.htm") == [f"line: {text}"]


def test_broken_files(converter: Converter, tmp_path: Path) -> None:
    """A broken file is reported with the reason, and the next one is read."""
    for name, content_bytes, reason in (
        ("a.pdf", b"nonsense", "it is damaged"),
        ("a.docx", b"nonsense", "it is no Word file, or is protected with a password"),
        ("a.html", b"\0" * 1000, "it is not a text file"),
    ):
        (tmp_path / name).write_bytes(content_bytes)
        with pytest.raises(DocumentError) as raised:
            converter.read(name, file(tmp_path / name))
        assert str(raised.value) == reason
    missing = File(tmp_path / "b.pdf", (), 0)
    with pytest.raises(DocumentError, match="No such file"):
        converter.read("b.pdf", missing)
    (tmp_path / "c.html").write_text("<p>fine")
    assert texts(converter, tmp_path / "c.html") == ["line: fine"]


def test_a_file_that_takes_too_long(tmp_path: Path) -> None:
    """A file that is not read in time is reported, its process is killed, and the next file is read."""
    os.mkfifo(tmp_path / "a.html")
    converter = Converter(timeout_s=0.5)
    with pytest.raises(DocumentError, match=r"reading it took longer than 0\.5 seconds"):
        converter.read("a.html", file(tmp_path / "a.html"))
    converter.close()
    converter = Converter()
    (tmp_path / "b.html").write_text("<p>fine")
    assert texts(converter, tmp_path / "b.html") == ["line: fine"]
    converter.close()


def test_a_process_that_was_killed(converter: Converter, tmp_path: Path) -> None:
    """If the system kills the process, it is started again for the next file."""
    (tmp_path / "a.html").write_text("<p>fine")
    texts(converter, tmp_path / "a.html")
    process = converter._process  # noqa: SLF001 - to kill it
    assert process is not None
    process.kill()
    process.wait()
    assert texts(converter, tmp_path / "a.html") == ["line: fine"]


def test_a_pdf_bomb(converter: Converter, tmp_path: Path) -> None:
    """A small PDF with hundreds of megabytes in it is reported, and the engine's memory does not grow."""
    write_pdf(tmp_path / "a.pdf", [["x"]])
    compressor = zlib.compressobj(9)
    zeros = bytes(1024 * 1024)
    stream = b"".join(compressor.compress(zeros) for _ in range(256)) + compressor.flush()
    text = (tmp_path / "a.pdf").read_bytes()
    start, end = text.index(b"<< /Length"), text.index(b"endstream") + len(b"endstream")
    packed = b"<< /Filter /FlateDecode /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream)
    (tmp_path / "a.pdf").write_bytes(text[:start] + packed + text[end:])
    with pytest.raises(DocumentError):
        converter.read("a.pdf", file(tmp_path / "a.pdf"))


def test_too_large(converter: Converter, tmp_path: Path) -> None:
    """A file of more than 64 MiB is not opened."""
    with (tmp_path / "a.pdf").open("wb") as large:
        large.truncate(65 * 1024 * 1024)
    with pytest.raises(DocumentError, match="larger than 64 MiB"):
        converter.read("a.pdf", file(tmp_path / "a.pdf"))


def test_after_the_end(tmp_path: Path) -> None:
    """After the end, no process is started again."""
    (tmp_path / "a.html").write_text("<p>fine")
    converter = Converter()
    converter.close()
    with pytest.raises(DocumentError, match="stopping"):
        converter.read("a.html", file(tmp_path / "a.html"))
