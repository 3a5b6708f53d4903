"""``twistd brunix`` as a process of its own, as an operator runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from brunix_twisted.config.settings import table
from brunix_twisted.tap import Options
from fake_reactor import LIMIT_S
from isolation import CLEAN as CLEAN  # noqa: PLC0414 - also for those who take it from here
from scripted_engine import ScriptedEngine
from twistd import TWISTD, free_port, get, twistd, wait_for_port


def test_serves_and_stops(tmp_path: Path, engine: ScriptedEngine) -> None:
    """``twistd brunix`` would not serve, or a supervisor could not stop it."""
    with twistd(tmp_path, PROXY_LISTEN="tcp:0:interface=127.0.0.1", BRUNIX_GRPC_TARGET=engine.target) as process:
        port = wait_for_port(process)
        assert get(port, "/health")[0] == 200
        process.terminate()
        # Twisted ends a clean stop by the signal it was stopped with.
        assert process.wait(20) == -signal.SIGTERM


def test_options_beat_the_environment(tmp_path: Path) -> None:
    """What an operator gives on the command line would be overridden by the environment."""
    with twistd(
        tmp_path,
        "--listen=tcp:0:interface=127.0.0.1",
        "--model-id=from-the-option",
        PROXY_LISTEN="tcp:1",
        PROXY_MODEL_ID="from-the-environment",
    ) as process:
        _, body = get(wait_for_port(process), "/v1/models")
        assert [model["id"] for model in json.loads(body)["data"]] == ["from-the-option"]


def test_daemonised(tmp_path: Path, engine: ScriptedEngine) -> None:
    """``twistd brunix`` without ``--nodaemon`` would answer nothing: no thread survives a fork."""
    port = free_port()
    subprocess.run(  # noqa: S603 - this environment's own twistd
        [TWISTD, "brunix", f"--listen=tcp:{port}:interface=127.0.0.1", f"--grpc-target={engine.target}"],
        cwd=tmp_path,
        env=CLEAN,
        check=True,
        timeout=60,
    )
    pid = int((tmp_path / "twistd.pid").read_text("ascii"))
    try:
        assert get(port, "/health")[0] == 200
        question = json.dumps({"model": "brunix", "prompt": "one two", "stream": False}).encode()
        with urlopen(f"http://127.0.0.1:{port}/api/generate", question, timeout=20) as response:
            assert json.loads(response.read())["response"] == "one two "
    finally:
        os.kill(pid, signal.SIGTERM)
        # The pid file goes last. There is no event to wait for: the daemon is nobody's child.
        subprocess.run(
            ["timeout", "20", "sh", "-c", "while [ -e twistd.pid ]; do sleep 0.05; done"],  # noqa: S607 - POSIX
            cwd=tmp_path,
            check=True,
        )


def test_without_threads(tmp_path: Path, engine: ScriptedEngine) -> None:
    """The client for thousands of streams would not answer, or leave its threads behind at the end."""
    with twistd(
        tmp_path,
        reactor="asyncio",
        PROXY_LISTEN="tcp:0:interface=127.0.0.1",
        BRUNIX_GRPC_TARGET=engine.target,
        PROXY_ENGINE_CLIENT="aio",
    ) as process:
        port = wait_for_port(process)
        assert get(port, "/health")[0] == 200
        question = json.dumps({"model": "brunix", "prompt": "one two"}).encode()
        with urlopen(f"http://127.0.0.1:{port}/api/generate", question, timeout=20) as response:
            assert [json.loads(line)["response"] for line in response] == ["one ", "two ", ""]
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM


def test_without_threads_on_the_wrong_reactor(tmp_path: Path) -> None:
    """An operator would read a traceback at the first question, and not what is missing on the command line."""
    with twistd(tmp_path, PROXY_ENGINE_CLIENT="aio") as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = output.splitlines()
    assert line.endswith("allowed: blocking, or aio with twistd --reactor=asyncio")


# The endpoints are judged by Twisted, all else by the settings: tests/config/test_settings.py tries each of those.
@pytest.mark.parametrize("variable", ["PROXY_LISTEN", "PROXY_METRICS_LISTEN", "PROXY_THREAD_WORKERS"])
def test_bad_value(tmp_path: Path, variable: str) -> None:
    """A mistyped setting would be taken silently, or answered with a traceback."""
    with twistd(tmp_path, **{variable: "a b"}) as process:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        (line,) = output.splitlines()
        assert line.startswith(f"twistd brunix: {variable} is 'a b'; allowed: ")


def daemons_log(path: Path, wanted: str) -> str:
    """Read what a daemon has logged, once this is there: it tells the shell that started it first."""
    deadline_s = time.monotonic() + LIMIT_S
    while wanted not in (log := path.read_text("utf-8")):
        assert time.monotonic() < deadline_s, log
        time.sleep(0.01)
    return log


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
def test_port_in_use(tmp_path: Path, *, daemon: bool) -> None:
    """An operator would see a traceback, or a gateway that seems to run, when the port is taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"tcp:{server.getsockname()[1]}:interface=127.0.0.1"
        done = subprocess.run(  # noqa: S603 - this environment's own twistd
            [TWISTD, *([] if daemon else ["--nodaemon"]), "brunix", f"--listen={listen}"],
            cwd=tmp_path,
            env=CLEAN,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    log = daemons_log(tmp_path / "twistd.log", "Address already in use") if daemon else done.stdout
    assert "Traceback" not in log + done.stderr
    (line,) = [line for line in log.splitlines() if "PROXY_LISTEN" in line]
    assert f"twistd brunix: PROXY_LISTEN is '{listen}': " in line
    assert "Address already in use" in line
    if daemon:
        assert "PROXY_LISTEN" in done.stderr
        assert not (tmp_path / "twistd.pid").exists()


def test_help_names_every_setting() -> None:
    """An operator who asks ``twistd brunix --help`` would not learn of a setting."""
    told = re.sub(r"\s+", "", str(Options()))
    for _, row in table():
        assert f"--{row.option}=" in told
        assert f"${row.variable}" in told
