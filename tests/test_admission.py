"""Who may call the engine, in which order, and who has to go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from brunix_twisted import errors
from brunix_twisted.admission import Admission
from brunix_twisted.errors import GatewayError
from fake_reactor import LIMIT_S, FakeReactor

QUEUE_TIMEOUT_S = 30

STOPPING = GatewayError(errors.OVERLOADED, "stopping")

OnResult = Callable[[bool, Any], None]


class FakePool:
    """A pool whose workers leave their work when the test says so, and only then do it."""

    def __init__(self, workers: int) -> None:
        self.max = workers
        self.under_way: list[tuple[OnResult, Callable[[], Any]]] = []

    def callInThreadWithCallback(self, on_result: OnResult, work: Callable[[], Any]) -> None:  # noqa: N802 - ThreadPool's name
        assert len(self.under_way) < self.max, "more work than workers"
        self.under_way.append((on_result, work))

    def leave(self, number: int = 0) -> None:
        """Let the worker of this number do its work and leave it."""
        on_result, work = self.under_way.pop(number)
        try:
            result = work()
        except RuntimeError:
            on_result(False, Failure())  # noqa: FBT003 - ThreadPool's own form
        else:
            on_result(True, result)  # noqa: FBT003 - likewise


class Gate:
    """An admission, and everything that happens to those who come to it, in one list of events."""

    def __init__(self, workers: int, queue_size: int) -> None:
        self.reactor = FakeReactor()
        self.pool = FakePool(workers)
        self.admission = Admission(
            self.reactor.as_reactor,
            cast("ThreadPool", self.pool),
            queue_size=queue_size,
            queue_timeout_s=QUEUE_TIMEOUT_S,
        )
        self.events: list[str] = []

    def come(self, name: str, work: Callable[[], object] = lambda: None) -> Deferred[None]:
        """Wait for a place, use it for some work, and tell of it."""
        place = self.admission.admit()

        def admitted(_: None) -> None:
            self.events.append(f"{name} in")
            self.admission.run(work).addBoth(out)

        def out(result: object) -> None:
            how = f"failed: {result.value}" if isinstance(result, Failure) else f"out: {result}"
            self.events.append(f"{name} {how}")

        def refused(failure: Failure) -> None:
            if not failure.check(CancelledError):
                fault = failure.value
                assert isinstance(fault, GatewayError)
                assert fault.kind is errors.OVERLOADED
            self.events.append(f"{name} refused")

        place.addCallbacks(admitted, refused)
        return place

    def leave(self, number: int = 0) -> None:
        """Let a worker leave its work, and the reactor hear of it."""
        self.pool.leave(number)
        self.reactor.turn()

    def idle(self) -> Deferred[None]:
        """Tell when nobody has any work."""
        return self.admission.when_idle().addCallback(lambda _: self.events.append("idle"))

    def new_events(self) -> list[str]:
        """Everything since the last look."""
        events = list(self.events)
        self.events.clear()
        return events


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Two workers, and room for two who wait."""
    gate = Gate(2, 2)
    yield gate
    assert gate.reactor.delayed_calls() == [], "something is still going to happen"


def test_first_come_first_served(gate: Gate) -> None:
    """Whoever asked first is answered first."""
    for name in "abcd":
        gate.come(name)
    assert gate.new_events() == ["a in", "b in"]
    gate.leave()
    assert gate.new_events() == ["c in", "a out: None"]
    gate.leave()
    assert gate.new_events() == ["d in", "b out: None"]
    gate.leave()
    gate.leave()
    assert gate.new_events() == ["c out: None", "d out: None"]


def test_result_of_the_work(gate: Gate) -> None:
    """What a worker finds out reaches whoever gave it the work, failures too."""

    def broken() -> None:
        raise RuntimeError("broken")

    gate.come("a", lambda: 42)
    gate.come("b", broken)
    gate.leave()
    gate.leave()
    assert gate.new_events() == ["a in", "b in", "a out: 42", "b failed: broken"]


def test_bound_of_the_queue(gate: Gate) -> None:
    """When there is more work than can wait, the next caller is told at once and does not hang."""
    for name in "abcde":
        gate.come(name)
    assert gate.new_events() == ["a in", "b in", "e refused"]
    gate.leave()
    gate.come("f")
    gate.come("g")
    assert gate.new_events() == ["c in", "a out: None", "g refused"]
    for _ in range(4):
        gate.leave()
    assert gate.new_events() == ["d in", "b out: None", "f in", "c out: None", "d out: None", "f out: None"]


def test_no_queue_at_all() -> None:
    """With a queue of 0 a caller is either served now or refused now."""
    gate = Gate(1, 0)
    gate.come("a")
    gate.come("b")
    gate.leave()
    gate.come("c")
    assert gate.new_events() == ["a in", "b refused", "a out: None", "c in"]
    assert gate.reactor.delayed_calls() == []


def test_deadline_of_the_queue(gate: Gate) -> None:
    """Whoever has waited long enough is told, even when every worker hangs; the others keep their turn."""
    gate.come("a")
    gate.come("b")
    gate.come("c")
    gate.reactor.advance(10)
    gate.come("d")
    gate.reactor.advance(QUEUE_TIMEOUT_S - 10 - 0.01)
    assert gate.new_events() == ["a in", "b in"]
    gate.reactor.advance(0.01)
    assert gate.new_events() == ["c refused"]
    gate.leave()
    assert gate.new_events() == ["d in", "a out: None"]
    gate.reactor.advance(100)
    assert gate.new_events() == []


def test_no_deadline_at_work(gate: Gate) -> None:
    """An answer that takes long is not broken off because its question had to wait first."""
    for name in "abc":
        gate.come(name)
    gate.leave()
    assert gate.reactor.delayed_calls() == []


@pytest.mark.parametrize("leaver", [0, 1])
def test_cancel_leaves_the_queue(gate: Gate, leaver: int) -> None:
    """A client that goes away while it waits makes room for the next, and nobody else loses a turn."""
    gate.come("a")
    gate.come("b")
    waiting = [gate.come("c"), gate.come("d")]
    waiting[leaver].cancel()
    assert len(gate.reactor.delayed_calls()) == 1
    gate.come("e")
    stays, left = ("d", "c") if leaver == 0 else ("c", "d")
    assert gate.new_events() == ["a in", "b in", f"{left} refused"]
    gate.leave()
    gate.leave()
    assert gate.new_events() == [f"{stays} in", "a out: None", "e in", "b out: None"]
    waiting[leaver].cancel()
    gate.leave()
    gate.leave()
    assert gate.new_events() == [f"{stays} out: None", "e out: None"]


def test_a_place_is_free_when_the_work_has_left(gate: Gate) -> None:
    """More questions than there are workers never reach the engine at once, not even when callers give up."""
    results = []
    for _ in range(2):
        gate.admission.admit()
        results.append(gate.admission.run(lambda: None))
    gate.come("c")
    results[0].cancel()
    assert gate.new_events() == []
    assert len(gate.pool.under_way) == 2
    results[0].addErrback(lambda failure: failure.trap(CancelledError))
    gate.leave()
    assert gate.new_events() == ["c in"]
    gate.leave()
    gate.leave()


def test_a_place_is_free_after_a_failure() -> None:
    """Workers are not used up by work that fails."""

    def broken() -> None:
        raise RuntimeError("broken")

    gate = Gate(1, 0)
    for name in "ab":
        gate.come(name, broken)
        gate.leave()
    assert gate.new_events() == ["a in", "a failed: broken", "b in", "b failed: broken"]


def test_a_place_goes_from_hand_to_hand() -> None:
    """Nobody slips in before those who wait."""
    gate = Gate(1, 5)
    gate.come("a")
    gate.come("b").addCallback(lambda _: gate.come("c"))
    gate.leave()
    assert gate.new_events() == ["a in", "b in", "a out: None"]
    gate.leave()
    gate.leave()
    assert gate.new_events() == ["c in", "b out: None", "c out: None"]


def test_refuse(gate: Gate) -> None:
    """A gateway that stops sends those who wait away, and lets those at work end."""
    for name in "abcd":
        gate.come(name)
    gate.admission.refuse(STOPPING)
    assert gate.new_events() == ["a in", "b in", "c refused", "d refused"]
    assert gate.reactor.delayed_calls() == []
    gate.admission.refuse(STOPPING)
    gate.leave()
    gate.leave()
    assert gate.new_events() == ["a out: None", "b out: None"]


def test_when_idle(gate: Gate) -> None:
    """A gateway that stops waits for the last worker, and not for longer."""
    gate.idle()
    assert gate.new_events() == ["idle"]
    for name in "abc":
        gate.come(name)
    gate.idle()
    gate.idle()
    gate.leave()
    gate.leave()
    assert gate.new_events() == ["a in", "b in", "c in", "a out: None", "b out: None"]
    gate.leave()
    assert gate.new_events() == ["idle", "idle", "c out: None"]
    gate.come("d")
    gate.leave()
    assert gate.new_events() == ["d in", "d out: None"]


def test_with_threads() -> None:
    """The work is done on a thread of the pool's own, and its place is given back on the reactor's."""
    reactor = FakeReactor()
    pool = ThreadPool(minthreads=0, maxthreads=1, name="test")
    pool.start()
    admission = Admission(reactor.as_reactor, pool, queue_size=1, queue_timeout_s=QUEUE_TIMEOUT_S)
    began, go = threading.Event(), threading.Event()
    threads: list[int] = []

    def work() -> None:
        began.set()
        assert go.wait(LIMIT_S)
        threads.append(threading.get_ident())

    try:
        admission.admit()
        idle: list[None] = []
        admission.run(work)
        admission.when_idle().addCallback(idle.append)
        second = admission.admit()
        assert began.wait(LIMIT_S)
        assert not second.called
        go.set()
        # The worker's end waits for the reactor's next turn, on whose thread everything else is.
        reactor.wait()
        assert second.called
        assert idle == []
        admission.run(work)
        reactor.wait()
        assert idle == [None]
        assert threads[0] == threads[1] != threading.get_ident()
    finally:
        go.set()
        pool.stop()
    assert reactor.delayed_calls() == []
