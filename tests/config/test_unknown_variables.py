"""Environment variables that look like a setting and are none."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from brunix_twisted.cli import commands
from brunix_twisted.config.unknown_variables import ELSEWHERE, known, unknown
from brunix_twisted.embedded.options import VARIABLES
from fake_reactor import LIMIT_S
from isolation import CLEAN
from paths import ROOT
from scripted_engine import ScriptedEngine
from several_processes import serving
from twistd import TWISTD

NAME = re.compile(r"\b(?:BRUNIX|PROXY)_[A-Z0-9_]*[A-Z0-9]\b")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PROXY_LISTN", "PROXY_LISTEN"),
        ("PROXY_THREADS_WORKERS", "PROXY_THREAD_WORKERS"),
        ("PROXY_DRAIN", "PROXY_DRAIN_S"),
        ("BRUNIX_GRPC_TARGETS", "BRUNIX_GRPC_TARGET"),
        ("BRUNIX_LISTEN", "BRUNIX_ENGINE_LISTEN"),
        ("PROXY_MODEL", "PROXY_MODEL_ID"),
        ("proxy_listen", "PROXY_LISTEN"),
    ],
)
def test_the_nearest_name(name: str, nearest: str) -> None:
    """A misspelt variable is told of, with the name that may be meant."""
    (sentence,) = unknown({name: "x", "PATH": "/bin", "PROXY_MODEL_ID": "brunix"})
    assert sentence == f"The environment variable {name} is not a setting and has no effect; did you mean {nearest}?"


def test_nothing_like_it() -> None:
    """A variable that resembles none is told of all the same."""
    (sentence,) = unknown({"PROXY_ZZZ": "x"})
    assert sentence == "The environment variable PROXY_ZZZ is not a setting and has no effect."


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, "x") for name in sorted(ELSEWHERE)),
        # A Kubernetes service called brunix, and one called proxy-gateway.
        ("BRUNIX_SERVICE_HOST", "10.0.0.1"),
        ("BRUNIX_SERVICE_PORT_HTTP", "8000"),
        ("BRUNIX_PORT", "tcp://10.0.0.1:8000"),
        ("BRUNIX_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("PROXY_GATEWAY_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("http_proxy", "x"),
        ("proxy_host", "x"),
    ],
)
def test_what_is_right(name: str, text: str) -> None:
    """Nobody is told of variables of other programs, of ours or of Kubernetes."""
    assert unknown({name: text}) == []


def test_every_name_is_known() -> None:
    """Whatever variable the documentation or a program of ours names is known, and nothing else is."""
    texts = [path.read_text("utf-8") for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))]
    texts += [(ROOT / name).read_text("utf-8") for name in ("entrypoint.sh", "compose.yaml", "Dockerfile", "Makefile")]
    texts += [path.read_text("utf-8") for path in (ROOT / "deploy").rglob("*.yaml")]
    texts.append(Path(commands.__file__).read_text("utf-8"))
    named = {name for text in texts for name in NAME.findall(text)} | set(VARIABLES.values())
    # A status of HTTP.
    assert named - {"PROXY_AUTHENTICATION_REQUIRED"} == known()


def test_it_is_told(tmp_path: Path, engine: ScriptedEngine) -> None:
    """A misspelt variable is reported by ``--check``, and once in the log, however many processes there are."""
    sentence = "The environment variable PROXY_LISTN is not a setting and has no effect; did you mean PROXY_LISTEN?"
    done = subprocess.run(  # noqa: S603 - this environment's own twistd
        [TWISTD, "brunix", "--check", "--listen=0", f"--grpc-target={engine.target}"],
        cwd=tmp_path,
        env=CLEAN | {"PROXY_LISTN": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"  {sentence}" in done.stdout.splitlines()
    with serving(tmp_path, engine, PROXY_LISTN="1") as gateway:
        gateway.stop()
        gateway.rest()
        assert len(gateway.lines(sentence)) == 1
        assert "#warn]" in gateway.lines(sentence)[0]
