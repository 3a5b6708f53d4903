"""The command line as a process of its own, and what stands between it and a gateway."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import attrs

from fake_reactor import LIMIT_S
from isolation import CLEAN, NOBODY, unmeasured
from threads import Threads

COMMAND: Final = (sys.executable, "-m", "brunix_twisted")


def brunix(
    *arguments: str, stdin: str | bytes | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; without any, the standard input is empty."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [*COMMAND, *arguments],
        env=CLEAN | dict(environment or {}),
        input=stdin.encode() if isinstance(stdin, str) else stdin or b"",
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@attrs.frozen
class Told:
    """What the doctor said, read from its JSON."""

    status: int
    findings: list[dict[str, Any]]
    questions: int

    def one(self, check: str, word: str = "") -> dict[str, Any]:
        """Find the one finding of a check that has this word in it."""
        found = [each for each in self.findings if each["check"] == check and word in each["says"]]
        assert len(found) == 1, f"{check}: {self.findings}"
        return found[0]

    @property
    def levels(self) -> dict[str, str]:
        """The worst level of each check."""
        order = ["ok", "note", "warning", "problem"]
        worst: dict[str, str] = {}
        for each in self.findings:
            worst[each["check"]] = max(worst.get(each["check"], "ok"), each["level"], key=order.index)
        return worst


def doctor(*arguments: str, environment: Mapping[str, str] | None = None) -> Told:
    """Run the doctor, and read what it found."""
    done = brunix("doctor", "--json", *arguments, environment=environment)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["status"] == done.returncode
    return Told(done.returncode, told["findings"], told["questions"])


Rewrite = Callable[[bytes], bytes]


def _same(data: bytes) -> bytes:
    return data


class Between:
    """
    Something between a client and a gateway that does as a test wants.

    It passes bytes on both ways, over as many connections as are made to it.
    """

    def __init__(  # noqa: PLR0913 - each is a way in which it goes wrong
        self,
        target: int,
        *,
        request: Rewrite = _same,
        answer: Rewrite = _same,
        idle_s: float | None = None,
        hold_bytes: int = 0,
        reads_on: bool = False,
    ) -> None:
        """
        Listen on a free port.

        :param target: the port to pass everything on to.
        :param request: what becomes of what the client sends, piece by piece.
        :param answer: what becomes of what it gets.
        :param idle_s: after how long without a byte a connection is cut.
        :param reads_on: whether it goes on reading an answer whose client has gone.
        :param hold_bytes: how much of an answer's chunks is gathered before any of it is passed on.
        """
        self._target = target
        self._request, self._answer, self._idle_s, self._hold_bytes = request, answer, idle_s, hold_bytes
        self._reads_on = reads_on
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._is_closed = False
        self._threads = Threads()
        self._threads.start(self._accept)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._threads.start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            self._open |= {client, server}
            if self._is_closed:
                return
            held = b""
            try:
                while True:
                    ready, _, _ = select.select([client, server], [], [], self._idle_s)
                    if not ready:
                        return
                    for side in ready:
                        data = side.recv(65536)
                        if not data:
                            while side is client and self._reads_on and server.recv(65536):
                                pass
                            return
                        if side is client:
                            server.sendall(self._request(data))
                        else:
                            held += self._answer(data)
                            chunked = b"\r\nTransfer-Encoding: chunked\r\n" in held or not held.startswith(b"HTTP/")
                            if not chunked or len(held) >= self._hold_bytes or held.endswith(b"\r\n0\r\n\r\n"):
                                client.sendall(held)
                                held = b""
            finally:
                self._open -= {client, server}

    def close(self) -> None:
        """End it, and every connection with it."""
        self._is_closed = True
        # Closing alone does not wake a thread that waits in accept() or select().
        for connection in (self._server, *self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads.join()


@contextmanager
def between(target: int, **given: Any) -> Iterator[Between]:  # noqa: ANN401 - as Between takes them
    """Put something before a gateway."""
    it = Between(target, **given)
    try:
        yield it
    finally:
        it.close()


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """Run a server that reads a request of each connection, and gives one of these; the last again and again."""
    left = list(answers)

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.settimeout(LIMIT_S)
                    connection.recv(65536)
                    connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    with socket.create_server(("127.0.0.1", 0)) as server, Threads() as threads:
        threads.start(serve)
        try:
            yield server.getsockname()[1]
        finally:
            # Closing alone does not wake a thread that waits in accept().
            server.shutdown(socket.SHUT_RDWR)


def http(status: str, body: bytes, *headers: str) -> bytes:
    """Write an answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def port_of(url: str) -> int:
    """Read the port in an address."""
    return int(url.rsplit(":", 1)[1])


def modules_after(arguments: Sequence[str]) -> set[str]:
    """Name every module that is there once a command has run."""
    script = (
        "import sys\n"
        "from brunix_twisted.cli.commands import run\n"
        "try:\n"
        f"    run({list(arguments)!r}, {{'BRUNIX_URL': 'http://{NOBODY}'}})\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", script],
        env=unmeasured(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    return set(done.stderr.split())
