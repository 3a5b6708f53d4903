"""How long a run may take, and how many steps run at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from brunix_twisted.cli.diagnosis import Diagnosis, DiagnosisError

STEP_S: Final = 3.0
"""The default timeout of a step that does not call the engine."""
_BUDGET_S: Final = 14.0
_QUESTION_S: Final = 7.0
_MIN_STEP_S: Final = 0.1
_NO_TIME: Final = Diagnosis("no_time", "the time budget is used up", "--patient allows more time.")


@attrs.frozen
class TimeBudget:
    """The time budget of one run."""

    patience_s: float | None = None
    """How long to wait for one answer; None for the default."""
    started_s: float = attrs.field(factory=time.monotonic)

    @property
    def total_s(self) -> float:
        """How long the whole run may take."""
        return _BUDGET_S if self.patience_s is None else _BUDGET_S + 2 * self.patience_s

    @property
    def elapsed_s(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self.started_s

    @property
    def remaining_s(self) -> float:
        """How much time is left."""
        return max(0.0, self.total_s - self.elapsed_s)

    def step_s(self, wanted_s: float = STEP_S) -> float:
        """
        Return the timeout for a step.

        :raises DiagnosisError: no time is left.
        """
        if self.remaining_s < _MIN_STEP_S:
            raise DiagnosisError(_NO_TIME)
        return min(wanted_s, self.remaining_s)

    def question_s(self) -> float:
        """Return the timeout for an answer. Raises what :meth:`step_s` raises."""
        return self.step_s(_QUESTION_S if self.patience_s is None else self.patience_s)


def start_thread(run: Callable[[], None]) -> threading.Thread:
    """Run a function in the background. A command that is stopped does not wait for it."""
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def run_concurrently(work: Sequence[Callable[[], None]], max_threads: int, timeout_s: float) -> None:
    """Run the functions in order, at most ``max_threads`` at the same time, until all are done or time is up."""
    waiting = list(work)
    lock = threading.Lock()

    def run_next() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                run = waiting.pop(0)
            try:
                run()
            except DiagnosisError:
                return  # no time is left for the others either

    deadline_s = time.monotonic() + timeout_s
    for thread in [start_thread(run_next) for _ in range(max_threads)]:
        thread.join(max(0.0, deadline_s - time.monotonic()))
