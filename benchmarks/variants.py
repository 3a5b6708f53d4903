"""What is compared: the gateway in its forms, the baselines, and what stands behind them."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import attrs

from servers import HERE, ROOT, environment
from workloads import Workload

GATEWAYS: dict[str, dict[str, str]] = {
    "gateway": {},
    "aio": {"PROXY_ENGINE_CLIENT": "aio"},
    "two": {"PROXY_PROCESSES": "2"},
}
"""The gateway's forms, each with the settings that make it."""
BASELINES: dict[str, tuple[str, ...]] = {"A": (), "A+": ("--single-threaded-stream",)}
LITELLM = "litellm"
ENGINE = "engine"
"""The engine, asked over gRPC without anything between."""
STUB = "stub"
"""What LiteLLM's proxy stands before, asked without it."""

LITELLM_BIN = ROOT / ".venv-bench-litellm" / "bin"
LITELLM_CONFIG = """\
model_list:
  - model_name: brunix
    litellm_params:
      model: openai/brunix
      api_base: http://127.0.0.1:{port}/v1
      api_key: unused
litellm_settings:
  telemetry: false
"""
LITELLM_ENVIRONMENT = {
    # Nothing is fetched, and as with the gateway nobody has to say who he is.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_LOG": "ERROR",
}


class VariantError(Exception):
    """There is no such variant, or it cannot do what is asked; the message says which and why."""


@cache
def _settings(python: str, checkout: Path) -> frozenset[str]:
    """The variables that a checkout of the gateway knows."""
    asked = "from brunix_twisted.config.settings import table; print(*(row.variable for _, row in table()))"
    if not (checkout / "brunix_twisted").is_dir():
        raise VariantError(f"no gateway in {checkout}")
    said = subprocess.run(
        # Python looks for modules in the current folder first.
        [python, "-c", asked],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        raise VariantError(f"no gateway that runs in {checkout}: {said.stderr.strip().rpartition(chr(10))[2]}")
    return frozenset(said.stdout.split())


@attrs.frozen
class Behind:
    """Where a server finds what it stands before."""

    engine_port: int
    stub_port: int
    folder: Path
    """For files that a server has to be given."""


@attrs.frozen
class Variant:
    """One thing that is measured."""

    name: str
    """As it was asked for, but without the machine's paths."""
    kind: str
    python: str = sys.executable
    checkout: Path = ROOT
    settings: tuple[tuple[str, str], ...] = ()

    def obstacle(self, workload: Workload) -> str | None:
        """Say why it cannot be measured, if it cannot."""
        if self.kind in GATEWAYS:
            known = _settings(self.python, self.checkout)
            missing = next((name for name, _ in self.settings if name not in known), None)
            return None if missing is None else f"this gateway has no setting {missing}"
        if self.kind in {LITELLM, STUB} and not (workload.kind == "closed" and workload.dialect == "openai"):
            return "it answers OpenAI's API, and paces nothing"
        if self.kind == ENGINE and workload.kind not in {"closed", "open"}:
            return "it is no server of ours"
        if self.kind == LITELLM and not (LITELLM_BIN / "litellm").exists():
            return "it is not installed; make bench does that"
        return None

    def command(self, port: int, behind: Behind, workers: int) -> list[str]:
        """The command line of its server."""
        target = f"127.0.0.1:{behind.engine_port}"
        if self.kind in BASELINES:
            return [
                *(sys.executable, str(HERE / "baselines" / "fastapi_threads.py"), f"--port={port}"),
                *(f"--target={target}", f"--workers={workers}", *BASELINES[self.kind]),
            ]
        if self.kind == LITELLM:
            config = behind.folder / "litellm.yaml"
            config.write_text(LITELLM_CONFIG.format(port=behind.stub_port), "utf-8")
            command = [str(LITELLM_BIN / "litellm"), f"--config={config}", "--host=127.0.0.1", f"--port={port}"]
            return [*command, "--telemetry=False"]
        reactor = ["--reactor=asyncio"] if ("PROXY_ENGINE_CLIENT", "aio") in self.settings else []
        return [
            *(str(Path(self.python).with_name("twistd")), *reactor, "--nodaemon", "--pidfile=", "brunix"),
            # Room for as many connections at once as uvicorn has by default.
            f"--listen=tcp:{port}:backlog=2048:interface=127.0.0.1",
            *(f"--grpc-target={target}", f"--thread-workers={workers}"),
        ]

    def environment(self) -> dict[str, str]:
        """The environment of its server."""
        if self.kind == LITELLM:
            return {**environment(None), **LITELLM_ENVIRONMENT}
        return {**environment(self.checkout), **dict(self.settings)}


def variant(
    name: str, python: str = sys.executable, checkout: Path = ROOT, more: tuple[tuple[str, str], ...] = ()
) -> Variant:
    """
    Read a variant's name: ``gateway``, ``gateway@/a/checkout``, ``gateway+NAME=value``, ``A``; with a ``'`` once more.

    :param checkout: of every gateway whose name has none.
    :param more: settings for every gateway.
    :raises VariantError: there is no such variant.
    """
    bare = name.rstrip("'")
    if bare in BASELINES or bare in {LITELLM, ENGINE, STUB}:
        return Variant(name, bare)
    head, *tail = bare.split("+")
    kind, _, other = head.partition("@")
    if kind not in GATEWAYS or not all("=" in part for part in tail):
        known = ", ".join([*GATEWAYS, *BASELINES, LITELLM, ENGINE, STUB])
        raise VariantError(f"no variant is called {name!r}; there are {known}, gateway@/a/checkout, gateway+NAME=value")
    own = tuple((part.partition("=")[0], part.partition("=")[2]) for part in tail)
    settings = (*GATEWAYS[kind].items(), *more, *own)
    if not other:
        return Variant(name, kind, python, checkout, settings)
    folder = Path(other).resolve()
    return Variant(name.replace(other, folder.name), kind, python, folder, settings)
