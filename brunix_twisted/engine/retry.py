"""When an engine call is retried. Pure, except for its clock."""

from __future__ import annotations

import time

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError

# How long a call waits for an unreachable engine. It is longer than gRPC's pause between two attempts to connect, so
# that a restarted engine is found. The rest of the second within which a call must fail is for the network.
RECONNECT_S = 0.5


class RetryBudget:
    """
    The deadline of one call, and the decision to retry it.

    A call that finds the engine unreachable waits for it, and is then retried once, whether the engine has become
    reachable or not: the retry finds out.
    """

    def __init__(self, timeout_s: float) -> None:
        """Start the wait for an unreachable engine now; :meth:`begin` starts the deadline."""
        self._created_s = time.monotonic()
        self._deadline_s = 0.0
        self.timeout_s = timeout_s
        self.received = False
        """Whether a message has been received. Then the call must not be retried."""

    def begin(self) -> None:
        """Start the deadline, at the first attempt."""
        self._deadline_s = time.monotonic() + self.timeout_s

    def wait_s(self, error: GatewayError) -> float:
        """
        Return how long to wait for the engine before the retry, in seconds; 0 to retry at once.

        :raises GatewayError: the given error, if a retry would not help.
        """
        if error.kind is not errors.ENGINE_UNAVAILABLE or self.received:
            raise error
        # The time that the call has waited for a worker or a connection counts. So all waiting calls fail within a
        # second if the engine is unreachable, however many there are.
        return max(0.0, min(self._created_s + RECONNECT_S, self._deadline_s) - time.monotonic())

    def remaining_s(self, error: GatewayError) -> float:
        """
        Return the time that remains for the retry, in seconds.

        :raises GatewayError: the given error, if no time remains.
        """
        remaining_s = self._deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise error
        return remaining_s
