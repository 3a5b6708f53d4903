"""The probe: whom it asks, what it makes of the answer, and what it says then."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import socket
import socketserver
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from brunix_twisted import probe
from brunix_twisted.probe import Address, UnknownAddressError
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


def run(listen: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "brunix_twisted.probe", *arguments],
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
    """The banner never came, or a health check failed, although the gateway was up: it was looked for elsewhere."""
    assert probe.address(description) == expected

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
        ("systemd:domain=INET:index=0", "tcp:, tcp6: and unix: only"),
        ("ssl:443:privateKey=key.pem", "tcp:, tcp6: and unix: only"),
        ("port=8000", "tcp:, tcp6: and unix: only"),
        ("tcp:0", "no port"),
        ("tcp:65536", "no port"),
        ("tcp:http", "no port"),
        ("tcp:", "no port"),
        ("tcp6:interface=x", "no port"),
        ("unix:", "no path"),
        ("unix", "no path"),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_an_address_that_no_client_can_follow_is_refused(
    description: str, words: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The probe asked some other address, or waited forever, in place of one line that says what is wrong."""
    with pytest.raises(UnknownAddressError, match=words):
        probe.address(description)

    assert probe.main(arguments, {"PROXY_LISTEN": description}) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert repr(description) in written.err


def test_a_bad_setting_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A bad setting showed as a traceback, or as a gateway that never comes up."""
    assert probe.main(["--once"], {"PROXY_MODEL_ID": "a b"}) == 2
    written = capsys.readouterr()
    assert written.err.count("\n") == 1
    assert "PROXY_MODEL_ID is 'a b'" in written.err


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix"])
def test_once_passes_when_gateway_and_engine_answer(serve: Serve, kind: str) -> None:
    """A container with a healthy gateway counted as unhealthy and was restarted."""
    listen, asked = serve(kind)
    done = run(listen, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{probe.address(listen)}: the gateway and the engine answer\n"
    ((path, host),) = (line.split(" ") for line in asked)
    assert path == "/health"
    assert host in {"localhost", probe.address(listen).url.removeprefix("http://")}


@pytest.mark.parametrize(
    ("status", "body_bytes", "words"),
    [
        (503, LOADING, "the gateway answers, the engine does not yet: 503 'engine unavailable'"),
        (503, b"busy", "what answers there is not the gateway: 503 'Service Unavailable'"),
        (200, b"<!doctype html>", "what answers there is not the gateway: 200 'OK'"),
        (200, b"[" * 9_000, "what answers there is not the gateway: 200 'OK'"),
        (404, b'{"detail":"Not Found"}', "what answers there is not the gateway: 404 'Not Found'"),
        (500, b'["status"]', "what answers there is not the gateway: 500 'Internal Server Error'"),
        (503, b'{"status":"\\u001b[2J\\n"}', r"the gateway answers, the engine does not yet: 503 '\x1b[2J\n'"),
    ],
)
def test_once_fails_with_the_reason(serve: Serve, status: int, body_bytes: bytes, words: str) -> None:
    """A gateway without an engine counted as healthy, or the check did not say in one line what was missing."""
    listen, _ = serve(status=status, body_bytes=body_bytes)
    done = run(listen, "--once")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == f"{probe.address(listen)}: {words}\n"


def test_once_fails_when_nobody_listens(tmp_path: Path) -> None:
    """A container whose gateway was gone counted as healthy, or the health check ended in a traceback."""
    with socket.socket() as bound:  # bound but not listening: nobody else can take the port meanwhile
        bound.bind(("127.0.0.1", 0))
        done = run(f"tcp:{bound.getsockname()[1]}", "--once")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith(": the gateway does not answer: Connection refused\n")

    done = run(f"unix:{tmp_path}/none.sock", "--once")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith(": the gateway does not answer: No such file or directory\n")

    done = run(f"unix:{tmp_path}/{'long' * 100}", "--once")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith(": the gateway does not answer: AF_UNIX path too long\n")


def test_a_server_that_says_nothing_is_given_up_on() -> None:
    """A health check hung on a gateway that had stopped answering."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run(f"tcp:{silent.getsockname()[1]}", "--once")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith(": the gateway does not answer: timed out\n")


def test_a_server_that_speaks_no_http_is_told_of() -> None:
    """Another program on the gateway's port made the health check end in a traceback."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"220 mail.example ESMTP\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server, serving(server):
        missing = probe.trouble(Address("127.0.0.1", server.server_address[1]), timeout_s=LIMIT_S)
    assert missing == "what answers there is not the gateway: it speaks no HTTP"


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
    """An engine that takes an hour to load was given up on, or nobody could tell what was being waited for."""
    time = Time()
    told: list[tuple[float, str]] = []
    probe.wait_until_up(
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
    """The banner came long after the gateway was up."""
    time = Time()
    probe.wait_until_up(lambda: None if time.now_s >= 2 else "no engine", pytest.fail, time.clock, time.sleep)
    assert time.now_s < 3


def test_an_answer_to_the_first_try_is_confirmed() -> None:
    """A second gateway on the same port was announced as up, on the strength of the first one's answer."""
    time = Time()
    answers = [None, "gone", "gone", None]
    probe.wait_until_up(lambda: answers.pop(0), pytest.fail, time.clock, time.sleep)
    assert answers == []
    assert time.now_s >= probe.CONFIRMATION_S


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
    """The curl line of the banner, pasted into a shell, asked the wrong address or sent something else than JSON."""
    text = probe.banner(where, "team/model-1.5:latest")
    *command, url, option, body = words_to_try(text)
    assert (command, url, option) == (curl, f"{base}/v1/chat/completions", "-d")
    question = json.loads(body)
    assert (question["model"], question["stream"]) == ("team/model-1.5:latest", True)
    assert [message["role"] for message in question["messages"]] == ["user"]
    assert f"{base}/v1" in text
    assert f"brunix is up: {where}  model: team/model-1.5:latest\n" in text
    assert 4 <= len(text.splitlines()) <= 6


def test_waiting_ends_with_the_banner(serve: Serve) -> None:
    """Nothing said that the gateway was up, or it named another model than the one that was set."""
    listen, _ = serve()
    done = run(listen, PROXY_MODEL_ID="mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == probe.banner(probe.address(listen), "mine") + "\n"


def test_no_reactor_is_loaded_for_a_health_check() -> None:
    """Each health check took most of a second of a busy machine, by loading all of Twisted to send one request."""
    program = "import sys, brunix_twisted.probe; print([name for name in sys.modules if name.startswith('twisted')])"
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", program], env=CLEAN, capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert done.stdout == "[]\n"
