"""Gateways that the command line's tests share; each is a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_gateways import Gateway, free_port, twistd, wait_for_port
from isolation import CLEAN
from scripted_engine import ScriptedEngine

TOKENS_PER_SECOND = 40
# The doctor's question is answered with sample questions, and these make them long.
HELP = "# Help\n" + "".join(
    f"\n## How do I read the words of the doctor one after the other in the {which} file?\n\n"
    f"You read the words of the doctor one after the other in the {which} file.\n"
    for which in ("first", "second", "third")
)


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def served(shared_engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the scripted engine."""
    metrics = free_port()
    with twistd(
        tmp_path_factory.mktemp("gateway"),
        PROXY_LISTEN="tcp:0:interface=127.0.0.1",
        PROXY_METRICS_LISTEN=f"tcp:{metrics}:interface=127.0.0.1",
        PROXY_HEARTBEAT_S="0.2",
        BRUNIX_GRPC_TARGET=shared_engine.target,
    ) as process:
        yield Gateway(wait_for_port(process), metrics)


@pytest.fixture(scope="module")
def paced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the embedded engine, which takes more than a second for an answer."""
    folder = tmp_path_factory.mktemp("paced")
    docs = folder / "docs"
    docs.mkdir()
    (docs / "help.md").write_text(HELP, "utf-8")
    port = free_port()
    environment = {
        "BRUNIX_DOCS": os.fspath(docs),
        "BRUNIX_ENGINE_LISTEN": f"127.0.0.1:{port}",
        "BRUNIX_ENGINE_TOKENS_PER_SECOND": str(TOKENS_PER_SECOND),
    }
    engine = subprocess.Popen(
        [sys.executable, "-m", "brunix_twisted.embedded"],
        env=CLEAN | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert engine.stdout
        assert any(str(port) in line for line in engine.stdout), "the embedded engine did not start"
        metrics = free_port()
        with twistd(
            Path(folder),
            PROXY_LISTEN="tcp:0:interface=127.0.0.1",
            PROXY_METRICS_LISTEN=f"tcp:{metrics}:interface=127.0.0.1",
            BRUNIX_GRPC_TARGET=f"127.0.0.1:{port}",
        ) as process:
            yield Gateway(wait_for_port(process), metrics)
    finally:
        engine.kill()
        engine.communicate()
