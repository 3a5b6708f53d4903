"""A wall clock that is set while the gateway runs changes no duration, in any process; timestamps follow it."""

from __future__ import annotations

import ast
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any

import attrs
import grpc
import pytest

from architecture import FILES, PACKAGE
from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from endpoints import CHAT, asking, streamed
from fake_reactor import LIMIT_S
from isolation import CLEAN
from scripted_engine import ScriptedEngine, script
from supervised import Told, port_of
from twistd import TWISTD
from wall_clock import HOUR_S, WallClock, in_everything, in_python


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    """The clock to set: where libfaketime is installed, also that of gRPC and every other library."""
    return in_everything(tmp_path) or in_python(tmp_path)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    with closing(Told(str(tmp_path / "notify.sock"))) as told:
        yield told


@attrs.frozen
class Gateway:
    """A gateway that serves."""

    process: subprocess.Popen[str]
    port: int
    clock: WallClock

    def connect(self, number: int) -> HTTPConnection:
        """Connect to the process of this number, or to the only one."""
        others = []
        while True:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
            connection.request("GET", "/health")
            processes = json.loads(connection.getresponse().read()).get("processes")
            if processes is None or processes["number"] == number:
                break
            # Held open meanwhile: the process with fewer connections gets the next.
            others.append(connection)
        for other in others:
            other.close()
        return connection

    def ask(self, *steps: object, number: int | None = None) -> Answer:
        """Begin a streamed answer, of the process with this number or of any."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S) if number is None else self.connect(number)
        connection.request("POST", CHAT, json.dumps(asking(CHAT, script(*steps))))
        return Answer(connection, connection.getresponse())


@attrs.frozen
class Answer:
    """A streamed answer."""

    connection: HTTPConnection
    response: IO[bytes]
    lines: list[bytes] = attrs.Factory(list)

    def until(self, wanted: bytes, times: int = 1) -> None:
        """Read up to the line that has this in it."""
        while times:
            line = self.response.readline()
            assert line, b"".join(self.lines)
            self.lines.append(line)
            times -= wanted in line

    def rest(self) -> bytes:
        """Read to the end, and give all of it."""
        self.lines.append(self.response.read())
        self.connection.close()
        return b"".join(self.lines)


FIRST_TOKEN_TIMEOUT_S = 3
GATEWAYS: dict[str, tuple[str, dict[str, str]]] = {
    "default": ("default", {}),
    "without threads": ("asyncio", {"PROXY_ENGINE_CLIENT": "aio"}),
    "two processes": ("default", {"PROXY_PROCESSES": "2", "PROXY_THREAD_WORKERS": "1"}),
}


@pytest.fixture(params=GATEWAYS)
def gateway(
    request: pytest.FixtureRequest, tmp_path: Path, engine: ScriptedEngine, told: Told, clock: WallClock
) -> Iterator[Gateway]:
    """A gateway of each kind, with short intervals between heartbeats and watchdog messages."""
    reactor, settings = GATEWAYS[request.param]
    process = subprocess.Popen(  # noqa: S603 - this environment's own twistd
        [TWISTD, f"--reactor={reactor}", "--nodaemon", "--pidfile=", "brunix"],
        cwd=tmp_path,
        env=CLEAN
        | clock.environment
        | {
            "NOTIFY_SOCKET": told.path,
            "WATCHDOG_USEC": "200000",
            "BRUNIX_GRPC_TARGET": engine.target,
            "PROXY_LISTEN": "tcp:0:interface=127.0.0.1",
            "PROXY_HEARTBEAT_S": "0.1",
            "PROXY_FIRST_TOKEN_TIMEOUT_S": str(FIRST_TOKEN_TIMEOUT_S),
            "PROXY_THREAD_WORKERS": "2",
        }
        | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Gateway(process, port_of(process, told.until("READY")["STATUS"]), clock)
    finally:
        process.kill()
        process.communicate()


HEARTBEAT = b": keep-alive"


def test_a_clock_that_is_set(gateway: Gateway, engine: ScriptedEngine, told: Told) -> None:
    """
    Setting the clock by an hour, forward and back, changes nothing for clients and systemd.

    Set forward, it would end streams that wait with ``engine_timeout``, and questions in the queue with 503. Set back,
    it would stop heartbeats, time limits and watchdog messages.
    """
    open_answer = gateway.ask("one ", {"wait": "go"}, "two", number=0)
    open_answer.until(b"one ")
    asked_s = time.monotonic()
    silent = gateway.ask({"hang": True}, number=1)
    silent.until(HEARTBEAT)
    engine.call(1)
    # Both slots are taken, so these wait in the queue.
    waiting = [gateway.ask("one ", {"wait": "go"}, "two") for _ in range(4)]
    for answer in waiting:
        answer.until(HEARTBEAT)
    for shift_s in (HOUR_S, -HOUR_S):
        gateway.clock.set(shift_s)
        for answer in (open_answer, *waiting):
            answer.until(HEARTBEAT, 3)
        told.rest()
        for _ in range(3):
            assert told.next() == {"WATCHDOG": "1"}
    # The limit of the first token ends what the engine does not answer, in its time, and nothing else.
    assert streamed(CHAT, silent.rest()).error == "The engine did not begin to answer in time"
    assert time.monotonic() - asked_s >= FIRST_TOKEN_TIMEOUT_S
    engine.go("go")
    for answer in (open_answer, *waiting):
        found = streamed(CHAT, answer.rest())
        assert (found.text, found.complete) == ("one two", True)
    gateway.process.terminate()
    assert gateway.process.wait(LIMIT_S) == -signal.SIGTERM


def test_the_embedded_engine(tmp_path: Path, clock: WallClock) -> None:
    """A clock that is set back does not stop the tokens of the embedded engine."""
    with subprocess.Popen(
        [sys.executable, "-m", "brunix_twisted.embedded", "--listen=127.0.0.1:0", "--tokens-per-second=60"],
        cwd=tmp_path,
        env=CLEAN | clock.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"listening on (\S+):", process.stdout.readline())
            assert found
            with grpc.insecure_channel(found[1]) as channel:
                request = brunix_pb2.AgentRequest(query="How do I limit the number of workers?")
                answer = brunix_pb2_grpc.AssistanceEngineStub(channel).AskAgentStream(request, timeout=LIMIT_S)
                next(answer)
                clock.set(-HOUR_S)
                *_, last = answer
                assert last.is_final
            process.terminate()
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()


DAY_S = 24 * HOUR_S
FAR_S = 1000 * DAY_S


def test_timestamps_follow_the_wall_clock(tmp_path: Path, engine: ScriptedEngine) -> None:
    """What is shown as a time of day is one: in answers, in the header Date, and in the log."""
    clock = in_python(tmp_path)
    clock.set(FAR_S)
    with subprocess.Popen(  # noqa: S603 - this environment's own twistd
        [TWISTD, "--nodaemon", "--pidfile=", "brunix"],
        cwd=tmp_path,
        env=CLEAN
        | clock.environment
        | {
            "BRUNIX_GRPC_TARGET": engine.target,
            "PROXY_LISTEN": "tcp:0:interface=127.0.0.1",
            "PROXY_LOG_FORMAT": "json",
        },
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = next(
                found[1] for line in process.stdout if (found := re.search(r"Serving the model .* port=(\d+)", line))
            )

            def told(method: str, path: str, body: object = None) -> tuple[Any, float]:
                connection = HTTPConnection("127.0.0.1", int(port), timeout=LIMIT_S)
                connection.request(method, path, None if body is None else json.dumps(body))
                response = connection.getresponse()
                answer = json.loads(response.read())
                connection.close()
                return answer, parsedate_to_datetime(str(response.getheader("Date"))).timestamp()

            chat, date_s = told("POST", CHAT, asking(CHAT, "one two", stream=False))
            models, _ = told("GET", "/v1/models")
            generated, _ = told("POST", "/api/generate", {"model": "brunix", "prompt": "one", "stream": False})
            process.terminate()
            logged = [json.loads(line)["timestamp"] for line in process.stdout]
        finally:
            process.kill()
    now_s = time.time() + FAR_S
    years = {time.gmtime(now_s).tm_year, time.gmtime(now_s - DAY_S).tm_year}
    for shown_s in (date_s, chat["created"], models["data"][0]["created"]):
        assert abs(shown_s - now_s) < DAY_S
    assert logged
    for text in (generated["created_at"], *logged):
        assert int(text[:4]) in years
    # A duration, in nanoseconds.
    assert generated["total_duration"] < DAY_S * 1e9


# Switches the clock after something has been scheduled, and sets the wall clock back.
SCHEDULED = """
import sys, time

wall = time.time
shift_s = 0
time.time = lambda: wall() + shift_s

from twisted.internet.{name}reactor import install
install()
from twisted.internet import reactor
from brunix_twisted.runtime.reactors import use_monotonic_clock

ran = []
reactor.callLater(0.03, reactor.stop)
reactor.callLater(0.02, ran.append, "before")
use_monotonic_clock(reactor)
use_monotonic_clock(reactor)
reactor.callLater(0.01, ran.append, "after")
shift_s = -3600
assert reactor.seconds is time.monotonic
reactor.run()
print(ran)
"""


@pytest.mark.parametrize("name", ["epoll", "poll", "select", "asyncio"])
def test_what_was_scheduled_before(name: str) -> None:
    """A timer from before the switch of a reactor's clock still fires, in its place."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", SCHEDULED.format(name=name)],
        env=CLEAN,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("['after', 'before']\n", "")


TIMESTAMPS = {
    "engine/rpc.py": 1,  # grpc's deadlines are times of the wall clock
    "api/routes.py": 2,  # when the models were made, and until when they stay loaded
    "api/completion.py": 2,  # when an answer began and ended
    "http/site.py": 1,  # the Date of a response
    "api/mismatches.py": 1,  # when a conversation got a new session
    "state/sqlite.py": 1,  # when a session was used, in a file that outlives the process and the machine's uptime
    "observability/spans.py": 1,  # when a span began
    "cli/doctor/network.py": 1,  # how long a certificate is still valid
    "cli/doctor/http_checks.py": 1,  # whether this machine's clock and the gateway's agree
}


def test_the_wall_clock_is_read_for_timestamps_only() -> None:
    """A duration is not measured with a clock that can be set; whoever adds a timestamp lists it here."""
    wall = {"time", "time_ns", "now", "utcnow", "today"}
    found = Counter(
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in wall
        and isinstance(node.value, ast.Name)
        and node.value.id in {"time", "datetime", "date"}
    )
    assert found == TIMESTAMPS
