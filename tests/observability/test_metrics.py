"""The metrics: what is counted, how it is served, and what the rules and the dashboard make of it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
import treq
import yaml
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import Clock

from asking import ask
from brunix_twisted import __version__
from brunix_twisted.model import Processes
from brunix_twisted.observability.metrics import Metrics, Sum
from brunix_twisted.observability.metrics_endpoint import Exporter
from brunix_twisted.runtime.reactors import Reactor
from fake_reactor import LIMIT_S
from gateways import Reply, RunningGateway, run_gateway, stop_gateway
from metrics_table import PAGE, readings, record, rewritten
from paths import ROOT
from scripted_engine import ScriptedEngine, script
from several_processes import Supervised, serving, supervised
from twistd import free_port

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "brunix-gateway.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "brunix-gateway.json"
LISTEN = "tcp:0:interface=127.0.0.1"

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Read an exposition: every value by its name and its labels' values, in the order of the labels' names."""
    return {
        (
            sample.name.removeprefix("brunix_gateway_"),
            *(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(cast("Reactor", Clock()), readings)


# Counting.


def test_a_question(metrics: Metrics) -> None:
    """The figures of a question would be wrong, or somewhere else."""
    metrics.observe(record())
    found = samples(metrics.text())
    assert found["requests_total", "openai", "/v1/chat/completions", "200"] == 1
    assert found["ended_total", "complete"] == 1
    assert found["tokens_total", "prompt"] == 12
    assert found["tokens_total", "completion"] == 34
    assert found["engine_calls_total", "OK", "AskAgentStream"] == 1
    assert found["engine_calls_total", "UNAVAILABLE", "AskAgentStream"] == 1
    assert found["request_duration_seconds_sum", "/v1/chat/completions"] == 2.0
    assert found["time_to_first_token_seconds_sum", "/v1/chat/completions"] == 1.0
    assert found["queue_wait_seconds_sum",] == 0.5


def test_everything_else_is_no_question(metrics: Metrics) -> None:
    """Health checks would hide how many questions fail."""
    metrics.observe(record("/health"))
    found = samples(metrics.text())
    assert found["requests_total", "none", "/health", "200"] == 1
    assert found["ended_total", "complete"] == 0
    assert found["queue_wait_seconds_count",] == 0


def test_a_client_that_left(metrics: Metrics) -> None:
    """Somebody who left before the headers would be counted as answered."""
    metrics.observe(record(status=None))
    assert samples(metrics.text())["requests_total", "openai", "/v1/chat/completions", "none"] == 1


def test_paths_make_no_series(metrics: Metrics) -> None:
    """Whoever scans for holes could fill the memory of the gateway, and of Prometheus."""
    for number in range(100):
        metrics.observe(record(f"/cgi-bin/{number}"))
    text = metrics.text()
    assert "cgi-bin" not in text
    assert samples(text)["requests_total", "none", "other", "200"] == 100


def test_read_when_asked(metrics: Metrics) -> None:
    """The figures by which the gateway is scaled would not be those of now."""
    found = samples(metrics.text())
    names = ("requests_in_progress", "streams_in_progress", "queue_length", "queue_size", "workers_busy", "workers")
    assert [found[name,] for name in names] == [3, 2, 1, 80, 2, 20]
    assert found["build_info", __version__] == 1
    assert (found["processes",], found["processes_running",], found["process_restarts_total",]) == (1, 1, 0)
    assert found["process_resident_memory_bytes",] > 0


def test_series_are_there_from_the_start(metrics: Metrics) -> None:
    """An alarm on a rate would miss the first failures, for there is no rate of what has just appeared."""
    found = samples(metrics.text())
    assert found["ended_total", "engine_error"] == 0
    assert found["tokens_total", "prompt"] == 0
    assert not [name for name, *_ in found if name.endswith("_created")]


def test_reactor_lag() -> None:
    """Nobody would see that the event loop is late."""
    clock = Clock()
    metrics = Metrics(cast("Reactor", clock), readings)
    metrics.start()
    clock.advance(1.0)
    clock.advance(1.3)
    found = samples(metrics.text())
    assert found["reactor_lag_seconds_count",] == 2
    assert found["reactor_lag_seconds_bucket", "0.25"] == 1
    assert found["reactor_lag_seconds_bucket", "0.5"] == 2
    metrics.stop()
    assert clock.getDelayedCalls() == []


# Served.


@pytest_twisted.async_yield_fixture
async def measured(engine: ScriptedEngine) -> AsyncIterator[tuple[RunningGateway, RunningGateway]]:
    """A gateway, and a client of its metrics."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, metrics_listen=LISTEN)
    exporter = Exporter(serverFromString(reactor, LISTEN), LISTEN, gateway.service.expose)
    exporter.privilegedStartService()
    port = cast("IListeningPort", exporter.port).getHost().port  # type: ignore[attr-defined]  # of TCP
    yield gateway, RunningGateway(gateway.service, f"http://127.0.0.1:{port}", gateway.pool)
    await stop_gateway(gateway)
    await exporter.stopService()


@pytest_twisted.ensureDeferred
async def test_served(measured: tuple[RunningGateway, RunningGateway]) -> None:
    """Prometheus would get nothing, or not what happened."""
    gateway, client = measured
    body = {"model": "brunix", "prompt": "one two", "stream": False}
    assert (await gateway.ask("POST", "/api/generate", json=body)).status == 200
    reply = await client.ask("GET", "/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(reply.body.decode())
    assert found["requests_total", "ollama", "/api/generate", "200"] == 1
    assert found["engine_calls_total", "OK", "AskAgent"] == 1
    assert found["tokens_total", "completion"] == 2


@pytest_twisted.ensureDeferred
async def test_in_progress(measured: tuple[RunningGateway, RunningGateway], engine: ScriptedEngine) -> None:
    """A gateway full of slow answers would seem to have nothing to do, and not be given a second."""
    gateway, client = measured
    body = {"model": "brunix", "prompt": script("one ", {"wait": "go"}, "two")}
    response = await gateway.send("POST", "/api/generate", json=body)
    found = samples((await client.ask("GET", "/metrics")).body.decode())
    assert (found["streams_in_progress",], found["requests_in_progress",], found["workers_busy",]) == (1, 1, 1)
    engine.go("go")
    assert b"two" in await treq.content(response)
    found = samples((await client.ask("GET", "/metrics")).body.decode())
    assert (found["streams_in_progress",], found["requests_in_progress",]) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_forms(measured: tuple[RunningGateway, RunningGateway]) -> None:
    """A scraper that wants OpenMetrics, or only the head, would get something else."""
    _, client = measured
    reply = await client.ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert reply.body.endswith(b"# EOF\n")
    head: Reply = await client.ask("HEAD", "/metrics")
    assert (head.status, head.body) == (200, b"")
    assert (await client.ask("GET", "/")).status == 404


@pytest_twisted.ensureDeferred
async def test_not_on_the_gateways_own_port(measured: tuple[RunningGateway, RunningGateway]) -> None:
    """Everyone who may ask questions could read the figures of all."""
    gateway, _ = measured
    assert (await gateway.ask("GET", "/metrics")).status == 404


@pytest_twisted.ensureDeferred
async def test_off(gateway: RunningGateway) -> None:
    """A gateway that nobody watches would count all the same."""
    assert gateway.service.metrics is None


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """The gateway would start without its metrics, and nobody know, or end with a traceback."""
    port = free_port()
    first = Exporter(serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1"), "x", lambda _: None)  # type: ignore[arg-type, return-value]  # never called
    first.privilegedStartService()
    with supervised(tmp_path, PROXY_PROCESSES="1", PROXY_METRICS_LISTEN=f"tcp:{port}:interface=127.0.0.1") as gateway:
        said = gateway.rest()
        assert gateway.process.wait(LIMIT_S) == 1
    assert f"twistd brunix: PROXY_METRICS_LISTEN is 'tcp:{port}:interface=127.0.0.1': " in said
    assert "Traceback" not in said
    first.stopService()


def test_an_endpoint_that_is_none(tmp_path: Path) -> None:
    """A mistake in the setting would be told as one in another."""
    with supervised(tmp_path, PROXY_PROCESSES="1", PROXY_METRICS_LISTEN="nonsense:1") as gateway:
        said = gateway.rest()
        assert gateway.process.wait(LIMIT_S) == 1
    assert "PROXY_METRICS_LISTEN is 'nonsense:1'; allowed: a port, host:port, or a Twisted endpoint" in said


# Several processes.


def three(restarts: int = 0) -> Processes:
    return Processes(0, 3, 2, restarts)


def told(count: int) -> str:
    """What a process says that has had so many questions."""
    metrics = Metrics(cast("Reactor", Clock()), lambda: readings(three()))
    for _ in range(count):
        metrics.observe(record())
    return metrics.text()


def test_sum() -> None:
    """The figures of a gateway of several processes would be those of one of them."""
    found = samples(Sum(three).exposition({0: told(2), 1: told(3)}, "")[1].decode())
    assert found["requests_total", "openai", "/v1/chat/completions", "200"] == 5
    assert found["request_duration_seconds_bucket", "/v1/chat/completions", "2.5"] == 5
    assert found["request_duration_seconds_sum", "/v1/chat/completions"] == 10
    assert found["workers",] == 40
    assert found["build_info", __version__] == 1
    assert (found["processes",], found["processes_running",]) == (3, 2)
    memory = {process for name, *labels in found if name == "process_resident_memory_bytes" for process in labels}
    assert memory == {"0", "1", "supervisor"}


def test_no_counter_goes_backwards() -> None:
    """The end of a process would look like a reset, and rates shoot up."""
    total = Sum(three)
    before = samples(total.exposition({0: told(2), 1: told(3)}, "")[1].decode())
    total.retire(told(3))
    after = samples(total.exposition({0: told(2), 1: told(0)}, "")[1].decode())
    backwards = {
        series: (value, after.get(series))
        for series, value in before.items()
        if series[0].endswith(("_total", "_count", "_sum", "_bucket"))
        and "process" not in series[0]
        and after.get(series, -1) < value
    }
    assert backwards == {}
    assert after["workers",] == 40


def test_sum_without_processes() -> None:
    """A scrape while the processes start would fail."""
    found = samples(Sum(three).exposition({}, "")[1].decode())
    assert found["processes",] == 3


def scrape(port: int) -> Samples:
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    text = response.read().decode()
    assert response.status == 200, text
    connection.close()
    return samples(text)


def scrape_until(port: int, series: tuple[str, ...], value: float) -> Samples:
    """Scrape until a figure is there that is on its way."""
    deadline_s = time.monotonic() + LIMIT_S
    while (found := scrape(port)).get(series) != value:
        assert time.monotonic() < deadline_s, (series, found.get(series))
    return found


def asked(gateway: Supervised, number: int) -> None:
    connection = gateway.connect(number)
    assert ask(connection) == "one two "
    connection.close()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_processes(tmp_path: Path, engine: ScriptedEngine, sign: signal.Signals) -> None:
    """What a process has counted would be lost with it, or not be counted at all."""
    port = free_port()
    with serving(tmp_path, engine, PROXY_METRICS_LISTEN=f"tcp:{port}:interface=127.0.0.1") as gateway:
        for number in (0, 1, 1):
            asked(gateway, number)
        series = ("requests_total", "ollama", "/api/generate", "200")
        found = scrape_until(port, series, 3)
        assert found["workers",] == 40
        assert (found["processes_running",], found["process_restarts_total",]) == (2, 0)
        os.kill(gateway.pids[1], sign)
        gateway.until(r"restarting in")
        assert scrape(port)[series] == 3
        gateway.until(r"Process 1 serves")
        asked(gateway, 1)
        found = scrape_until(port, series, 4)
        assert (found["processes_running",], found["process_restarts_total",]) == (2, 1)
        assert gateway.stop() == -signal.SIGTERM


def test_a_process_that_leaves_says_everything_first(tmp_path: Path, engine: ScriptedEngine) -> None:
    """What was counted since the last scrape would be lost, though the process had the time to say it."""
    port = free_port()
    with serving(tmp_path, engine, PROXY_METRICS_LISTEN=f"tcp:{port}:interface=127.0.0.1") as gateway:
        asked(gateway, 1)
        os.kill(gateway.pids[1], signal.SIGTERM)
        gateway.until(r"restarting in")
        assert scrape(port)["requests_total", "ollama", "/api/generate", "200"] == 1


def test_a_process_that_hangs(tmp_path: Path, engine: ScriptedEngine) -> None:
    """One process that hangs would keep the figures of all from being seen."""
    port = free_port()
    with serving(tmp_path, engine, PROXY_METRICS_LISTEN=f"tcp:{port}:interface=127.0.0.1") as gateway:
        asked(gateway, 1)
        series = ("requests_total", "ollama", "/api/generate", "200")
        scrape_until(port, series, 1)
        os.kill(gateway.pids[1], signal.SIGSTOP)
        assert scrape(port)[series] == 1


# What is made of them.


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bbrunix_gateway_[a-z_]+", text))


def served() -> set[str]:
    """Every name that an expression may have."""
    metrics = Metrics(cast("Reactor", Clock()), readings)
    metrics.observe(record())
    return {sample.name for family in text_string_to_metric_families(metrics.text()) for sample in family.samples}


def rules() -> Iterator[Mapping[str, Any]]:
    for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"]:
        yield from group["rules"]


def test_rules_know_the_metrics() -> None:
    """An alarm would never go off, for it waits for a metric that is not there."""
    expressions = [rule["expr"] for rule in rules()]
    assert len(expressions) >= 6
    for expression in expressions:
        assert names_in(expression) <= served()


def test_dashboard_knows_the_metrics() -> None:
    """A panel would stay empty for ever."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert len(panels) >= 10
    for panel in panels:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert names_in(target["expr"]) <= served(), target["expr"]
            assert "brunix_gateway_" in target["expr"] or "process_" in target["expr"]


def test_page() -> None:
    """The page would tell of a metric that is not there, or not of one that is."""
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page), "docs/metrics.md is out of date; run: make docs-tables"


def test_the_guide_lists_every_alert() -> None:
    """The monitoring guide says what each alert means."""
    guide = PAGE.with_name("monitoring.md").read_text("utf-8")
    for rule in rules():
        assert f"| `{rule['alert']}` |" in guide


def test_autoscaler_knows_its_metric() -> None:
    """The cluster would never start a second gateway."""
    names = names_in((DEPLOY / "kubernetes" / "base" / "autoscaler.yaml").read_text("utf-8"))
    assert names == {"brunix_gateway_streams_in_progress"}
    assert names <= served()
