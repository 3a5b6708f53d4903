"""The units of deploy/systemd under the real systemd, in a small system of its own: see container.sh."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from sys import base_prefix
from typing import Final
from uuid import uuid4

import attrs
import grpc
import pytest

from certificates import Authority
from fake_reactor import LIMIT_S
from isolation import BARE
from paths import ROOT
from scripted_engine import ScriptedEngine, script
from supervised import Load, Told, ask
from threads import Threads
from twistd import free_port, get

SERVICE: Final = "brunix-gateway.service"
SOCKET: Final = "brunix-gateway.socket"
NAMESPACES: Final = ("--mount", "--pid", "--cgroup", "--ipc", "--uts")
RESTARTS: Final = 4


@attrs.frozen
class System:
    """A systemd that runs, and a port of this machine's that its socket unit listens on."""

    pid: int
    port: int

    @property
    def root(self) -> Path:
        """Its files, as seen from here."""
        return Path(f"/proc/{self.pid}/root")

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """Run systemctl in it, and give what that writes."""
        done = subprocess.run(  # noqa: S603 - found beforehand
            ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "systemctl", "--no-pager", *arguments],  # noqa: S607 - likewise
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr + self.log()
        return done.stdout.strip()

    def show(self, name: str, unit: str = SERVICE) -> str:
        """Read a property of a unit."""
        return self.systemctl("show", f"--property={name}", "--value", unit)

    def log(self) -> str:
        """Read what the gateways have written."""
        path = self.root / "run" / "gateway.log"
        return path.read_text("utf-8") if path.exists() else ""

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what systemd does by itself, and tells nobody about."""
        give_up_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < give_up_s, self.systemctl("status", SERVICE, check=False) + self.log()
            time.sleep(0.05)

    def prepare(self, service: str = "", **environment: str) -> None:
        """Begin anew with this in the environment file, and in an addition to the service."""
        self.systemctl("stop", SERVICE, SOCKET, check=False)
        (self.root / "run" / "gateway.log").unlink(missing_ok=True)
        lines = "".join(f"{name}={value}\n" for name, value in environment.items())
        (self.root / "etc" / "brunix" / "gateway.env").write_text(lines, "utf-8")
        added = self.root / "etc" / "systemd" / "system" / f"{SERVICE}.d" / "test.conf"
        added.write_text(f"[Service]\n{service}\n", "utf-8")
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed")


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory, need_root: None, need: Callable[..., None]) -> Iterator[System]:  # noqa: ARG001 - it skips
    """Start systemd as process 1 of namespaces of its own, and end it with everything in them."""
    for program, package in (
        ("/lib/systemd/systemd", "systemd"),
        ("systemctl", "systemd"),
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("pivot_root", "util-linux"),
    ):
        need(program, package)
    mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()]
    groups = next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)
    if groups is None or not os.access(groups, os.W_OK):
        pytest.skip("there are no control groups of the second version that can be written to")
    folder, port = tmp_path_factory.mktemp("systemd"), free_port()
    units = folder / "units"
    shutil.copytree(ROOT / "deploy" / "systemd", units)
    for unit, text in (
        (SOCKET, f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n"),
        (SERVICE, "[Service]\nStandardOutput=append:/run/gateway.log\nStandardError=inherit\n"),
    ):
        (units / f"{unit}.d").mkdir()
        (units / f"{unit}.d" / "here.conf").write_text(text, "utf-8")
    (folder / "root").mkdir()
    group = groups / f"brunix-test-{uuid4().hex}"
    group.mkdir()
    told = Told(f"@{group.name}")
    command = ["unshare", "--fork", "--kill-child", "--propagation=private", *NAMESPACES]
    command += ["sh", str(Path(__file__).with_name("container.sh")), str(folder / "root"), str(ROOT), base_prefix]
    command += [sysconfig.get_path("purelib"), str(units)]
    process = subprocess.Popen(  # noqa: S603 - found above
        ["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(group), *command],  # noqa: S607 - POSIX
        env=BARE | {"NOTIFY_SOCKET": told.path},
        stdin=subprocess.DEVNULL,
    )
    try:
        told.until("READY")
        # systemd also reports each later change, and would wait for a reader once the socket's queue is full.
        told.close()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii")
        yield System(int(children), port)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        told.close()
        for inner in (*sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True), group):
            remove(inner)


def remove(group: Path) -> None:
    """Remove a control group, as soon as the last of its killed processes has gone."""
    give_up_s = time.monotonic() + LIMIT_S
    while True:
        try:
            return group.rmdir()
        except OSError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.05)


@pytest.fixture
def system(booted: System, engine: ScriptedEngine) -> System:
    """The same, with the units as they are and the scripted engine."""
    booted.prepare(BRUNIX_GRPC_TARGET=engine.target)
    return booted


def test_the_first_client_starts_it(system: System, engine: ScriptedEngine) -> None:
    """The unit would not start, or the gateway could not work with the little that it may do."""
    system.systemctl("start", SOCKET)
    assert system.show("ActiveState") == "inactive"
    assert ask(system.port) == "answered"
    assert system.show("ActiveState") == "active"
    assert system.show("StatusText") == (
        f"Serving on 127.0.0.1:{system.port}; at startup the engine at {engine.target} was healthy"
    )
    pid = system.show("MainPID")
    lines = (system.root / "proc" / pid / "status").read_text("ascii").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status["Uid"].split("\t")[0] not in {"0", "65534"}
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb", "CapInh")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    system.systemctl("stop", SERVICE, SOCKET)
    assert system.show("Result") == "success"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_restarts_under_load(system: System, engine: ScriptedEngine, processes: str) -> None:
    """``systemctl restart`` would refuse clients, or cut them off."""
    system.prepare(BRUNIX_GRPC_TARGET=engine.target, PROXY_PROCESSES=processes)
    system.systemctl("start", SERVICE)
    with Load(system.port) as load:
        for _ in range(RESTARTS):
            load.until_more(20)
            system.systemctl("restart", SERVICE)
            assert system.show("ActiveState") == "active"
        load.until_more(20)
    assert set(load.outcomes) == {"answered"}
    assert system.show("NRestarts") == "0"


# Loaded by every Python whose path has its folder. A signal then blocks the reactor's thread for ever.
HANGS: Final = """
import signal, threading
signal.signal(signal.SIGUSR2, lambda *_: threading.Event().wait())
"""


def test_a_gateway_that_hangs(system: System, engine: ScriptedEngine) -> None:
    """A gateway that hangs would hang until somebody notices, and nobody could read where."""
    folder = system.root / "etc" / "brunix" / "hangs"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(HANGS, "ascii")
    # Long enough for a busy machine to let a gateway that does not hang say so.
    system.prepare("WatchdogSec=3", BRUNIX_GRPC_TARGET=engine.target, PYTHONPATH="/etc/brunix/hangs")
    system.systemctl("start", SERVICE)
    pid = system.show("MainPID")
    # Not SIGSTOP: at its end, other threads may run before the one that dies, and accept a connection meanwhile.
    system.systemctl("kill", "--signal=USR2", "--kill-whom=main", SERVICE)
    assert ask(system.port) == "answered"
    assert system.show("NRestarts") == "1"
    assert system.show("MainPID") not in {pid, "0"}
    assert '"/etc/brunix/hangs/sitecustomize.py", line 3 in <lambda>' in system.log()


def test_a_gateway_that_crashes(system: System) -> None:
    """A gateway that crashed would stay away."""
    system.systemctl("start", SERVICE)
    system.systemctl("kill", "--signal=SEGV", "--kill-whom=main", SERVICE)
    system.until(lambda: system.show("NRestarts") == "1")
    assert ask(system.port) == "answered"


def test_an_engine_that_is_away(system: System) -> None:
    """A gateway would not start before its engine."""
    target = f"127.0.0.1:{free_port()}"
    system.prepare(BRUNIX_GRPC_TARGET=target)
    system.systemctl("start", SERVICE)
    assert system.show("ActiveState") == "active"
    assert system.show("StatusText").endswith(
        f"; at startup the engine at {target} was not healthy: The engine is unreachable"
    )
    assert get(system.port, "/health")[0] == 503


def test_a_setting_that_is_not_allowed(system: System) -> None:
    """A mistyped setting would restart the gateway for ever, or nobody could read what is wrong."""
    system.prepare("RestartSec=10ms", PROXY_DRAIN_S="soon")
    system.systemctl("start", SERVICE, check=False)
    system.until(lambda: system.show("ActiveState") == "failed")
    lines = system.log().splitlines()
    assert 1 <= len(lines) <= 5
    assert set(lines) == {
        "twistd brunix: PROXY_DRAIN_S is 'soon'; allowed: a number of seconds from 0 to 86,400",
    }
    # As the page has it, once that is mended.
    (system.root / "etc" / "brunix" / "gateway.env").write_text("", "ascii")
    system.systemctl("reset-failed", SERVICE, SOCKET)
    system.systemctl("start", SERVICE)
    assert get(system.port, "/health/live")[0] == 200


def test_a_long_drain(system: System, engine: ScriptedEngine) -> None:
    """An answer would be cut off after the unit's time for a stop, though PROXY_DRAIN_S gives it more."""
    system.prepare("TimeoutStopSec=1", BRUNIX_GRPC_TARGET=engine.target, PROXY_DRAIN_S="60")
    system.systemctl("start", SERVICE)
    outcomes: list[str] = []
    question = script("one", {"wait": "go"})
    with Threads() as threads:
        threads.start(lambda: outcomes.append(ask(system.port, question)))
        engine.call()
        system.systemctl("stop", "--no-block", SERVICE)
        system.until(lambda: system.show("StatusText") == "Waiting for running answers to finish")
        # Longer than the unit allows; there is nothing to wait for but time.
        time.sleep(2)
        assert system.show("ActiveState") == "deactivating"
        engine.go("go")
    assert outcomes == ["wrong answer"]  # a whole one, which is not the question's words
    system.until(lambda: system.show("ActiveState") == "inactive")
    assert system.show("Result") == "success"


def test_nothing_is_written(system: System) -> None:
    """A disk would fill, or a gateway on a read-only one not start."""

    def files() -> set[Path]:
        return {path for folder in ("etc", "opt", "root", "var") for path in (system.root / folder).rglob("*")}

    def run() -> None:
        system.systemctl("start", SERVICE)
        assert ask(system.port) == "answered"
        system.systemctl("stop", SERVICE)

    # The first time systemd itself leaves something, for the user that it makes.
    run()
    before = files()
    run()
    assert files() == before


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_state_survives_a_restart(system: System, engine: ScriptedEngine, processes: str) -> None:
    """A restart keeps conversations, in files that only the service's user can read; and the files can be removed."""
    folder = system.root / "var" / "lib" / "private" / "brunix"
    for path in folder.glob("state.sqlite*"):
        path.unlink()
    system.prepare(BRUNIX_GRPC_TARGET=engine.target, PROXY_PROCESSES=processes)
    system.systemctl("start", SERVICE)
    assert json.loads(get(system.port, "/health")[1])["state"] == "ok"
    secret, database = (folder / name for name in ("state.sqlite.secret", "state.sqlite"))
    before, inode = secret.read_text("ascii"), database.stat().st_ino
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    system.systemctl("restart", SERVICE)
    assert json.loads(get(system.port, "/health")[1])["state"] == "ok"
    assert (secret.read_text("ascii"), database.stat().st_ino) == (before, inode)
    # As the page has it: rm /var/lib/brunix/state.sqlite*
    system.systemctl("stop", SOCKET, SERVICE)
    for path in folder.glob("state.sqlite*"):
        path.unlink()
    system.systemctl("start", SOCKET, SERVICE)
    assert json.loads(get(system.port, "/health")[1])["state"] == "ok"
    assert secret.read_text("ascii") != before


def test_a_file_that_only_root_may_read(system: System, tmp_path: Path) -> None:
    """Certificates would have to be readable for everybody on the machine."""
    authority = Authority(tmp_path, "authority")
    party = authority.party
    engine = ScriptedEngine("127.0.0.1:0", credentials=grpc.ssl_server_credentials([authority.sign("127.0.0.1").pair]))
    try:
        path = system.root / "etc" / "brunix" / "ca.pem"
        path.write_bytes(party.certificate.read_bytes())
        path.chmod(0o600)
        target = f"127.0.0.1:{engine.port}"
        system.prepare("Environment=BRUNIX_GRPC_TLS_CA=/etc/brunix/ca.pem", BRUNIX_GRPC_TARGET=target)
        system.systemctl("start", SERVICE, check=False)
        assert "BRUNIX_GRPC_TLS_CA is '/etc/brunix/ca.pem'; allowed: " in system.log()
        credential = "LoadCredential=ca.pem:/etc/brunix/ca.pem\nEnvironment=BRUNIX_GRPC_TLS_CA=%d/ca.pem"
        system.prepare(credential, BRUNIX_GRPC_TARGET=target)
        system.systemctl("start", SERVICE)
        assert ask(system.port) == "answered"
    finally:
        engine.stop()
