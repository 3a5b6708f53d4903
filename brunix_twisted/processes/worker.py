"""What one of several gateway processes does: the gateway's service, on a socket that it was given."""

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
from brunix_twisted.config.settings import SettingError, Settings
from brunix_twisted.processes.accept_balancing import ConnectionCounts
from brunix_twisted.processes.ipc import (
    CONTROL,
    MEASURE,
    MESSAGES,
    SOCKET,
    TURNS,
    Lines,
    Messages,
    Setup,
    read_processes,
)
from brunix_twisted.processes.orphan import SupervisorWatch
from brunix_twisted.processes.shared_sockets import SharedAcceptReactor, without_systemd
from brunix_twisted.runtime.listening import StartError
from brunix_twisted.runtime.private_names import check_private_names
from brunix_twisted.runtime.reactors import use_monotonic_clock
from brunix_twisted.runtime.shutdown import run_steps

LEAVE_S: Final = 8.0
"""
How long after the drain a process may still take to be gone: five seconds for clients to read what has been written,
and what a busy machine adds. Who has not left by then hangs.
"""
# The supervisor is first, and says so in the log.
_ALONE_S: Final = LEAVE_S + 2


def serve(setup: Setup, watch: SupervisorWatch) -> int:
    """Serve until asked to leave, and give the process's exit status."""
    from twisted.internet import reactor as installed  # noqa: PLC0415 - by now the right one is

    reactor: Any = installed
    use_monotonic_clock(reactor)
    messages = Messages(open(MESSAGES, "wb"))  # noqa: PTH123, SIM115 - no path; open as long as there is this process
    globalLogBeginner.beginLoggingTo([messages], redirectStandardIO=False)
    try:
        settings = Settings.read({}, setup.settings)
        # The supervisor has done so, but packages may have been replaced since it started.
        check_private_names(settings.engine_client)
        counts = ConnectionCounts(TURNS, setup.processes.number, setup.processes.configured)
        endpoint = _endpoint(SharedAcceptReactor(reactor, SOCKET, counts), settings.listen)
        service = GatewayService(reactor, settings, endpoint)
        service.processes = setup.processes
        service.digest_key = bytes.fromhex(setup.digest_key)
        service.startService()
    except (SettingError, StartError) as error:
        messages.failed(str(error))
        return 1
    leave = _Leave(reactor, settings.drain_s, messages)
    status = 0

    def listens(_: IAddress) -> None:
        # The port has its own, and the socket is to end with that.
        os.close(SOCKET)
        reactor.callWhenRunning(watch.serves, settings.drain_s + _ALONE_S)
        reactor.callWhenRunning(messages.ready)

    def refused(failure: Failure) -> None:
        nonlocal status
        status = 1
        messages.failed(failure.getErrorMessage())
        reactor.callWhenRunning(reactor.stop)

    def measure() -> None:
        if service.metrics is not None:
            messages.metrics(service.metrics.text())

    control = _Control(reactor, service, leave, measure)
    # Both come again in a turn of the reactor, so that they are there in time.
    reactor.callWhenRunning(control.startReading)
    # Twisted has a handler of its own, put in place when the reactor begins.
    reactor.callWhenRunning(signal.signal, signal.SIGTERM, leave.heard)
    service.ready.addCallbacks(listens, refused)
    reactor.addSystemEventTrigger(
        "before",
        "shutdown",
        lambda: ensureDeferred(run_steps(("stop the gateway", service.stopService), ("tell the metrics", measure))),
    )
    reactor.run()
    messages.flush()
    return status


def _endpoint(reactor: SharedAcceptReactor, description: str) -> IStreamServerEndpoint:
    try:
        return cast("IStreamServerEndpoint", serverFromString(reactor, without_systemd(description)))
    # As when the supervisor read it; but a file that it names may have gone since then, or be another user's.
    except Exception as fault:
        raise StartError(f"twistd brunix: PROXY_LISTEN is {description!r}: {fault}") from fault


class _Leave:
    """Ends the process once, however often and by whomever it is asked to."""

    def __init__(self, reactor: Any, drain_s: float, messages: Messages) -> None:  # noqa: ANN401 - what a reactor is, no type says
        self._reactor = reactor
        self._drain_s = drain_s
        self._messages = messages
        self._asked = False

    def heard(self, *_: object) -> None:
        """Take a signal."""
        self._reactor.callFromThread(self)

    def __call__(self) -> None:
        """Stop the reactor, and with it the service, which drains first."""
        if self._asked:
            return
        self._asked = True
        try:
            self._messages.leaves()
        finally:
            # Should even the reactor hang, and nobody be left to notice: this ends the process.
            signal.setitimer(signal.ITIMER_REAL, self._drain_s + _ALONE_S)
            self._reactor.stop()


class _Control(FileDescriptor):
    """Hears what the supervisor has to tell; its silence for ever, too."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - see above
        service: GatewayService,
        leave: Callable[[], None],
        measure: Callable[[], None],
    ) -> None:
        super().__init__(reactor)
        self._service = service
        self._leave = leave
        self._measure = measure
        self._lines = Lines()
        setNonBlocking(CONTROL)

    def fileno(self) -> int:
        return CONTROL

    def doRead(self) -> Exception | Failure | None:
        """Read what is there."""
        ended: Exception | Failure | None = readFromFD(CONTROL, self._told)
        return ended

    def _told(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            if line == MEASURE:
                self._measure()
            else:
                self._service.processes = read_processes(line)

    def connectionLost(self, reason: Failure) -> None:
        """Leave: the supervisor wants it, or is no more."""
        super().connectionLost(reason)
        self._leave()
