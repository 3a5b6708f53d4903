"""A command that `brunix run` has started, with everything in its process group."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure


class ProcessGroup(ProcessProtocol):
    """
    One command and what it started.

    The launcher makes the group, whose id is the command's pid. Until then there is only the launcher.
    """

    pid: int | None = None
    """The command's, and its group's; None if it could not be started."""
    end = ""
    """How the command ended, for messages; empty while it runs."""
    is_clean = False
    """Whether it ended as a command that was asked to stop: status 0, or SIGTERM, which a shell reports as 143."""
    _is_gone = False

    def __init__(self, name: str, ended: Callable[[ProcessGroup], object]) -> None:
        """
        Start nothing yet.

        :param ended: called when the command has ended; other processes of its group may still run.
        """
        self.name = name
        self._ended = ended

    def connectionMade(self) -> None:
        """Note the pid: Twisted forgets it when the process ends."""
        self.pid = getattr(self.transport, "pid", None)

    def processEnded(self, reason: Failure) -> None:
        """Note how the command ended."""
        status, number = 0, None
        if isinstance(reason.value, ProcessTerminated):
            status, number = reason.value.exitCode, reason.value.signal
        self.end = f"exited with status {status}" if number is None else f"was killed by {signal.Signals(number).name}"
        self.is_clean = number == signal.SIGTERM or (number is None and status in {0, 128 + signal.SIGTERM})
        self._ended(self)

    def not_started(self, error: OSError) -> None:
        """Note that the system has refused to start it."""
        self.end = f"could not be started: {error.strerror}"
        self._is_gone = True

    @property
    def is_running(self) -> bool:
        """Whether the command, and not only what it started, is there."""
        return not self.end

    @property
    def is_gone(self) -> bool:
        """Whether no process of the group is left. From then on its id may belong to another group."""
        if self.end and not self._is_gone:
            try:
                os.killpg(self.pid or 0, 0)
            except ProcessLookupError:
                self._is_gone = True
            except PermissionError:
                pass
        return self._is_gone

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, or to the launcher if that has not made it yet."""
        if self.pid is None or self.is_gone:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            if self.is_running:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)
        except PermissionError:
            pass
