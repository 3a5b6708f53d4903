"""What systemd does for a gateway: it hands over a socket that listens, and reads what the gateway tells of itself."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from fake_reactor import LIMIT_S
from isolation import CLEAN
from threads import Threads
from twistd import TWISTD

# $$ stays the same over exec: so LISTEN_PID is the gateway's own, as it has to be.
ADOPT = 'exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=gateway exec "$0" "$@"'


class Told:
    """A datagram socket for NOTIFY_SOCKET, and what came over it."""

    def __init__(self, path: str) -> None:
        """Listen; an ``@`` in front makes it a name in the abstract namespace."""
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{path[1:]}" if path.startswith("@") else path)
        self._socket.settimeout(LIMIT_S)

    def next(self) -> dict[str, str]:
        """Wait for a message, and take it apart."""
        return dict(line.split("=", 1) for line in self._socket.recv(65536).decode().split("\n"))

    def until(self, name: str) -> dict[str, str]:
        """Wait for a message with this in it."""
        while name not in (message := self.next()):
            pass
        return message

    def rest(self) -> list[bytes]:
        """Take what is there already."""
        found = []
        self._socket.settimeout(0)
        try:
            while True:
                found.append(self._socket.recv(65536))
        except BlockingIOError:
            return found
        finally:
            self._socket.settimeout(LIMIT_S)

    def expect_nothing(self, seconds: float) -> None:
        """Hold that nothing comes."""
        self._socket.settimeout(seconds)
        try:
            message = self._socket.recv(65536)
        except TimeoutError:
            message = None
        assert message is None
        self._socket.settimeout(LIMIT_S)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def supervised(
    folder: Path, told: Told, server: socket.socket | None = None, domain: str = "INET", **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run twistd as a service, with a socket that listens already or one of its own, and end it."""
    command = [str(TWISTD), "--nodaemon", "--pidfile=", "brunix"]
    listen = "tcp:0:interface=127.0.0.1"
    if server is not None:
        command, listen = ["sh", "-c", ADOPT, *command], f"systemd:domain={domain}:index=0"
    process = subprocess.Popen(  # noqa: S603 - this environment's own twistd
        command,
        cwd=folder,
        env=CLEAN | {"NOTIFY_SOCKET": told.path, "PROXY_LISTEN": listen} | environment,
        stdin=subprocess.DEVNULL if server is None else server.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Load:
    """Clients that ask one question after the other, each over a connection of its own, and count what comes of it."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.port = port
        self.outcomes: Counter[str] = Counter()
        self._change = threading.Condition()
        self._ends = threading.Event()
        self._clients = clients
        self._threads = Threads()

    def __enter__(self) -> Load:  # noqa: PYI034 - there is no other
        """Begin to ask."""
        for _ in range(self._clients):
            self._threads.start(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        """End, and wait for whoever still waits."""
        self.end()

    def end(self) -> None:
        """Ask nothing more, and return once everything asked has its end."""
        self._ends.set()
        self._threads.join()

    def until_more(self, number: int) -> None:
        """Return once so many more questions have ended."""
        with self._change:
            wanted = self.outcomes.total() + number
            assert self._change.wait_for(lambda: self.outcomes.total() >= wanted, LIMIT_S), self.outcomes

    def _run(self) -> None:
        while not self._ends.is_set():
            outcome = ask(self.port)
            with self._change:
                self.outcomes[outcome] += 1
                self._change.notify_all()


def ask(port: int, words: str = "one two") -> str:
    """Ask a question, and say in a word or two what came of it."""
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    body = json.dumps({"model": "brunix", "prompt": words, "stream": False})
    try:
        connection.request("POST", "/api/generate", body, {"Connection": "close"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, HTTPException, ValueError) as fault:
        return type(fault).__name__
    finally:
        connection.close()
    if response.status != 200:
        return f"{response.status} {answer}"
    return "answered" if answer["response"].split() == words.split() else "wrong answer"


def port_of(process: subprocess.Popen[str], status: str) -> int:
    """Read the port from what a gateway said of itself."""
    assert process.poll() is None
    found = re.search(r"Serving on 127\.0\.0\.1:(\d+);", status)
    assert found, status
    return int(found[1])
