"""The state database: shared by processes, kept over restarts, and clear about what is wrong with it."""

# ruff: noqa: ASYNC240 - files of a test, which take no time

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import StateUnavailableError, StoredResponse, sqlite_errors
from brunix_twisted.state import sqlite as sqlite_store
from brunix_twisted.state.sqlite import ANNOUNCE_S, SqliteStore
from brunix_twisted.state.sqlite_database import HOLD_S, application_of, connect
from brunix_twisted.state.sqlite_schema import APPLICATION_ID, CREATE
from fake_reactor import LIMIT_S
from isolation import CLEAN
from paths import TESTS
from state_process import LIMITS

KEY = b"key"
PROCESS = TESTS / "support" / "state_process.py"

Open = Callable[..., SqliteStore]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


@pytest_twisted.async_yield_fixture
async def open_store(path: Path) -> AsyncIterator[Open]:
    """Open a store on the same file, without waiting for it."""
    opened: list[SqliteStore] = []

    def open_one(where: Path = path, seconds: Callable[[], float] = time.time, **limits: Any) -> SqliteStore:  # noqa: ANN401 - as in StateLimits
        store = SqliteStore(cast("Reactor", reactor), where, attrs.evolve(LIMITS, **limits), seconds)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


async def put(store: SqliteStore, session_id: str, version: int = 0, *, held: bool = False) -> bool:
    return await store.put(session_id, b"record", [KEY], version=version, held=held)


async def fault(store: SqliteStore) -> str:
    """Return why a store cannot be used."""
    with pytest.raises(StateUnavailableError) as raised:
        await store.check()
    return str(raised.value)


@contextmanager
def process(task: str, path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that uses the file, and kill it afterwards."""
    running = subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, str(PROCESS), task, str(path), *arguments],
        env=CLEAN,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def begin(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.flush()


async def test_restart(open_store: Open) -> None:
    """A restart of the gateway keeps conversations and responses, and ends all questions."""
    before = open_store()
    await put(before, "idle")
    await put(before, "held", held=True)
    response = StoredResponse("idle", b"caller", b"body")
    await before.put_response("r", response)
    await before.close()
    after = open_store()
    assert {(entry.session_id, entry.held) for entry in await after.find([KEY], 10)} == {
        ("idle", False),
        ("held", False),
    }
    assert await after.get_response("r") == response


async def test_two_stores(open_store: Open) -> None:
    """What one process writes, another finds at once, and only one of them gets a session."""
    one, other = open_store(), open_store()
    await put(one, "s")
    for store in (one, other):
        (entry,) = await store.find([KEY], 10)
        assert (entry.version, entry.held) == (1, False)
    assert await put(one, "s", 1, held=True)
    assert not await put(other, "s", 1, held=True)
    (entry,) = await other.find([KEY], 10)
    assert (entry.version, entry.held) == (2, True)
    await one.close()
    (entry,) = await other.find([KEY], 10)
    assert (entry.version, entry.held) == (2, False)


async def test_several_processes_claim_each_session_once(open_store: Open, path: Path) -> None:
    """Two callers who reach different processes never share a session."""
    store, sessions, processes = open_store(), 100, 4
    for number in range(sessions):
        await store.put(str(number), b"", [b"%016d" % number], version=0, held=False)
    with ExitStack() as stack:
        running = [stack.enter_context(process("claim", path, str(sessions))) for _ in range(processes)]
        for each in running:
            assert line(each) == "ready"
        # communicate() sends the line with which they begin. All have opened the file.
        for each in running:
            begin(each)
        claimed = Counter(number for each in running for number in each.communicate(timeout=LIMIT_S)[0].split())
    assert claimed == Counter(str(number) for number in range(sessions))


async def test_a_killed_process_releases_its_sessions(open_store: Open, path: Path) -> None:
    """A conversation whose process was killed during an answer continues after some seconds."""
    ahead_s = 0.0
    store = open_store(seconds=lambda: time.time() + ahead_s)
    with process("hold", path, "s") as holder:
        assert line(holder) == "ready"
        begin(holder)
        assert line(holder) == "held"
        (entry,) = await store.find([KEY], 1)
        assert entry.held
        holder.kill()
        holder.wait()
    # The machine may be slow: the process is only known to have announced itself before now.
    ahead_s = HOLD_S + 1
    (entry,) = await store.find([KEY], 1)
    assert not entry.held
    assert await put(store, "s", entry.version, held=True)


async def test_a_process_that_lives_holds_its_sessions(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer keeps its session: its process announces that it lives."""
    monkeypatch.setattr(sqlite_store, "ANNOUNCE_S", 0.01)
    clock = Clock()
    holder, other = open_store(seconds=clock.seconds), open_store(seconds=clock.seconds)
    await holder.start()
    await put(holder, "s", held=True)
    clock.advance(HOLD_S + 1)
    # Its own sessions are held regardless of the time.
    (entry,) = await holder.find([KEY], 1)
    assert entry.held
    while not (await other.find([KEY], 1))[0].held:
        pass


async def test_a_clock_that_is_set_back(open_store: Open) -> None:
    """A process that has died does not seem alive until the clock catches up."""
    clock = Clock()
    clock.advance(10_000)
    dead, other = open_store(seconds=clock.seconds), open_store(seconds=clock.seconds)
    await put(dead, "s", held=True)
    await other.start()
    clock.rightNow = 5_000
    (entry,) = await other.find([KEY], 1)
    assert not entry.held


async def test_killed_while_writing(open_store: Open, path: Path) -> None:
    """A process that is killed while it writes leaves a file that works, with all that it has written."""
    for _ in range(3):
        path.unlink(missing_ok=True)
        with process("write", path) as writer:
            assert line(writer) == "ready"
            begin(writer)
            for _ in range(50):
                assert line(writer)
            os.kill(writer.pid, signal.SIGKILL)
            written = (["50", *writer.communicate()[0].split()])[-1]
        store = open_store()
        assert await store.get(written) is not None
        assert await put(store, "s")
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            ((sessions, counted),) = database.execute("SELECT (SELECT count(*) FROM sessions), sessions FROM totals")
            assert sessions == counted
        await store.close()


async def test_only_this_user_reads_the_files(open_store: Open, tmp_path: Path) -> None:
    """Other users of the machine do not read stored answers."""
    before = os.umask(0)
    try:
        store = open_store(tmp_path / "folder" / "state.sqlite")
        await put(store, "s")
    finally:
        os.umask(before)
    folder = tmp_path / "folder"
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {each.name: each.stat().st_mode & 0o777 for each in folder.iterdir()}
    assert modes == dict.fromkeys(("state.sqlite", "state.sqlite-wal", "state.sqlite-shm"), 0o600)


async def test_a_file_that_others_could_read(open_store: Open, path: Path) -> None:
    """A file that was copied back from a backup loses the modes that let others read it."""
    path.touch(0o644)
    await put(open_store(), "s")
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}


async def test_no_folder(open_store: Open, tmp_path: Path) -> None:
    """A mistyped path is reported, with the folder to create; and the store works once it exists."""
    path = tmp_path / "missing" / "folder" / "state.sqlite"
    store = open_store(path)
    assert await fault(store) == (
        f"The state database {path} cannot be opened: No such file or directory: {path.parent}. "
        f"Create the folder {tmp_path / 'missing'}."
    )
    (tmp_path / "missing").mkdir()
    await store.check()
    assert await put(store, "s")


async def test_a_folder_at_the_path(open_store: Open, path: Path) -> None:
    """A path of a folder is reported."""
    path.mkdir()
    assert f"The state database {path} cannot be opened" in await fault(open_store())


@pytest.mark.parametrize("content", [b"no database " * 1000, b"SQLite format 3\0" + 5000 * b"\xff"])
async def test_a_damaged_file(open_store: Open, path: Path, content: bytes) -> None:
    """A damaged file is reported, not overwritten; once it has been moved away, the store works."""
    path.write_bytes(content)
    store = open_store()
    message = await fault(store)
    assert message.startswith(f"The state database {path} is ")
    assert f"Move {path} away" in message
    assert path.read_bytes() == content
    path.rename(path.with_suffix(".damaged"))
    assert await put(store, "s")


async def test_damaged_pages(open_store: Open, path: Path) -> None:
    """Damage in the middle of the file is reported, and a good file in its place is used at once."""
    before = open_store()
    await put(before, "s")
    await before.close()
    store = open_store()
    await store.start()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StateUnavailableError, match="is damaged"):
        await store.find([KEY], 1)
    for each in path.parent.iterdir():
        each.unlink()
    assert await put(store, "s")


async def test_damaged_while_in_use(open_store: Open, path: Path) -> None:
    """A file that gets damaged during use is reported, and a good one in its place is used without a restart."""
    store = open_store()
    await put(store, "s")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(b"\xff" * 4096)
    other = open_store()
    assert "Move" in await fault(other)
    for each in path.parent.iterdir():
        each.unlink()
    assert await put(other, "s")
    # It notices at its next announcement that its file is no longer there.
    await store.check()
    (entry,) = await store.find([KEY], 1)
    assert entry.version == 1


async def test_a_file_of_a_newer_gateway(open_store: Open, path: Path) -> None:
    """After a downgrade, the file is left as it is, and the message says what to do."""
    await put(open_store(), "s")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 2")
    assert await fault(open_store()) == (
        f"The state database {path} was written by a newer gateway: its version is 2, and this gateway supports 1. "
        "Use the newer gateway, or choose another path in PROXY_STATE."
    )


async def test_a_database_of_another_program(open_store: Open, path: Path) -> None:
    """A database of another program is left as it is."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (c)")
    content = path.read_bytes()
    expected = f"{path} is the database of another program. Choose another path in PROXY_STATE."
    assert await fault(open_store()) == expected
    assert path.read_bytes() == content


async def test_locked(open_store: Open, path: Path) -> None:
    """A program that keeps the file locked is reported; afterwards the store works."""
    store = open_store()
    await put(store, "s")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateUnavailableError, match="is locked by another program"):
            await put(store, "t")
        # Reading needs no lock.
        assert await store.get("s") is not None
        database.execute("ROLLBACK")
    assert await put(store, "t")


async def test_locked_for_a_moment(open_store: Open, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write of another process at the same time is not a fault."""
    store = open_store()
    await put(store, "s")
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as database:
        database.execute("BEGIN IMMEDIATE")
        waiting = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: database.execute("ROLLBACK"))
        monkeypatch.setattr(sqlite_errors, "time", waiting)
        assert await put(store, "t")


async def test_locked_at_the_start(open_store: Open, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is locked while the gateway starts is used as soon as it can be."""
    monkeypatch.setattr("brunix_twisted.state.sqlite_database._OPEN_LOCKED_S", 0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        store = open_store()
        with pytest.raises(StateUnavailableError, match="is locked by another program"):
            await store.start()
        database.execute("ROLLBACK")
    assert await put(store, "s")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that another user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def read(path: Path) -> str:
    """Read the file as another user than the superuser."""
    with process("read", path) as reader:
        return line(reader)


async def test_read_only(open_store: Open, public_folder: Path) -> None:
    """A file or folder that the gateway may not write is reported, with the user that needs to."""
    path = public_folder / "state.sqlite"
    store = open_store(path)
    await put(store, "one")
    await store.close()
    path.chmod(0o444)
    public_folder.chmod(0o555)
    user = os.geteuid() or 65534
    message = read(path)
    assert message.startswith(f"The state database {path} ")
    assert f"Let user {user} " in message
    assert str(path) in message
    path.chmod(0o000)
    assert f"The state database {path} cannot be opened. Let user {user} read and write {path}" in read(path)
    public_folder.chmod(0o755)
    path.unlink()
    public_folder.chmod(0o555)
    assert f"The state database {path} cannot be opened: Permission denied: {path}." in read(path)


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode != 0  # noqa: S607
    if shutil.which("unshare")
    else True,
    reason="no user namespaces",
)
def test_a_full_disk(tmp_path: Path) -> None:
    """A full disk is reported, reading works, and so does writing when there is space again."""
    folder = tmp_path / "small"
    folder.mkdir()
    script = (
        'mount -t tmpfs -o size=1m tmpfs "$1" && head -c 600000 /dev/zero >"$1/filler" && '
        'exec "$2" "$3" fill "$1/state.sqlite" "$1/filler"'
    )
    done = subprocess.run(  # noqa: S603 - a small script of this test's own
        ["unshare", "-Urm", "sh", "-c", script, "sh", str(folder), sys.executable, str(PROCESS)],  # noqa: S607
        env=CLEAN,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    message, *rest = done.stdout.splitlines()
    assert message.startswith(
        f"The state database {folder}/state.sqlite cannot be written because the disk is full. "
        f"Free some space in {folder}."
    )
    assert rest == ["True", "True"]


async def test_expired_text_is_removed(open_store: Open) -> None:
    """Stored answers are removed from the file when they have expired, also without another question."""
    clock = Clock()
    store = open_store(seconds=clock.seconds, max_age_s=100.0)
    await put(store, "s")
    await store.put_response("r", StoredResponse("s", b"caller", b"text of an answer"))
    await store.put_response("deleted", StoredResponse("s", b"caller", b"text of another answer"))
    await store.delete_response("deleted")
    clock.advance(101)
    await store.check()
    path = store._path  # noqa: SLF001 - the file itself is looked at
    await store.close()
    content = path.read_bytes()
    assert b"text of" not in content
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT sessions, responses, bodies, bytes FROM totals").fetchall() == [(0, 0, 0, 0)]
        assert database.execute("SELECT count(*) FROM keys").fetchall() == [(0,)]


async def test_lower_limits(open_store: Open) -> None:
    """A restart with lower limits removes what exceeds them."""
    before = open_store()
    for number in range(20):
        await put(before, str(number))
        await before.put_response(str(number), StoredResponse(str(number), b"caller", b"body"))
    await before.close()
    after = open_store(max_sessions=5, max_bodies=3)
    await after.check()
    assert [entry.session_id for entry in await after.find([KEY], 100)] == ["19", "18", "17", "16", "15"]
    kept = {number: await after.get_response(str(number)) for number in range(20)}
    assert [number for number, response in kept.items() if response] == [15, 16, 17, 18, 19]
    assert [number for number, response in kept.items() if response and response.body_bytes] == [17, 18, 19]


async def test_a_cancelled_call_does_not_run(open_store: Open) -> None:
    """A claim that its question no longer waits for does not happen later."""
    store = open_store()
    await put(store, "s")
    waiting = ensureDeferred(store.find([KEY], 1))
    claim = ensureDeferred(put(store, "s", 1, held=True))
    claim.addErrback(lambda _: None)
    claim.cancel()
    await waiting
    (entry,) = await store.find([KEY], 1)
    assert (entry.version, entry.held) == (1, False)


async def test_a_claim_that_is_late_is_undone(open_store: Open) -> None:
    """A claim that succeeds after its question has given up does not keep the session from other questions."""
    store = open_store()
    await put(store, "s")
    original = store._database.put  # noqa: SLF001 - to cancel while it runs
    claim: Deferred[bool] = Deferred()

    def put_and_cancel(*arguments: object, **held: bool) -> bool:
        done = original(*arguments, **held)  # type: ignore[arg-type]
        cast("Reactor", reactor).callFromThread(claim.cancel)
        return done

    store._database.put = put_and_cancel  # type: ignore[assignment,method-assign] # noqa: SLF001 - as above
    claim = ensureDeferred(put(store, "s", 1, held=True))
    claim.addErrback(lambda _: None)
    await claim
    await store.get("s")
    (entry,) = await store.find([KEY], 1)
    assert (entry.version, entry.held) == (2, False)


async def test_a_long_log_is_written_back(open_store: Open, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write-ahead log does not grow without limit."""
    monkeypatch.setattr(sqlite_store, "_CHECKPOINT_WRITES", 10)
    store = open_store()
    size_bytes = 0
    # A thread does it; on a busy machine, it may take its time.
    for number in range(3000):
        await store.put_response(str(number), StoredResponse("s", b"caller", 10_000 * b"x"))
        size_bytes = path.stat().st_size
        if size_bytes > 1_000_000:
            break
    assert size_bytes > 1_000_000


async def test_closed(open_store: Open) -> None:
    """A call after the end of the gateway fails like all others, and starts nothing."""
    store = open_store()
    await store.start()
    await store.close()
    with pytest.raises(StateUnavailableError, match="is closed"):
        await store.check()


def test_announcements() -> None:
    """A process misses two announcements before it counts as dead."""
    assert ANNOUNCE_S * 3 <= HOLD_S


def test_created_by_another_process_meanwhile(tmp_path: Path) -> None:
    """Of two processes that start at the same time, one would take the new file for another program's."""
    path = tmp_path / "state.sqlite"
    path.touch()
    with closing(connect(path)) as connection, closing(connect(path)) as other:

        def create(statement: str) -> None:
            if "user_version" in statement:
                with suppress(sqlite3.OperationalError):
                    other.executescript(CREATE)
                if other.in_transaction:
                    other.execute("ROLLBACK")

        connection.set_trace_callback(create)
        assert application_of(connection) == (APPLICATION_ID, 0)
