"""A gateway whose log is not read, of whatever kind the log is."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import syslog
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs
import pytest
from twisted.logger import Logger

from brunix_twisted.observability import logs
from fake_reactor import LIMIT_S
from isolation import CLEAN
from scripted_engine import ScriptedEngine
from several_processes import health, serving
from twistd import TWISTD

LONG: Final = "/v1/" + "x" * 12_000
"""A path that makes a long line in the log."""
FULL: Final = 150
"""So many requests for it make more lines than the gateway keeps, which is 1 MiB, and than any pipe holds."""


@attrs.frozen
class Unread:
    """A gateway that runs, and the end of its log that nobody reads yet."""

    process: subprocess.Popen[bytes]
    log: BinaryIO
    port: int

    def ask(self, times: int) -> None:
        """Have requests answered, each of which makes a line in the log."""
        for _ in range(times):
            assert get(self.port, LONG) == 404


def get(port: int, path: str) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def pipe(stack: ExitStack, _: Path) -> tuple[BinaryIO, int, list[str]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    stack.callback(os.close, writing)
    return stack.enter_context(open(reading, "rb")), writing, []  # noqa: PTH123 - a descriptor, no path


def journal(stack: ExitStack, _: Path) -> tuple[BinaryIO, int, list[str]]:
    """What systemd's journal gives a service for its standard output."""
    here, there = (stack.enter_context(end) for end in socket.socketpair())
    return stack.enter_context(here.makefile("rb")), there.fileno(), []


def named_pipe(stack: ExitStack, folder: Path) -> tuple[BinaryIO, int, list[str]]:
    path = folder / "log"
    os.mkfifo(path)
    # Open for both, so that neither side waits for the other.
    log = stack.enter_context(path.open("r+b", buffering=0))
    return log, subprocess.DEVNULL, [f"--logfile={path}"]


Log = Callable[[ExitStack, Path], tuple[BinaryIO, int, list[str]]]


@contextmanager
def unread(folder: Path, log: Log, **environment: str) -> Iterator[Unread]:
    """Run twistd and read its log until it serves, and no further."""
    with ExitStack() as stack:
        reading, writing, options = log(stack, folder)
        process = subprocess.Popen(  # noqa: S603 - this environment's own twistd
            [TWISTD, "--nodaemon", "--pidfile=", *options, "brunix"],
            cwd=folder,
            env=CLEAN | {"PROXY_LISTEN": "tcp:0:interface=127.0.0.1"} | environment,
            stdout=writing,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            line = b""
            while not (found := re.search(rb"Serving the model .* port=(\d+)", line)):
                line = reading.readline()
                assert line, "the gateway ended without listening"
            yield Unread(process, reading, int(found[1]))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


every_log = pytest.mark.parametrize("log", [pipe, journal, named_pipe])


@every_log
def test_it_answers_and_stops(tmp_path: Path, log: Log) -> None:
    """A gateway whose log is not read goes on answering, and SIGTERM still stops it."""
    with unread(tmp_path, log) as gateway:
        gateway.ask(FULL)
        assert get(gateway.port, "/health/live") == 200
        gateway.process.terminate()
        assert gateway.process.wait(LIMIT_S) == -signal.SIGTERM


@every_log
def test_lost_lines_are_counted(tmp_path: Path, log: Log) -> None:
    """When the log is read again, it tells how many lines are missing, and all others are there."""
    with unread(tmp_path, log, PROXY_LOG_FORMAT="json") as gateway:
        gateway.ask(FULL)
        requests = 0
        while "dropped" not in (line := json.loads(gateway.log.readline())):
            requests += line.get("path") == LONG
        assert line["message"] == f"{line['dropped']} log lines dropped: they were not read in time"
        assert requests + line["dropped"] == FULL
        # It goes on as before.
        gateway.ask(1)
        assert json.loads(gateway.log.readline())["path"] == LONG


def test_several_processes(tmp_path: Path) -> None:
    """None of several processes stops when the supervisor's log is not read."""
    with unread(tmp_path, pipe, PROXY_PROCESSES="2") as gateway:
        gateway.ask(2 * FULL)
        assert get(gateway.port, "/health/live") == 200
        gateway.process.terminate()
        assert gateway.process.wait(LIMIT_S) == -signal.SIGTERM


def test_a_supervisor_that_is_stopped(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Processes go on answering while their supervisor is stopped, and tell afterwards what was not logged."""
    with serving(tmp_path, engine) as gateway:
        os.kill(gateway.process.pid, signal.SIGSTOP)
        for _ in range(2 * FULL):
            assert get(gateway.port, LONG) == 404
        connection = HTTPConnection("127.0.0.1", gateway.port, timeout=LIMIT_S)
        assert health(connection)["status"] == "ok"
        connection.close()
        os.kill(gateway.process.pid, signal.SIGCONT)
        gateway.until(r"process=\d\] \d+ log lines dropped")
        assert gateway.stop() == -signal.SIGTERM


def test_a_start_that_fails_is_told(tmp_path: Path) -> None:
    """Why a gateway cannot start is the last line of its log, though it ends at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        done = subprocess.run(  # noqa: S603 - this environment's own twistd
            [TWISTD, "--nodaemon", "--pidfile=", "brunix", f"--listen={listen}"],
            cwd=tmp_path,
            env=CLEAN,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert b"Address already in use" in done.stdout.splitlines()[-1]


def test_syslog(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system log that is stuck does not stop the gateway: each line is sent by a thread, with its priority."""
    sent: list[tuple[int, str]] = []
    stuck, done = threading.Event(), threading.Event()

    def send(priority: int, text: str) -> None:
        assert stuck.wait(LIMIT_S)
        sent.append((priority, text))
        if text.endswith("two"):
            done.set()

    monkeypatch.setattr(syslog, "syslog", send)
    monkeypatch.setattr(logs, "reactor_runs", lambda: True)
    observer: Any = logs.twistd_observer({"nodaemon": True, "syslog": True, "prefix": "gateway"}, "text")
    log = Logger("here", observer=observer)
    log.error("one\nmore")
    log.info("two")
    assert sent == []
    stuck.set()
    assert done.wait(LIMIT_S)
    assert sent == [
        (syslog.LOG_ERR, "[here#error] one"),
        (syslog.LOG_ERR, "\tmore"),
        (syslog.LOG_INFO, "[here#info] two"),
    ]
