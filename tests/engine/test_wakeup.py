"""The wake-ups of the reactor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from brunix_twisted.engine.wakeup import _MIN_CALLS_TO_POLL, _PAUSE_S, ReactorWaker
from fake_reactor import FakeReactor
from log_lines import log_lines


def note(ran: list[int], number: int) -> Callable[[], None]:
    return lambda: ran.append(number)


def test_one_wake_up_for_all_that_ring() -> None:
    """Streams that speak at the same moment cost a wake-up of the reactor each."""
    reactor, ran = FakeReactor(), list[int]()
    waker = ReactorWaker(reactor.as_reactor)
    for number in range(3):
        waker.schedule(note(ran, number))
    assert (reactor.wakes(), ran) == (1, [])
    reactor.turn()
    assert ran == [0, 1, 2]
    assert reactor.delayed_calls() == []


def test_few_never_wait() -> None:
    """A gateway with little to do delays words for the sake of those it has not."""
    reactor, ran = FakeReactor(), list[int]()
    waker = ReactorWaker(reactor.as_reactor)
    for number in range(10):
        waker.schedule(note(ran, number))
        reactor.turn()
    assert ran == list(range(10))


def test_many_wake_nobody() -> None:
    """With hundreds of streams the gateway does little but wake its own threads."""
    reactor, ran = FakeReactor(), list[int]()
    waker = ReactorWaker(reactor.as_reactor)
    for number in range(_MIN_CALLS_TO_POLL):
        waker.schedule(note(ran, number))
    reactor.turn()
    for number in range(_MIN_CALLS_TO_POLL, 2 * _MIN_CALLS_TO_POLL):
        waker.schedule(note(ran, number))
    assert reactor.wakes() == 0
    assert len(ran) == _MIN_CALLS_TO_POLL
    reactor.advance(_PAUSE_S)
    assert ran == list(range(2 * _MIN_CALLS_TO_POLL))


def test_after_many_come_few() -> None:
    """The last word of a busy moment waits for the next busy moment."""
    reactor, ran = FakeReactor(), list[int]()
    waker = ReactorWaker(reactor.as_reactor)
    for number in range(_MIN_CALLS_TO_POLL):
        waker.schedule(note(ran, number))
    reactor.turn()
    waker.schedule(note(ran, 100))
    reactor.advance(_PAUSE_S)
    assert ran[-1] == 100
    assert reactor.delayed_calls() == []
    waker.schedule(note(ran, 200))
    assert reactor.wakes() == 1
    reactor.turn()
    assert ran[-1] == 200


def test_ringing_within() -> None:
    """What rings while the reactor is there is forgotten, or called without end."""
    reactor, ran = FakeReactor(), list[int]()
    waker = ReactorWaker(reactor.as_reactor)
    waker.schedule(lambda: waker.schedule(note(ran, 1)))
    reactor.turn()
    assert ran == []
    reactor.turn()
    assert ran == [1]


def test_many_that_ring_within() -> None:
    """Busy streams that ring again while the reactor serves them cost one wake-up, not two."""
    reactor, ran = FakeReactor(), list[int]()
    waker = ReactorWaker(reactor.as_reactor)
    for number in range(_MIN_CALLS_TO_POLL):
        waker.schedule(partial(waker.schedule, note(ran, number)))
    reactor.turn()
    assert (reactor.wakes(), reactor.delayed_calls()) == (1, [])
    reactor.turn()
    assert ran == list(range(_MIN_CALLS_TO_POLL))


def test_from_many_threads() -> None:
    """A word stays behind when several workers ring at once."""
    reactor, ran = FakeReactor(), list[int]()
    waker = ReactorWaker(reactor.as_reactor)

    def schedule() -> None:
        for _ in range(500):
            waker.schedule(note(ran, 0))

    with ThreadPoolExecutor(8) as threads:
        done = [threads.submit(schedule) for _ in range(8)]
        while not all(each.done() for each in done):
            reactor.turn()
            reactor.advance(_PAUSE_S)
    reactor.turn()
    reactor.advance(_PAUSE_S)
    assert len(ran) == 8 * 500


def test_a_stream_that_fails_harms_no_other() -> None:
    """A fault in one stream leaves the words of all others where they are, and nobody comes for them any more."""
    reactor, ran = FakeReactor(), list[int]()
    waker = ReactorWaker(reactor.as_reactor)

    def fail() -> None:
        raise MemoryError

    waker.schedule(note(ran, 0))
    waker.schedule(fail)
    waker.schedule(note(ran, 1))
    with log_lines() as lines:
        reactor.turn()
    assert ran == [0, 1]
    assert [text.splitlines()[0] for text in lines.errors] == ["Processing a stream failed"]
    waker.schedule(note(ran, 2))
    reactor.turn()
    assert ran == [0, 1, 2]


def test_a_wake_up_that_fails() -> None:
    """After one wake-up that could not be sent, no stream is ever served again."""
    reactor, ran = FakeReactor(), list[int]()
    waker = ReactorWaker(reactor.as_reactor)
    wake, reactor.callFromThread = reactor.callFromThread, None  # type: ignore[method-assign,assignment]
    with pytest.raises(TypeError):
        waker.schedule(note(ran, 0))
    reactor.callFromThread = wake  # type: ignore[method-assign]
    waker.schedule(note(ran, 1))
    reactor.turn()
    assert ran == [0, 1]
