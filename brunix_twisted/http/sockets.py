"""
Sockets for many streams: bytes that leave at once, and room for all who come.

Twisted's transports wait for the reactor to say that a socket can be written to, which it nearly always can: for every
token of every stream that is two system calls and a turn of the reactor, more than it takes to send it. Here a write
goes to the socket directly, and only what does not fit waits for the reactor, in the order and with the back pressure
that it always had.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterable
from typing import Final

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort

# A token is sent in less time than it takes to let another thread have the interpreter and to get it back, which
# Python's own send does each time: with hundreds of workers waiting for it that was a fifth of all the gateway cost.
# What is larger is sent as usual, for nobody is to wait while it is copied.
_send = ctypes.PyDLL(None).send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send.restype = ctypes.c_ssize_t
_SMALL_BYTES: Final = 16_384


class DirectWriteMixin(tcp.Connection):
    """What is changed in a connection. All on the reactor's thread."""

    _held: list[bytes] | None = None
    _aborted = False

    @property
    def holds(self) -> bool:
        """Whether what is written is being gathered."""
        return self._held is not None

    def hold(self) -> None:
        """Gather what is written from now on, to send it in one piece."""
        self._held = []

    def release(self) -> None:
        """Send what was gathered."""
        held, self._held = self._held, None
        if held:
            self.write(b"".join(held))

    def abortConnection(self) -> None:
        """Break the connection off; nothing that is written from now on is sent."""
        self._aborted = True
        super().abortConnection()

    def write(self, data: bytes) -> None:
        """Send what the socket takes now, and the rest when it can."""
        if self._aborted:
            return
        if self._held is not None:
            self._held.append(data)
        elif self._tempDataBuffer or self.dataBuffer or not self.connected or self._writeDisconnected:
            super().write(data)
        else:
            # All of it, as a rule, and then there is nothing to write.
            super().write(data[self._send_now(data) :])

    def _send_now(self, data: bytes) -> int:
        # A connection that is lost takes nothing. The reactor will find it, as it always did: nobody expects to hear
        # of that within a write.
        if len(data) <= _SMALL_BYTES:
            sent: int = _send(self.fileno(), data, len(data), socket.MSG_DONTWAIT)
            return max(0, sent)
        taken = self.writeSomeData(data)
        return 0 if isinstance(taken, Exception) else taken

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(iovec))


class _TCPServer(DirectWriteMixin, tcp.Server):
    pass


class _UNIXServer(DirectWriteMixin, unix.Server):
    pass


def configure_port(port: IListeningPort) -> None:
    """
    Make a port ready for many: it lets all who come at once wait, and its connections send at once.

    One of a kind that is not known here stays as it is.
    """
    for kind, transport in ((unix.Port, _UNIXServer), (tcp.Port, _TCPServer)):
        if isinstance(port, kind):
            port.transport = transport
            # Twisted's own default is 50, and whoever finds no room tries again a second later.
            port.socket.listen(socket.SOMAXCONN)
            return
