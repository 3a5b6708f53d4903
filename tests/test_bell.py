"""The wake-ups of the reactor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from brunix_twisted.engine.wakeup import _MANY, _PAUSE_S, Bell
from fake_reactor import FakeReactor


def note(rung: list[int], number: int) -> Callable[[], None]:
    return lambda: rung.append(number)


def test_one_wake_up_for_all_that_ring() -> None:
    """Streams that speak at the same moment cost a wake-up of the reactor each."""
    reactor, rung = FakeReactor(), list[int]()
    bell = Bell(reactor.as_reactor)
    for number in range(3):
        bell.ring(note(rung, number))
    assert (reactor.wakes(), rung) == (1, [])
    reactor.turn()
    assert rung == [0, 1, 2]
    assert reactor.delayed_calls() == []


def test_few_never_wait() -> None:
    """A gateway with little to do delays words for the sake of those it has not."""
    reactor, rung = FakeReactor(), list[int]()
    bell = Bell(reactor.as_reactor)
    for number in range(10):
        bell.ring(note(rung, number))
        reactor.turn()
    assert rung == list(range(10))


def test_many_wake_nobody() -> None:
    """With hundreds of streams the gateway does little but wake its own threads."""
    reactor, rung = FakeReactor(), list[int]()
    bell = Bell(reactor.as_reactor)
    for number in range(_MANY):
        bell.ring(note(rung, number))
    reactor.turn()
    for number in range(_MANY, 2 * _MANY):
        bell.ring(note(rung, number))
    assert reactor.wakes() == 0
    assert len(rung) == _MANY
    reactor.advance(_PAUSE_S)
    assert rung == list(range(2 * _MANY))


def test_after_many_come_few() -> None:
    """The last word of a busy moment waits for the next busy moment."""
    reactor, rung = FakeReactor(), list[int]()
    bell = Bell(reactor.as_reactor)
    for number in range(_MANY):
        bell.ring(note(rung, number))
    reactor.turn()
    bell.ring(note(rung, 100))
    reactor.advance(_PAUSE_S)
    assert rung[-1] == 100
    assert reactor.delayed_calls() == []
    bell.ring(note(rung, 200))
    assert reactor.wakes() == 1
    reactor.turn()
    assert rung[-1] == 200


def test_ringing_within() -> None:
    """What rings while the reactor is there is forgotten, or called without end."""
    reactor, rung = FakeReactor(), list[int]()
    bell = Bell(reactor.as_reactor)
    bell.ring(lambda: bell.ring(note(rung, 1)))
    reactor.turn()
    assert rung == []
    reactor.turn()
    assert rung == [1]


def test_from_many_threads() -> None:
    """A word stays behind when several workers ring at once."""
    reactor, rung = FakeReactor(), list[int]()
    bell = Bell(reactor.as_reactor)

    def ring() -> None:
        for _ in range(500):
            bell.ring(note(rung, 0))

    with ThreadPoolExecutor(8) as threads:
        done = [threads.submit(ring) for _ in range(8)]
        while not all(each.done() for each in done):
            reactor.turn()
            reactor.advance(_PAUSE_S)
    reactor.turn()
    reactor.advance(_PAUSE_S)
    assert len(rung) == 8 * 500


def test_a_stream_that_fails_harms_no_other() -> None:
    """A fault in one stream leaves the words of all others where they are, and nobody comes for them any more."""
    reactor, rung = FakeReactor(), list[int]()
    bell = Bell(reactor.as_reactor)

    def fail() -> None:
        raise MemoryError

    bell.ring(note(rung, 0))
    bell.ring(fail)
    bell.ring(note(rung, 1))
    reactor.turn()
    assert rung == [0, 1]
    bell.ring(note(rung, 2))
    reactor.turn()
    assert rung == [0, 1, 2]


def test_a_wake_up_that_fails() -> None:
    """After one wake-up that could not be sent, no stream is ever served again."""
    reactor, rung = FakeReactor(), list[int]()
    bell = Bell(reactor.as_reactor)
    wake, reactor.callFromThread = reactor.callFromThread, None  # type: ignore[method-assign,assignment]
    with pytest.raises(TypeError):
        bell.ring(note(rung, 0))
    reactor.callFromThread = wake  # type: ignore[method-assign]
    bell.ring(note(rung, 1))
    reactor.turn()
    assert rung == [0, 1]
