"""What signals do to ``twistd brunix``."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest

from fake_reactor import LIMIT_S
from isolation import CLEAN
from scripted_engine import ScriptedEngine
from several_processes import is_whole, serving, stream, watched
from twistd import TWISTD, get


@pytest.mark.parametrize("processes", ["1", "2"])
def test_sighup_drains(tmp_path: Path, engine: ScriptedEngine, processes: str, request: pytest.FixtureRequest) -> None:
    """Closing the terminal lets answers end, as SIGTERM does."""
    # Tests that run under nohup have it ignored, and so would all that they start.
    usual = signal.signal(signal.SIGHUP, lambda *_: None)
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, usual))
    with serving(tmp_path, engine, PROXY_PROCESSES=processes) as gateway:
        answer = stream(HTTPConnection("127.0.0.1", gateway.port, timeout=LIMIT_S), "hung up")
        # A terminal sends it to each process.
        os.killpg(gateway.process.pid, signal.SIGHUP)
        os.killpg(gateway.process.pid, signal.SIGHUP)
        gateway.until(r"\(TCP Port \d+ Closed\)")
        engine.go("hung up")
        assert is_whole(answer.end())
        assert gateway.process.wait(LIMIT_S) == -signal.SIGTERM
        assert "Traceback" not in gateway.rest()


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_twice(tmp_path: Path, engine: ScriptedEngine, number: signal.Signals, processes: str) -> None:
    """A second signal while answers end changes nothing, and logs no error."""
    with serving(tmp_path, engine, PROXY_PROCESSES=processes) as gateway:
        answer = stream(HTTPConnection("127.0.0.1", gateway.port, timeout=LIMIT_S), "twice")
        gateway.process.send_signal(number)
        gateway.process.send_signal(number)
        gateway.until(r"\(TCP Port \d+ Closed\)")
        gateway.process.send_signal(number)
        engine.go("twice")
        assert is_whole(answer.end())
        assert gateway.process.wait(LIMIT_S) == -number
        assert "Traceback" not in gateway.rest()


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_signals_that_stop_nothing(
    tmp_path: Path, engine: ScriptedEngine, number: signal.Signals, processes: str
) -> None:
    """SIGUSR1 without a log file does nothing, and neither does SIGHUP under nohup."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(tmp_path, engine, PROXY_PROCESSES=processes) as gateway:
            answer = stream(HTTPConnection("127.0.0.1", gateway.port, timeout=LIMIT_S), "alive")
            os.killpg(gateway.process.pid, number)
            assert get(gateway.port, "/health/live")[0] == 200
            engine.go("alive")
            assert is_whole(answer.end())
            assert gateway.stop() == -signal.SIGTERM
            assert "restarting in" not in gateway.rest()
    finally:
        signal.signal(signal.SIGHUP, usual)


def daemon_of(folder: Path, engine: ScriptedEngine) -> int:
    subprocess.run(  # noqa: S603 - this environment's own twistd
        [TWISTD, "--logfile=a.log", "brunix", f"--listen=unix:{folder}/socket", f"--grpc-target={engine.target}"],
        cwd=folder,
        env=CLEAN,
        check=True,
        timeout=LIMIT_S,
    )
    return int((folder / "twistd.pid").read_text("ascii"))


def until(found: Callable[[], bool]) -> None:
    """Wait for what a process writes that is nobody's child here: there is no event for it."""
    deadline_s = time.monotonic() + LIMIT_S
    while not found():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_sigusr1_opens_the_log_file_again(tmp_path: Path, engine: ScriptedEngine) -> None:
    """After logrotate has renamed the log, the gateway writes to a new file of the old name, and loses no line."""
    pid = daemon_of(tmp_path, engine)
    log, old = tmp_path / "a.log", tmp_path / "old.log"
    with watched(pid) as gone:
        try:
            log.rename(old)
            os.kill(pid, signal.SIGUSR1)
            until(lambda: log.exists() and "SIGUSR1: opened the log file" in log.read_text())
            # Again without a new name: it goes on in the same file.
            os.kill(pid, signal.SIGUSR1)
            until(lambda: log.read_text().count("SIGUSR1: opened the log file") == 2)
        finally:
            os.kill(pid, signal.SIGTERM)
        gone()
    assert "Serving the model" in old.read_text()
    assert "SIGUSR1" not in old.read_text()
    assert "Server Shut Down." in log.read_text()
    assert sorted(path.name for path in tmp_path.glob("*.log*")) == ["a.log", "old.log"]
