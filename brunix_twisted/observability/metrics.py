"""
The gateway's metrics for Prometheus.

:class:`Metrics` contains the metrics of one process. With several processes, each sends its metrics as text to the
supervisor, which adds them up with :class:`Sum`. Everything here runs on the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import accumulate
from typing import Final

import attrs
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IDelayedCall

from brunix_twisted import __version__
from brunix_twisted.dialects.endpoints import QUESTIONS
from brunix_twisted.model import SESSION_OUTCOMES, Processes
from brunix_twisted.observability.request_record import REASONS, Readings, RequestRecord
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import BUCKETS_S, StateReadings

PREFIX: Final = "brunix_gateway_"

# Answers take seconds, some of them minutes. The first three buckets are for all other requests.
_DURATIONS_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_FIRST_TOKEN_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120)
_QUEUE_S: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30)
_LAG_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

# Interval between two measurements of the reactor's lag.
_LAG_INTERVAL_S: Final = 1.0

# Otherwise each counter and histogram has another series with its creation time.
disable_created_metrics()


class Metrics:
    """The metrics of one process: counters and histograms, and gauges that are read at each scrape."""

    def __init__(self, reactor: Reactor, read: Callable[[], Readings]) -> None:
        """
        Begin with all counters at zero.

        :param read: returns the current values of the gauges; called at each scrape.
        """
        self._reactor = reactor
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}requests", "Finished requests.", ["dialect", "endpoint", "status"], registry=registry
        )
        duration = Histogram(
            f"{PREFIX}request_duration_seconds",
            "Time from the start of a request to the end of its response.",
            ["endpoint"],
            buckets=_DURATIONS_S,
            registry=registry,
        )
        first = Histogram(
            f"{PREFIX}time_to_first_token_seconds",
            "Time from the start of a request to the engine's first text.",
            ["endpoint"],
            buckets=_FIRST_TOKEN_S,
            registry=registry,
        )
        self._queue_wait = Histogram(
            f"{PREFIX}queue_wait_seconds",
            "Time in the queue.",
            buckets=_QUEUE_S,
            registry=registry,
        )
        tokens = Counter(
            f"{PREFIX}tokens",
            "Tokens of answers, and of prompts whose answer was complete.",
            ["kind"],
            registry=registry,
        )
        calls = Counter(f"{PREFIX}engine_calls", "Finished engine calls.", ["rpc", "code"], registry=registry)
        ended = Counter(f"{PREFIX}ended", "Finished questions by reason.", ["reason"], registry=registry)
        sessions = Counter(
            f"{PREFIX}sessions",
            "Requests with a session, by how they got it: found by the conversation, new, named, or new for a side "
            "request.",
            ["outcome"],
            registry=registry,
        )
        self._lag = Histogram(
            f"{PREFIX}reactor_lag_seconds",
            "Delay of the event loop, measured once a second.",
            buckets=_LAG_S,
            registry=registry,
        )
        # Looking up a series by its labels would be the most expensive part of counting.
        self._durations = cache(duration.labels)
        self._firsts = {endpoint: first.labels(endpoint) for endpoint in QUESTIONS}
        self._ended = {reason: ended.labels(reason) for reason in REASONS}
        self._sessions = {outcome: sessions.labels(outcome) for outcome in SESSION_OUTCOMES}
        self._prompt_tokens, self._tokens = tokens.labels("prompt"), tokens.labels("completion")
        self._statuses = cache(self._requests.labels)
        self._calls = cache(calls.labels)
        for rpc in ("AskAgent", "AskAgentStream"):
            self._calls(rpc, "OK")
        registry.register(_Gauges(read))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._tick: IDelayedCall | None = None
        self._due_s = 0.0

    def observe(self, record: RequestRecord) -> None:
        """Count a finished request."""
        endpoint = record.endpoint
        self._statuses(record.dialect, endpoint, "none" if record.status is None else str(record.status)).inc()
        self._durations(endpoint).observe(record.total_s)
        first = self._firsts.get(endpoint)
        if first is None:
            return
        self._ended[record.reason].inc()
        if record.session_outcome is not None:
            self._sessions[record.session_outcome].inc()
        if record.queue_s is None:
            return
        self._queue_wait.observe(record.queue_s)
        if record.first_token_s is not None:
            first.observe(record.first_token_s)
        if record.tokens:
            self._tokens.inc(record.tokens)
        if record.prompt_tokens:
            self._prompt_tokens.inc(record.prompt_tokens)
        for call in record.calls:
            self._calls(*call).inc()

    def start(self) -> None:
        """Start to measure the reactor's lag."""
        self._due_s = self._reactor.seconds() + _LAG_INTERVAL_S
        self._tick = self._reactor.callLater(_LAG_INTERVAL_S, self._measure_lag)

    def _measure_lag(self) -> None:
        self._lag.observe(max(0.0, self._reactor.seconds() - self._due_s))
        self.start()

    def stop(self) -> None:
        """Stop measuring the reactor's lag."""
        if self._tick is not None and self._tick.active():
            self._tick.cancel()

    def text(self) -> str:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry).decode()

    def exposition(self, accept: str) -> tuple[bytes, bytes]:
        """Return all metrics in the format that a scraper accepts; see :func:`exposition`."""
        return exposition(self.registry, accept)


class _Gauges(Collector):
    """The gauges, which are read at each scrape."""

    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Return nothing. Otherwise the registry would call :meth:`collect` before the gauges can be read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read the gauges."""
        now = self._read()
        yield _gauge("requests_in_progress", "Requests in progress.", now.requests)
        yield _gauge("streams_in_progress", "Streamed answers in progress or waiting for a worker.", now.streams)
        yield _gauge("queue_length", "Questions that wait for a worker.", now.waiting)
        yield _gauge("queue_size", "Maximum length of the queue.", now.queue_size)
        yield _gauge("workers_busy", "Workers in use: concurrent engine calls.", now.busy)
        yield _gauge("workers", "Number of workers: the maximum of concurrent engine calls.", now.places)
        if now.state is not None:
            yield from _state(now.state)
        yield InfoMetricFamily(f"{PREFIX}build", "Version of the gateway.", {"version": __version__})
        # With several processes, the supervisor reports these.
        if now.processes is None:
            yield from _processes(Processes(number=0, configured=1, running=1, restarts=0))


def _state(now: StateReadings) -> Iterator[Metric]:
    yield _gauge("state_up", "Gateway processes whose state store works; 0 while it is replaced by memory.", now.is_up)
    yield CounterMetricFamily(
        f"{PREFIX}state_failures", "Calls that the state store did not serve, so that memory did.", now.failures
    )
    duration = HistogramMetricFamily(f"{PREFIX}state_duration_seconds", "Time of a call to the state store.")
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    duration.add_metric([], list(zip(bounds, accumulate(now.durations), strict=True)), now.total_s)
    yield duration


def _processes(now: Processes) -> Iterator[Metric]:
    yield _gauge("processes", "Configured number of gateway processes.", now.configured)
    yield _gauge("processes_running", "Gateway processes that accept connections.", now.running)
    yield CounterMetricFamily(f"{PREFIX}process_restarts", "Replaced gateway processes.", now.restarts)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, documentation, value)


_Series = tuple[str, tuple[tuple[str, str], ...]]


@attrs.define(eq=False)
class _Family:
    type: str
    documentation: str
    values: dict[_Series, float] = attrs.Factory(dict)


class Sum(Collector):
    """
    The metrics of several processes, and of their supervisor.

    The gateway's metrics are sums over all processes, including those that have exited, so a counter does not decrease
    when a process is replaced. The metrics of a process, such as its memory, have the label ``process``.
    """

    def __init__(self, read: Callable[[], Processes]) -> None:
        """
        Begin with no processes.

        :param read: returns the state of the processes; its number is ignored.
        """
        self._read = read
        self._ended: dict[str, _Family] = {}
        self._now: dict[str, _Family] = {}
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def retire(self, text: str) -> None:
        """Keep the counters and histograms of a process that has exited."""
        for family in text_string_to_metric_families(text):
            if family.name.startswith(PREFIX) and family.type in {"counter", "histogram"}:
                _add(self._ended, family)

    def exposition(self, texts: Mapping[int, str], accept: str) -> tuple[bytes, bytes]:
        """
        Return the sums in the format that a scraper accepts; see :func:`exposition`.

        :param texts: the metrics of each process in Prometheus's text format, by number.
        """
        self._now = {name: attrs.evolve(family, values=dict(family.values)) for name, family in self._ended.items()}
        for number, text in texts.items():
            self._update(text, str(number))
        self._update(generate_latest(self._own).decode(), "supervisor")
        return exposition(self._registry, accept)

    def _update(self, text: str, process: str) -> None:
        for family in text_string_to_metric_families(text):
            _add(self._now, family, None if family.name.startswith(PREFIX) else process)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: there are no sums yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the sums and the state of the processes."""
        for name, family in self._now.items():
            metric = Metric(name, family.documentation, family.type)
            for (sample, labels), value in family.values.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric
        yield from _processes(self._read())


def _add(families: dict[str, _Family], family: Metric, process: str | None = None) -> None:
    known = families.setdefault(family.name, _Family(family.type, family.documentation))
    constant = family.name == f"{PREFIX}build_info"
    for sample in family.samples:
        labels = sample.labels if process is None else {**sample.labels, "process": process}
        series = sample.name, tuple(labels.items())
        known.values[series] = sample.value if constant else known.values.get(series, 0.0) + sample.value


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, bytes]:
    """
    Return the metrics of a registry in the format that a scraper accepts.

    :param accept: the scraper's ``Accept`` header.
    :returns: the content type and the body.
    """
    encode, content_type = choose_encoder(accept)
    body_bytes: bytes = encode(registry)
    return content_type.encode("ascii"), body_bytes
