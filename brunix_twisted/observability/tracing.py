"""
The export of spans to an OpenTelemetry collector.

Only this module and :mod:`brunix_twisted.observability.spans` import OpenTelemetry, and they are imported only if
traces are on. Everything here runs on the reactor's thread, except the export, which runs on a thread of the SDK.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit
from uuid import uuid4

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.util.types import AttributeValue
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.http import Request

from brunix_twisted import __version__
from brunix_twisted.config.settings import Settings
from brunix_twisted.engine.connection import proxy_options
from brunix_twisted.model import TraceContext
from brunix_twisted.observability.spans import RequestSpan, SpanSource, address_attributes, begin_request
from brunix_twisted.runtime.reactors import Reactor, cancel_when_fired

_log = Logger("brunix.gateway")

FLUSH_S: Final = 2.0
"""Maximum time to export the last spans when the gateway stops."""


def _collector(environment: Mapping[str, str]) -> str:
    """Return the host and port of the collector from the exporter's variables."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    endpoint = next((environment[name] for name in names if environment.get(name)), "localhost:4317")
    return urlsplit(endpoint).netloc or endpoint


class Tracing:
    """Begins the spans of requests, and exports them to the collector."""

    def __init__(self, reactor: Reactor, settings: Settings, digest_key: bytes) -> None:
        """
        Start the exporter, which reads its collector from the variables ``OTEL_…``.

        It starts a thread, so create it after twistd's fork.

        :param digest_key: the key of the session digests.
        """
        self._reactor = reactor
        self._logs = _Logs(reactor)
        options = cast("Any", proxy_options(_collector(os.environ)))
        self._exporter = OTLPSpanExporter(channel_options=options)
        # No shutdown at exit: the gateway calls stop(), which has a timeout.
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._source = SpanSource(
            tracer=self._provider.get_tracer("brunix_twisted", __version__),
            model_id=settings.model_id,
            engine=address_attributes(settings.grpc_target),
            digest_key=digest_key,
        )
        logging.getLogger("opentelemetry").addHandler(self._logs)

    def begin(self, request: Request, request_id: str, trace: TraceContext | None) -> RequestSpan:
        """Begin the span of a request, as a child of the caller's span if there is one."""
        return begin_request(self._source, request, request_id, trace)

    def stop(self) -> Deferred[None]:
        """
        Export the finished spans, for at most :data:`FLUSH_S`, and stop.

        Fires when the SDK's thread has ended. No span may begin or end afterwards.
        """
        stopped: Deferred[None] = maybeDeferred(deferToThread, self._provider.shutdown)
        # If the collector is unreachable, the SDK retries. Shutting down the exporter makes it give up.
        deadline = self._reactor.callLater(FLUSH_S, self._give_up)

        def ended(result: Failure | None) -> Failure | None:
            logging.getLogger("opentelemetry").removeHandler(self._logs)
            return result

        return cancel_when_fired(stopped, deadline).addBoth(ended)

    def _give_up(self) -> None:
        self._logs.warn(f"The collector did not receive all spans within {FLUSH_S:g} s; the others are lost")
        deferToThread(self._exporter.shutdown)


def _resource() -> Resource:
    """Return the resource of the exported spans; the variables ``OTEL_…`` override it."""
    defaults: dict[str, AttributeValue] = {
        "service.name": "brunix-gateway",
        "service.version": __version__,
        # Each process has another id.
        "service.instance.id": str(uuid4()),
    }
    return Resource.create(defaults | dict(OTELResourceDetector().detect().attributes))


class _Logs(logging.Handler):
    """Writes the SDK's log records, from any thread, to the gateway's log."""

    def __init__(self, reactor: Reactor) -> None:
        super().__init__(logging.WARNING)
        self._reactor = reactor

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record on the reactor's thread."""
        self._reactor.callFromThread(self.warn, record.getMessage())

    def warn(self, text: str) -> None:
        """Log a warning. Call it on the reactor's thread."""
        _log.emit(LogLevel.warn, "Traces: {text}", text=text)
