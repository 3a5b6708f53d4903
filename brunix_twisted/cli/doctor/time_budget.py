"""How long everything may take, and how many of it at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from brunix_twisted.cli.diagnosis import Diagnosis, DiagnosisError

STEP_S: Final = 3.0
"""For what asks nothing of the engine."""
_BUDGET_S: Final = 14.0
_QUESTION_S: Final = 7.0
_MIN_STEP_S: Final = 0.1
_NO_TIME: Final = Diagnosis("no_time", "time was up", "--patient takes longer.")


@attrs.frozen
class TimeBudget:
    """The time of one run."""

    patience_s: float | None = None
    """How long somebody is ready to wait for one answer; None: they are not."""
    began_s: float = attrs.field(factory=time.monotonic)

    @property
    def budget_s(self) -> float:
        """How long everything may take."""
        return _BUDGET_S if self.patience_s is None else _BUDGET_S + 2 * self.patience_s

    @property
    def took_s(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began_s

    @property
    def left_s(self) -> float:
        """How much is left of it."""
        return max(0.0, self.budget_s - self.took_s)

    def step_s(self, wanted_s: float = STEP_S) -> float:
        """
        Give the time of a step.

        :raises TroubleError: nothing is left.
        """
        if self.left_s < _MIN_STEP_S:
            raise DiagnosisError(_NO_TIME)
        return min(wanted_s, self.left_s)

    def question_s(self) -> float:
        """Give the time of an answer; raises likewise."""
        return self.step_s(_QUESTION_S if self.patience_s is None else self.patience_s)


def start(run: Callable[[], None]) -> threading.Thread:
    """Do something beside everything else. Whoever stops the command does not wait for it."""
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def run_concurrently(work: Sequence[Callable[[], None]], at_once: int, timeout_s: float) -> None:
    """Do the work in its order, so much of it at once, and return when it is done or time is up."""
    waiting = list(work)
    taking = threading.Lock()

    def take() -> None:
        while True:
            with taking:
                if not waiting:
                    return
                run = waiting.pop(0)
            try:
                run()
            except DiagnosisError:
                return  # no time is left for the others either

    until_s = time.monotonic() + timeout_s
    for thread in [start(take) for _ in range(at_once)]:
        thread.join(max(0.0, until_s - time.monotonic()))
