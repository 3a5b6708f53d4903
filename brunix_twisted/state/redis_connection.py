"""
A connection to Redis or Valkey that is opened again whenever it is lost.

The protocol is txredisapi's, with hiredis as its parser. Its connection pool is not used: after a rejected password or
"max number of clients reached" it never connects again, and its Sentinel client knows neither TLS nor errors.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Any, Final, cast

import txredisapi
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, ensureDeferred  # noqa: A004 - what addTimeout raises
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from brunix_twisted.config.addresses import authority
from brunix_twisted.config.redis_url import RedisAddress
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import StateUnavailableError

_OPEN_S: Final = 10.0
_CONNECT_S: Final = 2.0
_REPLY_S: Final = 2.0
"""Without a reply for this long, the connection counts as lost: a host that loses power does not close it."""
_MIN_RETRY_S: Final = 0.1
_MAX_RETRY_S: Final = 2.0
_CLOSE_S: Final = 1.0


class _Protocol(txredisapi.RedisProtocol):  # type: ignore[misc] # has no types
    """txredisapi's protocol, which also remembers why the connection was lost."""

    lost: str = ""

    def connectionLost(self, why: Failure) -> None:
        self.lost = _message(why.value or ConnectionError())
        super().connectionLost(why)


class _Factory(Factory):
    noisy = False

    def buildProtocol(self, addr: object) -> _Protocol:  # noqa: ARG002 - Twisted's
        protocol = _Protocol(charset=None, convertNumbers=False, replyTimeout=_REPLY_S)
        protocol.factory = self
        return protocol


class RedisConnection:
    """One connection, on which commands are pipelined."""

    def __init__(self, reactor: Reactor, address: RedisAddress, on_connect: Callable[[Any], Awaitable[None]]) -> None:
        """
        Do nothing yet.

        :param on_connect: is called with the protocol after each connect, before it is used. It must write something:
            for some seconds after a failover, Sentinel may name a server that is read-only.
        """
        self._reactor = reactor
        self._address = address
        self._on_connect = on_connect
        self._protocol: Any = None
        self._reason = "not connected yet"
        """Why there is no connection."""
        self._running: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] | None = None
        """Who waits for the outcome of the first attempt to connect; None after it."""

    async def start(self) -> None:
        """
        Connect, and stay connected until :meth:`close`.

        :raises StateUnavailableError: there is no connection. Attempts to connect continue.
        """
        if self._running is None:
            self._waiting = []
            self._running = ensureDeferred(self._run())
        await self._connected()

    async def _connected(self) -> Any:  # noqa: ANN401 - txredisapi has no types
        if self._waiting is not None:
            attempted = Deferred[None]()
            self._waiting.append(attempted)
            await attempted
        if self._protocol is None:
            raise StateUnavailableError(f"{self._address}: {self._reason}")
        return self._protocol

    async def _run(self) -> None:
        retry_s = _MIN_RETRY_S
        while True:
            try:
                # For whatever has no limit, such as a handshake.
                protocol = await ensureDeferred(self._open()).addTimeout(_OPEN_S, cast("Any", self._reactor))
            except CancelledError:
                self._attempted()
                raise
            except Exception as error:  # noqa: BLE001 - reported to whoever calls
                self._reason = _message(error)
                self._attempted()
            else:
                self._protocol, retry_s = protocol, _MIN_RETRY_S
                self._attempted()
                await protocol.whenDisconnected()
                self._protocol, self._reason = None, protocol.lost
            await deferLater(cast("Any", self._reactor), retry_s)
            retry_s = min(2 * retry_s, _MAX_RETRY_S)

    def _attempted(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for deferred in waiting:
            if not deferred.called:
                deferred.callback(None)

    async def _open(self) -> _Protocol:
        address = self._address
        host, port = await self._master() if address.service else address.hosts[0]
        return await self._login(host, port, address.username, address.password, self._prepare)

    async def _master(self) -> tuple[str, int]:
        """Ask the Sentinels, in order, for the address of the primary server."""
        address = self._address
        found: list[tuple[str, int]] = []
        reasons: list[str] = []

        async def ask(protocol: _Protocol) -> None:
            reply = await protocol.sentinel_get_master_addr_by_name(address.service)
            if reply:
                found.append((reply[0].decode(), int(reply[1])))
            else:
                reasons.append(f"Sentinel knows no service {address.service}")

        for host, port in address.hosts:
            try:
                protocol = await self._login(host, port, address.sentinel_username, address.sentinel_password, ask)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - the next one may know
                reasons.append(f"Sentinel {authority(host, port)}: {_message(error)}")
            else:
                protocol.transport.loseConnection()
            if found:
                return found[0]
        raise StateUnavailableError("; ".join(reasons))

    async def _login(
        self, host: str, port: int, username: str, password: str, prepare: Callable[[Any], Awaitable[None]]
    ) -> _Protocol:
        """Open a connection, and close it again if the server does not let us use it."""
        protocol = cast("_Protocol", await self._endpoint(host, port).connect(_Factory()))
        try:
            # Otherwise the second of two commands waits for the acknowledgement of the first, for up to 40 ms.
            protocol.transport.setTcpNoDelay(True)
            protocol.transport.setTcpKeepAlive(True)
            if password:
                await protocol.auth(password, username or None)
            await prepare(protocol)
        except BaseException as error:
            protocol.transport.abortConnection()
            if isinstance(error, txredisapi.ConnectionError) and protocol.lost:
                raise StateUnavailableError(protocol.lost) from error
            raise
        return protocol

    def _endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        endpoint = HostnameEndpoint(cast("Any", self._reactor), host, port, timeout=_CONNECT_S)
        address = self._address
        if not address.tls:
            return endpoint
        # Read again for each connection, because certificates are renewed.
        trust = trustRootFromCertificates(_certificates(Path(address.ca).read_bytes())) if address.ca else None
        own = None
        if address.cert:
            pem = Path(address.cert).read_bytes() + (b"\n" + Path(address.key).read_bytes() if address.key else b"")
            # Twisted does not report a key of another certificate: the connection would never be made.
            SSLContext(PROTOCOL_TLS_CLIENT).load_cert_chain(address.cert, address.key or None, password="")
            own = PrivateCertificate.loadPEM(pem)
        return wrapClientTLS(optionsForClientTLS(host, trustRoot=trust, clientCertificate=own), endpoint)

    async def _prepare(self, protocol: _Protocol) -> None:
        if self._address.database:
            await protocol.select(self._address.database)
        await self._on_connect(protocol)

    async def eval(self, script: bytes, args: Sequence[bytes | str | int]) -> Any:  # noqa: ANN401 - whatever the script returns
        """
        Run a script, by its digest if the server knows it.

        :raises StateUnavailableError: it did not run, or its reply was lost; see :class:`ReplyLostError`.
        """
        protocol = await self._connected()
        try:
            return await protocol.eval(script, [], args)
        except txredisapi.ResponseError as error:
            if str(error).startswith("READONLY"):
                # The server has become a replica: look for the primary again.
                protocol.transport.abortConnection()
            raise StateUnavailableError(f"{self._address}: {error}") from error
        except txredisapi.RedisError as error:
            raise ReplyLostError(f"{self._address}: {protocol.lost or _message(error)}") from error

    async def close(self) -> None:
        """Disconnect after the replies to all calls, and do not connect again. A second call does nothing."""
        running, self._running = self._running, None
        self._reason = "closed"
        protocol, self._protocol = self._protocol, None
        if running is None:
            return
        running.addErrback(lambda failure: failure.trap(CancelledError) and None)
        if protocol is not None and protocol.connected:
            # The replies come in order, so this one is the last.
            abort = self._reactor.callLater(_CLOSE_S, protocol.transport.abortConnection)
            gone = protocol.whenDisconnected()
            protocol.ping().addBoth(lambda _: protocol.transport.loseConnection())
            await gone
            if abort.active():
                abort.cancel()
        running.cancel()


class ReplyLostError(StateUnavailableError):
    """The connection was lost before the reply, so that the script may have run."""


def _certificates(pem: bytes) -> list[Certificate]:
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
    if not blocks:
        raise StateUnavailableError("the file that ca names contains no certificate")
    return [Certificate.loadPEM(block) for block in blocks]


def _message(error: BaseException) -> str:
    """Return an exception's message in one line."""
    if isinstance(error, TimeoutError):
        return "timed out"
    return " ".join(str(error).split()) or type(error).__name__
