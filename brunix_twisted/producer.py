"""
From the worker that reads the engine to the client's socket: the seam between the two threads.

A worker puts text into a :class:`Mailbox`. The first text wakes the reactor, once; whatever has gathered until the
reactor comes round goes out in one write. When the client reads slowly, Twisted pauses the producer and the mailbox
fills up to its bound, then the worker waits. So what a slow client can cost is one worker and a bounded piece of
memory, and what a fast engine can cost is one wake-up a reactor turn, however many tokens it sends.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.http import Request
from zope.interface import implementer

from brunix_twisted.dialects import Encoder
from brunix_twisted.engine import EngineCall
from brunix_twisted.errors import GatewayError
from brunix_twisted.limits import Cutter
from brunix_twisted.model import Choice, Ending
from brunix_twisted.reactors import Reactor

T = TypeVar("T")

# Far above an ordinary answer, so that a worker is done with the engine while a slow client still reads.
MAILBOX_BYTES = 1024 * 1024

Run = Callable[[Callable[[], None]], Deferred[None]]
"""Runs something on a worker; fires, on the reactor's thread, when the worker has left it."""


class Mailbox:
    """
    Text on its way from a worker's thread to the reactor's, in order.

    The only state that the two threads share. One condition guards all of it.
    """

    def __init__(self, wake: Callable[[], None], max_bytes: int) -> None:
        """
        Start empty and open.

        :param wake: called on the worker's thread when there is something to take, and then not again before it was
            taken.
        :param max_bytes: of memory; a worker that has put more waits.
        """
        self._wake = wake
        self._max_bytes = max_bytes
        self._condition = threading.Condition()
        self._texts: list[str] = []
        self._bytes = 0
        self._awake = False
        self._closed = False

    def put(self, text: str) -> bool:
        """
        Add a text; wait while there is no room. On the worker's thread.

        Returns whether more is wanted: False once the mailbox is closed.
        """
        with self._condition:
            while self._bytes >= self._max_bytes and not self._closed:
                self._condition.wait()
            if self._closed:
                return False
            self._texts.append(text)
            self._bytes += sys.getsizeof(text)
            wake = not self._awake
            self._awake = True
        if wake:
            self._wake()
        return True

    def take(self) -> list[str]:
        """Empty the mailbox. On the reactor's thread."""
        with self._condition:
            texts, self._texts = self._texts, []
            self._bytes = 0
            self._awake = False
            self._condition.notify()
        return texts

    def close(self) -> None:
        """Want no more, and let go of a worker that waits for room. On the reactor's thread, any number of times."""
        with self._condition:
            self._closed = True
            self._texts = []
            self._condition.notify()


@attrs.define(eq=False)
class _Relay:
    """One engine call on its way out; the reactor's thread alone."""

    index: int
    call: EngineCall
    cutter: Cutter
    mailbox: Mailbox
    done: Deferred[Choice]
    left: bool = False
    """Whether the worker has left the call: nothing more will be put."""
    failure: Failure | None = None
    texts: list[str] = attrs.Factory(list)
    """What has been sent of the choice's text."""

    def choice(self) -> Choice:
        """Say how the text ended, once it has."""
        cutter = self.cutter
        return Choice(
            finish_reason=cutter.finish_reason or "stop",
            completion_tokens=cutter.tokens,
            text="".join(self.texts),
            cut=cutter.finish_reason is not None,
        )

    def stop(self) -> None:
        """Free the worker, whether it waits for the engine or for room."""
        self.mailbox.close()
        self.call.cancel()


@implementer(IPushProducer)
class AnswerProducer:
    """
    One answer on its way to the client.

    Everything here runs on the reactor's thread. The response's headers go out with the first bytes of the answer, so
    that whatever fails before has its real HTTP status.
    """

    def __init__(self, reactor: Reactor, request: Request, encoder: Encoder, *, heartbeat_s: float = 0) -> None:
        """
        Prepare to answer a request.

        :param heartbeat_s: show a sign of life after this many seconds without bytes; 0 for never.
        """
        self._reactor = reactor
        self._request = request
        self._encoder = encoder
        self._relay: _Relay | None = None
        self._begun = False
        self._echoes = b""
        self._paused = False
        self._gone = False
        self._draining = False
        self._drain_again = False
        self.started = False
        """Whether bytes have gone out: from then on a failure can only be told within the answer."""
        self.first_text_s: float | None = None
        """When the first text came, by the reactor's clock."""
        self._last_write_s = reactor.seconds()
        self._heartbeat_s = heartbeat_s
        self._heartbeat = reactor.callLater(heartbeat_s, self._beat) if heartbeat_s else None

    def relay(self, index: int, call: EngineCall, cutter: Cutter, run: Run) -> Deferred[Choice]:
        """
        Send what one engine call says as the text of one choice.

        Fires when all of it has been written, or fails with GatewayError after everything before the failure has
        been. Cancelling stops the call.
        """
        mailbox = Mailbox(lambda: self._reactor.callFromThread(self._drain), MAILBOX_BYTES)
        relay = _Relay(index, call, cutter, mailbox, Deferred(lambda _: self.stopProducing()))
        self._relay = relay

        def left(result: Failure | None) -> None:
            relay.left = True
            if isinstance(result, Failure):
                relay.failure = result
            self._drain()

        run(lambda: call.run(mailbox.put)).addBoth(left)
        return relay.done

    def echo(self, index: int, text: str) -> None:
        """Send text that is not the engine's, together with what comes next: alone it would begin the answer."""
        self._echoes += self._encoder.delta(index, text)

    def finish(self, ending: Ending) -> None:
        """Send the end of a complete answer."""
        self._end(self._opening() + self._encoder.finish(ending))

    def fail(self, error: GatewayError) -> None:
        """Send the end of an answer that has started and will not be complete."""
        self._end(self._encoder.fail(error))

    def abort(self, error: GatewayError) -> None:
        """
        End the answer's current relay now, however slowly the client reads.

        With an error, as if the engine had failed, unless the engine has ended before.
        """
        if self._relay is not None:
            if not self._relay.left:
                self._relay.stop()
                self._relay.left = True
                self._relay.failure = Failure(error)
            # A client that reads no more would hold the end back for ever. What is left is no more than the mailbox.
            self._paused = False
            self._drain()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Stop writing: the client reads too slowly. The engine goes on until the mailbox is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on writing; may be called from within a write."""
        self._paused = False
        self._drain()

    def stopProducing(self) -> None:
        """
        Stop everything: the client is gone, or nobody wants the answer any more.

        It comes from the transport, from the request, and from the cancelled route, in any order.
        """
        self._gone = True
        self._silence()
        if self._relay is not None:
            self._relay.stop()

    def _drain(self) -> None:
        """Write everything that waits, unless the client is not ready for it."""
        if self._draining:
            self._drain_again = True
            return
        self._draining = True
        try:
            self._drain_again = True
            while self._drain_again:
                self._drain_again = False
                if self._relay is not None and not self._paused and not self._gone:
                    self._send(self._relay)
        finally:
            self._draining = False

    def _send(self, relay: _Relay) -> None:
        cutter = relay.cutter
        pieces = []
        for text in relay.mailbox.take():
            if self.first_text_s is None:
                self.first_text_s = self._reactor.seconds()
            pieces.append(self._opening())
            if allowed := cutter.feed(text):
                relay.texts.append(allowed)
                pieces.append(self._encoder.delta(relay.index, allowed))
            if cutter.finish_reason:
                break
        ended = relay.left or cutter.finish_reason is not None
        if ended and relay.failure is None and (rest := cutter.flush()):
            relay.texts.append(rest)
            pieces.append(self._encoder.delta(relay.index, rest))
        # Decided before the write, which may come back here.
        if ended:
            self._relay = None
        self._write(b"".join(pieces))
        if not ended:
            return
        relay.stop()
        # Text that was cut is complete, whether or not the engine had the time to fail after it.
        if relay.failure is not None and cutter.finish_reason is None:
            relay.done.errback(relay.failure)
        else:
            relay.done.callback(relay.choice())

    def _opening(self) -> bytes:
        """Give what has to stand before the next bytes."""
        if self._begun and not self._echoes:
            return b""
        begin = b"" if self._begun else self._encoder.begin()
        self._begun = True
        echoes, self._echoes = self._echoes, b""
        return begin + echoes

    def _write(self, data_bytes: bytes) -> None:
        if not data_bytes or self._gone:
            return
        self._last_write_s = self._reactor.seconds()
        if not self.started:
            self._start()
            self._request.registerProducer(self, True)  # noqa: FBT003 - IConsumer's positional "streaming"
        self._request.write(data_bytes)

    def _end(self, data_bytes: bytes) -> None:
        self._silence()
        if self._gone:
            return
        self._gone = True
        if self.started:
            self._request.unregisterProducer()
        else:
            # Everything there is: no need for chunks.
            self._request.setHeader(b"Content-Length", b"%d" % len(data_bytes))
            self._start()
        self._request.write(data_bytes)
        self._request.finish()

    def _start(self) -> None:
        self.started = True
        self._request.setHeader(b"Content-Type", self._encoder.content_type)
        self._request.setHeader(b"Cache-Control", b"no-cache")
        # Asks nginx to pass a stream on as it comes.
        self._request.setHeader(b"X-Accel-Buffering", b"no")

    def _beat(self) -> None:
        silent_s = self._reactor.seconds() - self._last_write_s
        silent = silent_s >= self._heartbeat_s
        # Before the write, which may end the answer and silence this.
        self._heartbeat = self._reactor.callLater(self._heartbeat_s - (0 if silent else silent_s), self._beat)
        if silent and not self._paused:
            self._write(self._opening() + self._encoder.heartbeat())

    def _silence(self) -> None:
        if self._heartbeat is not None and self._heartbeat.active():
            self._heartbeat.cancel()
