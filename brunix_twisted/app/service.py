"""The gateway's service: starts its parts in order, and stops them without truncating an answer."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address
from secrets import token_bytes
from socket import gethostname
from typing import TYPE_CHECKING, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime, IStreamServerEndpoint

from brunix_twisted.api.admission import Admission
from brunix_twisted.api.caller import client_fields
from brunix_twisted.api.completion import Completion
from brunix_twisted.api.conversations import Digests
from brunix_twisted.api.health import SharedCheck
from brunix_twisted.api.mismatches import Mismatches
from brunix_twisted.api.response_store import ResponseStore
from brunix_twisted.api.router import Router
from brunix_twisted.api.routes import Gateway, refuse
from brunix_twisted.api.sessions import Sessions
from brunix_twisted.api.side_requests import SideRequests, known
from brunix_twisted.api.streaming import StreamTimeouts
from brunix_twisted.app.state import State
from brunix_twisted.config.allowed_hosts import Hosts
from brunix_twisted.config.settings import Settings
from brunix_twisted.dialects import mcp
from brunix_twisted.engine import ConnectionLimits, Engine, Tls
from brunix_twisted.engine.aio import AioEngine
from brunix_twisted.engine.blocking import BlockingEngine
from brunix_twisted.errors import StartError
from brunix_twisted.http.channel import Bounds
from brunix_twisted.http.site import GatewaySite
from brunix_twisted.http.sockets import accept_waiting, configure_port
from brunix_twisted.model import Model, Processes
from brunix_twisted.observability.logs import log_request
from brunix_twisted.observability.request_record import Observer, Readings, session_digest
from brunix_twisted.page import load as load_page
from brunix_twisted.runtime.listening import Listener
from brunix_twisted.runtime.random_ids import random_id
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.runtime.shutdown import Step, run_steps
from brunix_twisted.state.selection import StateSetup

if TYPE_CHECKING:
    from brunix_twisted.observability.metrics import Metrics
    from brunix_twisted.observability.tracing import Tracing

# During a stop: maximum time for clients to read what has been written.
_FLUSH_S = 5.0

# During a stop: maximum time to wait for requests on connections that were accepted before.
_ARRIVAL_S = 2.0

# Maximum time to close a port. Twisted's ports take one reactor iteration; a plugin's may never report it.
_CLOSED_S = 2.0

# During a stop: idle connections stay open until no request has come for this long, and no longer than the second time.
_QUIET_S = 0.5
_LINGER_S = 3.0

# Maximum time to write the last turns of conversations.
_WRITTEN_S = 1.0

# Maximum time for cancelled engine calls to end. They normally take milliseconds.
_CANCELLED_S = 3.0


class GatewayService(Service):
    """
    Owns the threads, the channel to the engine and the listening port.

    It creates them when it starts, after twistd has forked: neither threads nor gRPC survive a fork.
    """

    _is_stopped = False

    processes: Processes | None = None
    """The state of all gateway processes; None if there is only this one."""
    state_setup: StateSetup | None = None
    """What several processes share to use the same state; None if there is only this process."""
    metrics: Metrics | None = None
    """The metrics, once the service has started; None without PROXY_METRICS_LISTEN."""

    def __init__(self, reactor: Reactor, settings: Settings, endpoint: IStreamServerEndpoint) -> None:
        """Prepare to serve on an endpoint; start nothing yet."""
        self._reactor = reactor
        self._settings = settings
        self._listener = Listener(endpoint, "PROXY_LISTEN", settings.listen)
        self.digest_key = token_bytes(16)
        """The key of the session digests in the log and in traces; the same in all processes of a gateway."""
        self.ready: Deferred[IAddress] = Deferred()
        """Fires with the address once the port is open; fails with StartError if the endpoint fails later."""

    def privilegedStartService(self) -> None:
        """
        Create all parts, and listen.

        twistd calls this before it drops privileges, so a port below 1024 can be opened.

        :raises StartError: the endpoint cannot listen.
        """
        settings = self._settings
        self._tracing = _tracing(self._reactor, settings, self.digest_key)
        self._engine = _engine(self._reactor, settings)
        self._state = State(self._reactor, settings, lambda: self.state_setup)
        admission = Admission(
            self._reactor,
            places=settings.thread_workers,
            queue_size=4 * settings.thread_workers if settings.queue_size is None else settings.queue_size,
            queue_timeout_s=settings.queue_timeout_s,
            queue_per_caller=settings.queue_per_caller,
        )
        self._admission = admission
        self._sessions = Sessions(
            self._reactor,
            self._state.store,
            # Not read yet: a file that is created for it belongs to the user that twistd switches to.
            Digests(lambda: self._state.key),
            random_id,
            continuity=settings.session_continuity,
            exact=settings.session_match == "exact",
            shared=self._state.is_shared,
            is_working=self._state.is_working,
        )
        mismatches = Mismatches(
            self._state.store,
            settings.session_match if settings.session_continuity else "off",
            partial(session_digest, key=self.digest_key),
            is_working=self._state.is_working,
        )
        self._completion = Completion(
            self._reactor,
            self._engine,
            admission,
            self._sessions,
            StreamTimeouts(
                heartbeat_s=settings.heartbeat_s,
                whole_heartbeat_s=settings.whole_heartbeat_s,
                first_token_timeout_s=settings.first_token_timeout_s,
                stall_timeout_s=settings.stall_timeout_s,
                buffer_bytes=settings.buffer_bytes,
                max_answer_bytes=settings.max_answer_bytes,
            ),
            side_requests=SideRequests(
                known(), settings.side_request_patterns, refuse=settings.side_requests == "refuse"
            ),
            proxies=settings.trusted_proxies,
            mismatches=mismatches,
            system_prompt=settings.system_prompt,
        )
        model = Model(
            id=settings.model_id,
            aliases=settings.model_aliases,
            capabilities=settings.capabilities,
            context_length=settings.context_length,
            family=settings.model_family,
        )
        gateway = Gateway(
            self._engine,
            self._completion,
            model,
            settings.heartbeat_form,
            answers=ResponseStore(self._state.store),
            mismatches=mismatches,
            processes=lambda: self.processes,
        )
        gateway.check_state = SharedCheck(self._state.fault, self._reactor.seconds)
        if settings.page:
            gateway.assets = load_page()
        if settings.mcp:
            gateway.mcp_server = mcp.Server(settings.mcp_description or mcp.DEFAULT_DOMAIN)
        self._site = GatewaySite(
            Router(gateway.app, gateway.failed),
            reactor=cast("IReactorTime", self._reactor),
            refuse=refuse,
            origins=settings.cors_origins,
            bounds=Bounds(
                max_body_bytes=settings.max_body_bytes,
                max_header_bytes=settings.max_header_bytes,
                headers_timeout_s=settings.headers_timeout_s,
                body_timeout_s=settings.body_timeout_s,
                max_bodies_bytes=settings.max_bodies_bytes,
            ),
        )
        self._site.observers = self._observers()
        self._site.tracing = self._tracing
        if settings.log_client:
            self._site.describe_client = partial(
                client_fields, proxies=settings.trusted_proxies, wanted=settings.log_client
            )
        self._site.digest_key = self.digest_key
        try:
            self._listener.start(self._site, self._listens).addErrback(self.ready.errback)
        except StartError:
            ensureDeferred(run_steps(*self._release()))
            raise

    def _observers(self) -> list[Observer]:
        if self._settings.metrics_listen is None:
            return [log_request]
        # Imported only if needed: importing it takes time at every start.
        from brunix_twisted.observability.metrics import Metrics  # noqa: PLC0415 - see above

        self.metrics = Metrics(self._reactor, self._read)
        self.metrics.start()
        return [log_request, self.metrics.observe]

    def _read(self) -> Readings:
        return Readings(
            requests=self._site.requests,
            streams=self._completion.in_flight.streams,
            waiting=self._admission.waiting,
            queue_size=self._admission.queue_size,
            busy=self._admission.busy,
            places=self._admission.places,
            processes=self.processes,
            state=self._state.readings,
        )

    def expose(self, accept: str) -> Deferred[tuple[bytes, bytes]]:
        """
        Return the metrics: content type and body.

        :param accept: the scraper's ``Accept`` header, which selects one of Prometheus's formats.
        """
        if self.metrics is None:
            raise RuntimeError("the service has not been started, or PROXY_METRICS_LISTEN is not set")
        return succeed(self.metrics.exposition(accept))

    def startService(self) -> None:
        """Start. The first request is accepted once the reactor runs."""
        if not self._listener.has_started:
            self.privilegedStartService()
        # Not earlier: its files belong to the user that twistd has switched to.
        self._state.start()
        super().startService()

    def _listens(self, port: IListeningPort) -> None:
        configure_port(port)
        names = self._settings.allowed_hosts
        if names or is_loopback(port.getHost()):
            # Against DNS rebinding: a web page could otherwise reach a loopback port by a name that resolves to it.
            self._site.hosts = Hosts(names | {gethostname().lower()})
        self.ready.callback(port.getHost())

    @property
    def port(self) -> IListeningPort:
        """The listening port."""
        if self._listener.port is None:
            raise RuntimeError("the service does not listen")
        return self._listener.port

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, wait for running answers until the drain deadline, then close everything.

        Fires when all threads of the gateway have ended.
        """
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        super().stopService()
        if self._is_stopped or not self._listener.has_started:
            return
        self._is_stopped = True
        seconds, drain_s = self._reactor.seconds, self._settings.drain_s
        began_s = seconds()
        clock = cast("IReactorTime", self._reactor)
        await run_steps(
            # The socket may outlive this process: then the next process serves connections that are not accepted yet.
            # This process must serve all accepted connections.
            ("accept what waits at the port", lambda: accept_waiting(self._listener.port, clock)),
            ("close the port", lambda: self._listener.stop().addTimeout(_CLOSED_S, clock)),
            ("receive the requests in flight", lambda: self._site.drain_incoming(min(_ARRIVAL_S, drain_s))),
            # A large body may still be parsed on another thread. Its question must be admitted before the drain.
            ("parse the received bodies", lambda: self._site.bodies.when_idle().addTimeout(_CANCELLED_S, clock)),
            # From here on no question is admitted, not even on an open connection.
            ("drain the answers", lambda: self._completion.in_flight.drain(max(0, began_s + drain_s - seconds()))),
            # Until now, proxies could not know that they should use other connections. No longer than the drain, from
            # whose end a supervisor counts the time that it gives the process.
            (
                "answer the requests on their way",
                lambda: self._site.linger(_QUIET_S, min(_LINGER_S, began_s + drain_s - seconds())),
            ),
            # A cancelled call must end before the channel and the threads that it uses are closed. If it does not end
            # in time, the process exits anyway.
            ("await the engine calls", lambda: self._admission.when_idle().addTimeout(_CANCELLED_S, clock)),
            # The process exits soon after this, and loses data that its sockets have not sent.
            ("close the connections", lambda: self._site.close(_FLUSH_S)),
            (
                "write the conversations",
                lambda: ensureDeferred(self._sessions.when_written()).addTimeout(_WRITTEN_S, clock),
            ),
            ("stop parsing", self._site.bodies.stop),
            *self._release(),
        )

    def _release(self) -> list[Step]:
        """List the last steps of a stop, which close what the start has created."""
        steps: list[Step] = []
        if self.metrics is not None:
            steps.append(("stop the metrics", self.metrics.stop))
        steps.append(("close the state", self._state.close))
        # Last: a gRPC channel must not be used after it is closed.
        steps.append(("close the channel to the engine", self._engine.close))
        if self._tracing is not None:
            steps.append(("export the last spans", self._tracing.stop))
        return steps


def _engine(reactor: Reactor, settings: Settings) -> Engine:
    target, timeout_s, tls = settings.grpc_target, settings.engine_timeout_s, tls_of(settings)
    limits = limits_of(settings)
    if settings.engine_client == "aio":
        return AioEngine(target, timeout_s, tls, limits)
    return BlockingEngine(reactor, target, timeout_s, tls, limits, workers=settings.thread_workers)


def _tracing(reactor: Reactor, settings: Settings, digest_key: bytes) -> Tracing | None:
    if settings.traces == "off":
        return None
    # Imported only if needed: OpenTelemetry is an optional dependency.
    from brunix_twisted.observability.tracing import Tracing  # noqa: PLC0415 - see above

    try:
        return Tracing(reactor, settings, digest_key)
    # OpenTelemetry reads the variables OTEL_… and may raise anything.
    except Exception as fault:
        raise StartError(f"twistd brunix: PROXY_TRACES is {settings.traces!r}, but: {fault}") from fault


def limits_of(settings: Settings) -> ConnectionLimits:
    """Return the limits of the connection to the engine."""
    return ConnectionLimits(settings.grpc_connect_timeout_s, settings.grpc_ack_timeout_s, settings.max_answer_bytes)


def tls_of(settings: Settings) -> Tls | None:
    """Return the TLS files and name for the engine; None without TLS."""
    if settings.grpc_tls_ca is None:
        return None
    return Tls(
        settings.grpc_tls_ca,
        certificate=settings.grpc_tls_cert,
        key=settings.grpc_tls_key,
        name=settings.grpc_tls_name,
    )


def is_loopback(address: IAddress) -> bool:
    """Return whether only programs on this machine reach an address, by TCP."""
    return isinstance(address, IPv4Address | IPv6Address) and ip_address(address.host).is_loopback
