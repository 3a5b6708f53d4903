"""
Stand-ins for the engine and the gateway, and runs of `brunix run` with them.

Every process that a run starts holds the write end of one pipe. The stand-ins write a line to it for each thing that
happens to them; its end of file means that nothing of the run is left.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from isolation import BARE
from paths import ROOT

LIMIT_S = 60
"""Only for what would otherwise hang a failing run."""

SCRIPT = ROOT / "entrypoint.sh"

STAND_IN = """
import os, signal, sys

name, pipe, manner = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def tell(what):
    os.write(pipe, f"{name} {what}\\n".encode())


if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own way would wait for sigwait() to return
numbers = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
tell(f"up {os.getpid()} {os.getpgrp()}")
while True:
    number = signal.sigwait(numbers)
    if number == signal.SIGUSR1:
        os._exit(int(manner))
    if number == signal.SIGUSR2:
        tell("leaves")
        os._exit(0)
    tell("asked")
    if manner == "leaves":
        os._exit(0)
    if manner == "raises":  # the way of twistd
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        os.kill(os.getpid(), signal.SIGTERM)
    if manner == "fails":
        os._exit(3)
    if manner.isdecimal():
        os._exit(0)
    # "stays" until SIGUSR2, or for ever
"""

HEALTHY_GATEWAY = """
import http.server, os, socketserver, sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status":"ok"}')

    def log_message(self, *words):
        pass


socketserver.UnixStreamServer(sys.argv[1], Handler).serve_forever()
"""


class Run:
    """One run and everything that it has started."""

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        cwd: str,
        pipe: tuple[int, int],
        popen: Mapping[str, Any],
    ) -> None:
        self._read_fd, write_fd = pipe
        self._waiting = b""
        self.pids: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        # Tests that run under nohup ignore it, and everything that they start would inherit that.
        usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            options: dict[str, Any] = {
                "bufsize": 0,  # after a line has been read, communicate() still reads the rest
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
            }
            self.process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - the script under test
                command, env=environment, cwd=cwd, pass_fds=[write_fd], start_new_session=True, **options | dict(popen)
            )
        finally:
            signal.signal(signal.SIGHUP, usual)
            os.close(write_fd)

    def _line(self) -> str:
        while b"\n" not in self._waiting:
            if not select.select([self._read_fd], [], [], LIMIT_S)[0]:
                pytest.fail("nothing happened for too long")
            more = os.read(self._read_fd, 4096)
            if not more:
                return ""
            self._waiting += more
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line.decode()

    def event(self) -> str:
        """What happens next, empty once everything is gone."""
        line = self._line()
        if " up " in line:
            name, _, pid, group = line.split()
            self.pids[name], self.groups[name] = int(pid), int(group)
            return f"{name} up"
        return line

    def expect(self, *events: str) -> None:
        """Let these happen, in any order, and nothing else."""
        assert sorted(self.event() for _ in events) == sorted(events)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the script; SIGINT as a terminal does, to all of the script's process group."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def told(self) -> str:
        """The next line on stderr, empty at its end."""
        return self._text(self.process.stderr)

    def shown(self) -> str:
        """The next line on stdout, empty at its end."""
        return self._text(self.process.stdout)

    @staticmethod
    def _text(stream: IO[bytes] | None) -> str:
        assert stream is not None
        if not select.select([stream], [], [], LIMIT_S)[0]:
            pytest.fail("nothing was said for too long")
        return stream.readline().decode()

    def end(self) -> tuple[int, str, list[str]]:
        """Wait until everything is gone. The status, what stderr had still to say, and the remaining events."""
        events = list(iter(self.event, ""))
        _, stderr = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, (stderr or b"").decode(errors="surrogateescape"), events

    def clean_up(self) -> None:
        """Leave nothing behind, whatever failed."""
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        # While a process holds the pipe, the groups exist; after that, their ids may be given to others.
        while select.select([self._read_fd], [], [], 0.5)[0]:
            if not os.read(self._read_fd, 4096):
                break
        else:
            for group in self.groups.values():
                try:
                    os.killpg(group, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        os.close(self._read_fd)
        self.process.wait(LIMIT_S)


class Workshop:
    """Where runs are put together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[Run] = []
        self.stand_in = folder / "stand_in.py"
        self.stand_in.write_text(STAND_IN)
        self.script = SCRIPT

    def run(  # noqa: PLR0913, PLR0917 - as few as there are differences
        self,
        shell: Sequence[str] = ("sh",),
        engine: str = "leaves",
        gateway: str = "leaves",
        command: Sequence[str] = (),
        cwd: str = "",
        popen: Mapping[str, Any] | None = None,
        **environment: str,
    ) -> Run:
        """
        Start `brunix run`, through the script.

        :param engine: the stand-in's manner, or a whole command in which ``{leaves}`` is a stand-in of that manner.
        :param gateway: the same.
        :param command: how to start it, if not as ``shell`` with the script.
        :param popen: options of the process that differ.
        :param environment: further variables, in which ``{leaves}`` is a stand-in with the variable's name.
        """
        pipe = os.pipe()

        def whole(name: str, text: str) -> str:
            stand_in = shlex.join([sys.executable, "-I", "-S", str(self.stand_in), name, str(pipe[1])])
            if text.isalnum():
                return f"{stand_in} {text}"
            return re.sub(r"{(\w*)}", lambda match: f"{stand_in} {match[1]}", text).replace("PIPE", str(pipe[1]))

        run = Run(
            command or [*shell, str(self.script)],
            BARE
            | {
                # The interpreter of the tests, which has the package, and no checkout.
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "VIRTUAL_ENV": sys.prefix,
                "BRUNIX_ENGINE_COMMAND": whole("engine", engine),
                "BRUNIX_GATEWAY_COMMAND": whole("gateway", gateway),
                # On a busy machine, none is killed for being slow.
                "BRUNIX_DRAIN_GRACE_S": "9999",
                "BRUNIX_KILL_GRACE_S": "9999",
                "PROXY_LISTEN": f"unix:{self.folder}/gateway.sock",
            }
            | {name: whole(name.lower(), text) if "{" in text else text for name, text in environment.items()},
            cwd or str(self.folder),
            pipe,
            popen or {},
        )
        self.runs.append(run)
        return run

    def up(self, *arguments: Any, **options: Any) -> Run:  # noqa: ANN401 - those of run()
        """Start the script, with both stand-ins up."""
        run = self.run(*arguments, **options)
        run.expect("engine up", "gateway up")
        return run


@contextmanager
def workshop_in(folder: Path) -> Iterator[Workshop]:
    """Put runs together in a folder, and end them."""
    workshop = Workshop(folder)
    try:
        yield workshop
    finally:
        for run in workshop.runs:
            run.clean_up()
