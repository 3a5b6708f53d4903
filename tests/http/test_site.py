"""What every request passes and every answer gets, whatever its route: over real connections."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, cast

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.task import Clock, deferLater
from twisted.internet.tcp import Connection
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from brunix_twisted.config import cors_origins
from brunix_twisted.errors import GatewayError
from brunix_twisted.http.channel import Bounds
from brunix_twisted.http.site import GatewayRequest, GatewaySite
from brunix_twisted.http.syntax import normalized_path
from brunix_twisted.observability.logs import log_request
from endpoints import CHAT, PATHS, asking_by_default, error_schema
from fake_reactor import LIMIT_S
from gateways import Reply, RunningGateway, in_thread, run_gateway, stop_gateway
from log_lines import LogLines, log_lines
from received import Received, connect
from scripted_engine import ScriptedEngine, script
from wire import check

ASKING: Final = PATHS
TELLING: Final = (
    "/",
    "/health",
    "/health/live",
    "/health/sessions",
    "/v1/models",
    "/v1/models/brunix",
    "/api/tags",
    "/api/ps",
    "/api/version",
)
NOTHING: Final = ("/nothing", "/v1/nothing", "/v1/embeddings", "/api/nothing", "/api/pull")
EVERYWHERE: Final = (*ASKING, "/api/show", *TELLING, *NOTHING)

PAGE: Final = "http://localhost:3000"
STRANGER: Final = "https://evil.example"

everywhere = pytest.mark.parametrize("path", EVERYWHERE)
asking = pytest.mark.parametrize("path", ASKING)
streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def body_for(path: str, query: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Ask a question in the words of an endpoint."""
    return {**asking_by_default(path if path in ASKING else CHAT, query), **more}


def raw_post(path: str, body: dict[str, Any], *headers: str) -> bytes:
    """Write a request as it stands on the wire."""
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


def method_for(path: str) -> str:
    return "POST" if path in {*ASKING, "/api/show"} else "GET"


def assert_readable(reply: Reply, origin: str) -> None:
    """Hold that a browser lets a page of this origin read the answer and what its headers tell."""
    assert reply.headers["access-control-allow-origin"] == origin
    assert reply.headers["access-control-expose-headers"] == (
        "X-Request-Id, Request-Id, X-Session-Id, X-Brunix-Session, X-Brunix-Ignored, Retry-After, Server-Timing, "
        "Mcp-Session-Id"
    )
    assert reply.headers["vary"].partition(", ")[0] == "Origin"
    assert "access-control-allow-credentials" not in reply.headers


# CORS: what a browser asks before it sends a page's request.


@everywhere
@pytest_twisted.ensureDeferred
async def test_preflight(gateway: RunningGateway, engine: ScriptedEngine, path: str) -> None:
    """A browser would not even send a chat page's question."""
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os,x-of-the-next-client",
    }
    reply = await gateway.ask("OPTIONS", path, headers=headers)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert reply.headers["access-control-allow-methods"] == "GET, HEAD, POST, DELETE, OPTIONS"
    assert reply.headers["access-control-allow-headers"] == headers["Access-Control-Request-Headers"]
    assert reply.headers["access-control-max-age"] == "7200"
    assert reply.headers["vary"] == "Origin"
    assert "access-control-allow-private-network" not in reply.headers
    assert reply.headers["x-request-id"]
    assert engine.calls == []


@pytest_twisted.ensureDeferred
async def test_preflight_without_headers(gateway: RunningGateway) -> None:
    """A browser would take an empty list of headers for a fault."""
    reply = await gateway.ask("OPTIONS", CHAT, headers={"Origin": PAGE, "Access-Control-Request-Method": "POST"})
    assert reply.status == 204
    assert "access-control-allow-headers" not in reply.headers


@pytest_twisted.ensureDeferred
async def test_preflight_into_a_private_network(gateway: RunningGateway) -> None:
    """A page from the internet that the operator allows could not reach a gateway in the company's own network."""
    headers = {"Origin": PAGE, "Access-Control-Request-Private-Network": "true"}
    reply = await gateway.ask("OPTIONS", CHAT, headers=headers)
    assert reply.headers["access-control-allow-private-network"] == "true"


@everywhere
@pytest_twisted.ensureDeferred
async def test_options_without_a_page(gateway: RunningGateway, path: str) -> None:
    """A client that looks what a server can do before it speaks to it would be refused."""
    reply = await gateway.ask("OPTIONS", path)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["allow"] == "GET, HEAD, POST, DELETE, OPTIONS"
    assert reply.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in reply.headers


# CORS: what a page may read.


@asking
@streamed_or_whole
@pytest_twisted.ensureDeferred
async def test_a_page_reads_its_answer(gateway: RunningGateway, path: str, *, stream: bool) -> None:
    """A chat page would be told by its browser that the request failed, though it was answered."""
    reply = await gateway.ask("POST", path, json=body_for(path, "hello", stream=stream), headers={"Origin": PAGE})
    assert reply.status == 200
    assert b"hello " in reply.body
    assert_readable(reply, PAGE)


@pytest.mark.parametrize("path", TELLING)
@pytest_twisted.ensureDeferred
async def test_a_page_reads_the_lists(gateway: RunningGateway, path: str) -> None:
    """A chat page would not find the model."""
    for method in ("GET", "HEAD"):
        reply = await gateway.ask(method, path, headers={"Origin": PAGE})
        assert reply.status == 200
        assert_readable(reply, PAGE)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        *(("POST", path, b"{", 400) for path in (*ASKING, "/api/show")),
        *(("POST", path, json.dumps(body_for(path, "x") | {"model": "gpt-7"}).encode(), 404) for path in ASKING),
        *(("GET", path, b"", 404) for path in NOTHING),
        *(("GET", path, b"", 405) for path in ASKING),
        *(
            ("POST", path, json.dumps(body_for(path, script({"status": "RESOURCE_EXHAUSTED"}))).encode(), 429)
            for path in ASKING
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_page_reads_its_failure(
    gateway: RunningGateway, method: str, path: str, body: bytes, status: int
) -> None:
    """A chat page could only say "network error" where the gateway has said what is wrong."""
    reply = await gateway.ask(method, path, data=body, headers={"Origin": PAGE})
    assert reply.status == status
    assert_readable(reply, PAGE)
    check(error_schema(path), reply.json())


@pytest_twisted.ensureDeferred
async def test_without_a_page(gateway: RunningGateway) -> None:
    """A cache would hand the answer for one page to another, which its browser then refuses."""
    reply = await gateway.ask("GET", "/v1/models")
    assert reply.status == 200
    assert reply.headers["vary"] == "Origin, anthropic-version"
    assert not [name for name in reply.headers if name.startswith("access-control")]


# CORS: who is kept out.

EITHER_API = ("/v1/models", "/v1/models/brunix", "/v1/nothing")
"""Paths whose errors have the form of the API that the client speaks."""


@everywhere
@pytest.mark.parametrize("method", ["OPTIONS", "its own"])
@pytest.mark.parametrize("origin", [STRANGER, "null", "http://localhost.evil.example"])
@pytest_twisted.ensureDeferred
async def test_a_strange_page(
    gateway: RunningGateway, engine: ScriptedEngine, path: str, method: str, origin: str
) -> None:
    """Any page in the web could ask the company's engine by way of a visitor's browser."""
    method = method_for(path) if method == "its own" else method
    reply = await gateway.ask(method, path, json=body_for(path, "secrets?"), headers={"Origin": origin})
    assert reply.status == 403
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["vary"] == ("Origin, anthropic-version" if path in EITHER_API else "Origin")
    assert not [name for name in reply.headers if name.startswith("access-control")]
    check(error_schema(path), reply.json())
    assert "PROXY_CORS_ORIGINS" in reply.body.decode()
    if error_schema(path) == "openai_error":
        assert reply.json()["error"]["code"] == "origin_not_allowed"
    assert engine.calls == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("gateway.internal", "https://gateway.internal", 200),
        ("gateway.internal:8000", "http://gateway.internal:8000", 200),
        ("gateway.internal:8000", "http://gateway.internal:8001", 403),
        ("gateway.internal", "http://evil.gateway.internal", 403),
        ("gateway.internal", "gateway.internal", 403),
        ("gateway.internal", "null", 403),
        ("Gateway.internal", "https://GATEWAY.internal", 200),
        ("gateway.internal", "evil://gateway.internal", 403),
        ("gateway.internal", "chrome-extension://gateway.internal", 403),
        ("gateway.internal", "http:gateway.internal", 403),
        ("gateway.internal", "x http://gateway.internal", 403),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_gateways_own_page(gateway: RunningGateway, method: str, host: str, origin: str, status: int) -> None:
    """A page served under the gateway's own name, by the same proxy, would be kept out like a stranger's."""
    reply = await gateway.ask(method, "/v1/models", headers={"Host": host, "Origin": origin})
    assert reply.status == (204 if (method, status) == ("OPTIONS", 200) else status)
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    ("setting", "origin", "status"),
    [
        ("https://chat.example", "https://chat.example", 200),
        ("https://chat.example", PAGE, 403),
        ("*", STRANGER, 200),
        ("*", "null", 200),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_operators_choice(engine: ScriptedEngine, setting: str, origin: str, status: int) -> None:
    """The operator's list of pages would have no effect."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, cors_origins=cors_origins.read(setting))
    reply = await gateway.ask("GET", "/v1/models", headers={"Origin": origin})
    await stop_gateway(gateway)
    assert reply.status == status
    assert reply.headers.get("access-control-allow-origin") == (origin if status == 200 else None)


# The log.


@pytest.fixture
def log() -> Iterator[LogLines]:
    with log_lines() as lines:
        yield lines


LINE: Final = (
    r"(?P<start>{start}) \d+ bytes \d+\.\d ms request={request_id} session=(?P<session>-|[0-9a-f]{{12}}) match=[a-z-]+"
    r" dialect=(?:openai|anthropic|ollama|none) first_ms=(?:-|\d+\.\d) tokens=\d+ ended=(?P<ended>[a-z_]+)"
)


def the_line(log: LogLines, start: str, request_id: str) -> re.Match[str]:
    """Find the one line of the one request that was made."""
    (line,) = log.of_requests()
    found = re.fullmatch(LINE.format(start=re.escape(start), request_id=re.escape(request_id)), line)
    assert found, line
    return found


@asking
@streamed_or_whole
@pytest_twisted.ensureDeferred
async def test_a_line_for_an_answer(gateway: RunningGateway, log: LogLines, path: str, *, stream: bool) -> None:
    """An operator could not find a user's request in the log, or would read the user's words there."""
    body = body_for(path, "my-secret-question", session_id="ticket-of-mrs-smith", stream=stream)
    reply = await gateway.ask("POST", f"{path}?token=my-secret-token", json=body, headers={"X-Request-Id": "req-1"})
    assert b"my-secret-question " in reply.body
    assert the_line(log, f"POST {path} 200", "req-1")["session"] != "-"
    assert not [text for text in log.texts if "secret" in text or "smith" in text]


@pytest.mark.parametrize(
    ("start", "headers", "body"),
    [
        ("GET / 200", {}, None),
        ("HEAD /v1/models 200", {}, None),
        ("OPTIONS /v1/models 204", {"Origin": PAGE}, None),
        (f"POST {CHAT} 400", {}, {"model": "brunix", "messages": "my-secret"}),
        (f"POST {CHAT} 400", {}, body_for(CHAT, "my-secret", session_id="my secret")),
        (f"POST {CHAT} 403", {"Origin": "https://my-secret.example"}, body_for(CHAT, "my-secret")),
        ("GET /nothing 404", {}, None),
        ("GET /api/chat 405", {}, None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_line_without_an_answer(
    gateway: RunningGateway, log: LogLines, start: str, headers: dict[str, str], body: object
) -> None:
    """An operator could not see what was refused, or would read a user's words there."""
    method, path, status = start.split()
    data = b"" if body is None else json.dumps(body).encode()
    reply = await gateway.ask(method, path, data=data, headers=headers | {"X-Request-Id": "req-1"})
    assert reply.status == int(status)
    assert the_line(log, start, "req-1")["session"] == "-"
    assert not [text for text in log.texts if "secret" in text]


@pytest_twisted.ensureDeferred
async def test_a_line_for_a_failure_of_the_engine(gateway: RunningGateway, log: LogLines) -> None:
    """An operator could not tell from the log which request an engine's failure belongs to."""
    body = body_for(CHAT, script("a", {"status": "INTERNAL"}), stream=True)
    await gateway.ask("POST", CHAT, json=body, headers={"X-Request-Id": "req-1"})
    the_line(log, f"POST {CHAT} 200", "req-1")
    assert [text for text in log.texts if text.startswith("Request req-1: 502 ")]


@pytest_twisted.ensureDeferred
async def test_a_session_is_followed_through_the_log(gateway: RunningGateway, log: LogLines) -> None:
    """An operator could not tell which requests belong together."""
    for session_id in ("one", "two", "one"):
        await gateway.ask("POST", CHAT, json=body_for(CHAT, "hello", session_id=session_id))
    first, second, third = (re.findall("session=([^ ]+)", line) for line in log.of_requests())
    assert first == third != second


@pytest_twisted.ensureDeferred
async def test_a_sessions_digest_is_another_in_each_run(engine: ScriptedEngine, log: LogLines) -> None:
    """Who reads the log cannot hash guessed session ids, such as a ticket's number, to find who asked in which."""
    for _ in range(2):
        gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0)
        await gateway.ask("POST", CHAT, json=body_for(CHAT, "hello", session_id="ticket-4711"))
        await stop_gateway(gateway)
    first, second = (re.findall("session=([^ ]+)", line) for line in log.of_requests())
    assert first != second


@asking
@pytest.mark.parametrize("steps", [["hello", {"hang": True}], [{"hang": True}]], ids=["in mid-answer", "before it"])
@pytest_twisted.ensureDeferred
async def test_a_line_for_a_client_that_left(
    gateway: RunningGateway, engine: ScriptedEngine, log: LogLines, path: str, steps: list[object]
) -> None:
    """An operator would take an answer that nobody waited for for one that arrived."""
    client = await connect(gateway.url, raw_post(path, body_for(path, script(*steps), stream=True), "X-Request-Id: r"))
    if "hello" in steps:
        await client.until(b"hello")
    asked = await in_thread(engine.call)
    client.leave()
    await log.until(" gone ")
    assert await in_thread(asked.ended.wait, LIMIT_S)
    assert the_line(log, f"POST {path} gone", "r")["session"] != "-"
    assert log.errors == []


async def until(condition: Callable[[], object]) -> None:
    """Let the reactor turn until something that it tells nobody about is so."""
    give_up_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up_s, "it does not happen"
        await deferLater(cast("IReactorTime", reactor), 0)


async def until_received(gateway: RunningGateway, *, requests: int) -> None:
    """Let the reactor turn until one connection is there and has begun so many requests."""
    connections = gateway.service._site.connections  # noqa: SLF001 - a request that is not whole shows in nothing else
    await until(lambda: [len(connection.requests) for connection in connections] == [requests])


@pytest.mark.parametrize(
    ("sent", "requests"),
    [
        (b"", 0),
        (b"GET /v1/mod", 0),
        (b"GET /v1/models HTTP/1.1\r\nHos", 1),
        (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{", 1),
    ],
    ids=["nothing", "half a line", "half the headers", "half the body"],
)
@pytest_twisted.ensureDeferred
async def test_a_client_that_left_before_it_had_asked(
    engine: ScriptedEngine, log: LogLines, sent: bytes, requests: int
) -> None:
    """A port scanner, or a user with a bad line, would fill the log with tracebacks and keep the gateway running."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0)
    client = await connect(gateway.url, sent)
    await until_received(gateway, requests=requests)
    client.leave()
    await client.ended
    await ensureDeferred(stop_gateway(gateway)).addTimeout(LIMIT_S, cast("IReactorTime", reactor))
    assert not gateway.service._site.connections  # noqa: SLF001 - see until_received
    assert log.of_requests() == []
    assert log.errors == []


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"G\x1b[2JT / HTTP/1.1\r\n\r\n"]
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_http(gateway: RunningGateway, log: LogLines, sent: bytes) -> None:
    """Whoever speaks another protocol to the port could write into the log, or would fill it with tracebacks."""
    client = await connect(gateway.url, sent)
    await client.ended
    assert client.data.startswith(b"HTTP/1.1 400 ")
    assert len(log.of_requests()) <= 1
    assert all(re.fullmatch("[ -~]*", text) for text in log.texts)
    assert log.errors == []


@pytest.mark.parametrize(
    "path",
    [
        b"/%0aPOST%20/v1/chat%20200",
        b"/%1b[2J",
        b"/%e2%80%a8",
        b"/\x1b[2J",
        b"/\x85",
        b"/%00",
        b"http://a.example/%0d%0a",
        b"*",
    ],
)
@pytest_twisted.ensureDeferred
async def test_nothing_is_written_into_the_log(gateway: RunningGateway, log: LogLines, path: bytes) -> None:
    """A caller could make up lines in the operator's log, or take over the terminal it is read in."""
    request = b"GET " + path + b" HTTP/1.1\r\nHost: \x1b[2J\r\nX-Request-Id: \x1b[2J\r\nX-Session-Id: \x1b[2J\r\n"
    client = await connect(gateway.url, request + b"Connection: close\r\n\r\n")
    await client.ended
    assert len(log.of_requests()) <= 1
    assert all(re.fullmatch("[ -~]*", text) for text in log.texts)
    assert log.errors == []


# A mistake of the gateway's own, and the end of it: sites without a gateway behind them.


class Behaving(Resource):
    """Does what a test tells it."""

    isLeaf = True  # noqa: N815 - IResource

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[GatewayRequest] = []
        self.under_way: list[GatewayRequest] = []

    def render_GET(self, request: Request) -> int:  # noqa: N802 - Resource
        self.asked.append(cast("GatewayRequest", request))
        if request.path == b"/fail":
            raise ZeroDivisionError
        if request.path == b"/fail-late":
            request.write(b"partial")
            raise ZeroDivisionError
        if request.path == b"/answer":
            request.write(b"whole")
            request.finish()
        else:
            self.under_way.append(self.asked[-1])
        return NOT_DONE_YET


def refuse(request: GatewayRequest, error: GatewayError) -> bytes:
    request.setResponseCode(error.kind.status)
    return error.message.encode()


@attrs.frozen
class Served:
    """A site on a port, with a clock of its own."""

    clock: Clock
    resource: Behaving
    site: GatewaySite
    port: IListeningPort

    async def get(self, path: str) -> Received:
        port = cast("IPv4Address", self.port.getHost()).port
        return await connect(f"http://127.0.0.1:{port}", f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    async def until_asked(self) -> GatewayRequest:
        await until(lambda: self.resource.under_way)
        return self.resource.under_way[0]


@pytest_twisted.async_yield_fixture
async def served() -> AsyncIterator[Served]:
    clock, resource = Clock(), Behaving()
    bounds = Bounds(max_body_bytes=1_000, max_header_bytes=10_000, headers_timeout_s=10.0, body_timeout_s=30.0)
    site = GatewaySite(resource, reactor=clock, refuse=refuse, origins=cors_origins.read("*"), bounds=bounds)
    site.observers = [log_request]
    port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(site)
    yield Served(clock, resource, site, port)
    await cast("Deferred[None]", port.stopListening())
    closed = site.close(0)
    clock.advance(0)
    await closed


@pytest_twisted.ensureDeferred
async def test_a_mistake_before_the_answer(served: Served, log: LogLines) -> None:
    """A user would wait for ever, or read a traceback, when the gateway fails."""
    client = await served.get("/fail")
    await client.until(b"The gateway failed; see its log")
    assert client.data.startswith(b"HTTP/1.1 500 ")
    assert b"ZeroDivisionError" not in client.data
    (error,) = log.errors
    assert "ZeroDivisionError" in error
    assert served.resource.asked[0].request_id in error
    assert len(log.of_requests()) == 1


@pytest_twisted.ensureDeferred
async def test_a_mistake_within_the_answer(served: Served, log: LogLines) -> None:
    """Half of an answer would pass for a whole one when the gateway fails."""
    client = await served.get("/fail-late")
    await client.ended
    assert not client.data.endswith(b"0\r\n\r\n")
    assert len(log.errors) == 1
    (line,) = log.of_requests()
    assert " gone " in line


@pytest_twisted.ensureDeferred
async def test_close_without_connections(served: Served) -> None:
    """A gateway that nobody uses would take its time to stop."""
    assert served.site.close(5.0).called


@pytest_twisted.ensureDeferred
async def test_close_an_idle_connection(served: Served) -> None:
    """A client's open connection, with nothing on it, would hold the gateway up when it stops."""
    client = await served.get("/answer")
    await client.until(b"whole")
    assert len(served.site.connections) == 1
    closed = served.site.close(5.0)
    assert not closed.called
    await closed
    await client.ended
    assert not served.site.connections
    # Nothing is left that would happen later; the clock's other call is the server's own.
    assert not [call for call in served.clock.getDelayedCalls() if call.getTime() == 5.0]


SENT: Final = b"x" * 16_000_000
"""More than the system takes from a server whose client does not read."""


@pytest_twisted.ensureDeferred
async def test_close_lets_what_was_written_arrive(served: Served) -> None:
    """The end of a long answer would be lost on its way when the gateway stops."""
    client = await served.get("/")
    request = await served.until_asked()
    cast("Connection", client.transport).pauseProducing()
    request.write(SENT)
    request.finish()
    closed = served.site.close(5.0)
    served.clock.advance(4.9)
    assert not closed.called
    cast("Connection", client.transport).resumeProducing()
    await closed
    await client.ended
    assert client.data.endswith(b"\r\n" + SENT + b"\r\n0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_close_breaks_off_who_does_not_read(served: Served) -> None:
    """One client that stopped reading would keep the gateway from ever ending."""
    idle = await served.get("/answer")
    await idle.until(b"whole")
    client = await served.get("/")
    request = await served.until_asked()
    cast("Connection", client.transport).pauseProducing()
    request.write(SENT)
    request.finish()
    closed = served.site.close(5.0)
    # By then this one would have ended by itself, too.
    await idle.ended
    served.clock.advance(4.9)
    assert not closed.called
    served.clock.advance(0.2)
    await closed
    assert not served.site.connections
    cast("Connection", client.transport).resumeProducing()
    await client.ended
    assert len(client.data) < len(SENT)


@pytest_twisted.ensureDeferred
async def test_close_while_a_request_is_under_way(served: Served, log: LogLines) -> None:
    """A request without an answer would keep the gateway from ending, or be missing in the log."""
    client = await served.get("/")
    await served.until_asked()
    await served.site.close(5.0)
    await client.ended
    assert [" gone " in line for line in log.of_requests()] == [True]


# Paths.


@pytest.mark.parametrize(
    ("path", "normalized"),
    [
        (b"/", b"/"),
        (b"", b"/"),
        (b"//", b"/"),
        (b"/v1/models/", b"/v1/models"),
        (b"//v1///models//", b"/v1/models"),
        (b"v1/models", b"/v1/models"),
        (b"http://a.example/v1/models", b"/v1/models"),
        (b"HTTPS://user@a.example:80/v1/models", b"/v1/models"),
        (b"http://a.example", b"/"),
        (b"/http://a.example/x", b"/http:/a.example/x"),
        (b"/v1/models/a%2Fb:latest", b"/v1/models/a/b:latest"),
        (b"/%7E", b"/~"),
        (b"/\xc3\xa9", b"/%C3%83%C2%A9"),
        (b"/%c3%a9", b"/%C3%A9"),
        (b"/%ff", b"/%EF%BF%BD"),
        (b"/a b\n", b"/a%20b%0A"),
    ],
)
def test_normalized_path(path: bytes, normalized: bytes) -> None:
    """A client that joins its base URL and the path with a slash too many would not find the endpoint."""
    assert normalized_path(path) == normalized


# Caches.


@everywhere
@pytest_twisted.ensureDeferred
async def test_nothing_is_stored(gateway: RunningGateway, path: str) -> None:
    """A cache before the gateway would go on serving what is no longer so: an engine's health, a deleted answer."""
    for method in (method_for(path), "HEAD", "OPTIONS", "DELETE"):
        arguments = {"json": body_for(path, "hello")} if method == "POST" else {}
        reply = await gateway.ask(method, path, **arguments)
        assert reply.headers["cache-control"] == "no-store", method
        assert reply.headers["vary"].startswith("Origin")
    strange = await gateway.ask(method_for(path), path, headers={"Origin": STRANGER})
    assert (strange.status, strange.headers["cache-control"]) == (403, "no-store")


@pytest_twisted.ensureDeferred
async def test_the_page_is_stored(gateway: RunningGateway) -> None:
    """A browser would load the page's files each time, though they have not changed."""
    page = await gateway.ask("GET", "/", headers={"Accept": "text/html"})
    assert page.headers["cache-control"] == "no-cache"
    assert page.headers["vary"] == "Origin, Accept"
    again = await gateway.ask("GET", "/", headers={"Accept": "text/html", "If-None-Match": page.headers["etag"]})
    assert (again.status, again.headers["cache-control"]) == (304, "no-cache")
    file = await gateway.ask("GET", "/page/page.css")
    assert (file.status, file.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/brunix", "/v1/models/nope"])
@pytest_twisted.ensureDeferred
async def test_a_list_for_each_api(gateway: RunningGateway, path: str) -> None:
    """A cache would hand one API's form of the models to the other's clients."""
    for headers in ({}, {"anthropic-version": "2023-06-01"}):
        reply = await gateway.ask("GET", path, headers=headers)
        assert reply.headers["vary"] == "Origin, anthropic-version"
