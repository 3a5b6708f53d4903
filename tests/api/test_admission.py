"""Who may call the engine, in which order, and who has to go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from brunix_twisted import errors
from brunix_twisted.api.admission import Admission
from brunix_twisted.errors import GatewayError
from fake_reactor import FakeReactor

QUEUE_TIMEOUT_S = 30


def stopping() -> GatewayError:
    return GatewayError(errors.STOPPING, "stopping")


class Gate:
    """An admission, and everything that happens to those who come to it, in one list of events."""

    def __init__(self, places: int, queue_size: int, queue_per_caller: int | None = None) -> None:
        self.reactor = FakeReactor()
        self.admission = Admission(
            self.reactor.as_reactor,
            places=places,
            queue_size=queue_size,
            queue_timeout_s=QUEUE_TIMEOUT_S,
            queue_per_caller=queue_per_caller,
        )
        self.places = places
        self.under_way: list[Deferred[Any]] = []
        self.events: list[str] = []
        self.refusals: list[Failure] = []

    def call(self) -> Deferred[Any]:
        """Begin a call that ends when the test says so."""
        assert len(self.under_way) < self.places, "more calls than places"
        self.under_way.append(Deferred())
        return self.under_way[-1]

    def come(
        self, name: str, begin: Callable[[], Deferred[Any]] | None = None, *, caller: str = "one"
    ) -> Deferred[None]:
        """Wait for a place, use it for a call, and tell of it."""
        begin = begin or self.call

        def start() -> Deferred[Any]:
            self.events.append(f"{name} in")
            return begin()

        def out(result: object) -> None:
            if isinstance(result, Failure) and result.check(GatewayError, CancelledError):
                if not result.check(CancelledError):
                    self.refusals.append(result)
                self.events.append(f"{name} refused")
            else:
                how = f"failed: {result.value}" if isinstance(result, Failure) else f"out: {result}"
                self.events.append(f"{name} {how}")

        return self.admission.run(caller.encode(), start).addBoth(out)

    def leave(self, result: object = None) -> None:
        """Let the oldest call end."""
        call = self.under_way.pop(0)
        if isinstance(result, Exception):
            call.errback(result)
        else:
            call.callback(result)

    def idle(self) -> Deferred[None]:
        """Tell when no call is under way."""
        return self.admission.when_idle().addCallback(lambda _: self.events.append("idle"))

    def new_events(self) -> list[str]:
        """Everything since the last look."""
        events = list(self.events)
        self.events.clear()
        return events


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Two places, and room for two who wait."""
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


def test_result_of_the_call(gate: Gate) -> None:
    """What comes of a call reaches whoever made it, failures too."""
    gate.come("a")
    gate.come("b")
    gate.leave(42)
    gate.leave(RuntimeError("broken"))
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
    """Whoever has waited long enough is told, even when every call hangs; the others keep their turn."""
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


def test_no_deadline_with_a_place(gate: Gate) -> None:
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


def test_a_place_is_free_when_the_call_has_ended(gate: Gate) -> None:
    """More questions than there are places never reach the engine at once, not even when callers give up."""
    results = [gate.admission.run(b"one", gate.call) for _ in range(2)]
    gate.come("c")
    results[0].cancel()
    assert gate.new_events() == []
    assert len(gate.under_way) == 2
    results[0].addErrback(lambda failure: failure.trap(CancelledError))
    gate.leave()
    assert gate.new_events() == ["c in"]
    gate.leave()
    gate.leave()


def test_a_place_is_free_after_a_failure() -> None:
    """Places are not used up by calls that fail."""
    gate = Gate(1, 0)
    for name in "ab":
        gate.come(name)
        gate.leave(RuntimeError("broken"))
    assert gate.new_events() == ["a in", "a failed: broken", "b in", "b failed: broken"]


def test_a_place_goes_from_hand_to_hand() -> None:
    """Nobody slips in before those who wait."""
    gate = Gate(1, 5)
    gate.come("a").addCallback(lambda _: gate.come("c"))
    gate.come("b")
    gate.leave()
    assert gate.new_events() == ["a in", "b in", "a out: None"]
    gate.leave()
    gate.leave()
    assert gate.new_events() == ["c in", "b out: None", "c out: None"]


@pytest.mark.parametrize(
    ("fault", "message"), [(RuntimeError, "can't start new thread"), (MemoryError, "out of memory")]
)
def test_a_place_is_free_when_a_call_cannot_be_started(fault: type[Exception], message: str) -> None:
    """Places are not lost when the system refuses another thread, however many wait behind."""
    gate = Gate(1, 1500)

    def fail() -> Deferred[Any]:
        # A new one each time: a parameter stays, and with it the frames of all, a hundred thousand objects and more.
        raise fault(message)

    gate.come("a")
    # More than Python allows calls within calls: one must not start within the other's failure.
    for _ in range(1500):
        gate.come("b", fail)
    gate.leave()
    assert gate.new_events() == ["a in", *["b in", f"b failed: {message}"] * 1500, "a out: None"]
    assert (gate.admission.busy, gate.admission.waiting) == (0, 0)
    gate.come("c")
    assert gate.new_events() == ["c in"]
    gate.leave()
    gate.idle()
    assert gate.new_events() == ["c out: None", "idle"]
    assert gate.reactor.delayed_calls() == []


def test_refuse(gate: Gate) -> None:
    """A gateway that stops sends those who wait away, and lets those with the engine end."""
    for name in "abcd":
        gate.come(name)
    gate.admission.refuse(stopping)
    assert gate.new_events() == ["a in", "b in", "c refused", "d refused"]
    assert gate.reactor.delayed_calls() == []
    # An exception that several share gets the tracebacks of all, and holds their requests in memory.
    first, second = gate.refusals
    assert first.value is not second.value
    gate.admission.refuse(stopping)
    gate.leave()
    gate.leave()
    assert gate.new_events() == ["a out: None", "b out: None"]


def test_when_idle(gate: Gate) -> None:
    """A gateway that stops waits for the last call, and not for longer."""
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


# Several callers.


@pytest.mark.parametrize("hogging", [2, 40])
def test_a_light_caller_next_to_a_hog(hogging: int) -> None:
    """One caller with many connections would keep out everybody else for as long as it likes."""
    gate = Gate(2, 100)
    for number in range(2 + hogging):
        gate.come(f"hog {number}", caller="hog")
    gate.come("light", caller="light")
    gate.come("second of light", caller="light")
    gate.new_events()
    gate.leave()
    assert gate.new_events()[0] == "light in"
    # Now both have one call, and the light one was served last.
    gate.leave()
    assert gate.new_events()[0] == "hog 2 in"
    gate.leave()
    assert gate.new_events()[0] == "second of light in"
    gate.admission.refuse(stopping)


def test_callers_take_turns() -> None:
    """Of several callers who wait, each gets the next place in turn, and each one's questions keep their order."""
    gate = Gate(1, 100)
    gate.come("0", caller="0")
    for caller in "abc":
        for number in range(3):
            gate.come(f"{caller}{number}", caller=caller)
    gate.new_events()
    order = []
    for _ in range(9):
        gate.leave()
        order.append(gate.new_events()[0].removesuffix(" in"))
    assert order == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]
    gate.leave()


def test_who_fills_the_queue_makes_room() -> None:
    """A hog that has filled the queue would have everybody else rejected."""
    gate = Gate(1, 3)
    for number in range(4):
        gate.come(f"hog {number}", caller="hog")
    gate.new_events()
    gate.come("light", caller="light")
    assert gate.new_events() == ["hog 3 refused"]
    assert gate.admission.waiting == 3
    # Two of one and one of the other: nobody has too much.
    gate.come("another", caller="light")
    gate.come("hog 4", caller="hog")
    assert gate.new_events() == ["another refused", "hog 4 refused"]
    gate.come("third", caller="third")
    assert gate.new_events() == ["hog 2 refused"]
    gate.come("fourth", caller="fourth")
    assert gate.new_events() == ["fourth refused"]
    assert [cast("GatewayError", refusal.value).kind for refusal in gate.refusals] == [errors.OVERLOADED] * 5
    gate.admission.refuse(stopping)
    assert gate.admission.waiting == 0
    assert gate.reactor.delayed_calls() == []


def test_a_limit_for_each_caller() -> None:
    """An operator who limits a caller would see one caller fill the queue."""
    gate = Gate(1, 3, queue_per_caller=1)
    for caller in ("a", "a", "a", "b", "b"):
        gate.come(caller, caller=caller)
    assert gate.new_events() == ["a in", "a refused", "b refused"]
    assert [cast("GatewayError", refusal.value).kind for refusal in gate.refusals] == [errors.QUEUE_PER_CALLER] * 2
    assert "You have a question waiting in the queue" in str(gate.refusals[0].value)
    gate.leave()
    gate.leave()
    gate.leave()
    assert gate.admission.busy == 0


def test_nothing_is_kept_of_callers() -> None:
    """A gateway with many callers would grow with each of them."""
    gate = Gate(1, 2)
    for caller in "abc":
        gate.come(caller, caller=caller)
    for _ in "abc":
        gate.leave()
    assert (gate.admission._queues, gate.admission._running) == ({}, {})  # noqa: SLF001 - it shows in nothing else


def test_a_rejected_client_that_asks_again_at_once() -> None:
    """The queue would be longer than its size."""
    gate = Gate(1, 2)
    for number in range(2):
        gate.come(f"hog {number}", caller="hog")
    again: list[Deferred[None]] = []
    gate.come("hog 2", caller="hog").addCallback(lambda _: again.append(gate.come("hog again", caller="hog")))
    gate.come("light", caller="light")
    assert gate.new_events() == ["hog 0 in", "hog 2 refused", "hog again refused"]
    assert gate.admission.waiting == 2
    gate.admission.refuse(stopping)
