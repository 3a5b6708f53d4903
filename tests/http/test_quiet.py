"""When connections that a proxy keeps open may be closed."""

from __future__ import annotations

from typing import cast

import pytest
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from brunix_twisted.http.quiet import QuietPeriod


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quiet(clock: Clock) -> QuietPeriod:
    return QuietPeriod(cast("IReactorTime", clock))


def test_no_request(clock: Clock, quiet: QuietPeriod) -> None:
    """A gateway without requests would take long to stop, or cut off what is on its way."""
    waiting = quiet.wait(0.5, 3.0)
    clock.advance(0.4)
    assert not waiting.called
    clock.advance(0.1)
    assert waiting.called
    assert clock.getDelayedCalls() == []


def test_requests(clock: Clock, quiet: QuietPeriod) -> None:
    """A request over a connection that is in use would be lost."""
    waiting = quiet.wait(0.5, 3.0)
    for _ in range(5):
        clock.advance(0.4)
        quiet.disturb()
        assert not waiting.called
    clock.advance(0.4)
    assert not waiting.called
    clock.advance(0.1)
    assert waiting.called


def test_requests_without_end(clock: Clock, quiet: QuietPeriod) -> None:
    """A gateway would never stop."""
    waiting = quiet.wait(0.5, 3.0)
    for _ in range(11):
        clock.advance(0.25)
        quiet.disturb()
    assert not waiting.called
    clock.advance(0.25)
    assert waiting.called


def test_no_connection_left(clock: Clock, quiet: QuietPeriod) -> None:
    """A gateway would wait for nothing."""
    waiting = quiet.wait(0.5, 3.0)
    quiet.end()
    assert waiting.called
    assert clock.getDelayedCalls() == []
    quiet.end()
    assert quiet.wait(0.5, 0.0).called
