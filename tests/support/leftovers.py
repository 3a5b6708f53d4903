"""A plugin for pytest: what a test started ends with it, or the test fails by name and what is left is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Generator, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import attrs
import pytest

from isolation import PortGuard
from threads import WHOLE_SESSION

MARKER: Final = "PYTEST_STARTED_BY"
"""The variable by which a process is known to come from a run of the tests, whatever its parent is by now."""
GRACE_S: Final = 20.0
"""How long a test's processes and threads may take to end after it, on a busy machine. An idle one waits for none."""
_POLL_S: Final = 0.02
_LOOKS: Final = 4
_LOOK_S: Final = 0.005
# Frames of the standard library between a test and Thread.start.
_LIBRARY: Final = ("/threading.py", "/concurrent/futures/thread.py", "/socketserver.py", "/tests/support/threads.py")

_serving_all_tests = set[int]()


def keep(pid: int) -> None:
    """Count a process as a part of this one: :func:`running` leaves it out, and so does :func:`end`."""
    _serving_all_tests.add(pid)


def new_marker() -> dict[str, str]:
    """Return the variable for everything that this process starts."""
    return {MARKER: uuid.uuid4().hex}


@attrs.frozen
class Process:
    """A process, by what stays the same for all of its life."""

    pid: int
    start: str
    """When it started, in the kernel's ticks: a pid may be used again."""
    parent: int = attrs.field(eq=False)

    def __str__(self) -> str:
        """Its pid and its command line."""
        try:
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            command = ""
        return f"{self.pid} {command.strip()}"


def _process(pid: int) -> Process | None:
    """Look a process up; None when it has ended, also if its parent has not noticed yet."""
    try:
        # What comes before is the name of its program, which may contain anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid, fields[19], int(fields[1]))


def _children(pid: int) -> Iterable[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for child in map(int, (task / "children").read_text("ascii").split()):
                    yield child
                    yield from _children(child)


def descendants(root: int) -> set[Process]:
    """Find the children of a process, theirs, and so on; none on systems other than Linux."""
    return {process for process in map(_process, _children(root)) if process is not None}


def running(marker: str) -> set[Process]:
    """
    Find the processes that come from this one, and those that have the marker in their environment.

    A daemon has another parent than the one who started it, and is found by its environment; a process that was given
    another environment is found by its parent. None on systems other than Linux.

    Processes that serve all tests are left out, and what they start for a moment; see :func:`keep`.
    """
    wanted = f"{MARKER}={marker}".encode()
    pids = set[int]()
    with contextlib.suppress(OSError):
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and wanted in _environment(folder).split(b"\0"):
                    pids.add(int(folder.name))
    pids.discard(os.getpid())
    found = {process for process in map(_process, pids) if process is not None} | descendants(os.getpid())
    return {process for process in found if _serving_all_tests.isdisjoint((process.pid, process.parent))}


def _environment(folder: Path) -> bytes:
    """Read a process's environment, which is empty for a moment while the process executes another program."""
    for _ in range(_LOOKS):
        if environment := (folder / "environ").read_bytes():
            return environment
        # Neither has one: a thread of the kernel, nor a process that has ended and was not waited for.
        if not (folder / "exe").exists():
            break
        time.sleep(_LOOK_S)
    return b""


def end(processes: Iterable[Process]) -> None:
    """Kill them, by pid, each only if it is still the same process."""
    for process in processes:
        if _process(process.pid) == process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


class Leftovers:
    """Knows which test or fixture started what. Processes are looked for only after a test that started some."""

    def __init__(self, folder: Path, marker: str, guard: PortGuard) -> None:
        """
        Know nothing yet.

        :param folder: where the tests are.
        :param marker: the variable's value in the environment of everything they start.
        """
        self._folder = str(folder)
        self._marker = marker
        self._guard = guard
        self._has_started = False
        self._kept: dict[object, set[Process]] = {}
        """Processes of fixtures that serve more than one test, by fixture."""
        self._threads: dict[threading.Thread, tuple[object, str]] = {}
        """Each thread that a test started, with its owner and the line that started it."""
        self._owner: object = None
        """The fixture of a wider scope that is being set up; None for the test itself."""

    def install(self) -> None:
        """Begin to watch, for the rest of this process."""
        sys.addaudithook(self._audit)
        start = threading.Thread.start

        def watched(thread: threading.Thread) -> None:
            line = self._line()
            if line is not None and thread.name != WHOLE_SESSION:
                self._threads[thread] = (self._owner, line)
            start(thread)

        setattr(threading.Thread, "start", watched)  # noqa: B010 - threading offers no hook for it

    def _audit(self, event: str, _: tuple[Any, ...]) -> None:
        if event in {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}:
            self._has_started = True

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Remember what a fixture of a wider scope than a test starts."""
        if fixturedef.scope == "function":
            return (yield)
        outer, self._owner = self._owner, fixturedef
        started_before, self._has_started = self._has_started, False
        before = running(self._marker) if started_before else set()
        try:
            return (yield)
        finally:
            self._owner = outer
            if self._has_started:
                self._kept[fixturedef] = running(self._marker) - before
            self._has_started |= started_before

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Expect nothing more of it."""
        if self._kept.pop(fixturedef, None):
            self._has_started = True
        for thread, (owner, line) in self._threads.items():
            if owner is fixturedef:
                self._threads[thread] = (None, line)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        """Look what is left when a test and its fixtures have ended."""
        try:
            yield
        except BaseException as error:
            for fault in self._faults():
                error.add_note(f"{item.nodeid} {fault}")
            raise
        if faults := self._faults():
            pytest.fail("\n".join(f"{item.nodeid} {fault}" for fault in faults), pytrace=False)

    def _faults(self) -> list[str]:
        faults = [f"uses a default port:\n{attempt}" for attempt in self._guard.take()]
        give_up_s = time.monotonic() + GRACE_S
        if self._has_started:
            self._has_started = False
            while (left := self._left()) and time.monotonic() < give_up_s:
                time.sleep(_POLL_S)
            if left:
                faults.append("leaves processes behind:\n" + "\n".join(sorted(map(str, left))))
                end(left)
        for thread, (owner, line) in list(self._threads.items()):
            if owner is not None:
                continue
            thread.join(max(0.0, give_up_s - time.monotonic()))
            del self._threads[thread]
            if thread.is_alive():
                faults.append(f"leaves the thread {thread.name} behind, which was started at {line}")
        return faults

    def _left(self) -> set[Process]:
        kept = {process.pid for processes in self._kept.values() for process in processes}
        found = running(self._marker)
        parents = {process.pid: process.parent for process in found}

        def is_kept(pid: int) -> bool:
            # What a kept process starts later belongs to it.
            return pid in kept or (pid in parents and is_kept(parents[pid]))

        return {process for process in found if not is_kept(process.pid)}

    def _line(self) -> str | None:
        """Return the line of the tests that starts a thread now; None if a library starts it."""
        frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - inspect is slower
        while frame is not None and frame.f_code.co_filename.endswith(_LIBRARY):
            frame = frame.f_back
        if frame is None or not frame.f_code.co_filename.startswith(self._folder):
            return None
        return f"{frame.f_code.co_filename}:{frame.f_lineno}"
