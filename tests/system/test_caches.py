"""Varnish before the gateway, as Debian ships it: what a cache with its own defaults makes of the answers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted

from fake_reactor import LIMIT_S
from gateways import RunningGateway, in_thread, run_gateway, stop_gateway
from scripted_engine import ScriptedEngine

Need = Callable[..., None]


@contextmanager
def varnish(folder: Path, gateway: RunningGateway) -> Iterator[str]:
    """Run Varnish before a gateway, with the configuration that is built into it, and give its address."""
    ports = folder / "ports"
    command = [
        shutil.which("varnishd", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "varnishd",
        "-F", "-n", str(folder / "varnish"), "-j", "none", "-s", "malloc,16m",
        "-a", "127.0.0.1:0", "-b", gateway.url.removeprefix("http://"),
    ]  # fmt: skip
    with ports.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:  # noqa: S603 - the program that was found
        try:
            tool = shutil.which("varnishadm") or "varnishadm"
            # It waits until the program answers.
            listening = subprocess.run(  # noqa: S603 - the program that was found
                [tool, "-n", str(folder / "varnish"), "-t", str(LIMIT_S), "debug.listen_address"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
            yield f"http://{listening[1]}:{listening[2]}"
        finally:
            process.terminate()


@pytest.fixture
def _needs(need: Need) -> None:
    need("varnishd", "varnish")


@pytest.mark.usefixtures("_needs")
@pytest_twisted.ensureDeferred
async def test_varnish(tmp_path: Path, engine: ScriptedEngine) -> None:
    """A deleted answer is gone behind a cache too, and so is the health of an engine that has died."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0)
    running = varnish(tmp_path, gateway)
    url = await in_thread(running.__enter__)
    front = RunningGateway(gateway.service, url, gateway.pool)
    try:
        reply = await front.ask("POST", "/v1/responses", json={"model": "brunix", "input": "hello"})
        path = f"/v1/responses/{reply.json()['id']}"
        assert [(await front.ask("GET", path)).status for _ in range(2)] == [200, 200]
        assert (await gateway.ask("DELETE", path)).status == 200
        assert (await front.ask("GET", path)).status == 404
        for headers in ({}, {"anthropic-version": "2023-06-01"}, {}):
            models = (await front.ask("GET", "/v1/models", headers=headers)).json()
            assert ("object" in models) is not bool(headers)
        assert (await front.ask("GET", "/health")).status == 200
        await in_thread(engine.stop)
        while (await gateway.ask("GET", "/health")).status == 200:
            pass  # for the half second that the gateway itself uses a result again
        assert (await front.ask("GET", "/health")).status == 503
        # What may be stored is: the page's files.
        for _ in range(2):
            file = await front.ask("GET", "/page/page.css")
            assert file.status == 200
    finally:
        await in_thread(running.__exit__, None, None, None)
        await stop_gateway(gateway)
