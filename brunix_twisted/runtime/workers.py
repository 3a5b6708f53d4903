"""A pool of threads for calls that block."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger("brunix.gateway")

# Maximum time that stop() waits for the threads. Their calls have been cancelled by then.
_STOP_S: Final = 2.0

_Job = tuple[Callable[[bool, object], None], Callable[..., object], tuple[object, ...]]


class Workers:
    """
    A thread pool with the interface that ``deferToThreadPool`` needs.

    A job starts after one thread switch; Twisted's pool needs five. If the system refuses a new thread, the job is
    rejected. The standard library's pool would queue the job, and count the missing thread as idle from then on. Later
    jobs would wait for each other.
    """

    def __init__(self, max_threads: int, name: str = "engine") -> None:
        """
        Create a pool without threads. It starts one for each job that finds no idle thread.

        :param name: what the names of the threads begin with.
        """
        self._max_threads = max_threads
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._idle = 0
        """Number of idle threads, minus the number of waiting jobs."""

    def callInThreadWithCallback(
        self, done: Callable[[bool, object], None], work: Callable[..., object], *arguments: object
    ) -> None:
        """
        Run a job on a thread, then call ``done`` there with True and the result, or with False and the Failure.

        Call this on the reactor's thread. If all threads are busy, the job waits.

        :raises RuntimeError: no thread can be started; ``done`` will not be called.
        """
        with self._lock:
            if self._idle <= 0 and len(self._threads) < self._max_threads:
                # A daemon: a thread that hangs must not keep the process from ending.
                thread = threading.Thread(target=self._run, name=f"{self._name}_{len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)
                self._idle += 1
            self._idle -= 1
        self._jobs.put((done, work, arguments))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            done, work, arguments = job
            try:
                succeeded, result = True, work(*arguments)
            except BaseException:  # noqa: BLE001 - the Failure goes to the reactor's thread
                succeeded, result = False, Failure()
            with self._lock:
                # Before done(), which may add a job that this thread can run.
                self._idle += 1
            try:
                done(succeeded, result)
            except Exception:  # noqa: BLE001 - the thread must continue
                _log.failure("Reporting the end of a call on a thread failed")
            # Keep no references while waiting for the next job.
            del job, done, work, arguments, result

    def stop(self) -> None:
        """Stop all threads, and wait up to two seconds for them. No job may be added afterwards."""
        for _ in self._threads:
            self._jobs.put(None)
        deadline_s = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
