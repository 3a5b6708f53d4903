"""The units of deploy/systemd, and what they promise of a restart."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Connection

from brunix_twisted.config.settings import Settings
from fake_reactor import LIMIT_S
from gateways import run_gateway
from isolation import CLEAN
from paths import ROOT
from raw_http import LAST, LIVE, replies
from received import Received, connect
from scripted_engine import ScriptedEngine
from stream_clients import until
from supervised import Load, Told, ask, supervised
from twistd import TWISTD

UNITS = ROOT / "deploy" / "systemd"
RESTARTS: Final = 4


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(str(tmp_path / "notify"))
    yield told
    told.close()


# The units.


def needs(program: str) -> str:
    """Find a program of systemd's, or skip the test."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed: apt-get install systemd")
    return found


def values(unit: str, name: str) -> list[str]:
    """Read a setting of a unit, as often as it stands there."""
    return re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text("utf-8"), re.MULTILINE)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """A line of the units would be ignored, and only the journal would say so."""
    analyze = needs("systemd-analyze")
    for unit in UNITS.glob("brunix-gateway.*"):
        text = unit.read_text("utf-8")
        # The one thing that is not here.
        (tmp_path / unit.name).write_text(text.replace("/opt/brunix/.venv/bin/twistd", str(TWISTD)), "utf-8")
    done = subprocess.run(  # noqa: S603 - as found
        [analyze, "verify", *tmp_path.glob("brunix-gateway.*")], capture_output=True, text=True, check=False
    )
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_exposure() -> None:
    """A gateway that was broken into would be free to do more on the machine than the page says."""
    analyze = needs("systemd-analyze")
    done = subprocess.run(  # noqa: S603 - as found
        [analyze, "security", "--offline=true", "--no-pager", UNITS / "brunix-gateway.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for brunix-gateway.service: ([0-9.]+) ", done.stdout)
    assert found, done.stdout + done.stderr
    page = (ROOT / "docs" / "systemd.md").read_text("utf-8")
    promised = re.search(r"exposure\s+level\s+of\s+([0-9.]+)", page)
    assert promised
    # Other releases of systemd look at more or fewer things.
    assert float(found[1]) <= float(promised[1]) + 0.3


def test_the_drain_fits_the_stop() -> None:
    """A gateway would be killed that lets its answers end for as long as it may."""
    (stop_s,) = values("brunix-gateway.service", "TimeoutStopSec")
    assert int(stop_s) >= Settings().drain_s + 10


def test_the_port_is_the_usual_one() -> None:
    """A client that finds a gateway started by hand would not find the one of the unit."""
    (listen,) = values("brunix-gateway.socket", "ListenStream")
    host, _, port = listen.partition(":")
    assert Settings().listen == f"tcp:{port}:interface={host}"


def test_the_environment_file() -> None:
    """Somebody who takes the example as it is would get another gateway than the default one."""
    lines = (UNITS / "gateway.env").read_text("utf-8").splitlines()
    settings = [line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line)]
    assert len(settings) > 2
    assert Settings.read(dict(settings), {}) == Settings()


# A socket that is handed over.


def test_systemd_socket_activate(tmp_path: Path, engine: ScriptedEngine) -> None:
    """A gateway would not take the socket that systemd listens on for it."""
    activate = needs("systemd-socket-activate")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(  # noqa: S603 - as found
        [activate, f"--listen=127.0.0.1:{port}", "--fdname=gateway"]
        + [f"--setenv={name}" for name in ("PROXY_LISTEN", "BRUNIX_GRPC_TARGET", "PATH")]
        + [str(TWISTD), "--nodaemon", "--pidfile=", "brunix"],
        cwd=tmp_path,
        env=CLEAN | {"PROXY_LISTEN": "systemd:domain=INET:name=gateway", "BRUNIX_GRPC_TARGET": engine.target},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert any("Listening on" in line for line in process.stdout)
            # Nobody runs yet: the question starts the gateway, and waits for it.
            assert ask(port) == "answered"
            process.terminate()
            process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGTERM


def test_no_socket_was_handed_over(tmp_path: Path) -> None:
    """An operator who starts the unit's command by hand would read of an index that is out of range."""
    done = subprocess.run(  # noqa: S603 - this environment's own twistd
        [TWISTD, "--nodaemon", "--pidfile=", "brunix"],
        cwd=tmp_path,
        env=CLEAN | {"PROXY_LISTEN": "systemd:domain=INET:index=0"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("twistd brunix: PROXY_LISTEN is 'systemd:domain=INET:index=0'; allowed: ")
    assert line.endswith("(systemd did not pass this socket: start the .socket unit)")


def test_restarts_under_load(tmp_path: Path, told: Told, engine: ScriptedEngine) -> None:
    """Somebody who asks while the gateway is restarted would be refused, or cut off, and not only wait a little."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server, Load(server.getsockname()[1]) as load:
        for _ in range(RESTARTS):
            with supervised(tmp_path, told, server, BRUNIX_GRPC_TARGET=engine.target) as process:
                told.until("READY")
                load.until_more(20)
                process.terminate()
                output, _ = process.communicate(timeout=LIMIT_S)
                assert process.returncode == -signal.SIGTERM, output
        # Whoever asked last is answered too.
        with supervised(tmp_path, told, server, BRUNIX_GRPC_TARGET=engine.target):
            load.end()
    assert set(load.outcomes) == {"answered"}
    assert load.outcomes.total() >= 20 * RESTARTS


def test_the_port_waits_for_the_next_gateway(tmp_path: Path, told: Told, engine: ScriptedEngine) -> None:
    """A client that comes between two gateways would be refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with supervised(tmp_path, told, server, BRUNIX_GRPC_TARGET=engine.target) as process:
            told.until("READY")
            process.terminate()
            process.wait(LIMIT_S)
        port = server.getsockname()[1]
        with closing(socket.create_connection(("127.0.0.1", port), LIMIT_S)) as client:
            client.sendall(LAST)
            with supervised(tmp_path, told, server, BRUNIX_GRPC_TARGET=engine.target):
                received = b""
                while data := client.recv(65536):
                    received += data
    assert [reply.status for reply in replies(received)] == [200]


def test_a_unix_socket_stays_as_it_is(tmp_path: Path, told: Told, engine: ScriptedEngine) -> None:
    """A restart would take the socket's file away from systemd, or open it to everybody on the machine."""
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o600)
        server.listen()
        for _ in range(2):
            with supervised(tmp_path, told, server, "UNIX", BRUNIX_GRPC_TARGET=engine.target) as process:
                assert f"Serving on {path};" in told.until("READY")["STATUS"]
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(LIMIT_S)
                    client.connect(str(path))
                    client.sendall(LAST)
                    received = b""
                    while data := client.recv(65536):
                        received += data
                assert [reply.status for reply in replies(received)] == [200]
                process.terminate()
                process.wait(LIMIT_S)
            assert path.stat().st_mode & 0o777 == 0o600


# Whoever was accepted before the stop.


def say(received: Received, data: bytes) -> None:
    """Send more."""
    cast("Connection", received.transport).write(data)


@pytest.mark.parametrize("begun", [b"", LIVE[:10], LIVE[:-2]], ids=["nothing", "half a line", "half a head"])
@pytest_twisted.ensureDeferred
async def test_a_request_that_is_on_its_way(engine: ScriptedEngine, begun: bytes) -> None:
    """A client that had connected when the gateway was stopped would be reset, and not answered."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=LIMIT_S)
    site = gateway.service._site  # noqa: SLF001 - that somebody has connected shows in nothing else
    received = await connect(gateway.url, begun)
    await until(lambda: site.connections)
    (channel,) = site.connections
    await until(lambda: not begun or channel._buffer or not channel._is_new)  # noqa: SLF001 - nor that it has begun
    stopping = gateway.service.stopService()
    await until(lambda: site.stopping)
    assert not stopping.called
    say(received, LIVE[len(begun) :])
    await stopping
    await received.ended
    (reply,) = replies(received.data)
    assert reply.status == 200
    assert reply.headers["connection"] == "close"


@pytest_twisted.ensureDeferred
async def test_a_question_that_is_on_its_way(engine: ScriptedEngine) -> None:
    """A question whose connection was accepted just before the stop would be turned away."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=LIMIT_S)
    site = gateway.service._site  # noqa: SLF001 - as above
    received = await connect(gateway.url, b"")
    await until(lambda: site.connections)
    stopping = gateway.service.stopService()
    await until(lambda: site.stopping)
    body = b'{"model": "brunix", "prompt": "one two", "stream": false}'
    head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    say(received, head % len(body) + body)
    await stopping
    await received.ended
    (reply,) = replies(received.data)
    assert (reply.status, reply.json()["response"]) == (200, "one two ")


@pytest_twisted.ensureDeferred
async def test_a_request_that_never_comes(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that connects and says nothing would keep the gateway from stopping."""
    monkeypatch.setattr("brunix_twisted.app.service._ARRIVAL_S", 0.05)
    gateway = await run_gateway(grpc_target=engine.target, drain_s=LIMIT_S)
    received = await connect(gateway.url, b"")
    await until(lambda: gateway.service._site.connections)  # noqa: SLF001 - as above
    await gateway.service.stopService()
    await received.ended
    assert replies(received.data) == []


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_is_not_waited_for(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A health check that only connects would put off each stop."""
    monkeypatch.setattr("brunix_twisted.app.service._ARRIVAL_S", 2 * LIMIT_S)
    gateway = await run_gateway(grpc_target=engine.target, drain_s=2 * LIMIT_S)
    site = gateway.service._site  # noqa: SLF001 - as above
    received = await connect(gateway.url, b"")
    await until(lambda: site.connections)
    stopping = gateway.service.stopService()
    await until(lambda: site.stopping)
    received.leave()
    await stopping.addTimeout(LIMIT_S, cast("IReactorTime", reactor))


@pytest_twisted.ensureDeferred
async def test_an_idle_connection_is_not_waited_for(engine: ScriptedEngine) -> None:
    """A client that keeps its connection for a next question would put off each stop by seconds."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=LIMIT_S)
    received = await connect(gateway.url, LIVE)
    await until(lambda: received.data)
    (channel,) = gateway.service._site.connections  # noqa: SLF001 - as above
    await until(lambda: not channel.requests)
    assert not channel.has_request_in_flight
    await gateway.service.stopService()
    await received.ended
