"""What the tests of the running gateway share: a scripted engine, and a gateway in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_twisted

from gateways import RunningGateway, run_gateway, stop_gateway
from scripted_engine import ScriptedEngine


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    yield engine
    engine.stop()


@pytest_twisted.async_yield_fixture
async def gateway(engine: ScriptedEngine) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the scripted engine."""
    running = await run_gateway(grpc_target=engine.target, drain_s=0.0)
    yield running
    await stop_gateway(running)
