"""One gateway process as its supervisor sees it, from its start to its end."""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import LogEvent, Logger, globalLogPublisher
from twisted.python.failure import Failure

from brunix_twisted.model import Processes
from brunix_twisted.processes.ipc import MEASURE, MESSAGES, Lines, Setup, processes_line, read_message, setup_line

LEFT: Final = "has left"
"""How a process ends that was asked to."""


class GatewayProcess(ProcessProtocol):
    """One process. What it logs is logged here, with its number."""

    _log = Logger()
    transport: IProcessTransport | None

    pid: int | None = None
    """Its number in the system, also after its end; None if it could not even be started."""
    fault: str | None = None
    """In its own words, why it cannot serve."""
    serves: bool = False
    """Whether it accepts connections."""
    served_since_s: float | None = None
    """When it began to, by the reactor's clock."""
    is_late: bool = False
    """Whether it was killed because it took too long to start."""
    metrics = ""
    """What it said last of all it counts."""

    def __init__(
        self,
        setup: Setup,
        seconds: Callable[[], float],
        changed: Callable[[GatewayProcess], None],
        ended: Callable[[GatewayProcess, str], None],
    ) -> None:
        """
        Watch one process.

        :param changed: is told when it begins or ceases to accept connections.
        :param ended: is told when it has ended and everything it said has been heard; the text goes on after
            "process 0 …".
        """
        self.number = setup.processes.number
        self._setup = setup
        self._seconds = seconds
        self._changed = changed
        self._ended = ended
        self._lines: defaultdict[int, Lines] = defaultdict(Lines)
        self._measured: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        """Tell the process, now that there is one, what it is to do."""
        self.pid = self._process.pid
        self._process.write(setup_line(self._setup))

    @property
    def _process(self) -> IProcessTransport:
        if self.transport is None:
            raise RuntimeError("the process has not been started")
        return self.transport

    def tell(self, processes: Processes) -> None:
        """Tell it how many there are."""
        self._process.write(processes_line(processes))

    def measure(self) -> Deferred[None]:
        """Ask it what it counts; fires when it has said so, or has ended."""
        measured: Deferred[None] = Deferred(self._measured.remove)
        self._measured.append(measured)
        self._process.write(MEASURE + b"\n")
        return measured

    def _have_measured(self) -> None:
        measured, self._measured[:] = tuple(self._measured), []
        for deferred in measured:
            deferred.callback(None)

    def leave(self) -> None:
        """Ask it to let its answers end, and to leave."""
        self._process.closeStdin()

    def kill(self) -> None:
        """End it."""
        # It may have, and what it said last is still on its way.
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - ProcessProtocol
        """Take what it says, of whatever kind."""
        if childFD == MESSAGES:
            # As long as it likes: a traceback may be.
            for line in self._lines[childFD].feed(data, longest=None):
                self._said(line)
        else:
            for line in self._lines[childFD].feed(data):
                self._wrote(line)

    def _said(self, line: bytes) -> None:
        kind, said = read_message(line)
        if kind == "ready":
            self.serves, self.served_since_s = True, self._seconds()
            self._changed(self)
        elif kind == "leaves":
            self.serves = False
            self._changed(self)
        elif kind == "failed":
            self.fault = said
        elif kind == "metrics":
            self.metrics = said
            self._have_measured()
        else:
            globalLogPublisher(_marked(said, self.number))

    def _wrote(self, line: bytes) -> None:
        """Pass on what no logger wrote, a crash above all."""
        text = line.decode("utf-8", "backslashreplace")
        self._log.warn("Process {number} (pid {pid}) wrote: {text}", number=self.number, pid=self.pid, text=text)

    def processEnded(self, reason: Failure) -> None:
        """Tell how it ended."""
        for descriptor, lines in self._lines.items():
            for line in lines.end():
                # Half a message says nothing that could be read.
                if descriptor != MESSAGES:
                    self._wrote(line)
        self._have_measured()
        self._ended(self, _how(reason.value))


def _how(ending: BaseException | None) -> str:
    if not isinstance(ending, ProcessTerminated):
        return LEFT
    if ending.signal is None:
        return f"ended with status {ending.exitCode}"
    return f"was ended by {signal.Signals(ending.signal).name}"


def _marked(event: LogEvent, number: int) -> LogEvent:
    """Say in a log event which process it is from, in the one place that every kind of log shows."""
    system = event.get("log_system") or f"{event.get('log_namespace', '-')}#{event['log_level'].name}"
    # What older observers show is made from the other again.
    event.pop("system", None)
    return event | {"log_system": f"{system} process={number}", "process": number}
