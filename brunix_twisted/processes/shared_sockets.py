"""
One listening socket for several processes: the supervisor's end, which binds it, and the others', which accept from it.

An endpoint listens by asking its reactor to. So that every kind of endpoint can be shared, whatever it wraps around its
connections, it gets one of the reactors here: they hand out ports of their own, and are otherwise the reactor that they
are made with.
"""

from __future__ import annotations

import re
import socket
from typing import Any, Final, cast

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from brunix_twisted.processes.accept_balancing import ConnectionCounts

# How long a process waits for one with fewer connections to accept the next.
_YIELD_S: Final = 0.005
# How many it takes then, if nobody has come.
_UNCLAIMED: Final = 4


def without_systemd(description: str) -> str:
    """
    Spell an endpoint for a process that inherits its socket from the supervisor.

    systemd's own is only given to the supervisor. What stands for it here is never bound.
    """
    return re.sub(r"\A((?:haproxy:)*)systemd:.*", r"\1tcp:0", description, flags=re.DOTALL)


# --- Ports and connections: each class stands before one of Twisted's, and is what that one's methods meet as self ----


class _Shared:
    # To shut the socket down would end it for all who have it; to close it ends this share.
    _shouldShutdown = False


class _TcpPort(_Shared, tcp.Port):
    pass


class _UnixPort(_Shared, unix.Port):
    pass


class _BorrowedUnixPort(_UnixPort):
    """The file of this socket, its mode and its end, is the business of whoever bound it."""

    # To begin with, as in the base class.
    numberAccepts = 100
    _preexistingSocket: socket.socket

    def startListening(self) -> None:
        self.factory.doStart()  # type: ignore[union-attr]  # it was made with one
        self.connected = True
        self.socket = self._preexistingSocket
        self.fileno = self.socket.fileno  # type: ignore[method-assign]  # as the base class does
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


class _Counted:
    """A connection that its port counts."""

    def __init__(self, sock: socket.socket, protocol: Any, client: Any, server: _Accepting, *more: Any) -> None:  # noqa: ANN401 - as in tcp.Server
        super().__init__(sock, protocol, client, server, *more)  # type: ignore[call-arg]  # of a connection
        self._port = server
        server.count(+1)

    def connectionLost(self, reason: Failure) -> None:
        # The base class may be told twice, and knows it by this.
        if hasattr(self, "socket"):
            self._port.count(-1)
        super().connectionLost(reason)  # type: ignore[misc]  # of a connection


class _Accepting:
    """A port that accepts when it is its turn."""

    counts: ConnectionCounts
    _open = 0
    _transport: type[tcp.Server]

    @property
    def transport(self) -> type[tcp.Server]:
        """What its connections are. Whatever they are made, they are counted."""
        return self._transport

    @transport.setter
    def transport(self, kind: type[tcp.Server]) -> None:
        self._transport = type(kind.__name__, (_Counted, kind), {})

    def doRead(self) -> None:
        """Accept a connection, or leave it to a process that has fewer."""
        port = cast("tcp.Port", self)
        if self.counts.has_more():
            port.stopReading()
            cast("IReactorTime", port.reactor).callLater(_YIELD_S, self._again)
        else:
            self._accept(1)

    def _again(self) -> None:
        port = cast("tcp.Port", self)
        if port.connected and not port.disconnecting:
            port.startReading()
            # The others are busy, or hang.
            self._accept(_UNCLAIMED)

    def _accept(self, most: int) -> None:
        # The port would adapt this to the traffic, and who wakes first would take a whole burst.
        self.numberAccepts = most
        super().doRead()  # type: ignore[misc]  # of a port

    def count(self, more: int) -> None:
        """Count a connection, or count it no more."""
        self._open += more
        if cast("tcp.Port", self).connected:
            self.counts.set(self._open)

    def connectionLost(self, reason: Failure) -> None:
        self.counts.withdraw()
        super().connectionLost(reason)  # type: ignore[misc]  # of a port


class _AcceptingTcpPort(_Accepting, _TcpPort):
    pass


class _AcceptingUnixPort(_Accepting, _BorrowedUnixPort):  # type: ignore[misc]  # there, transport is no property
    pass


# --- Reactors ---------------------------------------------------------------------------------------------------------


class _Sharing:
    """The reactor it is made with, but for its ports."""

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401 - what a reactor is, no type says
        self.real = reactor
        """The reactor itself."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the reactor has
        return getattr(self.real, name)

    def listenSSL(self, port: int, factory: Factory, contextFactory: Any, **how: Any) -> IListeningPort:  # noqa: ANN401, N803 - IReactorSSL
        """Listen with TLS."""
        from twisted.protocols.tls import TLSMemoryBIOFactory  # noqa: PLC0415 - there only with the extra `tls`

        encrypted = TLSMemoryBIOFactory(contextFactory, isClient=False, wrappedFactory=factory)
        listening: IListeningPort = self.listenTCP(port, encrypted, **how)
        return listening


class BindOnlyReactor(_Sharing):
    """For the supervisor: binds sockets, and accepts nothing."""

    port: tcp.Port | None = None
    """What was bound."""

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Bind a port of TCP."""
        return self._hold(_TcpPort(port, factory, backlog, interface, self.real))

    def listenUNIX(
        self,
        address: bytes,
        factory: Factory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,  # noqa: N803 - IReactorUNIX
    ) -> IListeningPort:
        """Bind a Unix socket."""
        return self._hold(_UnixPort(address, factory, backlog, mode, self.real, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Factory) -> IListeningPort:  # noqa: N803 - IReactorSocket
        """Take a socket that somebody else has bound, systemd say."""
        return self._hold(_adopted((_TcpPort, _BorrowedUnixPort), self.real, fileDescriptor, addressFamily, factory))

    def _hold(self, port: tcp.Port) -> IListeningPort:
        port.startListening()
        # In the same turn of the reactor, so nothing has been accepted.
        port.stopReading()
        self.port = port
        return port


class AdoptSocketReactor(_Sharing):
    """For one process alone: leaves a Unix socket of systemd's as it is, whose mode and file Twisted would not."""

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Factory) -> IListeningPort:  # noqa: N803 - IReactorSocket
        """Accept from a socket that somebody else has bound."""
        port = _adopted((tcp.Port, _BorrowedUnixPort), self.real, fileDescriptor, addressFamily, factory)
        port.startListening()
        return cast("IListeningPort", port)


class SharedAcceptReactor(_Sharing):
    """For the other processes: accepts from the socket that was inherited, whatever it is asked to listen on."""

    def __init__(self, reactor: Any, descriptor: int, counts: ConnectionCounts) -> None:  # noqa: ANN401 - what a reactor is, no type says
        super().__init__(reactor)
        self._descriptor = descriptor
        self._counts = counts

    def listenTCP(self, port: int, factory: Factory, **how: Any) -> IListeningPort:  # noqa: ANN401, ARG002 - IReactorTCP
        """Accept, instead."""
        return self._adopt(factory)

    def listenUNIX(self, address: bytes, factory: Factory, **how: Any) -> IListeningPort:  # noqa: ANN401, ARG002 - IReactorUNIX
        """Accept, instead."""
        return self._adopt(factory)

    def _adopt(self, factory: Factory) -> IListeningPort:
        with socket.socket(fileno=socket.dup(self._descriptor)) as given:
            family = given.family
        kinds = (_AcceptingTcpPort, _AcceptingUnixPort)
        port = _adopted(kinds, self.real, self._descriptor, family, factory)
        port.counts, port.transport = self._counts, unix.Server if family == socket.AF_UNIX else tcp.Server
        port.startListening()
        self._counts.set(0)
        return cast("IListeningPort", port)


def _adopted(kinds: tuple[Any, Any], reactor: Any, descriptor: int, family: int, factory: Factory) -> Any:  # noqa: ANN401 - Twisted's ports have more than any interface says
    """Make a port for TCP or for Unix sockets as ``IReactorSocket.adoptStreamPort`` does, but of a kind of ours."""
    tcp_kind, unix_kind = kinds
    if family == socket.AF_UNIX:
        return unix_kind._fromListeningDescriptor(reactor, descriptor, factory)  # noqa: SLF001 - what that calls, too
    return tcp_kind._fromListeningDescriptor(reactor, descriptor, family, factory)  # noqa: SLF001 - see above
