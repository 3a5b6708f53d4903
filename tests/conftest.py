"""What all tests share: isolation from the machine, a scripted engine, and a gateway in front of it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_twisted
from hypothesis import HealthCheck, settings

from brunix_twisted.runtime.imports import without_collecting
from isolation import PortGuard, isolate
from leftovers import MARKER, Leftovers, keep, new_marker, running
from preloaded import Preloaded

if TYPE_CHECKING:
    from gateways import RunningGateway

# Before anything else is imported, as many modules read the environment then, gRPC among them.
_MARKER = new_marker()
_HOME = isolate(_MARKER)

from scripted_engine import ScriptedEngine  # noqa: E402 - as said
from wheels import wheel as wheel  # noqa: E402, PLC0414 - a fixture, to be found by its name

# A shell ignores the first two for commands in the background, and nohup the third. The tests' processes would too.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


# Hypothesis would fail an example that a busy machine made slow.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_xdist_auto_num_workers() -> int:
    """Run twice as many tests at a time as there are processors: most of them wait most of the time."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", 2 * (os.cpu_count() or 1)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what is there before the first test, thousands of tests among it, out of every collection of garbage."""
    with without_collecting():
        return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Watch what the tests start, and to which ports they connect."""
    marker = _MARKER[MARKER]
    guard = PortGuard(lambda: [process.pid for process in running(marker)])
    guard.install()
    leftovers = Leftovers(Path(__file__).parent, marker, guard)
    leftovers.install()
    config.pluginmanager.register(leftovers, "leftovers")
    preloaded = Preloaded(keep)
    preloaded.install()
    config.add_cleanup(preloaded.close)


def pytest_unconfigure() -> None:
    _HOME.cleanup()


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    yield engine
    engine.stop()


@pytest_twisted.async_yield_fixture
async def gateway(engine: ScriptedEngine) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the scripted engine."""
    # Not earlier: it imports a reactor, and which is for pytest's --reactor to choose.
    from gateways import run_gateway, stop_gateway  # noqa: PLC0415 - as said

    running = await run_gateway(grpc_target=engine.target, drain_s=0.0)
    yield running
    await stop_gateway(running)
