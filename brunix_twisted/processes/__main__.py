"""
``python -m brunix_twisted.processes``: one of several gateway processes. The supervisor starts it; nobody else can.

What it is to do comes as the first line of its standard input; see :mod:`brunix_twisted.processes.pipes`.
"""

import importlib
import signal
import sys

from brunix_twisted.processes.orphan import SupervisorWatch


def main() -> int:
    """Serve, and give the exit status: 0 when asked to stop, 1 when the start failed."""
    # A terminal sends these two to every process of the gateway's. The supervisor decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    watch = SupervisorWatch(sys.stdin.fileno())
    from brunix_twisted.processes.pipes import CONTROL, read_setup  # noqa: PLC0415 - an import may hang

    setup = read_setup(CONTROL)
    if setup is None:
        return 0  # the supervisor has gone in the meantime
    # Before anything is imported that would install another one.
    importlib.import_module(setup.reactor).install()

    from brunix_twisted.processes.serving import serve  # noqa: PLC0415 - see above

    return serve(setup, watch)


if __name__ == "__main__":
    sys.exit(main())
