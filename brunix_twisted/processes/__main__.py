"""
``python -m brunix_twisted.processes``: one of several gateway processes. Only the supervisor can start it.

Its setup is the first line of its standard input; see :mod:`brunix_twisted.processes.ipc`.
"""

import importlib
import os
import signal
import sys

from brunix_twisted.processes.orphan import SupervisorWatch
from brunix_twisted.runtime.imports import without_collecting


def main() -> int:
    """Serve, and return the exit status: 0 after a stop, 1 if the start failed."""
    # The supervisor handles these signals. A terminal sends the first two to all processes, and the third reopens the
    # log file.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # These pipes lead to the supervisor only. A stopped supervisor does not read them, so writes must not block.
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.set_blocking(descriptor, False)
    watch = SupervisorWatch(sys.stdin.fileno())
    from brunix_twisted.processes.ipc import CONTROL, read_setup  # noqa: PLC0415 - an import may hang

    setup = read_setup(CONTROL)
    if setup is None:
        return 0  # the supervisor has exited
    # Before any import that would install another reactor.
    importlib.import_module(setup.reactor).install()

    with without_collecting():
        from brunix_twisted.processes.worker import serve  # noqa: PLC0415 - see above

    return serve(setup, watch)


if __name__ == "__main__":
    sys.exit(main())
