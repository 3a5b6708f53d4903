"""What `brunix run` asks of Linux, in order to leave no process behind. On other systems these do nothing."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_RUNS_US: Final = re.compile(r"(?:.*&&\s*)?(?:\S*entrypoint\.sh|(?:\S*brunix|\S+ -m brunix_twisted) run)\s*", re.DOTALL)
"""A shell command that ends with `brunix run`, or with the script that becomes it."""


def _prctl(option: int, value: int) -> None:
    with suppress(ImportError, AttributeError, OSError):
        import ctypes  # noqa: PLC0415 - some Pythons lack it

        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none can escape."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def stop_with_shell() -> None:
    """
    If a shell waits for this process, as in ``sh -c ./entrypoint.sh``, receive SIGTERM when that shell ends.

    Most shells become their last command. One that does not receives the signals that are meant for this process.
    """
    parent = os.getppid()
    try:
        words = Path(f"/proc/{parent}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return
    if words[-2:-1] == ["-c"] and _RUNS_US.fullmatch(words[-1]):
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def children() -> set[int]:
    """Return the pids of this process's children."""
    found = set[int]()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found.update(map(int, path.read_text("ascii").split()))
    return found


def reap_orphans(own: Container[int]) -> None:
    """
    Reap adopted processes that have ended.

    :param own: the children that Twisted reaps.
    """
    if sys.platform != "linux":
        return
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        # One of our own has ended in this moment: its SIGCHLD is on the way, and leads here again.
        if ended is None or ended.si_pid in own:
            return
        os.waitpid(ended.si_pid, os.WNOHANG)
