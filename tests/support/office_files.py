"""PDF and Word files for tests, with exactly the content that a test needs."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from pypdf import PdfReader, PdfWriter

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STYLES = {"Titel": "Title", "berschrift1": "heading 1", "berschrift2": "heading 2", "Quelltext": "Source Code"}
"""Style ids, as in a German Word, and their names."""


def write_pdf(
    path: Path, pages: Sequence[Sequence[str]], outline: Mapping[str, int] | None = None, password: str = ""
) -> None:
    """Write a PDF with lines of text on each page; ``outline`` has the page of each heading, from 0."""
    objects: list[bytes] = [
        b"",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    kids = []
    for lines in pages:
        shown = b" ".join(b"(%b) Tj T*" % _pdf_text(line) for line in lines)
        content = b"BT /F1 12 Tf 14 TL 72 720 Td %b ET" % shown
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content))
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R " % len(objects)
        objects.append(page + b"/Resources << /Font << /F1 3 0 R >> >> >>")
        kids.append(b"%d 0 R" % len(objects))
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%b] >>" % (len(kids), b" ".join(kids))
    text = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(text))
        text += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    rows = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    path.write_bytes(
        text
        + b"xref\n0 %d\n0000000000 65535 f \n%btrailer\n<< /Size %d /Root 1 0 R >>\n" % (size, rows, size)
        + b"startxref\n%d\n%%%%EOF\n" % len(text)
    )
    if outline or password:
        writer = PdfWriter(clone_from=PdfReader(path))
        for title, number in (outline or {}).items():
            writer.add_outline_item(title=title, page_number=number)
        if password:
            writer.encrypt(password, algorithm="AES-256")
        writer.write(path)


def _pdf_text(line: str) -> bytes:
    return line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").encode("cp1252")


def paragraph(text: str, style: str = "", properties: str = "", run: str = "") -> str:
    """Return a paragraph of WordprocessingML."""
    named = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{named}{properties}</w:pPr><w:r><w:rPr>{run}</w:rPr><w:t>{escape(text)}</w:t></w:r></w:p>"


def table(*rows: Sequence[str]) -> str:
    """Return a table of WordprocessingML."""
    cells = ["".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows]
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def write_docx(path: Path, body: str) -> None:
    """Write a Word file with a body of WordprocessingML."""
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{style}"><w:name w:val="{name}"/></w:style>'
        for style, name in STYLES.items()
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", f'<w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>')
        archive.writestr("word/styles.xml", f'<w:styles xmlns:w="{_W}">{styles}</w:styles>')
