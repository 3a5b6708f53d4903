"""The rule by which a question that met no engine is put a second time. Pure but for its clock."""

from __future__ import annotations

import time

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError

# So long after it was asked a question still waits for an engine that is away. Longer than the pause between two
# attempts to connect, so that one that is back is found; the rest of the second in which to be told is the network's.
RETURN_S = 0.5


class RetryBudget:
    """
    The time that one question has, and what it is good for.

    A question that met no engine waits for its return, and is put again when something came of waiting or not: the
    question itself finds out. There is no third time.
    """

    def __init__(self, timeout_s: float) -> None:
        """Begin the question's time now; its deadline runs from the first attempt."""
        self._made_s = time.monotonic()
        self._deadline_s = 0.0
        self.timeout_s = timeout_s
        self.heard = False
        """Whether a message has come: then nothing may be asked again."""

    def begin(self) -> None:
        """Start the deadline: the question is put for the first time."""
        self._deadline_s = time.monotonic() + self.timeout_s

    def wait_s(self, error: GatewayError) -> float:
        """
        How long to wait for the engine's return, 0 for not at all.

        :raises GatewayError: the one that is given, because a second time would not help.
        """
        if error.kind is not errors.ENGINE_UNAVAILABLE or self.heard:
            raise error
        # What the question has waited for a worker, or for a connection, counts: so however many wait, all of them
        # are told within a second that the engine is away.
        return max(0.0, min(self._made_s + RETURN_S, self._deadline_s) - time.monotonic())

    def remaining_s(self, error: GatewayError) -> float:
        """
        What is left for the second attempt.

        :raises GatewayError: the one that is given, because nothing is left.
        """
        remaining_s = self._deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise error
        return remaining_s
