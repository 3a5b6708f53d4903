"""`brunix serve`: the gateway by the name of its own command."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import twisted
from brunix_twisted import __version__
from brunix_twisted.app.serve import gateway_command, serve
from fake_reactor import LIMIT_S
from isolation import CLEAN
from scripted_engine import ScriptedEngine
from twistd import TWISTD, get, wait_for_port

BRUNIX = [sys.executable, "-m", "brunix_twisted", "serve"]


@pytest.mark.parametrize("client", [[], ["--engine-client=aio"], ["--engine-client", "aio"]], ids=" ".join)
def test_serves_and_stops(tmp_path: Path, engine: ScriptedEngine, client: list[str]) -> None:
    """The command would not serve, or a supervisor could not stop it; the client without threads needs its reactor."""
    process = subprocess.Popen(  # noqa: S603 - this interpreter
        [*BRUNIX, "--listen=tcp:0:interface=127.0.0.1", *client],
        cwd=tmp_path,
        env=CLEAN | {"BRUNIX_GRPC_TARGET": engine.target},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert get(wait_for_port(process), "/health")[0] == 200
        process.terminate()
        assert process.wait(LIMIT_S) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
    assert list(tmp_path.iterdir()) == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - this interpreter
        arguments, env=CLEAN, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def test_which_version() -> None:
    """An operator would read Twisted's version and take it for the gateway's."""
    for command in ([*BRUNIX], [str(TWISTD), "brunix"]):
        done = run(*command, "--version")
        assert (done.returncode, done.stdout) == (0, f"brunix {__version__} (Twisted {twisted.__version__})\n")


def test_its_options_are_those_of_twistd_brunix() -> None:
    """The help would not be the gateway's, and a wrong option would be ignored."""
    assert re.search(r"--thread-workers=", run(*BRUNIX, "--help").stdout)
    wrong = run(*BRUNIX, "--nonsense")
    assert wrong.returncode == 1
    assert "--nonsense" in wrong.stdout + wrong.stderr


def test_without_twistd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken installation would end in a traceback."""
    python = str(tmp_path / "python")
    assert gateway_command({}, python)[0] == "twistd"
    assert serve([], {"PATH": str(tmp_path)}, python) == 127
    assert "cannot run twistd: No such file" in capsys.readouterr().err
