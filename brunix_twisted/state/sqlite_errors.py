"""What an error of SQLite means for an operator, and which errors pass."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from brunix_twisted.state import StateUnavailableError

_T = TypeVar("_T")

# SQLite itself would wait for 1, 2, 5 and more milliseconds. Of many processes, some would then wait for too long.
_RETRY_S: Final = (0.00005, 0.0003)

_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_ADVICE: Final = {
    **dict.fromkeys(_LOCKED, "is locked by another program. Close that program; the gateway then uses the database."),
    sqlite3.SQLITE_FULL: "cannot be written because the disk is full. Free some space in {folder}.",
    sqlite3.SQLITE_READONLY: "is read-only. Let user {user} write {path} and its folder, {folder}.",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened. Let user {user} read and write {path} and its folder, {folder}.",
    sqlite3.SQLITE_CORRUPT: "is damaged. Move {path} away, and {path}-wal and {path}-shm; the gateway then creates it.",
    sqlite3.SQLITE_NOTADB: "is not a database. Move {path} away, or choose another path in PROXY_STATE.",
    sqlite3.SQLITE_IOERR: "cannot be read or written. Check the disk and the file system.",
}


def _code(error: Exception) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    # The upper bits are details.
    return None if code is None else int(code) & 0xFF


def passes(error: Exception) -> bool:
    """Return whether the same connection may work again later: the disk is full, or the file is locked."""
    return _code(error) in {sqlite3.SQLITE_FULL, *_LOCKED}


def retried(locked_s: float, run: Callable[[], _T]) -> _T:
    """Run a statement, again and again for some time if the database is locked."""
    give_up_s = time.monotonic() + locked_s
    while True:
        try:
            return run()
        except sqlite3.OperationalError as error:
            if _code(error) not in _LOCKED or time.monotonic() > give_up_s:
                raise
        time.sleep(random.uniform(*_RETRY_S))  # noqa: S311 - to take turns


def explanation(path: Path, error: Exception) -> str:
    """Describe an error for an operator: the file, what is wrong, and what to do."""
    code = _code(error)
    if isinstance(error, OSError):
        reason = f"The state database {path} cannot be opened: {error.strerror}: {error.filename or path}."
        if isinstance(error, FileNotFoundError):
            reason += f" Create the folder {path.parent.parent}."
        return reason
    advice = _ADVICE.get(code, "cannot be used.") if code is not None else "cannot be used."
    text = advice.format(path=path, folder=path.parent, user=os.geteuid())
    return f"The state database {path} {text} (SQLite: {error})"


@contextmanager
def explained(path: Path, failed: Callable[[Exception], object] = lambda _: None) -> Iterator[None]:
    """Raise errors as StateUnavailableError, after calling ``failed`` with the error."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        failed(error)
        raise StateUnavailableError(explanation(path, error)) from error
