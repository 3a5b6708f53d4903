"""The spans of a running gateway, as a collector gets them over OTLP, and the trace that its engine is told of."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from urllib.request import Request, urlopen

import attrs
import grpc
import pytest
import pytest_twisted
import treq
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, rpc_attributes
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
    user_agent_attributes,
)
from twisted.internet.tcp import Connection

from endpoints import asking, limited
from fake_reactor import LIMIT_S
from gateways import RunningGateway, in_thread, run_gateway, stop_gateway
from isolation import CLEAN
from log_lines import log_lines
from received import connect
from scripted_engine import ScriptedEngine, script
from twistd import twistd, wait_for_port

CHAT = "/v1/chat/completions"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-01"
NOT_SAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-00"

SERVER, CLIENT = trace_pb2.Span.SPAN_KIND_SERVER, trace_pb2.Span.SPAN_KIND_CLIENT
ERROR, UNSET = trace_pb2.Status.STATUS_CODE_ERROR, trace_pb2.Status.STATUS_CODE_UNSET

HANG = {"hang": True}


def plain(value: AnyValue) -> Any:  # noqa: ANN401 - whatever an attribute may be
    if value.HasField("array_value"):
        return [plain(item) for item in value.array_value.values]
    return getattr(value, str(value.WhichOneof("value")))


def as_dict(attributes: Any) -> dict[str, Any]:  # noqa: ANN401 - protobuf's list of KeyValue
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: plain(pair.value) for pair in pairs}


@attrs.frozen
class Exported:
    """A span as the collector got it."""

    span: trace_pb2.Span
    resource: dict[str, Any]

    @property
    def attributes(self) -> dict[str, Any]:
        return as_dict(self.span.attributes)

    @property
    def events(self) -> list[str]:
        return [event.name for event in self.span.events]


class Collector(services.TraceServiceServicer):
    """A real gRPC server that keeps the spans it is sent."""

    def __init__(self, *, answers: bool = True) -> None:
        self.spans: list[Exported] = []
        self.asked = threading.Event()
        self._go_on = threading.Event()
        if answers:
            self._go_on.set()
        self._server = grpc.server(ThreadPoolExecutor(4))
        services.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.url = f"http://127.0.0.1:{self.port}"
        self._server.start()

    def Export(  # noqa: N802 - the rpc's name
        self, request: messages.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> messages.ExportTraceServiceResponse:
        del context
        self.asked.set()
        self._go_on.wait(LIMIT_S)
        for of_resource in request.resource_spans:
            resource = as_dict(of_resource.resource.attributes)
            for scope in of_resource.scope_spans:
                self.spans += [Exported(span, resource) for span in scope.spans]
        return messages.ExportTraceServiceResponse()

    def of_kind(self, kind: int) -> list[Exported]:
        """List the spans of a kind in the order in which they began."""
        found = [exported for exported in self.spans if exported.span.kind == kind]
        return sorted(found, key=lambda exported: exported.span.start_time_unix_nano)

    def one_request(self) -> tuple[Exported, Exported]:
        """Give the only request's span and that of its engine call."""
        (request,), (call,) = self.of_kind(SERVER), self.of_kind(CLIENT)
        return request, call

    def stop(self) -> None:
        self._go_on.set()
        self._server.stop(None).wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


Serve = Callable[..., Coroutine[Any, Any, RunningGateway]]


@pytest_twisted.async_yield_fixture
async def serve(engine: ScriptedEngine) -> AsyncIterator[Serve]:
    """Starts gateways that export to a collector."""
    running: list[RunningGateway] = []
    patch = pytest.MonkeyPatch()

    async def start(url: str, **settings: Any) -> RunningGateway:  # noqa: ANN401 - as in Settings
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        settings = {"grpc_target": engine.target, "drain_s": 0.0, "traces": "otlp"} | settings
        running.append(await run_gateway(**settings))
        return running[-1]

    yield start
    for gateway in running:
        await stop_gateway(gateway)
    patch.undo()


# What goes to the engine, with OpenTelemetry and without.


@pytest_twisted.ensureDeferred
async def test_passed_on(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """A caller's trace would not reach the engine unless OpenTelemetry is installed."""
    headers = {"traceparent": SAMPLED, "tracestate": "vendor=1, other=2"}
    await gateway.ask("POST", CHAT, json=asking(CHAT, "one", stream=False), headers=headers)
    metadata = engine.call().metadata
    assert metadata["traceparent"] == SAMPLED
    assert metadata["tracestate"] == "vendor=1,other=2"


@pytest.mark.parametrize("traces", ["off", "otlp"])
@pytest_twisted.ensureDeferred
async def test_logged(serve: Serve, collector: Collector, traces: str) -> None:
    """The log line of a request in a trace could not be found by the trace, or one without a trace would have some."""
    gateway = await serve(collector.url, traces=traces)
    with log_lines() as lines:
        await gateway.ask("GET", "/api/version", headers={"traceparent": SAMPLED})
        await lines.until(f" trace={TRACE_ID}")
        await gateway.ask("GET", "/api/tags")
        await lines.until("/api/tags")
    (line,) = [line for line in lines.of_requests() if "/api/tags" in line]
    await stop_gateway(gateway)
    own = [exported.span.trace_id.hex() for exported in collector.spans if exported.span.parent_span_id == b""]
    assert line.partition(" trace=")[2] == "".join(own)


@pytest.mark.parametrize("headers", [{}, {"traceparent": "nonsense", "tracestate": "vendor=1"}, {"tracestate": "a=1"}])
@pytest_twisted.ensureDeferred
async def test_nothing_is_invented(gateway: RunningGateway, engine: ScriptedEngine, headers: dict[str, str]) -> None:
    """The engine would be told of a trace that nobody has."""
    await gateway.ask("POST", CHAT, json=asking(CHAT, "one", stream=False), headers=headers)
    assert not {"traceparent", "tracestate"} & set(engine.call().metadata)


@pytest.mark.parametrize("traceparent", [None, "nonsense", SAMPLED])
@pytest_twisted.ensureDeferred
async def test_parentage(serve: Serve, collector: Collector, engine: ScriptedEngine, traceparent: str | None) -> None:
    """The spans of one question would not stand below one another, or not below the caller's."""
    gateway = await serve(collector.url)
    headers = {"traceparent": traceparent, "tracestate": "vendor=1"} if traceparent else {}
    await gateway.ask("POST", CHAT, json=asking(CHAT, "one two", stream=True), headers=headers)
    await stop_gateway(gateway)
    request, call = collector.one_request()
    if traceparent == SAMPLED:
        assert request.span.trace_id.hex() == TRACE_ID
        assert request.span.parent_span_id.hex() == PARENT_ID
        assert engine.call().metadata["tracestate"] == "vendor=1"
    else:
        assert request.span.trace_id.hex() != TRACE_ID
        assert request.span.parent_span_id == b""
    assert call.span.trace_id == request.span.trace_id
    assert call.span.parent_span_id == request.span.span_id
    told, _, flags = engine.call().metadata["traceparent"].rpartition("-")
    assert told == f"00-{call.span.trace_id.hex()}-{call.span.span_id.hex()}"
    # Recorded; and of a trace that begins here OpenTelemetry says that its id is random.
    assert flags == ("01" if traceparent == SAMPLED else "03")
    assert request.span.start_time_unix_nano <= call.span.start_time_unix_nano
    assert call.span.start_time_unix_nano <= call.span.end_time_unix_nano <= request.span.end_time_unix_nano


@pytest_twisted.ensureDeferred
async def test_not_sampled(serve: Serve, collector: Collector, engine: ScriptedEngine) -> None:
    """A caller that does not want its trace recorded would have it recorded, or the engine be told otherwise."""
    gateway = await serve(collector.url)
    await gateway.ask("POST", CHAT, json=asking(CHAT, "one", stream=False), headers={"traceparent": NOT_SAMPLED})
    await gateway.ask("GET", "/api/version")
    await stop_gateway(gateway)
    assert [span.attributes["url.path"] for span in collector.spans] == ["/api/version"]
    told = engine.call().metadata["traceparent"]
    assert told.startswith(f"00-{TRACE_ID}-")
    assert told.endswith("-00")


@pytest_twisted.ensureDeferred
async def test_sdk_disabled(
    serve: Serve, collector: Collector, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry's own switch would not turn it off, or break the caller's trace."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    gateway = await serve(collector.url)
    await gateway.ask("POST", CHAT, json=asking(CHAT, "one", stream=False), headers={"traceparent": SAMPLED})
    await gateway.ask("POST", CHAT, json=asking(CHAT, "one", stream=False))
    await stop_gateway(gateway)
    assert not collector.spans
    assert engine.call().metadata["traceparent"] == SAMPLED
    assert "traceparent" not in engine.call(1).metadata


# What the spans say.


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("path", "operation"),
    [
        (CHAT, "chat"),
        ("/api/chat", "chat"),
        ("/v1/completions", "text_completion"),
        ("/api/generate", "text_completion"),
        ("/v1/responses", "chat"),
        ("/v1/messages", "chat"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_attributes(  # noqa: PLR0913 - fixtures and the parameters of one row
    serve: Serve, collector: Collector, engine: ScriptedEngine, path: str, operation: str, *, stream: bool
) -> None:
    """Somebody who looks for slow answers would not find them by route, model or status."""
    gateway = await serve(collector.url)
    limit = limited(path, length=100)
    headers = {"X-Request-Id": "number-1", "X-Session-Id": "ticket-of-anna", "User-Agent": "editor/1.0"}
    with log_lines() as log:
        reply = await gateway.ask("POST", path, json=asking(path, "one two", stream=stream, **limit), headers=headers)
    assert reply.status == 200
    await stop_gateway(gateway)
    request, call = collector.one_request()
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    assert request.span.name == f"POST {path}"
    assert request.span.status.code == UNSET
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": path,
        "http.response.status_code": 200,
        "url.path": path,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": host,
        "server.port": int(port),
        "user_agent.original": "editor/1.0",
        "brunix.request_id": "number-1",
        "brunix.ended": "complete",
    }
    attributes = call.attributes
    until_first_s = attributes.pop("gen_ai.response.time_to_first_chunk", None)
    assert (until_first_s is not None and until_first_s > 0) == stream
    (line,) = log.of_requests()
    assert f" session={attributes.pop('gen_ai.conversation.id')} " in line
    rpc = "AskAgentStream" if stream else "AskAgent"
    engine_host, _, engine_port = engine.target.partition(":")
    assert call.span.name == f"{operation} brunix"
    assert call.span.status.code == UNSET
    assert call.events == ["first_token"]
    assert attributes == {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "brunix",
        "gen_ai.request.model": "brunix",
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.stream": stream,
        "gen_ai.response.model": "brunix",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.output_tokens": 2,
        "rpc.system": "grpc",
        "rpc.system.name": "grpc",
        "rpc.method": f"brunix.AssistanceEngine/{rpc}",
        "rpc.grpc.status_code": 0,
        "rpc.response.status_code": "OK",
        "server.address": engine_host,
        "server.port": int(engine_port),
    }


@pytest_twisted.ensureDeferred
async def test_a_stored_answers_id_is_not_exported(serve: Serve, collector: Collector) -> None:
    """Who looks at traces cannot read a stored answer, or ask in its session."""
    gateway = await serve(collector.url)
    with log_lines() as log:
        assert (await gateway.ask("GET", "/v1/responses/resp_secret")).status == 404
    await stop_gateway(gateway)
    assert "secret" not in "".join(log.texts)
    (exported,) = collector.of_kind(SERVER)
    assert exported.attributes["url.path"] == "/v1/responses/{id}"


@pytest_twisted.ensureDeferred
async def test_names_are_the_conventions(serve: Serve, collector: Collector) -> None:
    """Dashboards made for the conventions would find nothing under a mistyped name."""
    gateway = await serve(collector.url)
    await gateway.ask("POST", CHAT, json=asking(CHAT, script({"status": "INTERNAL"}), stream=False))
    await stop_gateway(gateway)
    known = {
        getattr(module, name)
        for module in (
            *(gen_ai_attributes, rpc_attributes, error_attributes, http_attributes, network_attributes),
            *(server_attributes, url_attributes, user_agent_attributes),
        )
        for name in dir(module)
        if name.isupper()
    }
    named = {name for exported in collector.spans for name in exported.attributes}
    assert {name for name in named if name not in known} == {"brunix.request_id", "brunix.ended"}


@pytest_twisted.ensureDeferred
async def test_nothing_that_was_said(serve: Serve, collector: Collector) -> None:
    """Whoever reads traces would read people's questions, answers, or the names of their sessions."""
    gateway = await serve(collector.url)
    headers = {"X-Session-Id": "secret-session"}
    for steps in (["secret answer"], ["secret", {"status": ["INTERNAL", "secret internals"]}]):
        body = asking(CHAT, script(*steps), stream=True, stop=["secret stop"])
        await gateway.ask("POST", CHAT, json=body, headers=headers)
    await stop_gateway(gateway)
    assert len(collector.of_kind(CLIENT)) == 2
    assert "secret" not in str(collector.spans)


@pytest_twisted.ensureDeferred
async def test_resource(serve: Serve, collector: Collector) -> None:
    """Spans would come from an unknown service, or several processes look like one."""
    for _ in range(2):
        gateway = await serve(collector.url)
        await gateway.ask("GET", "/api/version")
        await stop_gateway(gateway)
    first, second = (exported.resource for exported in collector.spans)
    assert first["service.name"] == second["service.name"] == "brunix-gateway"
    assert first["service.version"]
    assert first["service.instance.id"] != second["service.instance.id"]


@pytest_twisted.ensureDeferred
async def test_named_by_the_operator(serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that an operator gives the service would be overridden by ours."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "answers")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    gateway = await serve(collector.url)
    await gateway.ask("GET", "/api/version")
    await stop_gateway(gateway)
    (exported,) = collector.spans
    assert exported.resource["service.name"] == "answers"
    assert exported.resource["deployment.environment.name"] == "staging"


@pytest.mark.parametrize(
    ("method", "path", "name", "route", "status"),
    [
        ("GET", "/health/live", "GET /health/live", "/health/live", 200),
        ("GET", "/v1/models/brunix", "GET /v1/models/{id}", "/v1/models/{id}", 200),
        ("GET", "/v1/models/nobody", "GET /v1/models/{id}", "/v1/models/{id}", 404),
        ("GET", "/nowhere/at/all", "GET", None, 404),
        ("BREW", "/nowhere/at/all", "HTTP", None, 404),
    ],
)
@pytest_twisted.ensureDeferred
async def test_other_requests(  # noqa: PLR0913, PLR0917 - the parameters of one row
    serve: Serve, collector: Collector, method: str, path: str, name: str, route: str | None, status: int
) -> None:
    """Spans of requests that ask nothing would be missing, or each have a name of its own."""
    gateway = await serve(collector.url)
    await gateway.ask(method, path)
    await stop_gateway(gateway)
    (request,) = collector.spans
    assert request.span.name == name
    assert request.attributes.get("http.route") == route
    assert request.attributes["http.response.status_code"] == status
    assert request.attributes["http.request.method"] == ("GET" if method == "GET" else "_OTHER")
    assert request.span.status.code == UNSET


@pytest_twisted.ensureDeferred
async def test_several_choices(serve: Serve, collector: Collector) -> None:
    """One of two answers would have no span."""
    gateway = await serve(collector.url)
    body = {"model": "brunix", "prompt": ["one two", "three"], "stream": False}
    await gateway.ask("POST", "/v1/completions", json=body)
    await stop_gateway(gateway)
    (request,) = collector.of_kind(SERVER)
    calls = collector.of_kind(CLIENT)
    assert {call.span.parent_span_id for call in calls} == {request.span.span_id}
    assert [call.attributes["gen_ai.usage.input_tokens"] for call in calls] == [2, 2]
    assert [call.attributes["gen_ai.usage.output_tokens"] for call in calls] == [2, 2]


# How a request ends.


@pytest.mark.parametrize(
    ("steps", "status", "grpc_status", "error"),
    [
        ([{"status": "INTERNAL"}], 502, 13, "INTERNAL"),
        ([{"status": "RESOURCE_EXHAUSTED"}], 429, 8, "RESOURCE_EXHAUSTED"),
        ([{"break_off": True}], 502, 0, "engine_error"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_engine_fails(  # noqa: PLR0913, PLR0917 - fixtures and the parameters of one row
    serve: Serve, collector: Collector, steps: list[object], status: int, grpc_status: int, error: str
) -> None:
    """A failed question would look like one that was answered."""
    gateway = await serve(collector.url)
    reply = await gateway.ask("POST", CHAT, json=asking(CHAT, script(*steps), stream=True))
    assert reply.status == status
    await stop_gateway(gateway)
    request, call = collector.one_request()
    assert request.attributes["http.response.status_code"] == status
    # By the conventions what the caller may mend is no error of the server's.
    assert request.span.status.code == (ERROR if status >= 500 else UNSET)
    assert request.attributes.get("error.type") == (str(status) if status >= 500 else None)
    assert call.span.status.code == ERROR
    assert call.attributes["error.type"] == error
    assert call.attributes["rpc.grpc.status_code"] == grpc_status
    assert "gen_ai.response.finish_reasons" not in call.attributes


@pytest_twisted.ensureDeferred
async def test_the_engine_is_away(serve: Serve, collector: Collector) -> None:
    """An outage of the engine would not show."""
    with socket.socket() as nobody:
        # Bound, so that nobody else listens there.
        nobody.bind(("127.0.0.1", 0))
        gateway = await serve(collector.url, grpc_target=f"127.0.0.1:{nobody.getsockname()[1]}")
        await gateway.ask("POST", CHAT, json=asking(CHAT, "one", stream=False))
    await stop_gateway(gateway)
    request, call = collector.one_request()
    assert request.attributes["error.type"] == "503"
    assert call.attributes["error.type"] == call.attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert call.span.status.message == "The engine is unreachable"
    assert call.events == []


@pytest_twisted.ensureDeferred
async def test_the_engine_fails_within_an_answer(serve: Serve, collector: Collector, engine: ScriptedEngine) -> None:
    """An answer that broke off would look like a good one, for its HTTP status is 200."""
    gateway = await serve(collector.url)
    steps = ["begun", {"wait": "read"}, {"status": "INTERNAL"}]
    response = await gateway.send("POST", CHAT, json=asking(CHAT, script(*steps), stream=True))
    engine.go("read")
    await treq.content(response)
    await stop_gateway(gateway)
    request, call = collector.one_request()
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["error.type"] == request.attributes["brunix.ended"] == "engine_error"
    assert request.span.status.code == call.span.status.code == ERROR
    assert call.events == ["first_token"]


@pytest_twisted.ensureDeferred
async def test_cut(serve: Serve, collector: Collector) -> None:
    """An answer that ended where its caller wanted it to would look like a failure."""
    gateway = await serve(collector.url)
    body = asking(CHAT, script("a text of many tokens", HANG), stream=True, max_tokens=2)
    await gateway.ask("POST", CHAT, json=body)
    await stop_gateway(gateway)
    request, call = collector.one_request()
    assert request.span.status.code == call.span.status.code == UNSET
    assert request.attributes["brunix.ended"] == "cut"
    assert call.attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert call.attributes["gen_ai.usage.output_tokens"] == 2
    assert call.attributes["rpc.response.status_code"] == "CANCELLED"
    assert "error.type" not in call.attributes


@pytest_twisted.ensureDeferred
async def test_the_client_is_gone(serve: Serve, collector: Collector, engine: ScriptedEngine) -> None:
    """A person who pressed the stop button would look like a failure, or leave no span."""
    gateway = await serve(collector.url)
    body = json.dumps(asking(CHAT, script("begun", HANG), stream=True)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    client = await connect(gateway.url, head.encode() + body)
    await client.until(b"begun")
    client.leave()
    asked = await in_thread(engine.call)
    assert await in_thread(asked.ended.wait, LIMIT_S)
    await stop_gateway(gateway)
    request, call = collector.one_request()
    assert request.attributes["brunix.ended"] == "client_gone"
    assert request.span.status.code == call.span.status.code == UNSET
    assert call.attributes["rpc.response.status_code"] == "CANCELLED"
    assert "gen_ai.response.finish_reasons" not in call.attributes
    assert call.attributes["gen_ai.usage.output_tokens"] == 2


@pytest_twisted.ensureDeferred
async def test_nobody_is_asked(serve: Serve, collector: Collector, engine: ScriptedEngine) -> None:
    """A question that never reached the engine would show an engine call."""
    gateway = await serve(collector.url, thread_workers=1, queue_size=0)
    first = await gateway.send("POST", CHAT, json=asking(CHAT, script("begun", {"wait": "go"}), stream=True))
    reply = await gateway.ask("POST", CHAT, json=asking(CHAT, "second", stream=True))
    assert reply.status == 503
    engine.go("go")
    await treq.content(first)
    await stop_gateway(gateway)
    (call,) = collector.of_kind(CLIENT)
    answered, refused = collector.of_kind(SERVER)
    assert call.span.parent_span_id == answered.span.span_id
    assert refused.attributes["error.type"] == "503"
    assert refused.attributes["brunix.ended"] == "overloaded"


@pytest_twisted.ensureDeferred
async def test_the_first_token_is_late(serve: Serve, collector: Collector) -> None:
    """A call that the gateway gave up would look like one that the caller gave up."""
    gateway = await serve(collector.url, first_token_timeout_s=0.1)
    reply = await gateway.ask("POST", CHAT, json=asking(CHAT, script(HANG), stream=True))
    assert reply.status == 504
    await stop_gateway(gateway)
    request, call = collector.one_request()
    assert request.attributes["error.type"] == "504"
    assert call.attributes["error.type"] == "CANCELLED"
    assert call.span.status.code == ERROR


@pytest_twisted.ensureDeferred
async def test_a_slow_reader(serve: Serve, collector: Collector) -> None:
    """The engine would look slow where it is the client that reads slowly."""
    gateway = await serve(collector.url, buffer_bytes=2**27, max_answer_bytes=2**27, stall_timeout_s=LIMIT_S)
    # More than the system holds for a connection.
    body = json.dumps(asking(CHAT, script({"letters": 30_000_000}), stream=True)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    client = await connect(gateway.url, head.encode() + body)
    transport = cast("Connection", client.transport)
    await client.until(b"xxx")
    transport.pauseProducing()
    # The engine's place is free, though much of the answer is still here.
    await gateway.service._admission.when_idle()  # noqa: SLF001 - what the gateway itself waits for when it stops
    read_ns = time.time_ns()
    transport.resumeProducing()
    await client.ended
    await stop_gateway(gateway)
    request, call = collector.one_request()
    assert call.span.end_time_unix_nano < read_ns < request.span.end_time_unix_nano
    assert call.attributes["gen_ai.response.finish_reasons"] == ["stop"]


@pytest.mark.parametrize("shift_s", [-3600, 3600], ids=["back", "forward"])
@pytest_twisted.ensureDeferred
async def test_the_clock_is_set(
    serve: Serve, collector: Collector, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, shift_s: int
) -> None:
    """A span lasts as long as its request did, also when the wall clock is set meanwhile."""
    gateway = await serve(collector.url, heartbeat_s=0.02)
    response = await gateway.send("POST", CHAT, json=asking(CHAT, script({"wait": "set"}, "one"), stream=True))
    await in_thread(engine.call)
    with monkeypatch.context() as patch:
        wall_ns = time.time_ns
        patch.setattr(time, "time_ns", lambda: wall_ns() + shift_s * 1_000_000_000)
        engine.go("set")
        await treq.content(response)
    await stop_gateway(gateway)
    request, call = collector.one_request()
    (first,) = call.span.events
    began_ns, ended_ns = request.span.start_time_unix_nano, request.span.end_time_unix_nano
    assert began_ns <= call.span.start_time_unix_nano <= first.time_unix_nano <= call.span.end_time_unix_nano
    assert call.span.end_time_unix_nano <= ended_ns < began_ns + LIMIT_S * 1_000_000_000
    assert call.attributes["gen_ai.response.time_to_first_chunk"] < LIMIT_S


# The collector, and the end.


@pytest_twisted.ensureDeferred
async def test_a_collector_that_is_away(serve: Serve) -> None:
    """An outage of the collector would slow answers down, keep the gateway from stopping, or go unnoticed."""
    with socket.socket() as nobody, log_lines() as lines:
        nobody.bind(("127.0.0.1", 0))
        gateway = await serve(f"http://127.0.0.1:{nobody.getsockname()[1]}")
        reply = await gateway.ask("POST", CHAT, json=asking(CHAT, "one", stream=False))
        assert reply.status == 200
        await stop_gateway(gateway)
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("Otel")]
        await lines.until("Traces: The collector did not receive all spans within 2 s; the others are lost")
        # In the words of the SDK.
        await lines.until("Traces: Transient error StatusCode.UNAVAILABLE")
    assert not lines.errors
    assert not logging.getLogger("opentelemetry").handlers


@pytest_twisted.ensureDeferred
async def test_a_collector_that_hangs(serve: Serve) -> None:
    """A collector that accepts spans and never answers would keep the gateway from stopping."""
    mute = Collector(answers=False)
    try:
        gateway = await serve(mute.url)
        await gateway.ask("GET", "/api/version")
        stopped = stop_gateway(gateway)
        await stopped
        assert mute.asked.is_set()
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("Otel")]
    finally:
        mute.stop()


def questions_of(port: int, count: int = 1) -> None:
    """Ask a gateway of another process, over as many connections."""
    for _ in range(count):
        body = json.dumps(asking("/api/generate", "one two", stream=False)).encode()
        with urlopen(Request(f"http://127.0.0.1:{port}/api/generate", body), timeout=LIMIT_S) as response:
            assert json.loads(response.read())["response"] == "one two "


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.own_process
def test_as_a_process(tmp_path: Path, engine: ScriptedEngine, collector: Collector, processes: str) -> None:
    """Spans would be lost when twistd is stopped, or those of one of several processes."""
    with twistd(
        tmp_path,
        PROXY_LISTEN="tcp:0:interface=127.0.0.1",
        BRUNIX_GRPC_TARGET=engine.target,
        PROXY_TRACES="otlp",
        PROXY_PROCESSES=processes,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
    ) as process:
        questions_of(wait_for_port(process), 10)
        process.terminate()
        output, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == -signal.SIGTERM, output
    assert len(collector.of_kind(SERVER)) == len(collector.of_kind(CLIENT)) == 10
    assert "Traces:" not in output
    assert "Traceback" not in output


# Without the extra.


@pytest.fixture
def without_the_extra(tmp_path: Path) -> dict[str, str]:
    """Give what a process needs in its environment to find no OpenTelemetry."""
    package = tmp_path / "blocked" / "opentelemetry"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not installed')\n", "utf-8")
    return {"PYTHONPATH": str(package.parent)}


@pytest.mark.parametrize(("arguments", "processes"), [([], "2"), (["--check"], "1")], ids=["serve", "check"])
@pytest.mark.own_process
def test_the_extra_is_missing(
    tmp_path: Path, without_the_extra: dict[str, str], arguments: list[str], processes: str
) -> None:
    """An operator would read a traceback, or nothing, and not what is to be installed."""
    environment = {"PROXY_TRACES": "otlp", "PROXY_PROCESSES": processes} | without_the_extra
    with twistd(tmp_path, *arguments, **environment) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    (line,) = output.splitlines()
    assert line == (
        "twistd brunix: PROXY_TRACES is 'otlp'; allowed: off, or otlp if OpenTelemetry is installed: "
        "pip install 'brunix-twisted[otel]'"
    )


@pytest.mark.own_process
def test_passed_on_without_the_extra(tmp_path: Path, engine: ScriptedEngine, without_the_extra: dict[str, str]) -> None:
    """The gateway would need OpenTelemetry for what it does without."""
    environment = {"PROXY_LISTEN": "tcp:0:interface=127.0.0.1", "BRUNIX_GRPC_TARGET": engine.target} | without_the_extra
    with twistd(tmp_path, **environment) as process:
        body = json.dumps(asking("/api/generate", "one two", stream=False)).encode()
        url = f"http://127.0.0.1:{wait_for_port(process)}/api/generate"
        with urlopen(Request(url, body, {"traceparent": SAMPLED}), timeout=LIMIT_S) as response:
            assert response.status == 200
    assert engine.call().metadata["traceparent"] == SAMPLED


@pytest.mark.own_process
def test_nothing_is_imported(tmp_path: Path) -> None:
    """A gateway that exports nothing would be slower to start, and larger, where OpenTelemetry is installed."""
    code = (
        "import sys, brunix_twisted.tap, brunix_twisted.processes.worker\n"
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))"
    )
    done = subprocess.run(  # noqa: S603 - this environment's own
        [sys.executable, "-c", code], cwd=tmp_path, env=CLEAN, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/protobuf",
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'http/protobuf'; allowed: grpc",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "PROXY_TRACES is 'otlp', but: "),
    ],
)
@pytest.mark.own_process
def test_bad_variable(tmp_path: Path, variable: str, value: str, said: str) -> None:
    """A mistyped variable of OpenTelemetry's would be taken silently, or answered with a traceback."""
    environment = {"PROXY_TRACES": "otlp", "PROXY_LISTEN": "tcp:0:interface=127.0.0.1", variable: value}
    with twistd(tmp_path, **environment) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    (line,) = [line for line in output.splitlines() if "OTEL" in line or "PROXY_TRACES" in line]
    assert f"twistd brunix: {said}" in line
    assert "Traceback" not in output
