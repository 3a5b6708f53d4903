"""
``python -m brunix_twisted.processes``: one of several gateway processes. The supervisor starts it; nobody else can.

What it is to do comes as the first line of its standard input; see :mod:`brunix_twisted.processes.ipc`.
"""

import importlib
import os
import signal
import sys

from brunix_twisted.processes.orphan import SupervisorWatch
from brunix_twisted.runtime.imports import without_collecting


def main() -> int:
    """Serve, and give the exit status: 0 when asked to stop, 1 when the start failed."""
    # A terminal sends the first two to every process of the gateway's; the third would open a log file again. What they
    # mean is decided by the supervisor.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # Pipes to the supervisor, which no other process shares. One that is stopped does not read them.
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.set_blocking(descriptor, False)
    watch = SupervisorWatch(sys.stdin.fileno())
    from brunix_twisted.processes.ipc import CONTROL, read_setup  # noqa: PLC0415 - an import may hang

    setup = read_setup(CONTROL)
    if setup is None:
        return 0  # the supervisor has gone in the meantime
    # Before anything is imported that would install another one.
    importlib.import_module(setup.reactor).install()

    with without_collecting():
        from brunix_twisted.processes.worker import serve  # noqa: PLC0415 - see above

    return serve(setup, watch)


if __name__ == "__main__":
    sys.exit(main())
