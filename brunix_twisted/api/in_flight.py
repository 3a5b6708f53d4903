"""The answers in flight, and the drain that waits for them. Everything here runs on the reactor's thread."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from brunix_twisted import errors
from brunix_twisted.api.admission import Admission
from brunix_twisted.api.streaming import AnswerProducer
from brunix_twisted.errors import GatewayError
from brunix_twisted.runtime.reactors import Reactor, cancel_when_fired


class InFlight:
    """
    The answers in flight.

    The code that adds an answer to :attr:`answers` removes it, and then calls :meth:`removed`.
    """

    def __init__(self, reactor: Reactor, admission: Admission) -> None:
        """
        Start without answers.

        :param admission: the queue that a drain empties.
        """
        self._reactor = reactor
        self._admission = admission
        self.answers: dict[AnswerProducer, bool] = {}
        """The answers in flight, and whether each is a stream."""
        self.draining = False
        """Whether new requests are rejected because the gateway stops."""
        self._drained: Deferred[None] = Deferred()

    @property
    def streams(self) -> int:
        """The number of streamed answers in flight, those in the queue included."""
        return sum(self.answers.values())

    def check(self) -> None:
        """
        Check that a new answer may begin.

        :raises GatewayError: the gateway is stopping.
        """
        if self.draining:
            raise _stopping()

    def removed(self) -> None:
        """Note that an answer has been removed: a drain ends with the last one."""
        if self.draining and not self.answers:
            self._drained.callback(None)

    def drain(self, timeout_s: float) -> Deferred[None]:
        """
        Reject new requests and those in the queue, and wait for the answers in flight.

        Fires when all of them have ended. Those still running after ``timeout_s`` seconds end with an error.
        """
        self.draining = True
        self._admission.refuse(_stopping)
        if not self.answers:
            return succeed(None)

        def abort() -> None:
            # An answer with several prompts may have returned to the queue.
            self._admission.refuse(_stopping)
            for answer in tuple(self.answers):
                answer.abort(_stopping())

        return cancel_when_fired(self._drained, self._reactor.callLater(timeout_s, abort))


def _stopping() -> GatewayError:
    return GatewayError(errors.STOPPING, "The gateway is stopping")
