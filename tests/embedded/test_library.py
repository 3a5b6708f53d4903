"""The documents as they are now: what is read again, and what is reported."""

import logging
import math
import os
import queue
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from brunix_twisted.embedded.library import Library, Snapshot
from office_files import write_pdf
from searches import find_answer
from threads import Threads

LIMIT_S = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "coffee.md").write_text("# Coffee\n\nThe machine is cleaned on Mondays.\n")
    return folder


@pytest.fixture
def library(folder: Path) -> Iterator[Library]:
    library = Library(folder, poll_s=0.01)
    yield library
    library.close()


def found(snapshot: Snapshot | None, question: str) -> str:
    """Return the best passage for a question."""
    assert snapshot is not None
    hits = find_answer(snapshot.retriever, question, 1)
    return hits[0].passage.body if hits else ""


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_only_what_changed_is_read(library: Library, folder: Path) -> None:
    """Without a change there is nothing new; a change, a new file and a removed one each give a new index."""
    first = library.load()
    assert found(first, "machine cleaned") == "The machine is cleaned on Mondays."
    assert library.load() is None
    (folder / "coffee.md").write_text("# Coffee\n\nThe machine is cleaned on Fridays.\n")
    assert found(library.load(), "machine cleaned") == "The machine is cleaned on Fridays."
    (folder / "tea.rst").write_text("Tea\n===\n\nThe teapot is in the kitchen.\n")
    assert found(library.load(), "teapot") == "The teapot is in the kitchen."
    (folder / "coffee.md").unlink()
    assert found(library.load(), "machine cleaned") == ""
    # The calls that began before are still answered from the index that they began with.
    assert found(first, "machine cleaned") == "The machine is cleaned on Mondays."


def test_a_change_that_keeps_time_and_size(library: Library, folder: Path) -> None:
    """A file that is replaced by one of the same size and time, as rsync and unpackers do, is read again."""
    library.load()
    before = (folder / "coffee.md").stat()
    (folder / "new.md").write_text("# Coffee\n\nThe machine is cleaned on Fridays.\n")
    os.utime(folder / "new.md", ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / "new.md").replace(folder / "coffee.md")
    assert found(library.load(), "machine cleaned") == "The machine is cleaned on Fridays."


def test_a_broken_file_is_reported_once(library: Library, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A broken file is reported when it is first seen and when it changes, not at every poll."""
    (folder / "broken.docx").write_bytes(b"nonsense")
    (folder / "slides.pptx").write_bytes(b"nonsense")
    snapshot = library.load()
    assert snapshot is not None
    assert (snapshot.document_count, snapshot.passage_count) == (1, 1)
    library.load()
    reported = [
        "skipped files of types that are not read: 1 .pptx",
        "skipped broken.docx: it is no Word file, or is protected with a password",
    ]
    assert warnings(caplog) == reported
    (folder / "broken.docx").write_bytes(b"other nonsense")
    library.load()
    assert warnings(caplog) == [*reported, reported[1]]


def test_many_broken_files(library: Library, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder full of broken files does not fill the log."""
    for number in range(50):
        (folder / f"{number}.txt").write_bytes(b"\0" * 100)
    library.load()
    assert len(warnings(caplog)) == 21
    assert warnings(caplog)[-1] == "skipped 30 more files"


def test_slow_formats_follow(library: Library, folder: Path) -> None:
    """With many PDF files, the engine starts with some documents, and reads the others afterwards."""
    for number in range(3):
        write_pdf(folder / f"{number}.pdf", [[f"The secret number {number} is in the drawer."]])
    snapshot = library.load(budget_s=0)
    assert snapshot is not None
    assert (snapshot.document_count, snapshot.pending_count) == (1, 3)
    snapshot = library.load(budget_s=math.inf)
    assert snapshot is not None
    assert (snapshot.document_count, snapshot.pending_count) == (4, 0)


@pytest.fixture
def snapshots(library: Library) -> "queue.SimpleQueue[Snapshot]":
    """Watch the folder, and return the queue of what changed."""
    library.load()
    changed: queue.SimpleQueue[Snapshot] = queue.SimpleQueue()
    library.watch(changed.put)
    return changed


def test_watching(snapshots: "queue.SimpleQueue[Snapshot]", folder: Path) -> None:
    """A change is noticed without a restart."""
    (folder / "tea.md").write_text("# Tea\n\nThe teapot is in the kitchen.\n")
    # The file may be seen when it is still empty.
    while found(snapshots.get(timeout=LIMIT_S), "teapot") != "The teapot is in the kitchen.":
        pass


def test_a_folder_that_vanishes(
    snapshots: "queue.SimpleQueue[Snapshot]", folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder on a disk that is unmounted keeps its last answers, is reported once, and is read when it is back."""
    shown: queue.SimpleQueue[str] = queue.SimpleQueue()

    def show(record: logging.LogRecord) -> bool:
        shown.put(record.getMessage())
        return True

    caplog.handler.addFilter(show)
    folder.rename(folder.with_name("elsewhere"))
    assert "cannot be read" in shown.get(timeout=LIMIT_S)
    shutil.copytree(folder.with_name("elsewhere"), folder)
    (folder / "coffee.md").write_text("# Coffee\n\nThe machine is cleaned on Fridays.\n")
    while found(snapshots.get(timeout=LIMIT_S), "machine cleaned") != "The machine is cleaned on Fridays.":
        pass
    assert sum("cannot be read" in each for each in warnings(caplog)) == 1


def test_answers_during_a_change(library: Library, folder: Path) -> None:
    """Searches in an index that is replaced are not disturbed."""
    snapshot = library.load()
    with Threads() as searching:
        searching.start(lambda: [found(snapshot, "machine cleaned") for _ in range(300)])
        for number in range(20):
            (folder / f"{number}.md").write_text(f"# Page {number}\n\nText of page {number}.\n")
            snapshot = library.load()
    assert found(snapshot, "machine cleaned") == "The machine is cleaned on Mondays."
