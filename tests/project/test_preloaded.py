"""A program that is preloaded runs as one that is executed: see tests/support/preloaded.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import preloaded
from cli_commands import brunix
from fake_reactor import LIMIT_S
from isolation import CLEAN
from leftovers import MARKER, new_marker, running
from twistd import twistd

pytestmark = pytest.mark.skipif(not preloaded.is_on(), reason="coverage is measured, or PYTEST_EXECUTE is set")

# Prints all that a program can see of its start.
PROBE = """#!{python}
import gc, json, os, signal, sys, threading

def stream(one):
    return [one.name, one.mode, one.encoding, one.errors, one.line_buffering, one.write_through, one.newlines,
            type(one.buffer).__name__, one.isatty(), one is getattr(sys, "__" + one.name.strip("<>") + "__")]

assert {{"grpc", "twisted.internet.reactor"}}.isdisjoint(sys.modules)
print(json.dumps({{
    "argv": sys.argv,
    "path": sys.path,
    "name": __name__,
    "file": __file__,
    "flags": sys.flags,
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "umask": os.umask(0o077),
    "parent": os.getppid(),
    "leads_session": os.getsid(0) == os.getpid(),
    "leads_group": os.getpgrp() == os.getpid(),
    "descriptors": [fd for fd in range(256) if os.path.exists(f"/proc/self/fd/{{fd}}")],
    "inheritable": [os.get_inheritable(fd) for fd in range(3)],
    "streams": [stream(one) for one in (sys.stdin, sys.stdout, sys.stderr)],
    "input": sys.stdin.read(),
    "signals": {{n: str(signal.getsignal(n)).partition(" at ")[0] for n in sorted(signal.valid_signals())}},
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "threads": threading.active_count(),
    "main": threading.main_thread().ident == threading.get_ident(),
    "collects": gc.isenabled(),
    "environ_reaches_children": os.popen("echo $PROBED").read(),
}}))
"""


def seen(probe: Path, **how: Any) -> dict[str, Any]:  # noqa: ANN401 - those of subprocess
    """Run the probe, and return what it sees."""
    done = subprocess.run(  # noqa: S603 - written by the test
        [probe, "--nodaemon", "a b"], capture_output=True, check=False, timeout=LIMIT_S, **how
    )
    assert done.stderr == b""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    path = tmp_path / "probe"
    path.write_text(PROBE.format(python=sys.executable))
    path.chmod(0o755)
    return path


def test_a_program_sees_no_difference(probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments, environment, folder, descriptors, streams and signals are those of an executed program."""
    brunix("--version")  # starts the server, so that it cannot inherit what follows
    reader, writer = os.pipe()
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    less = {name: text for name, text in CLEAN.items() if name != "HOME"}
    try:
        ways: list[dict[str, Any]] = [
            {
                "cwd": tmp_path,
                "env": CLEAN | {"PROBED": "yes", "BYTES": "\udcff"},
                "input": b"words",
                "start_new_session": True,
            },
            {"cwd": tmp_path, "env": less, "stdin": subprocess.DEVNULL, "pass_fds": (writer,)},
        ]
        executed = [seen(probe, **how) for how in ways]
        monkeypatch.setattr(preloaded, "TWISTD", probe)
        assert [seen(probe, **how) for how in ways] == executed
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGHUP, usual)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit('why')", 1, "why\n"),
        ("raise ValueError('fault')", 1, "ValueError: fault\n"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt\n"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        ("os._exit(7)", 7, ""),
        ("atexit.register(print, 'end', file=sys.stderr)", 0, "end\n"),
        ("threading.Timer(0, print, ['end'], {'file': sys.stderr}).start()", 0, "end\n"),
    ],
)
def test_a_program_ends_as_an_executed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, status: int, error: str
) -> None:
    """Popen returns its exit status, or the signal that ended it."""
    program = tmp_path / "program"
    program.write_text(f"import atexit, os, signal, sys, threading\nprint('text')\nsys.stdout.flush()\n{end}\n")
    monkeypatch.setattr(preloaded, "TWISTD", program)
    done = subprocess.run(  # noqa: S603 - written by the test
        [program, "--nodaemon"], env=CLEAN, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert (done.returncode, done.stdout) == (status, "text\n")
    assert done.stderr.endswith(error)


def test_what_is_preloaded(tmp_path: Path) -> None:
    """A gateway in the foreground comes from the server; one with a variable that Python reads early does not."""

    def command_line(**environment: str) -> bytes:
        with twistd(tmp_path, **environment) as process:
            return Path(f"/proc/{process.pid}/cmdline").read_bytes()

    assert b"preloaded_server.py" in command_line()
    assert b"preloaded_server.py" not in command_line(PYTHONOPTIMIZE="1")
    assert brunix("--version").stdout.startswith("brunix")


def test_the_server_is_not_left_behind_by_a_test() -> None:
    """A test that looks for the processes it has started does not find the server, and so does not end it."""
    brunix("--version")
    assert not [process for process in running(new_marker()[MARKER]) if "preloaded_server.py" in str(process)]


def test_a_server_that_is_killed_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is killed fails one start, and not all that follow."""
    pids: list[int] = []
    # The start of the usual one is put back afterwards.
    monkeypatch.setattr(subprocess, "_fork_exec", getattr(subprocess, "_fork_exec"))  # noqa: B009 - has no type
    another = preloaded.Preloaded(pids.append)
    another.install()
    try:
        assert brunix("--version").returncode == 0
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(ChildProcessError):
            brunix("--version")
        assert brunix("--version").returncode == 0
    finally:
        another.close()
    assert len(pids) == 2
