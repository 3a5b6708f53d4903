"""The gateway as a service: what it starts, in which order, and how it ends without breaking an answer off."""

from __future__ import annotations

from ipaddress import ip_address
from secrets import token_hex
from socket import gethostname
from typing import cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from brunix_twisted.admission import Admission
from brunix_twisted.channel import Bounds
from brunix_twisted.completion import Completion
from brunix_twisted.engine import Engine, Tls
from brunix_twisted.engine.aio import AioEngine
from brunix_twisted.engine.blocking import BlockingEngine
from brunix_twisted.hosts import Hosts
from brunix_twisted.model import Model
from brunix_twisted.producer import Terms
from brunix_twisted.reactors import Reactor
from brunix_twisted.routes import Gateway, refuse
from brunix_twisted.sessions import Continuity, Sessions
from brunix_twisted.settings import Settings
from brunix_twisted.site import GatewaySite
from brunix_twisted.transport import send_at_once

# How long a client may take to read the end of an answer that is already written, once the gateway stops.
_FLUSH_S = 5.0


class StartError(SystemExit, Exception):
    """
    The gateway cannot start; its message is the one line to print.

    It is both so that twistd does everything right: an Exception it reports from a daemon to the shell that started
    it, and removes the pid file; a SystemExit ends the process with the message alone, without a traceback.
    """


class GatewayService(Service):
    """
    Owns the threads, the channel to the engine and the listening port.

    All of them are made when the service starts, which is after twistd has forked: neither threads nor gRPC survive a
    fork.
    """

    _log = Logger()
    _port: IListeningPort | None = None

    def __init__(self, reactor: Reactor, settings: Settings, endpoint: IStreamServerEndpoint) -> None:
        """Prepare to serve on an endpoint; nothing is started yet."""
        self._reactor = reactor
        self._settings = settings
        self._endpoint = endpoint

    def privilegedStartService(self) -> None:
        """
        Listen, and make everything that answering needs.

        twistd calls it while a port below 1024 may still be bound, before it changes its user.

        :raises StartError: the port cannot be listened on.
        """
        settings = self._settings
        self._engine = _engine(self._reactor, settings)
        admission = Admission(
            self._reactor,
            places=settings.thread_workers,
            queue_size=4 * settings.thread_workers if settings.queue_size is None else settings.queue_size,
            queue_timeout_s=settings.queue_timeout_s,
        )
        self._admission = admission
        continuity = Continuity(max_sessions=settings.session_max, max_age_s=settings.session_max_age_s)
        self._completion = Completion(
            self._reactor,
            self._engine,
            admission,
            Sessions(continuity if settings.session_continuity else None, lambda: token_hex(16)),
            Terms(
                heartbeat_s=settings.heartbeat_s,
                first_token_timeout_s=settings.first_token_timeout_s,
                stall_timeout_s=settings.stall_timeout_s,
                buffer_bytes=settings.buffer_bytes,
            ),
        )
        model = Model(
            id=settings.model_id,
            aliases=settings.model_aliases,
            capabilities=settings.capabilities,
            context_length=settings.context_length,
            family=settings.model_family,
        )
        gateway = Gateway(self._engine, self._completion, model, settings.heartbeat_form)
        self._site = GatewaySite(
            gateway.app.resource(),
            reactor=cast("IReactorTime", self._reactor),
            refuse=refuse,
            origins=settings.cors_origins,
            bounds=Bounds(
                max_body_bytes=settings.max_body_bytes,
                max_header_bytes=settings.max_header_bytes,
                headers_timeout_s=settings.headers_timeout_s,
                body_timeout_s=settings.body_timeout_s,
            ),
        )
        refusals: list[Failure] = []
        self._endpoint.listen(self._site).addCallbacks(self._listens, refusals.append)
        if refusals:
            self._engine.close()
            raise StartError(f"twistd brunix: PROXY_LISTEN is {settings.listen!r}: {refusals[0].getErrorMessage()}")

    def startService(self) -> None:
        """Be running; the reactor, once it runs, accepts the first request."""
        if self._port is None:
            self.privilegedStartService()
        super().startService()

    def _listens(self, port: IListeningPort) -> None:
        self._port = port
        send_at_once(port)
        names = self._settings.allowed_hosts
        if names or _is_loopback(port.getHost()):
            # A page of the web could otherwise reach what only this machine may, by a name that it points here.
            self._site.hosts = Hosts(names | {gethostname().lower()})
        self._log.info(
            "Serving the model {model} on {address}; the engine is at {target}",
            model=self._settings.model_id,
            address=port.getHost(),
            target=self._settings.grpc_target,
        )

    @property
    def port(self) -> IListeningPort:
        """Where it listens, once it does."""
        if self._port is None:
            raise RuntimeError("the service has not been started")
        return self._port

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, let answers end until the drain's deadline, then let go of everything.

        Fires when no thread of the gateway's is left.
        """
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        super().stopService()
        if self._port is None:
            return
        port, self._port = self._port, None
        # From now on no question is admitted, not even on a connection that is open already.
        drained = self._completion.drain(self._settings.drain_s)
        await maybeDeferred(port.stopListening)
        await drained
        # A call ends once it is cancelled; whatever it occupies could be waited for only without any deadline.
        await self._admission.when_idle()
        # The process ends soon after this, and with it whatever has not left its sockets.
        await self._site.close(_FLUSH_S)
        # Last, since no call may be made any more.
        await self._engine.close()


def _engine(reactor: Reactor, settings: Settings) -> Engine:
    target, timeout_s, tls = settings.grpc_target, settings.engine_timeout_s, _tls(settings)
    if settings.engine_client == "aio":
        return AioEngine(target, timeout_s, tls)
    return BlockingEngine(reactor, target, timeout_s, tls, workers=settings.thread_workers)


def _tls(settings: Settings) -> Tls | None:
    if settings.grpc_tls_ca is None:
        return None
    return Tls(
        settings.grpc_tls_ca,
        certificate=settings.grpc_tls_cert,
        key=settings.grpc_tls_key,
        name=settings.grpc_tls_name,
    )


def _is_loopback(address: IAddress) -> bool:
    return isinstance(address, IPv4Address | IPv6Address) and ip_address(address.host).is_loopback
