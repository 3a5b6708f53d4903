"""The threads that wait for the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from twisted.logger import Logger
from twisted.python.failure import Failure

# How long a stop waits for threads whose calls have all been cancelled.
_STOP_S: Final = 2.0

_Job = tuple[Callable[[bool, object], None], Callable[..., object], tuple[object, ...]]


class Workers:
    """
    A pool of threads in the form that ``deferToThreadPool`` asks for.

    Work is handed over in one change of threads, where Twisted's own pool takes five. Work for which no thread can be
    started is refused, and nothing is left of it. The standard library's pool would do it later, and from then
    on count threads as free that do not exist, so that questions wait behind one another.
    """

    _log = Logger()

    def __init__(self, max_threads: int) -> None:
        """Have none yet; a thread is started when work comes for which none is free."""
        self._max_threads = max_threads
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._free = 0
        """How many threads have nothing to do, less the jobs that wait."""

    def callInThreadWithCallback(
        self, done: Callable[[bool, object], None], work: Callable[..., object], *arguments: object
    ) -> None:
        """
        Do some work on a thread, and call ``done`` there with True and its result, or with False and its Failure.

        On the reactor's thread. Work for which every thread is busy waits for one.

        :raises RuntimeError: no thread can be started for it; ``done`` will not be called.
        """
        with self._lock:
            if self._free <= 0 and len(self._threads) < self._max_threads:
                # Daemons: one that hangs must not keep the process from ending.
                thread = threading.Thread(target=self._run, name=f"engine_{len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)
                self._free += 1
            self._free -= 1
        self._jobs.put((done, work, arguments))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            done, work, arguments = job
            try:
                succeeded, result = True, work(*arguments)
            except BaseException:  # noqa: BLE001 - whatever it is, the reactor's thread is to hear of it
                succeeded, result = False, Failure()
            with self._lock:
                # First: what comes of done() may be more work, for this thread.
                self._free += 1
            try:
                done(succeeded, result)
            except Exception:  # noqa: BLE001 - the thread goes on
                self._log.failure("The end of a call could not be reported")
            # Nothing is kept alive while the next job is awaited.
            del job, done, work, arguments, result

    def stop(self) -> None:
        """Wait until every thread has ended, but not for one that hangs. Nothing may be done afterwards."""
        for _ in self._threads:
            self._jobs.put(None)
        give_up_s = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(0.0, give_up_s - time.monotonic()))
