"""Several gateway processes that share a socket: ``PROXY_PROCESSES``, as an operator runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger, LogPublisher, eventAsText

from asking import UnixConnection, ask
from brunix_twisted.processes.accept_balancing import ConnectionCounts, shared_memory
from brunix_twisted.processes.ipc import Lines, Messages, read_message
from brunix_twisted.processes.shared_sockets import SharedAcceptReactor, without_systemd
from certificates import Authority
from fake_reactor import LIMIT_S
from isolation import CLEAN
from paths import ROOT, TESTS
from scripted_engine import ScriptedEngine
from several_processes import (
    LISTEN,
    Supervised,
    health,
    is_whole,
    serving,
    stream,
    supervised,
    watched,
)
from twistd import TWISTD, free_port, until_ok


def children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def expect_refusal(port: int) -> None:
    """Hold that nobody can connect, once those who are about to close a socket have closed it."""
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return
    raise AssertionError("somebody still listens")


# Serving.


def test_both_answer(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Of two processes one answers nothing, so that a second processor is of no use; or the log tells half of it."""
    with serving(tmp_path, engine) as gateway:
        connections = [gateway.connect(number) for number in (0, 1)]
        for number, connection in enumerate(connections):
            assert health(connection)["processes"] == {"number": number, "configured": 2, "running": 2, "restarts": 0}
            assert ask(connection) == "one two "
        streams = [stream(connection, "both") for connection in connections]
        engine.go("both")
        assert all(is_whole(open_stream.end()) for open_stream in streams)
        assert sorted(children(gateway.process.pid)) == sorted(gateway.pids.values())
        assert gateway.stop() == -signal.SIGTERM
        gateway.rest()
        assert len(gateway.lines("Serving the model")) == 1
        for number in (0, 1):
            answered = [line for line in gateway.lines(f"process={number}]") if "POST /api/generate 200" in line]
            assert len(answered) == 2
            # The duration as it is written elsewhere, too.
            assert re.search(r" bytes \d+\.\d ms request=", answered[0])


def test_a_session_is_followed_through_the_log_of_all_processes(tmp_path: Path, engine: ScriptedEngine) -> None:
    """The lines of a session belong together in the log, whichever process answers, also one that replaces another."""
    body = json.dumps({"model": "brunix", "prompt": "one", "session_id": "ticket-4711", "stream": False})

    def digest(gateway: Supervised, number: int) -> str:
        connection = gateway.connect(number)
        connection.request("POST", "/api/generate", body)
        assert connection.getresponse().status == 200
        connection.close()
        return gateway.until(r"POST /api/generate 200 .* session=([0-9a-f]{12}) ")[1]

    with serving(tmp_path, engine) as gateway:
        digests = {digest(gateway, number) for number in (0, 1)}
        os.kill(gateway.pids[0], signal.SIGKILL)
        gateway.until("Process 0 serves")
        digests.add(digest(gateway, 0))
    with serving(tmp_path, engine) as gateway:
        assert len(digests) == 1
        assert digest(gateway, 0) not in digests


def test_one_process_is_alone(tmp_path: Path, engine: ScriptedEngine) -> None:
    """An operator who wants one process gets a second one, or a body of /health that speaks of several."""
    with serving(tmp_path, engine, PROXY_PROCESSES="1") as gateway:
        assert children(gateway.process.pid) == []
        connection = HTTPConnection("127.0.0.1", gateway.port, timeout=LIMIT_S)
        assert "processes" not in health(connection)
        connection.close()


def test_settings_reach_the_processes(tmp_path: Path, engine: ScriptedEngine) -> None:
    """What an operator chose holds for the supervisor only, or can be read in the list of processes."""
    with serving(
        tmp_path,
        engine,
        "--model-id=from-the-option",
        "--model-aliases=",
        PROXY_MODEL_ID="from-the-environment",
        PROXY_MODEL_ALIASES="*",
        PROXY_CONTEXT_LENGTH="77",
    ) as gateway:
        connection = gateway.connect(1)
        connection.request("GET", "/v1/models")
        assert [model["id"] for model in json.loads(connection.getresponse().read())["data"]] == ["from-the-option"]
        connection.request("POST", "/api/show", json.dumps({"model": "from-the-option"}))
        assert b":77" in connection.getresponse().read()
        connection.request("POST", "/api/show", json.dumps({"model": "another"}))
        assert connection.getresponse().status == 404
        connection.close()
        for pid in gateway.pids.values():
            assert b"from-the-option" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_supervisors_kind_of_reactor(tmp_path: Path, engine: ScriptedEngine) -> None:
    """The engine's client without threads, which needs asyncio, cannot be had in several processes."""
    with supervised(
        tmp_path, reactor="asyncio", PROXY_ENGINE_CLIENT="aio", BRUNIX_GRPC_TARGET=engine.target
    ) as gateway:
        gateway.port = int(gateway.until(r"Serving the model .* port=(\d+)")[1])
        for number in (0, 1):
            connection = gateway.connect(number)
            assert ask(connection) == "one two "
            connection.close()
        assert gateway.stop() == -signal.SIGTERM


# Other endpoints.


def test_a_unix_socket(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Processes behind a Unix socket open it to everybody, or one that ends takes the socket away from the others."""
    path = tmp_path / "gateway.sock"
    with supervised(tmp_path, f"--listen=unix:{path}:mode=600", BRUNIX_GRPC_TARGET=engine.target) as gateway:
        gateway.until("Serving the model")
        os.kill(gateway.pids[0], signal.SIGTERM)
        gateway.until(r"Process 0 serves")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connections = [UnixConnection(path) for _ in range(4)]
        assert {health(connection)["processes"]["number"] for connection in connections} <= {0, 1}
        assert [ask(connection) for connection in connections] == ["one two "] * 4
        for connection in connections:
            connection.close()
        assert gateway.stop() == -signal.SIGTERM
        assert not path.exists()


def test_tls(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Processes that are to encrypt do not, or not both."""
    authority = Authority(tmp_path, "authority")
    server = authority.sign("127.0.0.1")
    listen = f"--listen=ssl:0:interface=127.0.0.1:privateKey={server.key}:certKey={server.certificate}"
    with serving(tmp_path, engine, listen) as gateway:
        trusting = ssl.create_default_context(cafile=str(authority.party.certificate))
        seen: set[int] = set()
        connections = []
        while len(seen) < 2:
            connection = HTTPSConnection("127.0.0.1", gateway.port, context=trusting, timeout=LIMIT_S)
            connections.append(connection)
            seen.add(health(connection)["processes"]["number"])
            assert ask(connection) == "one two "
        for connection in connections:
            connection.close()


# Becomes twistd with a socket in the place where systemd would put it.
ACTIVATE = """
import os, sys

given, command = int(sys.argv[1]), sys.argv[2:]
if given != 3:
    os.dup2(given, 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}
os.execv(command[0], command)
"""


@pytest.mark.parametrize("family", ["INET", "UNIX"])
def test_socket_activation(tmp_path: Path, engine: ScriptedEngine, family: str) -> None:
    """Processes do not answer on systemd's socket, or spoil it for those that systemd starts next."""
    path = tmp_path / "systemd.sock"
    if family == "UNIX":
        given = socket.socket(socket.AF_UNIX)
        given.bind(str(path))
        path.chmod(0o640)
        given.listen()
    else:
        given = socket.create_server(("127.0.0.1", 0))
    with (
        given,
        subprocess.Popen(  # noqa: S603 - this environment's own twistd
            [
                *(sys.executable, "-c", ACTIVATE, str(given.fileno()), TWISTD, "--nodaemon", "--pidfile=", "brunix"),
                f"--listen=systemd:domain={family}:index=0",
                f"--grpc-target={engine.target}",
                "--processes=2",
            ],
            cwd=tmp_path,
            env=CLEAN,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[given.fileno()],
        ) as process,
    ):
        gateway = Supervised(process)
        gateway.until("Serving the model")

        def connect() -> HTTPConnection:
            if family == "UNIX":
                return UnixConnection(path)
            return HTTPConnection("127.0.0.1", given.getsockname()[1], timeout=LIMIT_S)

        connections = [connect() for _ in range(4)]
        assert [ask(connection) for connection in connections] == ["one two "] * 4
        assert gateway.stop() == -signal.SIGTERM
        for connection in connections:
            connection.close()
        assert family == "INET" or stat.S_IMODE(path.stat().st_mode) == 0o640
        # Nobody accepts it, and nobody refuses it.
        waiting = connect()
        waiting.connect()
        waiting.close()


def test_spelled_without_systemd() -> None:
    """A process that has inherited systemd's socket looks for another, which nobody has given it."""
    assert without_systemd("systemd:domain=INET:index=0") == "tcp:0"
    assert without_systemd("haproxy:systemd:domain=INET6:name=http") == "haproxy:tcp:0"
    assert without_systemd("unix:/run/systemd:mode=600") == "unix:/run/systemd:mode=600"


# Dying.


def test_one_is_killed(tmp_path: Path, engine: ScriptedEngine) -> None:
    """A process that crashes takes the answers of the others with it, or is not replaced."""
    with serving(tmp_path, engine) as gateway:
        broken, whole = (stream(gateway.connect(number), "killed") for number in (0, 1))
        killed = gateway.pids[0]
        os.kill(killed, signal.SIGKILL)
        gateway.until(rf"Process 0 \(pid {killed}\) was killed by SIGKILL; restarting in 0\.1 s")
        assert not is_whole(broken.end())
        gateway.until("Process 0 serves")
        assert gateway.pids[0] != killed
        replaced = gateway.connect(0)
        assert health(replaced)["processes"] == {"number": 0, "configured": 2, "running": 2, "restarts": 1}
        assert ask(replaced) == "one two "
        replaced.close()
        engine.go("killed")
        assert is_whole(whole.end())


def test_one_is_asked_to_leave(tmp_path: Path, engine: ScriptedEngine) -> None:
    """An operator who ends one process, because it has grown say, breaks answers off, or has one process less."""
    with serving(tmp_path, engine) as gateway:
        open_stream = stream(gateway.connect(0), "asked to leave")
        asked = gateway.pids[0]
        os.kill(asked, signal.SIGTERM)
        gateway.until(rf"Process 0 drains \(pid {asked}\)")
        gateway.until(r"process=0\] \(TCP Port \d+ Closed\)")
        other = HTTPConnection("127.0.0.1", gateway.port, timeout=LIMIT_S)
        told = health(other)
        assert told["status"] == "ok"
        assert told["processes"] == {"number": 1, "configured": 2, "running": 1, "restarts": 0}
        engine.go("asked to leave")
        assert is_whole(open_stream.end())
        gateway.until(rf"Process 0 \(pid {asked}\) exited; restarting in 0\.1 s")
        gateway.until("Process 0 serves")
        assert gateway.pids[0] != asked
        other.close()


# Stands before every program of Python; spoils the processes, when a file says so.
SPOIL = """
import os, sys

if "brunix_twisted.processes" in sys.orig_argv and os.path.exists(os.environ["SPOIL"]):
    os.write(2, b"what a crash leaves behind")
    os._exit(7)
"""


@pytest.fixture
def spoil(tmp_path: Path) -> Path:
    """Made, this file lets no process start any more."""
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "sitecustomize.py").write_text(SPOIL, "utf-8")
    return tmp_path / "spoil"


def spoiling(spoil: Path) -> dict[str, str]:
    """Write the environment in which it works."""
    return {"PYTHONPATH": str(spoil.parent / "early"), "SPOIL": str(spoil)}


def test_one_keeps_dying(tmp_path: Path, engine: ScriptedEngine, spoil: Path) -> None:
    """A process that cannot live keeps the machine busy, or is given up for ever; or nobody is told why it dies."""
    with serving(tmp_path, engine, **spoiling(spoil)) as gateway:
        spoil.touch()
        os.kill(gateway.pids[1], signal.SIGKILL)
        gateway.until(r"Process 1 \(pid \d+\) was killed by SIGKILL; restarting in 0\.1 s")
        for pause in ("0.2", "0.4", "0.8"):
            gateway.until(r"Process 1 \(pid \d+\) wrote: what a crash leaves behind")
            gateway.until(rf"Process 1 \(pid \d+\) exited with status 7; restarting in {pause} s")
        other = HTTPConnection("127.0.0.1", gateway.port, timeout=LIMIT_S)
        assert health(other)["status"] == "ok"
        assert health(other)["processes"] == {"number": 0, "configured": 2, "running": 1, "restarts": 4}
        other.close()
        spoil.unlink()
        gateway.until("Process 1 serves")


def test_stopped_while_one_is_to_start(tmp_path: Path, engine: ScriptedEngine, spoil: Path) -> None:
    """A gateway that is stopped while it replaces a process starts another one, which nobody stops."""
    with serving(tmp_path, engine, PROXY_DRAIN_S="2", **spoiling(spoil)) as gateway:
        # It makes the drain last longer than what is left of the pause.
        open_stream = stream(gateway.connect(0), "never")
        spoil.touch()
        os.kill(gateway.pids[1], signal.SIGKILL)
        for _ in range(4):
            gateway.until("restarting in")
        assert gateway.stop() == -signal.SIGTERM
        open_stream.connection.close()
        log = gateway.rest()
        assert "Process 1" not in log.partition("Received SIGTERM")[2]
        assert "Traceback" not in log


# Starting.


@pytest.mark.parametrize("text", ["0", "257", "two", "-1"])
def test_not_a_number_of_processes(tmp_path: Path, text: str) -> None:
    """A mistyped number of processes is taken for another one."""
    with supervised(tmp_path, PROXY_PROCESSES=text) as gateway:
        assert gateway.process.wait(LIMIT_S) == 1
        assert gateway.rest() == f"twistd brunix: PROXY_PROCESSES is {text!r}; allowed: a whole number from 1 to 256\n"


def test_an_endpoint_that_cannot_be_shared(tmp_path: Path) -> None:
    """An operator reads a traceback when an endpoint has no socket."""
    with supervised(tmp_path, PROXY_LISTEN="stdio:") as gateway:
        assert gateway.process.wait(LIMIT_S) == 1
        assert "Traceback" not in gateway.rest()
        assert gateway.lines("twistd brunix: PROXY_LISTEN is 'stdio:'; allowed with PROXY_PROCESSES=2: ")


def test_a_port_in_use(tmp_path: Path) -> None:
    """An operator sees a traceback, or processes that seem to serve, when the port is taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"tcp:{server.getsockname()[1]}:interface=127.0.0.1"
        with supervised(tmp_path, PROXY_LISTEN=listen) as gateway:
            assert gateway.process.wait(LIMIT_S) == 1
            assert "Traceback" not in gateway.rest()
            (line,) = gateway.lines("PROXY_LISTEN")
            assert f"twistd brunix: PROXY_LISTEN is '{listen}': " in line
            assert "Address already in use" in line


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
def test_they_crash_at_the_start(tmp_path: Path, spoil: Path, *, daemon: bool) -> None:
    """Whoever starts a gateway whose processes all crash is told that it runs; or crashes go on for ever."""
    spoil.touch()
    path = tmp_path / "gateway.sock"
    done = subprocess.run(  # noqa: S603 - this environment's own twistd
        [TWISTD, *([] if daemon else ["--nodaemon"]), "brunix", "--processes=2", f"--listen=unix:{path}"],
        cwd=tmp_path,
        env=CLEAN | spoiling(spoil),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    log = (tmp_path / "twistd.log").read_text("utf-8") if daemon else done.stdout
    assert done.returncode == 1
    assert "Traceback" not in log + done.stderr
    assert "wrote: what a crash leaves behind" in log
    assert not path.exists()
    # A daemon tells the shell that started it, which does not wait for more.
    told = done.stderr if daemon else log
    assert re.search(r"twistd brunix: process [01] exited with status 7", told)


def test_they_cannot_start(tmp_path: Path, engine: ScriptedEngine) -> None:
    """An operator is not told, in one line, why no process can serve."""
    authority = Authority(tmp_path, "authority")
    server = authority.sign("127.0.0.1")
    with server.key.open("rb") as key:
        # The supervisor has this descriptor, and its processes have not.
        listen = f"ssl:0:interface=127.0.0.1:privateKey=/proc/self/fd/{key.fileno()}:certKey={server.certificate}"
        done = subprocess.run(  # noqa: S603 - this environment's own twistd
            [TWISTD, "--nodaemon", "--pidfile=", "brunix", "--processes=2", f"--listen={listen}"],
            cwd=tmp_path,
            env=CLEAN | {"BRUNIX_GRPC_TARGET": engine.target},
            pass_fds=[key.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "PROXY_LISTEN" in line]
    assert f"twistd brunix: PROXY_LISTEN is '{listen}': " in line
    assert "No such file" in line


def test_daemonised(tmp_path: Path, engine: ScriptedEngine) -> None:
    """``twistd brunix`` without ``--nodaemon`` starts one process, or none, or leaves some behind."""
    port = free_port()
    subprocess.run(  # noqa: S603 - this environment's own twistd
        [TWISTD, "brunix", f"--listen=tcp:{port}:interface=127.0.0.1", "--processes=2"],
        cwd=tmp_path,
        env=CLEAN | {"BRUNIX_GRPC_TARGET": engine.target},
        check=True,
        timeout=LIMIT_S,
    )
    # It returns once they serve.
    pid = int((tmp_path / "twistd.pid").read_text("ascii"))
    processes = children(pid)
    assert len(processes) == 2
    with watched(pid, *processes) as gone:
        connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        assert ask(connection) == "one two "
        connection.close()
        os.kill(pid, signal.SIGTERM)
        gone()
    assert not (tmp_path / "twistd.pid").exists()


# Stopping.


@pytest.mark.parametrize(
    "ask_to_stop",
    [
        lambda pid: os.kill(pid, signal.SIGTERM),
        # What entrypoint.sh does, and a terminal.
        lambda pid: os.killpg(pid, signal.SIGTERM),
        lambda pid: os.killpg(pid, signal.SIGINT),
    ],
    ids=["supervisor", "group", "terminal"],
)
def test_stopping_lets_answers_end(tmp_path: Path, engine: ScriptedEngine, ask_to_stop: Callable[[int], None]) -> None:
    """A restart of the gateway breaks answers off, or leaves processes behind."""
    with serving(tmp_path, engine) as gateway:
        idle = [gateway.connect(number) for number in (0, 1)]
        streams = [stream(gateway.connect(number), "stopped") for number in (0, 1)]
        with watched(*gateway.pids.values()) as gone:
            ask_to_stop(gateway.process.pid)
            # The supervisor's own, and each process's.
            for _ in range(3):
                gateway.until(r"\(TCP Port \d+ Closed\)")
            expect_refusal(gateway.port)
            assert [health(connection)["status"] for connection in idle] == ["draining", "draining"]
            engine.go("stopped")
            assert all(is_whole(open_stream.end()) for open_stream in streams)
            assert gateway.process.wait(LIMIT_S) in {-signal.SIGTERM, -signal.SIGINT}
            gone()
        log = gateway.rest()
        assert "restarting in" not in log
        assert "Traceback" not in log


def test_the_drain_has_an_end(tmp_path: Path, engine: ScriptedEngine) -> None:
    """A gateway that is stopped waits for an answer that never ends."""
    with serving(tmp_path, engine, PROXY_DRAIN_S="0") as gateway:
        open_stream = stream(gateway.connect(0), "never")
        assert gateway.stop() == -signal.SIGTERM
        (line,) = open_stream.end()
        assert "error" in line


def test_one_hangs(tmp_path: Path, engine: ScriptedEngine) -> None:
    """A gateway with a process that hangs cannot be stopped."""
    with serving(tmp_path, engine, PROXY_DRAIN_S="0") as gateway:
        with watched(*gateway.pids.values()) as gone:
            os.kill(gateway.pids[0], signal.SIGSTOP)
            assert gateway.stop() == -signal.SIGTERM
            gone()
        gateway.rest()
        assert gateway.lines(f"Process 0 (pid {gateway.pids[0]}) hangs: killing it")


def test_the_supervisor_is_killed(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Of a gateway that was killed, processes stay behind and hold its port; or they break answers off."""
    with serving(tmp_path, engine) as gateway:
        streams = [stream(gateway.connect(number), "orphaned") for number in (0, 1)]
        with watched(*gateway.pids.values()) as gone:
            gateway.process.kill()
            engine.go("orphaned")
            assert all(is_whole(open_stream.end()) for open_stream in streams)
            gone()
        # The port is free.
        socket.create_server(("127.0.0.1", gateway.port)).close()


@pytest.mark.parametrize("who", ["script", "engine"])
def test_entrypoint(tmp_path: Path, who: str) -> None:
    """Under ``entrypoint.sh`` processes outlive the engine, or a stop."""
    engine = f"localhost:{free_port()}"
    with subprocess.Popen(  # noqa: S603 - our own
        [ROOT / "entrypoint.sh"],
        cwd=tmp_path,
        env=CLEAN
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PROXY_LISTEN": f"tcp:{free_port()}:interface=127.0.0.1",
            "PROXY_PROCESSES": "2",
            "BRUNIX_GRPC_TARGET": engine,
            "BRUNIX_ENGINE_COMMAND": f"{sys.executable} {TESTS / 'support' / 'scripted_engine.py'} {engine}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        gateway = Supervised(process)
        try:
            gateway.until("for Ollama and Anthropic clients")
            # The first to serve answers the probe.
            while len(gateway.pids) < 2:
                gateway.until("Process . serves")
            with watched(*gateway.pids.values()) as gone:
                if who == "script":
                    process.terminate()
                else:
                    os.kill(engine_of(process.pid), signal.SIGKILL)
                gone()
                assert process.wait(LIMIT_S) == (0 if who == "script" else 1)
        finally:
            # It ends what it started.
            process.terminate()
        assert "Traceback" not in gateway.rest()


def engine_of(pid: int) -> int:
    """Find the engine among a process's children."""
    (engine,) = [child for child in children(pid) if b"scripted_engine" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return engine


# Whose turn it is.


class Later:
    """The reactor, with what is to happen later in the test's hands."""

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401 - what a reactor is, no type says
        self._reactor = reactor
        self.addReader, self.removeReader = reactor.addReader, reactor.removeReader
        self.addWriter, self.removeWriter = reactor.addWriter, reactor.removeWriter
        self.calls: list[Callable[[], None]] = []
        self._waiting: Deferred[None] | None = None

    def callLater(self, delay_s: float, call: Callable[..., None], *arguments: object) -> object:
        """Put off what is to happen in a while, but not what Twisted does in its next turn."""
        if not delay_s:
            return self._reactor.callLater(0, call, *arguments)
        self.calls.append(call)
        if (waiting := self._waiting) is not None:
            self._waiting = None
            waiting.callback(None)
        return None

    def asked(self) -> Deferred[None]:
        """Fire when something is put off."""
        self._waiting = Deferred[None]().addTimeout(LIMIT_S, self._reactor)
        return self._waiting


class Arrivals(Factory):
    """Tells of each connection that is accepted."""

    noisy = False

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401 - what a reactor is, no type says
        self._reactor = reactor
        self.connections: list[Protocol] = []
        self._waiting: Deferred[None] | None = None

    def buildProtocol(self, addr: object) -> Protocol:  # noqa: ARG002 - IProtocolFactory
        self.connections.append(Protocol())
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._reactor.callLater(0, waiting.callback, None)
        return self.connections[-1]

    def one_more(self) -> Deferred[None]:
        self._waiting = Deferred[None]().addTimeout(LIMIT_S, self._reactor)
        return self._waiting


@pytest_twisted.ensureDeferred
async def test_who_has_fewer_goes_first() -> None:
    """One process gets most of the streams, and its tokens are late while another has nothing to do."""
    from twisted.internet import reactor  # noqa: PLC0415 - which one, is for pytest's --reactor to choose

    memory = shared_memory(3)
    this, other = ConnectionCounts(memory, 0, 3), ConnectionCounts(memory, 1, 3)
    os.close(memory)
    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)  # noqa: FBT003 - as Twisted binds it
        later = Later(reactor)
        arrivals = Arrivals(reactor)
        port: Any = SharedAcceptReactor(later, server.fileno(), this).listenTCP(0, arrivals)

        def connect() -> None:
            clients.append(socket.create_connection(server.getsockname()))

        # The other two do not accept: nobody to wait for.
        for _ in range(2):
            arrived = arrivals.one_more()
            connect()
            await arrived
        assert later.calls == []

        # Now another one does, and has no connection.
        other.set(0)
        asked = later.asked()
        connect()
        await asked
        assert len(arrivals.connections) == 2
        # It does not come.
        later.calls.pop()()
        assert len(arrivals.connections) == 3

        # It does come: what is looked for then is not there any more.
        asked = later.asked()
        connect()
        await asked
        server.accept()[0].close()
        later.calls.pop()()
        assert len(arrivals.connections) == 3

        # Nobody waits for one that has as many.
        other.set(len(arrivals.connections))
        arrived = arrivals.one_more()
        connect()
        await arrived
        assert later.calls == []

        # A connection that has ended does not count.
        assert this.has_more()
        for connection in arrivals.connections[:2]:
            await hung_up(connection)
        assert not this.has_more()

        # One that has stopped to accept is nobody's concern, though connections of its end.
        assert other.has_more()
        await port.stopListening()
        assert not other.has_more()
        for connection in arrivals.connections[2:]:
            await hung_up(connection)
        assert not other.has_more()
    for client in clients:
        client.close()


def hung_up(connection: Any) -> Deferred[None]:  # noqa: ANN401 - a Protocol, whose method is replaced
    """End a connection; fires when it has ended."""
    lost: Deferred[None] = Deferred()
    connection.connectionLost = lambda _: lost.callback(None)
    connection.transport.loseConnection()
    return lost


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_connections_are_counted(tmp_path: Path, engine: ScriptedEngine, family: str) -> None:
    """Processes do not know who of them has fewer connections, and one gets most of them."""
    path = tmp_path / "gateway.sock"
    listen = LISTEN if family == "tcp" else f"unix:{path}"
    with supervised(tmp_path, f"--listen={listen}", BRUNIX_GRPC_TARGET=engine.target) as gateway:
        serving = gateway.until("Serving the model .* (?:port=([0-9]+)|UNIXAddress)")
        connections: list[HTTPConnection] = []
        for _ in range(5):
            if family == "tcp":
                connections.append(HTTPConnection("127.0.0.1", int(serving[1]), timeout=LIMIT_S))
            else:
                connections.append(UnixConnection(path))
        numbers = [health(connection)["processes"]["number"] for connection in connections]
        assert counted(gateway.process.pid) == [numbers.count(0), numbers.count(1)]
        for connection in connections:
            connection.close()


def counted(pid: int) -> list[int]:
    """Read the numbers that the processes share."""
    (memory,) = [
        file for file in Path(f"/proc/{pid}/fd").iterdir() if "brunix-connection-counts" in str(file.readlink())
    ]
    return list(memoryview(memory.read_bytes()).cast("i"))


# What goes through the pipes.


def test_a_failure_in_the_log() -> None:
    """The log of several processes says that something failed, and not what."""
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe:  # noqa: PTH123 - a descriptor, no path
        log = Logger(namespace="a.room", observer=LogPublisher(Messages(pipe, lambda: False)))
        try:
            int("no nümber\nat all")
        except ValueError:
            log.failure("Request {request_id} failed after {ms:.1f} ms", request_id="r1", ms=0.123456)
    line = os.read(reading, 1 << 16)
    os.close(reading)
    assert line.count(b"\n") == 1
    kind, event = read_message(line.rstrip(b"\n"))
    assert kind == "log"
    text = eventAsText(event, includeTimestamp=False)
    assert text.startswith("[a.room#critical] Request r1 failed after 0.1 ms\nTraceback (most recent call last):\n")
    assert "test_a_failure_in_the_log" in text
    assert "builtins.ValueError: invalid literal for int() with base 10: 'no nümber\\nat all'" in text
    assert (event["request_id"], event["ms"]) == ("r1", 0.123456)


def test_lines() -> None:
    """What a process says is cut in the wrong place, and not understood."""
    lines = Lines()
    assert list(lines.feed(b"on")) == []
    assert list(lines.feed(b"e\ntwo\nth")) == [b"one", b"two"]
    assert list(lines.end()) == [b"th"]
    assert list(lines.end()) == []
    assert list(lines.feed(b"x" * 100_000)) == [b"x" * 100_000]
    assert list(lines.feed(b"x" * 100_000, max_bytes=None)) == []


# Their state.


def test_the_private_state_is_removed(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Stored answers stay in the folder for temporary files, or other users can read them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    with serving(tmp_path, engine, TMPDIR=str(folder)) as gateway:
        for number in (0, 1):
            with closing(gateway.connect(number)) as connection:
                until_ok(lambda connection=connection: health(connection)["state"])  # type: ignore[misc]
        (private,) = folder.iterdir()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert "state.sqlite" in {file.name for file in private.iterdir()}
        os.kill(gateway.pids[0], signal.SIGKILL)
        gateway.until("Process 0 serves")
        assert list(folder.iterdir()) == [private]
        gateway.stop()
        assert list(folder.iterdir()) == []


def test_the_private_state_of_a_killed_supervisor_is_removed(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Stored answers stay in the folder for temporary files after a crash."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    with serving(tmp_path, engine, TMPDIR=str(folder)) as gateway, watched(*gateway.pids.values()) as gone:
        assert len(list(folder.iterdir())) == 1
        gateway.process.kill()
        gone()
        assert list(folder.iterdir()) == []


def test_one_secret(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Processes that share a database find each other's conversations."""
    path = tmp_path / "state" / "state.sqlite"
    secret = tmp_path / "state" / "state.sqlite.secret"
    with serving(tmp_path, engine, PROXY_STATE=f"sqlite:{path}") as gateway:
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        before = secret.read_text()
        with closing(gateway.connect(1)) as connection:
            until_ok(lambda: health(connection)["state"])
        gateway.stop()
        # A gateway without the private database leaves none.
        assert before.strip() not in gateway.rest()
    with serving(tmp_path, engine, PROXY_STATE=f"sqlite:{path}"):
        assert secret.read_text() == before


def test_no_folder_for_the_private_state(tmp_path: Path, engine: ScriptedEngine) -> None:
    """A machine whose disk is full starts the gateway, and the log says what is lost."""
    fault = "[Errno 28] No space left on device"
    (tmp_path / "early").mkdir()
    code = "import errno, os, tempfile\ndef fail(**_):\n    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
    (tmp_path / "early" / "sitecustomize.py").write_text(f"{code}tempfile.mkdtemp = fail\n")
    with supervised(tmp_path, BRUNIX_GRPC_TARGET=engine.target, PYTHONPATH=str(tmp_path / "early")) as gateway:
        line = gateway.until("do not share conversations").string
        assert fault in line
        assert "Set PROXY_STATE=sqlite:PATH." in line
        gateway.port = int(gateway.until(r"Serving the model .* port=(\d+)")[1])
        connection = gateway.connect(0)
        assert health(connection)["state"] == "ok"
        connection.close()
