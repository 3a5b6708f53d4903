"""The port that the engine's compose file publishes: both diagnoses notice it."""

from __future__ import annotations

import socket
from typing import cast

import pytest
import pytest_twisted
from twisted.internet import reactor

from brunix_twisted.app import check
from brunix_twisted.cli.doctor.engine_port import measure_published
from brunix_twisted.config.settings import Settings
from brunix_twisted.connect import engine_port
from brunix_twisted.connect.engine_port import published_target
from brunix_twisted.runtime.reactors import Reactor
from fake_reactor import LIMIT_S
from scripted_engine import ScriptedEngine
from twistd import free_port


@pytest.mark.parametrize(
    ("target", "published"),
    [
        ("localhost:50051", "localhost:50052"),
        ("dns:///engine.example:50051", "dns:///engine.example:50052"),
        ("[::1]:50051", "[::1]:50052"),
        ("localhost:50052", None),
        ("localhost:150051", None),
        ("localhost", None),
        (":50051", None),
        ("ipv4:10.0.0.1:50051,10.0.0.2:50051", None),
        ("unix:///run/engine:50051", None),
    ],
)
def test_the_published_port(target: str, published: str | None) -> None:
    """Only a single address with the port inside the container has another one outside."""
    assert published_target(target) == published


@pytest.mark.parametrize("running", [True, False], ids=["published", "nothing there"])
@pytest_twisted.ensureDeferred
async def test_check_names_the_published_port(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, *, running: bool
) -> None:
    """``--check`` says which target works if the container's port refuses and an engine answers at the other one."""
    target, published = f"127.0.0.1:{free_port()}", engine.target if running else f"127.0.0.1:{free_port()}"
    monkeypatch.setattr(check, "published_target", {target: published}.get)
    lines: list[str] = []
    monkeypatch.setattr(check, "report", lines.append)
    settings = Settings(grpc_target=target, grpc_connect_timeout_s=30.0)
    assert not await check._engine_works(cast("Reactor", reactor), settings, {})  # noqa: SLF001 - what it prints
    assert (f"  {engine_port.advice(published)}." in lines) is running


@pytest.mark.parametrize(
    ("container", "published", "host", "found"),
    [
        (False, True, "127.0.0.1", True),
        (False, True, "localhost", True),
        (True, True, "127.0.0.1", False),
        (False, False, "127.0.0.1", False),
        (False, True, "gateway.example", False),
    ],
    ids=["published", "published, by name", "both", "neither", "a gateway elsewhere"],
)
def test_doctor_tries_the_published_port(*, container: bool, published: bool, host: str, found: bool) -> None:
    """``brunix doctor`` names the published port only if it answers, the other does not, and the gateway is local."""
    sockets = [socket.create_server(("127.0.0.1", 0)) if listens else None for listens in (container, published)]
    try:
        ports = tuple(each.getsockname()[1] if each else free_port() for each in sockets)
        environment = {"BRUNIX_GRPC_TARGET": f"127.0.0.1:{ports[0]}"}
        told = measure_published(host, environment, LIMIT_S, (ports[0], ports[1]))
    finally:
        for each in sockets:
            if each:
                each.close()
    assert told == (f"127.0.0.1:{ports[1]}" if found else None)


def test_doctor_leaves_another_target_alone() -> None:
    """A gateway with a target of its own choice is not compared with the compose file."""
    assert measure_published("127.0.0.1", {"BRUNIX_GRPC_TARGET": "engine.example:9000"}, LIMIT_S) is None
