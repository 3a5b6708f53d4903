"""Connections that nobody else can read: to the engine and from the clients, with certificates made here."""

from __future__ import annotations

import queue
import ssl
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Final

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from asking import UnixConnection, ask
from brunix_twisted import errors
from brunix_twisted.config.rules import SettingError
from brunix_twisted.config.settings import Settings
from brunix_twisted.engine import Tls
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Question
from certificates import Authority, Party
from engine_clients import CLIENTS
from fake_reactor import LIMIT_S
from scripted_engine import ScriptedEngine
from twistd import twistd, wait_for_port

EVERYTHING: Final = ("CA", "CERT", "KEY", "NAME")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """An authority that nobody was told to trust."""
    return Authority(tmp_path, "stranger")


Start = Callable[..., ScriptedEngine]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines that take only TLS."""
    running: list[ScriptedEngine] = []

    def start(party: Party, clients: Authority | None = None) -> ScriptedEngine:
        roots = None if clients is None else clients.party.certificate.read_bytes()
        credentials = grpc.ssl_server_credentials([party.pair], roots, clients is not None)
        running.append(ScriptedEngine("127.0.0.1:0", credentials=credentials))
        return running[-1]

    yield start
    for engine in running:
        engine.stop()


def answer(target: str, tls: Tls | None, kind: str) -> list[str]:
    """Ask an engine, and close the connection."""
    client = CLIENTS[kind](target, LIMIT_S, tls)
    said: list[str] = []

    def sink(text: str) -> bool:
        said.append(text)
        return True

    try:
        client.call(Question(query="hello", session_id="session", request_id="request", stream=True)).run(sink)
        told: queue.Queue[str | None] = queue.Queue()
        client.check(LIMIT_S, told.put)
        assert told.get(timeout=LIMIT_S) is None
    finally:
        client.close()
    return said


def expect_no_connection(target: str, tls: Tls | None) -> None:
    """Hold that the two do not talk to each other."""
    for kind in CLIENTS:
        with pytest.raises(GatewayError) as refusal:
            answer(target, tls, kind)
        assert refusal.value.kind is errors.ENGINE_UNAVAILABLE


def expect_connection(target: str, tls: Tls | None) -> None:
    """Hold that the two do talk to each other, whichever client the gateway uses."""
    for kind in CLIENTS:
        assert answer(target, tls, kind) == ["hello "]


# To the engine.


def test_tls_to_the_engine(start: Start, authority: Authority) -> None:
    """Questions and answers cross a network that others can read, or do not cross it at all."""
    engine = start(authority.sign("127.0.0.1"))
    expect_connection(f"127.0.0.1:{engine.port}", Tls(str(authority.party.certificate)))


def test_an_engine_without_tls(engine: ScriptedEngine, authority: Authority) -> None:
    """A gateway that was told to use TLS speaks to an engine that does not, for all to read."""
    expect_no_connection(f"localhost:{engine.port}", Tls(str(authority.party.certificate)))


def test_an_engine_that_insists(start: Start, authority: Authority) -> None:
    """An operator who has forgotten the certificates is not told that the engine cannot be reached so."""
    expect_no_connection(f"127.0.0.1:{start(authority.sign('127.0.0.1')).port}", None)


def test_a_strange_engine(start: Start, authority: Authority, stranger: Authority) -> None:
    """Questions go to whoever answers at the engine's address."""
    engine = start(stranger.sign("127.0.0.1"))
    expect_no_connection(f"127.0.0.1:{engine.port}", Tls(str(authority.party.certificate)))


def test_the_engines_name(start: Start, authority: Authority) -> None:
    """Questions go to another machine with a good certificate; or an engine behind an address cannot be reached."""
    target = f"127.0.0.1:{start(authority.sign('engine.internal')).port}"
    trusted = str(authority.party.certificate)
    expect_no_connection(target, Tls(trusted))
    expect_no_connection(target, Tls(trusted, name="another.internal"))
    expect_connection(target, Tls(trusted, name="engine.internal"))


def test_mutual_tls(start: Start, authority: Authority, stranger: Authority) -> None:
    """An engine that answers only to gateways it knows does not know this one."""
    target = f"127.0.0.1:{start(authority.sign('127.0.0.1'), clients=authority).port}"
    trusted = str(authority.party.certificate)
    gateway, other = authority.sign("gateway"), stranger.sign("gateway")
    expect_connection(target, Tls(trusted, str(gateway.certificate), str(gateway.key)))
    expect_no_connection(target, Tls(trusted))
    expect_no_connection(target, Tls(trusted, str(other.certificate), str(other.key)))


def test_several_engines_with_tls(start: Start, authority: Authority) -> None:
    """An operator can have two engines or TLS, but not both."""
    engines = [start(authority.sign("engine.internal")) for _ in range(2)]
    targets = ",".join(f"127.0.0.1:{engine.port}" for engine in engines)
    tls = Tls(str(authority.party.certificate), name="engine.internal")
    expect_connection(f"ipv4:{targets}", tls)


# What the operator says.


def settings_of(gateway: Party, authority: Authority, *given: str) -> dict[str, str]:
    """Write the environment with these of the settings."""
    every = {
        "CA": str(authority.party.certificate),
        "CERT": str(gateway.certificate),
        "KEY": str(gateway.key),
        "NAME": "engine.internal",
    }
    return {f"BRUNIX_GRPC_TLS_{name}": every[name] for name in given}


@pytest.mark.parametrize("given", [(), ("CA",), ("CA", "NAME"), ("CA", "CERT", "KEY"), EVERYTHING])
def test_settings(authority: Authority, given: tuple[str, ...]) -> None:
    """A gateway with good certificates does not start."""
    environment = settings_of(authority.sign("gateway"), authority, *given)
    settings = Settings.read(environment, {})
    read = (settings.grpc_tls_ca, settings.grpc_tls_cert, settings.grpc_tls_key, settings.grpc_tls_name)
    assert read == tuple(environment.get(f"BRUNIX_GRPC_TLS_{name}") for name in EVERYTHING)


@pytest.mark.parametrize(
    ("given", "variable", "missing"),
    [
        (("CERT",), "CERT", "CA"),
        (("CERT", "KEY"), "CERT", "CA"),
        (("CA", "CERT"), "CERT", "KEY"),
        (("CA", "KEY"), "KEY", "CERT"),
        (("NAME",), "NAME", "CA"),
    ],
)
def test_incomplete_settings(authority: Authority, given: tuple[str, ...], variable: str, missing: str) -> None:
    """A gateway that was to use TLS starts without it, or shows no certificate."""
    environment = settings_of(authority.sign("gateway"), authority, *given)
    with pytest.raises(SettingError) as refusal:
        Settings.read(environment, {})
    line = str(refusal.value)
    assert line.startswith(f"BRUNIX_GRPC_TLS_{variable} is ")
    assert f"BRUNIX_GRPC_TLS_{missing}" in line
    assert "\n" not in line


def test_a_file_that_is_not_there(authority: Authority) -> None:
    """A gateway starts with a certificate that it does not have, and no question is answered."""
    environment = settings_of(authority.sign("gateway"), authority, "CA", "CERT", "KEY")
    for variable in environment:
        with pytest.raises(SettingError) as refusal:
            Settings.read(environment | {variable: "/nothing/here.pem"}, {})
        assert str(refusal.value).startswith(f"{variable} is '/nothing/here.pem'; allowed: the path of a file ")


def test_files_that_hold_something_else(authority: Authority, tmp_path: Path) -> None:
    """A gateway starts with files that are no certificates, or not each other's, and no question is answered."""
    gateway, other = authority.sign("gateway"), authority.sign("other")
    nothing = tmp_path / "nothing"
    nothing.write_text("nothing", "ascii")
    locked = tmp_path / "locked"
    key = serialization.load_pem_private_key(gateway.key.read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    environment = settings_of(gateway, authority, "CA", "CERT", "KEY")
    for name, file, blamed in (
        ("CA", nothing, "CA"),
        ("CERT", nothing, "KEY"),
        ("KEY", nothing, "KEY"),
        ("KEY", other.key, "KEY"),
        ("KEY", locked, "KEY"),
    ):
        with pytest.raises(SettingError) as refusal:
            Settings.read(environment | {f"BRUNIX_GRPC_TLS_{name}": str(file)}, {})
        assert str(refusal.value).startswith(f"BRUNIX_GRPC_TLS_{blamed} is ")


def test_start_without_a_key(authority: Authority, tmp_path: Path) -> None:
    """An operator reads a traceback when a file's name is mistyped."""
    environment = settings_of(authority.sign("gateway"), authority, "CA", "CERT")
    with twistd(tmp_path, **environment) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    (line,) = output.splitlines()
    assert line.startswith("twistd brunix: BRUNIX_GRPC_TLS_CERT is ")


# From the clients, through all of it.


def test_tls_from_the_clients_and_to_the_engine(start: Start, authority: Authority, tmp_path: Path) -> None:
    """A gateway between two networks that others can read does not serve."""
    engine = start(authority.sign("engine.internal"), clients=authority)
    server = authority.sign("127.0.0.1")
    environment = settings_of(authority.sign("gateway"), authority, *EVERYTHING)
    listen = f"ssl:0:interface=127.0.0.1:privateKey={server.key}:certKey={server.certificate}"
    target = f"127.0.0.1:{engine.port}"
    with twistd(tmp_path, f"--listen={listen}", BRUNIX_GRPC_TARGET=target, **environment) as process:
        port = wait_for_port(process)
        trusting = ssl.create_default_context(cafile=str(authority.party.certificate))
        connection = HTTPSConnection("127.0.0.1", port, context=trusting, timeout=LIMIT_S)
        assert ask(connection) == "one two "
        # A page that was sent in the clear is not the gateway's own.
        for origin, status in (("https://gateway.internal", 200), ("http://gateway.internal", 403)):
            connection.request("GET", "/v1/models", headers={"Host": "gateway.internal", "Origin": origin})
            with connection.getresponse() as response:
                assert (response.status, response.read() != b"") == (status, True)
        connection.close()
        (asked,) = engine.calls
        assert asked.request.query == "one two"


def test_a_unix_socket(engine: ScriptedEngine, tmp_path: Path) -> None:
    """A gateway that only a web server on the same machine is to reach does not serve."""
    path = tmp_path / "gateway.sock"
    with twistd(tmp_path, f"--listen=unix:{path}", BRUNIX_GRPC_TARGET=engine.target) as process:
        assert process.stdout
        assert any("Serving the model" in line for line in process.stdout)
        connection = UnixConnection(path)
        assert ask(connection) == "one two "
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
