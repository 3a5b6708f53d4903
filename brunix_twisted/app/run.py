"""`brunix run`: start an engine and the gateway side by side, and stop both when either ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brunix_twisted.app.signals import SignalPipe

if TYPE_CHECKING:
    from brunix_twisted.app.plan import Plan


def run(environment: Mapping[str, str]) -> int:
    """Run both; return the exit status, which ``brunix run --help`` explains."""
    descriptors = _descriptors()
    # Before the imports, which take time.
    signals = SignalPipe()
    from brunix_twisted.app import linux  # noqa: PLC0415 - see above
    from brunix_twisted.app.plan import PlanError, read_plan  # noqa: PLC0415 - see above
    from brunix_twisted.runtime.background import BackgroundWriter, write_all  # noqa: PLC0415 - see above

    linux.stop_with_shell()
    # A reader of stderr that stops reading, or closes it, must neither block nor end this process.
    stderr = BackgroundWriter(lambda lines: write_all(2, lines), lambda _: b"")

    def say(line: str) -> None:
        stderr.put(f"brunix run: {line}\n".encode(errors="surrogateescape"), keep=True)

    try:
        return _run(read_plan(environment), signals, descriptors, say)
    except PlanError as error:
        say(str(error))
        return error.status
    finally:
        stderr.flush()


def _run(plan: Plan, signals: SignalPipe, descriptors: Collection[int], say: Callable[[str], object]) -> int:
    # Twisted imports it with the sockets, if it is there: a third of all memory, for nothing that is used here.
    sys.modules.setdefault("OpenSSL", None)  # type: ignore[arg-type]
    from brunix_twisted.runtime.imports import without_collecting  # noqa: PLC0415 - not before the signals

    with without_collecting():
        from twisted.internet import reactor as installed  # noqa: PLC0415 - see above
        from twisted.internet.defer import ensureDeferred  # noqa: PLC0415 - see above
        from twisted.python.failure import Failure  # noqa: PLC0415 - see above

        from brunix_twisted.app.side_by_side import FAILED, SideBySide  # noqa: PLC0415 - see above
        from brunix_twisted.runtime.reactors import use_monotonic_clock  # noqa: PLC0415 - see above
    reactor: Any = installed
    use_monotonic_clock(reactor)
    status: int = FAILED

    def start() -> None:
        both = SideBySide(reactor, signals, plan, descriptors, say)
        ensureDeferred(both.run()).addErrback(failed).addCallback(finish)

    def failed(failure: Failure) -> int:
        say(failure.getTraceback())
        return FAILED

    def finish(result: int) -> None:
        nonlocal status
        status = result
        reactor.stop()

    reactor.callWhenRunning(start)
    # Signals arrive through the pipe.
    reactor.run(installSignalHandlers=False)
    return status


def _descriptors() -> set[int]:
    """Return what the commands inherit, as from a shell: each descriptor that this process has been given."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise another file would get its number. It takes the lowest one that is free.
            os.open(os.devnull, os.O_RDWR)
    found = {0, 1, 2}
    for path in Path("/dev/fd").iterdir():
        # The folder itself was open for a moment.
        with suppress(OSError):
            if os.get_inheritable(int(path.name)):
                found.add(int(path.name))
    return found
