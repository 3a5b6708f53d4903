"""
The state database: a file that several processes use at the same time. All calls block.

One thread creates a database and calls all of its methods.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from pathlib import Path
from secrets import token_hex
from stat import S_IMODE
from typing import Any, Final

from brunix_twisted.state import SessionEntry, StateLimits, StateUnavailableError, StoredResponse
from brunix_twisted.state import sqlite_schema as sql
from brunix_twisted.state.memory import BODY_OVERHEAD_BYTES
from brunix_twisted.state.sqlite_errors import explained, passes, retried

HOLD_S: Final = 15.0
"""How long after its last announcement a process counts as alive."""

# How long a statement waits for the write lock, which other processes hold for a fraction of a millisecond.
_LOCKED_S: Final = 0.04
# The same while the file is opened, when it may be created by another process.
_OPEN_LOCKED_S: Final = 1.0
# The write-ahead log is copied into the file on a separate thread; see checkpoint(). In case that falls behind, a write
# does it from this size on: 64 MiB.
_MAX_LOG_PAGES: Final = 16384
# Expired rows that an announcement removes, so that text is removed without another question too.
_MAX_REMOVED: Final = 100

_Values = dict[str, object]


class DatabaseFile:
    """The database of one process; see :class:`brunix_twisted.state.StateStore` for what its methods mean."""

    def __init__(self, path: Path, limits: StateLimits, seconds: Callable[[], float], *, durable: bool) -> None:
        """
        Open nothing yet. The first call opens the file, and so does each call after a failure to open it.

        :param seconds: returns the time on a clock that all processes share, such as ``time.time``.
        :param durable: whether the file must survive a crash of the operating system.
        """
        self.path = path
        self._limits = limits
        self._seconds = seconds
        self._durable = durable
        self._holder = token_hex(8)
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None

    def open(self) -> None:
        """
        Open the file, and create it if it is missing.

        :raises StateUnavailableError: it cannot be used now.
        """
        with explained(self.path):
            self._opened(_OPEN_LOCKED_S)

    def find(self, keys: Sequence[bytes], limit: int) -> list[SessionEntry]:
        """Return the sessions that were written with any of the keys."""
        found: dict[int, SessionEntry] = {}
        for begin in range(0, len(keys), sql.MAX_KEYS):
            values = {f"key{number}": key.hex() for number, key in enumerate(keys[begin : begin + sql.MAX_KEYS])}
            rows = self._run(sql.find(len(values)), self._times() | values | {"limit": limit})
            found |= {row[-1]: _entry(row) for row in rows}
        return [found[rank] for rank in sorted(found, reverse=True)]

    def get(self, session_id: str) -> SessionEntry | None:
        """Return a session."""
        rows = self._run(sql.GET, self._times() | {"session_id": session_id})
        return _entry(rows[0]) if rows else None

    def put(self, session_id: str, record: bytes, keys: Collection[bytes], version: int, *, held: bool) -> bool:
        """Write a session, unless it has been written since it was read."""
        values = self._times() | {
            "session_id": session_id,
            "record": record,
            "keys": _json(keys),
            "version": version,
            "max_rows": self._limits.max_sessions,
        }
        with explained(self.path, self._failed):
            try:
                self._execute(sql.PUT, values if held else values | {"holder": None})
            except sqlite3.IntegrityError as error:
                if str(error) != sql.OTHER_VERSION:
                    raise
                return False
        return True

    def release(self, session_id: str, version: int) -> None:
        """Stop holding a session that this process has put with the given version."""
        self._run(sql.RELEASE, {"session_id": session_id, "version": version, "holder": self._holder})

    def put_response(self, response_id: str, response: StoredResponse) -> None:
        """Store a response."""
        limits, body = self._limits, response.body_bytes
        size_bytes = 0 if body is None else len(body) + BODY_OVERHEAD_BYTES
        if size_bytes > limits.max_bytes or not limits.max_bodies:
            body = None
        values = self._times() | {
            "response_id": response_id,
            "session_id": response.session_id,
            "caller": response.caller,
            "body": body,
            "size_bytes": size_bytes,
            "max_rows": limits.max_sessions,
        }
        self._run(sql.PUT_RESPONSE, values)
        self._remove_bodies()

    def _remove_bodies(self) -> None:
        maximum: _Values = {"max_bodies": self._limits.max_bodies, "max_bytes": self._limits.max_bytes}
        with explained(self.path, self._failed):
            while self._execute(sql.REMOVE_OLDEST_BODY, maximum)[1]:
                pass

    def get_response(self, response_id: str) -> StoredResponse | None:
        """Return a response."""
        rows = self._run(sql.GET_RESPONSE, self._times() | {"response_id": response_id})
        return StoredResponse(*rows[0]) if rows else None

    def delete_response(self, response_id: str) -> None:
        """Remove a response."""
        self._run(sql.DELETE_RESPONSE, {"response_id": response_id})

    def announce(self) -> None:
        """
        Announce that this process lives, and remove some of what has expired.

        Call it every few seconds. If the file has been moved away or replaced, the one at its path is used from now on.
        """
        if self._connection is not None and self._inode != _inode(self.path):
            self._disconnect()
        values = self._times()
        self._run(sql.ANNOUNCE, values)
        for statement in sql.REMOVE:
            self._run(statement, values | {"max_rows": self._limits.max_sessions, "max_removed": _MAX_REMOVED})
        self._remove_bodies()

    def close(self) -> None:
        """Release all held sessions, and close the file. The next call would open it again."""
        if self._connection is not None:
            with suppress(StateUnavailableError):
                self._run(sql.FORGET_HOLDER, {"holder": self._holder})
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _times(self) -> _Values:
        now_s = self._seconds()
        return {
            "holder": self._holder,
            "now_s": now_s,
            "oldest_s": now_s - self._limits.max_age_s,
            "seen_s": now_s - HOLD_S,
            # After a clock was set back, a process that has died would otherwise seem alive until the clock catches up.
            "ahead_s": now_s + HOLD_S,
        }

    def _run(self, statement: str, values: _Values) -> list[Any]:
        with explained(self.path, self._failed):
            rows, _ = self._execute(statement, values)
        return rows

    def _execute(self, statement: str, values: _Values) -> tuple[list[Any], int]:
        """Run a statement, and return the rows that it selects and the number of rows that it changes."""

        def run() -> tuple[list[Any], int]:
            cursor = self._opened(_LOCKED_S).execute(statement, values)
            return cursor.fetchall(), cursor.rowcount

        return retried(_LOCKED_S, run)

    def _failed(self, error: Exception) -> None:
        # The operator may replace the file.
        if not passes(error):
            self._disconnect()

    def _opened(self, locked_s: float) -> sqlite3.Connection:
        if self._connection is None:
            _create(self.path)
            connection = connect(self.path)
            try:
                retried(locked_s, lambda: self._prepare(connection))
            except BaseException:
                connection.close()
                raise
            self._inode = _inode(self.path)
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Create what is missing in the file and in the connection."""
        application_id, version = application_of(connection)
        check_application(self.path, application_id, version)
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if self._durable else 'OFF'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_MAX_LOG_PAGES}")
        # Removed text is overwritten.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        # In KiB. After a write of another process, SQLite reads again what it needs.
        connection.execute("PRAGMA cache_size = -8192")
        ((mode,),) = connection.execute("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise StateUnavailableError(
                f"The state database {self.path} is on a file system without shared memory, such as NFS. "
                "Choose a path on a local disk in PROXY_STATE."
            )
        if not version:
            try:
                connection.executescript(sql.CREATE)
            except sqlite3.Error:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        if not connection.execute("SELECT 1 FROM temp.sqlite_schema").fetchone():
            connection.executescript(sql.PREPARE)
        values = self._times()
        connection.execute(sql.ANNOUNCE, values)
        connection.execute(sql.FORGET_DEAD_HOLDERS, values)


def connect(path: Path) -> sqlite3.Connection:
    """Connect to a database that exists. Each statement is a transaction."""
    # SQLite's own waiting is too coarse; see _RETRY_S.
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=0)


def application_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the program that made a database, and the version of its tables; zeros for an empty one."""
    # In one transaction, because another process may be creating the tables.
    connection.execute("BEGIN")
    try:
        ((application_id,),) = connection.execute("PRAGMA application_id")
        ((version,),) = connection.execute("PRAGMA user_version")
        ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    finally:
        connection.execute("ROLLBACK")
    return (application_id, version) if tables else (sql.APPLICATION_ID, 0)


def check_application(path: Path, application_id: int, version: int) -> None:
    """
    Check that a database is one of this gateway, or an empty one.

    :raises StateUnavailableError: it is not.
    """
    if application_id != sql.APPLICATION_ID:
        raise StateUnavailableError(f"{path} is the database of another program. Choose another path in PROXY_STATE.")
    if version > sql.VERSION:
        raise StateUnavailableError(
            f"The state database {path} was written by a newer gateway: its version is {version}, and this gateway "
            f"supports {sql.VERSION}. Use the newer gateway, or choose another path in PROXY_STATE."
        )


def examine(path: Path) -> None:
    """
    Check that a database can be used, or can be created. Create and change nothing.

    :raises StateUnavailableError: it cannot.
    """
    with explained(path):
        if not path.exists():
            folder = path.parent if path.parent.exists() else path.parent.parent
            if not folder.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
            return
        with closing(connect(path)) as connection:
            retried(_OPEN_LOCKED_S, lambda: check_application(path, *application_of(connection)))
            retried(_OPEN_LOCKED_S, lambda: connection.execute("BEGIN IMMEDIATE"))
            connection.execute("ROLLBACK")


def checkpoint(path: Path, *, durable: bool) -> None:
    """
    Copy the write-ahead log into the database.

    This writes to the disk, which may take long, but it does not keep others from reading and writing. Failures are
    left to the next attempt.
    """
    with suppress(sqlite3.Error):
        connection = connect(path)
        try:
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if durable else 'OFF'}")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            connection.close()


def _create(path: Path) -> None:
    """Create an empty file, and its folder, that only this user can read."""
    with suppress(FileExistsError):
        path.parent.mkdir(mode=0o700)
    try:
        # A new file only. Opening and closing the file would release the locks that this process has on it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # SQLite creates its other files with the mode of this one. Another user's file may be usable as it is.
        mode = S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            with suppress(PermissionError):
                path.chmod(mode & 0o700)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _entry(row: tuple[str, bytes, int, int, int]) -> SessionEntry:
    session_id, record, version, held, _ = row
    return SessionEntry(session_id, record, version, bool(held))


def _json(keys: Collection[bytes]) -> str:
    return json.dumps([key.hex() for key in keys])
