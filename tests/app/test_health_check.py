"""`brunix health`: which address it checks, and what it reports; and its older name, `brunix_twisted.probe`."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import socket
import socketserver
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from brunix_twisted.app import health_check
from brunix_twisted.app.health_check import Address, UnknownAddressError
from isolation import CLEAN
from threads import Threads

LIMIT_S = 60
"""Only for what would otherwise hang a failing run."""

READY = json.dumps({"status": "ok"}).encode()
LOADING = json.dumps({"status": "engine unavailable"}).encode()


def handler(status: int, body_bytes: bytes, asked: list[str]) -> type[BaseHTTPRequestHandler]:
    """A server's answer to every GET. ``asked`` gets each path and Host."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers['Host']}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body_bytes)))
            self.end_headers()
            self.wfile.write(body_bytes)

        def address_string(self) -> str:
            return "somebody"  # over a Unix socket there is no address to log

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - http.server's signature
            """Keep quiet."""

    return Handler


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    with server, Threads() as threads:
        threads.start(server.serve_forever, 0.01)
        try:
            yield
        finally:
            server.shutdown()


Serve = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server that gives one answer. Returns its PROXY_LISTEN and the list of what it was asked."""
    with ExitStack() as stack:

        def start(kind: str = "tcp", status: int = 200, body_bytes: bytes = READY) -> tuple[str, list[str]]:
            asked: list[str] = []
            answer = handler(status, body_bytes, asked)
            if kind == "unix":
                path = tmp_path / "gateway.sock"
                stack.enter_context(serving(socketserver.UnixStreamServer(os.fspath(path), answer)))
                return f"unix:{path}", asked
            server: socketserver.TCPServer
            if kind == "tcp6":
                try:
                    server = V6Server(("::1", 0), answer)
                except OSError as error:
                    pytest.skip(f"no IPv6 on this machine: {error}")
            else:
                server = socketserver.TCPServer(("127.0.0.1", 0), answer)
            stack.enter_context(serving(server))
            port = server.server_address[1]
            return (f"tcp6:{port}:interface=\\:\\:1" if kind == "tcp6" else f"tcp:{port}"), asked

        yield start


class V6Server(socketserver.TCPServer):
    """A TCP server whose addresses are those of IPv6."""

    address_family = socket.AF_INET6


HEALTH = ("brunix_twisted", "health")
WAIT = (*HEALTH, "--wait")
# Deployments written for earlier releases have these.
OLD_HEALTH = ("brunix_twisted.probe", "--once")
OLD_WAIT = ("brunix_twisted.probe",)
either = pytest.mark.parametrize("command", [HEALTH, OLD_HEALTH], ids=["health", "probe"])


def run(
    listen: str, *arguments: str, command: Sequence[str] = HEALTH, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", *command, *arguments],
        env=CLEAN | {"PROXY_LISTEN": listen} | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("tcp:8000", Address("127.0.0.1", 8000)),
        ("tcp:8000:interface=127.0.0.1", Address("127.0.0.1", 8000)),
        ("tcp:8000:interface=0.0.0.0", Address("127.0.0.1", 8000)),
        ("tcp:8000:interface=", Address("127.0.0.1", 8000)),
        ("tcp:8000:interface=192.0.2.7:backlog=5", Address("192.0.2.7", 8000)),
        ("tcp:8000:192.0.2.7", Address("192.0.2.7", 8000)),
        ("tcp:port=8000", Address("127.0.0.1", 8000)),
        (r"tcp:8000:interface=\:\:1", Address("::1", 8000)),
        ("tcp6:8000", Address("::1", 8000)),
        (r"tcp6:8000:interface=\:\:", Address("::1", 8000)),
        (r"tcp6:8000:interface=2001\:db8\:\:7", Address("2001:db8::7", 8000)),
        (r"tcp6:8000:5:2001\:db8\:\:7", Address("2001:db8::7", 8000)),
        ("unix:/run/brunix.sock", Address(path="/run/brunix.sock")),
        ("unix:address=/run/brunix.sock:mode=660", Address(path="/run/brunix.sock")),
        (r"unix:/run/a\:b\\c.sock:lockfile=0", Address(path=r"/run/a:b\c.sock")),
        ("unix:/run/a%20b.sock", Address(path="/run/a%20b.sock")),
        (r"unix:/run/a\=b.sock", Address(path="/run/a=b.sock")),
        ("unix:address=/run/a=b.sock", Address(path="/run/a=b.sock")),
    ],
)
def test_where_the_gateway_listens_is_where_it_is_asked(description: str, expected: Address) -> None:
    """The check finds the gateway at every address that it can listen on."""
    assert health_check.address(description) == expected

    # Twisted, which the gateway listens with, reads the same description the same way.
    reactor = MemoryReactor()
    serverFromString(reactor, description).listen(Factory())
    if expected.path is not None:
        ((path, *_),) = reactor.unixServers
        assert path == expected.path
    else:
        ((port, _, _, interface),) = reactor.tcpServers
        assert port == expected.port
        assert interface in {expected.host, "", "0.0.0.0", "::"}  # noqa: S104 - an expectation


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("systemd:domain=INET:index=0", "only tcp:, tcp6: and unix:"),
        ("ssl:443:privateKey=key.pem", "only tcp:, tcp6: and unix:"),
        ("port=8000", "only tcp:, tcp6: and unix:"),
        ("tcp:0", "without a port"),
        ("tcp:65536", "without a port"),
        ("tcp:http", "without a port"),
        ("tcp:", "without a port"),
        ("tcp6:interface=x", "without a port"),
        ("unix:", "without a path"),
        ("unix", "without a path"),
    ],
)
@pytest.mark.parametrize("wait", [False, True])
def test_an_address_that_cannot_be_checked(
    description: str, words: str, capsys: pytest.CaptureFixture[str], *, wait: bool
) -> None:
    """One line says what is wrong; no other address is checked, and nothing is waited for."""
    with pytest.raises(UnknownAddressError, match=words):
        health_check.address(description)

    assert health_check.check({"PROXY_LISTEN": description}, wait=wait) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert repr(description) in written.err


def test_a_bad_setting_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong setting is reported in one line, and not as a gateway that never comes up."""
    assert health_check.check({"PROXY_MODEL_ID": "a b"}, wait=False) == 2
    written = capsys.readouterr()
    assert written.err.count("\n") == 1
    assert "PROXY_MODEL_ID is 'a b'" in written.err


@either
@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix"])
def test_healthy(serve: Serve, kind: str, command: Sequence[str]) -> None:
    """A container whose gateway and engine answer counts as healthy."""
    listen, asked = serve(kind)
    done = run(listen, command=command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{health_check.address(listen)}: the gateway and the engine are healthy\n"
    ((path, host),) = (line.split(" ") for line in asked)
    assert path == "/health"
    assert host in {"localhost", health_check.address(listen).url.removeprefix("http://")}


@either
@pytest.mark.parametrize(
    ("status", "body_bytes", "words"),
    [
        (503, LOADING, "the gateway is up, the engine is not healthy yet: 503 'engine unavailable'"),
        (503, b"busy", "the server there is not the gateway: 503 'Service Unavailable'"),
        (200, b"<!doctype html>", "the server there is not the gateway: 200 'OK'"),
        (200, b"[" * 9_000, "the server there is not the gateway: 200 'OK'"),
        (404, b'{"detail":"Not Found"}', "the server there is not the gateway: 404 'Not Found'"),
        (500, b'["status"]', "the server there is not the gateway: 500 'Internal Server Error'"),
        (503, b'{"status":"\\u001b[2J\\n"}', r"the gateway is up, the engine is not healthy yet: 503 '\x1b[2J\n'"),
    ],
)
def test_unhealthy(serve: Serve, status: int, body_bytes: bytes, words: str, command: Sequence[str]) -> None:
    """A gateway without an engine counts as unhealthy, and one line has the reason."""
    listen, _ = serve(status=status, body_bytes=body_bytes)
    done = run(listen, command=command)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == f"{health_check.address(listen)}: {words}\n"


def test_without_a_gateway(tmp_path: Path) -> None:
    """A container whose gateway is gone counts as unhealthy, and one line has the reason."""
    with socket.socket() as bound:  # bound but not listening: nobody else can take the port meanwhile
        bound.bind(("127.0.0.1", 0))
        done = run(f"tcp:{bound.getsockname()[1]}")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith(": the gateway is unreachable: Connection refused\n")

    done = run(f"unix:{tmp_path}/none.sock")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith(": the gateway is unreachable: No such file or directory\n")

    done = run(f"unix:{tmp_path}/{'long' * 100}")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith(": the gateway is unreachable: AF_UNIX path too long\n")


def test_a_server_that_says_nothing() -> None:
    """A check of a gateway that hangs times out."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run(f"tcp:{silent.getsockname()[1]}")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith(": the gateway is unreachable: timed out\n")


def test_a_server_that_speaks_no_http() -> None:
    """Another program on the gateway's port is reported as that."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"220 mail.example ESMTP\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server, serving(server):
        missing = health_check.unhealthy_reason(Address("127.0.0.1", server.server_address[1]), timeout_s=LIMIT_S)
    assert missing == "the server there is not the gateway: it does not speak HTTP"


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        """Seconds since the test began."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass, at once."""
        self.now_s += seconds


def test_waiting_has_no_end_but_is_not_silent() -> None:
    """An engine may take an hour to load, and meanwhile the log says what is missing."""
    time = Time()
    told: list[tuple[float, str]] = []
    health_check.wait_until_up(
        lambda: None if time.now_s >= 3600 else "no engine",
        lambda missing: told.append((time.now_s, missing)),
        time.clock,
        time.sleep,
    )
    assert 3600 <= time.now_s < 3602
    assert {missing for _, missing in told} == {"no engine"}
    told_s = [0.0, *(now_s for now_s, _ in told), 3600.0]
    assert all(10 <= later - earlier < 12 for earlier, later in itertools.pairwise(told_s[:-1]))
    assert told_s[-1] - told_s[-2] < 12


def test_up_is_said_soon() -> None:
    """The banner comes within a second of the gateway being up."""
    time = Time()
    health_check.wait_until_up(lambda: None if time.now_s >= 2 else "no engine", pytest.fail, time.clock, time.sleep)
    assert time.now_s < 3


def test_an_answer_to_the_first_try_is_confirmed() -> None:
    """A second gateway on the same port is not announced because the first one answers."""
    time = Time()
    answers = [None, "gone", "gone", None]
    health_check.wait_until_up(lambda: answers.pop(0), pytest.fail, time.clock, time.sleep)
    assert answers == []
    assert time.now_s >= health_check.CONFIRMATION_S


def words_to_try(banner: str) -> list[str]:
    (line,) = (line for line in banner.splitlines() if line.startswith("  try:"))
    return shlex.split(line)[1:]


@pytest.mark.parametrize(
    ("where", "curl", "base"),
    [
        (Address("127.0.0.1", 8000), ["curl"], "http://127.0.0.1:8000"),
        (Address("::1", 8000), ["curl"], "http://[::1]:8000"),
        (Address(path="/run/a b's.sock"), ["curl", "--unix-socket", "/run/a b's.sock"], "http://localhost"),
    ],
)
def test_the_line_to_try_works_when_pasted(where: Address, curl: list[str], base: str) -> None:
    """The curl line of the banner, pasted into a shell, asks the right address and sends JSON."""
    text = health_check.banner(where, "team/model-1.5:latest")
    *command, url, option, body = words_to_try(text)
    assert (command, url, option) == (curl, f"{base}/v1/chat/completions", "-d")
    question = json.loads(body)
    assert (question["model"], question["stream"]) == ("team/model-1.5:latest", True)
    assert [message["role"] for message in question["messages"]] == ["user"]
    assert f"{base}/v1" in text
    assert f"brunix is up: {where}  model: team/model-1.5:latest\n" in text
    assert 4 <= len(text.splitlines()) <= 6


@pytest.mark.parametrize("command", [WAIT, OLD_WAIT], ids=["health", "probe"])
def test_waiting_ends_with_the_banner(serve: Serve, command: Sequence[str]) -> None:
    """When the gateway is up, its address, its model and an example are printed."""
    listen, _ = serve()
    done = run(listen, command=command, PROXY_MODEL_ID="mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == health_check.banner(health_check.address(listen), "mine") + "\n"


@pytest.mark.parametrize(
    ("body_bytes", "encoding", "asked"),
    [
        (b'{"status": "ok", "questions": ["What is \'Floop\'?", "When?"]}', "utf-8", "What is 'Floop'?"),
        ('{"status": "ok", "questions": ["¿Qué es?"]}'.encode(), "utf-8", "¿Qué es?"),
        ('{"status": "ok", "questions": ["¿Qué es?"]}'.encode(), "ascii", "¿Qué es?"),
        (b'{"status": "ok", "questions": []}', "utf-8", health_check.DEFAULT_QUESTION),
        (b'{"status": "ok", "questions": [3]}', "utf-8", health_check.DEFAULT_QUESTION),
        (b'{"status": "ok", "questions": ["a\\u001b[2J"]}', "utf-8", health_check.DEFAULT_QUESTION),
        (b'{"status": "ok", "questions": 3}', "utf-8", health_check.DEFAULT_QUESTION),
    ],
)
def test_the_line_to_try_asks_about_the_documents(serve: Serve, body_bytes: bytes, encoding: str, asked: str) -> None:
    """The line asks what the documents answer; an engine that reports no question gets one that fits any."""
    listen, paths = serve(body_bytes=body_bytes)
    done = run(listen, command=WAIT, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(words_to_try(done.stdout)[-1])["messages"] == [{"role": "user", "content": asked}]
    assert ("¿" in done.stdout) == ("¿" in asked and encoding == "utf-8")
    assert paths[-1].startswith("/page/questions.json ")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (HEALTH, "brunix health"),
        (WAIT, "brunix health"),
        *((old, "brunix_twisted.probe") for old in (OLD_HEALTH, OLD_WAIT)),
    ],
)
def test_a_wrong_address(command: Sequence[str], name: str) -> None:
    """A check that cannot be made ends at once, with a status of its own."""
    done = run("tcp:0", command=command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{name}: PROXY_LISTEN is 'tcp:0', without a port from 1 to 65535\n"


def test_json(serve: Serve) -> None:
    """A program reads the result, and what is wrong, without taking lines apart."""
    listen, _ = serve()
    where = str(health_check.address(listen))
    healthy = {"healthy": True, "address": where, "model": "brunix", "reason": None}
    for wait in ((), ("--wait",)):
        done = run(listen, "--json", *wait)
        assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, healthy, "")
    listen, _ = serve(status=503, body_bytes=LOADING)
    done = run(listen, "--json", PROXY_MODEL_ID="mine")
    reason = "the gateway is up, the engine is not healthy yet: 503 'engine unavailable'"
    unhealthy = {"healthy": False, "address": str(health_check.address(listen)), "model": "mine", "reason": reason}
    assert (done.returncode, json.loads(done.stdout)) == (1, unhealthy)
    done = run("tcp:0", "--json")
    reason = "PROXY_LISTEN is 'tcp:0', without a port from 1 to 65535"
    assert (done.returncode, json.loads(done.stdout)) == (
        2,
        unhealthy | {"address": None, "model": None, "reason": reason},
    )


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends the wait without a traceback, with the status that shells give it."""
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))
        server.listen()
        process = subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, "-m", *WAIT],
            env=CLEAN | {"PROXY_LISTEN": f"unix:{path}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = server.accept()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=LIMIT_S) == ("", "")
        connection.close()
    assert process.returncode == 130


@pytest.mark.parametrize("command", [HEALTH, OLD_HEALTH], ids=["health", "probe"])
def test_little_is_loaded_for_a_check(serve: Serve, command: Sequence[str]) -> None:
    """A check, which containers make every few seconds, takes little of a busy machine's time."""
    listen, _ = serve()
    program = (
        "import runpy, sys\n"
        f"sys.argv = {['', *command[1:]]!r}\n"
        "try:\n"
        f"    runpy.run_module({command[0]!r}, run_name='__main__')\n"
        "except SystemExit as error:\n"
        "    print(error.code, *sys.modules)\n"
    )
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", program],
        env=CLEAN | {"PROXY_LISTEN": listen},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    status, *modules = done.stdout.splitlines()[-1].split()
    assert status == "0"
    assert not {name.partition(".")[0] for name in modules} & {"twisted", "grpc", "asyncio", "OpenSSL", "zope"}
