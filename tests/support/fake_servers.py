"""Servers in place of a gateway, and a faulty proxy in front of one."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fake_reactor import LIMIT_S
from threads import Threads


def http(status: str, body: bytes, *headers: str) -> bytes:
    """Format a response that ends the connection."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def request_from(connection: socket.socket) -> bytes:
    """Read one request without a body."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            raise ConnectionAbortedError
        received += data
    return received


@contextmanager
def serving(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """Run a server that calls ``serve`` with one connection after the other, and yield its port."""

    def accept() -> None:
        with suppress(OSError):
            while not done.is_set():
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.settimeout(LIMIT_S)
                    serve(connection)

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, Threads() as threads:
        threads.start(accept)
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            # Closing alone does not wake a thread that waits in accept().
            server.shutdown(socket.SHUT_RDWR)


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """Run a server that sends one of these to each connection, and repeats the last; yield its port."""
    left = list(answers)

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    with serving(answer) as port:
        yield port


Rewrite = Callable[[bytes], bytes]


def _same(data: bytes) -> bytes:
    return data


class FaultyProxy:
    """A proxy that forwards any number of connections, with the faults that a test wants."""

    def __init__(  # noqa: PLR0913 - each is one fault
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

        :param target: the port to forward to.
        :param request: changes what the client sends.
        :param answer: changes what the client receives.
        :param idle_s: after how long without data a connection is closed.
        :param hold_bytes: how much of a chunked response is buffered.
        :param reads_on: whether to keep reading a response after the client has disconnected.
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
        """Stop, and close every connection."""
        self._is_closed = True
        # Closing alone does not wake a thread that waits in accept() or select().
        for connection in (self._server, *self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads.join()


@contextmanager
def faulty_proxy(target: int, **faults: Any) -> Iterator[FaultyProxy]:  # noqa: ANN401 - as FaultyProxy takes them
    """Run a proxy in front of a gateway."""
    proxy = FaultyProxy(target, **faults)
    try:
        yield proxy
    finally:
        proxy.close()
