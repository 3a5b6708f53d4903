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
from brunix_twisted.model import Processes
from brunix_twisted.processes.accept_balancing import ConnectionCounts, shared_memory
from brunix_twisted.processes.ipc import CONTROL, MESSAGES, SOCKET, TURNS, Setup
from brunix_twisted.processes.process import LEFT, GatewayProcess
from brunix_twisted.processes.shared_sockets import BindOnlyReactor
from brunix_twisted.processes.worker import LEAVE_S
from brunix_twisted.runtime.listening import Listener, StartError
from brunix_twisted.runtime.reactors import cancel_when_fired
from brunix_twisted.runtime.shutdown import Step, run_steps

if TYPE_CHECKING:
    from brunix_twisted.observability.metrics import Sum

# Who dies is replaced at once: in so short a time nobody notices, while a signal that was sent to all processes of the
# gateway has reached this one too.
_FIRST_PAUSE_S: Final = 0.1
# Each next time it takes twice as long, up to this.
_LONGEST_PAUSE_S: Final = 30.0
# A process that has served for so long did not die of its start.
_STEADY_S: Final = 10.0
# How long a process may take to say what it counts; one that hangs is told of as it was.
_MEASURE_S: Final = 2.0
# How often it is looked whether the processes have started, until the reactor runs.
_LOOK_S: Final = 0.05
# How long a process may take to end once it has been killed. One that the system cannot end is left to it.
_KILLED_S: Final = 5.0
# Whoever sends one of these wants the gateway to end.
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class SharedSocket(Factory):
    """What the supervisor binds a socket for; the name is logged. No connection ever reaches it."""

    protocol = Protocol
    noisy = False


class Supervisor(Service):
    """
    Owns the listening socket and the processes that accept from it, and accepts nothing itself.

    The processes are numbered from 0; one that replaces another has its number.
    """

    _log = Logger()

    start_timeout_s = 60.0
    """How long a process may take from its start until it serves, and an endpoint until it listens."""

    def __init__(
        self, reactor: BindOnlyReactor, settings: Settings, given: Mapping[str, str], endpoint: IStreamServerEndpoint
    ) -> None:
        """
        Prepare to serve; nothing is started yet.

        :param endpoint: made with this reactor.
        :param given: what the settings were read from, by option.
        """
        self._reactor = reactor
        self._settings = settings
        self._given = dict(given)
        self._listener = Listener(endpoint, "PROXY_LISTEN", settings.listen)
        self.ready: Deferred[IAddress] = Deferred()
        """Fires with the address once every process accepts connections from it for the first time."""
        self._digest_key = token_hex(16)
        self._running: dict[int, GatewayProcess] = {}
        self._deadlines: dict[GatewayProcess, IDelayedCall] = {}
        """Of the processes that do not serve yet."""
        self._signal: int | None = None
        """What came to stop the gateway while it was starting."""
        self._failures: Counter[int] = Counter()
        self._restarts = 0
        self._pauses: dict[int, IDelayedCall] = {}
        self._have_started = False
        self._fault: str | None = None
        self._left: Deferred[None] | None = None
        self._metrics = _sum(lambda: self._processes(0)) if settings.metrics_listen is not None else None

    def privilegedStartService(self) -> None:
        """
        Bind the socket.

        twistd calls it while a port below 1024 may still be bound, before it changes its user.

        :raises StartError: the port cannot be listened on, or not by several processes.
        """
        listen = self._settings.listen
        late: list[StartError] = []

        def refused(failure: Failure) -> None:
            late.append(cast("StartError", failure.value))

        self._listener.start(SharedSocket(), _ignore).addErrback(refused)
        give_up_s = self._reactor.seconds() + self.start_timeout_s
        with self._signals_heard():
            while self._listener.port is None and not late and self._signal is None:
                if self._reactor.seconds() >= give_up_s:
                    self._listener.stop()
                    why = f"it did not listen within {self.start_timeout_s:g} s"
                    raise StartError(f"twistd brunix: PROXY_LISTEN is {listen!r}: {why}")
                self._counts()
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

        A signal that asks the gateway to stop ends the start: it is sent again once the reactor runs, and stops the
        gateway as it would at any other time.

        :raises StartError: one of them cannot, and none is left.
        """
        if not self._listener.has_started:
            self.privilegedStartService()
        super().startService()
        self._counts_memory = shared_memory(self._settings.processes)
        with self._signals_heard():
            if self._signal is None:
                for number in range(self._settings.processes):
                    self._start(number)
            # twistd's own exit status, and what it tells the shell that started a daemon, depend on what happens in
            # here. So the reactor has to turn before twistd runs it.
            while not self._have_started and self._fault is None and self._signal is None:
                self._counts()
            if self._fault is not None:
                self._abandon()
                raise StartError(self._fault)
            if self._signal is not None:
                self._kill(self._deadlines)
        if self._signal is not None:
            self._reactor.callWhenRunning(os.kill, os.getpid(), self._signal)

    def _abandon(self) -> None:
        """End all that has been started."""
        self._kill(self._running.values())
        closed = self._listener.stop()
        give_up_s = self._reactor.seconds() + _KILLED_S
        while (self._running or not closed.called) and self._reactor.seconds() < give_up_s:
            self._counts()

    @contextmanager
    def _signals_heard(self) -> Iterator[None]:
        """
        Take signals, for as long as twistd does not because its reactor does not run yet.

        Without this they would end the supervisor at once, and leave processes behind that hang in their start.
        """
        before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
        taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in taken:
            signal.signal(number, self._hear)
        try:
            yield
        finally:
            for number in taken:
                signal.signal(number, before[number])

    def _hear(self, number: int, _: object) -> None:
        self._signal = number

    def _counts(self) -> None:
        self._reactor.iterate(_LOOK_S)
        # Whoever runs the reactor has it told of children that end.
        reapAllProcesses()

    def _start(self, number: int) -> None:
        self._pauses.pop(number, None)
        setup = Setup(type(self._reactor.real).__module__, self._given, self._processes(number), self._digest_key)
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
            TURNS: self._counts_memory,
        }
        try:
            self._reactor.spawnProcess(process, command[0], command, env=None, childFDs=descriptors)
        except OSError as fault:
            self._ended(process, f"cannot be started: {fault.strerror}")

    def _too_late(self, process: GatewayProcess) -> None:
        process.is_late = True
        process.kill()

    def _no_deadline(self, process: GatewayProcess) -> None:
        deadline = self._deadlines.pop(process, None)
        if deadline is not None and deadline.active():
            deadline.cancel()

    @property
    def _port(self) -> Any:  # noqa: ANN401 - Twisted's ports have more than any interface says
        return self._reactor.port

    def _processes(self, number: int) -> Processes:
        serving = sum(process.serves for process in self._running.values())
        return Processes(number, self._settings.processes, serving, self._restarts)

    def _tell(self) -> None:
        for number, process in self._running.items():
            process.tell(self._processes(number))

    def _changed(self, process: GatewayProcess) -> None:
        self._no_deadline(process)
        does = "serves" if process.serves else "leaves"
        self._log.info("Process {number} {does} (pid {pid})", number=process.number, does=does, pid=process.pid)
        self._tell()
        if not self._have_started and self._processes(0).running == self._settings.processes:
            self._have_started = True
            # Not before a signal that is the answer to it would be heard.
            self._reactor.callWhenRunning(self.ready.callback, self._port.getHost())

    def _ended(self, process: GatewayProcess, how: str) -> None:
        number = process.number
        del self._running[number]
        self._no_deadline(process)
        if process.is_late:
            how = f"did not serve within {self.start_timeout_s:g} s, and was killed"
        if self._metrics is not None:
            self._metrics.retire(process.metrics)
        # It may have had no time to say so.
        ConnectionCounts(self._counts_memory, number, self._settings.processes).withdraw()
        if self._left is not None:
            if how != LEFT:
                self._log.warn("Process {number} (pid {pid}) {how}", number=number, pid=process.pid, how=how)
            if not self._running:
                self._left.callback(None)
            return
        if not self._have_started:
            when = "" if process.is_late else " before it served"
            self._fault = self._fault or process.fault or f"twistd brunix: process {number} {how}{when}"
            return
        served_since_s = process.served_since_s
        if served_since_s is not None and self._reactor.seconds() - served_since_s >= _STEADY_S:
            self._failures[number] = 0
        pause_s = min(_FIRST_PAUSE_S * 2.0 ** min(self._failures[number], 10), _LONGEST_PAUSE_S)
        self._failures[number] += 1
        self._restarts += 1
        self._log.emit(
            LogLevel.info if how == LEFT else LogLevel.error,
            "Process {number} (pid {pid}) {how}; another starts in {pause_s:g} s",
            number=number,
            pid=process.pid,
            how=process.fault or how,
            pause_s=pause_s,
        )
        self._pauses[number] = self._reactor.callLater(pause_s, self._start, number)
        self._tell()

    def expose(self, accept: str) -> Deferred[tuple[bytes, bytes]]:
        """See :meth:`brunix_twisted.app.service.GatewayService.expose`; the sum over all processes."""
        return ensureDeferred(self._expose(accept))

    async def _expose(self, accept: str) -> tuple[bytes, bytes]:
        if self._metrics is None:
            raise RuntimeError("nobody wanted any metrics")
        # Who has been asked to leave cannot be asked anything else.
        serving = [process for process in self._running.values() if process.serves and self._left is None]
        clock = cast("IReactorTime", self._reactor)
        await DeferredList([process.measure().addTimeout(_MEASURE_S, clock) for process in serving], consumeErrors=True)
        texts = {number: process.metrics for number, process in self._running.items()}
        return self._metrics.exposition(texts, accept)

    def stopService(self) -> Deferred[None]:
        """
        Ask every process to leave, which lets its answers end until the drain's deadline.

        Fires when none is left; whoever hangs is killed.
        """
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        super().stopService()
        if self._left is not None or not self._listener.has_started:
            return
        left = self._left = Deferred()
        steps: list[Step] = [("cancel a start", pause.cancel) for pause in self._pauses.values()]
        for process in self._running.values():
            # One that does not serve yet has nothing to let end, and may hang.
            leave = process.kill if process in self._deadlines else process.leave
            steps.append((f"ask process {process.number} to leave", leave))
        # The others close their shares as soon as they hear of it: from then on nobody can connect.
        await run_steps(*steps, ("close the socket", self._listener.stop))
        if not self._running:
            return
        leave_s = self._settings.drain_s + LEAVE_S
        clock = cast("IReactorTime", self._reactor)
        cancel_when_fired(left, self._reactor.callLater(leave_s, self._kill_late))
        await run_steps(("await the end of the processes", lambda: left.addTimeout(leave_s + _KILLED_S, clock)))

    def _kill_late(self) -> None:
        for process in self._running.values():
            self._log.error("Process {number} (pid {pid}) hangs: killing it", number=process.number, pid=process.pid)
        self._kill(self._running.values())

    def _kill(self, processes: Iterable[GatewayProcess]) -> None:
        for process in tuple(processes):
            try:
                process.kill()
            except Exception:  # noqa: BLE001 - whatever it is, the others are to end
                self._log.failure("Process {number} could not be killed", number=process.number)


def _ignore(_: IListeningPort) -> None:
    """Do nothing with a port: what matters here is the socket, which the reactor keeps."""


def _sum(read: Callable[[], Processes]) -> Sum:
    # Not earlier: to import it would make every start longer.
    from brunix_twisted.observability.metrics import Sum  # noqa: PLC0415 - as said

    return Sum(read)
