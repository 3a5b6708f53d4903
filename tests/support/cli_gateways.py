"""Gateways in processes, for the tests of the command line."""

from __future__ import annotations

import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import attrs

from certificates import Party
from scripted_engine import ScriptedEngine
from twistd import free_port, twistd, wait_for_port

__all__ = ["Gateway", "free_port", "tls_gateway", "twistd", "wait_for_port"]


@attrs.frozen
class Gateway:
    """A running gateway."""

    port: int
    metrics: int = 0
    """The port of its metrics."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


def tls_gateway(folder: Path, engine: ScriptedEngine, party: Party) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start a gateway with TLS."""
    listen = f"ssl:0:interface=127.0.0.1:privateKey={party.key}:certKey={party.certificate}"
    return twistd(folder, f"--listen={listen}", BRUNIX_GRPC_TARGET=engine.target)
