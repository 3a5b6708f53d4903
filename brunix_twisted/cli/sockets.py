"""
Connect to a host: DNS lookup, TCP and TLS, each with a deadline.

A socket's own timeout starts again with each byte, so a server that sends one byte now and then would never time out.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import attrs

CONNECT_TIMEOUT_S: Final = 5.0
"""For the DNS lookup, the connection and the TLS handshake together."""
_MAX_WAIT_S: Final = 0.5
"""Python on Windows handles Control-C only between two waits."""
_RECEIVE_BYTES: Final = 65_536

T = TypeVar("T")


class DeadlineExceededError(TimeoutError):
    """A step took longer than it may."""

    def __init__(self, step: str, timeout_s: float) -> None:
        super().__init__(f"{step} took longer than {timeout_s:.3g} s")
        self.timeout_s = timeout_s


@attrs.frozen
class ResolvedAddress:
    """One of the socket addresses that a host name resolves to."""

    family: int
    sockaddr: tuple[Any, ...]

    @property
    def address(self) -> str:
        """The IP address without its port."""
        return str(self.sockaddr[0])


def resolve(host: str, port: int, timeout_s: float) -> list[ResolvedAddress]:
    """
    Look up the addresses of a host.

    :raises OSError: the lookup failed.
    :raises DeadlineExceededError: the resolver did not answer in time.
    """
    result: list[Any] = []

    def look_up() -> None:
        try:
            result.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - raised below, in the caller's thread
            result.append(error)

    # getaddrinfo() has no timeout, and the system's own are long.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not result:
        raise DeadlineExceededError(f"the DNS lookup of {host}", timeout_s)
    if isinstance(result[0], UnicodeError):
        raise socket.gaierror(socket.EAI_NONAME, "not a host name")
    if isinstance(result[0], Exception):
        raise result[0]
    return [ResolvedAddress(family, sockaddr) for family, _, _, _, sockaddr in result[0]]


def connect(resolved: ResolvedAddress, timeout_s: float) -> socket.socket:
    """
    Connect to one address.

    :raises OSError: the connection failed.
    """
    connection = socket.socket(resolved.family, socket.SOCK_STREAM)
    try:
        connection.settimeout(max(0.001, timeout_s))
        connection.connect(resolved.sockaddr)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException as error:
        connection.close()
        if isinstance(error, TimeoutError):
            raise DeadlineExceededError(f"connecting to {resolved.address}", timeout_s) from None
        raise
    return connection


def connect_any(addresses: list[ResolvedAddress], deadline_s: float) -> socket.socket:
    """Connect to the first address that accepts."""
    last_error: OSError = socket.gaierror(socket.EAI_NONAME, "no address")
    for number, resolved in enumerate(addresses):
        remaining_s = deadline_s - time.monotonic()
        try:
            # An address that does not respond must not use up the time of the others.
            return connect(resolved, remaining_s / (len(addresses) - number))
        except OSError as error:
            last_error = error
    raise last_error


def start_tls(
    connection: socket.socket, host: str, ca: str | None, deadline_s: float, timeout_s: float
) -> ssl.SSLSocket:
    """
    Do the TLS handshake, and verify the server's certificate.

    :param ca: a file of CA certificates to trust instead of the system's.
    :param timeout_s: named in the error if the deadline passes.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["http/1.1"])
        connection.settimeout(max(0.001, deadline_s - time.monotonic()))
        return context.wrap_socket(connection, server_hostname=host)
    except BaseException as error:
        connection.close()
        if isinstance(error, TimeoutError):
            raise DeadlineExceededError("the TLS handshake", timeout_s) from None
        raise


class DeadlineSocket:
    """A connected socket with one deadline for everything until the end of a response."""

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self._timeout_s = self._deadline_s = self._idle_timeout_s = float("inf")

    def start(self, timeout_s: float, idle_timeout_s: float = float("inf")) -> None:
        """Set the deadline, and how long each wait for the server may take."""
        self._timeout_s, self._idle_timeout_s = timeout_s, idle_timeout_s
        self._deadline_s = time.monotonic() + timeout_s

    def receive(self) -> bytes:
        """Wait for the next bytes; none at the end of the connection."""
        return self._wait("the response", partial(self.raw.recv, _RECEIVE_BYTES))

    def send(self, data: bytes) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            view = view[self._wait("sending the request", partial(self.raw.send, view)) :]

    def _wait(self, step: str, call: Callable[[], T]) -> T:
        until_s = min(self._deadline_s, time.monotonic() + self._idle_timeout_s)
        while True:
            remaining_s = until_s - time.monotonic()
            if remaining_s <= 0:
                raise DeadlineExceededError(step, min(self._timeout_s, self._idle_timeout_s))
            self.raw.settimeout(min(remaining_s, _MAX_WAIT_S))
            with suppress(TimeoutError):
                return call()

    def close(self) -> None:
        """Close at once, whatever is in flight."""
        with suppress(OSError):
            self.raw.shutdown(socket.SHUT_RDWR)
        self.raw.close()
