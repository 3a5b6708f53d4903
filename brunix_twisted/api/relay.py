"""
One engine call whose text is sent as one choice of an answer, and what an answer does with it.

Everything here belongs to the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from brunix_twisted import errors
from brunix_twisted.engine import Call
from brunix_twisted.errors import GatewayError
from brunix_twisted.limits import OutputLimiter
from brunix_twisted.model import Choice, CompletionEnd

_log = Logger("brunix.gateway")

Run = Callable[[Callable[[], Deferred[None]]], Deferred[None]]
"""
Start a call when a slot is free; see :meth:`brunix_twisted.api.admission.Admission.run`. Cancelling the Deferred leaves
the queue.
"""


class Answer(Protocol):
    """
    An answer to one request: :class:`brunix_twisted.api.streaming.AnswerProducer`, or, if it is sent in one piece,
    :class:`brunix_twisted.api.whole.WholeAnswer`.
    """

    started: bool
    """Whether bytes have been sent. From then on, a failure can only be reported within the answer."""

    def relay_call(self, index: int, call: Call, limiter: OutputLimiter, run: Run) -> Deferred[Choice]:
        """
        Run one engine call, whose text is one choice of the answer.

        Fires when all of the text is on its way to the client. Fails with GatewayError, or with any other exception
        that was raised, and then the call is cancelled. Cancelling the Deferred cancels the call.

        :param run: starts the call when a slot is free.
        """

    def prepend_text(self, index: int, text: str) -> None:
        """Add text that is not the engine's before the next text. Alone, it does not start the answer."""

    def finish(self, end: CompletionEnd) -> None:
        """
        Send the end of a complete answer.

        If it raises, the answer is not complete, and :meth:`fail` has to end it.
        """

    def fail(self, error: GatewayError) -> None:
        """
        End an answer that has started and is not complete: with the error, or by disconnecting the client.

        Raises nothing.
        """

    def abort(self, error: GatewayError) -> None:
        """
        End the current engine call now, even if the client reads slowly.

        The answer ends with the error, as if the engine had failed, unless the call has ended already.
        """

    def stopProducing(self) -> None:
        """Stop: the client has disconnected, or the answer has ended. Call it any number of times."""


@attrs.define(eq=False)
class Relay:
    """The state of one engine call and of its text."""

    index: int
    call: Call
    limiter: OutputLimiter
    done: Deferred[Choice]
    waiting: Deferred[None] | None = None
    """Fires when the call has ended. Cancelling it before the call has started leaves the queue."""
    started: bool = False
    call_ended: bool = False
    """Whether the call has ended: it sends no more text."""
    ended: bool = False
    """Whether everything of it has been encoded: only unsent bytes are left."""
    failure: Failure | None = None
    first_token_timer: IDelayedCall | None = None
    """Ends a call that sends no text."""
    text_bytes: bytearray = attrs.Factory(bytearray)
    """The text sent so far, in UTF-8. A list of its tokens would take ten times the memory."""

    def add(self, text: str, earlier_bytes: int, max_bytes: int) -> None:
        """
        Add text that is sent.

        :param earlier_bytes: the size of the text of earlier choices.
        :raises GatewayError: the answer is too large.
        """
        self.text_bytes += text.encode()
        if earlier_bytes + len(self.text_bytes) > max_bytes:
            raise errors.answer_too_large(f"more than PROXY_MAX_ANSWER_BYTES={max_bytes}")

    def choice(self) -> Choice:
        """Return how the text ended, when it has."""
        limiter = self.limiter
        text = self.text_bytes.decode()
        return Choice(
            finish_reason=limiter.finish_reason or "stop",
            completion_tokens=limiter.tokens,
            text=text,
            cut=limiter.finish_reason is not None,
            stop=limiter.stop,
            sources=tuple(source for source in self.call.sources if source.end <= len(text)),
        )

    def stop(self) -> None:
        """End the call, whether it waits in the queue, for the engine, or for room in the buffer. Raises nothing."""
        try:
            self.cancel_first_token_timer()
            if self.started:
                self.call.cancel()
            elif self.waiting is not None:
                self.waiting.cancel()
        except Exception:  # noqa: BLE001 - the other steps of a stop follow
            _log.failure("An engine call could not be cancelled")

    def cancel_first_token_timer(self) -> None:
        """Note that the first token has arrived, or is not needed."""
        cancel(self.first_token_timer)


def cancel(delayed: IDelayedCall | None) -> None:
    """Cancel a delayed call, if there is one and it has not run."""
    if delayed is not None and delayed.active():
        delayed.cancel()
