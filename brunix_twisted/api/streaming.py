"""
One answer on its way to the client's socket.

A client that reads slowly makes Twisted pause the producer; what waits before it grows to its bound, and then the
engine waits. A client that has stopped reading costs neither memory nor a place with the engine for long, for it is
cut off.

It fails closed: whatever raises between the arrival of a text and its bytes in the transport ends this answer as
failed, and cancels its call. No exception leaves this module for the reactor, so none can reach another answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from brunix_twisted import errors
from brunix_twisted.dialects import Encoder
from brunix_twisted.engine import Call
from brunix_twisted.errors import GatewayError
from brunix_twisted.limits import OutputLimiter
from brunix_twisted.model import Choice, CompletionEnd
from brunix_twisted.runtime.reactors import Reactor

# Far above an ordinary answer, so that the engine is done with it while a slow client still reads.
BUFFER_BYTES = 1024 * 1024

# How much the transport is given at a time: just what makes it ask for a pause, for it tells of a client that reads
# only when it has got rid of all it has. One that reads slowly is so told apart from one that has stopped.
_PIECE_BYTES = 64 * 1024


class Response(Protocol):
    """Where an answer goes: a request of the gateway's site."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:  # noqa: FBT001 - IConsumer
        """See IConsumer."""

    def unregisterProducer(self) -> None:
        """See IConsumer."""

    def write(self, data: bytes) -> None:
        """Send a piece of the answer."""

    def finish_with(self, data: bytes) -> None:
        """Send the last piece, and the answer's end with it."""

    def disconnect(self) -> None:
        """Drop the connection at once, so that the client sees that the answer is not whole."""


class AnswerEvents(Protocol):
    """What happens to an answer, for its response's headers, its record and the log."""

    def on_headers(self, content_type: bytes, length_bytes: int | None) -> None:
        """
        Set the response's headers, which are sent next.

        :param length_bytes: of the whole answer; None if it is sent in chunks.
        """

    def on_first_text(self) -> None:
        """Note that the first text has arrived from the engine."""

    def on_stalled(self) -> None:
        """Note that the client has read nothing for too long, just before it is disconnected."""


Run = Callable[[Callable[[], Deferred[None]]], Deferred[None]]
"""
Starts a call once there is a place for it; see :meth:`brunix_twisted.api.admission.Admission.run`. Cancelling the
Deferred ends the wait for a place.
"""


@attrs.frozen(kw_only=True)
class StreamTimeouts:
    """The time and the room that an answer has. 0 seconds: without end."""

    heartbeat_s: float = 0
    """After so many seconds without bytes the client is shown a sign of life."""
    first_token_timeout_s: float = 0
    """How long the engine may take to its first text."""
    stall_timeout_s: float = 0
    """How long the client may read nothing of what waits for it."""
    buffer_bytes: int = BUFFER_BYTES
    """How much text may wait for the client before the engine has to."""
    max_answer_bytes: int = 16 * 1024 * 1024
    """How large the text of an answer may become, all its choices together, in UTF-8."""


@attrs.define(eq=False)
class _Relay:
    """One engine call on its way out; the reactor's thread alone."""

    index: int
    call: Call
    limiter: OutputLimiter
    done: Deferred[Choice]
    waiting: Deferred[None] | None = None
    """Fires when the call has ended; cancelling it before the call has started gives up the wait for a place."""
    started: bool = False
    left: bool = False
    """Whether the call has ended: nothing more will come."""
    ended: bool = False
    """Whether nothing more will be sent of it but what waits for the client already."""
    failure: Failure | None = None
    patience: IDelayedCall | None = None
    """Ends a call whose first text does not come."""
    text_bytes: bytearray = attrs.Factory(bytearray)
    """What has been sent of the choice's text, in UTF-8: a list of its tokens would take ten times the memory."""

    def choice(self) -> Choice:
        """Say how the text ended, once it has."""
        limiter = self.limiter
        return Choice(
            finish_reason=limiter.finish_reason or "stop",
            completion_tokens=limiter.tokens,
            text=self.text_bytes.decode(),
            cut=limiter.finish_reason is not None,
            stop=limiter.stop,
        )

    def stop(self) -> None:
        """End the call, whether it waits for a place, for the engine or for room."""
        self.need_not_hurry()
        if self.started:
            self.call.cancel()
        elif self.waiting is not None:
            self.waiting.cancel()

    def need_not_hurry(self) -> None:
        """Let the engine take its time from now on."""
        _cancel(self.patience)


@implementer(IPushProducer)
class AnswerProducer:
    """
    One answer on its way to the client.

    Everything here runs on the reactor's thread. The response's headers go out with the first bytes of the answer, so
    that whatever fails before has its real HTTP status.
    """

    _log = Logger()

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
        self._relay: _Relay | None = None
        self._relayed_bytes = 0
        """Of text, in the choices before the current one."""
        self._fault: Failure | None = None
        """What raised here: the answer cannot become whole any more."""
        self._unwritable = False
        """Whether a write has raised: nobody knows how much of it the client will get."""
        self._begun = False
        self._echoes = b""
        self._unsent = memoryview(b"")
        self._paused = False
        self._flush_all = False
        self._stall: IDelayedCall | None = None
        self._gone = False
        self._draining = False
        self.started = False
        """Whether bytes have gone out: from then on a failure can only be told within the answer."""
        self._has_text = False
        self._last_write_s = reactor.seconds()
        self._heartbeat = self._after(timeouts.heartbeat_s, self._send_heartbeat)

    def _after(self, timeout_s: float, function: Callable[..., None], *arguments: object) -> IDelayedCall | None:
        return self._reactor.callLater(timeout_s, function, *arguments) if timeout_s else None

    def stream_call(self, index: int, call: Call, limiter: OutputLimiter, run: Run) -> Deferred[Choice]:
        """
        Send what one engine call says as the text of one choice.

        Fires when all of it has been written. Fails, after everything before the failure has been written, with
        GatewayError or with whatever else was raised on the way; the call is cancelled then. Cancelling stops the call.

        :param run: calls what it is given when the call may be started.
        """

        def arrived() -> None:
            try:
                relay.need_not_hurry()
            finally:
                self._drain()

        def start() -> Deferred[None]:
            relay.started = True
            relay.patience = self._after(self._timeouts.first_token_timeout_s, self._too_slow)
            try:
                return call.start(arrived, self._timeouts.buffer_bytes)
            except BaseException:
                # It may have been started in part. One that has started ends by itself or is cancelled.
                call.cancel()
                raise

        def left(result: Failure | None) -> None:
            relay.need_not_hurry()
            if relay.left:
                return  # aborted before
            relay.left = True
            relay.failure = result
            self._drain()

        relay = _Relay(index, call, limiter, Deferred(lambda _: self.stopProducing()))
        self._relay = relay
        relay.waiting = run(start)
        relay.waiting.addBoth(left).addErrback(self._fail_closed)
        return relay.done

    def _too_slow(self) -> None:
        message, detail = "The engine did not begin to answer in time", "no first token"
        self.abort(GatewayError(errors.ENGINE_TIMEOUT, message, detail=detail))

    def prepend_text(self, index: int, text: str) -> None:
        """Send text that is not the engine's, together with what comes next: alone it would begin the answer."""
        self._echoes += self._encoder.delta(index, text)

    def finish(self, end: CompletionEnd) -> None:
        """
        Send the end of a complete answer.

        Whatever it raises, the answer is not whole, and :meth:`fail` has to end it.
        """
        if self._fault is not None:
            self._fault.raiseException()
        self._end(self._opening() + self._encoder.finish(end))

    def fail(self, error: GatewayError) -> None:
        """
        Send the end of an answer that has started and will not be complete.

        Disconnects the client where that cannot be done in the answer's own form. Raises nothing.
        """
        try:
            self._end(self._encoder.fail(error))
        except Exception:  # noqa: BLE001 - whatever it is, the client must not wait for an end that never comes
            self._log.failure("An answer's error could not be sent; disconnecting its client")
            self._disconnect()

    def abort(self, error: GatewayError) -> None:
        """
        End the answer's current relay now, however slowly the client reads.

        With an error, as if the engine had failed, unless the engine has ended before.
        """
        relay = self._relay
        if relay is None:
            return
        if not relay.left:
            relay.left = True
            relay.failure = Failure(error)
            self._stop(relay)
        # A client that reads no more would hold the end back for ever. What is left is no more than the buffer.
        self._flush_all = True
        self.resumeProducing()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Stop writing: the client reads too slowly. The engine goes on until the buffer is full."""
        if not self._flush_all and not self._paused:
            self._paused = True
            self._stall = self._after(self._timeouts.stall_timeout_s, self._stalled)

    def resumeProducing(self) -> None:
        """Go on writing; may be called from within a write."""
        self._paused = False
        _cancel(self._stall)
        self._drain()

    def stopProducing(self) -> None:
        """
        Stop everything: the client is gone, or nobody wants the answer any more.

        It comes from the transport, from the request, and from the cancelled route, in any order.
        """
        self._gone = True
        self._cancel_timers()
        if self._relay is not None:
            self._stop(self._relay)

    def _stop(self, relay: _Relay) -> None:
        try:
            relay.stop()
        except Exception:  # noqa: BLE001 - whoever stops has to go on stopping
            self._log.failure("An engine call could not be cancelled")

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
        """End the answer as failed, because something raised: what was lost with it must not look complete."""
        if self._fault is not None:
            # Not even what came before the failure can be sent.
            self._unwritable = True
        self._fault = self._fault or fault
        if self._unwritable:
            self._unsent = memoryview(b"")
        relay = self._relay
        if relay is not None:
            relay.ended = True
            self._stop(relay)
        self._drain()

    def _drain(self) -> None:
        """Write everything that waits, unless the client is not ready for it. Raises nothing."""
        # A write may come back here; the one that is under way goes on by itself.
        if self._draining:
            return
        self._draining = True
        try:
            while self._advance():
                pass
        except Exception:  # noqa: BLE001 - the one guard of the answer's path
            self._draining = False
            self._fail_closed(Failure())
        finally:
            self._draining = False

    def _advance(self) -> bool:
        """Do the next of what there is to do now, if there is anything."""
        relay = self._relay
        if relay is None or self._gone:
            return False
        if relay.ended and not self._unsent:
            self._conclude(relay)
        elif self._paused:
            return False
        elif self._unsent:
            self._write_piece()
        elif relay.left or not relay.call.is_empty:
            self._send(relay)
        else:
            return False
        return True

    def _send(self, relay: _Relay) -> None:
        """Turn what has come into bytes to be written."""
        limiter = relay.limiter
        pieces: list[bytes] = []
        try:
            for text in relay.call.take(_PIECE_BYTES):
                if not self._has_text:
                    self._has_text = True
                    self._events.on_first_text()
                pieces.append(self._opening())
                self._add(relay, limiter.feed(text), pieces)
            ended = limiter.finish_reason is not None or (relay.left and relay.call.is_empty)
            if ended and relay.failure is None:
                self._add(relay, limiter.flush(), pieces)
        finally:
            # What was there before a failure is sent before it.
            self._unsent = memoryview(b"".join(pieces))
        self._write_piece()
        if ended:
            relay.ended = True
            # However long the client takes to read the rest, the engine is free.
            relay.stop()

    def _add(self, relay: _Relay, text: str, pieces: list[bytes]) -> None:
        if not text:
            return
        relay.text_bytes += text.encode()
        max_bytes = self._timeouts.max_answer_bytes
        if self._relayed_bytes + len(relay.text_bytes) > max_bytes:
            raise errors.answer_too_large(f"more than PROXY_MAX_ANSWER_BYTES={max_bytes}")
        pieces.append(self._encoder.delta(relay.index, text))

    def _conclude(self, relay: _Relay) -> None:
        # Text that was cut is complete, whether or not the engine had the time to fail after it.
        failure = self._fault or (relay.failure if relay.limiter.finish_reason is None else None)
        choice = relay.choice() if failure is None else None
        self._relay = None
        self._relayed_bytes += len(relay.text_bytes)
        if choice is not None:
            relay.done.callback(choice)
        else:
            relay.done.errback(failure)

    def _opening(self) -> bytes:
        """Give what has to stand before the next bytes."""
        begin = b"" if self._begun else self._encoder.begin()
        self._begun = True
        echoes, self._echoes = self._echoes, b""
        return begin + echoes

    def _write_piece(self) -> None:
        self._write(bytes(self._unsent[:_PIECE_BYTES]))
        self._unsent = self._unsent[_PIECE_BYTES:]

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
        # Last: what raises before this is answered with its own status.
        self.started = True

    def _send_heartbeat(self) -> None:
        heartbeat_s = self._timeouts.heartbeat_s
        silent_s = self._reactor.seconds() - self._last_write_s
        silent = silent_s >= heartbeat_s
        # Before the write, which may end the answer and silence this.
        self._heartbeat = self._reactor.callLater(heartbeat_s - (0 if silent else silent_s), self._send_heartbeat)
        if silent and not self._paused:
            try:
                self._write(self._opening() + self._encoder.heartbeat())
            except Exception:  # noqa: BLE001 - as in _drain
                self._fail_closed(Failure())

    def _cancel_timers(self) -> None:
        _cancel(self._heartbeat)
        _cancel(self._stall)


def _cancel(delayed: IDelayedCall | None) -> None:
    if delayed is not None and delayed.active():
        delayed.cancel()
