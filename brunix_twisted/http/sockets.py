"""
Sockets for many streams: direct writes and a longer listen queue.

Twisted's transports wait until the reactor reports that a socket is writable, which it nearly always is. That costs two
system calls and a reactor iteration for every token of every stream, more than sending the token. Here a write goes to
the socket directly. Only what the socket does not accept waits for the reactor, in order and with the usual back
pressure.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterable
from select import POLLIN, poll
from typing import Final

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort, IReactorTime

# Sending a token takes less time than releasing and reacquiring the GIL, as socket.send does each time: with hundreds
# of workers waiting for the GIL, that was a fifth of the gateway's CPU time. PyDLL keeps the GIL. Larger data is sent
# as usual, so that no thread waits while it is copied.
_send = ctypes.PyDLL(None).send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send.restype = ctypes.c_ssize_t
_SMALL_BYTES: Final = 16_384

# One accepts several connections.
_MAX_ACCEPTS: Final = 100


class DirectWriteMixin(tcp.Connection):
    """A transport that writes to its socket directly. Call all methods on the reactor's thread."""

    _aborted = False

    def abortConnection(self) -> None:
        """Abort the connection; later writes are discarded."""
        self._aborted = True
        super().abortConnection()

    def write(self, data: bytes) -> None:
        """Send what the socket accepts now, and the rest once it is writable."""
        if self._aborted:
            return
        if self._tempDataBuffer or self.dataBuffer or not self.connected or self._writeDisconnected:
            super().write(data)
        else:
            # Usually everything has been sent, and this does nothing.
            super().write(data[self._send_now(data) :])

    def _send_now(self, data: bytes) -> int:
        # An error counts as zero bytes sent. The reactor reports the lost connection later: callers of write expect no
        # errors.
        if len(data) <= _SMALL_BYTES:
            sent: int = _send(self.fileno(), data, len(data), socket.MSG_DONTWAIT)
            return max(0, sent)
        taken = self.writeSomeData(data)
        return 0 if isinstance(taken, Exception) else taken

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several parts in one write."""
        self.write(b"".join(iovec))


class _TCPServer(DirectWriteMixin, tcp.Server):
    pass


class _UNIXServer(DirectWriteMixin, unix.Server):
    pass


def configure_port(port: IListeningPort) -> None:
    """
    Give a TCP or Unix port the longest listen queue, and connections that write directly.

    Any other kind of port is left unchanged.
    """
    for kind, transport in ((unix.Port, _UNIXServer), (tcp.Port, _TCPServer)):
        if isinstance(port, kind):
            port.transport = transport
            # Twisted's default is 50. A client that finds the queue full retries only after a second.
            port.socket.listen(socket.SOMAXCONN)
            return


def accept_waiting(port: IListeningPort | None, clock: IReactorTime) -> None:
    """
    Accept the connections that wait at a port, just before it is closed. Call it before the port's ``stopListening``.

    The system has accepted them already, and would reset them: a proxy may have sent a request over one, and does not
    repeat it.
    """
    # Twisted closes the port in the reactor's next iteration; this runs in the same one.
    if isinstance(port, tcp.Port):
        clock.callLater(0, _accept_all, port)


def _accept_all(port: tcp.Port) -> None:
    if not port.connected:
        return
    closing, port.disconnecting = port.disconnecting, False
    ready = poll()
    ready.register(port.fileno(), POLLIN)
    # Not until nothing waits any more: a process that has no descriptors left cannot accept.
    for _ in range(_MAX_ACCEPTS):
        if not ready.poll(0):
            break
        port.doRead()
    port.disconnecting = closing
