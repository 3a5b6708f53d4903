"""
What the gateway counts and measures, for Prometheus.

One :class:`Metrics` counts what one process does. Of several processes each sends its own as text to the supervisor,
which adds them up with :class:`Sum`. Everything here runs on the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IDelayedCall

from brunix_twisted import __version__
from brunix_twisted.dialects.endpoints import QUESTIONS
from brunix_twisted.model import Processes
from brunix_twisted.observability.request_record import REASONS, Readings, RequestRecord
from brunix_twisted.runtime.reactors import Reactor

PREFIX: Final = "brunix_gateway_"

# Answers take seconds, and some minutes; everything else is told by the first three.
_DURATIONS_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_FIRST_TOKEN_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120)
_QUEUE_S: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30)
_LAG_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

# How often it is measured how late the reactor is.
_LAG_EVERY_S: Final = 1.0

# Otherwise each counter and histogram has a second series with the time at which it was made.
disable_created_metrics()


class Metrics:
    """What one process counts, and reads when it is asked."""

    def __init__(self, reactor: Reactor, read: Callable[[], Readings]) -> None:
        """
        Count from zero.

        :param read: says how things stand; called when somebody wants to know.
        """
        self._reactor = reactor
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}requests", "Requests that have ended.", ["dialect", "endpoint", "status"], registry=registry
        )
        duration = Histogram(
            f"{PREFIX}request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            ["endpoint"],
            buckets=_DURATIONS_S,
            registry=registry,
        )
        first = Histogram(
            f"{PREFIX}time_to_first_token_seconds",
            "From a question's arrival to the engine's first text.",
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
            "Tokens: of prompts whose answer was complete, and of answers.",
            ["kind"],
            registry=registry,
        )
        calls = Counter(
            f"{PREFIX}engine_calls", "Calls to the engine that have ended.", ["rpc", "code"], registry=registry
        )
        ended = Counter(f"{PREFIX}ended", "Questions that have ended, by the reason.", ["reason"], registry=registry)
        self._lag = Histogram(
            f"{PREFIX}reactor_lag_seconds",
            "How late the event loop is, measured once a second.",
            buckets=_LAG_S,
            registry=registry,
        )
        # To look a series up by its labels is what counting would cost most.
        self._durations = cache(duration.labels)
        self._firsts = {endpoint: first.labels(endpoint) for endpoint in QUESTIONS}
        self._ended = {reason: ended.labels(reason) for reason in REASONS}
        self._prompt_tokens, self._tokens = tokens.labels("prompt"), tokens.labels("completion")
        self._statuses = cache(self._requests.labels)
        self._calls = cache(calls.labels)
        for rpc in ("AskAgent", "AskAgentStream"):
            self._calls(rpc, "OK")
        registry.register(_Reader(read))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._tick: IDelayedCall | None = None
        self._due_s = 0.0

    def observe(self, record: RequestRecord) -> None:
        """Count a request that has ended."""
        endpoint = record.endpoint
        self._statuses(record.dialect, endpoint, "none" if record.status is None else str(record.status)).inc()
        self._durations(endpoint).observe(record.total_s)
        first = self._firsts.get(endpoint)
        if first is None:
            return
        self._ended[record.reason].inc()
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
        """Measure the reactor from now on."""
        self._due_s = self._reactor.seconds() + _LAG_EVERY_S
        self._tick = self._reactor.callLater(_LAG_EVERY_S, self._measure)

    def _measure(self) -> None:
        self._lag.observe(max(0.0, self._reactor.seconds() - self._due_s))
        self.start()

    def stop(self) -> None:
        """Measure the reactor no more."""
        if self._tick is not None and self._tick.active():
            self._tick.cancel()

    def text(self) -> str:
        """Write everything as text."""
        return generate_latest(self.registry).decode()

    def exposition(self, accept: str) -> tuple[bytes, bytes]:
        """Write everything as a scraper asks for it; see :func:`exposition`."""
        return exposition(self.registry, accept)


class _Reader(Collector):
    """What is read, and not counted on the way of a request."""

    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Say nothing, so that nothing is read before it can be."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read."""
        now = self._read()
        yield _gauge("requests_in_progress", "Requests being answered.", now.requests)
        yield _gauge("streams_in_progress", "Streamed answers under way, or waiting for a worker.", now.streams)
        yield _gauge("queue_length", "Questions that wait for a worker.", now.waiting)
        yield _gauge("queue_size", "How many may wait.", now.queue_size)
        yield _gauge("workers_busy", "Questions that are with the engine.", now.busy)
        yield _gauge("workers", "How many may be with the engine at once.", now.places)
        yield InfoMetricFamily(f"{PREFIX}build", "What is running.", {"version": __version__})
        # Of several, the supervisor tells.
        if now.processes is None:
            yield from _processes(Processes(number=0, configured=1, running=1, restarts=0))


def _processes(now: Processes) -> Iterator[Metric]:
    yield _gauge("processes", "How many gateway processes there are meant to be.", now.configured)
    yield _gauge("processes_running", "How many of them accept connections.", now.running)
    yield CounterMetricFamily(f"{PREFIX}process_restarts", "How often one has had to be replaced.", now.restarts)


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
    What several processes count, added up, and what their supervisor knows itself.

    What is the gateway's is a sum over its processes, those that have ended included, so that no counter goes
    backwards when one is replaced. What is a process's own, such as its memory, has the label ``process``.
    """

    def __init__(self, read: Callable[[], Processes]) -> None:
        """
        Begin with nothing.

        :param read: says how the processes are; the number is of no matter.
        """
        self._read = read
        self._ended: dict[str, _Family] = {}
        self._now: dict[str, _Family] = {}
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def retire(self, text: str) -> None:
        """Keep what a process has counted that has ended."""
        for family in text_string_to_metric_families(text):
            if family.name.startswith(PREFIX) and family.type in {"counter", "histogram"}:
                _add(self._ended, family)

    def exposition(self, texts: Mapping[int, str], accept: str) -> tuple[bytes, bytes]:
        """
        Write the sums as a scraper asks for them; see :func:`exposition`.

        :param texts: what each process says of itself, by its number.
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
        """Say nothing: there is nothing yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give the sums, and how the processes are."""
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
    Write what a registry holds, in the form that a scraper asks for.

    :param accept: its header.
    :returns: the content type, and the body.
    """
    encode, content_type = choose_encoder(accept)
    body_bytes: bytes = encode(registry)
    return content_type.encode("ascii"), body_bytes
