"""The pool of threads that wait for the engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from twisted.python.failure import Failure

from brunix_twisted.engine.blocking import BlockingCall
from brunix_twisted.engine.wakeup import ReactorWaker
from brunix_twisted.runtime.workers import Workers
from fake_reactor import LIMIT_S, FakeReactor

Outcome = tuple[bool, object]


class Pool:
    """A pool, and what comes of the work that it is given."""

    def __init__(self, max_threads: int) -> None:
        self.workers = Workers(max_threads)
        self.outcomes: SimpleQueue[Outcome] = SimpleQueue()

    def give(self, work: object, *arguments: object) -> None:
        self.workers.callInThreadWithCallback(lambda *outcome: self.outcomes.put(outcome), work, *arguments)  # type: ignore[arg-type]

    def outcome(self) -> Outcome:
        return self.outcomes.get(timeout=LIMIT_S)

    def all_at_once(self, count: int) -> None:
        """Check that so many pieces of work run at the same time: none of them ends before all have begun."""
        barrier = threading.Barrier(count)
        for _ in range(count):
            self.give(barrier.wait, LIMIT_S)
        assert all(self.outcome()[0] for _ in range(count))


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(3)
    yield pool
    pool.workers.stop()


def test_results(pool: Pool) -> None:
    """What the work returns or raises is reported, also what is no ordinary exception."""
    pool.give(int, "5")
    assert pool.outcome() == (True, 5)
    for fault in (ValueError("no number"), SystemExit(1)):

        def fail(fault: BaseException = fault) -> None:
            raise fault

        pool.give(fail)
        succeeded, failure = pool.outcome()
        assert isinstance(failure, Failure)
        assert (succeeded, failure.value) == (False, fault)


def test_as_many_at_once_as_there_are_threads(pool: Pool) -> None:
    """Each question has a thread of its own, up to the limit, again and again."""
    for _ in range(3):
        pool.all_at_once(3)


def test_no_more_at_once_than_there_are_threads(pool: Pool) -> None:
    """More work than threads waits, and is done in order."""
    release, begun = threading.Event(), SimpleQueue[int]()

    def work(number: int) -> None:
        begun.put(number)
        release.wait(LIMIT_S)

    for number in range(5):
        pool.give(work, number)
    assert {begun.get(timeout=LIMIT_S) for _ in range(3)} == {0, 1, 2}
    assert begun.empty()
    release.set()
    assert [begun.get(timeout=LIMIT_S) for _ in range(2)] == [3, 4]


def test_one_thread_is_enough_for_one_at_a_time(pool: Pool) -> None:
    """A gateway that is asked one question after the other needs one thread."""
    seen = set()
    for _ in range(5):
        pool.give(threading.current_thread)
        seen.add(pool.outcome()[1])
    assert len(seen) == 1


def test_no_thread_can_be_started(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work for which there is no thread is refused, is not done later, and takes no thread from what comes after."""
    pool.give(int)
    assert pool.outcome() == (True, 0)
    release, done = threading.Event(), list[str]()
    pool.give(release.wait, LIMIT_S)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limit:
        limit.setattr(threading.Thread, "start", refuse)
        for _ in range(5):
            with pytest.raises(RuntimeError):
                pool.give(done.append, "refused")
    release.set()
    assert pool.outcome() == (True, True)
    for _ in range(2):
        pool.all_at_once(3)
    assert done == []


def test_a_report_that_fails(pool: Pool) -> None:
    """A thread outlives a report that raises."""
    reported = threading.Event()

    def fail(*_: object) -> None:
        reported.set()
        raise MemoryError

    pool.workers.callInThreadWithCallback(fail, int)
    assert reported.wait(LIMIT_S)
    pool.all_at_once(3)


def test_stopping_ends_the_threads() -> None:
    """A gateway that has stopped leaves no thread behind."""
    pool = Pool(3)
    pool.all_at_once(3)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("engine_")]
    pool.workers.stop()
    assert not any(thread.is_alive() for thread in pool.workers._threads)  # noqa: SLF001 - those of this pool alone
    assert len(threads) >= 3


def test_cancelling_does_not_wait_for_a_call_that_begins() -> None:
    """The reactor, and with it every stream, waits until gRPC has begun a call that its client has given up."""
    beginning, go_on, cancelled = threading.Event(), threading.Event(), threading.Event()

    class Begun:
        """A call that ends once it is cancelled."""

        def cancel(self) -> None:
            cancelled.set()

        def __iter__(self) -> Iterator[Any]:
            assert cancelled.wait(LIMIT_S)
            raise grpc.RpcError
            yield

    def begin(timeout_s: float, trace: object) -> Any:  # noqa: ANN401, ARG001 - as grpc's
        beginning.set()
        assert go_on.wait(LIMIT_S)
        return Begun()

    workers = Workers(1)
    call = BlockingCall(begin, lambda _: Begun(), 60, workers, ReactorWaker(FakeReactor().as_reactor))  # type: ignore[arg-type,return-value]
    running = threading.Thread(target=call.run, args=(lambda _, **__: True,))
    running.start()
    try:
        assert beginning.wait(LIMIT_S)
        canceller = threading.Thread(target=call.cancel)
        canceller.start()
        canceller.join(LIMIT_S)
        assert not canceller.is_alive()
        assert not cancelled.is_set()
    finally:
        go_on.set()
        running.join(LIMIT_S)
    # It is cancelled as soon as there is something to cancel.
    assert cancelled.is_set()
    assert not running.is_alive()
