"""One engine call whose text is sent as one choice of an answer. Everything here belongs to the reactor's thread."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from brunix_twisted.engine import Call
from brunix_twisted.limits import OutputLimiter
from brunix_twisted.model import Choice

Run = Callable[[Callable[[], Deferred[None]]], Deferred[None]]
"""
Start a call when a slot is free; see :meth:`brunix_twisted.api.admission.Admission.run`. Cancelling the Deferred leaves
the queue.
"""


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

    def choice(self) -> Choice:
        """Return how the text ended, when it has."""
        limiter = self.limiter
        return Choice(
            finish_reason=limiter.finish_reason or "stop",
            completion_tokens=limiter.tokens,
            text=self.text_bytes.decode(),
            cut=limiter.finish_reason is not None,
            stop=limiter.stop,
        )

    def stop(self) -> None:
        """End the call, whether it waits in the queue, for the engine, or for room in the buffer."""
        self.cancel_first_token_timer()
        if self.started:
            self.call.cancel()
        elif self.waiting is not None:
            self.waiting.cancel()

    def cancel_first_token_timer(self) -> None:
        """Note that the first token has arrived, or is not needed."""
        cancel(self.first_token_timer)


def cancel(delayed: IDelayedCall | None) -> None:
    """Cancel a delayed call, if there is one and it has not run."""
    if delayed is not None and delayed.active():
        delayed.cancel()
