"""The engine's health, asked for once for many who want to know it."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.task import Clock

from brunix_twisted.api import health
from brunix_twisted.api.health import MAX_AGE_S, SharedCheck
from brunix_twisted.engine.aio import AioEngine
from brunix_twisted.engine.blocking import BlockingEngine
from gateways import ENGINE_CLIENT, RunningGateway, run_gateway, stop_gateway
from received import connect
from scripted_engine import ScriptedEngine

LIVE_S = MAX_AGE_S * 0.9


class Checks:
    """A check that a test ends itself, and a clock that it sets."""

    def __init__(self) -> None:
        self.under_way: list[Deferred[str | None]] = []
        self.clock = Clock()
        self.shared = SharedCheck(self._check, self.clock.seconds)
        self.results: list[object] = []

    def _check(self) -> Deferred[str | None]:
        self.under_way.append(Deferred())
        return self.under_way[-1]

    def ask(self) -> Deferred[object]:
        return self.shared().addBoth(self.results.append)


def test_shared() -> None:
    """Many who ask at the same time are one question to the engine."""
    checks = Checks()
    for _ in range(5):
        checks.ask()
    assert len(checks.under_way) == 1
    checks.under_way[0].callback("ill")
    assert checks.results == ["ill"] * 5


def test_used_again_for_a_moment() -> None:
    """A result is used again for half a second from when it was there, and no longer."""
    checks = Checks()
    checks.ask()
    checks.clock.advance(5.0)
    checks.under_way[0].callback(None)
    checks.clock.advance(LIVE_S)
    checks.ask()
    assert checks.results == [None, None]
    assert len(checks.under_way) == 1
    checks.clock.advance(MAX_AGE_S - LIVE_S)
    checks.ask()
    assert len(checks.under_way) == 2
    checks.under_way[1].callback("ill")
    assert checks.results == [None, None, "ill"]


def test_one_of_them_leaves() -> None:
    """A client that disconnects does not cancel the check of the others."""
    cancelled: list[object] = []
    checks = Checks()
    first, second = checks.shared(), checks.ask()
    checks.under_way[0].addErrback(cancelled.append)
    first.cancel()
    first.addErrback(lambda failure: failure.trap(CancelledError))
    assert cancelled == []
    checks.under_way[0].callback(None)
    assert checks.results == [None]
    assert second.called


def test_all_of_them_leave() -> None:
    """A check that nobody waits for any more is still one check, and its result is used."""
    checks = Checks()
    checks.shared().addErrback(lambda failure: failure.trap(CancelledError)).cancel()
    checks.ask()
    assert len(checks.under_way) == 1
    checks.under_way[0].callback(None)
    assert checks.results == [None]


def test_a_check_that_fails() -> None:
    """A failure is told to all who wait, and not used again."""
    checks = Checks()
    failures = [checks.shared() for _ in range(2)]
    checks.under_way[0].errback(OSError("broken"))
    for failed in failures:
        failed.addErrback(lambda failure: failure.trap(OSError))
    checks.ask()
    checks.under_way[1].callback(None)
    assert checks.results == [None]

    def broken() -> Deferred[str | None]:
        raise OSError("broken at once")

    shared = SharedCheck(broken, checks.clock.seconds)
    for _ in range(2):
        shared().addErrback(lambda failure: failure.trap(OSError))


def test_asked_again_by_who_was_told() -> None:
    """Whoever asks again upon an answer gets the same, and does not start another check."""
    checks = Checks()
    again: list[object] = []
    checks.shared().addCallback(lambda _: checks.shared().addBoth(again.append))
    checks.under_way[0].callback("ill")
    assert again == ["ill"]
    assert len(checks.under_way) == 1


@pytest_twisted.ensureDeferred
async def test_many_health_checks(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients ask for the gateway's health, the engine is asked once."""
    times = []
    engine_type = AioEngine if ENGINE_CLIENT == "aio" else BlockingEngine
    check = engine_type.check

    def counted(engine: BlockingEngine | AioEngine, timeout_s: float) -> Deferred[str | None]:
        times.append(timeout_s)
        return check(engine, timeout_s)  # type: ignore[arg-type]  # its own

    monkeypatch.setattr(engine_type, "check", counted)
    # A busy machine takes its time; nothing here is about how long that is.
    monkeypatch.setattr(health, "MAX_AGE_S", 60.0)
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0)
    replies = await gatherResults([ensureDeferred(gateway.ask("GET", "/health")) for _ in range(50)])
    assert {reply.status for reply in replies} == {200}
    assert len(times) == 1
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_client_leaves_a_health_check(gateway: RunningGateway) -> None:
    """A client that leaves while the engine is asked does no harm to the next."""
    client = await connect(gateway.url, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    client.leave()
    reply = await gateway.ask("GET", "/health")
    assert reply.status == 200
