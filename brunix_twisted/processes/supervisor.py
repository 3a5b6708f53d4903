"""The supervisor: binds the socket, starts the gateway processes that accept from it, and replaces those that die."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from brunix_twisted.config.settings import Settings
from brunix_twisted.errors import StartError
from brunix_twisted.model import Processes
from brunix_twisted.processes.accept_balancing import ConnectionCounts, shared_memory
from brunix_twisted.processes.ipc import CONNECTION_COUNTS, CONTROL, EXIT_S, MESSAGES, SOCKET, Setup
from brunix_twisted.processes.process import EXITED, GatewayProcess
from brunix_twisted.processes.shared_sockets import BindOnlyReactor
from brunix_twisted.runtime.listening import Listener
from brunix_twisted.runtime.reactors import cancel_when_fired
from brunix_twisted.runtime.shutdown import Step, run_steps
from brunix_twisted.state.selection import StateSetup, set_up_state

if TYPE_CHECKING:
    from brunix_twisted.observability.metrics import Sum

_log = Logger("brunix.processes")

# Restart delay after the first failure. Not zero: if a signal was sent to all processes of the gateway, it reaches the
# supervisor before the restart.
_MIN_RESTART_S: Final = 0.1
# The delay doubles with each failure, up to this.
_MAX_RESTART_S: Final = 30.0
# A process that has served for this long counts as started successfully, and resets the delay.
_STABLE_S: Final = 10.0
# Maximum time to wait for the metrics of a process; after it, the last ones are used.
_METRICS_TIMEOUT_S: Final = 2.0
# How long one iteration of the reactor waits for events while the processes start.
_ITERATION_S: Final = 0.05
# Maximum time for a killed process to end. The system may be unable to end it.
_KILLED_S: Final = 5.0
# The signals that stop the gateway.
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class SharedSocket(Factory):
    """The factory of the supervisor's port, which never accepts. Twisted logs its name."""

    protocol = Protocol
    noisy = False


class Supervisor(Service):
    """
    Owns the listening socket and the processes that accept from it.

    The processes are numbered from 0. A replacement keeps the number.
    """

    start_timeout_s = 60.0
    """Maximum time for a process to start serving, and for an endpoint to listen."""

    def __init__(
        self, reactor: BindOnlyReactor, settings: Settings, given: Mapping[str, str], endpoint: IStreamServerEndpoint
    ) -> None:
        """
        Prepare to serve; start nothing yet.

        :param endpoint: an endpoint created with this reactor.
        :param given: the values by option from which the settings were read.
        """
        self._reactor = reactor
        self._settings = settings
        self._given = dict(given)
        self._listener = Listener(endpoint, "PROXY_LISTEN", settings.listen)
        self.ready: Deferred[IAddress] = Deferred()
        """Fires with the address once all processes have started to accept connections."""
        self._digest_key = token_hex(16)
        self._state = StateSetup("")
        self._running: dict[int, GatewayProcess] = {}
        self._deadlines: dict[GatewayProcess, IDelayedCall] = {}
        """The start timeouts of the processes that do not serve yet."""
        self._signal: int | None = None
        """The stop signal received during the start."""
        self._failures: Counter[int] = Counter()
        self._restarts = 0
        self._pending_restarts: dict[int, IDelayedCall] = {}
        self._have_started = False
        self._fault: str | None = None
        self._all_exited: Deferred[None] | None = None
        self._metrics = _sum(lambda: self._processes(0)) if settings.metrics_listen is not None else None

    def privilegedStartService(self) -> None:
        """
        Bind the socket.

        twistd calls this before it drops privileges, so a port below 1024 can be opened.

        :raises StartError: the endpoint cannot listen, or several processes cannot share its socket.
        """
        listen = self._settings.listen
        late: list[StartError] = []

        def refused(failure: Failure) -> None:
            late.append(cast("StartError", failure.value))

        self._listener.start(SharedSocket(), _ignore).addErrback(refused)
        give_up_s = self._reactor.seconds() + self.start_timeout_s
        with self._handle_stop_signals():
            while self._listener.port is None and not late and self._signal is None:
                if self._reactor.seconds() >= give_up_s:
                    self._listener.stop()
                    why = f"did not listen within {self.start_timeout_s:g} s"
                    raise StartError(f"twistd brunix: PROXY_LISTEN is {listen!r}: {why}")
                self._iterate()
        if late:
            raise late[0]
        if self._reactor.port is None and self._signal is None:
            raise StartError(
                f"twistd brunix: PROXY_LISTEN is {listen!r}; allowed with PROXY_PROCESSES={self._settings.processes}: "
                "an endpoint whose socket processes can share, such as tcp, tcp6, unix, ssl or systemd"
            )

    def startService(self) -> None:
        """
        Start the processes, and return once all of them serve.

        A stop signal interrupts the start. It is sent again once the reactor runs, and then stops the gateway normally.

        :raises StartError: a process cannot serve. All other processes have been stopped.
        """
        if not self._listener.has_started:
            self.privilegedStartService()
        super().startService()
        self._counts_memory = shared_memory(self._settings.processes)
        # Not earlier: it belongs to the user that twistd has switched to.
        self._state = set_up_state(self._settings)
        with self._handle_stop_signals():
            if self._signal is None:
                for number in range(self._settings.processes):
                    self._start(number)
            # The exit status of twistd, and the report of a daemon to its shell, depend on the outcome of this method.
            # So it runs the reactor itself until the outcome is known.
            while not self._have_started and self._fault is None and self._signal is None:
                self._iterate()
            if self._fault is not None:
                self._abandon()
                raise StartError(self._fault)
            if self._signal is not None:
                self._kill(self._deadlines)
        if self._signal is not None:
            self._reactor.callWhenRunning(os.kill, os.getpid(), self._signal)

    def _abandon(self) -> None:
        """Stop everything that has been started."""
        self._kill(self._running.values())
        closed = self._listener.stop()
        give_up_s = self._reactor.seconds() + _KILLED_S
        while (self._running or not closed.called) and self._reactor.seconds() < give_up_s:
            self._iterate()
        self._state.remove()

    @contextmanager
    def _handle_stop_signals(self) -> Iterator[None]:
        """
        Handle stop signals until twistd does, when its reactor runs.

        Otherwise they would kill the supervisor at once, and leave processes that hang in their start.
        """
        before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
        handled = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in handled:
            signal.signal(number, self._signal_received)
        try:
            yield
        finally:
            for number in handled:
                signal.signal(number, before[number])

    def _signal_received(self, number: int, _: object) -> None:
        self._signal = number

    def _iterate(self) -> None:
        self._reactor.iterate(_ITERATION_S)
        # Until the reactor runs, it has no handler for SIGCHLD.
        reapAllProcesses()

    def _start(self, number: int) -> None:
        self._pending_restarts.pop(number, None)
        module, processes = type(self._reactor.real).__module__, self._processes(number)
        setup = Setup(module, self._given, processes, self._digest_key, self._state)
        process = GatewayProcess(setup, self._reactor.seconds, self._changed, self._ended)
        self._running[number] = process
        self._deadlines[process] = self._reactor.callLater(self.start_timeout_s, self._too_late, process)
        command = [sys.executable, "-P", "-m", "brunix_twisted.processes", str(number)]
        descriptors = {
            CONTROL: "w",
            1: "r",
            2: "r",
            SOCKET: self._port.fileno(),
            MESSAGES: "r",
            CONNECTION_COUNTS: self._counts_memory,
        }
        try:
            self._reactor.spawnProcess(process, command[0], command, env=None, childFDs=descriptors)
        except OSError as fault:
            self._ended(process, f"cannot be started: {fault.strerror}")

    def _too_late(self, process: GatewayProcess) -> None:
        process.is_late = True
        process.kill()

    def _cancel_deadline(self, process: GatewayProcess) -> None:
        deadline = self._deadlines.pop(process, None)
        if deadline is not None and deadline.active():
            deadline.cancel()

    @property
    def _port(self) -> Any:  # noqa: ANN401 - no interface covers Twisted's ports
        return self._reactor.port

    def _processes(self, number: int) -> Processes:
        serving = sum(process.serves for process in self._running.values())
        return Processes(number, self._settings.processes, serving, self._restarts)

    def _broadcast(self) -> None:
        for number, process in self._running.items():
            process.send(self._processes(number))

    def _changed(self, process: GatewayProcess) -> None:
        self._cancel_deadline(process)
        does = "serves" if process.serves else "drains"
        _log.info("Process {number} {does} (pid {pid})", number=process.number, does=does, pid=process.pid)
        self._broadcast()
        if not self._have_started and self._processes(0).running == self._settings.processes:
            self._have_started = True
            # Once the reactor runs: a program that reacts to this with a stop signal must succeed.
            self._reactor.callWhenRunning(self.ready.callback, self._port.getHost())

    def _ended(self, process: GatewayProcess, how: str) -> None:
        number = process.number
        del self._running[number]
        self._cancel_deadline(process)
        if process.is_late:
            how = f"was not ready within {self.start_timeout_s:g} s and was killed"
        if self._metrics is not None:
            self._metrics.retire(process.metrics)
        # A process that crashed has not withdrawn itself.
        ConnectionCounts(self._counts_memory, number, self._settings.processes).withdraw()
        if self._all_exited is not None:
            if how != EXITED:
                _log.warn("Process {number} (pid {pid}) {how}", number=number, pid=process.pid, how=how)
            if not self._running:
                self._all_exited.callback(None)
            return
        if not self._have_started:
            # Short, because twistd passes only the first 100 bytes from a daemon to its shell.
            self._fault = self._fault or process.fault or f"twistd brunix: process {number} {how}"
            return
        served_since_s = process.served_since_s
        if served_since_s is not None and self._reactor.seconds() - served_since_s >= _STABLE_S:
            self._failures[number] = 0
        pause_s = min(_MIN_RESTART_S * 2.0 ** min(self._failures[number], 10), _MAX_RESTART_S)
        self._failures[number] += 1
        self._restarts += 1
        _log.emit(
            LogLevel.info if how == EXITED else LogLevel.error,
            "Process {number} (pid {pid}) {how}; restarting in {pause_s:g} s",
            number=number,
            pid=process.pid,
            how=process.fault or how,
            pause_s=pause_s,
        )
        self._pending_restarts[number] = self._reactor.callLater(pause_s, self._start, number)
        self._broadcast()

    def expose(self, accept: str) -> Deferred[tuple[bytes, bytes]]:
        """Return the sum over all processes; see :meth:`brunix_twisted.app.service.GatewayService.expose`."""
        return ensureDeferred(self._expose(accept))

    async def _expose(self, accept: str) -> tuple[bytes, bytes]:
        if self._metrics is None:
            raise RuntimeError("PROXY_METRICS_LISTEN is not set")
        # During a stop, the pipes to the processes are closed.
        serving = [process for process in self._running.values() if process.serves and self._all_exited is None]
        clock = cast("IReactorTime", self._reactor)
        requests = [process.request_metrics().addTimeout(_METRICS_TIMEOUT_S, clock) for process in serving]
        await DeferredList(requests, consumeErrors=True)
        texts = {number: process.metrics for number, process in self._running.items()}
        return self._metrics.exposition(texts, accept)

    def stopService(self) -> Deferred[None]:
        """
        Ask every process to drain and exit.

        Fires when all have exited. Processes that hang are killed.
        """
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        super().stopService()
        if self._all_exited is not None or not self._listener.has_started:
            return
        all_exited = self._all_exited = Deferred()
        steps: list[Step] = [("cancel a restart", restart.cancel) for restart in self._pending_restarts.values()]
        for process in self._running.values():
            # A process that does not serve yet has no answers to drain, and may hang.
            stop = process.kill if process in self._deadlines else process.stop
            steps.append((f"stop process {process.number}", stop))
        # The processes close their descriptors of the socket too. After the last, connections are refused.
        await run_steps(*steps, ("close the socket", self._listener.stop))
        await self._all_have_exited(all_exited)
        await run_steps(("remove the private state", self._state.remove))

    async def _all_have_exited(self, all_exited: Deferred[None]) -> None:
        if not self._running:
            return
        exit_s = self._settings.drain_s + EXIT_S
        cancel_when_fired(all_exited, self._reactor.callLater(exit_s, self._kill_late))
        clock = cast("IReactorTime", self._reactor)
        await run_steps(("await the exit of the processes", lambda: all_exited.addTimeout(exit_s + _KILLED_S, clock)))

    def _kill_late(self) -> None:
        for process in self._running.values():
            _log.error("Process {number} (pid {pid}) hangs: killing it", number=process.number, pid=process.pid)
        self._kill(self._running.values())

    def _kill(self, processes: Iterable[GatewayProcess]) -> None:
        for process in tuple(processes):
            try:
                process.kill()
            except Exception:  # noqa: BLE001 - the other processes must be killed too
                _log.failure("Could not kill process {number}", number=process.number)


def _ignore(_: IListeningPort) -> None:
    """Ignore the port: the supervisor uses the socket, which the reactor keeps."""


def _sum(read: Callable[[], Processes]) -> Sum:
    # Imported only if needed: importing it takes time at every start.
    from brunix_twisted.observability.metrics import Sum  # noqa: PLC0415 - see above

    return Sum(read)
