"""What systemd is told, and when."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import attrs
import pytest
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from brunix_twisted.app.systemd import Notifier, NotifyingService, where
from brunix_twisted.runtime.reactors import Reactor
from fake_reactor import LIMIT_S
from isolation import CLEAN
from log_lines import log_lines
from paths import TESTS
from scripted_engine import ScriptedEngine, script
from supervised import Told, port_of, supervised
from threads import Threads
from twistd import get

ADDRESS = IPv4Address("TCP", "127.0.0.1", 8000)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(str(tmp_path / "notify"))
    yield told
    told.close()


# The datagram.


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_a_message(tmp_path: Path, *, abstract: bool) -> None:
    """Nobody would hear that the gateway is ready, and systemd would end it after a minute and a half."""
    told = Told(f"@{tmp_path}/notify" if abstract else f"{tmp_path}/notify")
    Notifier(told.path).notify(READY=1, STATUS="well\nWATCHDOG=1 é")
    assert told.next() == {"READY": "1", "STATUS": "well WATCHDOG=1 é"}
    told.close()


def test_nobody_listens(tmp_path: Path) -> None:
    """A gateway whose systemd has gone would stop answering, or say nothing of it."""
    with log_lines() as lines:
        Notifier(f"{tmp_path}/nothing").notify(WATCHDOG=1)
    (line,) = lines.texts
    assert line == (
        f"Could not send WATCHDOG to systemd at NOTIFY_SOCKET={tmp_path}/nothing: No such file or directory"
    )


def test_systemd_does_not_read(told: Told) -> None:
    """A gateway whose systemd is stopped goes on answering: nothing waits for room in its socket."""
    notifier = Notifier(told.path)
    told_all = threading.Event()

    def tell() -> None:
        # More than fits. Each that has to wait for room waits for a second.
        for number in range(LIMIT_S * 3):
            notifier.notify(WATCHDOG=number)
        told_all.set()

    with log_lines(), Threads() as threads:
        threads.start(tell)
        assert told_all.wait(LIMIT_S)
        assert told.next() == {"WATCHDOG": "0"}
        told.close()


def test_waiting_takes_no_processor_time(told: Told) -> None:
    """A gateway that waits for a stopped systemd leaves the processor to its answers."""
    notifier = Notifier(told.path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                full.sendto(b"", told.path)
    begun_s = time.thread_time()
    with log_lines() as log:
        notifier._send_blocking(b"WATCHDOG=1", "WATCHDOG")  # noqa: SLF001 - in this thread, whose time is measured
    assert "WATCHDOG" in log.texts[0]
    assert time.thread_time() - begun_s < 0.5


def test_no_thread_can_be_started(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit of threads a busy systemd ends the watchdog's messages, and then the gateway."""
    notifier = Notifier(told.path)

    def send(*_: object) -> None:
        raise BlockingIOError

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(notifier, "_send", send)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with log_lines() as log:
        notifier.notify(WATCHDOG=1)
    assert log.texts == [f"Could not send WATCHDOG to systemd at NOTIFY_SOCKET={told.path}: can't start new thread"]


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "12"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "13"}, None),
        ({"WATCHDOG_PID": "12"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-3000000"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_who_is_watched(environment: dict[str, str], watchdog_s: float | None) -> None:
    """A gateway would be restarted for not saying what was asked of another process, or would not say it."""
    notifier = Notifier.read(environment | {"NOTIFY_SOCKET": "/run/notify"}, 12)
    assert notifier is not None
    assert notifier.watchdog_s == watchdog_s


def test_nobody_asks() -> None:
    """A gateway without systemd would look for it."""
    assert Notifier.read({"WATCHDOG_USEC": "3000000"}, 12) is None
    assert Notifier.read({"NOTIFY_SOCKET": ""}, 12) is None


@pytest.mark.parametrize(
    ("address", "spelt"),
    [
        (ADDRESS, "127.0.0.1:8000"),
        (IPv6Address("TCP", "::1", 8000), "[::1]:8000"),
        (UNIXAddress("/run/brunix/gateway.sock"), "/run/brunix/gateway.sock"),
    ],
)
def test_where(address: IAddress, spelt: str) -> None:
    """``systemctl status`` would show an address that nobody could use."""
    assert where(address) == spelt


# The order of things.


@attrs.define
class Recorder(Notifier):
    """Records the messages and the other events in one list."""

    events: list[object]
    watchdog_s: float | None = None

    def notify(self, **values: str | int) -> None:
        self.events.append(values)


class Inner(Service):
    """A gateway's service, as far as is needed."""

    def __init__(self, events: list[object]) -> None:
        self.events = events
        self.ready: Deferred[IAddress] = Deferred()
        self.left: Deferred[None] = Deferred()

    def privilegedStartService(self) -> None:
        self.events.append("privileged")

    def startService(self) -> None:
        self.events.append("start")

    def stopService(self) -> Deferred[None]:
        self.events.append("stop")
        return self.left


def notifying(
    events: list[object], engine: Deferred[str], watchdog_s: float | None = None
) -> tuple[NotifyingService, Inner, Clock]:
    clock, inner = Clock(), Inner(events)
    recorder = Recorder(events, watchdog_s)
    service = NotifyingService(cast("Reactor", clock), recorder, inner, lambda: engine, stop_s=35)
    return service, inner, clock


def test_ready_comes_last() -> None:
    """What needs the gateway would be started before that answers."""
    events: list[object] = []
    engine: Deferred[str] = Deferred()
    service, inner, _ = notifying(events, engine)
    service.privilegedStartService()
    service.startService()
    assert events == ["privileged", {"STATUS": "Starting"}, "start"]
    inner.ready.callback(ADDRESS)
    assert len(events) == 3
    engine.callback("the engine was healthy")
    assert events[3:] == [{"READY": 1, "STATUS": "Serving on 127.0.0.1:8000; the engine was healthy"}]


def test_stopping_comes_first() -> None:
    """A gateway that lets long answers end would be killed for it, or be taken to serve still."""
    events: list[object] = []
    service, inner, clock = notifying(events, succeed("the engine was healthy"), watchdog_s=30)
    service.startService()
    inner.ready.callback(ADDRESS)
    events.clear()
    stopping = service.stopService()
    stopped = {"STOPPING": 1, "EXTEND_TIMEOUT_USEC": 35_000_000, "STATUS": "Waiting for running answers to finish"}
    assert events == [stopped, "stop"]
    # Until the end there is somebody who may hang.
    clock.advance(15)
    assert events[2:] == [{"WATCHDOG": 1}]
    assert not stopping.called
    inner.left.callback(None)
    assert stopping.called
    assert not clock.getDelayedCalls()


def test_stopped_before_it_was_ready() -> None:
    """A gateway that leaves already would say that it is ready, and the start that was given up would count as good."""
    events: list[object] = []
    engine: Deferred[str] = Deferred()
    service, inner, clock = notifying(events, engine, watchdog_s=30)
    service.startService()
    inner.ready.callback(ADDRESS)
    inner.left.callback(None)
    service.stopService()
    events.clear()
    engine.callback("the engine was healthy")
    assert events == []
    assert not clock.getDelayedCalls()


def test_the_watchdog_is_fed_by_the_reactor() -> None:
    """A gateway that works would be restarted, or one that hangs would not."""
    events: list[object] = []
    service, inner, clock = notifying(events, succeed("the engine was healthy"), watchdog_s=30)
    service.startService()
    inner.ready.callback(ADDRESS)
    del events[:3]
    fed = {"WATCHDOG": 1}
    assert events == [fed]
    clock.advance(14.9)
    assert events == [fed]
    clock.advance(0.1)
    assert events == [fed, fed]


# The real thing.


def test_ready_with_an_engine(tmp_path: Path, told: Told, engine: ScriptedEngine) -> None:
    """``systemctl start`` would not end, end too early, or leave the operator without a word on how the gateway is."""
    with supervised(tmp_path, told, BRUNIX_GRPC_TARGET=engine.target) as process:
        assert told.next() == {"STATUS": "Starting"}
        ready = told.next()
        assert ready["READY"] == "1"
        port = port_of(process, ready["STATUS"])
        assert ready["STATUS"].endswith(f"; at startup the engine at {engine.target} was healthy")
        assert get(port, "/health")[0] == 200
        process.terminate()
        assert told.next()["STOPPING"] == "1"
        assert process.wait(LIMIT_S) == -signal.SIGTERM
        assert told.rest() == []
    assert list(tmp_path.iterdir()) == [Path(told.path)]


def test_ready_without_an_engine(tmp_path: Path, told: Told) -> None:
    """A gateway would not start before its engine, so that the two could not be started in any order."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{nobody.getsockname()[1]}"
        with supervised(tmp_path, told, BRUNIX_GRPC_TARGET=target) as process:
            ready = told.until("READY")
            assert ready["STATUS"].endswith(
                f"; at startup the engine at {target} was not healthy: The engine is unreachable"
            )
            assert get(port_of(process, ready["STATUS"]), "/health/live")[0] == 200


ASK = "import sys; from supervised import ask; print(ask(int(sys.argv[1]), sys.argv[2]))"


def test_stopping_is_told_while_an_answer_ends(tmp_path: Path, told: Told, engine: ScriptedEngine) -> None:
    """A gateway that drains would be taken for one that hangs."""
    with supervised(tmp_path, told, BRUNIX_GRPC_TARGET=engine.target, PROXY_DRAIN_S="60") as process:
        port = port_of(process, told.until("READY")["STATUS"])
        question = script("one", {"wait": "go"})
        asking = subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, "-c", ASK, str(port), question],
            env=CLEAN | {"PYTHONPATH": str(TESTS / "support")},
            stdout=subprocess.PIPE,
            text=True,
        )
        engine.call()
        process.terminate()
        stopping = told.next()
        assert stopping["STOPPING"] == "1"
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) == 70_000_000
        assert process.poll() is None
        engine.go("go")
        output, _ = asking.communicate(timeout=LIMIT_S)
        assert output == "wrong answer\n"  # a whole one, which is not the question's words
        assert process.wait(LIMIT_S) == -signal.SIGTERM


# Blocks the reactor when it is told to, as a mistake would; the watchdog's signal is to show where.
BLOCKED = """
import signal, sys, threading
from twisted.internet import reactor
from twisted.scripts.twistd import run

def hang_here():
    print("blocked", flush=True)
    threading.Event().wait()

signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(hang_here))
sys.argv[1:] = ["--nodaemon", "--pidfile=", "brunix"]
run()
"""


def test_a_blocked_reactor_is_seen(tmp_path: Path, told: Told) -> None:
    """A gateway that hangs would never be restarted, or nobody could tell afterwards where it hung."""
    process = subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", BLOCKED],
        cwd=tmp_path,
        env=CLEAN
        | {
            "NOTIFY_SOCKET": told.path,
            "WATCHDOG_USEC": "100000",
            "PROXY_LISTEN": "tcp:0:interface=127.0.0.1",
            # As in the unit.
            "PYTHONFAULTHANDLER": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            told.until("READY")
            for _ in range(3):
                assert told.next() == {"WATCHDOG": "1"}
            process.send_signal(signal.SIGUSR1)
            assert process.stdout is not None
            assert any("blocked" in line for line in process.stdout)
            told.rest()
            # What never comes has no event to wait for; it would have come ten times by now.
            told.expect_nothing(0.5)
            # What systemd sends then.
            process.send_signal(signal.SIGABRT)
            output, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGABRT
    assert "in hang_here" in output
