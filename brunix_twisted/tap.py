"""``twistd brunix``: builds the service from the command line and the environment."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, cast

from twisted.application.service import IService, MultiService
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IStreamServerEndpoint
from twisted.internet.task import react
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.usage import Options as BaseOptions

import twisted
from brunix_twisted import __version__
from brunix_twisted.app.systemd import Notifier, NotifyingService
from brunix_twisted.config.rules import SettingError
from brunix_twisted.config.settings import Settings, table
from brunix_twisted.config.unknown_variables import unknown
from brunix_twisted.engine.affinity import why_not
from brunix_twisted.engine.proxies import proxy_for
from brunix_twisted.errors import StartError
from brunix_twisted.observability.logs import twistd_observer
from brunix_twisted.processes.shared_sockets import AdoptSocketReactor, BindOnlyReactor
from brunix_twisted.processes.supervisor import Supervisor
from brunix_twisted.runtime.garbage import collect_less_often
from brunix_twisted.runtime.imports import without_collecting
from brunix_twisted.runtime.private_names import check_private_names
from brunix_twisted.runtime.reactors import Reactor, use_monotonic_clock
from brunix_twisted.runtime.shutdown import run_steps, stop_with_failure
from brunix_twisted.state.selection import check_state_package

if TYPE_CHECKING:
    from brunix_twisted.app.service import GatewayService

# Functions below import what not every start needs. A supervisor serves no request: it starts faster, and takes 10 MB
# less, without the modules that do.

_log = Logger("brunix.gateway")


class Options(BaseOptions):
    """One option for each setting. A setting without an option comes from the environment."""

    longdesc = "Serves the Brunix Assistance Engine to clients of OpenAI's, Anthropic's and Ollama's HTTP APIs."
    optParameters: ClassVar[list[list[str | None]]] = [
        [row.option, None, None, f"{row.meaning} [${row.variable}, default: {row.default or 'none'}]"]
        for _, row in table()
    ]
    optFlags: ClassVar[list[list[str | None]]] = [
        ["check", None, "Check whether the gateway can start with these settings; exit with status 0 or 1."]
    ]

    def opt_version(self) -> None:
        """Print the version of the gateway and of Twisted, and exit."""
        sys.stdout.write(f"brunix {__version__} (Twisted {twisted.__version__})\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Run ``--check``, if given, before twistd becomes a daemon or writes a file."""
        if self["check"]:
            _check(self)


class _Gateway(MultiService):
    """The service that twistd runs: starts its children in order, stops them in reverse order, and sets the log."""

    def __init__(self, observer: ILogObserver | None) -> None:
        super().__init__()
        self._observer = observer

    def setServiceParent(self, parent: object) -> None:
        """Set the application's log observer, which twistd reads, and join the application."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start, and make SIGHUP stop the process like SIGTERM."""
        _stop_on_sighup()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Stop the services in reverse order, one at a time."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        self.running = False
        await run_steps(*((f"stop {type(one).__name__}", one.stopService) for one in reversed(list(self))))


def _stop_on_sighup() -> None:
    """
    Make SIGHUP, which a closing terminal sends, drain the gateway like SIGTERM instead of killing it.

    An ignored SIGHUP stays ignored: nohup sets that.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _hang_up)


def _hang_up(*_: object) -> None:
    # The shell and the terminal may each send one.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _log.info("Received SIGHUP, which stops the gateway like SIGTERM.")
    signal.raise_signal(signal.SIGTERM)


def _stop_once() -> None:
    """Ignore the stop signals after the first: stopping twice has no effect, and Twisted logs an error for it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: FrameType | None) -> None:
        for each, handler in handlers.items():
            if callable(handler):
                signal.signal(each, lambda *_: None)
        stopping = handlers[signal.Signals(number)]
        if callable(stopping):
            stopping(number, frame)

    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, stop)


def makeService(options: Mapping[str, str | None]) -> IService:
    """
    Build the gateway's service for twistd, and start nothing.

    :raises StartError: a setting has a value that is not allowed.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs one, and twistd chooses which

    use_monotonic_clock(reactor)
    # After the reactor has installed its signal handlers.
    cast("ReactorBase", reactor).callWhenRunning(_stop_once)
    cast("ReactorBase", reactor).callWhenRunning(collect_less_often)
    try:
        settings = Settings.read(os.environ, options)
        _check_reactor(reactor, settings)
        _check_traces(os.environ, settings)
        check_state_package(settings)
        check_private_names()
        sharing = BindOnlyReactor(reactor) if settings.processes > 1 else None
        endpoint = _endpoint(AdoptSocketReactor(reactor) if sharing is None else sharing, settings.listen)
        metrics = settings.metrics_listen
        metrics_endpoint = None if metrics is None else _endpoint(reactor, metrics, "PROXY_METRICS_LISTEN")
    except SettingError as error:
        raise StartError(f"twistd brunix: {error}") from None
    for sentence in unknown(os.environ):
        _log.warn("{sentence}", sentence=sentence)
    if (reason := why_not(settings.grpc_target, os.environ)) is not None:
        _log.warn("{reason}", reason=reason)
    service: GatewayService | Supervisor
    if sharing is None:
        service = _alone(cast("Reactor", reactor), settings, endpoint)
    else:
        service = Supervisor(sharing, settings, _given(os.environ, options), endpoint)
    service.ready.addCallbacks(_log_address, lambda failure: _give_up(failure, reactor), callbackArgs=(settings,))
    gateway = _Gateway(twistd_observer(getattr(options, "parent", None) or {}, settings.log_format))
    if metrics is not None and metrics_endpoint is not None:
        from brunix_twisted.observability.metrics_endpoint import Exporter  # noqa: PLC0415 - see the top

        # First, so that nothing else has started if it cannot listen, and the drain can be scraped until its end.
        exporter = Exporter(metrics_endpoint, metrics, service.expose)
        exporter.ready.addErrback(_give_up, reactor).addErrback(lambda _: None)
        exporter.setServiceParent(gateway)
    notifier = Notifier.read(os.environ, os.getpid())
    if notifier is None:
        service.ready.addErrback(lambda _: None)
        service.setServiceParent(gateway)
        return gateway
    # The drain, and the steps after it.
    stop_s = settings.drain_s + 10
    clock = cast("Reactor", reactor)
    notifying = NotifyingService(clock, notifier, service, lambda: _check_engine(clock, settings), stop_s)
    notifying.setServiceParent(gateway)
    return gateway


def _alone(reactor: Reactor, settings: Settings, endpoint: IStreamServerEndpoint) -> GatewayService:
    """Build the service of a gateway of one process."""
    with without_collecting():
        from brunix_twisted.app.service import GatewayService  # noqa: PLC0415 - see the top

    return GatewayService(reactor, settings, endpoint)


def _check_engine(reactor: Reactor, settings: Settings) -> Deferred[str]:
    from brunix_twisted.app.check import check_engine_status  # noqa: PLC0415 - see the top

    return check_engine_status(reactor, settings)


def _check(options: Mapping[str, str | None]) -> None:
    """
    Run the checks, print their results and exit.

    :raises StartError: a setting has a value that is not allowed.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - as in makeService

    from brunix_twisted.app.check import check  # noqa: PLC0415 - see the top

    use_monotonic_clock(reactor)
    try:
        settings = Settings.read(os.environ, options)
        _check_reactor(reactor, settings)
        _check_traces(os.environ, settings)
        check_state_package(settings)
        check_private_names()
        # Only systemd has this socket, and --check rarely runs as a systemd service.
        endpoint = None if settings.listen.startswith("systemd:") else _endpoint(reactor, settings.listen)
        if settings.metrics_listen is not None:
            _endpoint(reactor, settings.metrics_listen, "PROXY_METRICS_LISTEN")
    except SettingError as error:
        raise StartError(f"twistd brunix: {error}") from None

    async def run_check(clock: Reactor) -> None:
        if not await check(clock, settings, endpoint, os.environ, options):
            raise SystemExit(1)

    react(lambda clock: ensureDeferred(run_check(clock)), _reactor=reactor)


def _given(environment: Mapping[str, str], options: Mapping[str, str | None]) -> dict[str, str]:
    """Merge environment and options into options, from which another process reads the same settings."""
    variables = {row.option: text for _, row in table() if (text := environment.get(row.variable))}
    return variables | {row.option: text for _, row in table() if (text := options.get(row.option)) is not None}


def _log_address(address: IAddress, settings: Settings) -> IAddress:
    proxy = proxy_for(settings.grpc_target, os.environ)
    _log.info(
        "Serving the model {model} on {address}; the engine is at {target}{through}",
        model=settings.model_id,
        address=address,
        target=settings.grpc_target,
        through="" if proxy is None else f", through the proxy {proxy}",
    )
    return address


def _give_up(failure: Failure, reactor: object) -> Failure:
    """Stop the gateway because an endpoint failed to listen after the start."""
    stop_with_failure(reactor, failure.getErrorMessage())
    return failure


def _check_reactor(reactor: object, settings: Settings) -> None:
    if settings.engine_client == "aio" and not isinstance(reactor, AsyncioSelectorReactor):
        raise SettingError("PROXY_ENGINE_CLIENT", "aio", "blocking, or aio with twistd --reactor=asyncio")


def _check_traces(environment: Mapping[str, str], settings: Settings) -> None:
    if settings.traces == "off":
        return
    try:
        missing = any(
            find_spec(name) is None for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.grpc")
        )
    except ImportError:
        missing = True
    if missing:
        allowed = "off, or otlp if OpenTelemetry is installed: pip install 'brunix-twisted[otel]'"
        raise SettingError("PROXY_TRACES", settings.traces, allowed)
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if environment.get(variable, "") not in {"", "grpc"}:
            raise SettingError(variable, environment[variable], "grpc, on which collectors listen at port 4317")


def _endpoint(
    reactor: Any,  # noqa: ANN401 - the reactor module has no type
    description: str,
    variable: str = "PROXY_LISTEN",
) -> IStreamServerEndpoint:
    try:
        return cast("IStreamServerEndpoint", serverFromString(reactor, description))
    # Endpoint parsers, among them those of plugins, may raise anything.
    except Exception as fault:
        allowed = next(row.rule.allowed for _, row in table() if row.variable == variable)
        if isinstance(fault, LookupError) and "systemd:" in description:
            fault = LookupError("systemd did not pass this socket: start the .socket unit")
        raise SettingError(variable, description, f"{allowed} ({fault})") from fault
