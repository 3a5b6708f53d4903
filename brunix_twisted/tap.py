"""``twistd brunix``: from the command line and the environment to a service."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from importlib.util import find_spec
from types import FrameType
from typing import Any, ClassVar, cast

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

from brunix_twisted.app.check import check, engine_in_words
from brunix_twisted.app.service import GatewayService
from brunix_twisted.app.systemd import Notifier, NotifyingService
from brunix_twisted.config.settings import SettingError, Settings, table
from brunix_twisted.config.unknown_variables import unknown
from brunix_twisted.engine.proxies import proxy_for
from brunix_twisted.observability.logs import twistd_observer
from brunix_twisted.observability.metrics_endpoint import Exporter
from brunix_twisted.processes.shared_sockets import AdoptSocketReactor, BindOnlyReactor
from brunix_twisted.processes.supervisor import Supervisor
from brunix_twisted.runtime.listening import StartError
from brunix_twisted.runtime.private_names import check_private_names
from brunix_twisted.runtime.reactors import Reactor, use_monotonic_clock
from brunix_twisted.runtime.shutdown import run_steps, stop_with_failure

_log = Logger()


class Options(BaseOptions):
    """One option for each setting; what is not given comes from the environment."""

    longdesc = "Serves the Brunix Assistance Engine to clients of OpenAI's, Anthropic's and Ollama's HTTP APIs."
    optParameters: ClassVar[list[list[str | None]]] = [
        [row.option, None, None, f"{row.meaning} [${row.variable}, default: {row.default or 'none'}]"]
        for _, row in table()
    ]
    optFlags: ClassVar[list[list[str | None]]] = [
        ["check", None, "Say whether the gateway would serve with these settings, and end with status 0 or 1."]
    ]

    def postOptions(self) -> None:
        """Look, if no more is asked for, before twistd becomes a daemon or writes a file."""
        if self["check"]:
            _check(self)


class _Gateway(MultiService):
    """What twistd runs: services that start one after the other and end in the opposite order, and their log."""

    def __init__(self, observer: ILogObserver | None) -> None:
        super().__init__()
        self._observer = observer

    def setServiceParent(self, parent: object) -> None:
        """Take part in an application, which twistd asks where it is to log to."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start, and from now on let SIGHUP stop the process as SIGTERM does."""
        _stop_on_sighup()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """End each service when the one after it has ended."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        self.running = False
        await run_steps(*((f"stop {type(one).__name__}", one.stopService) for one in reversed(list(self))))


def _stop_on_sighup() -> None:
    """
    Let SIGHUP, which a terminal sends when it is closed, do what SIGTERM does; otherwise it kills at once.

    Not if it is ignored, as nohup has it.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _hang_up)


def _hang_up(*_: object) -> None:
    # Shell and terminal may each send one.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _log.info("Received SIGHUP, which stops the gateway like SIGTERM.")
    signal.raise_signal(signal.SIGTERM)


def _stop_once() -> None:
    """Let only the first signal stop the gateway: a second one changes nothing, and Twisted logs an error for it."""
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
    Make the gateway's service, as twistd asks for it. Nothing is started.

    :raises StartError: a setting is not allowed.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs one, and which is twistd's to choose

    use_monotonic_clock(reactor)
    # Once the reactor has put its own handlers in place.
    cast("ReactorBase", reactor).callWhenRunning(_stop_once)
    try:
        settings = Settings.read(os.environ, options)
        _check_reactor(reactor, settings)
        _check_traces(os.environ, settings)
        check_private_names(settings.engine_client)
        sharing = BindOnlyReactor(reactor) if settings.processes > 1 else None
        endpoint = _endpoint(AdoptSocketReactor(reactor) if sharing is None else sharing, settings.listen)
        metrics = settings.metrics_listen
        metrics_endpoint = None if metrics is None else _endpoint(reactor, metrics, "PROXY_METRICS_LISTEN")
    except SettingError as error:
        raise StartError(f"twistd brunix: {error}") from None
    for sentence in unknown(os.environ):
        _log.warn("{sentence}", sentence=sentence)
    service: GatewayService | Supervisor
    if sharing is None:
        service = GatewayService(cast("Reactor", reactor), settings, endpoint)
    else:
        service = Supervisor(sharing, settings, _given(os.environ, options), endpoint)
    service.ready.addCallbacks(_tell, lambda failure: _give_up(failure, reactor), callbackArgs=(settings,))
    gateway = _Gateway(twistd_observer(getattr(options, "parent", None) or {}, settings.log_format))
    if metrics is not None and metrics_endpoint is not None:
        # First, so that nothing has been started if it cannot listen, and an end is told of to its last moment.
        exporter = Exporter(metrics_endpoint, metrics, service.expose)
        exporter.ready.addErrback(_give_up, reactor).addErrback(lambda _: None)
        exporter.setServiceParent(gateway)
    notifier = Notifier.read(os.environ, os.getpid())
    if notifier is None:
        service.ready.addErrback(lambda _: None)
        service.setServiceParent(gateway)
        return gateway
    # The drain, and what comes after it.
    stop_s = settings.drain_s + 10
    clock = cast("Reactor", reactor)
    notifying = NotifyingService(clock, notifier, service, lambda: engine_in_words(clock, settings), stop_s)
    notifying.setServiceParent(gateway)
    return gateway


def _check(options: Mapping[str, str | None]) -> None:
    """
    Look, say what was found, and end the process.

    :raises StartError: a setting is not allowed.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - as in makeService

    use_monotonic_clock(reactor)
    try:
        settings = Settings.read(os.environ, options)
        _check_reactor(reactor, settings)
        _check_traces(os.environ, settings)
        check_private_names(settings.engine_client)
        # Whoever looks was seldom started by systemd, which alone has the gateway's socket.
        endpoint = None if settings.listen.startswith("systemd:") else _endpoint(reactor, settings.listen)
        if settings.metrics_listen is not None:
            _endpoint(reactor, settings.metrics_listen, "PROXY_METRICS_LISTEN")
    except SettingError as error:
        raise StartError(f"twistd brunix: {error}") from None

    async def look(clock: Reactor) -> None:
        if not await check(clock, settings, endpoint, os.environ, options):
            raise SystemExit(1)

    react(lambda clock: ensureDeferred(look(clock)), _reactor=reactor)


def _given(environment: Mapping[str, str], options: Mapping[str, str | None]) -> dict[str, str]:
    """Put all that was chosen into options, from which a process that has no command line reads the same settings."""
    variables = {row.option: text for _, row in table() if (text := environment.get(row.variable))}
    return variables | {row.option: text for _, row in table() if (text := options.get(row.option)) is not None}


def _tell(address: IAddress, settings: Settings) -> IAddress:
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
    """End the gateway, which cannot listen; that was not known yet when it started."""
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
        allowed = "off, or otlp where OpenTelemetry is installed: pip install 'brunix-twisted[otel]'"
        raise SettingError("PROXY_TRACES", settings.traces, allowed)
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if environment.get(variable, "") not in {"", "grpc"}:
            raise SettingError(variable, environment[variable], "grpc, which collectors listen for on port 4317")


def _endpoint(
    reactor: Any,  # noqa: ANN401 - what the module is, no type says
    description: str,
    variable: str = "PROXY_LISTEN",
) -> IStreamServerEndpoint:
    try:
        return cast("IStreamServerEndpoint", serverFromString(reactor, description))
    # Each kind of endpoint is read by code of its own, plugins among them, and fails in its own way.
    except Exception as fault:
        allowed = next(row.rule.allowed for _, row in table() if row.variable == variable)
        if isinstance(fault, LookupError) and "systemd:" in description:
            fault = LookupError("systemd has handed over no such socket: is the .socket unit started?")
        raise SettingError(variable, description, f"{allowed} ({fault})") from fault
