"""Endpoints whose ``listen`` takes its time, as those of plugins may: one port, one engine, and none after the stop."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory

from brunix_twisted.app import service as service_module
from brunix_twisted.app.service import GatewayService
from brunix_twisted.config.settings import Settings
from brunix_twisted.errors import StartError
from brunix_twisted.observability.metrics_endpoint import Exporter
from brunix_twisted.runtime.reactors import Reactor
from fake_reactor import LIMIT_S
from gateways import ENGINE_CLIENT
from isolation import CLEAN
from log_lines import LogLines, log_lines
from scripted_engine import ScriptedEngine
from several_processes import hurried, supervised
from twistd import TWISTD, free_port, get, twistd, wait_for_port


class LateEndpoint:
    """Listens, or refuses to, when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Factory] = []
        self.listening: Deferred[IListeningPort] = Deferred()
        self.opened: IListeningPort | None = None

    def listen(self, factory: Factory) -> Deferred[IListeningPort]:
        self.asked.append(factory)
        return self.listening

    async def open(self) -> IListeningPort:
        """Open the port, on which the factory is served from now on."""
        self.opened = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.asked[0])
        self.listening.callback(self.opened)
        return self.opened

    @property
    def is_open(self) -> bool:
        """Whether there is a port that is not closed or about to be."""
        return getattr(self.opened, "connected", False) and not getattr(self.opened, "disconnecting", False)

    @property
    def as_endpoint(self) -> IStreamServerEndpoint:
        return cast("IStreamServerEndpoint", self)


@pytest.fixture
def log() -> Iterator[LogLines]:
    with log_lines() as lines:
        yield lines
    assert lines.errors == []


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Keeps each engine that is made."""
    made: list[object] = []
    make = service_module._engine  # noqa: SLF001 - what makes them

    def counted(reactor: Reactor, settings: Settings) -> object:
        made.append(make(reactor, settings))
        return made[-1]

    monkeypatch.setattr(service_module, "_engine", counted)
    return made


def gateway_on(endpoint: LateEndpoint, engine: ScriptedEngine) -> GatewayService:
    settings = Settings(grpc_target=engine.target, drain_s=0.0, engine_client=cast("Any", ENGINE_CLIENT))
    return GatewayService(cast("Reactor", reactor), settings, endpoint.as_endpoint)


@pytest.mark.usefixtures("log")
@pytest_twisted.ensureDeferred
async def test_listens_once(engine: ScriptedEngine, engines: list[object]) -> None:
    """An endpoint that takes its time is asked once, for one engine, and the gateway is ready when it listens."""
    endpoint = LateEndpoint()
    service = gateway_on(endpoint, engine)
    service.privilegedStartService()
    service.startService()
    assert len(endpoint.asked) == len(engines) == 1
    assert not service.ready.called
    port = await endpoint.open()
    assert await service.ready == port.getHost()
    await service.stopService()
    assert not endpoint.is_open


@pytest.mark.usefixtures("log")
@pytest_twisted.ensureDeferred
async def test_stopped_before_it_listens(engine: ScriptedEngine, engines: list[object]) -> None:
    """A gateway that is stopped while its endpoint takes its time lets go of everything, and opens no port later."""
    endpoint = LateEndpoint()
    service = gateway_on(endpoint, engine)
    service.startService()
    closed: list[object] = []
    real = engines[0].close  # type: ignore[attr-defined]  # an Engine
    engines[0].close = lambda: closed.append(real())  # type: ignore[attr-defined]  # likewise
    await service.stopService()
    assert len(closed) == 1
    await endpoint.open()
    assert not endpoint.is_open
    assert not service.ready.called


@pytest.mark.usefixtures("log")
@pytest_twisted.ensureDeferred
async def test_refuses_late(engine: ScriptedEngine) -> None:
    """An endpoint that refuses after a while fails what waits for the gateway, with the setting to change."""
    endpoint = LateEndpoint()
    service = gateway_on(endpoint, engine)
    service.startService()
    endpoint.listening.errback(OSError("no certificate"))
    with pytest.raises(StartError, match=r"^twistd brunix: PROXY_LISTEN is 'tcp:.*': no certificate$"):
        await service.ready
    await service.stopService()


@pytest.mark.parametrize("how", ["raises", "fails"])
def test_refuses_at_once(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """An endpoint that refuses at once fails the start, whichever way it says so."""
    endpoint = LateEndpoint()

    def refuse(_: object) -> Deferred[IListeningPort]:
        if how == "raises":
            raise OSError("no certificate")
        endpoint.listening.errback(OSError("no certificate"))
        return endpoint.listening

    monkeypatch.setattr(endpoint, "listen", refuse)
    with pytest.raises(StartError, match=r"^twistd brunix: PROXY_LISTEN is 'tcp:.*': no certificate$"):
        gateway_on(endpoint, engine).startService()


@pytest.mark.usefixtures("log")
@pytest_twisted.ensureDeferred
async def test_the_metrics_stopped_before_they_listen() -> None:
    """The port of the metrics does not open after the gateway has stopped either."""
    endpoint = LateEndpoint()
    exporter = Exporter(endpoint.as_endpoint, "late:", lambda _: Deferred())
    exporter.privilegedStartService()
    exporter.startService()
    assert len(endpoint.asked) == 1
    await exporter.stopService()
    await endpoint.open()
    assert not endpoint.is_open
    assert exporter.port is None


# In processes of their own.

PLUGIN = """
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

log = Logger()


@implementer(IStreamServerEndpoint)
class Endpoint:
    def __init__(self, reactor, how):
        self.reactor, self.how = reactor, how

    def listen(self, factory):
        log.info("The endpoint is asked to listen")
        if self.how == "never":
            return Deferred()
        return deferLater(self.reactor, 0.05, self.go, factory)

    def go(self, factory):
        if self.how == "refuse":
            raise OSError("no certificate")
        return TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1").listen(factory)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class Parser:
    prefix = "late"

    def parseStreamServer(self, reactor, how="listen"):
        return Endpoint(reactor, how)


parser = Parser()
"""


@pytest.fixture
def late(tmp_path: Path) -> dict[str, str]:
    """The environment in which Twisted knows the endpoint ``late:``."""
    plugins = tmp_path / "installed" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "late_endpoint.py").write_text(PLUGIN, "utf-8")
    return {"PYTHONPATH": str(tmp_path / "installed")}


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
def test_serves(tmp_path: Path, engine: ScriptedEngine, late: dict[str, str], reactor: str) -> None:
    """A gateway on such an endpoint serves, is asked for once, and stops like any other."""
    with twistd(tmp_path, reactor=reactor, PROXY_LISTEN="late:", BRUNIX_GRPC_TARGET=engine.target, **late) as process:
        assert process.stdout is not None
        before = ""
        for line in process.stdout:
            before += line
            if found := re.search(r"Serving the model .* port=(\d+)", line):
                break
        else:
            raise AssertionError(before)
        assert before.count("The endpoint is asked to listen") == 1
        assert "Waiting for PROXY_LISTEN=late: to listen" in before
        assert get(int(found[1]), "/health")[0] == 200
        process.terminate()
        assert process.wait(LIMIT_S) == -signal.SIGTERM


@pytest.mark.parametrize("variable", ["PROXY_LISTEN", "PROXY_METRICS_LISTEN"])
def test_a_late_refusal_ends_the_gateway(tmp_path: Path, late: dict[str, str], variable: str) -> None:
    """A gateway that finds out late that it cannot listen says so and ends with status 1, so that it is restarted."""
    environment = {"PROXY_LISTEN": "tcp:0:interface=127.0.0.1", variable: "late:refuse"} | late
    done = subprocess.run(  # noqa: S603 - this environment's own twistd
        [TWISTD, "--nodaemon", "--pidfile=gateway.pid", "brunix"],
        cwd=tmp_path,
        env=CLEAN | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert f"twistd brunix: {variable} is 'late:refuse': no certificate" in done.stdout
    assert "Server Shut Down." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "gateway.pid").exists()


def test_stopped_while_it_waits(tmp_path: Path, late: dict[str, str]) -> None:
    """A gateway whose endpoint never listens can be stopped."""
    with twistd(tmp_path, PROXY_LISTEN="late:never", **late) as process:
        assert process.stdout is not None
        assert any("Waiting for PROXY_LISTEN" in line for line in process.stdout)
        process.terminate()
        output, _ = process.communicate(timeout=LIMIT_S)
        assert "Traceback" not in output
        assert process.returncode == -signal.SIGTERM


def test_several_processes_serve(tmp_path: Path, engine: ScriptedEngine, late: dict[str, str]) -> None:
    """Processes share the socket of such an endpoint, too."""
    with supervised(tmp_path, PROXY_LISTEN="late:", BRUNIX_GRPC_TARGET=engine.target, **late) as gateway:
        port = int(gateway.until(r"Serving the model .* port=(\d+)")[1])
        assert get(port, "/health")[0] == 200
        assert gateway.stop() == -signal.SIGTERM
        assert "Traceback" not in gateway.rest()
        # The supervisor, and each of its processes.
        assert len(gateway.lines("The endpoint is asked to listen")) == 3


def test_several_processes_cannot_listen(tmp_path: Path, late: dict[str, str]) -> None:
    """A supervisor that cannot listen ends with status 1, and says why, however late that is known."""
    with supervised(tmp_path, PROXY_LISTEN="late:refuse", **late) as gateway:
        assert gateway.process.wait(LIMIT_S) == 1
        assert "twistd brunix: PROXY_LISTEN is 'late:refuse': no certificate" in gateway.rest()
        assert not gateway.lines("Traceback")


def test_several_processes_wait_in_vain(tmp_path: Path, late: dict[str, str]) -> None:
    """A supervisor whose endpoint never listens gives up, and names the setting."""
    with hurried(tmp_path, 0.1, PROXY_LISTEN="late:never", **late) as gateway:
        assert gateway.process.wait(LIMIT_S) == 1
        assert "PROXY_LISTEN is 'late:never': did not listen within 0.1 s" in gateway.rest()


def test_several_processes_are_stopped_while_they_wait(tmp_path: Path, late: dict[str, str]) -> None:
    """A supervisor whose endpoint never listens can be stopped."""
    with supervised(tmp_path, PROXY_LISTEN="late:never", **late) as gateway:
        gateway.until("Waiting for PROXY_LISTEN")
        assert gateway.stop() == -signal.SIGTERM
        assert "Traceback" not in gateway.rest()


def test_check(tmp_path: Path, engine: ScriptedEngine, late: dict[str, str]) -> None:
    """``--check`` waits for such an endpoint, and reports that it refuses."""
    found: dict[str, subprocess.CompletedProcess[str]] = {}
    for how in ("listen", "refuse"):
        found[how] = subprocess.run(  # noqa: S603 - this environment's own twistd
            [TWISTD, "brunix", "--check", f"--listen=late:{how}"],
            cwd=tmp_path,
            env=CLEAN | {"BRUNIX_GRPC_TARGET": engine.target} | late,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert found["listen"].returncode == 0
    assert "listening: late:listen is free" in found["listen"].stdout
    assert found["refuse"].returncode == 1
    assert "listening: PROXY_LISTEN is 'late:refuse': no certificate" in found["refuse"].stdout


def test_the_metrics_are_served(tmp_path: Path, late: dict[str, str]) -> None:
    """The metrics may have such an endpoint, too."""
    listen = f"tcp:{free_port()}:interface=127.0.0.1"
    with twistd(tmp_path, PROXY_LISTEN=listen, PROXY_METRICS_LISTEN="late:", **late) as process:
        wait_for_port(process)
        assert process.stdout is not None
        found = next(filter(None, (re.search(r"MetricsSite starting on (\d+)", line) for line in process.stdout)))
        with urlopen(f"http://127.0.0.1:{found[1]}/metrics", timeout=LIMIT_S) as response:
            assert b"brunix_gateway_requests" in response.read()
