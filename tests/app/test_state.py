"""The gateway with its state: it answers with or without it, and reports which."""

# ruff: noqa: ASYNC240 - files of a test, which take no time

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from brunix_twisted.app.state import State
from brunix_twisted.config.rules import SettingError
from brunix_twisted.config.settings import Settings
from brunix_twisted.config.state_address import StateAddress
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import selection
from brunix_twisted.state.memory import MemoryStore
from brunix_twisted.state.selection import StateSetup, check_state_package, new_store
from brunix_twisted.state.sqlite import SqliteStore
from gateways import RunningGateway, run_gateway, stop_gateway
from redis_servers import redis_server
from scripted_engine import ScriptedEngine


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """What is logged."""
    logged: list[LogEvent] = []
    observer = cast("ILogObserver", logged.append)
    globalLogPublisher.addObserver(observer)
    yield logged
    globalLogPublisher.removeObserver(observer)


async def run(engine: ScriptedEngine, path: Path) -> RunningGateway:
    return await run_gateway(grpc_target=engine.target, drain_s=0.0, state=StateAddress("sqlite", path=str(path)))


async def test_a_database(engine: ScriptedEngine, tmp_path: Path) -> None:
    """A gateway with a state database reports that it works, and leaves the database in order."""
    path = tmp_path / "state.sqlite"
    gateway = await run(engine, path)
    health = await gateway.ask("GET", "/health")
    assert (health.status, health.json()["status"], health.json()["state"]) == (200, "ok", "ok")
    await stop_gateway(gateway)
    # The last to close the database removes its log.
    assert sorted(each.name for each in tmp_path.iterdir()) == ["state.sqlite", "state.sqlite.secret"]


async def test_a_state_that_cannot_be_used(engine: ScriptedEngine, tmp_path: Path, events: list[LogEvent]) -> None:
    """Without its state the gateway is healthy and answers, and the log says why."""
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database " * 1000)
    gateway = await run(engine, path)
    health = await gateway.ask("GET", "/health")
    reply = await gateway.ask("POST", "/api/generate", json={"model": "brunix", "prompt": "one", "stream": False})
    await stop_gateway(gateway)
    assert (health.status, health.json()["status"], health.json()["state"]) == (200, "ok", "unavailable")
    # Clients may ask /health, and paths are not for them.
    assert str(tmp_path) not in health.body.decode()
    assert (reply.status, reply.json()["response"]) == (200, "one ")
    (error,) = {
        str(event["reason"]) for event in events if event.get("log_namespace") == "brunix.gateway" and "reason" in event
    }
    assert error.startswith(f"The state database {path} is not a database.")


async def test_redis(engine: ScriptedEngine, tmp_path: Path, events: list[LogEvent]) -> None:
    """A gateway whose Redis dies answers, reports it to operators, and uses Redis again when it returns."""
    with redis_server(tmp_path) as server:
        gateway = await run_gateway(
            grpc_target=engine.target,
            drain_s=0.0,
            state=StateAddress("redis", url=server.url()),
            state_secret=64 * "a",
            metrics_listen="tcp:0:interface=127.0.0.1",
        )

        async def is_state(wanted: str, up: float) -> bool:
            health = await gateway.ask("GET", "/health")
            assert (health.status, health.json()["status"]) == (200, "ok")
            reply = await gateway.ask("POST", "/api/generate", json={"model": "brunix", "prompt": "one"})
            assert reply.status == 200
            assert gateway.service.metrics is not None
            return (
                health.json()["state"] == wanted
                and f"brunix_gateway_state_up {up}" in gateway.service.metrics.text().splitlines()
            )

        while not await is_state("ok", 1.0):
            pass
        server.kill()
        while not await is_state("unavailable", 0.0):
            pass
        server.start()
        while not await is_state("ok", 1.0):
            pass
        await stop_gateway(gateway)
    (reason,) = {
        str(event["reason"]) for event in events if "The state store does not work" in str(event["log_format"])
    }
    assert reason.startswith("redis://127.0.0.1:")


async def test_in_memory(gateway: RunningGateway) -> None:
    """A gateway without a shared state reports that it works."""
    assert (await gateway.ask("GET", "/health")).json()["state"] == "ok"


@pytest.mark.parametrize(
    ("settings", "folder", "kind"),
    [
        (Settings(), None, MemoryStore),
        (Settings(state=StateAddress("memory"), processes=2), None, MemoryStore),
        (Settings(processes=2), "folder", SqliteStore),
        # The folder could not be created.
        (Settings(processes=2), None, MemoryStore),
        (Settings(state=StateAddress("sqlite", path="state.sqlite")), None, SqliteStore),
    ],
)
def test_selection(settings: Settings, folder: str | None, kind: type) -> None:
    """The settings select the store."""
    assert isinstance(new_store(cast("Reactor", reactor), settings, StateSetup("", folder)), kind)


def test_keys(tmp_path: Path) -> None:
    """Conversations are found after a restart, and with a given secret by all gateways that have it."""

    def key(path: str = "", secret: str | None = None) -> bytes:
        address = StateAddress("sqlite", path=str(tmp_path / path)) if path else StateAddress("memory")
        return State(cast("Reactor", reactor), Settings(state=address, state_secret=secret), lambda: None).key

    assert key("one") == key("one") != key("two")
    assert key() != key()
    assert key(secret=32 * "x") == key("one", 32 * "x") != key(secret=32 * "y")


def test_a_secret_that_cannot_be_stored(tmp_path: Path, events: list[LogEvent]) -> None:
    """A gateway whose secret cannot be stored starts, with one that lasts as long as it runs."""
    path = tmp_path / "state.sqlite"
    path.with_name("state.sqlite.secret").write_text("short")
    settings = Settings(state=StateAddress("sqlite", path=str(path)))
    assert len(State(cast("Reactor", reactor), settings, lambda: None).key) == 32
    assert ["contains no secret" in str(event["error"]) for event in events] == [True]


def test_redis_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, and does not show the password."""

    def missing(name: str) -> None:
        raise ImportError(name=name)

    monkeypatch.setattr(selection, "import_module", missing)
    settings = Settings(state=StateAddress("redis", url="redis://:hush@host"), state_secret=32 * "x")
    with pytest.raises(SettingError) as refusal:
        check_state_package(settings)
    assert "pip install 'brunix-twisted[redis]'" in str(refusal.value)
    assert "hush" not in str(refusal.value)


async def test_two_gateways(engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversations that alternate between two gateways with one Redis keep their sessions, and no two share one."""
    # A busy machine can take longer than a gateway waits.
    monkeypatch.setattr("brunix_twisted.state.guarded.CALL_S", 30.0)
    with redis_server(tmp_path) as server:
        gateways = [
            await run_gateway(
                grpc_target=engine.target,
                drain_s=0.0,
                state=StateAddress("redis", url=server.url()),
                state_secret=64 * "a",
            )
            for _ in range(2)
        ]

        async def converse(name: str) -> list[str]:
            messages: list[dict[str, str]] = []
            found = []
            for turn in range(4):
                messages.append({"role": "user", "content": f"{name} turn {turn}"})
                body = {"model": "brunix", "messages": messages}
                reply = await gateways[turn % 2].ask("POST", "/v1/chat/completions", json=body)
                assert reply.status == 200
                found.append(reply.headers["x-brunix-session"])
                messages.append(reply.json()["choices"][0]["message"])
            return found

        conversations = [ensureDeferred(converse(f"conversation {number}")) for number in range(20)]
        found = [await conversation for conversation in conversations]
        for gateway in gateways:
            await stop_gateway(gateway)
    assert found == 20 * [["new", "found", "found", "found"]]
    names_by_session: dict[str, set[str]] = {}
    for call in engine.calls:
        names_by_session.setdefault(call.request.session_id, set()).add(call.request.query.partition(" turn ")[0])
    assert len(names_by_session) == 20
    assert all(len(names) == 1 for names in names_by_session.values())
