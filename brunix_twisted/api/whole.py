"""
Send one answer in one piece, when it is complete.

Before the end there is nothing to send but heartbeats, so this needs no producer. As in
:mod:`brunix_twisted.api.streaming`, any exception ends this answer as failed, and cancels its call.
"""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from brunix_twisted.api.relay import Relay, Run, cancel
from brunix_twisted.api.response import AnswerEvents, Response
from brunix_twisted.dialects import Encoder
from brunix_twisted.engine import Call
from brunix_twisted.errors import GatewayError
from brunix_twisted.limits import OutputLimiter
from brunix_twisted.model import Choice, CompletionEnd
from brunix_twisted.runtime.reactors import Reactor

# White space before a JSON value has no meaning (RFC 8259, 2). A space and not a line break: some clients of Ollama's
# read lines.
_HEARTBEAT = b" "

_log = Logger("brunix.gateway")


class WholeAnswer:
    """See :class:`brunix_twisted.api.relay.Answer`. All methods belong to the reactor's thread."""

    def __init__(  # noqa: PLR0913 - what an answer needs
        self,
        reactor: Reactor,
        request: Response,
        encoder: Encoder,
        events: AnswerEvents,
        *,
        buffer_bytes: int,
        max_bytes: int,
        heartbeat_s: float = 0,
        errors_are_answers: bool = False,
    ) -> None:
        """
        Prepare to answer a request.

        :param buffer_bytes: see :meth:`brunix_twisted.engine.Call.start`.
        :param max_bytes: maximum size of the text, all choices together, in UTF-8.
        :param heartbeat_s: send a heartbeat after this time of an engine call, and again; 0: never.
        :param errors_are_answers: whether this API reports an error in a complete response with status 200.
        """
        self._reactor = reactor
        self._request = request
        self._encoder = encoder
        self._events = events
        self._buffer_bytes = buffer_bytes
        self._max_bytes = max_bytes
        self._heartbeat_s = heartbeat_s
        self._errors_are_answers = errors_are_answers
        self._heartbeat: IDelayedCall | None = None
        self._relay: Relay | None = None
        self._relayed_bytes = 0
        self._has_text = False
        self._gone = False
        self.started = False

    def relay_call(self, index: int, call: Call, limiter: OutputLimiter, run: Run) -> Deferred[Choice]:
        """See :class:`brunix_twisted.api.relay.Answer`."""

        def start() -> Deferred[None]:
            relay.started = True
            # Not in the queue: a question that is rejected there has its own status.
            self._schedule_heartbeat()
            try:
                return call.start(lambda: self._advance(relay), self._buffer_bytes)
            except BaseException:
                # It may have been started in part.
                call.cancel()
                raise

        def ended(result: Failure | None) -> None:
            relay.call_ended, relay.failure = True, result
            self._advance(relay)

        self._relay = relay = Relay(index, call, limiter, Deferred(lambda _: self.stopProducing()))
        relay.waiting = run(start)
        relay.waiting.addBoth(ended).addErrback(lambda failure: self._fail(relay, failure))
        return relay.done

    def _advance(self, relay: Relay) -> None:
        """Take the text that has arrived. Raises nothing."""
        if relay.ended or self._gone:
            return
        limiter = relay.limiter
        try:
            for text in relay.call.take(sys.maxsize):
                if not self._has_text:
                    self._has_text = True
                    self._events.on_first_text()
                self._add(relay, limiter.feed(text))
            if limiter.finish_reason is None:
                if not relay.call_ended:
                    return
                if relay.failure is None:
                    self._add(relay, limiter.flush())
        except Exception:  # noqa: BLE001 - the guard of the whole path
            relay.failure = Failure()
        else:
            # Truncated text is complete, even if the engine has failed after it.
            if limiter.finish_reason is not None:
                relay.failure = None
        self._end(relay)

    def _schedule_heartbeat(self) -> None:
        if self._heartbeat_s:
            self._heartbeat = self._reactor.callLater(self._heartbeat_s, self._send_heartbeat)

    def _send_heartbeat(self) -> None:
        self._schedule_heartbeat()
        try:
            if not self.started:
                self._events.on_headers(self._encoder.content_type, None)
                # Last: an exception before this is answered with its own status.
                self.started = True
            self._request.write(_HEARTBEAT)
        except Exception:  # noqa: BLE001 - the guard of the whole path
            if self._relay is not None:
                self._fail(self._relay, Failure())

    def _add(self, relay: Relay, text: str) -> None:
        if text:
            relay.add(text, self._relayed_bytes, self._max_bytes)
            self._encoder.delta(relay.index, text)

    def _fail(self, relay: Relay, failure: Failure) -> None:
        """End the call as failed after an exception here."""
        relay.failure = failure
        self._end(relay)

    def _end(self, relay: Relay) -> None:
        relay.ended = True
        self._relay = None
        self._relayed_bytes += len(relay.text_bytes)
        self._stop(relay)
        if relay.failure is None:
            relay.done.callback(relay.choice())
        else:
            relay.done.errback(relay.failure)

    def prepend_text(self, index: int, text: str) -> None:
        """See :class:`brunix_twisted.api.relay.Answer`."""
        self._encoder.delta(index, text)

    def finish(self, end: CompletionEnd) -> None:
        """See :class:`brunix_twisted.api.relay.Answer`."""
        if self._gone:
            return
        data_bytes = self._encoder.begin() + self._encoder.finish(end)
        self._gone = True
        if not self.started:
            self._events.on_headers(self._encoder.content_type, len(data_bytes))
            # Not before: an exception until here is answered with its own status.
            self.started = True
        try:
            self._request.finish_with(data_bytes)
        except BaseException:
            self._request.disconnect()
            raise

    def fail(self, error: GatewayError) -> None:
        """
        Send the error after the heartbeats. Their response has status 200, so it must not be complete.

        Does nothing if the client has been disconnected, because nothing can follow a part of the response.
        """
        if self._gone:
            return
        self._gone = True
        try:
            data_bytes = self._encoder.fail(error)
            if self._errors_are_answers:
                self._request.finish_with(data_bytes)
            else:
                self._request.truncate(data_bytes)
        except Exception:  # noqa: BLE001 - the client must not wait for an end that is never sent
            _log.failure("An answer's error could not be sent; disconnecting its client")
            self._request.disconnect()

    def abort(self, error: GatewayError) -> None:
        """See :class:`brunix_twisted.api.relay.Answer`."""
        if self._relay is not None:
            self._fail(self._relay, Failure(error))

    def stopProducing(self) -> None:
        """See :class:`brunix_twisted.api.relay.Answer`."""
        self._gone = True
        if self._relay is not None:
            self._stop(self._relay)

    def _stop(self, relay: Relay) -> None:
        cancel(self._heartbeat)
        relay.stop()
