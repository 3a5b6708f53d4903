"""
What the supervisor and a gateway process say to each other: lines, over pipes.

To the process, on its standard input: the setup, and then :class:`~brunix_twisted.model.Processes` whenever that has
changed, each as JSON; ``metrics`` when it is to tell them. The end of this pipe, whether the supervisor closed it or
has died, asks the process to leave.

From the process: ``ready`` once it serves; ``leaves`` when it begins to drain; ``failed`` and why, as a JSON text, when
it cannot serve; ``log`` and an event; ``metrics`` and all it counts, as a JSON text in Prometheus's own form, whenever
it is asked and before it ends.
Its standard output and standard error are for whatever else is written there, a crash above all.
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

CONTROL: Final = 0
"""The process's descriptor for what it is told."""
SOCKET: Final = 3
"""Its descriptor of the listening socket."""
MESSAGES: Final = 4
"""Its descriptor for what it has to say."""
TURNS: Final = 5
"""Its descriptor of the memory in which the processes agree who accepts next."""

# What is longer and still without an end is taken for a line.
_LONGEST_LINE: Final = 1 << 16


@attrs.frozen
class Setup:
    """What a process needs to know before it can begin."""

    reactor: str
    """The module with the reactor to install: the supervisor's own kind."""
    settings: dict[str, str]
    """What was chosen, by option; anything else has its default. The environment is not asked again."""
    processes: Processes
    digest_key: str
    """In hexadecimal; see :attr:`brunix_twisted.app.service.GatewayService.digest_key`."""


def setup_line(setup: Setup) -> bytes:
    """Write the first line."""
    return _line(attrs.asdict(setup))


def read_setup(descriptor: int) -> Setup | None:
    """Read the first line and not a byte more; None if it never comes. Blocks."""
    with open(descriptor, "rb", buffering=0, closefd=False) as control:
        line = control.readline()
    if not line.endswith(b"\n"):
        return None
    told = json.loads(line)
    return Setup(told["reactor"], told["settings"], Processes(**told["processes"]), told["digest_key"])


def processes_line(processes: Processes) -> bytes:
    """Write a further line."""
    return _line(attrs.asdict(processes))


MEASURE: Final = b"metrics"
"""The line that asks for the metrics."""


def read_processes(line: bytes) -> Processes:
    """Read a further line."""
    return Processes(**json.loads(line))


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode("ascii") + b"\n"


class Lines:
    """Cuts what comes in pieces into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, longest: int | None = _LONGEST_LINE) -> Iterator[bytes]:
        """Take a piece, and go through the lines that have become whole; None: however long they are."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines
        if longest is not None and len(self._rest) > longest:
            yield from self.end()

    def end(self) -> Iterator[bytes]:
        """Give what is left, without a line's end."""
        rest, self._rest = self._rest, b""
        if rest:
            yield rest


@implementer(ILogObserver)
class Messages:
    """
    What a process has to say to its supervisor. Any thread may say it.

    A supervisor that is stopped does not read, so a thread writes, and log events are dropped when it is far behind.
    While the reactor does not run, each message waits a short time until it is written: the last words of a process,
    above all why it cannot serve, reach the supervisor.
    """

    def __init__(self, pipe: BinaryIO, runs: Callable[[], bool] = reactor_runs) -> None:
        """
        Say nothing yet.

        :param runs: whether the reactor runs.
        """
        self._runs = runs

        def write(lines: bytes) -> None:
            pipe.write(lines)
            pipe.flush()

        self._writer = BackgroundWriter(write, lambda lines: _log_line(dropped_event(lines)) + b"\n")

    def ready(self) -> None:
        """Say that connections are accepted."""
        self._say(b"ready")

    def leaves(self) -> None:
        """Say that none are any more, and that this process ends."""
        self._say(b"leaves")

    def failed(self, why: str) -> None:
        """Say in one line why this process cannot serve."""
        self._say(b"failed " + json.dumps(why).encode("ascii"))

    def metrics(self, text: str) -> None:
        """Tell what this process counts."""
        self._say(b"metrics " + json.dumps(text).encode("ascii"))

    def flush(self) -> None:
        """Wait a short time until everything is said."""
        self._writer.flush()

    def __call__(self, event: LogEvent) -> None:
        """Pass on a log event."""
        self._say(_log_line(event), keep=False)

    def _say(self, line: bytes, *, keep: bool = True) -> None:
        self._writer.put(line + b"\n", keep=keep)
        if not self._runs():
            self._writer.flush()


def _log_line(event: LogEvent) -> bytes:
    # Its text is made here, of values that JSON cannot carry and in formats that Twisted's JSON forgets.
    event = event | {"log_format": "{log_text}", "log_text": formatEvent(event)}
    if "log_failure" in event:
        # The exception itself is lost on the way.
        event = event | {"failure_said": event["log_failure"].getErrorMessage()}
    return b"log " + eventAsJSON(event).encode("ascii")


def read_message(line: bytes) -> tuple[str, Any]:
    """
    Take a message apart: its kind, and what it says.

    :raises ValueError: it is none.
    """
    kind, _, said = line.partition(b" ")
    if kind in {b"ready", b"leaves"}:
        return kind.decode("ascii"), None
    if kind in {b"failed", b"metrics"}:
        return kind.decode("ascii"), json.loads(said)
    if kind == b"log":
        event = eventFromJSON(said.decode("ascii"))
        if "failure_said" in event:
            event["log_failure"].value = Exception(event.pop("failure_said"))
        return "log", event
    raise ValueError(line)
