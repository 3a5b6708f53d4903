"""The documents as they are now: read the folder, index it, and read again what changes."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs

from brunix_twisted.embedded.converter import Converter
from brunix_twisted.embedded.documents import (
    MAX_DOCUMENTS,
    Document,
    DocumentError,
    File,
    Listing,
    check_size,
    list_files,
    text_document,
    text_of,
)
from brunix_twisted.embedded.passages import Passage, passages_of
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.samples import sample_questions
from brunix_twisted.embedded.semantic import Embedder, SemanticIndex

log: Final = logging.getLogger("brunix.embedded")

# HTML, Word and PDF files are read for this long before what has been read so far is indexed. The rest follows.
CONVERSION_BUDGET_S: Final = 5.0

POLL_S: Final = 2.0
_MAX_DUTY: Final = 0.05
"""Maximum share of the time that the watcher may take: for a large folder, it polls less often."""

_STOP_S: Final = 2.0

_MAX_REPORTED: Final = 20
"""Maximum number of skipped files that one pass reports by name."""


@attrs.frozen
class Snapshot:
    """The documents at one time, and their index."""

    retriever: Retriever
    passage_count: int
    document_count: int
    pending_count: int
    """Documents that are still to be read."""
    sample_questions: tuple[str, ...]


@attrs.frozen
class _Known:
    """A file that has been read; without passages if it could not be."""

    identity: tuple[int, ...]
    passages: tuple[Passage, ...]


class Library:
    """The documents below a folder. Files that have not changed are not read again."""

    def __init__(self, folder: Path, poll_s: float = POLL_S, embedder: Embedder | None = None) -> None:
        """Read nothing yet. With an embedder, passages are also found by meaning."""
        self._folder = folder
        self._poll_s = poll_s
        self._embedder = embedder
        self._semantic: SemanticIndex | None = None
        self._converter = Converter()
        self._known: dict[str, _Known] = {}
        self._reported: object = None
        self._pending_count = 0
        self._is_loaded = False
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    def load(self, budget_s: float = math.inf) -> Snapshot | None:
        """
        Read what has changed since the last call; return None if nothing has. Not thread-safe.

        Raises OSError if the folder cannot be listed. Files that cannot be read are logged and skipped.

        :param budget_s: how long to read HTML, Word and PDF files. The next call continues.
        """
        listing = list_files(self._folder)
        self._report(listing)
        changes = self._read_changes(listing.files, time.monotonic() + budget_s)
        if self._is_loaded and not changes:
            return None
        self._is_loaded = True
        passages = [passage for known in self._known.values() for passage in known.passages]
        if self._semantic:
            self._semantic.stop()
        retriever = Retriever(passages, self._embedder)
        self._semantic = retriever.semantic
        return Snapshot(
            retriever,
            len(passages),
            sum(1 for known in self._known.values() if known.passages),
            self._pending_count,
            sample_questions(passages, retriever),
        )

    def watch(self, replace: Callable[[Snapshot], None]) -> None:
        """Poll the folder on a separate thread, and pass on each new snapshot, until :meth:`close`."""
        self._watcher = threading.Thread(target=self._watch, args=(replace,), name="documents", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop watching, and end the process that reads files."""
        self._closing.set()
        self._converter.close()
        if self._semantic:
            self._semantic.close()
        if self._watcher is not None:
            # It may be splitting a large file, which must not delay the stop.
            self._watcher.join(_STOP_S)
            # It may have started one more process.
            self._converter.close()

    def _watch(self, replace: Callable[[Snapshot], None]) -> None:
        pause_s = 0.0 if self._pending_count else self._poll_s
        failed = ""
        while not self._closing.wait(pause_s):
            start_s = time.monotonic()
            try:
                snapshot = self.load(CONVERSION_BUDGET_S)
            except OSError as error:
                # The folder may be on a disk that is not mounted: answer from what was read.
                if failed != str(error):
                    failed = str(error)
                    log.warning("the folder of documents cannot be read: %s; answering from its last state", error)
            except Exception:
                log.exception("the documents could not be indexed again")
            else:
                failed = ""
                if snapshot is not None and not self._closing.is_set():
                    replace(snapshot)
                    log.info("documents changed: %d passages of %d", snapshot.passage_count, snapshot.document_count)
            took_s = time.monotonic() - start_s
            pause_s = 0.0 if self._pending_count else max(self._poll_s, took_s / _MAX_DUTY)

    def _read_changes(self, files: Mapping[str, File], deadline_s: float) -> int:
        """Read the files that are new or have changed; return how many were read or removed."""
        changes = len(self._known.keys() - files.keys())
        known: dict[str, _Known] = {}
        problems: list[str] = []
        self._pending_count = 0
        for source, file in files.items():
            before = self._known.get(source)
            if before is None or before.identity != file.identity:
                if self._closing.is_set() or (file.is_converted and time.monotonic() >= deadline_s):
                    self._pending_count += 1
                else:
                    before = self._read(source, file, problems)
                    changes += 1
            if before is not None:
                known[source] = before
        self._known = known
        for problem in problems[:_MAX_REPORTED]:
            log.warning("%s", problem)
        if len(problems) > _MAX_REPORTED:
            log.warning("skipped %d more files", len(problems) - _MAX_REPORTED)
        return changes

    def _read(self, source: str, file: File, problems: list[str]) -> _Known:
        passages: tuple[Passage, ...] = ()
        try:
            passages = passages_of(self._document(source, file))
        except DocumentError as error:
            problems.append(f"skipped {source}: {error}")
        except OSError as error:
            problems.append(f"skipped {source}: {error.strerror or error}")
        except Exception:
            log.exception("skipped %s", source)
        return _Known(file.identity, passages)

    def _document(self, source: str, file: File) -> Document:
        if file.is_converted:
            return self._converter.read(source, file)
        check_size(file)
        return text_document(source, text_of(file.path))

    def _report(self, listing: Listing) -> None:
        """Log which folders and kinds of files are not read, once until that changes."""
        found = (listing.problems, listing.unsupported)
        if found == self._reported:
            return
        self._reported = found
        for source, reason in listing.problems.items():
            log.warning("skipped the folder %s: %s", source, reason)
        kinds = dict(listing.unsupported)
        if count := kinds.pop("more", 0):
            log.warning("skipped %d files: only the first %d are read", count, MAX_DOCUMENTS)
        if count := kinds.pop(".pdf", 0):
            log.warning("skipped %d PDF files: install brunix-twisted[documents] to read them", count)
        if kinds:
            log.warning("skipped files of types that are not read: %s", ", ".join(f"{n} {s}" for s, n in kinds.items()))
