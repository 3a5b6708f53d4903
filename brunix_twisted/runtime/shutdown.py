"""Shutdowns in which every step runs, and the exit of a gateway that finds out late that it cannot serve."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log: Final = Logger()

Step = tuple[str, Callable[[], object]]
"""What a step does, to be read after "could not", and the function that does it and may return a Deferred."""


async def run_steps(*steps: Step) -> None:
    """Run every step, each when the one before it has ended. A step that fails is logged, and the next one runs."""
    for name, run in steps:
        await maybeDeferred(run).addErrback(_failed, name)


def _failed(failure: Failure, name: str) -> None:
    _log.failure("Stopping: could not {name}; the other steps go on", failure, name=name)


def stop_with_failure(reactor: Any, why: str) -> None:  # noqa: ANN401 - what a reactor is, no type says
    """Log why the gateway cannot serve, and stop the reactor so that the process ends with status 1."""
    _log.critical("{why}", why=why)
    # Once the reactor runs, twistd has no way to choose an exit status. It has removed its pid file by then.
    atexit.register(_exit_with_failure)
    reactor.callWhenRunning(reactor.stop)


def _exit_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
