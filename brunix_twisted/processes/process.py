"""The supervisor's side of one gateway process, from its start to its exit."""

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
from brunix_twisted.processes.ipc import (
    MESSAGES,
    REQUEST_METRICS,
    Lines,
    Setup,
    processes_line,
    read_message,
    setup_line,
)

_log = Logger("brunix.processes")

EXITED: Final = "exited"
"""The outcome of a process that exits with status 0."""


class GatewayProcess(ProcessProtocol):
    """One gateway process. Its log events are logged here, with its number."""

    transport: IProcessTransport | None

    pid: int | None = None
    """The system's process id, also after the exit; None if the process could not be started."""
    fault: str | None = None
    """The reason it reported why it cannot serve."""
    serves: bool = False
    """Whether it accepts connections."""
    served_since_s: float | None = None
    """When it began to accept, by the reactor's clock."""
    is_late: bool = False
    """Whether it was killed because it took too long to start."""
    metrics = ""
    """The metrics it sent last."""

    def __init__(
        self,
        setup: Setup,
        seconds: Callable[[], float],
        changed: Callable[[GatewayProcess], None],
        ended: Callable[[GatewayProcess, str], None],
    ) -> None:
        """
        Prepare for one process; the reactor's spawnProcess starts it.

        :param seconds: the reactor's clock.
        :param changed: called when the process begins or stops to accept connections.
        :param ended: called after the exit, when all its output has been read. The text continues "process 0 …".
        """
        self.number = setup.processes.number
        self._setup = setup
        self._seconds = seconds
        self._changed = changed
        self._ended = ended
        self._lines: defaultdict[int, Lines] = defaultdict(Lines)
        self._metrics_requests: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        """Send the setup to the started process."""
        self.pid = self._process.pid
        self._process.write(setup_line(self._setup))

    @property
    def _process(self) -> IProcessTransport:
        if self.transport is None:
            raise RuntimeError("the process has not been started")
        return self.transport

    def send(self, processes: Processes) -> None:
        """Send the state of all processes."""
        self._process.write(processes_line(processes))

    def request_metrics(self) -> Deferred[None]:
        """Request the metrics; fires when they have arrived, or the process has exited."""
        received: Deferred[None] = Deferred(self._metrics_requests.remove)
        self._metrics_requests.append(received)
        self._process.write(REQUEST_METRICS + b"\n")
        return received

    def _metrics_received(self) -> None:
        requests, self._metrics_requests[:] = tuple(self._metrics_requests), []
        for received in requests:
            received.callback(None)

    def stop(self) -> None:
        """Ask the process to drain and exit."""
        self._process.closeStdin()

    def kill(self) -> None:
        """Kill the process."""
        # It may have exited already while its last output is still being read.
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - ProcessProtocol
        """Receive messages and other output."""
        if childFD == MESSAGES:
            # No maximum length: an event may contain a long traceback.
            for line in self._lines[childFD].feed(data, max_bytes=None):
                self._message_received(line)
        else:
            for line in self._lines[childFD].feed(data):
                self._log_output(line)

    def _message_received(self, line: bytes) -> None:
        kind, content = read_message(line)
        if kind == "ready":
            self.serves, self.served_since_s = True, self._seconds()
            self._changed(self)
        elif kind == "leaves":
            self.serves = False
            self._changed(self)
        elif kind == "failed":
            self.fault = content
        elif kind == "metrics":
            self.metrics = content
            self._metrics_received()
        else:
            globalLogPublisher(_marked(content, self.number))

    def _log_output(self, line: bytes) -> None:
        """Log output that did not come from a logger, such as a crash."""
        text = line.decode("utf-8", "backslashreplace")
        _log.warn("Process {number} (pid {pid}) wrote: {text}", number=self.number, pid=self.pid, text=text)

    def processEnded(self, reason: Failure) -> None:
        """Report how the process ended."""
        for descriptor, lines in self._lines.items():
            for line in lines.end():
                # An incomplete message cannot be decoded.
                if descriptor != MESSAGES:
                    self._log_output(line)
        self._metrics_received()
        self._ended(self, _outcome(reason.value))


def _outcome(reason: BaseException | None) -> str:
    if not isinstance(reason, ProcessTerminated):
        return EXITED
    if reason.signal is None:
        return f"exited with status {reason.exitCode}"
    return f"was killed by {signal.Signals(reason.signal).name}"


def _marked(event: LogEvent, number: int) -> LogEvent:
    """Add the process's number to a log event, in the system, which every log format shows."""
    system = event.get("log_system") or f"{event.get('log_namespace', '-')}#{event['log_level'].name}"
    # Twisted derives this legacy field from log_system again.
    event.pop("system", None)
    return event | {"log_system": f"{system} process={number}", "process": number}
