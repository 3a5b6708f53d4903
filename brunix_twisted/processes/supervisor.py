"""The supervisor: binds the socket, starts the gateway processes that accept from it, and replaces those that die."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, IStreamServerEndpoint
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from brunix_twisted.model import Processes
from brunix_twisted.processes.pipes import CONTROL, MESSAGES, SOCKET, TURNS, Setup
from brunix_twisted.processes.process import LEFT, GatewayProcess
from brunix_twisted.processes.serving import LEAVE_S
from brunix_twisted.processes.sharing import Binding
from brunix_twisted.processes.turns import Turn, shared_memory
from brunix_twisted.service import StartError
from brunix_twisted.settings import Settings

if TYPE_CHECKING:
    from brunix_twisted.metrics import Sum

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

    def __init__(
        self, reactor: Binding, settings: Settings, given: Mapping[str, str], endpoint: IStreamServerEndpoint
    ) -> None:
        """
        Prepare to serve; nothing is started yet.

        :param endpoint: made with this reactor.
        :param given: what the settings were read from, by option.
        """
        self._reactor = reactor
        self._settings = settings
        self._given = dict(given)
        self._endpoint = endpoint
        self.ready: Deferred[IAddress] = Deferred()
        """Fires with the address once every process accepts connections from it for the first time."""
        self._digest_key = token_hex(16)
        self._running: dict[int, GatewayProcess] = {}
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
        refusals: list[Failure] = []
        self._endpoint.listen(SharedSocket()).addErrback(refusals.append)
        if refusals:
            raise StartError(f"twistd brunix: PROXY_LISTEN is {listen!r}: {refusals[0].getErrorMessage()}")
        if self._reactor.port is None:
            raise StartError(
                f"twistd brunix: PROXY_LISTEN is {listen!r}; allowed with PROXY_PROCESSES={self._settings.processes}: "
                "an endpoint whose socket processes can share, such as tcp, tcp6, unix, ssl or systemd"
            )

    def startService(self) -> None:
        """
        Start the processes, and return once all of them serve.

        :raises StartError: one of them cannot, and none is left.
        """
        if self._reactor.port is None:
            self.privilegedStartService()
        super().startService()
        self._turns = shared_memory(self._settings.processes)
        for number in range(self._settings.processes):
            self._start(number)
        # twistd's own exit status, and what it tells the shell that started a daemon, depend on what happens in here.
        # So the reactor has to turn before twistd runs it.
        while not self._have_started and self._fault is None:
            self._turn()
        if self._fault is not None:
            for process in self._running.values():
                process.kill()
            closed = maybeDeferred(self._port.stopListening)
            while self._running or not closed.called:
                self._turn()
            raise StartError(self._fault)

    def _turn(self) -> None:
        self._reactor.iterate(_LOOK_S)
        # Whoever runs the reactor has it told of children that end.
        reapAllProcesses()

    def _start(self, number: int) -> None:
        self._pauses.pop(number, None)
        setup = Setup(type(self._reactor.real).__module__, self._given, self._processes(number), self._digest_key)
        process = GatewayProcess(setup, self._reactor.seconds, self._changed, self._ended)
        self._running[number] = process
        command = [sys.executable, "-P", "-m", "brunix_twisted.processes", str(number)]
        descriptors = {CONTROL: "w", 1: "r", 2: "r", SOCKET: self._port.fileno(), MESSAGES: "r", TURNS: self._turns}
        try:
            self._reactor.spawnProcess(process, command[0], command, env=None, childFDs=descriptors)
        except OSError as fault:
            self._ended(process, f"cannot be started: {fault.strerror}")

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
        if self._metrics is not None:
            self._metrics.retire(process.metrics)
        # It may have had no time to say so.
        Turn(self._turns, number, self._settings.processes).leave()
        if self._left is not None:
            if how != LEFT:
                self._log.warn("Process {number} (pid {pid}) {how}", number=number, pid=process.pid, how=how)
            if not self._running:
                self._left.callback(None)
            return
        if not self._have_started:
            self._fault = self._fault or process.fault or f"twistd brunix: process {number} {how} before it served"
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
        """See :meth:`brunix_twisted.service.GatewayService.expose`; the sum over all processes."""
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
        if self._reactor.port is None:
            return
        for pause in self._pauses.values():
            pause.cancel()
        left = self._left = Deferred()
        for process in self._running.values():
            process.leave()
        # The others close their shares as soon as they hear of it: from then on nobody can connect.
        await maybeDeferred(self._port.stopListening)
        if self._running:
            late = self._reactor.callLater(self._settings.drain_s + LEAVE_S, self._kill)
            await left
            if late.active():
                late.cancel()

    def _kill(self) -> None:
        for process in self._running.values():
            self._log.error("Process {number} (pid {pid}) hangs: killing it", number=process.number, pid=process.pid)
            process.kill()


def _sum(read: Callable[[], Processes]) -> Sum:
    # Not earlier: to import it would make every start longer.
    from brunix_twisted.metrics import Sum  # noqa: PLC0415 - as said

    return Sum(read)
