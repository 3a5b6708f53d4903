"""
The messages between the supervisor and a gateway process: lines, over pipes.

To the process, on its standard input:

- the setup, as JSON, in the first line
- :class:`~brunix_twisted.model.Processes`, as JSON, after every change
- ``metrics``: a request for its metrics
- the end of the pipe, because the supervisor closed it or died: the process drains and exits

From the process:

- ``ready``: it accepts connections
- ``leaves``: it begins to drain
- ``failed`` and a reason, as a JSON string: it cannot serve
- ``log`` and a log event, as JSON
- ``metrics`` and its metrics in Prometheus's text format, as a JSON string: on request, and before it exits

Its standard output and standard error carry everything else, such as a crash.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

import attrs
from twisted.logger import ILogObserver, LogEvent, eventAsJSON, eventFromJSON, formatEvent
from zope.interface import implementer

from brunix_twisted.model import Processes
from brunix_twisted.observability.logs import dropped_event, reactor_runs
from brunix_twisted.runtime.background import BackgroundWriter
from brunix_twisted.state.selection import StateSetup

CONTROL: Final = 0
"""The process's file descriptor for messages from the supervisor."""
SOCKET: Final = 3
"""Its file descriptor of the listening socket."""
MESSAGES: Final = 4
"""Its file descriptor for messages to the supervisor."""
CONNECTION_COUNTS: Final = 5
"""Its file descriptor of the shared memory; see :mod:`brunix_twisted.processes.accept_balancing`."""

EXIT_S: Final = 8.0
"""
Maximum time from the end of the drain to the exit: five seconds for clients to read what has been written, and a margin
for a busy machine. A process that has not exited by then hangs.
"""

# A longer line is split.
_MAX_LINE_BYTES: Final = 1 << 16


@attrs.frozen
class Setup:
    """The configuration with which a process starts."""

    reactor: str
    """The module of the reactor to install: the same as the supervisor's."""
    settings: dict[str, str]
    """The values by option; all others have their default. The process does not read its environment."""
    processes: Processes
    digest_key: str
    """In hexadecimal; see :attr:`brunix_twisted.app.service.GatewayService.digest_key`."""
    state: StateSetup
    """Where the state is, and its secret."""


def setup_line(setup: Setup) -> bytes:
    """Encode the setup as the first line."""
    return _line(attrs.asdict(setup))


def read_setup(descriptor: int) -> Setup | None:
    """Read exactly the first line; return None if the pipe ends before. Blocks."""
    with open(descriptor, "rb", buffering=0, closefd=False) as control:
        line = control.readline()
    if not line.endswith(b"\n"):
        return None
    values = json.loads(line)
    processes, state = Processes(**values["processes"]), StateSetup(**values["state"])
    return Setup(values["reactor"], values["settings"], processes, values["digest_key"], state)


def processes_line(processes: Processes) -> bytes:
    """Encode the state of the processes as a line."""
    return _line(attrs.asdict(processes))


REQUEST_METRICS: Final = b"metrics"
"""The line that requests the metrics."""


def read_processes(line: bytes) -> Processes:
    """Decode a line from :func:`processes_line`."""
    return Processes(**json.loads(line))


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode("ascii") + b"\n"


class Lines:
    """Splits received data into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, max_bytes: int | None = _MAX_LINE_BYTES) -> Iterator[bytes]:
        """
        Receive data, and yield the lines that are now complete.

        :param max_bytes: an incomplete line that is longer is yielded too; None: no limit.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines
        if max_bytes is not None and len(self._rest) > max_bytes:
            yield from self.end()

    def end(self) -> Iterator[bytes]:
        """Yield the incomplete line that is left, if any."""
        rest, self._rest = self._rest, b""
        if rest:
            yield rest


@implementer(ILogObserver)
class Messages:
    """
    Sends the messages of a process to its supervisor. Any thread may call its methods.

    A stopped supervisor does not read, so a background thread writes. Log events are dropped when it is far behind.
    While the reactor does not run, each call waits briefly until its message is written. So the last messages of a
    process, such as the reason why it cannot serve, reach the supervisor.
    """

    def __init__(self, pipe: BinaryIO, runs: Callable[[], bool] = reactor_runs) -> None:
        """
        Send nothing yet.

        :param pipe: the pipe to the supervisor.
        :param runs: returns whether the reactor runs.
        """
        self._runs = runs

        def write(lines: bytes) -> None:
            pipe.write(lines)
            pipe.flush()

        self._writer = BackgroundWriter(write, lambda lines: _log_line(dropped_event(lines)) + b"\n")

    def ready(self) -> None:
        """Report that this process accepts connections."""
        self._send(b"ready")

    def leaves(self) -> None:
        """Report that this process accepts no more connections, and exits after its drain."""
        self._send(b"leaves")

    def failed(self, why: str) -> None:
        """Report in one line why this process cannot serve."""
        self._send(b"failed " + json.dumps(why).encode("ascii"))

    def metrics(self, text: str) -> None:
        """Send the metrics of this process."""
        self._send(b"metrics " + json.dumps(text).encode("ascii"))

    def flush(self) -> None:
        """Wait briefly until all messages are written."""
        self._writer.flush()

    def __call__(self, event: LogEvent) -> None:
        """Send a log event."""
        self._send(_log_line(event), keep=False)

    def _send(self, line: bytes, *, keep: bool = True) -> None:
        self._writer.put(line + b"\n", keep=keep)
        if not self._runs():
            self._writer.flush()


def _log_line(event: LogEvent) -> bytes:
    # Format the text here: JSON cannot represent all values of an event, and Twisted's JSON loses their formats.
    event = event | {"log_format": "{log_text}", "log_text": formatEvent(event)}
    if "log_failure" in event:
        # Twisted's JSON does not contain the exception.
        event = event | {"failure_message": event["log_failure"].getErrorMessage()}
    return b"log " + eventAsJSON(event).encode("ascii")


def read_message(line: bytes) -> tuple[str, Any]:
    """
    Decode a message: its kind and its content.

    :raises ValueError: it is not a message.
    """
    kind, _, content = line.partition(b" ")
    if kind in {b"ready", b"leaves"}:
        return kind.decode("ascii"), None
    if kind in {b"failed", b"metrics"}:
        return kind.decode("ascii"), json.loads(content)
    if kind == b"log":
        event = eventFromJSON(content.decode("ascii"))
        if "failure_message" in event:
            event["log_failure"].value = Exception(event.pop("failure_message"))
        return "log", event
    raise ValueError(line)
