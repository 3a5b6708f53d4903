"""Coroutines that are started in the background."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from brunix_twisted.runtime.coroutines import attempt, start, unless_cancelled
from log_lines import log_lines


async def add(*waited: Deferred[int]) -> int:
    return sum([await each for each in waited])


@pytest.mark.parametrize("waits", [0, 1, 3])
def test_it_runs_to_its_end(waits: int) -> None:
    """What comes after the second wait of a coroutine never happens."""
    waited: list[Deferred[int]] = [Deferred() for _ in range(waits)]
    result = start(add, *waited)
    for each in waited:
        assert not result.called
        each.callback(2)
    assert result.result == 2 * waits


@pytest.mark.parametrize("waits", [True, False])
def test_a_failure_is_logged(*, waits: bool) -> None:
    """A conversation is not recorded, and nothing says so."""
    waited: Deferred[None] = Deferred()

    async def fail() -> None:
        if waits:
            await waited
        raise ValueError("why")

    with log_lines() as lines:
        result = start(fail)
        waited.callback(None)
        assert result.result is None
    assert [text.splitlines()[-1] for text in lines.errors] == ["builtins.ValueError: why"]


def test_it_sees_the_failure_of_what_it_waits_for() -> None:
    """A store that fails between two steps leaves the rest undone."""
    waited: Deferred[None] = Deferred()

    async def recover() -> str:
        try:
            await waited
        except ValueError:
            return "recovered"
        return "not failed"

    result = start(recover)
    waited.errback(ValueError())
    assert result.result == "recovered"


def test_cancelling_reaches_what_it_waits_for() -> None:
    """A request that is gone goes on in the background."""
    waited: Deferred[None] = Deferred()
    ended: list[str] = []

    async def note() -> None:
        try:
            await waited
        except CancelledError:
            ended.append("cancelled")
            raise

    with log_lines():
        start(note).cancel()
    assert ended == ["cancelled"]


@pytest.mark.parametrize("fired", [True, False])
def test_cancelling_a_wait_cancels_nothing_else(*, fired: bool) -> None:
    """A client that disconnects keeps its conversation from being recorded."""
    waited: Deferred[int] = Deferred()
    if fired:
        waited.callback(1)
    result = start(unless_cancelled, waited)
    result.cancel()
    if not fired:
        waited.callback(1)
    assert waited.called
    with log_lines() as lines:
        assert start(attempt, add).result == 0
    assert lines.errors == []
