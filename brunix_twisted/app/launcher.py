"""
Become a command, in its own session and process group, that ends with `brunix run`.

``python -I -S launcher.py PARENT_PID hup|nohup WORD…``: with ``nohup``, SIGHUP stays ignored. Python does this because
it is there, whereas ``setsid`` and ``setpriv`` are missing from some systems. It imports only the standard library, and
little of that.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
TERMINAL = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
"""Signals that a terminal sends to its foreground processes. They are blocked when this program starts."""


def main(parent: int, hangup: str, words: list[str]) -> None:
    """Replace this process."""
    if os.getpgrp() != os.getpid():
        os.setsid()
    # Discard what the terminal has sent meanwhile: it was for the parent.
    for number in TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINAL)
    # Python ignores the last two.
    for number in (*TERMINAL, signal.SIGPIPE, signal.SIGXFSZ):
        if number != signal.SIGHUP or hangup != "nohup":
            signal.signal(number, signal.SIG_DFL)
    try:
        import ctypes  # noqa: PLC0415 - some Pythons lack it

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    except (ImportError, AttributeError, OSError):
        pass  # not Linux
    if os.getppid() != parent:
        sys.exit(1)  # it has ended before the line above took effect
    try:
        os.execvp(words[0], words)  # noqa: S606 - what this program is for
    except OSError:
        # A script without an interpreter line, or not to be executed; the shell reports why.
        os.execvp("sh", ["sh", "-c", " ".join(words)])  # noqa: S606, S607 - likewise


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
