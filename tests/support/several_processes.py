"""A gateway of several processes, started as an operator does."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import attrs

from fake_reactor import LIMIT_S
from isolation import CLEAN
from scripted_engine import ScriptedEngine, script
from twistd import TWISTD

LISTEN = "tcp:0:interface=127.0.0.1"


class Supervised:
    """A supervisor, its processes, and what they log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self.pids: dict[int, int] = {}
        """By the processes' own numbers, as far as the log has been read."""
        self.port = 0

    def until(self, wanted: str) -> re.Match[str]:
        """Read the log up to the line in which this is found."""
        assert self.process.stdout is not None
        # The log would not end by itself.
        limit = threading.Timer(LIMIT_S, self.process.kill)
        limit.start()
        try:
            for line in self.process.stdout:
                self.log.append(line)
                if serves := re.search(r"Process (\d+) serves \(pid (\d+)\)", line):
                    self.pids[int(serves[1])] = int(serves[2])
                if found := re.search(wanted, line):
                    return found
        finally:
            limit.cancel()
        raise AssertionError(f"the log has ended without {wanted!r}:\n{''.join(self.log)}")

    def rest(self) -> str:
        """Read the log to its end."""
        assert self.process.stdout is not None
        self.log += self.process.stdout
        return "".join(self.log)

    def lines(self, wanted: str) -> list[str]:
        """List what has been read and has this in it."""
        return [line for line in self.log if wanted in line]

    def connect(self, number: int) -> HTTPConnection:
        """Connect to the process of this number."""
        others = []
        while True:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
            if health(connection)["processes"]["number"] == number:
                break
            # Held open for the time being: whoever has fewer gets the next.
            others.append(connection)
        for other in others:
            other.close()
        return connection

    def stop(self) -> int:
        """Ask all of it to end, and wait until it has."""
        self.process.terminate()
        return self.process.wait(LIMIT_S)


@contextmanager
def supervised(folder: Path, *arguments: str, reactor: str = "default", **environment: str) -> Iterator[Supervised]:
    """Start twistd in a folder of its own, with a process group of its own, and leave nothing of it behind."""
    process = subprocess.Popen(  # noqa: S603 - this environment's own twistd
        [TWISTD, f"--reactor={reactor}", "--nodaemon", "--pidfile=", "brunix", *arguments],
        cwd=folder,
        env=CLEAN | {"PROXY_PROCESSES": "2", "PROXY_LISTEN": LISTEN} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with ended(process):
        yield Supervised(process)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End a process and its group afterwards."""
    try:
        yield
    finally:
        # The number of the group is taken as long as its leader has not been waited for.
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


# twistd, with a supervisor that does not wait for long.
HURRIED = """
import sys
from brunix_twisted.processes.supervisor import Supervisor
from twisted.scripts.twistd import run

Supervisor.start_timeout_s = float(sys.argv[1])
sys.argv[1:] = ["--nodaemon", "--pidfile=", "brunix"]
run()
"""


@contextmanager
def hurried(folder: Path, start_timeout_s: float, **environment: str) -> Iterator[Supervised]:
    """Start twistd with two processes, which have to serve within so many seconds, and leave nothing of it behind."""
    process = subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", HURRIED, str(start_timeout_s)],
        cwd=folder,
        env=CLEAN | {"PROXY_PROCESSES": "2", "PROXY_LISTEN": LISTEN} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with ended(process):
        yield Supervised(process)


@contextmanager
def serving(folder: Path, engine: ScriptedEngine, *arguments: str, **environment: str) -> Iterator[Supervised]:
    """Start twistd on a port of TCP, and wait until it serves."""
    with supervised(folder, *arguments, BRUNIX_GRPC_TARGET=engine.target, **environment) as gateway:
        gateway.port = int(gateway.until(r"Serving the model .* port=(\d+)")[1])
        yield gateway


def health(connection: HTTPConnection) -> Any:  # noqa: ANN401 - whatever JSON holds
    connection.request("GET", "/health")
    return json.loads(connection.getresponse().read())


@attrs.define
class Stream:
    """A streamed answer that waits in its middle."""

    connection: HTTPConnection
    read: Callable[[], bytes]

    def end(self) -> list[Any]:
        """Read to the end, well or not."""
        lines = []
        with suppress(HTTPException, OSError):
            lines += [json.loads(line) for line in iter(self.read, b"")]
        self.connection.close()
        return lines


def stream(connection: HTTPConnection, name: str) -> Stream:
    """Begin an answer that goes on once the engine has heard this name."""
    prompt = script("one ", {"wait": name}, "two ")
    connection.request("POST", "/api/generate", json.dumps({"model": "brunix", "prompt": prompt}))
    response = connection.getresponse()
    assert json.loads(response.readline())["response"] == "one "
    return Stream(connection, response.readline)


def is_whole(lines: list[Any]) -> bool:
    """Say whether the rest of such an answer is all there."""
    return [line["response"] for line in lines] == ["two ", ""] and lines[-1]["done"] is True


@contextmanager
def watched(*pids: int) -> Iterator[Callable[[], None]]:
    """Hold on to processes that are nobody's children here; what is given returns once they are gone."""
    descriptors = [os.pidfd_open(pid) for pid in pids]

    def gone() -> None:
        for descriptor in descriptors:
            assert select.select([descriptor], [], [], LIMIT_S)[0], "a process is still there"

    try:
        yield gone
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
