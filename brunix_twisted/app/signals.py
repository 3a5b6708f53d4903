"""Receive signals as bytes in a pipe, from before the reactor is imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final

STOP: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""The signals that ask `brunix run` to stop."""
_OTHERS: Final = (signal.SIGUSR1, signal.SIGUSR2)
"""These would end the process; nothing is done on them."""


class SignalPipe:
    """
    The signals that this process receives, in order; a reader for Twisted's reactor.

    Python's own handlers run only when the main thread wakes up, and a signal may be delivered to another thread. The
    interpreter writes each signal's number to this pipe at once, and the reactor waits for it. A signal that was
    ignored when the process started stays ignored, as SIGHUP is under ``nohup``.
    """

    def __init__(self) -> None:
        """Begin to receive. Call it in the main thread, as early as possible: process 1 ignores a signal until then."""
        self.received: Callable[[int], object] = lambda _: None
        self._read_fd, write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(write_fd, False)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        handled = [number for number in (*STOP, *_OTHERS) if signal.getsignal(number) is not signal.SIG_IGN]
        for number in (*handled, signal.SIGCHLD):
            signal.signal(number, _do_nothing)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*STOP, *_OTHERS, signal.SIGCHLD))

    def take(self) -> Iterable[int]:
        """Return the signals since the last call."""
        try:
            return os.read(self._read_fd, 65536)
        except BlockingIOError:
            return b""

    def fileno(self) -> int:
        """Return the descriptor that the reactor waits for."""
        return self._read_fd

    def doRead(self) -> None:
        """Report each signal to `received`."""
        for number in self.take():
            self.received(number)

    def connectionLost(self, reason: object) -> None:
        """Do nothing: the pipe lasts as long as the process."""

    def logPrefix(self) -> str:  # noqa: N802 - IReadDescriptor
        """Return the name that Twisted's log uses."""
        return "signals"


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Be a handler, so that the interpreter writes the signal's number to the pipe."""
