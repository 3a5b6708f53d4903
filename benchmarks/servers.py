"""What the benchmark starts, and ends again: each thing in a process of its own, on a free port of this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import attrs

import processes
from jobs import Job

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent
START_S = 120.0
STOP_S = 5.0


class ServerError(Exception):
    """Something did not start, or has ended; the message says what, and shows the end of its log."""


def environment(checkout: Path | None) -> dict[str, str]:
    """This process's environment without any setting of what is started, and with one checkout's modules if any."""
    strange = ("PROXY_", "BRUNIX_", "LITELLM_", "GRPC_", "PYTHON")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(strange)}
    return kept if checkout is None else {**kept, "PYTHONPATH": str(checkout)}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


class Process:
    """One process that is ended with everything that comes from it."""

    def __init__(self, command: list[str], env: Mapping[str, str], log: Path, *, piped: bool = False) -> None:
        """Start it, in a session of its own so that Ctrl-C reaches it only through :meth:`stop`."""
        self.log = log
        self.command = command
        pipe = subprocess.PIPE if piped else subprocess.DEVNULL
        with log.open("ab") as to:
            self._process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=log.parent,
                stdin=pipe,
                stdout=subprocess.PIPE if piped else to,
                stderr=to,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def input(self) -> IO[bytes]:
        """What it reads."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def output(self) -> IO[bytes]:
        """What it prints."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def pids(self) -> list[int]:
        """Its number, and those of what comes from it."""
        return processes.tree(self.pid)

    def check(self) -> None:
        """
        See that it is running.

        :raises ServerError: it has ended.
        """
        if self._process.poll() is not None:
            raise self.failure(f"ended with status {self._process.returncode}")

    def failure(self, what: str) -> ServerError:
        """Say what went wrong with it."""
        log = self.log.read_text("utf-8", "replace")[-2000:]
        return ServerError(f"{' '.join(self.command)}\n{what}; its log ends:\n{log}")

    def stop(self) -> None:
        """End it: with SIGTERM, and after some seconds, with all that come from it, with SIGKILL."""
        pids = processes.tree(self.pid) if self._process.poll() is None else []
        with suppress(ProcessLookupError):
            self._process.terminate()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()


@attrs.frozen
class Begun:
    """A server that answers."""

    process: Process
    port: int
    start_s: float
    """From the process's start to its first answer."""


def first_answer(port: int, process: Process, began_s: float) -> float:
    """
    Ask until there is an answer; returns the seconds since the process was started.

    :raises ServerError: there was none in time.
    """
    request = Job(kind="open", form="whole", port=port, connections=1, tokens=1).request
    request = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    while time.monotonic() < began_s + START_S:
        process.check()
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.settimeout(10)
                connection.sendall(request)
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return time.monotonic() - began_s
        except OSError:
            pass
        time.sleep(0.005)
    raise process.failure(f"no answer in {START_S:g} s")


class Client:
    """A process that does jobs: the load client, or the bare gRPC client."""

    def __init__(self, script: str, folder: Path) -> None:
        """Start it."""
        self.process = Process(
            [sys.executable, str(HERE / script)], environment(ROOT), folder / f"{script}.log", piped=True
        )

    def do(self, job: Job, marked: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """
        Have a job done; returns its result.

        :param marked: called with each mark, as it comes.
        """
        self.tell(json.dumps(attrs.asdict(job)))
        for line in self.process.output:
            said: dict[str, Any] = json.loads(line)
            if "result" in said:
                result: dict[str, Any] = said["result"]
                return result
            marked(said)
        raise self.process.failure("ended in the middle of a job")

    def tell(self, line: str) -> None:
        """Write it a line."""
        self.process.input.write(line.encode() + b"\n")
        self.process.input.flush()


class Fleet:
    """Everything that is running; leaving it ends all of it, whatever happened."""

    def __init__(self, folder: Path) -> None:
        """Start with nothing."""
        self.folder = folder
        self._running: list[Process] = []

    def __enter__(self) -> Self:
        """Take SIGTERM as Ctrl-C is taken."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything, the youngest first."""
        for process in reversed(self._running[:]):
            self.end(process)

    def end(self, process: Process) -> None:
        """End one."""
        process.stop()
        self._running.remove(process)

    def client(self, script: str) -> Client:
        """Start a client."""
        client = Client(script, self.folder)
        self._running.append(client.process)
        return client

    def stub(self, script: str) -> tuple[Process, int]:
        """Start a stub that prints its port and ends with its standard input."""
        process = Process(
            [sys.executable, str(HERE / script)], environment(ROOT), self.folder / f"{script}.log", piped=True
        )
        self._running.append(process)
        line = process.output.readline()
        if not line:
            process.check()
            raise process.failure("said nothing")
        return process, int(line)

    def server(self, command: Callable[[int], list[str]], env: Mapping[str, str], name: str) -> Begun:
        """
        Start a server on a free port and wait for its first answer.

        :param command: from the port to the command line.
        """
        port = free_port()
        began_s = time.monotonic()
        process = Process(command(port), env, self.folder / f"{name}.log")
        self._running.append(process)
        return Begun(process, port, first_answer(port, process, began_s))
