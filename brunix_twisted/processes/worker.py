"""The body of one gateway process: the gateway's service on a socket inherited from the supervisor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.fdesc import readFromFD, setNonBlocking
from twisted.internet.interfaces import IAddress, IStreamServerEndpoint
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from brunix_twisted.app.service import GatewayService
from brunix_twisted.config.rules import SettingError
from brunix_twisted.config.settings import Settings
from brunix_twisted.errors import StartError
from brunix_twisted.processes.accept_balancing import ConnectionCounts
from brunix_twisted.processes.ipc import (
    CONNECTION_COUNTS,
    CONTROL,
    EXIT_S,
    MESSAGES,
    REQUEST_METRICS,
    SOCKET,
    Lines,
    Messages,
    Setup,
    read_processes,
)
from brunix_twisted.processes.orphan import SupervisorWatch
from brunix_twisted.processes.shared_sockets import SharedAcceptReactor, without_systemd
from brunix_twisted.runtime.garbage import collect_less_often
from brunix_twisted.runtime.private_names import check_private_names
from brunix_twisted.runtime.reactors import use_monotonic_clock
from brunix_twisted.runtime.shutdown import run_steps

# Longer, so that normally the supervisor kills a hanging process and logs it.
_ALARM_S: Final = EXIT_S + 2


def serve(setup: Setup, watch: SupervisorWatch) -> int:
    """Serve until asked to stop, and return the exit status."""
    from twisted.internet import reactor as installed  # noqa: PLC0415 - main has installed the right one by now

    reactor: Any = installed
    use_monotonic_clock(reactor)
    supervisor_pid = os.getppid()
    messages = Messages(open(MESSAGES, "wb"))  # noqa: PTH123, SIM115 - a descriptor, open until the process exits
    globalLogBeginner.beginLoggingTo([messages], redirectStandardIO=False)
    try:
        settings = Settings.read({}, setup.settings)
        # The supervisor has checked this, but packages may have been upgraded since it started.
        check_private_names()
        counts = ConnectionCounts(CONNECTION_COUNTS, setup.processes.number, setup.processes.configured)
        endpoint = _endpoint(SharedAcceptReactor(reactor, SOCKET, counts), settings.listen)
        service = GatewayService(reactor, settings, endpoint)
        service.processes = setup.processes
        service.digest_key = bytes.fromhex(setup.digest_key)
        service.state_setup = setup.state
        service.startService()
    except (SettingError, StartError) as error:
        messages.failed(str(error))
        return 1
    stop = _Stop(reactor, settings.drain_s, messages)
    status = 0

    def listens(_: IAddress) -> None:
        # The port has a duplicate, which must be the last descriptor of the socket in this process.
        os.close(SOCKET)
        reactor.callWhenRunning(collect_less_often)
        reactor.callWhenRunning(watch.serves, settings.drain_s + _ALARM_S)
        reactor.callWhenRunning(messages.ready)

    def refused(failure: Failure) -> None:
        nonlocal status
        status = 1
        messages.failed(failure.getErrorMessage())
        reactor.callWhenRunning(reactor.stop)

    def send_metrics() -> None:
        if service.metrics is not None:
            messages.metrics(service.metrics.text())

    control = _Control(reactor, service, stop, send_metrics)
    # Only when the reactor runs: a stop before that would have no effect.
    reactor.callWhenRunning(control.startReading)
    # After the reactor has installed its handler.
    reactor.callWhenRunning(signal.signal, signal.SIGTERM, stop.signal_received)
    service.ready.addCallbacks(listens, refused)
    reactor.addSystemEventTrigger(
        "before",
        "shutdown",
        lambda: ensureDeferred(
            run_steps(("stop the gateway", service.stopService), ("send the metrics", send_metrics))
        ),
    )
    reactor.run()
    if os.getppid() != supervisor_pid:
        # It has died, and cannot remove this. The other processes are ending too.
        setup.state.remove()
    messages.flush()
    return status


def _endpoint(reactor: SharedAcceptReactor, description: str) -> IStreamServerEndpoint:
    try:
        return cast("IStreamServerEndpoint", serverFromString(reactor, without_systemd(description)))
    # The supervisor could read it, but a file that it names may be missing by now, or not readable for this user.
    except Exception as fault:
        raise StartError(f"twistd brunix: PROXY_LISTEN is {description!r}: {fault}") from fault


class _Stop:
    """Stops the process once, even if several signals and the end of the pipe request it."""

    def __init__(self, reactor: Any, drain_s: float, messages: Messages) -> None:  # noqa: ANN401 - no type covers a reactor
        self._reactor = reactor
        self._drain_s = drain_s
        self._messages = messages
        self._requested = False

    def signal_received(self, *_: object) -> None:
        """Handle a signal."""
        self._reactor.callFromThread(self)

    def __call__(self) -> None:
        """Stop the reactor, and with it the service, which drains first."""
        if self._requested:
            return
        self._requested = True
        try:
            self._messages.leaves()
        finally:
            # Ends the process if the reactor hangs and the supervisor is dead.
            signal.setitimer(signal.ITIMER_REAL, self._drain_s + _ALARM_S)
            self._reactor.stop()


class _Control(FileDescriptor):
    """Receives the supervisor's messages, and stops the process when the pipe ends."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - see above
        service: GatewayService,
        stop: Callable[[], None],
        send_metrics: Callable[[], None],
    ) -> None:
        super().__init__(reactor)
        self._service = service
        self._stop = stop
        self._send_metrics = send_metrics
        self._lines = Lines()
        setNonBlocking(CONTROL)

    def fileno(self) -> int:
        return CONTROL

    def doRead(self) -> Exception | Failure | None:
        """Read the available data."""
        ended: Exception | Failure | None = readFromFD(CONTROL, self._data_received)
        return ended

    def _data_received(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            if line == REQUEST_METRICS:
                self._send_metrics()
            else:
                self._service.processes = read_processes(line)

    def connectionLost(self, reason: Failure) -> None:
        """Stop: the supervisor has closed the pipe, or has died."""
        super().connectionLost(reason)
        self._stop()
