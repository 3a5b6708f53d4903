"""
One listening socket for several processes: the supervisor binds it, and the gateway processes accept from it.

An endpoint listens by calling its reactor. To share every kind of endpoint, including those that wrap their
connections, an endpoint gets one of the reactors here. They return special ports, and delegate everything else to the
real reactor.
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

# How long a process waits for another with fewer connections to accept.
_YIELD_S: Final = 0.005
# Maximum number of connections that it accepts after that, if no other process has.
_MAX_UNCLAIMED: Final = 4


def without_systemd(description: str) -> str:
    """
    Return the endpoint description for a process that inherits the socket from the supervisor.

    systemd passes its sockets only to the supervisor. The replacement is parsed, but its port is never bound.
    """
    return re.sub(r"\A((?:haproxy:)*)systemd:.*", r"\1tcp:0", description, flags=re.DOTALL)


# --- Ports and connections: mix-ins, combined with Twisted's classes --------------------------------------------------


class _Shared:
    # Shutting the socket down would affect all processes; closing it affects only this one.
    _shouldShutdown = False


class _TcpPort(_Shared, tcp.Port):
    pass


class _UnixPort(_Shared, unix.Port):
    pass


class _BorrowedUnixPort(_UnixPort):
    """A Unix port that leaves the socket's file alone: the process that bound it sets its mode and removes it."""

    # The initial value, as in the base class.
    numberAccepts = 100
    _preexistingSocket: socket.socket

    def startListening(self) -> None:
        self.factory.doStart()  # type: ignore[union-attr]  # set by the constructor
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
        # Twisted may call this twice; the base class deletes the attribute in the first call.
        if hasattr(self, "socket"):
            self._port.count(-1)
        super().connectionLost(reason)  # type: ignore[misc]  # of a connection


class _Accepting:
    """A port that accepts only if no other process has fewer connections."""

    counts: ConnectionCounts
    _open = 0
    _transport: type[tcp.Server]

    @property
    def transport(self) -> type[tcp.Server]:
        """The class of its connections. Setting it adds the counting."""
        return self._transport

    @transport.setter
    def transport(self, kind: type[tcp.Server]) -> None:
        self._transport = type(kind.__name__, (_Counted, kind), {})

    def doRead(self) -> None:
        """Accept a connection, or leave it to a process with fewer connections."""
        port = cast("tcp.Port", self)
        if self.counts.has_more():
            port.stopReading()
            cast("IReactorTime", port.reactor).callLater(_YIELD_S, self._resume)
        else:
            self._accept(1)

    def _resume(self) -> None:
        port = cast("tcp.Port", self)
        if port.connected and not port.disconnecting:
            port.startReading()
            # The other processes are busy, or hang.
            self._accept(_MAX_UNCLAIMED)

    def _accept(self, max_connections: int) -> None:
        # Twisted adapts this number to the traffic, so the first process to wake would accept a whole burst.
        self.numberAccepts = max_connections
        super().doRead()  # type: ignore[misc]  # of a port

    def count(self, change: int) -> None:
        """Add to the number of open connections: 1 or -1."""
        self._open += change
        if cast("tcp.Port", self).connected:
            self.counts.set(self._open)

    def connectionLost(self, reason: Failure) -> None:
        self.counts.withdraw()
        super().connectionLost(reason)  # type: ignore[misc]  # of a port


class _AcceptingTcpPort(_Accepting, _TcpPort):
    pass


class _AcceptingUnixPort(_Accepting, _BorrowedUnixPort):  # type: ignore[misc]  # transport is not a property there
    pass


# --- Reactors ---------------------------------------------------------------------------------------------------------


class _Sharing:
    """A reactor that delegates everything but its ports to the real one."""

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401 - no type covers a reactor
        self.real = reactor
        """The real reactor."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the reactor
        return getattr(self.real, name)

    def listenSSL(self, port: int, factory: Factory, contextFactory: Any, **how: Any) -> IListeningPort:  # noqa: ANN401, N803 - IReactorSSL
        """Listen with TLS."""
        from twisted.protocols.tls import TLSMemoryBIOFactory  # noqa: PLC0415 - available only with the extra `tls`

        encrypted = TLSMemoryBIOFactory(contextFactory, isClient=False, wrappedFactory=factory)
        listening: IListeningPort = self.listenTCP(port, encrypted, **how)
        return listening


class BindOnlyReactor(_Sharing):
    """For the supervisor: binds sockets without accepting."""

    port: tcp.Port | None = None
    """The bound port."""

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Bind a TCP port."""
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
        """Adopt a socket that another process has bound, such as systemd."""
        return self._hold(_adopted((_TcpPort, _BorrowedUnixPort), self.real, fileDescriptor, addressFamily, factory))

    def _hold(self, port: tcp.Port) -> IListeningPort:
        port.startListening()
        # In the same reactor iteration, before anything can be accepted.
        port.stopReading()
        self.port = port
        return port


class AdoptSocketReactor(_Sharing):
    """For a single process: leaves the mode and file of a Unix socket from systemd alone, which Twisted would not."""

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Factory) -> IListeningPort:  # noqa: N803 - IReactorSocket
        """Accept from a socket that another process has bound."""
        port = _adopted((tcp.Port, _BorrowedUnixPort), self.real, fileDescriptor, addressFamily, factory)
        port.startListening()
        return cast("IListeningPort", port)


class SharedAcceptReactor(_Sharing):
    """For the gateway processes: accepts from the inherited socket, whatever address the endpoint requests."""

    def __init__(self, reactor: Any, descriptor: int, counts: ConnectionCounts) -> None:  # noqa: ANN401 - no type covers a reactor
        super().__init__(reactor)
        self._descriptor = descriptor
        self._counts = counts

    def listenTCP(self, port: int, factory: Factory, **how: Any) -> IListeningPort:  # noqa: ANN401, ARG002 - IReactorTCP
        """Accept from the inherited socket instead."""
        return self._adopt(factory)

    def listenUNIX(self, address: bytes, factory: Factory, **how: Any) -> IListeningPort:  # noqa: ANN401, ARG002 - IReactorUNIX
        """Accept from the inherited socket instead."""
        return self._adopt(factory)

    def _adopt(self, factory: Factory) -> IListeningPort:
        with socket.socket(fileno=socket.dup(self._descriptor)) as duplicate:
            family = duplicate.family
        kinds = (_AcceptingTcpPort, _AcceptingUnixPort)
        port = _adopted(kinds, self.real, self._descriptor, family, factory)
        port.counts, port.transport = self._counts, unix.Server if family == socket.AF_UNIX else tcp.Server
        port.startListening()
        self._counts.set(0)
        return cast("IListeningPort", port)


def _adopted(kinds: tuple[Any, Any], reactor: Any, descriptor: int, family: int, factory: Factory) -> Any:  # noqa: ANN401 - Twisted's ports have more than any interface says
    """Create a TCP or Unix port as ``IReactorSocket.adoptStreamPort`` does, but of one of the given classes."""
    tcp_kind, unix_kind = kinds
    if family == socket.AF_UNIX:
        return unix_kind._fromListeningDescriptor(reactor, descriptor, factory)  # noqa: SLF001 - as adoptStreamPort does
    return tcp_kind._fromListeningDescriptor(reactor, descriptor, family, factory)  # noqa: SLF001 - see above
