"""The answers in flight, and the drain that waits for them. Everything here runs on the reactor's thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from twisted.internet.defer import Deferred, succeed

from brunix_twisted import errors
from brunix_twisted.api.admission import Admission
from brunix_twisted.api.relay import Answer
from brunix_twisted.errors import GatewayError
from brunix_twisted.runtime.reactors import Reactor, cancel_when_fired


@attrs.define(eq=False)
class Entry:
    """A request for an answer that is in flight."""

    stream: bool
    call_id: str | None = None
    answer: Answer | None = None
    _error: GatewayError | None = None

    def begin(self, answer: Answer) -> None:
        """
        Note that the answer begins.

        :raises GatewayError: it has been aborted before.
        """
        self.answer = answer
        if self._error is not None:
            raise self._error

    def abort(self, error: GatewayError) -> None:
        """End the answer with an error."""
        self._error = error
        if self.answer is not None:
            self.answer.abort(error)


class InFlight:
    """The answers in flight."""

    def __init__(self, reactor: Reactor, admission: Admission) -> None:
        """
        Start without answers.

        :param admission: the queue that a drain empties.
        """
        self._reactor = reactor
        self._admission = admission
        self.entries: dict[Entry, None] = {}
        """The requests in flight, oldest first."""
        self.draining = False
        """Whether new requests are rejected because the gateway stops."""
        self._drained: Deferred[None] = Deferred()

    @property
    def streams(self) -> int:
        """The number of streamed answers in flight, those in the queue included."""
        return sum(entry.stream for entry in self.entries)

    @contextmanager
    def entry(self, *, stream: bool, call_id: str | None = None) -> Iterator[Entry]:
        """
        Count a request while it is in flight: a drain waits for it.

        :param call_id: the id by which its client can :meth:`cancel` it.
        :raises GatewayError: the gateway is stopping.
        """
        if self.draining:
            raise _stopping()
        entry = Entry(stream, call_id)
        self.entries[entry] = None
        try:
            yield entry
        finally:
            del self.entries[entry]
            if self.draining and not self.entries:
                self._drained.callback(None)

    def cancel(self, call_id: str) -> None:
        """End the answers with this id, if they are in flight in this process."""
        for entry in tuple(self.entries):
            if entry.call_id == call_id:
                entry.abort(GatewayError(errors.CANCELLED, "The client cancelled the call"))

    def drain(self, timeout_s: float) -> Deferred[None]:
        """
        Reject new requests and those in the queue, and wait for the answers in flight.

        Fires when all of them have ended. Those still running after ``timeout_s`` seconds end with an error.
        """
        self.draining = True
        self._admission.refuse(_stopping)
        if not self.entries:
            return succeed(None)

        def abort() -> None:
            # An answer with several prompts may have returned to the queue.
            self._admission.refuse(_stopping)
            for entry in tuple(self.entries):
                entry.abort(_stopping())

        return cancel_when_fired(self._drained, self._reactor.callLater(timeout_s, abort))


def _stopping() -> GatewayError:
    return GatewayError(errors.STOPPING, "The gateway is stopping")
