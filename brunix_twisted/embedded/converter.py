"""Read HTML, Word and PDF files in a separate process, with limits of time and memory.

These formats are complicated enough that a damaged or hostile file can take hours or all memory. The process is started
when the first such file is read, and again after it had to be killed. Run as a program, this module is that process:
each line of its input names a file, and each line of its output is a document or an error, as JSON.
"""

import json
import logging
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, cast

import attrs

from brunix_twisted.embedded.blocks import Block, Section
from brunix_twisted.embedded.documents import (
    HTML_SUFFIXES,
    PDF_SUFFIXES,
    Document,
    DocumentError,
    File,
    Unit,
    check_size,
    decode,
    text_of,
)

TIMEOUT_S: Final = 30.0
MAX_MEMORY_BYTES: Final = 1024 * 1024 * 1024
MAX_TEXT_CHARACTERS: Final = 16 * 1024 * 1024
_MAX_REPLY_BYTES: Final = 256 * 1024 * 1024
_READ_BYTES: Final = 1024 * 1024

_CHARSET: Final = re.compile(rb"""<meta[^>]{0,200}charset\s?=\s?["']?([\w.:-]{1,40})""", re.IGNORECASE)


class Converter:
    """The other side of the process. Use it on one thread; only ``close`` may be called on another."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        """Start nothing yet."""
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def read(self, source: str, file: File) -> Document:
        """Read a file. Raises DocumentError."""
        check_size(file)
        request = json.dumps([os.fspath(file.path), self._timeout_s]).encode() + b"\n"
        reply = json.loads(self._exchange(request))
        if "error" in reply:
            raise DocumentError(reply["error"])
        return _document(source, reply)

    def close(self) -> None:
        """End the process. A read on another thread fails."""
        self._is_closed = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                cast("IO[bytes]", pipe).close()

    def _exchange(self, request: bytes) -> bytes:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        process = self._process = self._process or self._start()
        try:
            os.write(cast("IO[bytes]", process.stdin).fileno(), request)
            return self._reply(cast("IO[bytes]", process.stdout).fileno())
        except (OSError, ValueError, EOFError) as error:
            raise DocumentError("its reader crashed: it is damaged, or needs too much memory") from error
        finally:
            if process.poll() is not None or self._is_closed:
                self._end()

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._is_closed:
            raise DocumentError("the engine is stopping")
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "brunix_twisted.embedded.converter"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        except OSError as error:
            raise DocumentError(f"its reader cannot be started ({error.strerror})") from error

    def _reply(self, descriptor: int) -> bytes:
        """Wait for a line. Raises EOFError if the process ends first, and DocumentError if the time is over."""
        deadline_s = time.monotonic() + self._timeout_s
        pieces: list[bytes] = []
        size = 0
        while not pieces or not pieces[-1].endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline_s - time.monotonic()))
            if not ready:
                self._end()
                raise DocumentError(f"reading it took longer than {self._timeout_s:g} seconds")
            piece = os.read(descriptor, _READ_BYTES)
            size += len(piece)
            if not piece or size > _MAX_REPLY_BYTES:
                self._end()
                raise EOFError
            pieces.append(piece)
        return b"".join(pieces)


def _document(source: str, reply: dict[str, Any]) -> Document:
    return Document(
        source,
        tuple(
            Section(tuple(headings), tuple(Block(*values) for values in blocks))
            for headings, blocks in reply["sections"]
        ),
        reply["unit"],
    )


# The process.


def main() -> None:
    """Read the files that are named on standard input."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    # pypdf logs what it finds strange in a file.
    logging.disable(logging.CRITICAL)
    # The engine blocks its stop signals, and this process inherits that. Questions matter more than new documents.
    os.nice(5)
    for line in sys.stdin.buffer:
        path, timeout_s = json.loads(line)
        # If the engine is killed, nothing else ends an endless loop here.
        signal.alarm(int(timeout_s) + 10)
        reply = json.dumps(_converted(Path(path)))
        sys.stdout.write(f"{reply}\n")
        sys.stdout.flush()
        signal.alarm(0)


def _converted(path: Path) -> dict[str, object]:
    try:
        sections, unit = _read(path)
    except DocumentError as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": error.strerror or str(error)}
    except MemoryError:
        return {"error": "it needs too much memory"}
    except Exception:  # noqa: BLE001 - whatever a damaged file makes of its reader
        return {"error": "it is damaged"}
    if sum(len(block.text) for section in sections for block in section.blocks) > MAX_TEXT_CHARACTERS:
        return {"error": f"its text is longer than {MAX_TEXT_CHARACTERS >> 20} million characters"}
    blocks = [(section.headings, [attrs.astuple(block) for block in section.blocks]) for section in sections]
    return {"unit": unit, "sections": blocks}


def _read(path: Path) -> tuple[list[Section], Unit]:
    suffix = path.suffix.lower()
    if suffix in HTML_SUFFIXES:
        from brunix_twisted.embedded.html_pages import html_sections  # noqa: PLC0415 - one of three, when it is needed

        return html_sections(_html_text(path)), "line"
    if suffix in PDF_SUFFIXES:
        from brunix_twisted.embedded.pdf_files import PdfFileError, pdf_sections  # noqa: PLC0415 - see above

        try:
            return pdf_sections(path), "page"
        except PdfFileError as error:
            raise DocumentError(str(error)) from error
    from brunix_twisted.embedded.word_files import WordFileError, word_sections  # noqa: PLC0415 - see above

    try:
        return word_sections(path), "paragraph"
    except WordFileError as error:
        raise DocumentError(str(error)) from error


def _html_text(path: Path) -> str:
    """Decode a page by the encoding that it declares; without one, as any other text."""
    content_bytes = path.read_bytes()
    declared = _CHARSET.search(content_bytes[:2048])
    if declared and declared[1].lower() not in (b"utf-8", b"utf8"):
        with suppress(LookupError):
            return content_bytes.decode(declared[1].decode("ascii", "replace"), "replace")
    return decode(content_bytes) if declared else text_of(path)


if __name__ == "__main__":
    main()
