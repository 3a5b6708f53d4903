"""A language model's API for tests: a real HTTP server that does what a test says, byte by byte."""

from __future__ import annotations

import json
import queue
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import attrs

from fake_reactor import LIMIT_S
from threads import Threads

STREAM: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"

Serve = Callable[["Call"], object]


@attrs.frozen
class Call:
    """One request, and the connection that it came on."""

    connection: socket.socket
    head: str
    body: Any

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.connection.sendall(data)

    def wait_until_closed(self) -> None:
        """Wait until the client closes the connection."""
        while self.connection.recv(65536):
            pass


def event(text: str, **choice: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Return one chunk of a streamed completion."""
    body = {"choices": [{"index": 0, "delta": {"content": text}, **choice}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def completion(*texts: str) -> bytes:
    """Return a whole streamed completion, as the API of OpenAI sends it."""
    return STREAM + b"".join(map(event, texts)) + event("", finish_reason="stop") + b"data: [DONE]\n\n"


class ScriptedModel:
    """The API. Each call takes the next of the scripts; the last one is repeated."""

    def __init__(self, *scripts: bytes | Serve, tls: ssl.SSLContext | None = None) -> None:
        self.calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._scripts: Sequence[bytes | Serve] = scripts
        self._count = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.getsockname()[1]}/v1"

    def call(self) -> Call:
        """Wait for the next call."""
        return self.calls.get(timeout=LIMIT_S)

    def close(self) -> None:
        """Accept no more connections."""
        with suppress(OSError):
            # Closing alone does not wake a thread that waits in accept().
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    @contextmanager
    def running(self) -> Iterator[ScriptedModel]:
        """Serve until the block ends."""
        with Threads() as threads:
            threads.start(self._accept, threads)
            try:
                yield self
            finally:
                self.close()

    def _accept(self, threads: Threads) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                connection.settimeout(LIMIT_S)
                threads.start(self._serve, connection)

    def _secured(self, accepted: socket.socket) -> socket.socket:
        return accepted if self._tls is None else self._tls.wrap_socket(accepted, server_side=True)

    def _serve(self, accepted: socket.socket) -> None:
        with suppress(OSError), self._secured(accepted) as connection:
            data = b""
            while b"\r\n\r\n" not in data:
                received = connection.recv(65536)
                if not received:
                    return
                data += received
            head, _, rest = data.partition(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            while len(rest) < length:
                rest += connection.recv(65536)
            script = self._scripts[min(self._count, len(self._scripts) - 1)]
            self._count += 1
            call = Call(connection, head.decode("latin-1"), json.loads(rest))
            self.calls.put(call)
            if isinstance(script, bytes):
                call.send(script)
            else:
                script(call)
