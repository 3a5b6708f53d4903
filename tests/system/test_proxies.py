"""
nginx, HAProxy and lighttpd before the gateway, with the files of deploy/ as they are.

What stands behind is a gateway in this process and the scripted engine; what stands in front are real programs.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from uuid import uuid4

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IResponse

from certificates import Authority
from fake_reactor import LIMIT_S
from gateways import Reply, RunningGateway, in_thread, run_gateway, stop_gateway
from log_lines import log_lines
from proxies import FILES, KINDS, Kind, Proxy, find, proxy
from received import Received, connect
from redis_servers import redis_server
from scripted_engine import ScriptedEngine, script
from supervised import Told, port_of, supervised
from threads import Threads
from twistd import free_port
from wire import check, ndjson_lines, sse_comments, sse_events

CHAT: Final = "/v1/chat/completions"
GENERATE: Final = "/api/generate"
MESSAGES: Final = "/v1/messages"
HANG: Final = {"hang": True}

Result = TypeVar("Result")


def with_program(kind: Kind) -> pytest.MarkDecorator:
    """Skip what cannot run here, and say how it could."""
    return pytest.mark.skipif(find(kind) is None, reason=f"{kind} is not installed: apt-get install {kind}")


every_kind = pytest.mark.parametrize("kind", [pytest.param(kind, marks=with_program(kind)) for kind in KINDS])
every_proxy = pytest.mark.parametrize("kind", [pytest.param(kind, marks=with_program(kind)) for kind in FILES])
every_path = pytest.mark.parametrize("path", [CHAT, GENERATE])


def limited(coroutine: Coroutine[Any, Any, Result]) -> Deferred[Result]:
    """Let nothing wait for ever that a proxy holds back."""
    return ensureDeferred(coroutine).addTimeout(LIMIT_S, cast("IReactorTime", reactor))


@attrs.frozen
class Front:
    """A proxy, the gateways behind it and the engine of each."""

    proxy: Proxy
    gateways: list[RunningGateway]
    engines: list[ScriptedEngine]
    client: RunningGateway
    """Asks through the proxy, over connections that it keeps."""

    async def send(self, method: str, path: str, **arguments: Any) -> IResponse:  # noqa: ANN401 - treq's arguments
        """Send a request through the proxy and return once its response's headers are there."""
        return await limited(self.client.send(method, path, **arguments))

    async def ask(self, method: str, path: str, **arguments: Any) -> Reply:  # noqa: ANN401 - treq's arguments
        """Send a request through the proxy and read the whole response."""
        return await limited(self.client.ask(method, path, **arguments))

    def asked(self) -> list[int]:
        """Count the questions that each engine got."""
        return [len(engine.calls) for engine in self.engines]


Serve = Callable[..., Coroutine[Any, Any, Front]]


@pytest_twisted.async_yield_fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts gateways, each with an engine of its own, and a proxy before them."""
    with ExitStack() as stack:
        gateways: list[RunningGateway] = []

        async def start(
            kind: Kind,
            count: int = 1,
            *,
            changes: dict[str, str] | None = None,
            examples: tuple[str, ...] = (),
            files: dict[str, bytes] | None = None,
            **settings: Any,  # noqa: ANN401 - as in Settings
        ) -> Front:
            engines = [ScriptedEngine() for _ in range(count)]
            for engine in engines:
                stack.callback(engine.stop)
            begun = [
                await run_gateway(**({"grpc_target": engine.target, "drain_s": 0.0} | settings)) for engine in engines
            ]
            gateways.extend(begun)
            addresses = [gateway.url.removeprefix("http://") for gateway in begun]
            # Written at the end, to be shown with a test that failed.
            stack.callback(lambda: sys.stdout.write(running.said()))
            running = stack.enter_context(proxy(kind, addresses, changes=changes, examples=examples, files=files))
            # It is for the client's connections alone; the service is one of those behind the proxy.
            client = RunningGateway(begun[0].service, running.url, HTTPConnectionPool(reactor))
            gateways.append(client)
            return Front(running, begun, engines, client)

        yield start
        for gateway in gateways:
            await stop_gateway(gateway)


def asking(path: str, query: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Write the body of a question."""
    question = {"prompt": query} if path == GENERATE else {"messages": [{"role": "user", "content": query}]}
    return {"model": "brunix", "stream": True, **question, **more}


async def begin(front: Front, path: str, *steps: object, **arguments: Any) -> Received:  # noqa: ANN401 - treq's
    """Ask for a stream, and return once its headers are there."""
    response = await front.send("POST", path, json=asking(path, script(*steps)), **arguments)
    assert response.code == 200
    received = Received()
    response.deliverBody(received)
    return received


def told(path: str, body_bytes: bytes) -> tuple[str, bool]:
    """Read a stream's text, and whether it came to its end."""
    if path == CHAT:
        choices = [event["choices"][0] for event in sse_events(body_bytes)]
        return "".join(choice["delta"].get("content", "") for choice in choices), choices[-1]["finish_reason"] == "stop"
    lines = ndjson_lines(body_bytes)
    return "".join(line["response"] for line in lines), lines[-1]["done"]


def piece(path: str, text: str) -> bytes:
    """Write a piece of text as it stands on the wire."""
    return f'"content":"{text}"'.encode() if path == CHAT else f'"response":"{text}"'.encode()


def raw(path: str, query: str, *, stream: bool = True) -> bytes:
    """Write a request whose client does not keep its connection."""
    body_bytes = json.dumps(asking(path, query, stream=stream)).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body_bytes)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body_bytes


def shortened(line: str) -> str:
    """Make a time-out one of a second."""
    return line.rpartition(" ")[0] + " 1s"


# As it comes.


@every_proxy
@every_path
@pytest_twisted.ensureDeferred
async def test_the_first_token_does_not_wait_for_the_second(serve: Serve, kind: Kind, path: str) -> None:
    """A user behind the proxy would look at nothing until the answer is complete."""
    front = await serve(kind)
    received = await begin(
        front,
        path,
        "one ",
        {"wait": "first seen"},
        "two ",
        {"wait": "second seen"},
        "three",
        headers={"Accept-Encoding": "gzip"},
    )
    await received.until(piece(path, "one "))
    front.engines[0].go("first seen")
    await received.until(piece(path, "two "))
    front.engines[0].go("second seen")
    await received.ended
    assert told(path, bytes(received.data)) == ("one two three", True)


@every_kind
@every_path
@pytest_twisted.ensureDeferred
async def test_signs_of_life_outlast_the_idle_timeout(serve: Serve, kind: Kind, path: str) -> None:
    """An engine that thinks for longer than the proxy waits would cost its user the answer."""
    lines = ["proxy_read_timeout 660s"] if kind == "nginx" else ["timeout server 660s", "timeout client 60s"]
    idle = {line: shortened(line) for line in lines}
    front = await serve(kind, changes=idle, heartbeat_s=0.1)
    silent = await serve(kind, changes=idle, heartbeat_s=0)
    received = await begin(front, path, {"wait": "the other is cut off"}, "one ", "two")
    # Asked later, and without signs of life: by the time that it is cut off, the timeout has passed for both.
    assert (await silent.ask("POST", path, json=asking(path, script(HANG)))).status == 504
    cut = await begin(silent, path, "one ", HANG)
    await cut.until(piece(path, "one "))
    await cut.ended
    assert b"two" not in cut.data
    front.engines[0].go("the other is cut off")
    await received.ended
    assert told(path, bytes(received.data)) == ("one two", True)
    if path == CHAT:
        assert len(sse_comments(bytes(received.data))) > 1


@every_kind
@pytest_twisted.ensureDeferred
async def test_a_whole_answer_has_its_time(serve: Serve, kind: Kind) -> None:
    """An answer that is not streamed would be cut off by a time-out that is for slow clients."""
    slow, silence = (
        ["client_header_timeout 10s", "client_body_timeout 30s", "send_timeout 60s"],
        "proxy_read_timeout 660s",
    )
    if kind == "haproxy":
        slow = ["timeout http-request 10s", "timeout http-keep-alive 60s", "timeout client 60s"]
        silence = "timeout server 660s"
    front = await serve(kind, changes={line: shortened(line) for line in slow})
    silent = await serve(kind, changes={silence: shortened(silence)})
    asking_all = [
        ensureDeferred(
            front.ask("POST", path, json=asking(path, script({"wait": "a second is over"}, "one"), stream=False))
        )
        for path in (CHAT, GENERATE)
    ]
    await in_thread(front.engines[0].call, 1)
    reply = await silent.ask("POST", CHAT, json=asking(CHAT, script(HANG), stream=False))
    assert reply.status == 504
    front.engines[0].go("a second is over")
    for whole in asking_all:
        assert (await whole).status == 200


@every_kind
@every_path
@pytest.mark.parametrize("steps", [["one", HANG], [HANG]], ids=["after a word", "before the first word"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves(serve: Serve, kind: Kind, path: str, steps: list[object], *, stream: bool) -> None:
    """An engine would go on for users who are gone, and others would wait for the workers that serve nobody."""
    front = await serve(kind, heartbeat_s=0)
    client = await connect(front.proxy.url, raw(path, script(*steps), stream=stream))
    asked = await in_thread(front.engines[0].call)
    if stream and steps[0] == "one":
        await client.until(piece(path, "one"))
    client.leave()
    assert await in_thread(asked.ended.wait, LIMIT_S)


@with_program("lighttpd")
@every_path
@pytest_twisted.ensureDeferred
async def test_lighttpd_notices_at_a_heartbeat_that_its_client_has_left(serve: Serve, path: str) -> None:
    """Lighttpd looks after its client only when it writes: a heartbeat must be enough to stop the engine."""
    front = await serve("lighttpd", heartbeat_s=0.1)
    client = await connect(front.proxy.url, raw(path, script("one", HANG)))
    asked = await in_thread(front.engines[0].call)
    await client.until(piece(path, "one"))
    client.leave()
    assert await in_thread(asked.ended.wait, LIMIT_S)


@with_program("lighttpd")
@pytest_twisted.ensureDeferred
async def test_lighttpd_keeps_the_metrics_to_itself(serve: Serve) -> None:
    """The metrics must not be there for everybody who can reach the proxy."""
    front = await serve("lighttpd")
    for path in ("/metrics", "/metrics/", "//metrics"):
        reply = await front.ask("GET", path)
        assert reply.status == 403
        assert "x-request-id" not in reply.headers


@every_proxy
@every_path
@pytest_twisted.ensureDeferred
async def test_fifty_at_once(serve: Serve, kind: Kind, path: str) -> None:
    """A busy morning would end some of the answers in the proxy."""
    front = await serve(kind, thread_workers=50)
    streams = [
        await begin(
            front, path, f"{number} ", {"wait": "all have begun"}, "end", headers={"X-Session-Id": f"s{number}"}
        )
        for number in range(50)
    ]
    for number, received in enumerate(streams):
        await received.until(piece(path, f"{number} "))
    front.engines[0].go("all have begun")
    for number, received in enumerate(streams):
        await received.ended
        assert told(path, bytes(received.data)) == (f"{number} end", True)


@every_proxy
@every_path
@pytest_twisted.ensureDeferred
async def test_a_large_answer(serve: Serve, kind: Kind, path: str) -> None:
    """A long answer in one piece would arrive without its end."""
    front = await serve(kind)
    reply = await front.ask("POST", path, json=asking(path, script({"letters": 3_000_000}), stream=False))
    assert reply.status == 200
    answer = reply.json()
    text = answer["choices"][0]["message"]["content"] if path == CHAT else answer["response"]
    assert text == "x" * 3_000_000


@every_proxy
@pytest_twisted.ensureDeferred
async def test_a_large_question(serve: Serve, kind: Kind) -> None:
    """A question with a whole file in it would be refused, or written to the proxy's disk."""
    front = await serve(kind)
    question = "x" * 3_000_000
    reply = await front.ask("POST", GENERATE, json=asking(GENERATE, question))
    assert (reply.status, told(GENERATE, reply.body)) == (200, (f"{question} ", True))
    assert "buffered to a temporary file" not in front.proxy.said()


@every_kind
@pytest_twisted.ensureDeferred
async def test_connections_are_used_again(serve: Serve, kind: Kind) -> None:
    """Every question would pay for a connection of its own between proxy and gateway."""
    front = await serve(kind)
    site = front.gateways[0].service._site  # noqa: SLF001 - shows in nothing else
    seen = []
    for _ in range(3):
        assert (await front.ask("POST", CHAT, json=asking(CHAT, "hello"))).status == 200
        seen.append(set(site.connections))
    assert set.intersection(*seen)


# What the gateway says, as it says it.


@every_kind
@pytest.mark.parametrize(
    ("path", "step", "status"),
    [
        (CHAT, {"status": "UNAVAILABLE"}, 503),
        (GENERATE, {"status": "UNAVAILABLE"}, 503),
        (CHAT, {"status": "RESOURCE_EXHAUSTED"}, 429),
        (GENERATE, {"status": "INTERNAL"}, 502),
        (CHAT, {"status": "DEADLINE_EXCEEDED"}, 504),
    ],
)
@pytest_twisted.ensureDeferred
async def test_failures_of_the_engine(serve: Serve, kind: Kind, path: str, step: object, status: int) -> None:
    """A client would read a page of the proxy's in place of an error, or repeat what it need not."""
    front = await serve(kind, 2)
    body = asking(path, script(step))
    direct = await front.gateways[0].ask("POST", path, json=body)
    for _ in range(3):
        # More than once: a proxy might take a gateway that says so for dead.
        reply = await front.ask("POST", path, json=body)
        assert (reply.status, reply.body) == (status, direct.body)
        for name in ("content-type", "retry-after", "x-should-retry"):
            assert reply.headers.get(name) == direct.headers.get(name)
    assert (direct.headers.get("retry-after") is not None) == (status in {429, 503})
    check("openai_error" if path == CHAT else "ollama_error", direct.json())


@every_proxy
@pytest_twisted.ensureDeferred
async def test_mistakes_of_the_caller(serve: Serve, kind: Kind) -> None:
    """A caller would not be told what is wrong with a request."""
    front = await serve(kind, max_body_bytes=100_000)
    body = asking(CHAT, "hello")
    for method, path, arguments, status in (
        ("POST", CHAT, {"json": body | {"model": "gpt-7"}}, 404),
        ("POST", "/v1/embeddings", {"json": {}}, 404),
        ("GET", CHAT, {}, 405),
        ("POST", CHAT, {"data": b"{"}, 400),
        ("POST", GENERATE, {"data": b"x" * 200_000}, 413),
        ("POST", CHAT, {"data": b"x" * 4_000_000}, 413),
        ("GET", "/" + "x" * 10_000, {"headers": {"X-Long": "x" * 4_000}}, 404),
        ("POST", CHAT, {"json": body, "headers": {"Origin": "https://elsewhere.example"}}, 403),
    ):
        direct = await front.gateways[0].ask(method, path, **arguments)
        reply = await front.ask(method, path, **arguments)
        assert (reply.status, reply.body) == (status, direct.body), (method, path)
        assert reply.headers.get("allow") == direct.headers.get("allow")


@every_kind
@pytest_twisted.ensureDeferred
async def test_by_which_name_it_is_called(serve: Serve, kind: Kind) -> None:
    """The gateway would answer to every name, or not to the one that it has, or would refuse its own pages."""
    front = await serve(kind, allowed_hosts=frozenset({"brunix.example"}))
    good = await front.ask("GET", "/v1/models", headers={"Host": "brunix.example"})
    assert good.status == 200
    strange = await front.ask("GET", "/v1/models", headers={"Host": "elsewhere.example"})
    assert (strange.status, strange.json()["error"]["code"]) == (403, "host_not_allowed")
    for host in ("brunix.example", "brunix.example:8443"):
        own = await front.ask("GET", "/v1/models", headers={"Host": host, "Origin": f"https://{host}"})
        assert own.status == 200


@every_kind
@pytest_twisted.ensureDeferred
async def test_request_id(serve: Serve, kind: Kind) -> None:
    """Somebody who looks for a request in four logs would not find it by one id."""
    front = await serve(kind)
    with log_lines() as lines:
        given = await front.ask("POST", CHAT, json=asking(CHAT, "hello"), headers={"X-Request-Id": "ticket-4711"})
        made = await front.ask("POST", CHAT, json=asking(CHAT, "hello"))
        strange = await front.ask("POST", CHAT, json=asking(CHAT, "hello"), headers={"X-Request-Id": "a b"})
    ids = [reply.headers["x-request-id"] for reply in (given, made, strange)]
    assert ids[0] == "ticket-4711"
    assert len(set(ids)) == 3
    assert "a b" not in ids
    for number, request_id in enumerate(ids):
        assert (await in_thread(front.engines[0].call, number)).metadata["x-request-id"] == request_id
        assert any(f"request={request_id}" in line for line in lines.of_requests())
        await in_thread(front.proxy.until, f"{{{request_id}}}")


@every_kind
@pytest_twisted.ensureDeferred
async def test_what_reaches_the_gateway(kind: Kind) -> None:
    """The gateway would not learn what it goes by, or would be handed a key that is not for it."""
    asked: Deferred[bytes] = Deferred()

    class Listener(Received):
        """Stands where the gateway would; health checks come too."""

        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            if self.data.startswith(b"POST") and b"\r\n\r\n" in self.data and not asked.called:
                asked.callback(bytes(self.data))

    port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(Factory.forProtocol(Listener))
    with proxy(kind, [f"127.0.0.1:{port.getHost().port}"]) as running:
        head = "Host: brunix.example:80\r\nAuthorization: Bearer key\r\nX-Session-Id: s\r\nX-OpenWebUI-Chat-Id: c\r\n"
        client = await connect(running.url, f"POST {CHAT} HTTP/1.1\r\n{head}Content-Length: 2\r\n\r\n{{}}".encode())
        received = (await asked.addTimeout(LIMIT_S, cast("IReactorTime", reactor))).lower().split(b"\r\n")
        client.leave()
        await client.ended
    await port.stopListening()
    assert received[0] == f"POST {CHAT} HTTP/1.1".lower().encode()
    assert {b"host: brunix.example:80", b"x-session-id: s", b"x-openwebui-chat-id: c"} < set(received)
    assert any(line.startswith(b"x-request-id: ") for line in received)
    assert not any(line.startswith((b"authorization", b"connection")) for line in received)


@every_kind
@pytest_twisted.ensureDeferred
async def test_nobody_there(serve: Serve, kind: Kind) -> None:
    """A client would read a page of the proxy's where no gateway runs, and not know that it may ask again."""
    front = await serve(kind)
    await stop_gateway(front.gateways[0])
    for path in (CHAT, GENERATE):
        reply = await front.ask("POST", path, json=asking(path, "hello"))
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.headers["content-type"] == "application/json"
        if kind == "nginx" or path == CHAT:
            check("openai_error" if path == CHAT else "ollama_error", reply.json())
    if kind == "haproxy":
        await in_thread(front.proxy.until, "Server brunix_without_engine/a is DOWN")
        check("ollama_error", (await front.ask("POST", GENERATE, json=asking(GENERATE, "hello"))).json())


# Several gateways.


async def by_engine(front: Front, headers: dict[str, str], times: int = 3) -> int:
    """Ask a few times, and say which engine got all of it."""
    before = front.asked()
    for _ in range(times):
        reply = await front.ask("POST", GENERATE, json=asking(GENERATE, "hello"), headers=headers)
        assert reply.status == 200
        assert told(GENERATE, reply.body) == ("hello ", True)
    (engine,) = [number for number, count in enumerate(front.asked()) if count != before[number]]
    assert front.asked()[engine] == before[engine] + times
    return engine


@every_kind
@pytest.mark.parametrize("header", ["X-Session-Id", "X-OpenWebUI-Chat-Id"])
@pytest_twisted.ensureDeferred
async def test_a_session_stays_with_its_gateway(serve: Serve, kind: Kind, header: str) -> None:
    """A conversation would change from one gateway to another, or all would be at one and none at the other."""
    front = await serve(kind, 2)
    used = [await by_engine(front, {header: f"session-{number}"}) for number in range(20)]
    assert set(used) == {0, 1}
    # Whichever connection it comes by.
    await front.client.pool.closeCachedConnections()
    assert [await by_engine(front, {header: f"session-{number}"}, 1) for number in range(20)] == used


@every_kind
@pytest_twisted.ensureDeferred
async def test_a_conversation_without_a_name(serve: Serve, kind: Kind) -> None:
    """A client that knows nothing of sessions would lose its conversation behind two gateways."""
    front = await serve(kind, 2)
    messages: list[dict[str, str]] = []
    sessions = set()
    for number in range(6):
        messages.append({"role": "user", "content": f"question {number}"})
        body = {"model": "brunix", "messages": messages}
        reply = await front.ask("POST", CHAT, json=body)
        sessions.add(reply.headers["x-session-id"])
        messages.append(reply.json()["choices"][0]["message"])
        await front.client.pool.closeCachedConnections()
    assert len(sessions) == 1


@every_kind
@pytest_twisted.ensureDeferred
async def test_a_gateway_that_drains(serve: Serve, kind: Kind) -> None:
    """A restart of one gateway of two would turn users away, though the other is there, or break an answer off."""
    front = await serve(kind, 2, drain_s=LIMIT_S)
    names = [{"X-Session-Id": f"session-{number}"} for number in range(20)]
    used = [await by_engine(front, name) for name in names]
    leaving = [name for name, engine in zip(names, used, strict=True) if engine == 0]
    received = await begin(front, CHAT, "one ", {"wait": "all others are answered"}, "two", headers=leaving[0])
    await received.until(piece(CHAT, "one "))
    stopping = front.gateways[0].service.stopService()
    # At once, over connections to it that the proxy still has open, and later.
    for name in names:
        assert await by_engine(front, name) == 1
    if kind == "haproxy":
        await in_thread(front.proxy.until, "Server brunix/a is DOWN")
        for name in names:
            assert await by_engine(front, name) == 1
    assert not stopping.called
    front.engines[0].go("all others are answered")
    await received.ended
    assert told(CHAT, bytes(received.data)) == ("one two", True)
    await stopping
    assert await by_engine(front, leaving[0]) == 1


@every_kind
@pytest_twisted.ensureDeferred
async def test_a_gateway_without_its_engine(serve: Serve, kind: Kind) -> None:
    """A user would be told that the engine is away, though another gateway has one; or read HTML where none has."""
    front = await serve(kind, 2)
    names = [{"X-Session-Id": f"session-{number}"} for number in range(10)]
    assert {await by_engine(front, name) for name in names} == {0, 1}
    await in_thread(front.engines[0].stop)
    for name in names:
        assert await by_engine(front, name) == 1
    await in_thread(front.engines[1].stop)
    if kind == "haproxy":
        for server in ("a", "b"):
            await in_thread(front.proxy.until, f"Server brunix/{server} is DOWN")
    for name in names:
        reply = await front.ask("POST", CHAT, json=asking(CHAT, "hello"), headers=name)
        assert (reply.status, reply.json()["error"]["code"]) == (503, "engine_unavailable")
        assert reply.headers["retry-after"] == "1"


class Talking:
    """Clients that hold conversations, send only their messages, and open a connection for each question."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.turns = 0
        self.lost: list[list[str]] = []
        """The sessions of each conversation that was in several."""
        self.failed: list[str] = []
        self._ends = threading.Event()
        self._change = threading.Condition()

    def run(self) -> None:
        """Hold one conversation after the other until the end."""
        while not self._ends.is_set() and not self.failed:
            messages: list[dict[str, str]] = []
            sessions: list[str] = []
            # Callers who look and talk the same may get each other's sessions.
            name = uuid4().hex
            while len(sessions) < 10 and not self.failed:
                messages.append({"role": "user", "content": f"question {len(sessions)} of {name}"})
                sessions.append(self._ask(messages))
            if len(set(sessions)) > 1:
                self.lost.append(sessions)

    def _ask(self, messages: list[dict[str, str]]) -> str:
        connection = HTTPConnection(self._url.removeprefix("http://"), timeout=LIMIT_S)
        body = json.dumps({"model": "brunix", "messages": messages})
        connection.request("POST", CHAT, body, {"Connection": "close"})
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        if response.status == 200:
            messages.append(json.loads(answer)["choices"][0]["message"])
        else:
            self.failed.append(f"{response.status} {answer.decode()}")
        with self._change:
            self.turns += 1
            self._change.notify_all()
        return response.headers["X-Session-Id"] or ""

    def until_more(self, turns: int) -> None:
        """Return once there have been so many more turns."""
        with self._change:
            wanted = self.turns + turns
            assert self._change.wait_for(lambda: self.turns >= wanted or bool(self.failed), LIMIT_S)

    def end(self) -> None:
        """Let each conversation come to its end."""
        self._ends.set()


@every_kind
def test_a_rolling_restart(tmp_path: Path, kind: Kind) -> None:
    """A release would turn users away, or every user would lose the context."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path / "redis"))
        engine = ScriptedEngine()
        stack.callback(engine.stop)
        told = [Told(str(tmp_path / f"told{number}")) for number in range(2)]
        ports = [free_port(), free_port()]

        def start(number: int) -> subprocess.Popen[str]:
            process = stack.enter_context(
                supervised(
                    tmp_path,
                    told[number],
                    BRUNIX_GRPC_TARGET=engine.target,
                    PROXY_LISTEN=f"tcp:{ports[number]}:interface=127.0.0.1",
                    PROXY_STATE=redis.url(),
                    PROXY_STATE_SECRET=64 * "a",
                )
            )
            told[number].until("READY")
            return process

        for watched in told:
            stack.callback(watched.close)
        gateways = [start(number) for number in range(2)]
        running = stack.enter_context(proxy(kind, [f"127.0.0.1:{port}" for port in ports]))
        talking = Talking(running.url)
        with Threads() as threads:
            stack.callback(talking.end)
            for _ in range(8):
                threads.start(talking.run)
            for number, name in enumerate("ab"):
                talking.until_more(50)
                gateways[number].terminate()
                gateways[number].communicate(timeout=LIMIT_S)
                if kind == "haproxy":
                    running.until(f"Server brunix/{name} is DOWN")
                talking.until_more(50)
                start(number)
                if kind == "haproxy":
                    running.until(f"Server brunix/{name} is UP")
            talking.until_more(50)
            talking.end()
        assert talking.failed == []
        assert talking.lost == []


@every_kind
@every_path
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("count", [1, 2], ids=["alone", "one of two"])
def test_a_gateway_that_is_killed(tmp_path: Path, kind: Kind, path: str, count: int, *, stream: bool) -> None:
    """A question that a gateway was asking when it ended is not asked again, and its client reads why."""
    with ExitStack() as stack:
        engines = [ScriptedEngine() for _ in range(count)]
        processes, addresses = [], []
        for number, engine in enumerate(engines):
            stack.callback(engine.stop)
            watched = Told(str(tmp_path / f"told{number}"))
            stack.callback(watched.close)
            process = stack.enter_context(supervised(tmp_path, watched, BRUNIX_GRPC_TARGET=engine.target))
            processes.append(process)
            addresses.append(f"127.0.0.1:{port_of(process, watched.until('READY')['STATUS'])}")
        running = stack.enter_context(proxy(kind, addresses))
        connection = HTTPConnection(running.url.removeprefix("http://"), timeout=LIMIT_S)
        stack.callback(connection.close)
        # The second time over a connection to the gateway that is open already, where a proxy may be more eager.
        for query in ("hello", script(HANG)):
            body = json.dumps(asking(path, query, stream=stream))
            connection.request("POST", path, body, {"X-Session-Id": "session"})
            if query == "hello":
                assert connection.getresponse().read()
                if kind == "haproxy":
                    # It would close the client's own connection without an answer if that had been used before.
                    connection.close()
        (asked,) = [number for number, engine in enumerate(engines) if engine.calls]
        engines[asked].call(1)
        processes[asked].kill()
        response = connection.getresponse()
        assert (response.status, response.headers["x-should-retry"]) == (502, "false")
        if kind == "nginx" or path == CHAT:
            check("openai_error" if path == CHAT else "ollama_error", json.loads(response.read()))
        assert sum(len(engine.calls) for engine in engines) == 2


# Who may ask.


@every_kind
@pytest_twisted.ensureDeferred
async def test_what_is_not_for_everybody(serve: Serve, kind: Kind) -> None:
    """Figures of the gateway would be there for everybody who can reach the proxy."""
    front = await serve(kind)
    reply = await front.ask("GET", "/metrics")
    assert reply.status == 404
    # It never reached the gateway, which gives every answer an id.
    assert "x-request-id" not in reply.headers


ALICE: Final = "key-of-alice"
REFUSED_KEYS: Final[list[dict[str, str]]] = [
    {},
    {"Authorization": "Bearer key-of-Alice"},
    {"Authorization": "Bearer key-of-alic"},
    {"Authorization": ALICE},
    {"Authorization": "Basic key-of-alice"},
    {"X-Api-Key": "key-of-Alice"},
    {"X-Api-Key": "key-of-alice2"},
    {"X-Api-Key": "Bearer key-of-alice2"},
    {"Authorization": "Bearer unused", "X-Api-Key": "unused"},
]
VERSION: Final = {"anthropic-version": "2023-06-01"}


@every_kind
@pytest_twisted.ensureDeferred
async def test_api_keys(serve: Serve, kind: Kind) -> None:
    """The example must keep strangers out, and let in who has a key, and a browser that asks first without one."""
    front = await serve(kind, examples=("brunix_caller", "@brunix_unknown {") if kind == "nginx" else ("known",))
    for path in (CHAT, GENERATE, MESSAGES):
        body = asking(path, "hello")
        for keys in REFUSED_KEYS:
            reply = await front.ask("POST", path, json=body, headers=keys)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer"), keys
        for name in ("alice", "bob"):
            key = f"key-of-{name}"
            for keys in ({"Authorization": f"Bearer {key}"}, {"X-Api-Key": key}):
                for more in ({}, {"X-Api-Key": "unused"} if "Authorization" in keys else {"Authorization": "Bearer x"}):
                    reply = await front.ask("POST", path, json=body, headers=more | keys)
                    assert reply.status == 200, (path, keys, more)
    browser = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    assert (await front.ask("OPTIONS", CHAT, headers=browser)).status == 204
    assert len(front.engines[0].calls) == 3 * 2 * 4


@every_kind
@pytest.mark.parametrize(
    ("path", "headers", "form"),
    [
        (CHAT, {}, "openai"),
        (CHAT, VERSION, "openai"),
        ("/v1/models", {}, "openai"),
        ("/v1/models", VERSION, "anthropic"),
        (MESSAGES, {}, "anthropic"),
        (f"{MESSAGES}/count_tokens", VERSION, "anthropic"),
        (f"/{MESSAGES}/", {}, "anthropic"),
        (GENERATE, VERSION, "ollama"),
        ("/apiary", {}, "openai"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_missing_key_is_reported_in_the_api_s_form(
    serve: Serve, kind: Kind, path: str, headers: dict[str, str], form: str
) -> None:
    """A client must understand that its key is wrong, as it does where it is at home."""
    front = await serve(kind, examples=("brunix_caller", "@brunix_unknown {") if kind == "nginx" else ("known",))
    reply = await front.ask("POST", path, headers={"X-Request-Id": "req-1"} | headers)
    assert (reply.status, reply.headers["content-type"]) == (401, "application/json")
    error = reply.json()
    if form == "anthropic":
        assert (error["error"].pop("type"), error["request_id"]) == ("authentication_error", "req-1")
        assert error == {"type": "error", "error": {"message": "API key missing or unknown"}, "request_id": "req-1"}
    else:
        check(f"{form}_error", error)


@every_kind
@pytest_twisted.ensureDeferred
async def test_no_gateway_is_reported_to_anthropic_s_clients(serve: Serve, kind: Kind) -> None:
    """A client of Anthropic's must understand that the gateway cannot be reached."""
    front = await serve(kind)
    await stop_gateway(front.gateways[0])
    if kind == "haproxy":
        await in_thread(front.proxy.until, "Server brunix_without_engine/a is DOWN")
    for method, path in (("POST", MESSAGES), ("GET", "/v1/models")):
        reply = await front.ask(method, path, headers=VERSION | {"X-Request-Id": "req-1"})
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        check("anthropic_error", reply.json())
        assert reply.json()["request_id"] == "req-1"


@every_kind
@pytest_twisted.ensureDeferred
async def test_keys_stay_with_the_proxy(serve: Serve, kind: Kind) -> None:
    """A key that is meant for the proxy must not travel on to the gateway."""
    front = await serve(kind)
    seen: list[tuple[bool, bool]] = []
    site = front.gateways[0].service._site  # noqa: SLF001 - shows in nothing else
    refuse = site.refuse

    def noting(request: Any, error: Any) -> bytes:  # noqa: ANN401 - as the gateway's own
        seen.append(tuple(request.requestHeaders.hasHeader(name) for name in (b"Authorization", b"X-Api-Key")))
        return refuse(request, error)

    site.refuse = noting
    keys = {"Authorization": "Bearer key-of-alice", "X-Api-Key": "key-of-alice", "Origin": "https://elsewhere.example"}
    assert (await front.ask("GET", "/v1/models", headers=keys)).status == 403
    assert seen == [(False, False)]


@with_program("nginx")
@pytest_twisted.ensureDeferred
async def test_passwords(serve: Serve) -> None:
    """The example would let strangers in, or keep out who knows the password."""
    front = await serve("nginx", examples=("auth_basic",), files={"brunix.htpasswd": b"alice:{PLAIN}good\n"})
    for password, status in (("good", 200), ("bad", 401)):
        credentials = b64encode(f"alice:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        assert (await front.ask("GET", "/v1/models", headers=headers)).status == status
    assert (await front.ask("GET", "/v1/models")).status == 401


@every_kind
@pytest_twisted.ensureDeferred
async def test_tls(serve: Serve, kind: Kind, tmp_path: Path) -> None:
    """The example would not serve TLS, or would hold back what comes without delay otherwise."""
    authority = Authority(tmp_path, "authority")
    key, certificate = authority.sign("127.0.0.1").pair
    files = {"brunix.crt": certificate, "brunix.key": key, "brunix.pem": certificate + key}
    front = await serve(kind, examples=("443 ssl",), files=files)
    trusting = ssl.create_default_context(cafile=str(authority.party.certificate))

    def ask() -> bytes:
        connection = HTTPSConnection("127.0.0.1", front.proxy.tls_port, timeout=LIMIT_S, context=trusting)
        query = script("one ", {"wait": "first seen"}, "two")
        connection.request("POST", GENERATE, json.dumps(asking(GENERATE, query)))
        response = connection.getresponse()
        first = response.readline()
        assert piece(GENERATE, "one ") in first
        front.engines[0].go("first seen")
        rest = response.read()
        connection.close()
        return first + rest

    assert told(GENERATE, await in_thread(ask)) == ("one two", True)
