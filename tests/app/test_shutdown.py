"""A shutdown runs every step, whichever of them fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from brunix_twisted.app import service as service_module
from brunix_twisted.app.systemd import Notifier, NotifyingService
from brunix_twisted.config.settings import Settings
from brunix_twisted.processes.shared_sockets import BindOnlyReactor
from brunix_twisted.processes.supervisor import Supervisor
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.runtime.shutdown import run_steps
from brunix_twisted.tap import _Gateway
from fake_reactor import LIMIT_S
from gateways import run_gateway
from log_lines import LogLines, log_lines
from scripted_engine import ScriptedEngine

BROKEN = RuntimeError("broken on purpose")


def broken(*_: object) -> None:
    raise BROKEN


@pytest.fixture
def log() -> Any:  # noqa: ANN401 - a fixture that yields LogLines
    with log_lines() as lines:
        yield lines


FAILURES: dict[str, Callable[[], object]] = {
    "an exception": broken,
    "a failed Deferred": lambda: fail(BROKEN),
    # It is no Exception, and aio's channel may end with it.
    "asyncio's cancellation": lambda: fail(asyncio.CancelledError("broken on purpose")),
    "an exit": lambda: fail(SystemExit("broken on purpose")),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest_twisted.ensureDeferred
async def test_a_failed_step_does_not_stop_the_others(log: LogLines, failure: Callable[[], object]) -> None:
    """A step that fails is logged, and the steps after it run, each after the one before it has ended."""
    ran: list[str] = []
    slow: Deferred[None] = Deferred()

    def begin() -> Deferred[None]:
        ran.append("slow")
        return slow

    steps = Deferred.fromCoroutine(
        run_steps(("close the port", failure), ("drain", begin), ("close the channel", lambda: ran.append("last")))
    )
    assert ran == ["slow"]
    slow.callback(None)
    await steps
    assert ran == ["slow", "last"]
    (line,) = log.errors
    assert line.startswith("Stopping: could not close the port; continuing with the next step\n")
    assert "broken on purpose" in line


STEPS = {
    "port": ("port", "stopListening"),
    "arriving": ("_site", "drain_incoming"),
    "drain": ("_completion.in_flight", "drain"),
    "idle": ("_admission", "when_idle"),
    "connections": ("_site", "close"),
    "metrics": ("metrics", "stop"),
    "engine": ("_engine", "close"),
    "tracing": ("_tracing", "stop"),
}


@pytest.mark.parametrize("broken_step", STEPS)
@pytest_twisted.ensureDeferred
async def test_the_gateway_stops_although_a_step_fails(
    engine: ScriptedEngine, log: LogLines, monkeypatch: pytest.MonkeyPatch, broken_step: str
) -> None:
    """Whichever step of a stop fails, the others run and the stop ends: SIGTERM always completes."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    gateway = await run_gateway(
        grpc_target=engine.target, drain_s=0.0, metrics_listen="tcp:0:interface=127.0.0.1", traces="otlp"
    )
    ran: list[str] = []
    undo: list[Callable[[], object]] = []
    for name, (owner_name, method) in STEPS.items():
        owner = attrgetter(owner_name)(gateway.service)
        real = getattr(owner, method)

        def step(*arguments: object, name: str = name, real: Callable[..., object] = real) -> object:
            ran.append(name)
            if name == broken_step:
                undo.append(lambda: real(*arguments))
                raise BROKEN
            return real(*arguments)

        monkeypatch.setattr(owner, method, step)
    await gateway.service.stopService()
    assert ran == list(STEPS)
    (line,) = log.errors
    assert "broken on purpose" in line
    # What the test has kept from ending.
    for clean_up in undo:
        await Deferred.fromCoroutine(run_steps(("clean up", clean_up)))


@pytest_twisted.ensureDeferred
async def test_the_gateway_stops_although_a_slot_is_never_free(
    engine: ScriptedEngine, log: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that has lost count of an engine call still ends when it is asked to."""
    monkeypatch.setattr(service_module, "_CANCELLED_S", 0.01)
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0)
    # Kept: a call that nothing can end any more is garbage, and when it is collected its place is free.
    never: Deferred[None] = Deferred()
    gateway.service._admission.run(b"one", lambda: never)  # noqa: SLF001 - nothing else has a call that never ends
    await gateway.service.stopService().addTimeout(LIMIT_S, cast("Any", reactor))
    (line,) = log.errors
    assert line.startswith("Stopping: could not await the engine calls; continuing with the next step\n")
    assert not never.called


@pytest_twisted.ensureDeferred
async def test_the_gateway_stops_although_its_port_does_not(
    engine: ScriptedEngine, log: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin's port that never says that it is closed does not keep the gateway from ending."""
    monkeypatch.setattr(service_module, "_CLOSED_S", 0.01)
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0)
    port = gateway.service.port
    with monkeypatch.context() as patch:
        patch.setattr(port, "stopListening", Deferred)
        await gateway.service.stopService().addTimeout(LIMIT_S, cast("Any", reactor))
    (line,) = log.errors
    assert line.startswith("Stopping: could not close the port of PROXY_LISTEN; continuing with the next step\n")
    await cast("Any", port.stopListening())


class Child(Service):
    """Keeps when it was stopped."""

    def __init__(self, stopped: list[str], name: str, stop: Callable[[], object]) -> None:
        self._stopped = stopped
        self._name = name
        self._stop = stop

    def stopService(self) -> Any:  # noqa: ANN401 - as in IService
        self._stopped.append(self._name)
        return self._stop()


@pytest_twisted.ensureDeferred
async def test_every_service_stops(log: LogLines) -> None:
    """If the gateway fails to stop, the port of the metrics is closed all the same."""
    stopped: list[str] = []
    gateway = _Gateway(None)
    for name, stop in (("metrics", lambda: succeed(None)), ("gateway", broken)):
        Child(stopped, name, stop).setServiceParent(gateway)
    await gateway.stopService()
    assert stopped == ["gateway", "metrics"]
    (line,) = log.errors
    assert line.startswith("Stopping: could not stop Child; continuing with the next step\n")


def test_the_watchdog_ends_although_the_gateway_fails_to_stop(log: LogLines) -> None:
    """A gateway whose stop failed sends systemd no more keep-alives."""
    told: list[dict[str, object]] = []
    clock = Clock()
    ready: Deferred[IAddress] = Deferred()
    inner = SimpleNamespace(ready=ready, startService=lambda: None, stopService=broken)
    notifier = cast("Notifier", SimpleNamespace(notify=lambda **more: told.append(more), watchdog_s=30))
    service = NotifyingService(cast("Reactor", clock), notifier, inner, lambda: succeed("the engine was healthy"), 35)
    service.startService()
    ready.callback(IPv4Address("TCP", "127.0.0.1", 8000))
    stopped = service.stopService()
    assert stopped.called
    assert not clock.getDelayedCalls()
    assert len(log.errors) == 1


def test_systemd_cannot_be_told(log: LogLines) -> None:
    """A gateway that cannot tell systemd of its end still ends."""
    stopped: list[str] = []
    inner = SimpleNamespace(ready=Deferred(), startService=lambda: None, stopService=lambda: stopped.append("inner"))
    notifier = cast("Notifier", SimpleNamespace(notify=broken, watchdog_s=None))
    service = NotifyingService(cast("Reactor", Clock()), notifier, inner, lambda: succeed(""), 35)
    assert service.stopService().called
    assert stopped == ["inner"]
    assert len(log.errors) == 1


class FakeProcess:
    """One of the supervisor's, whose end does not come by itself."""

    def __init__(self, number: int, done: list[str], fault: Exception | None = None) -> None:
        self.number = number
        self.pid = 1000 + number
        self._done = done
        self._fault = fault

    def stop(self) -> None:
        self._done.append(f"stop {self.number}")
        if self._fault is not None:
            raise self._fault

    def kill(self) -> None:
        self._done.append(f"kill {self.number}")
        if self._fault is not None:
            raise self._fault


@pytest.mark.usefixtures("log")
def test_every_process_is_asked_to_leave_and_killed() -> None:
    """A process that cannot be told or killed does not save the others, and the stop ends even if it never does."""
    clock = Clock()
    done: list[str] = []
    binding = BindOnlyReactor(clock)
    endpoint = SimpleNamespace(listen=lambda _: Deferred())
    supervisor = Supervisor(binding, Settings(processes=2, drain_s=5.0), {}, cast("Any", endpoint))
    supervisor._listener.start(cast("Any", None), lambda _: None)  # noqa: SLF001 - a supervisor that has started
    processes = {0: FakeProcess(0, done, OSError("broken on purpose")), 1: FakeProcess(1, done)}
    supervisor._running = cast("Any", processes)  # noqa: SLF001 - likewise
    stopped = supervisor.stopService()
    assert done == ["stop 0", "stop 1"]
    clock.advance(13)
    assert done[2:] == ["kill 0", "kill 1"]
    assert not stopped.called
    clock.advance(5)
    assert stopped.called
    assert not clock.getDelayedCalls()


async def test_a_connection_that_waits_to_be_accepted(engine: ScriptedEngine) -> None:
    """A client whose connection the system has accepted, and the gateway has not, would be reset by a restart."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=float(LIMIT_S))
    host = cast("IPv4Address", gateway.service.port.getHost())
    body = json.dumps({"model": "brunix", "prompt": "one", "stream": False})
    with ExitStack() as stack:
        # The reactor does not run meanwhile.
        clients = [HTTPConnection("127.0.0.1", host.port, timeout=LIMIT_S) for _ in range(10)]
        for client in clients:
            stack.callback(client.close)
            client.request("POST", "/api/generate", body)
        stopping = gateway.service.stopService()
        # These arrive until Twisted closes the port.
        late = HTTPConnection("127.0.0.1", host.port, timeout=LIMIT_S)
        stack.callback(late.close)
        late.request("POST", "/api/generate", body)
        for client in (*clients, late):
            response = await deferToThread(client.getresponse)
            assert response.status == 200
            assert json.loads(await deferToThread(response.read))["response"] == "one "
        await stopping


async def test_a_request_over_an_idle_connection(engine: ScriptedEngine) -> None:
    """A proxy that sends a request over a connection it keeps open would lose it to a gateway that stops."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=float(LIMIT_S))
    client = HTTPConnection("127.0.0.1", cast("IPv4Address", gateway.service.port.getHost()).port, timeout=LIMIT_S)
    body = json.dumps({"model": "brunix", "prompt": "one", "stream": False})

    def ask() -> tuple[int, str | None]:
        client.request("POST", "/api/generate", body)
        response = client.getresponse()
        response.read()
        return response.status, response.headers["Connection"]

    assert await deferToThread(ask) == (200, None)
    stopping = gateway.service.stopService()
    assert await deferToThread(ask) == (503, "close")
    client.close()
    await stopping
