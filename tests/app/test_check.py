"""``twistd brunix --check``: what it finds, how it says so, and that it leaves nothing."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import attrs
import grpc
import pytest
import pytest_twisted
from grpc_health.v1 import health_pb2
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from brunix_twisted.app.check import session_advice
from brunix_twisted.config import trusted_proxies
from brunix_twisted.config.settings import Settings, table
from brunix_twisted.engine import Tls
from brunix_twisted.engine.affinity import VARIABLE
from brunix_twisted.engine.health import check_engine, remedy
from brunix_twisted.runtime.reactors import Reactor
from certificates import Authority
from fake_reactor import LIMIT_S
from isolation import CLEAN
from scripted_engine import ScriptedEngine
from twistd import TWISTD, free_port, get, twistd, until_ok, wait_for_port

READY = "The gateway is ready to start."
NOT_WELL = "The gateway can start, but returns errors until the engine is healthy."


@attrs.frozen
class Found:
    """What it said, and how it ended."""

    status: int
    lines: list[str]


Check = Callable[..., Found]


@pytest.fixture
def check(tmp_path: Path) -> Iterator[Check]:
    """Give a function that runs it in a folder of its own, where nothing may be left."""
    folder = tmp_path / "folder"
    folder.mkdir()

    def check(*options: str, **environment: str) -> Found:
        done = subprocess.run(  # noqa: S603 - this environment's own twistd
            [TWISTD, "brunix", "--check", *options],
            cwd=folder,
            env=CLEAN | {"PROXY_LISTEN": "tcp:0:interface=127.0.0.1"} | environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        # One is written to, the other not: what goes wrong unforeseen shows.
        assert "" in {done.stdout, done.stderr}
        return Found(done.returncode, (done.stdout + done.stderr).splitlines())

    yield check
    assert list(folder.iterdir()) == []


def test_all_is_well(check: Check, engine: ScriptedEngine) -> None:
    """An operator would not learn that everything is as it should be, or of a setting that is not the one meant."""
    found = check("--model-id=house", BRUNIX_GRPC_TARGET=engine.target)
    assert found.status == 0
    *told, state_line, engine_line, end = found.lines
    assert state_line == "state: in memory, until the gateway stops"
    assert told == [
        "settings: 4 changed from the default",
        f"  BRUNIX_GRPC_TARGET is '{engine.target}' (environment; default: 'localhost:50051')",
        f"  BRUNIX_GRPC_CONNECT_TIMEOUT_S is '{CLEAN['BRUNIX_GRPC_CONNECT_TIMEOUT_S']}' (environment; default: '1')",
        "  PROXY_MODEL_ID is 'house' (--model-id; default: 'brunix')",
        "  PROXY_LISTEN is 'tcp:0:interface=127.0.0.1' (environment; default: 'tcp:8000:interface=127.0.0.1')",
        "listening: tcp:0:interface=127.0.0.1 is free",
    ]
    assert re.fullmatch(rf"engine: {engine.target} is healthy, without TLS; the check took \d+ ms", engine_line)
    assert end == READY


@pytest.fixture
def several_engines(engines: list[ScriptedEngine]) -> str:
    """A target of two engines."""
    engines += [ScriptedEngine("127.0.0.1:0") for _ in range(2)]
    return "ipv4:" + ",".join(f"127.0.0.1:{engine.port}" for engine in engines)


def test_several_engines(check: Check, several_engines: str) -> None:
    """Several engines are healthy if one that is selected at random is, and no session is needed."""
    found = check(BRUNIX_GRPC_TARGET=several_engines)
    assert (found.status, found.lines[-1]) == (0, READY)
    assert found.lines[-2].startswith(f"engine: {several_engines} is healthy, without TLS; ")


def test_no_engine_of_several(check: Check) -> None:
    """If no engine listens, the cause is the same as with one engine."""
    found = check(BRUNIX_GRPC_TARGET=f"ipv4:127.0.0.1:{free_port()},127.0.0.1:{free_port()}")
    assert found.status == 1
    assert found.lines[-3] == "  Nothing listens there. Start the engine, or correct BRUNIX_GRPC_TARGET."
    assert found.lines[-1] == NOT_WELL


def test_the_engines_are_called_in_turn(check: Check, tmp_path: Path, several_engines: str) -> None:
    """If the environment keeps gRPC from selecting the engine by the session, --check and the log name the variable."""
    environment = {"BRUNIX_GRPC_TARGET": several_engines, VARIABLE: "false"}
    sentence = (
        f"The calls of a session go to different engines, because {VARIABLE} is 'false'. "
        "Unset it, unless the engines share their sessions."
    )
    found = check(**environment)
    assert found.status == 0
    assert found.lines[-2] == f"  {sentence}"
    with twistd(tmp_path, **environment) as process:
        assert process.stdout is not None
        assert any(line.endswith(f"{sentence}\n") for line in iter(process.stdout.readline, ""))


def test_no_engine(check: Check) -> None:
    """An operator would read that the engine is away, and not what can be done about it."""
    target = f"127.0.0.1:{free_port()}"
    found = check(BRUNIX_GRPC_TARGET=target)
    assert found.status == 1
    told, todo, words, end = found.lines[-4:]
    assert told == f"engine: {target} is not healthy, without TLS: The engine is unreachable"
    assert todo == "  Nothing listens there. Start the engine, or correct BRUNIX_GRPC_TARGET."
    assert words.startswith("  gRPC says: UNAVAILABLE: ")
    assert end == NOT_WELL


def test_an_engine_that_is_not_well(check: Check, engine: ScriptedEngine) -> None:
    """An engine that still loads would count as good."""
    engine.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    found = check(BRUNIX_GRPC_TARGET=engine.target)
    assert found.status == 1
    assert found.lines[-2:] == [
        f"engine: {engine.target} is not healthy, without TLS: The engine reports NOT_SERVING",
        NOT_WELL,
    ]


def test_the_port_is_taken(check: Check, tmp_path: Path, engine: ScriptedEngine) -> None:
    """A gateway that could not listen would be called ready; or none could be looked at that runs already."""
    listen = f"tcp:{free_port()}:interface=127.0.0.1"
    with twistd(tmp_path, PROXY_LISTEN=listen, BRUNIX_GRPC_TARGET=engine.target) as process:
        wait_for_port(process)
        found = check(PROXY_LISTEN=listen, BRUNIX_GRPC_TARGET=engine.target)
    assert found.status == 1
    taken, why, _, well, end = found.lines[-5:]
    assert taken.startswith(f"listening: PROXY_LISTEN is '{listen}': ")
    assert "Address already in use" in taken
    assert why == "  Another program, or a running gateway, already listens there."
    assert "is healthy" in well
    assert end == "The gateway cannot start."


def test_the_port_is_not_kept(check: Check, tmp_path: Path, engine: ScriptedEngine) -> None:
    """Looking would leave a socket behind, and the gateway could not start."""
    path = tmp_path / "gateway.sock"
    for _ in range(2):
        found = check(PROXY_LISTEN=f"unix:{path}", BRUNIX_GRPC_TARGET=engine.target)
        assert (found.status, found.lines[-1]) == (0, READY)
        assert not path.exists()


ADVICE = (
    "  If clients reach the gateway through a proxy, they look like one caller: set PROXY_TRUSTED_PROXIES, or "
    "PROXY_SESSION_MATCH=exact if they cannot be distinguished."
)


@pytest.mark.parametrize(("listen", "proxies"), [("tcp:0", ""), ("unix:{}/gateway.sock", "=unix")])
def test_callers_that_look_alike(
    check: Check, tmp_path: Path, engine: ScriptedEngine, listen: str, proxies: str
) -> None:
    """An operator learns which settings keep strangers behind a proxy out of each other's sessions."""
    found = check(PROXY_LISTEN=listen.format(tmp_path), BRUNIX_GRPC_TARGET=engine.target)
    assert (found.status, found.lines.count(ADVICE.replace("PROXIES", f"PROXIES{proxies}"))) == (0, 1)


PUBLIC, LOOPBACK, UNIX = IPv4Address("TCP", "0.0.0.0", 80), IPv6Address("TCP", "::1", 80), UNIXAddress(b"/socket")  # noqa: S104 - not listened on


@pytest.mark.parametrize(
    ("address", "settings", "advised"),
    [
        (PUBLIC, {}, True),
        (IPv4Address("TCP", "10.0.0.1", 80), {}, True),
        (IPv6Address("TCP", "::", 80), {}, True),
        (UNIX, {}, True),
        (UNIX, {"trusted_proxies": trusted_proxies.read("10.0.0.0/8")}, True),
        (UNIX, {"trusted_proxies": trusted_proxies.read("unix")}, False),
        (PUBLIC, {"trusted_proxies": trusted_proxies.read("10.0.0.0/8")}, False),
        (PUBLIC, {"session_match": "exact"}, False),
        (PUBLIC, {"session_continuity": False}, False),
        (LOOPBACK, {}, False),
        (IPv4Address("TCP", "127.0.0.1", 80), {}, False),
    ],
)
def test_when_callers_look_alike(address: IAddress, settings: dict[str, Any], *, advised: bool) -> None:
    """The advice is given only where it concerns clients, and not once it is followed."""
    assert (session_advice(Settings(**settings), address) is not None) is advised


def test_a_socket_of_systemds(check: Check, engine: ScriptedEngine) -> None:
    """The settings of the unit could not be looked at by hand."""
    found = check(PROXY_LISTEN="systemd:domain=INET:index=0", BRUNIX_GRPC_TARGET=engine.target)
    assert (found.status, found.lines[-1]) == (0, READY)
    assert "listening: systemd:domain=INET:index=0 was not tested: systemd opens this socket" in found.lines


@pytest.mark.parametrize(
    ("variable", "value"), [("PROXY_DRAIN_S", "soon"), ("PROXY_LISTEN", "nonsense"), ("PROXY_ENGINE_CLIENT", "aio")]
)
def test_a_setting_that_is_not_allowed(check: Check, tmp_path: Path, variable: str, value: str) -> None:
    """A mistyped setting would be told of in other words than at the start, or not at all."""
    found = check(**{variable: value})
    with twistd(tmp_path, **{"PROXY_LISTEN": "tcp:0:interface=127.0.0.1", variable: value}) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    assert (found.status, found.lines) == (process.returncode, output.splitlines()) == (1, [output.strip()])
    assert output.startswith(f"twistd brunix: {variable} is '{value}'; allowed: ")


def test_beside_a_daemon(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Whoever looks in the folder of a gateway that runs would be told of its pid file, or would end its log."""
    (tmp_path / "twistd.pid").write_text("1", "ascii")
    done = subprocess.run(  # noqa: S603 - this environment's own twistd
        [TWISTD, "brunix", "--check", "--listen=tcp:0:interface=127.0.0.1", f"--grpc-target={engine.target}"],
        cwd=tmp_path,
        env=CLEAN,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, READY, "")
    assert [path.name for path in tmp_path.iterdir()] == ["twistd.pid"]


def test_no_secret_is_told(check: Check, tmp_path: Path) -> None:
    """What an operator pastes into a ticket would hold a key."""
    authority = Authority(tmp_path, "authority")
    gateway, ca = authority.sign("gateway"), str(authority.party.certificate)
    files = {"CA": ca, "CERT": str(gateway.certificate), "KEY": str(gateway.key)}
    found = check(**{f"BRUNIX_GRPC_TLS_{name}": path for name, path in files.items()})
    told = "\n".join(found.lines)
    assert f"BRUNIX_GRPC_TLS_KEY is '{gateway.key}'" in told
    assert "over TLS" in told
    assert "PRIVATE KEY" not in told
    # Each of them is written out as it was given, unless its rule hides it.
    secrets = {row for _, row in table() if re.search("KEY|SECRET|TOKEN(?!_TIMEOUT)|PASS", row.variable)}
    assert {row.variable: row.rule.shown("hush") for row in secrets} == {
        "BRUNIX_GRPC_TLS_KEY": "hush",
        "PROXY_STATE_SECRET": "***",
    }


def test_the_secret_of_the_state_is_not_told(check: Check) -> None:
    """What an operator pastes into a ticket contains no secret of the state."""
    secret = "0123456789abcdef" * 4
    found = check(f"--state-secret={secret}", PROXY_STATE_SECRET=f"{secret}x")
    assert "  PROXY_STATE_SECRET is '***' (--state-secret; default: empty)" in found.lines
    assert secret not in "".join(found.lines)


# The state.


def test_a_state_database_that_does_not_exist_yet(check: Check, tmp_path: Path, engine: ScriptedEngine) -> None:
    """A new gateway is ready to start, and the check creates nothing."""
    path = tmp_path / "state" / "state.sqlite"
    found = check(PROXY_STATE=f"sqlite:{path}", BRUNIX_GRPC_TARGET=engine.target)
    assert (found.status, found.lines[-1]) == (0, READY)
    assert f"state: the database {path}" in found.lines
    assert not path.parent.exists()


def test_a_state_database_in_use(check: Check, tmp_path: Path, engine: ScriptedEngine) -> None:
    """The database of a gateway that runs can be checked."""
    path = tmp_path / "state.sqlite"
    settings = {"PROXY_STATE": f"sqlite:{path}", "BRUNIX_GRPC_TARGET": engine.target}
    with twistd(tmp_path, **settings) as process:
        port = wait_for_port(process)
        until_ok(lambda: json.loads(get(port, "/health")[1])["state"])
        found = check(**settings)
        assert (found.status, found.lines[-1]) == (0, READY)
        until_ok(lambda: json.loads(get(port, "/health")[1])["state"])


@pytest.mark.parametrize("broken", ["database", "secret", "folder"])
def test_a_state_database_that_cannot_be_used(
    check: Check, tmp_path: Path, engine: ScriptedEngine, broken: str
) -> None:
    """An operator learns before the start that conversations would be forgotten, and what to do."""
    path, secret = tmp_path / "state.sqlite", tmp_path / "state.sqlite.secret"
    if broken == "folder":
        path = tmp_path / "missing" / "folder" / "state.sqlite"
    elif broken == "secret":
        path.touch()
        secret.write_text("short")
    else:
        path.write_bytes(b"no database " * 100)
    found = check(PROXY_STATE=f"sqlite:{path}", BRUNIX_GRPC_TARGET=engine.target)
    assert found.status == 1
    state, why, _, end = found.lines[-4:]
    assert state == f"state: the database {path} cannot be used"
    expected = {
        "database": f"  The state database {path} is not a database. Move {path} away, or choose",
        "secret": f"  {secret} contains no secret. ",
        "folder": f"  The state database {path} cannot be opened: No such file or directory: {path.parent}. Create",
    }
    assert why.startswith(expected[broken])
    assert end == "The gateway can start, but keeps conversations only in memory until the state can be used."


def test_several_processes_share_a_private_state(check: Check, engine: ScriptedEngine) -> None:
    """An operator learns that conversations end with the gateway."""
    found = check(PROXY_PROCESSES="2", BRUNIX_GRPC_TARGET=engine.target)
    assert (found.status, found.lines[-1]) == (0, READY)
    assert "state: a private database of the processes, until the gateway stops" in found.lines


# What is wrong, in words.


@pytest.fixture
def engines() -> Iterator[list[ScriptedEngine]]:
    """Keep engines until the end of the test."""
    engines: list[ScriptedEngine] = []
    yield engines
    for engine in engines:
        engine.stop()


@pytest.mark.parametrize(
    ("case", "meaning"),
    [
        ("no TLS at the engine", "It does not use TLS"),
        ("no TLS here", "It closed the connection. If it uses TLS, set BRUNIX_GRPC_TLS_CA"),
        ("strange authority", "No certificate in BRUNIX_GRPC_TLS_CA has signed its certificate"),
        ("another name", "Its certificate is for another name. Set BRUNIX_GRPC_TLS_NAME"),
        ("no certificate here", "It closed the connection during the TLS handshake"),
        ("strange certificate here", "It closed the connection during the TLS handshake"),
        ("well", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_tls_in_words(tmp_path: Path, engines: list[ScriptedEngine], case: str, meaning: str | None) -> None:
    """An operator would read the riddles of a TLS library, and not which file is the wrong one."""
    authority, stranger = Authority(tmp_path, "authority"), Authority(tmp_path, "stranger")
    pair = authority.sign("127.0.0.1").pair
    roots = authority.party.certificate.read_bytes() if case.endswith("certificate here") else None
    credentials = None
    if case != "no TLS at the engine":
        credentials = grpc.ssl_server_credentials([pair], roots, roots is not None)
    engines.append(ScriptedEngine("127.0.0.1:0", credentials=credentials))
    tls: Tls | None = Tls(str(authority.party.certificate))
    if case == "no TLS here":
        tls = None
    elif case == "strange authority":
        tls = Tls(str(stranger.party.certificate))
    elif case == "another name":
        tls = Tls(str(authority.party.certificate), name="engine.internal")
    elif case == "strange certificate here":
        other = stranger.sign("gateway")
        tls = Tls(str(authority.party.certificate), str(other.certificate), str(other.key))
    trial = await check_engine(cast("Reactor", reactor), f"127.0.0.1:{engines[0].port}", tls, LIMIT_S)
    assert (trial.unhealthy_reason is None) == (meaning is None), trial
    told = remedy(trial, tls)
    assert told == meaning or (told is not None and meaning is not None and told.startswith(meaning)), trial


def test_grpc_writes_nothing_itself(check: Check, tmp_path: Path, engine: ScriptedEngine) -> None:
    """TLS to an engine that does not speak it is told in words, without a line of gRPC's own on standard error."""
    ca = str(Authority(tmp_path, "authority").party.certificate)
    found = check(BRUNIX_GRPC_TARGET=engine.target, BRUNIX_GRPC_TLS_CA=ca)
    assert found.status == 1
    assert "  It does not use TLS. Unset BRUNIX_GRPC_TLS_CA, or turn on TLS in the engine." in found.lines
    assert not any(".cc:" in line for line in found.lines)


def test_grpc_writes_nothing_into_the_log(tmp_path: Path, engine: ScriptedEngine) -> None:
    """The log of a gateway whose TLS fails is JSON to its last line."""
    with twistd(
        tmp_path,
        PROXY_LISTEN="tcp:0:interface=127.0.0.1",
        PROXY_LOG_FORMAT="json",
        BRUNIX_GRPC_TARGET=engine.target,
        BRUNIX_GRPC_TLS_CA=str(Authority(tmp_path, "authority").party.certificate),
    ) as process:
        assert get(wait_for_port(process), "/health")[0] == 503
        process.terminate()
        assert process.stdout is not None
        for line in process.stdout:
            json.loads(line)


@pytest.mark.parametrize("kind", ["nobody", "no name", "no socket", "silence"])
@pytest_twisted.ensureDeferred
async def test_other_faults_in_words(tmp_path: Path, kind: str) -> None:
    """An operator would not be told whether the engine, its address or the way to it is at fault."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target, meaning = {
            "nobody": (f"127.0.0.1:{free_port()}", "Nothing listens there"),
            "no name": ("engine.invalid:50051", "DNS lookup failed"),
            "no socket": (f"unix://{tmp_path}/engine.sock", "Nothing listens there"),
            "silence": (f"127.0.0.1:{silent.getsockname()[1]}", "That port does not use gRPC"),
        }[kind]
        trial = await check_engine(cast("Reactor", reactor), target, None, LIMIT_S)
    assert trial.unhealthy_reason == "The engine is unreachable"
    told = remedy(trial, None)
    assert told is not None, trial
    assert told.startswith(meaning), trial


@pytest_twisted.ensureDeferred
async def test_an_engine_without_the_health_service(engines: list[ScriptedEngine]) -> None:
    """An engine that answers questions, and has no health service, would be called away."""
    engines.append(ScriptedEngine(with_health=False))
    trial = await check_engine(cast("Reactor", reactor), engines[0].target, None, LIMIT_S)
    assert trial.unhealthy_reason is None
