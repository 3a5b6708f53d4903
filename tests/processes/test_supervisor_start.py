"""The start of several processes: it has an end, whatever they do, and it can be stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from brunix_twisted.config.settings import Settings
from brunix_twisted.processes.process import GatewayProcess
from brunix_twisted.processes.shared_sockets import BindOnlyReactor
from brunix_twisted.processes.supervisor import Supervisor
from fake_reactor import LIMIT_S
from isolation import CLEAN
from log_lines import log_lines
from scripted_engine import ScriptedEngine
from several_processes import Supervised, hurried, is_whole, stream, supervised, watched
from twistd import free_port

BUILT = """
import sys
from brunix_twisted import tap

tap.makeService({})
print(*sys.modules)
"""


def test_a_supervisor_loads_nothing_that_serves() -> None:
    """A supervisor starts at once and stays small: it does not import what answers requests."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", BUILT],
        env=CLEAN | {"PROXY_PROCESSES": "2"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    modules = done.stdout.split()
    assert "brunix_twisted.processes.supervisor" in modules
    ours = {name.split(".")[1] for name in modules if name.startswith("brunix_twisted.")}
    assert not ours & {"api", "http", "page"}
    assert not {name.partition(".")[0] for name in modules} & {"klein", "werkzeug", "google", "prometheus_client"}


# Stands before every program of Python: those of the processes named in HANGS hang, before or after they have begun to
# run the gateway's own code.
HANG = """
import os, sys, threading

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["HANGS_AT"]:
            os.write(2, b"hangs\\n")
            threading.Event().wait()

if "brunix_twisted.processes" in sys.orig_argv and sys.orig_argv[-1] in os.environ["HANGS"]:
    sys.meta_path.insert(0, Finder())
    Finder().find_spec("at once")
"""


@pytest.fixture
def hang(tmp_path: Path) -> dict[str, str]:
    """The environment in which both processes hang as soon as Python has started."""
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "sitecustomize.py").write_text(HANG, "utf-8")
    return {"PYTHONPATH": str(tmp_path / "early"), "HANGS": "0 1", "HANGS_AT": "at once"}


def hanging(gateway: Supervised, count: int = 2) -> list[int]:
    """Wait until so many processes hang, and list them."""
    return [int(gateway.until(r"\(pid (\d+)\) wrote: hangs")[1]) for _ in range(count)]


def test_the_start_has_an_end(tmp_path: Path, hang: dict[str, str]) -> None:
    """A gateway whose processes never serve ends with status 1, names the process, and leaves none behind."""
    with hurried(tmp_path, 0.5, **hang) as gateway:
        assert gateway.process.wait(LIMIT_S) == 1
        log = gateway.rest()
        assert re.search(r"twistd brunix: process [01] was not ready within 0.5 s and was killed\n", log)
        assert "Traceback" not in log
        with pytest.raises(ProcessLookupError):
            os.killpg(gateway.process.pid, 0)


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_stopped_while_it_starts(tmp_path: Path, hang: dict[str, str], number: signal.Signals, reactor: str) -> None:
    """A signal stops a gateway whose processes hang in their start, and leaves none of them behind."""
    with supervised(tmp_path, reactor=reactor, **hang) as gateway:
        with watched(*hanging(gateway)) as gone:
            gateway.process.send_signal(number)
            gone()
        assert gateway.process.wait(LIMIT_S) in {-number, -signal.SIGTERM}
        log = gateway.rest()
        assert "Traceback" not in log
        if number is not signal.SIGHUP:
            # It ends as it does at any other time.
            assert "Server Shut Down." in log


def test_stopped_while_one_starts(tmp_path: Path, engine: ScriptedEngine, hang: dict[str, str]) -> None:
    """When one process already serves while another hangs in its start, a stop lets its answers end."""
    port = free_port()
    with supervised(
        tmp_path, f"--listen=tcp:{port}:interface=127.0.0.1", BRUNIX_GRPC_TARGET=engine.target, **hang | {"HANGS": "1"}
    ) as gateway:
        hangs, serves = None, None
        while hangs is None or serves is None:
            found = gateway.until(r"Process 1 \(pid (\d+)\) wrote: hangs|Process 0 (serves)")
            hangs, serves = hangs or found[1], serves or found[2]
        open_stream = stream(HTTPConnection("127.0.0.1", port, timeout=LIMIT_S), "stopped")
        with watched(int(hangs), *gateway.pids.values()) as gone:
            gateway.process.terminate()
            gateway.until(r"Process 0 drains")
            engine.go("stopped")
            assert is_whole(open_stream.end())
            gone()
        assert gateway.process.wait(LIMIT_S) == -signal.SIGTERM
        assert "Traceback" not in gateway.rest()


def test_the_supervisor_is_killed_while_it_starts(tmp_path: Path, hang: dict[str, str]) -> None:
    """Processes that hang in an import end when their supervisor is gone."""
    at = {"HANGS_AT": "brunix_twisted.processes.worker"}
    with supervised(tmp_path, **hang | at) as gateway, watched(*hanging(gateway)) as gone:
        gateway.process.kill()
        gone()


ORPHAN = """
import sys, threading
from brunix_twisted.processes.orphan import SupervisorWatch

watch = SupervisorWatch(0)
if sys.argv[1:]:
    watch.serves(float(sys.argv[1]))
print("hangs", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize(("leave_s", "status"), [([], 0), (["0.05"], -signal.SIGALRM)], ids=["starting", "serving"])
def test_a_process_that_hangs_notices(leave_s: list[str], status: int) -> None:
    """A process whose main thread hangs ends after its supervisor, at once or when its answers have had their time."""
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", ORPHAN, *leave_s], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            # What the supervisor says does not end it.
            process.stdin.write("a line\n")
            process.stdin.flush()
            assert process.stdout.readline() == "hangs\n"
            assert process.poll() is None
            process.stdin.close()
            assert process.wait(LIMIT_S) == status
        finally:
            process.kill()


class SpawningClock(Clock):
    """Starts processes that never serve."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[GatewayProcess] = []
        self.signals: list[str] = []

    def spawnProcess(self, process: GatewayProcess, *_: object, **__: object) -> None:  # noqa: N802 - IReactorProcess
        self.spawned.append(process)
        transport = SimpleNamespace(pid=7, write=lambda _: None, signalProcess=self.signals.append)
        process.makeConnection(cast("Any", transport))


def test_a_replacement_that_hangs_is_replaced() -> None:
    """A process that is started in place of another and hangs is killed, and its number is not lost for good."""
    clock = SpawningClock()
    binding = BindOnlyReactor(clock)
    binding.port = cast("Any", SimpleNamespace(fileno=lambda: 3))
    supervisor = Supervisor(binding, Settings(processes=1), {}, cast("Any", None))
    supervisor._have_started, supervisor._counts_memory = True, 0  # noqa: SLF001 - what a start leaves behind
    with log_lines() as log, pytest.MonkeyPatch.context() as patch:
        counts = SimpleNamespace(withdraw=lambda: None)
        patch.setattr("brunix_twisted.processes.supervisor.ConnectionCounts", lambda *_: counts)
        supervisor._start(0)  # noqa: SLF001 - what comes after a process has died
        clock.advance(59)
        assert clock.signals == []
        clock.advance(1)
        assert clock.signals == ["KILL"]
        clock.spawned[0].processEnded(Failure(ProcessTerminated(None, signal.SIGKILL, None)))
        assert log.errors == ["Process 0 (pid 7) was not ready within 60 s and was killed; restarting in 0.1 s"]
        clock.advance(0.1)
        assert len(clock.spawned) == 2
        # One that serves may take as long as it likes.
        clock.spawned[1]._message_received(b"ready")  # noqa: SLF001 - what it says over its pipe
        clock.advance(120)
        assert clock.signals == ["KILL"]
