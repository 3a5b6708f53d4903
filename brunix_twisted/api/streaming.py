"""
Send one answer to its client.

If the client reads slowly, Twisted pauses the producer. The buffer then fills up to its limit, and the engine has to
wait. A client that has stopped reading is disconnected, so that it uses memory and a slot only for a limited time.

This module fails closed: any exception between the arrival of a text and the write of its bytes ends this answer as
failed and cancels its call. No exception reaches the reactor, so none affects another answer.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from brunix_twisted import errors
from brunix_twisted.api.relay import Relay, Run, cancel
from brunix_twisted.api.response import AnswerEvents, Response
from brunix_twisted.dialects import Encoder
from brunix_twisted.engine import Call
from brunix_twisted.errors import GatewayError
from brunix_twisted.limits import OutputLimiter
from brunix_twisted.model import Choice, CompletionEnd
from brunix_twisted.runtime.reactors import Reactor

_log = Logger("brunix.gateway")

# Much larger than an ordinary answer: the engine finishes such an answer while a slow client still reads.
BUFFER_BYTES = 1024 * 1024

# How much is written to the transport at once: just enough to make it pause the producer. It resumes only when it has
# sent everything, which distinguishes a client that reads slowly from one that has stopped.
_PIECE_BYTES = 64 * 1024


@attrs.frozen(kw_only=True)
class StreamTimeouts:
    """Limits of an answer's time and size. 0 seconds means no limit."""

    heartbeat_s: float = 0
    """Send a heartbeat after this time without bytes."""
    first_token_timeout_s: float = 0
    """Maximum time until the first text from the engine."""
    whole_heartbeat_s: float = 0
    """Send a heartbeat after this time without bytes in an answer that is not streamed."""
    stall_timeout_s: float = 0
    """Disconnect a client that has read nothing for this long while bytes wait for it."""
    buffer_bytes: int = BUFFER_BYTES
    """Maximum size of the text that waits for the client; then the engine waits."""
    max_answer_bytes: int = 16 * 1024 * 1024
    """Maximum size of an answer's text, all its choices together, in UTF-8."""


@implementer(IPushProducer)
class AnswerProducer:
    """
    Sends one answer to its client.

    All methods belong to the reactor's thread. The response's headers are sent with the first bytes of the answer, so
    that an earlier failure still has its real HTTP status.
    """

    def __init__(
        self,
        reactor: Reactor,
        request: Response,
        encoder: Encoder,
        timeouts: StreamTimeouts,
        events: AnswerEvents,
    ) -> None:
        """Prepare to answer a request. Nothing is sent yet."""
        self._reactor = reactor
        self._request = request
        self._encoder = encoder
        self._timeouts = timeouts
        self._events = events
        self._relay: Relay | None = None
        self._relayed_bytes = 0
        """The size of the text of earlier choices."""
        self._fault: Failure | None = None
        """The first exception raised here. The answer can no longer be complete."""
        self._unwritable = False
        """Whether a write has raised. Then it is unknown how much of it the client receives."""
        self._begun = False
        self._echoes = b""
        self._unsent: bytes | memoryview = b""
        self._paused = False
        self._flush_all = False
        self._stall: IDelayedCall | None = None
        self._gone = False
        self._draining = False
        self.started = False
        """Whether bytes have been sent. From then on, a failure can only be reported within the answer."""
        self._has_text = False
        self._last_write_s = reactor.seconds()
        self._heartbeat = self._after(timeouts.heartbeat_s, self._send_heartbeat)

    def _after(self, timeout_s: float, function: Callable[..., None], *arguments: object) -> IDelayedCall | None:
        return self._reactor.callLater(timeout_s, function, *arguments) if timeout_s else None

    def relay_call(self, index: int, call: Call, limiter: OutputLimiter, run: Run) -> Deferred[Choice]:
        """See :class:`Answer`. On failure, the text before it is written first."""

        def arrived() -> None:
            try:
                relay.cancel_first_token_timer()
            finally:
                self._drain()

        def start() -> Deferred[None]:
            relay.started = True
            relay.first_token_timer = self._after(self._timeouts.first_token_timeout_s, self._first_token_timed_out)
            try:
                return call.start(arrived, self._timeouts.buffer_bytes)
            except BaseException:
                # It may have been started in part.
                call.cancel()
                raise

        def ended(result: Failure | None) -> None:
            relay.cancel_first_token_timer()
            if relay.call_ended:
                return  # aborted before
            relay.call_ended = True
            relay.failure = result
            self._drain()

        relay = Relay(index, call, limiter, Deferred(lambda _: self.stopProducing()))
        self._relay = relay
        relay.waiting = run(start)
        relay.waiting.addBoth(ended).addErrback(self._fail_closed)
        return relay.done

    def _first_token_timed_out(self) -> None:
        message, detail = "The engine did not begin to answer in time", "no first token"
        self.abort(GatewayError(errors.ENGINE_TIMEOUT, message, detail=detail))

    def prepend_text(self, index: int, text: str) -> None:
        """See :class:`Answer`."""
        self._echoes += self._encoder.delta(index, text)

    def finish(self, end: CompletionEnd) -> None:
        """See :class:`Answer`."""
        if self._fault is not None:
            self._fault.raiseException()
        self._end(self._opening() + self._encoder.finish(end))

    def fail(self, error: GatewayError) -> None:
        """Send the error that ends an incomplete answer, or disconnect the client if it cannot be sent."""
        try:
            self._end(self._encoder.fail(error))
        except Exception:  # noqa: BLE001 - the client must not wait for an end that is never sent
            _log.failure("An answer's error could not be sent; disconnecting its client")
            self._disconnect()

    def abort(self, error: GatewayError) -> None:
        """See :class:`Answer`."""
        relay = self._relay
        if relay is None:
            return
        if not relay.call_ended:
            relay.call_ended = True
            relay.failure = Failure(error)
            relay.stop()
        # Otherwise a client that has stopped reading would delay the end without limit. The rest is at most the buffer.
        self._flush_all = True
        self.resumeProducing()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Stop writing, because the client reads too slowly. The engine continues until the buffer is full."""
        if not self._flush_all and not self._paused:
            self._paused = True
            self._stall = self._after(self._timeouts.stall_timeout_s, self._stalled)

    def resumeProducing(self) -> None:
        """Continue writing. It may be called from within a write."""
        self._paused = False
        cancel(self._stall)
        self._drain()

    def stopProducing(self) -> None:
        """
        Stop: the client has disconnected, or the answer has ended.

        The transport, the request and the cancelled route call it, in any order.
        """
        self._gone = True
        self._cancel_timers()
        if self._relay is not None:
            self._relay.stop()

    def _stalled(self) -> None:
        self.stopProducing()
        try:
            self._events.on_stalled()
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        self._gone = True
        self._cancel_timers()
        self._request.disconnect()

    def _fail_closed(self, fault: Failure) -> None:
        """End the answer as failed after an exception: it must not look complete."""
        if self._fault is not None:
            # Even the bytes before the failure cannot be sent.
            self._unwritable = True
        self._fault = self._fault or fault
        if self._unwritable:
            self._unsent = b""
        relay = self._relay
        if relay is not None:
            relay.ended = True
            relay.stop()
        self._drain()

    def _drain(self) -> None:
        """Write everything that waits, unless the producer is paused. Raises nothing."""
        # A write can call this again; the loop that is running continues.
        if self._draining:
            return
        self._draining = True
        try:
            while self._advance():
                pass
        except Exception:  # noqa: BLE001 - the guard of the whole path
            self._draining = False
            self._fail_closed(Failure())
        finally:
            self._draining = False

    def _advance(self) -> bool:
        """Do the next step; return False if nothing is left to do."""
        relay = self._relay
        if relay is None or self._gone:
            return False
        if relay.ended and not self._unsent:
            self._finish_relay(relay)
        elif self._paused:
            return False
        elif self._unsent:
            self._write_piece()
        elif relay.call_ended or not relay.call.is_empty:
            self._send(relay)
        else:
            return False
        return True

    def _send(self, relay: Relay) -> None:
        """Encode the text that has arrived, and write it."""
        limiter = relay.limiter
        pieces: list[bytes] = []
        try:
            for text in relay.call.take(_PIECE_BYTES):
                if not self._has_text:
                    self._has_text = True
                    self._events.on_first_text()
                if self._echoes or not self._begun:
                    pieces.append(self._opening())
                self._add(relay, limiter.feed(text), pieces)
            ended = limiter.finish_reason is not None or (relay.call_ended and relay.call.is_empty)
            if ended and relay.failure is None:
                self._add(relay, limiter.flush(), pieces)
        finally:
            # What precedes a failure is sent before it.
            self._unsent = b"".join(pieces)
        self._write_piece()
        if ended:
            relay.ended = True
            # The engine is free, even if the client takes long to read the rest.
            relay.stop()

    def _add(self, relay: Relay, text: str, pieces: list[bytes]) -> None:
        if text:
            relay.add(text, self._relayed_bytes, self._timeouts.max_answer_bytes)
            pieces.append(self._encoder.delta(relay.index, text))

    def _finish_relay(self, relay: Relay) -> None:
        # Truncated text is complete, even if the engine has failed after it.
        failure = self._fault or (relay.failure if relay.limiter.finish_reason is None else None)
        choice = relay.choice() if failure is None else None
        self._relay = None
        self._relayed_bytes += len(relay.text_bytes)
        if choice is not None:
            relay.done.callback(choice)
        else:
            relay.done.errback(failure)

    def _opening(self) -> bytes:
        """Return the bytes that precede the next ones."""
        begin = b"" if self._begun else self._encoder.begin()
        self._begun = True
        echoes, self._echoes = self._echoes, b""
        return begin + echoes

    def _write_piece(self) -> None:
        unsent = self._unsent
        if len(unsent) <= _PIECE_BYTES:
            self._write(bytes(unsent))
            self._unsent = b""
        else:
            # Slices of a memoryview are not copies.
            self._unsent = unsent = memoryview(unsent)
            self._write(bytes(unsent[:_PIECE_BYTES]))
            self._unsent = unsent[_PIECE_BYTES:]

    def _write(self, data_bytes: bytes) -> None:
        if not data_bytes:
            return
        self._last_write_s = self._reactor.seconds()
        if not self.started:
            self._start(None)
            self._request.registerProducer(self, True)  # noqa: FBT003 - IConsumer's positional "streaming"
        try:
            self._request.write(data_bytes)
        except BaseException:
            self._unwritable = True
            raise

    def _end(self, data_bytes: bytes) -> None:
        self._cancel_timers()
        if self._gone:
            return
        if self._unwritable:
            self._disconnect()
            return
        self._gone = True
        try:
            if self.started:
                self._request.unregisterProducer()
            else:
                # This is the whole answer, so its length is known.
                self._start(len(data_bytes))
            self._request.finish_with(data_bytes)
        except BaseException:
            if self.started:
                self._disconnect()
            raise

    def _start(self, length_bytes: int | None) -> None:
        self._events.on_headers(self._encoder.content_type, length_bytes)
        # Last: an exception before this is answered with its own status.
        self.started = True

    def _send_heartbeat(self) -> None:
        heartbeat_s = self._timeouts.heartbeat_s
        silent_s = self._reactor.seconds() - self._last_write_s
        silent = silent_s >= heartbeat_s
        # Before the write, which may end the answer and cancel this timer.
        self._heartbeat = self._reactor.callLater(heartbeat_s - (0 if silent else silent_s), self._send_heartbeat)
        if silent and not self._paused:
            try:
                self._write(self._opening() + self._encoder.heartbeat())
            except Exception:  # noqa: BLE001 - as in _drain
                self._fail_closed(Failure())

    def _cancel_timers(self) -> None:
        cancel(self._heartbeat)
        cancel(self._stall)
