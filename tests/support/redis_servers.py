"""Private Redis servers, for tests of what is shared between gateways."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from fake_reactor import LIMIT_S
from isolation import CLEAN
from twistd import free_port

PROGRAMS: Final = ("redis-server", "valkey-server")


class RedisServer:
    """A server on a free port of the loopback interface, without persistence unless its configuration says so."""

    def __init__(self, folder: Path, *lines: str, sentinel: bool = False) -> None:
        """
        Start it.

        :param lines: of its configuration, with ``{port}`` for its port.
        """
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            pytest.skip("redis-server is missing: apt-get install redis-server")
        self.port = free_port()
        folder.mkdir(exist_ok=True)
        usual = ["port {port}", "bind 127.0.0.1", f"dir {folder}", *([] if sentinel else ['save ""'])]
        configuration = folder / "redis.conf"
        configuration.write_text("\n".join([*usual, *lines]).replace("{port}", str(self.port)))
        self._command = [program, str(configuration), *(["--sentinel"] if sentinel else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, *, login: str = "", query: str = "") -> str:
        """Return the URL for PROXY_STATE; the login is ``user:password``, or ``:password``."""
        return f"redis://{f'{login}@' if login else ''}127.0.0.1:{self.port}/0{query}"

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        self._process = process = subprocess.Popen(  # noqa: S603 - the program that was found
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=CLEAN
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.decode())
            if b"Ready to accept connections" in line or b"+monitor master" in line:
                return
        raise AssertionError("".join(lines))

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        if (process := self._process) is not None:
            self._process = None
            process.kill()
            process.communicate(timeout=LIMIT_S)

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it accept connections and not answer, as on a machine that swaps or a network that drops packets."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def command(self, *words: str, login: str = "") -> str:
        """Run a command; return its reply as it is on the wire, or an error."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S) as connection:
            reply = b""
            for line in ([("AUTH", login)] if login else []) + [words]:
                connection.sendall(
                    b"*%d\r\n" % len(line) + b"".join(b"$%d\r\n%b\r\n" % (len(w.encode()), w.encode()) for w in line)
                )
                reply = connection.recv(65536)
            return reply.decode(errors="replace")


@contextmanager
def redis_server(folder: Path, *lines: str, sentinel: bool = False) -> Iterator[RedisServer]:
    """Run a server; skip the test if the program is missing."""
    server = RedisServer(folder, *lines, sentinel=sentinel)
    try:
        yield server
    finally:
        server.kill()
