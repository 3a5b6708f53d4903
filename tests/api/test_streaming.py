"""The seam between the worker's thread and the client's socket."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import permutations
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from brunix_twisted import errors
from brunix_twisted.api.relay import Answer
from brunix_twisted.api.streaming import BUFFER_BYTES, AnswerProducer, StreamTimeouts
from brunix_twisted.api.whole import WholeAnswer
from brunix_twisted.dialects import Encoder
from brunix_twisted.dialects.json_body import JsonBodyEncoder
from brunix_twisted.engine.text_queue import TextQueue
from brunix_twisted.errors import GatewayError
from brunix_twisted.limits import OutputLimiter
from brunix_twisted.model import Choice, CompletionEnd, Limits, Source, TraceContext
from fake_reactor import LIMIT_S, FakeReactor
from log_lines import log_lines

BROKEN = GatewayError(errors.ENGINE_ERROR, "broken")
STOPPING = GatewayError(errors.OVERLOADED, "stopping")


class WatchedCondition(threading.Condition):
    """Tells when a thread begins to wait."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__(lock)
        self.waiting = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting.set()
        return super().wait(timeout)


class Worker:
    """A worker's thread, and the queue it puts texts into."""

    def __init__(self, max_bytes: int) -> None:
        self.wakes: list[int] = []
        self.watch(TextQueue(lambda: self.wakes.append(threading.get_ident()), max_bytes))
        self._thread = ThreadPoolExecutor(1)

    def watch(self, text_queue: TextQueue) -> None:
        """Work with another queue."""
        self.text_queue = text_queue
        self._room = WatchedCondition(text_queue._lock)  # noqa: SLF001 - the only way to know that a thread waits
        text_queue._room = self._room  # noqa: SLF001 - likewise

    def put(self, *texts: str) -> Future[list[bool]]:
        """Put texts on the worker's thread, one after the other."""
        return self._thread.submit(lambda: [self.text_queue.put(text) for text in texts])

    def wait_until_blocked(self) -> None:
        assert self._room.waiting.wait(LIMIT_S), "the worker does not wait"
        self._room.waiting.clear()

    def end(self) -> None:
        self.text_queue.close()
        with self.text_queue._lock:  # noqa: SLF001 - likewise
            # A queue that fails to do this itself would hang the run.
            self._room.notify_all()
        self._thread.shutdown()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(max_bytes=1)
    yield worker
    worker.end()


def test_mailbox_keeps_the_order() -> None:
    """The words of an answer come in the order in which the engine says them."""
    text_queue = TextQueue(lambda: None, 1000)
    for text in ("one", "two", "three"):
        assert text_queue.put(text)
    assert text_queue.take() == ["one", "two", "three"]
    assert text_queue.take() == []


def test_mailbox_wakes_once_until_taken() -> None:
    """A fast engine does not make the gateway slow for everyone else by waking it for every token."""
    wakes: list[str] = []
    text_queue = TextQueue(lambda: wakes.append("wake"), 1000)
    text_queue.put("a")
    text_queue.put("b")
    assert wakes == ["wake"]
    text_queue.take()
    text_queue.put("c")
    text_queue.put("d")
    assert wakes == ["wake", "wake"]


def test_mailbox_bound(worker: Worker) -> None:
    """A client that reads slowly gets its whole answer, and the gateway does not pile it up in memory."""
    putting = worker.put("first", "second", "third")
    worker.wait_until_blocked()
    assert worker.text_queue.take() == ["first"]
    worker.wait_until_blocked()
    assert worker.text_queue.take() == ["second"]
    assert putting.result(LIMIT_S) == [True, True, True]
    assert worker.text_queue.take() == ["third"]
    assert threading.get_ident() not in worker.wakes


def test_mailbox_counts_its_memory(worker: Worker) -> None:
    """An answer in characters beyond Latin-1 takes no more memory than any other behind a slow client."""
    text_queue = TextQueue(lambda: None, 1000)
    assert text_queue.put("\N{BRAIN}" * 250)
    worker.watch(text_queue)
    worker.put("x")
    worker.wait_until_blocked()


def test_mailbox_takes_a_text_beyond_the_bound() -> None:
    """A text larger than the gateway's buffer arrives all the same, and so does the one after it."""
    wakes: list[str] = []
    text_queue = TextQueue(lambda: wakes.append("wake"), 10)
    for text in ("x" * 1000, "y" * 1000):
        assert text_queue.put(text)
        assert text_queue.take(10) == [text]
    assert len(wakes) == 2


def test_mailbox_taken_in_parts() -> None:
    """A client that reads slowly has more of an answer before it than it can take, and the words lose their order."""
    wakes: list[str] = []
    text_queue = TextQueue(lambda: wakes.append("wake"), 10_000)
    for text in "abcde":
        text_queue.put(text)
    size_bytes = sys.getsizeof("a")
    assert text_queue.take(size_bytes) == ["a"]
    assert text_queue.take(size_bytes + 1) == ["b", "c"]
    assert not text_queue.is_empty
    # Whoever takes knows that there is more.
    text_queue.put("f")
    assert wakes == ["wake"]
    assert text_queue.take(10_000) == ["d", "e", "f"]
    assert text_queue.is_empty
    text_queue.put("g")
    assert wakes == ["wake", "wake"]


def test_mailbox_has_room_after_a_part(worker: Worker) -> None:
    """An engine waits for a slow client although there is room."""
    putting = worker.put("first", "second")
    worker.wait_until_blocked()
    assert worker.text_queue.take(1) == ["first"]
    assert putting.result(LIMIT_S) == [True, True]


def test_mailbox_close_frees_the_worker(worker: Worker) -> None:
    """A client that stops reading and then leaves does not keep a worker for ever."""
    putting = worker.put("first", "second", "third")
    worker.wait_until_blocked()
    worker.text_queue.close()
    assert putting.result(LIMIT_S) == [True, False, False]
    assert worker.text_queue.take() == []
    assert len(worker.wakes) == 1


def test_mailbox_close_again(worker: Worker) -> None:
    """A client that is gone twice, as Twisted tells it, does no harm."""
    worker.text_queue.close()
    worker.text_queue.close()
    assert worker.put("late").result(LIMIT_S) == [False]
    worker.text_queue.close()
    assert worker.text_queue.take() == []
    assert worker.wakes == []


def test_mailbox_of_a_last_text() -> None:
    """An answer in one piece costs a wake-up for its text and one for its end."""
    wakes: list[str] = []
    text_queue = TextQueue(lambda: wakes.append("wake"), 1000)
    text_queue.put("all", last=True)
    assert wakes == []
    assert text_queue.take() == ["all"]


def test_mailbox_between_two_threads() -> None:
    """No word is lost, doubled or misplaced when the engine speaks while the gateway writes."""
    reactor = FakeReactor()
    taken: list[str] = []
    text_queue = TextQueue(lambda: reactor.callFromThread(lambda: taken.extend(text_queue.take())), 200)
    texts = [str(number) for number in range(2000)]
    with ThreadPoolExecutor(1) as thread:
        putting = thread.submit(lambda: [text_queue.put(text) for text in texts])
        try:
            while len(taken) < len(texts):
                reactor.wait()
        finally:
            text_queue.close()
        assert all(putting.result(LIMIT_S))
    assert taken == texts


class Stream:
    """An encoder whose bytes are easy to read."""

    content_type = b"text/stream"

    def begin(self) -> bytes:
        return b"<"

    def delta(self, index: int, text: str) -> bytes:
        return f"{index}:{text} ".encode()

    def heartbeat(self) -> bytes:
        return b"~"

    def finish(self, ending: CompletionEnd) -> bytes:
        return ",".join(choice.finish_reason for choice in ending.choices).encode() + b">"

    def fail(self, error: GatewayError) -> bytes:
        return b"!" + error.message.encode()


def whole() -> Encoder:
    def body(texts: Sequence[str], ending: CompletionEnd) -> bytes:
        return ("|".join(texts) + " " + ",".join(choice.finish_reason for choice in ending.choices)).encode()

    return JsonBodyEncoder(2, body, lambda error: b"!" + error.message.encode())


HEADERS = ["headers of text/stream, None bytes", "registerProducer streaming"]


class RecordingRequest:
    """The request's side of an answer."""

    def __init__(self, events: list[str]) -> None:
        self._events = events
        self.in_write: Callable[[], None] = lambda: None
        """Done once, inside the next write, as a transport does."""

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: FBT001 - IConsumer
        assert isinstance(producer, AnswerProducer)
        self._events.append("registerProducer " + ("streaming" if streaming else "pulling"))

    def unregisterProducer(self) -> None:
        self._events.append("unregisterProducer")

    def write(self, data_bytes: bytes) -> None:
        self._events.append(f"write {data_bytes.decode()}")
        in_write, self.in_write = self.in_write, lambda: None
        in_write()

    def finish_with(self, data_bytes: bytes) -> None:
        self._events.append(f"finish_with {data_bytes.decode()}")

    def truncate(self, data_bytes: bytes) -> None:
        self._events.append(f"truncate {data_bytes.decode()}")

    def disconnect(self) -> None:
        self._events.append("disconnect")


class RecordingCall:
    """One engine call, led by the test."""

    trace: TraceContext | None = None
    sources: tuple[Source, ...] = ()

    def __init__(self, events: list[str], reactor: FakeReactor) -> None:
        self._events = events
        self._reactor = reactor
        self.statuses: list[str] = []
        self._text_queue = TextQueue(lambda: None, 1)
        self._ended: Deferred[None] = Deferred()

    def start(self, arrived: Callable[[], None], buffer_bytes: int) -> Deferred[None]:
        self._text_queue = TextQueue(lambda: self._reactor.callFromThread(arrived), buffer_bytes)
        return self._ended

    def say(self, text: str) -> bool:
        return self._text_queue.put(text)

    def take(self, about_bytes: int) -> list[str]:
        return self._text_queue.take(about_bytes)

    @property
    def is_empty(self) -> bool:
        return self._text_queue.is_empty

    def cancel(self) -> None:
        self._text_queue.close()
        self._events.append("cancel")

    def leave(self, error: GatewayError | None = None) -> None:
        """End the call, with an error if the engine failed."""
        if error is None:
            self._ended.callback(None)
        else:
            self._ended.errback(Failure(error))


class Seam:
    """An answer, with all that happens around it in one list of events."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.first_text_s: float | None = None
        self.reactor = FakeReactor()
        self.request = RecordingRequest(self.events)
        self.results: list[Any] = []
        """What the relays ended with."""
        self.logged_errors: list[str] = []

    def answer(self, encoder: Encoder | None = None, **timeouts: Any) -> AnswerProducer:  # noqa: ANN401 - as in StreamTimeouts
        return AnswerProducer(
            self.reactor.as_reactor,
            self.request,
            encoder or Stream(),
            StreamTimeouts(**timeouts),
            self,
        )

    def whole_answer(self, max_bytes: int = 1000, **more: Any) -> WholeAnswer:  # noqa: ANN401 - as in WholeAnswer
        return WholeAnswer(
            self.reactor.as_reactor, self.request, whole(), self, buffer_bytes=BUFFER_BYTES, max_bytes=max_bytes, **more
        )

    def on_headers(self, content_type: bytes, length_bytes: int | None) -> None:
        self.events.append(f"headers of {content_type.decode()}, {length_bytes} bytes")

    def on_first_text(self) -> None:
        assert self.first_text_s is None
        self.first_text_s = self.reactor.seconds()

    def on_stalled(self) -> None:
        self.events.append("stalled")

    def relay_call(
        self,
        answer: Answer,
        index: int = 0,
        **limits: Any,  # noqa: ANN401 - as in Limits
    ) -> tuple[RecordingCall, Deferred[Choice]]:
        call = RecordingCall(self.events, self.reactor)
        done = answer.relay_call(index, call, OutputLimiter(Limits(**limits)), lambda start: start())
        done.addBoth(self._ended)
        return call, done

    def _ended(self, result: Choice | Failure) -> None:
        self.results.append(result.value if isinstance(result, Failure) else result)
        self.events.append("relayed")

    def new_events(self) -> list[str]:
        """Everything since the last look."""
        events = list(self.events)
        self.events.clear()
        return events


@pytest.fixture
def seam() -> Iterator[Seam]:
    seam = Seam()
    with log_lines() as lines:
        seam.logged_errors = lines.errors
        yield seam
    assert seam.reactor.delayed_calls() == [], "something is still going to happen"
    assert seam.logged_errors == []


def ending(*choices: Choice) -> CompletionEnd:
    return CompletionEnd(
        choices=choices,
        prompt_tokens=1,
        finished_s=0,
        load_duration_ns=0,
        prompt_eval_duration_ns=0,
        eval_duration_ns=0,
    )


def test_streamed_answer(seam: Seam) -> None:
    """A streamed answer comes token by token, with its headers before the first and its end after the last."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    assert seam.new_events() == []
    assert not answer.started
    call.say("Hel")
    assert seam.new_events() == []
    seam.reactor.turn()
    assert seam.new_events() == [*HEADERS, "write <0:Hel "]
    assert answer.started
    call.say("lo")
    seam.reactor.turn()
    assert seam.new_events() == ["write 0:lo "]
    call.leave()
    assert seam.new_events() == ["cancel", "relayed"]
    assert seam.results == [Choice(finish_reason="stop", completion_tokens=2, text="Hello")]
    answer.finish(ending(*seam.results))
    assert seam.new_events() == ["unregisterProducer", "finish_with stop>"]


def test_whole_answer(seam: Seam) -> None:
    """A whole answer is one write with its length, so that a client knows when it has all of it."""
    answer = seam.whole_answer()
    call, _ = seam.relay_call(answer)
    call.say("Hel")
    seam.reactor.turn()
    call.say("lo")
    call.leave()
    assert seam.new_events() == ["cancel", "relayed"]
    assert not answer.started
    answer.finish(ending(*seam.results))
    assert seam.new_events() == [
        "headers of application/json; charset=utf-8, 11 bytes",
        "finish_with Hello| stop",
    ]


def test_whole_answer_up_to_a_limit(seam: Seam) -> None:
    """The engine stays busy with an answer whose rest its caller does not want, or its late failure spoils it."""
    answer = seam.whole_answer()
    call, _ = seam.relay_call(answer, stop=("lo",))
    call.say("Hel")
    call.say("lo, world")
    seam.reactor.turn()
    assert seam.new_events() == ["cancel", "relayed"]
    call.leave(BROKEN)
    assert seam.results == [Choice(finish_reason="stop", completion_tokens=1, text="Hel", cut=True, stop="lo")]


def test_whole_answer_that_fails(seam: Seam) -> None:
    """A part of an answer is sent as if it were the whole."""
    answer = seam.whole_answer()
    call, _ = seam.relay_call(answer)
    call.say("Hel")
    call.leave(BROKEN)
    assert seam.results == [BROKEN]
    assert seam.new_events() == ["cancel", "relayed"]
    assert not answer.started


def test_whole_answer_after_heartbeats(seam: Seam) -> None:
    """A whole answer whose engine is silent is announced without its length, and then one JSON value."""
    answer = seam.whole_answer(heartbeat_s=10)
    call, _ = seam.relay_call(answer)
    assert seam.new_events() == []
    seam.reactor.advance(10)
    seam.reactor.advance(10)
    opening = "headers of application/json; charset=utf-8, None bytes"
    assert seam.new_events() == [opening, "write  ", "write  "]
    call.say("Hello")
    call.leave()
    seam.reactor.advance(30)
    assert seam.new_events() == ["cancel", "relayed"]
    answer.finish(ending(*seam.results))
    assert seam.new_events() == ["finish_with Hello| stop"]


def test_whole_answer_that_fails_after_heartbeats(seam: Seam) -> None:
    """An error after the status 200 must not be taken for an answer."""
    answer = seam.whole_answer(heartbeat_s=10)
    call, _ = seam.relay_call(answer)
    seam.reactor.advance(10)
    call.leave(BROKEN)
    seam.new_events()
    assert answer.started
    answer.fail(BROKEN)
    answer.fail(BROKEN)
    assert seam.new_events() == [f"truncate !{BROKEN.message}"]
    seam.reactor.advance(30)
    assert seam.new_events() == []


def test_whole_answer_that_is_too_large(seam: Seam) -> None:
    """An engine without end fills the gateway's memory."""
    answer = seam.whole_answer(max_bytes=5)
    call, _ = seam.relay_call(answer)
    call.say("123")
    call.say("456")
    seam.reactor.turn()
    assert seam.new_events() == ["cancel", "relayed"]
    assert "PROXY_MAX_ANSWER_BYTES=5" in str(seam.results[0])
    assert not call.say("789")


def test_whole_answer_that_is_aborted(seam: Seam) -> None:
    """A gateway that stops waits for the engine, although the answer's time is over."""
    answer = seam.whole_answer()
    call, _ = seam.relay_call(answer)
    answer.abort(BROKEN)
    assert (seam.results, seam.new_events()) == ([BROKEN], ["cancel", "relayed"])
    answer.abort(BROKEN)
    call.leave()
    assert seam.new_events() == []


def test_whole_answer_whose_client_disconnects(seam: Seam) -> None:
    """The engine works for a client that has gone."""
    answer = seam.whole_answer()
    call, done = seam.relay_call(answer)
    done.cancel()
    assert seam.new_events() == ["cancel", "relayed"]
    call.leave()
    answer.finish(ending())
    assert seam.new_events() == []


def test_whole_answer_that_cannot_be_written(seam: Seam, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client waits for the rest of an answer of which a part could not be written."""
    answer = seam.whole_answer()
    call, _ = seam.relay_call(answer)
    call.leave()
    seam.new_events()

    def finish_with(data_bytes: bytes) -> None:
        raise MemoryError(data_bytes)

    monkeypatch.setattr(seam.request, "finish_with", finish_with)
    with pytest.raises(MemoryError):
        answer.finish(ending(*seam.results))
    assert answer.started
    answer.fail(BROKEN)
    assert seam.new_events()[-1] == "disconnect"


def test_answer_without_text(seam: Seam) -> None:
    """An answer of no words is a complete one, with its headers and its end."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.leave()
    answer.finish(ending(*seam.results))
    assert seam.new_events() == [
        "cancel",
        "relayed",
        "headers of text/stream, 6 bytes",
        "finish_with <stop>",
    ]


def test_texts_that_wait_go_out_together(seam: Seam) -> None:
    """A fast engine's tokens do not cost a packet and a turn of the reactor each."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    for text in "abc":
        call.say(text)
    assert seam.reactor.wakes() == 1
    seam.reactor.turn()
    assert seam.new_events() == [*HEADERS, "write <0:a 0:b 0:c "]
    call.say("d")
    call.leave()
    assert seam.new_events() == ["write 0:d ", "cancel", "relayed"]
    seam.reactor.turn()
    assert seam.new_events() == []


def test_pause_holds_everything(seam: Seam) -> None:
    """A client that reads slowly gets nothing before it is ready, and then all of it in order."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.say("a")
    seam.reactor.turn()
    seam.new_events()
    answer.pauseProducing()
    call.say("b")
    seam.reactor.turn()
    call.say("c")
    call.leave()
    assert seam.new_events() == []
    answer.resumeProducing()
    assert seam.new_events() == ["write 0:b 0:c ", "cancel", "relayed"]


def test_pause_holds_a_failure(seam: Seam) -> None:
    """A client that reads slowly gets every word before it is told that the engine failed."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.say("a")
    seam.reactor.turn()
    seam.new_events()
    answer.pauseProducing()
    call.say("b")
    call.leave(BROKEN)
    assert seam.new_events() == []
    answer.resumeProducing()
    assert seam.new_events() == ["write 0:b ", "cancel", "relayed"]
    assert seam.results == [BROKEN]


@pytest.mark.parametrize("leaves", [False, True])
def test_resume_within_a_write(seam: Seam, *, leaves: bool) -> None:
    """The words of an answer keep their order when a socket has room again at once."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.say("a")

    def in_write() -> None:
        answer.pauseProducing()
        call.say("b")
        if leaves:
            call.leave()
        assert seam.new_events() == [*HEADERS, "write <0:a "]
        answer.resumeProducing()
        # Not yet: the write of "a" is still under way.
        assert seam.new_events() == []

    seam.request.in_write = in_write
    seam.reactor.turn()
    assert seam.new_events() == ["write 0:b "] + (["cancel", "relayed"] if leaves else [])


def test_pause_within_the_last_write(seam: Seam) -> None:
    """An answer whose last words fill the socket ends all the same."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.say("a")
    seam.request.in_write = answer.pauseProducing
    call.leave()
    assert seam.new_events() == [*HEADERS, "write <0:a ", "cancel", "relayed"]
    answer.finish(ending(*seam.results))
    assert seam.new_events() == ["unregisterProducer", "finish_with stop>"]


def test_stop_sequence(seam: Seam) -> None:
    """An answer ends at a stop sequence at once, and the engine does not go on for nobody."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer, stop=("END",))
    call.say("text EN")
    seam.reactor.turn()
    assert seam.new_events() == [*HEADERS, "write <0:text  "]
    call.say("D and more")
    call.say("than that")
    seam.reactor.turn()
    # The worker is still with the engine, and nobody waits for it.
    assert seam.new_events() == ["cancel", "relayed"]
    assert seam.results == [Choice(finish_reason="stop", completion_tokens=2, text="text ", cut=True, stop="END")]
    assert not call.say("more")
    answer.finish(ending(*seam.results))
    assert seam.new_events() == ["unregisterProducer", "finish_with stop>"]
    call.leave()
    seam.reactor.turn()
    assert seam.new_events() == []


def test_length(seam: Seam) -> None:
    """An answer ends at the length that was asked for, and says that it was cut."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer, max_tokens=1)
    call.say("four")
    seam.reactor.turn()
    assert seam.new_events() == [*HEADERS, "write <0:four "]
    call.say(" five")
    seam.reactor.turn()
    assert seam.new_events() == ["cancel", "relayed"]
    assert seam.results == [Choice(finish_reason="length", completion_tokens=1, text="four", cut=True)]


def test_held_back_text_comes_at_the_end(seam: Seam) -> None:
    """An answer that ends in the beginning of a stop sequence keeps its last letters."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer, stop=("END",))
    call.say("the EN")
    seam.reactor.turn()
    assert seam.new_events() == [*HEADERS, "write <0:the  "]
    call.leave()
    assert seam.new_events() == ["write 0:EN ", "cancel", "relayed"]
    assert seam.results == [Choice(finish_reason="stop", completion_tokens=2, text="the EN")]


def test_a_stop_sequence_before_a_failure(seam: Seam) -> None:
    """An answer that reached its stop sequence is complete, however fast the engine fails after it."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer, stop=("END",))
    call.say("text END")
    call.leave(BROKEN)
    assert seam.new_events() == [*HEADERS, "write <0:text  ", "cancel", "relayed"]
    assert seam.results == [Choice(finish_reason="stop", completion_tokens=2, text="text ", cut=True, stop="END")]


def test_failure_after_text(seam: Seam) -> None:
    """What the engine said before it failed is there, and then the failure."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.say("a")
    call.leave(BROKEN)
    assert seam.new_events() == [*HEADERS, "write <0:a ", "cancel", "relayed"]
    assert seam.results == [BROKEN]
    answer.fail(BROKEN)
    assert seam.new_events() == ["unregisterProducer", "finish_with !broken"]


def test_failure_before_anything(seam: Seam) -> None:
    """An engine that fails at once leaves the way free for a real HTTP status."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.leave(BROKEN)
    assert seam.new_events() == ["cancel", "relayed"]
    assert seam.results == [BROKEN]
    assert not answer.started


def test_failure_keeps_held_back_text_back(seam: Seam) -> None:
    """A failed answer does not end in letters that might have belonged to a stop sequence."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer, stop=("END",))
    call.say("the EN")
    call.leave(BROKEN)
    assert seam.new_events() == [*HEADERS, "write <0:the  ", "cancel", "relayed"]


def test_two_choices(seam: Seam) -> None:
    """Two prompts in one request get two answers, each under its own index and within its own limits."""
    answer = seam.answer()
    for index in (0, 1):
        call, _ = seam.relay_call(answer, index, max_tokens=1)
        call.say("long enough")
        seam.reactor.turn()
        call.leave()
    assert seam.new_events() == [*HEADERS, "write <0:long ", "cancel", "relayed", "write 1:long ", "cancel", "relayed"]
    answer.finish(ending(*seam.results))
    assert seam.new_events() == ["unregisterProducer", "finish_with length,length>"]


def test_the_worker_of_an_earlier_choice_leaves_late(seam: Seam) -> None:
    """The second of two answers does not end because the first one's worker takes its time."""
    answer = seam.answer()
    first, _ = seam.relay_call(answer, 0, stop=("X",))
    first.say("aX")
    seam.reactor.turn()
    second, _ = seam.relay_call(answer, 1)
    second.say("b")
    first.leave()
    seam.reactor.turn()
    assert seam.new_events() == [*HEADERS, "write <0:a ", "cancel", "relayed", "write 1:b "]
    second.leave()
    assert seam.new_events() == ["cancel", "relayed"]


def test_echo_waits_for_the_engine(seam: Seam) -> None:
    """A caller who wants the prompt repeated is told of a failing engine by an HTTP status too."""
    answer = seam.answer()
    answer.prepend_text(0, "prompt")
    assert seam.new_events() == []
    call, _ = seam.relay_call(answer)
    call.say("a")
    call.leave()
    assert seam.new_events() == [*HEADERS, "write <0:prompt 0:a ", "cancel", "relayed"]
    answer.prepend_text(1, "another")
    call, _ = seam.relay_call(answer, 1)
    call.leave()
    answer.finish(ending(*seam.results))
    assert seam.new_events() == ["cancel", "relayed", "unregisterProducer", "finish_with 1:another stop,stop>"]


def test_first_text_is_timed(seam: Seam) -> None:
    """Ollama's durations tell when the engine began to speak, not when a client came to read it."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    seam.reactor.advance(3)
    assert seam.first_text_s is None
    call.say("a")
    seam.reactor.turn()
    seam.reactor.advance(4)
    call.say("b")
    call.leave()
    assert seam.first_text_s == 3


PIECE = 64 * 1024


def test_a_slow_client_gets_piece_by_piece(seam: Seam) -> None:
    """A client that reads slowly is taken for one that has stopped, for nothing is heard of it during a long answer."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    seam.request.in_write = answer.pauseProducing
    call.say("x" * (2 * PIECE))
    call.say("y")
    call.leave()
    written = [event for event in seam.new_events() if event.startswith("write")]
    assert written == ["write <0:" + "x" * (PIECE - 3)]
    seam.request.in_write = answer.pauseProducing
    answer.resumeProducing()
    assert seam.new_events() == ["write " + "x" * PIECE]
    assert seam.results == []
    answer.resumeProducing()
    # The cancel is of a call that has ended.
    assert seam.new_events() == ["write " + "x" * 3 + " ", "write 0:y ", "cancel", "relayed"]
    assert seam.results == [Choice(finish_reason="stop", completion_tokens=PIECE // 2 + 1, text="x" * 2 * PIECE + "y")]


def test_a_slow_client_is_not_swamped(seam: Seam) -> None:
    """Memory behind a client that reads slowly is not what the operator allows, but several times that."""
    answer = seam.answer()
    call, done = seam.relay_call(answer)
    seam.request.in_write = answer.pauseProducing
    texts = ["x" * 10_000] * 50
    for text in texts:
        call.say(text)
    seam.reactor.turn()
    written = "".join(event for event in seam.new_events() if event.startswith("write"))
    assert 6 * 10_000 < len(written) < PIECE + 100
    relay = answer._relay  # noqa: SLF001 - what is not written yet shows in nothing else
    assert relay is not None
    assert len(relay.call.take(sys.maxsize)) == len(texts) - 7
    done.cancel()


def test_abort_sends_the_rest_of_a_piece(seam: Seam) -> None:
    """An answer that is ended behind a slow client breaks off within a word, and the error after it cannot be read."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    seam.request.in_write = answer.pauseProducing
    call.say("x" * PIECE)
    seam.reactor.turn()
    seam.new_events()
    seam.request.in_write = answer.pauseProducing
    answer.abort(STOPPING)
    answer.fail(STOPPING)
    assert seam.new_events() == [
        "cancel",
        "write " + "x" * 3 + " ",
        "cancel",
        "relayed",
        "unregisterProducer",
        "finish_with !stopping",
    ]


def test_a_cut_answer_frees_its_worker_before_it_is_read(seam: Seam) -> None:
    """An answer that has reached its stop sequence keeps a worker until its slow client has read it."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer, stop=("END",))
    seam.request.in_write = answer.pauseProducing
    call.say("x" * PIECE + "END")
    seam.reactor.turn()
    assert seam.new_events()[-1] == "cancel"
    assert seam.results == []
    answer.resumeProducing()
    assert seam.new_events() == ["write " + "x" * 3 + " ", "relayed"]


# Patience has an end.


def test_the_first_token_is_late(seam: Seam) -> None:
    """A client waits for the first word of an answer until the deadline of the whole."""
    answer = seam.answer(first_token_timeout_s=120)
    call, _ = seam.relay_call(answer)
    seam.reactor.advance(119)
    assert seam.new_events() == []
    seam.reactor.advance(1)
    (error,) = seam.results
    assert isinstance(error, GatewayError)
    assert (error.kind, error.detail) == (errors.ENGINE_TIMEOUT, "no first token")
    assert set(seam.new_events()) == {"cancel", "relayed"}
    assert not answer.started
    assert not call.say("late")
    call.leave()
    seam.reactor.turn()
    assert seam.new_events() == []


def test_the_first_token_is_late_after_a_heartbeat(seam: Seam) -> None:
    """A client that has been shown signs of life is left with them when the engine says nothing."""
    answer = seam.answer(first_token_timeout_s=12, heartbeat_s=10)
    seam.relay_call(answer)
    seam.reactor.pump([10, 2])
    assert answer.started
    (error,) = seam.results
    answer.fail(error)
    assert seam.new_events()[-1:] == ["finish_with !The engine did not begin to answer in time"]


def test_the_call_ends_without_a_token(seam: Seam) -> None:
    """The deadline of the first token ends with the call, also while the client reads too slowly for its end."""
    answer = seam.answer(first_token_timeout_s=120)
    call, _ = seam.relay_call(answer)
    answer.pauseProducing()
    call.leave()
    assert seam.reactor.delayed_calls() == []
    answer.resumeProducing()
    assert [choice.text for choice in seam.results] == [""]


@pytest.mark.parametrize("paused", [False, True])
def test_the_first_token_is_in_time(seam: Seam, *, paused: bool) -> None:
    """A long answer is ended though its first word came in time, be it to a client that did not read it yet."""
    answer = seam.answer(first_token_timeout_s=120)
    call, _ = seam.relay_call(answer)
    if paused:
        answer.pauseProducing()
    seam.reactor.advance(119)
    call.say("a")
    seam.reactor.turn()
    seam.reactor.advance(1000)
    answer.resumeProducing()
    call.leave()
    assert [choice.text for choice in seam.results] == ["a"]


def test_each_answer_has_its_own_first_token(seam: Seam) -> None:
    """The second of two prompts is ended because the first took its time."""
    answer = seam.answer(first_token_timeout_s=120)
    for index in (0, 1):
        call, _ = seam.relay_call(answer, index)
        seam.reactor.advance(100)
        call.say("a")
        seam.reactor.turn()
        seam.reactor.advance(100)
        call.leave()
    assert [choice.text for choice in seam.results] == ["a", "a"]


@pytest.mark.parametrize("left", [False, True], ids=["engine at work", "engine done"])
def test_a_stalled_client_is_cut_off(seam: Seam, *, left: bool) -> None:
    """A client that has stopped reading keeps a worker, an engine's call and a connection for ever."""
    answer = seam.answer(stall_timeout_s=60, heartbeat_s=5)
    call, done = seam.relay_call(answer)
    call.say("a")
    seam.reactor.turn()
    answer.pauseProducing()
    call.say("b")
    seam.reactor.turn()
    if left:
        call.leave()
    seam.new_events()
    seam.reactor.pump([10] * 5)
    # Who is told so again has read no more for that.
    answer.pauseProducing()
    seam.reactor.advance(9)
    assert seam.new_events() == []
    seam.reactor.advance(1)
    assert seam.new_events() == ["cancel", "stalled", "disconnect"]
    assert not call.say("c")
    # The connection tells of its end, and the route is cancelled.
    answer.stopProducing()
    done.cancel()
    assert [type(result) for result in seam.results] == [CancelledError]


def test_a_slow_client_is_not_cut_off(seam: Seam) -> None:
    """A client on a slow line loses its answer though it never stopped reading."""
    answer = seam.answer(stall_timeout_s=60)
    call, _ = seam.relay_call(answer)
    for _ in range(5):
        call.say("a")
        answer.pauseProducing()
        answer.pauseProducing()
        seam.reactor.advance(59)
        answer.resumeProducing()
    seam.reactor.advance(1000)
    call.leave()
    assert len(seam.results) == 1
    assert "stalled" not in seam.new_events()


@pytest.mark.parametrize("ends", ["finish", "fail"])
def test_no_cut_after_the_end(seam: Seam, ends: str) -> None:
    """A connection that its client uses again is broken off because of an earlier answer."""
    answer = seam.answer(stall_timeout_s=60, first_token_timeout_s=50)
    call, _ = seam.relay_call(answer)
    call.say("a")
    seam.request.in_write = answer.pauseProducing
    call.leave()
    if ends == "finish":
        answer.finish(ending(*seam.results))
    else:
        answer.fail(BROKEN)
    seam.reactor.advance(1000)
    assert "stalled" not in seam.new_events()


def gone(_: Seam, answer: AnswerProducer, __: RecordingCall, ___: Deferred[Choice]) -> None:
    answer.stopProducing()


def cancelled(_: Seam, __: AnswerProducer, ___: RecordingCall, done: Deferred[Choice]) -> None:
    done.cancel()


def says_more(seam: Seam, _: AnswerProducer, call: RecordingCall, __: Deferred[Choice]) -> None:
    call.say("late")
    seam.reactor.turn()


def leaves(seam: Seam, _: AnswerProducer, call: RecordingCall, __: Deferred[Choice]) -> None:
    call.leave()
    seam.reactor.turn()


def fails(seam: Seam, _: AnswerProducer, call: RecordingCall, __: Deferred[Choice]) -> None:
    call.leave(BROKEN)
    seam.reactor.turn()


def finished(_: Seam, answer: AnswerProducer, __: RecordingCall, ___: Deferred[Choice]) -> None:
    answer.finish(ending())


def failed(_: Seam, answer: AnswerProducer, __: RecordingCall, ___: Deferred[Choice]) -> None:
    answer.fail(BROKEN)


def aborted(_: Seam, answer: AnswerProducer, __: RecordingCall, ___: Deferred[Choice]) -> None:
    answer.abort(STOPPING)


def resumed(_: Seam, answer: AnswerProducer, __: RecordingCall, ___: Deferred[Choice]) -> None:
    answer.pauseProducing()
    answer.resumeProducing()


Step = Callable[[Seam, AnswerProducer, RecordingCall, Deferred[Choice]], None]


@pytest.mark.parametrize("timeouts", [{}, {"heartbeat_s": 5, "first_token_timeout_s": 50, "stall_timeout_s": 60}])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("first", [gone, cancelled])
@pytest.mark.parametrize(
    "later",
    [
        *permutations((gone, cancelled, leaves)),
        (gone, cancelled, fails),
        (says_more, leaves, cancelled, cancelled, gone),
        (resumed, leaves, resumed, cancelled),
        (aborted, fails, cancelled, failed),
        (cancelled, leaves, finished),
    ],
)
def test_client_is_gone(
    seam: Seam, later: Sequence[Step], first: Step, *, started: bool, timeouts: dict[str, Any]
) -> None:
    """A client that leaves stops the engine, and whatever comes after that, in any order, does no harm."""
    answer = seam.answer(**timeouts)
    call, done = seam.relay_call(answer)
    if started:
        call.say("a")
        seam.reactor.turn()
    seam.new_events()
    first(seam, answer, call, done)
    assert "cancel" in seam.new_events()
    assert seam.reactor.delayed_calls() == []
    assert not call.say("more")
    for step in later:
        step(seam, answer, call, done)
    # Nothing is written, nothing is finished: there is nobody any more.
    assert set(seam.new_events()) <= {"cancel", "relayed"}
    done.cancel()
    assert [type(result) for result in seam.results] == [CancelledError]


def test_gone_while_the_question_waits(seam: Seam) -> None:
    """A client that leaves the queue gives up its turn, and the engine is not asked."""
    answer = seam.answer()
    call = RecordingCall(seam.events, seam.reactor)
    place = Deferred[None](lambda _: seam.events.append("gives up its turn"))
    done = answer.relay_call(0, call, OutputLimiter(Limits()), lambda start: place.addCallback(lambda _: start()))
    answer.stopProducing()
    assert seam.new_events() == ["gives up its turn"]
    done.addErrback(lambda failure: failure.trap(CancelledError))
    done.cancel()
    assert seam.new_events() == []


def test_gone_before_the_first_write(seam: Seam) -> None:
    """A client that left before the first word does not make an error in the gateway's log."""
    answer = seam.answer()
    answer.stopProducing()
    call, done = seam.relay_call(answer)
    call.say("a")
    call.leave()
    seam.reactor.turn()
    answer.prepend_text(0, "prompt")
    answer.finish(ending())
    answer.fail(BROKEN)
    assert set(seam.new_events()) <= {"cancel"}
    assert not answer.started
    done.cancel()


def test_gone_within_a_write(seam: Seam) -> None:
    """A connection that breaks just when something is written to it ends the answer, and nothing else."""
    answer = seam.answer(heartbeat_s=5)
    call, done = seam.relay_call(answer)
    call.say("a")
    seam.request.in_write = answer.stopProducing
    seam.reactor.turn()
    call.say("b")
    call.leave()
    seam.reactor.turn()
    assert seam.new_events() == [*HEADERS, "write <0:a ", "cancel"]
    done.cancel()


def test_gone_within_a_heartbeat(seam: Seam) -> None:
    """A connection that breaks just when a sign of life is written to it gets no second one."""
    answer = seam.answer(heartbeat_s=5)
    _, done = seam.relay_call(answer)
    seam.request.in_write = answer.stopProducing
    seam.reactor.advance(5)
    seam.reactor.advance(50)
    assert seam.new_events() == [*HEADERS, "write <~", "cancel"]
    assert seam.reactor.delayed_calls() == []
    done.cancel()


def test_abort(seam: Seam) -> None:
    """An answer that outlasts the gateway's stop ends with an error, and its engine call ends too."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.say("a")
    seam.reactor.turn()
    seam.new_events()
    answer.abort(STOPPING)
    assert "cancel" in seam.new_events()
    assert seam.results == [STOPPING]
    assert not call.say("b")
    answer.abort(STOPPING)
    call.leave()
    seam.reactor.turn()
    assert seam.results == [STOPPING]
    answer.fail(STOPPING)
    assert seam.new_events() == ["unregisterProducer", "finish_with !stopping"]


def test_abort_behind_a_slow_reader(seam: Seam) -> None:
    """A client that has stopped reading does not keep the gateway from stopping."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.say("a")
    seam.reactor.turn()
    answer.pauseProducing()
    call.say("b")
    seam.reactor.turn()
    answer.abort(STOPPING)
    assert seam.results == [STOPPING]


def test_abort_behind_a_slow_reader_when_the_engine_has_ended(seam: Seam) -> None:
    """A client that has stopped reading a complete answer does not keep the gateway from stopping either."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.say("a")
    seam.reactor.turn()
    answer.pauseProducing()
    call.say("b")
    call.leave()
    answer.abort(STOPPING)
    assert [choice.text for choice in seam.results] == ["ab"]


def test_abort_of_a_call_that_ends_at_once(seam: Seam) -> None:
    """An aborted answer ends with the reason for which it was aborted, not with the failure of the cancelled call."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    failures = [BROKEN]

    def cancel() -> None:
        while failures:
            call.leave(failures.pop())

    call.cancel = cancel  # type: ignore[method-assign]
    answer.abort(STOPPING)
    assert seam.results == [STOPPING]


def test_abort_without_a_call(seam: Seam) -> None:
    """A question that has no worker yet is not stopped twice."""
    answer = seam.answer()
    answer.abort(STOPPING)
    assert seam.new_events() == []


def test_heartbeat(seam: Seam) -> None:
    """A client that would give up on a silent connection is kept while the engine thinks."""
    answer = seam.answer(heartbeat_s=5)
    call, _ = seam.relay_call(answer)
    seam.reactor.advance(4)
    assert seam.new_events() == []
    seam.reactor.advance(1)
    assert seam.new_events() == [*HEADERS, "write <~"]
    assert answer.started
    seam.reactor.advance(5)
    assert seam.new_events() == ["write ~"]
    seam.reactor.advance(3)
    call.say("a")
    seam.reactor.turn()
    assert seam.new_events() == ["write 0:a "]
    # Five seconds after the last bytes, whatever they were.
    seam.reactor.advance(2)
    seam.reactor.advance(2)
    assert seam.new_events() == []
    seam.reactor.advance(1)
    assert seam.new_events() == ["write ~"]
    call.leave()
    answer.finish(ending(*seam.results))
    seam.reactor.advance(50)
    assert seam.new_events() == ["cancel", "relayed", "unregisterProducer", "finish_with stop>"]


def test_heartbeat_before_the_call(seam: Seam) -> None:
    """A client that waits for a worker is kept too."""
    answer = seam.answer(heartbeat_s=5)
    seam.reactor.advance(5)
    assert seam.new_events() == [*HEADERS, "write <~"]
    answer.fail(BROKEN)
    assert seam.new_events() == ["unregisterProducer", "finish_with !broken"]


def test_no_heartbeat_while_paused(seam: Seam) -> None:
    """Signs of life do not pile up before a client that does not read."""
    answer = seam.answer(heartbeat_s=5)
    call, done = seam.relay_call(answer)
    call.say("a")
    seam.reactor.turn()
    seam.new_events()
    answer.pauseProducing()
    seam.reactor.pump([5, 5, 5])
    assert seam.new_events() == []
    answer.resumeProducing()
    seam.reactor.advance(5)
    assert seam.new_events() == ["write ~"]
    done.cancel()


def test_no_heartbeat_in_a_whole_answer(seam: Seam) -> None:
    """A whole answer is a JSON body and nothing before it, however long the engine takes."""
    answer = seam.whole_answer()
    call, _ = seam.relay_call(answer)
    seam.reactor.pump([5, 5, 5])
    assert seam.new_events() == []
    call.say("a")
    call.leave()
    assert not answer.started
    answer.finish(ending(*seam.results))
    assert "finish_with a| stop" in seam.new_events()


class FailingStream(Stream):
    """An encoder one of whose events cannot be encoded, as where there is no memory for it."""

    def __init__(self, event: str) -> None:
        self._event = event

    def delta(self, index: int, text: str) -> bytes:
        if self._event == "delta" and text == "c":
            raise MemoryError
        return super().delta(index, text)

    def heartbeat(self) -> bytes:
        if self._event == "heartbeat":
            raise MemoryError
        return super().heartbeat()

    def fail(self, error: GatewayError) -> bytes:
        if self._event == "fail":
            raise MemoryError
        return super().fail(error)


def test_a_text_that_cannot_be_encoded(seam: Seam) -> None:
    """An answer one of whose words was lost ends as complete, and its engine goes on for nobody."""
    answer = seam.answer(FailingStream("delta"))
    call, _ = seam.relay_call(answer)
    for text in "abcd":
        call.say(text)
    seam.reactor.turn()
    assert seam.new_events() == ["cancel", *HEADERS, "write <0:a 0:b ", "relayed"]
    (fault,) = seam.results
    assert isinstance(fault, MemoryError)
    with pytest.raises(MemoryError):
        answer.finish(ending())
    answer.fail(BROKEN)
    assert seam.new_events() == ["unregisterProducer", "finish_with !broken"]
    # The call ends once it is cancelled, and changes nothing any more.
    call.leave()
    assert seam.new_events() == []


def test_a_fault_together_with_the_end_of_the_call(seam: Seam) -> None:
    """A client whose answer failed in its last word waits for ever, and gets nothing but heartbeats."""
    answer = seam.answer(FailingStream("delta"), heartbeat_s=5)
    call, _ = seam.relay_call(answer)
    call.say("c")
    call.leave()
    assert "relayed" in seam.new_events()
    assert isinstance(seam.results[0], MemoryError)
    answer.stopProducing()


def test_a_write_that_fails(seam: Seam) -> None:
    """An error is written into the middle of an event of which nobody knows how much has been sent."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.say("a")
    seam.reactor.turn()
    seam.new_events()

    def fail() -> None:
        raise MemoryError

    seam.request.in_write = fail
    call.say("b")
    seam.reactor.turn()
    assert seam.new_events() == ["write 0:b ", "cancel", "relayed"]
    for expected in (["disconnect"], []):
        answer.fail(BROKEN)
        assert seam.new_events() == expected


def test_headers_that_cannot_be_sent(seam: Seam) -> None:
    """If the headers cannot be sent, the answer fails with the first reason, and nothing of it is sent later."""
    faults = [RuntimeError("first"), MemoryError()]
    answer = seam.answer()

    def on_headers(content_type: bytes, length_bytes: int | None) -> None:
        seam.events.append(f"{content_type.decode()} {length_bytes}")
        if faults:
            raise faults.pop(0)

    seam.on_headers = on_headers  # type: ignore[method-assign]
    call, _ = seam.relay_call(answer)
    call.say("a")
    seam.reactor.turn()
    assert seam.new_events() == ["text/stream None", "cancel", "text/stream None", "cancel", "relayed"]
    assert [str(fault) for fault in seam.results] == ["first"]
    assert not answer.started


@pytest.mark.parametrize("begun", [False, True])
def test_an_end_that_cannot_be_sent(seam: Seam, *, begun: bool) -> None:
    """If an answer's end cannot be sent, its client is disconnected, and the caller gets the exception."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    if begun:
        call.say("a")
        seam.reactor.turn()
    call.leave()

    def finish_with(data_bytes: bytes) -> None:
        raise MemoryError(data_bytes)

    seam.request.finish_with = finish_with  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        answer.finish(ending(*seam.results))
    assert seam.new_events()[-1] == "disconnect"
    answer.fail(BROKEN)
    assert seam.new_events() == []


def test_an_end_whose_headers_cannot_be_sent(seam: Seam) -> None:
    """If the headers of a whole answer cannot be sent, the client stays connected and can get an error's status."""
    answer = seam.whole_answer()
    call, _ = seam.relay_call(answer)
    call.leave()

    def on_headers(content_type: bytes, length_bytes: int | None) -> None:
        raise MemoryError(content_type, length_bytes)

    seam.on_headers = on_headers  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        answer.finish(ending(*seam.results))
    assert not answer.started
    assert "disconnect" not in seam.new_events()


def test_an_error_after_the_end(seam: Seam) -> None:
    """An error that is raised after an answer's end is not written into the next answer of the connection."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.leave()
    answer.finish(ending(*seam.results))
    seam.new_events()
    answer.fail(BROKEN)
    assert seam.new_events() == []


def test_a_call_that_cannot_be_cancelled(seam: Seam) -> None:
    """If cancelling the engine's call raises, the answer stops all the same, and the log says why."""
    answer = seam.answer(heartbeat_s=5)
    call, done = seam.relay_call(answer)

    def cancel() -> None:
        raise MemoryError

    call.cancel = cancel  # type: ignore[method-assign]
    answer.stopProducing()
    assert [text.splitlines()[0] for text in seam.logged_errors] == ["An engine call could not be cancelled"]
    done.cancel()
    seam.logged_errors.clear()


def test_a_heartbeat_that_cannot_be_encoded(seam: Seam) -> None:
    """A fault while the engine is silent leaves a client waiting for ever."""
    answer = seam.answer(FailingStream("heartbeat"), heartbeat_s=5)
    seam.relay_call(answer)
    seam.reactor.advance(5)
    assert seam.new_events() == ["cancel", "relayed"]
    assert isinstance(seam.results[0], MemoryError)
    answer.stopProducing()


def test_an_error_that_cannot_be_encoded(seam: Seam) -> None:
    """A client of an answer that failed twice waits for ever."""
    answer = seam.answer(FailingStream("fail"), heartbeat_s=5)
    call, _ = seam.relay_call(answer)
    call.say("a")
    seam.reactor.turn()
    call.leave(BROKEN)
    seam.new_events()
    answer.fail(BROKEN)
    assert seam.new_events() == ["disconnect"]
    assert [text.splitlines()[0] for text in seam.logged_errors] == [
        "An answer's error could not be sent; disconnecting its client"
    ]
    seam.logged_errors.clear()


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), MemoryError()], ids=["thread", "memory"])
def test_a_call_that_cannot_be_started(seam: Seam, fault: Exception) -> None:
    """A question that got no thread is asked all the same, later, by one that becomes free."""
    answer = seam.answer()
    call = RecordingCall(seam.events, seam.reactor)

    def start(arrived: Callable[[], None], buffer_bytes: int) -> Deferred[None]:  # noqa: ARG001 - as in Call
        raise fault

    call.start = start  # type: ignore[method-assign]
    answer.relay_call(0, call, OutputLimiter(Limits()), maybeDeferred).addBoth(seam._ended)  # noqa: SLF001 - of this module
    assert seam.new_events() == ["cancel", "cancel", "relayed"]
    assert seam.results == [fault]


@pytest.mark.parametrize("size", [10, 11])
def test_the_largest_answer(seam: Seam, size: int) -> None:
    """An engine that never ends takes all the memory there is, or an answer is cut off that is not too large."""
    answer = seam.answer(max_answer_bytes=10)
    call, _ = seam.relay_call(answer)
    call.say("\N{LATIN SMALL LETTER E WITH ACUTE}" * 4)
    call.say("x" * (size - 8))
    call.leave()
    seam.reactor.turn()
    (result,) = seam.results
    if size == 10:
        assert result.text == "\N{LATIN SMALL LETTER E WITH ACUTE}" * 4 + "xx"
    else:
        assert (result.kind, result.detail) == (errors.ENGINE_ERROR, "more than PROXY_MAX_ANSWER_BYTES=10")
        assert "write <0:\N{LATIN SMALL LETTER E WITH ACUTE}" in "".join(seam.new_events())


def test_the_largest_answer_of_several_choices(seam: Seam) -> None:
    """A request with many prompts gets past the limit of an answer."""
    answer = seam.answer(max_answer_bytes=10)
    for index, text in enumerate(("123456", "78901")):
        call, _ = seam.relay_call(answer, index)
        call.say(text)
        call.leave()
        seam.reactor.turn()
    first, second = seam.results
    assert (first.text, second.kind) == ("123456", errors.ENGINE_ERROR)


def test_the_memory_of_a_long_answer(seam: Seam) -> None:
    """Every word of an answer takes ten times its size until the answer ends."""
    answer = seam.answer()
    call, _ = seam.relay_call(answer)
    call.say("word ")
    seam.reactor.turn()
    seam.new_events()
    tracemalloc.start()
    try:
        for number in range(20_000):
            call.say(f"{number:4} ")
            seam.reactor.turn()
            seam.new_events()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 2 * 100_000
    answer.stopProducing()
