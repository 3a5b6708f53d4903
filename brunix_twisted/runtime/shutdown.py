"""A shutdown that runs every step, and the exit of a gateway that fails after its start."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log: Final = Logger("brunix.gateway")

Step = tuple[str, Callable[[], object]]
"""A description that completes "could not …", and the function to call, which may return a Deferred."""


async def run_steps(*steps: Step) -> None:
    """Run the steps one after another. A failure is logged, and the next step runs."""
    for name, run in steps:
        await maybeDeferred(run).addErrback(_failed, name)


def _failed(failure: Failure, name: str) -> None:
    _log.failure("Stopping: could not {name}; continuing with the next step", failure, name=name)


def stop_with_failure(reactor: Any, why: str) -> None:  # noqa: ANN401 - no type covers a reactor
    """Log why the gateway cannot serve, and stop the reactor so that the process ends with status 1."""
    _log.critical("{why}", why=why)
    # Once the reactor runs, twistd cannot set the exit status. At exit, it has already removed its pid file.
    atexit.register(_exit_with_failure)
    reactor.callWhenRunning(reactor.stop)


def _exit_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
