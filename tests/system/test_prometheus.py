"""The metrics as Prometheus takes them: Debian's own, with the files of deploy/prometheus as they are."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from asking import ask
from fake_reactor import LIMIT_S
from paths import ROOT
from scripted_engine import ScriptedEngine
from several_processes import serving
from twistd import free_port

FOLDER = ROOT / "deploy" / "prometheus"
RULES = "brunix-gateway.rules.yml"

Need = Callable[..., None]


@pytest.fixture(autouse=True)
def _needed(need: Need) -> None:
    need("promtool", "prometheus")
    need("prometheus", "prometheus")


def promtool(*arguments: str, said: str = "") -> str:
    """Run promtool in the folder of the rules, and hold that it finds nothing wrong."""
    ran = subprocess.run(  # noqa: S603 - of this machine's package
        ["promtool", *arguments],  # noqa: S607 - likewise
        cwd=FOLDER,
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_files() -> None:
    """Prometheus would not start with the files that the page tells to copy."""
    assert "SUCCESS" in promtool("check", "rules", RULES)
    promtool("check", "config", "prometheus.yml")


def test_rules() -> None:
    """An alarm would not go off when it should, or go off when all is well."""
    assert "SUCCESS" in promtool("test", "rules", "brunix-gateway.rules.test.yml")


def get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[int]:
    """Run Prometheus with the example's configuration, but for the port and the pace, and give its own port."""
    port = free_port()
    text = (FOLDER / "prometheus.yml").read_text("utf-8")
    for old, new in (("127.0.0.1:9464", f"127.0.0.1:{target}"), ("15s", "1s"), ("5s", "1s")):
        assert old in text
        text = text.replace(old, new)
    (folder / "prometheus.yml").write_text(text)
    (folder / RULES).write_bytes((FOLDER / RULES).read_bytes())
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - of this machine's package
            [  # noqa: S607 - likewise
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def query(port: int, expression: str) -> list[Any]:
    """Ask Prometheus; nothing while it is not there yet."""
    try:
        status, body = get(port, f"/api/v1/query?{urlencode({'query': expression})}")
    except (OSError, HTTPException):
        return []
    return list(json.loads(body)["data"]["result"]) if status == 200 else []


def until(port: int, expression: str) -> dict[str, str]:
    """Ask Prometheus until it has an answer, and give the labels of the first."""
    deadline_s = time.monotonic() + LIMIT_S
    while not (found := query(port, expression)):
        assert time.monotonic() < deadline_s, expression
        # Prometheus cannot be waited for otherwise.
        time.sleep(0.1)
    labels: dict[str, str] = found[0]["metric"]
    return labels


@pytest.mark.parametrize("processes", ["1", "2"])
def test_scraped(tmp_path: Path, engine: ScriptedEngine, processes: str) -> None:
    """Prometheus would not understand what the gateway serves, or not find it."""
    target = free_port()
    with (
        serving(
            tmp_path,
            engine,
            PROXY_PROCESSES=processes,
            PROXY_METRICS_LISTEN=f"tcp:{target}:interface=127.0.0.1",
        ) as gateway,
        prometheus(tmp_path, target) as port,
    ):
        connection = HTTPConnection("127.0.0.1", gateway.port, timeout=LIMIT_S)
        assert ask(connection) == "one two "
        connection.close()
        labels = until(port, 'brunix_gateway_requests_total{endpoint="/api/generate"} == 1')
        assert labels["job"] == "brunix-gateway"
        assert (labels["dialect"], labels["status"]) == ("ollama", "200")
        until(port, f"brunix_gateway_processes_running == {processes}")
        until(port, 'up{job="brunix-gateway"} == 1')
        # Before the first scrape there was none.
        until(port, "absent(ALERTS)")
        promtool("check", "metrics", said=get(target, "/metrics")[1])
        gateway.stop()
        labels = until(port, 'ALERTS{alertname="BrunixGatewayAway"}')
        assert labels["severity"] == "critical"
