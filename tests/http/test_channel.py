"""What a connection must obey before there is a request: over raw sockets, and with a clock of its own."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any, Final, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock, deferLater
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource

from brunix_twisted import errors
from brunix_twisted.api.routes import refuse
from brunix_twisted.app.service import GatewayService
from brunix_twisted.config import allowed_hosts, cors_origins
from brunix_twisted.config.allowed_hosts import Hosts
from brunix_twisted.config.settings import Settings
from brunix_twisted.dialects import ErrorFormat, anthropic, ollama, openai
from brunix_twisted.http import channel
from brunix_twisted.http.channel import Bounds, GatewayChannel
from brunix_twisted.http.site import GatewayRequest, GatewaySite
from brunix_twisted.observability.logs import log_request
from brunix_twisted.runtime.reactors import Reactor
from endpoints import error_schema
from fake_reactor import LIMIT_S
from gateways import Reply, RunningGateway, in_thread, run_gateway, stop_gateway
from log_lines import LogLines, log_lines
from raw_http import CLOSE, LAST, LIVE, pass_time, replies, say
from received import connect
from scripted_engine import ScriptedEngine, script
from wire import check

SHOW: Final = b'{"model": "brunix"}'
OLLAMA: Final = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\n"
OPENAI: Final = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def log() -> Iterator[LogLines]:
    with log_lines() as lines:
        yield lines


def assert_refused(found: list[Reply], status: int, path: str = "/v1") -> str:
    """Hold that there is one answer, a refusal as every other, and that nothing comes after it."""
    (reply,) = found
    assert reply.status == status, reply
    assert reply.headers["connection"] == "close"
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-request-id"]
    assert reply.headers["date"]
    check(error_schema(path), reply.json())
    error = reply.json()["error"]
    return str(error if path.startswith("/api") else error["message"])


def assert_line(log: LogLines, start: str) -> None:
    """Hold that the log has one line, for the one request, and that nothing of it is raw."""
    (line,) = log.of_requests()
    assert line.startswith(f"{start} ")
    assert log.errors == []
    assert line.isascii()
    assert line.isprintable()


# Grammar.


MALFORMED: Final = {
    # The request line.
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "two empty lines before it": b"\r\n\r\n" + LAST,
    "HTTP/0.9": b"GET /\r\n\r\n",
    "version without a name": b"GET / 1.1\r\n" + CLOSE,
    "lower-case version": b"GET / http/1.1\r\n" + CLOSE,
    "version of two digits": b"GET / HTTP/1.10\r\n" + CLOSE,
    "two spaces": b"GET  / HTTP/1.1\r\n" + CLOSE,
    "tab": b"GET\t/ HTTP/1.1\r\n" + CLOSE,
    "space before": b" GET / HTTP/1.1\r\n" + CLOSE,
    "space after": b"GET / HTTP/1.1 \r\n" + CLOSE,
    "space in the target": b"GET /a b HTTP/1.1\r\n" + CLOSE,
    "characters of a method": b"GE(T / HTTP/1.1\r\n" + CLOSE,
    "NUL in the method": b"GE\x00T / HTTP/1.1\r\n" + CLOSE,
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\n" + CLOSE,
    "bare CR in the target": b"GET /\r HTTP/1.1\r\n" + CLOSE,
    "beyond ASCII in the target": b"GET /\xa0 HTTP/1.1\r\n" + CLOSE,
    "target without a slash": b"GET v1/models HTTP/1.1\r\n" + CLOSE,
    "another scheme": b"GET ftp://localhost/ HTTP/1.1\r\n" + CLOSE,
    "asterisk with GET": b"GET * HTTP/1.1\r\n" + CLOSE,
    "URL without a host": b"GET http:///v1/models HTTP/1.1\r\n" + CLOSE,
    "URL with a user": b"GET http://a@localhost/v1/models HTTP/1.1\r\n" + CLOSE,
    # The ends of lines.
    "bare LF": b"GET / HTTP/1.1\nHost: localhost\n\n",
    "bare LF after the first line": b"GET / HTTP/1.1\nHost: localhost\r\n\r\n",
    "bare LF after a header": b"GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\nHost: localhost\r\n\n",
    "bare CR": b"GET / HTTP/1.1\rHost: localhost\r\r\n\r\n",
    # Headers.
    "no colon": b"GET / HTTP/1.1\r\nX\r\n" + CLOSE,
    "no name": b"GET / HTTP/1.1\r\n: x\r\n" + CLOSE,
    "space before the colon": b"GET / HTTP/1.1\r\nX : y\r\n" + CLOSE,
    "characters of a name": b"GET / HTTP/1.1\r\nX(y): z\r\n" + CLOSE,
    "obs-fold": b"GET / HTTP/1.1\r\nX: y\r\n z\r\n" + CLOSE,
    "obs-fold with a tab": b"GET / HTTP/1.1\r\nX: y\r\n\tz\r\n" + CLOSE,
    "space before the first header": b"GET / HTTP/1.1\r\n X: y\r\n" + CLOSE,
    "empty obs-fold": b"GET / HTTP/1.1\r\nX: y\r\n \r\n" + CLOSE,
    **{
        f"0x{code:02x} in a value": b"GET / HTTP/1.1\r\nX: y%cz\r\n" % code + CLOSE
        for code in (*range(9), *range(10, 32), 127)
    },
    # Host.
    "no Host": b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    "no Host but in the target": b"GET http://localhost/ HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + CLOSE,
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: localhost\r\n" + CLOSE,
    **{
        f"Host {value!r}": b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % value
        for value in (b"", b"a b", b"a/b", b"a@b", b"[::1", b"::1", b":80", b"a:b", b"a:80:80", b"\xe9", b"a#", b"a?b")
    },
    # Where the body ends.
    **{
        f"Content-Length {value!r}": OLLAMA + b"Content-Length: %b\r\n\r\n" % value
        for value in (b"", b"+1", b"-1", b"1 2", b"1,1", b"0x1", b"1.0", b"1e1", b"_1", b"\xb2")
    },
    "two lengths": OLLAMA + b"Content-Length: 19\r\nContent-Length: 20\r\n\r\n" + SHOW,
    "the same length twice": OLLAMA + b"Content-Length: 19\r\nContent-Length: 19\r\n\r\n" + SHOW,
    "both": OLLAMA + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + LAST,
    "both, the other way round": OLLAMA + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + LAST,
    "identity and a length": OLLAMA + b"Transfer-Encoding: identity\r\nContent-Length: 19\r\n\r\n" + SHOW,
    "a length and identity": OLLAMA + b"Content-Length: 19\r\nTransfer-Encoding: identity\r\n\r\n" + SHOW,
    "chunked in HTTP/1.0": b"POST /api/show HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    **{
        f"Transfer-Encoding {value!r}": OLLAMA + b"Transfer-Encoding: %b\r\n\r\n0\r\n\r\n" % value
        for value in (b"", b"identity", b"gzip", b"chunked, gzip", b"chunked, chunked", b"chunked;a=b", b"\x0bchunked")
    },
    "chunked twice": OLLAMA + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and cow": OLLAMA + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n",
    "space before the colon of chunked": OLLAMA + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded chunked": OLLAMA + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "chunked behind LF": OLLAMA + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    **{
        f"chunk {value!r}": OLLAMA + b"Transfer-Encoding: chunked\r\n\r\n" + value
        for value in (
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1_0\r\n",
            b"\r\n",
            b"1\nx\r\n",
            b"1\r\nxy\r\n",
            b"1\r\nx\n0\r\n\r\n",
            b"1;\x00\r\n",
            b"1;a\nb\r\n",
            b"1;" + b"x" * 2_000 + b"\r\n",
            b"1" * 2_000,
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\nX: y\nz\r\n\r\n",
            b"0\r\nX: y\x00\r\n\r\n",
            b"0\r\nX: " + b"y" * 70_000,
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
@pytest_twisted.ensureDeferred
async def test_malformed(gateway: RunningGateway, engine: ScriptedEngine, log: LogLines, sent: bytes) -> None:
    """A proxy and the gateway could take the same bytes for different requests, and one user get another's answer."""
    path = "/api" if b" /api" in sent.partition(b"\r\n")[0] else "/v1"
    # What a smuggler would want to be taken for a request of its own.
    found = await say(gateway, sent + LIVE)
    assert "RFC 9112" in assert_refused(found, 400, path)
    assert len(log.of_requests()) == len(log.texts) == 1
    assert log.texts[0].isascii()
    assert log.texts[0].isprintable()
    assert log.errors == []
    assert engine.calls == []


@pytest.mark.parametrize(
    ("sent", "status", "line"),
    [
        (b"GET /api/tags HTTP/1.1\nHost: localhost\n\n", 400, "GET /api/tags 400"),
        (b"GET /api/tags HTTP/2.0\r\n" + CLOSE, 505, "GET /api/tags 505"),
        (b"GET /api/tags HTTP/1.2\r\n" + CLOSE, 505, "GET /api/tags 505"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "PRI * 505"),
        (b"CONNECT localhost:443 HTTP/1.1\r\n" + CLOSE, 501, "CONNECT /localhost:443 501"),
        (b"get /api/tags HTTP/1.1\r\n" + CLOSE, 501, "get /api/tags 501"),
        (b"Post /api/tags HTTP/1.1\r\n" + CLOSE, 501, "Post /api/tags 501"),
        (OLLAMA + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "POST /api/show 501"),
        (OLLAMA + b"Content-Length: %b\r\n\r\n" % (b"9" * 5_000), 413, "POST /api/show 413"),
        (OLLAMA + b"Content-Length: 99999999999999999999\r\n\r\n", 413, "POST /api/show 413"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_not_served(gateway: RunningGateway, log: LogLines, sent: bytes, status: int, line: str) -> None:
    """A client that wants more of HTTP than there is would not be told so, or would fill the log with tracebacks."""
    assert_refused(await say(gateway, sent), status, line.split(" ")[1])
    assert_line(log, line)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"\r\n" + LAST, [200]),
        (LIVE + b"\r\n" + LAST, [200, 200]),
        (b"GET /health/live HTTP/1.0\r\n\r\n", [200]),
        (b"GET http://localhost/health/live HTTP/1.0\r\n\r\n", [200]),
        (b"GET http://localhost/health/live HTTP/1.1\r\n" + CLOSE, [200]),
        (b"GET HTTP://[::1]:80?x=http://a HTTP/1.1\r\n" + CLOSE, [200]),
        (b"OPTIONS * HTTP/1.1\r\n" + CLOSE, [204]),
        (b"BREW /health/live HTTP/1.1\r\n" + CLOSE, [405]),
        (b"GET /health/live HTTP/1.1\r\nX: \xe9\ty\r\n" + CLOSE, [200]),
        (b"GET /health/live HTTP/1.1\r\nHost: a,b_c.localhost:\r\nConnection: close\r\n\r\n", [200]),
        (OLLAMA + b"Connection: keep-alive,CLOSE\r\nContent-Length: 0019\r\n\r\n" + SHOW, [200]),
        (OLLAMA + b'Connection: x\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n13;a="b"\r\n' + SHOW
         + b"\r\n000;x\r\nX-Trailer: y\r\n\r\n", [200]),
        (LIVE * 20 + LAST, [200] * 21),
        (OLLAMA + b"Content-Length: 19\r\n\r\n" + SHOW + LAST, [200, 200]),
        (OLLAMA + b"Transfer-Encoding: chunked\r\n\r\n13\r\n" + SHOW + b"\r\n0\r\n\r\n" + LAST, [200, 200]),
        (LIVE[:-2] + b"Content-Length: %d\r\n\r\n%b" % (len(LIVE), LIVE) + LAST, [200, 200]),
        (LIVE + b"nonsense\r\n\r\n" + LAST, [200, 400]),
        (LAST + LIVE, [200]),
        (LIVE + LIVE.replace(b"localhost", b"evil.example") + LAST, [200, 403]),
        (LIVE + LIVE.replace(b"Host: localhost\r\n", b"") + LAST, [200, 400]),
        (LIVE + LIVE.replace(b"GET ", b"GET http://evil.example") + LAST, [200, 403]),
        (b"GET http://evil.example/health/live HTTP/1.0\r\n\r\n", [403]),
        (LIVE + LIVE.replace(b"live", b"live?" + b"x" * 20_000), [200, 414]),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_well_formed(gateway: RunningGateway, sent: bytes, statuses: list[int]) -> None:
    """A client that keeps to the standard, if at its edge, would be refused or get answers in another order."""
    assert [reply.status for reply in await say(gateway, sent)] == statuses


# Requests one behind another.


def asking(query: str) -> bytes:
    body = b'{"model": "brunix", "stream": true, "prompt": %b}' % json.dumps(query).encode()
    return b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    ("behind", "statuses"), [(LIVE + LAST, [200, 200]), (b"GET /api/tags HTTP/1.1\r\n\r\n" + LAST, [400])]
)
@pytest_twisted.ensureDeferred
async def test_behind_a_stream(
    gateway: RunningGateway, engine: ScriptedEngine, behind: bytes, statuses: list[int]
) -> None:
    """A client's next request, right or wrong, would break into the answer that it is still reading."""
    client = await connect(gateway.url, asking(script("first", {"wait": "go"}, "last")) + behind)
    await client.until(b'"first"')
    await pass_time(gateway)
    assert client.data.count(b"HTTP/1.1 ") == 1
    engine.go("go")
    await client.ended
    stream, *others = replies(client.data)
    assert b'"done":true' in stream.body
    assert [reply.status for reply in others] == statuses


@pytest_twisted.ensureDeferred
async def test_half_close(gateway: RunningGateway, engine: ScriptedEngine, log: LogLines) -> None:
    """The engine would go on for a client that may have left: nothing tells it from one that only stopped sending."""
    client = await connect(gateway.url, asking(script("first", {"hang": True})))
    await client.until(b'"first"')
    asked = await in_thread(engine.call)
    cast("Connection", client.transport).loseWriteConnection()
    await client.ended
    assert await in_thread(asked.ended.wait, 60)
    assert_line(log, "POST /api/generate gone")


# Sizes.


async def small(engine: ScriptedEngine, **settings: Any) -> RunningGateway:  # noqa: ANN401 - as in Settings
    return await run_gateway(grpc_target=engine.target, drain_s=0.0, **settings)


CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (b"Content-Length: 19\r\n\r\n" + SHOW, [200]),
        (b"Content-Length: 20\r\n\r\n", [413]),
        (b"Content-Length: 20\r\n\r\n" + SHOW + b" " + LIVE, [413]),
        (b"Content-Length: 20\r\nExpect: 100-continue\r\n\r\n", [413]),
        (CHUNKED + b"\r\n13\r\n" + SHOW + b"\r\n0\r\n\r\n", [200]),
        (CHUNKED + b"\r\n13\r\n" + SHOW + b"\r\n1\r\n", [413]),
        (CHUNKED + b"\r\n14\r\n", [413]),
        (CHUNKED + b"\r\n1\r\nx\r\n13;x\r\n", [413]),
        (CHUNKED + b"\r\n500000\r\n", [413]),
        (CHUNKED + b"\r\n" + b"f" * 17 + b"\r\n", [413]),
        (CHUNKED + b"\r\n" + b"9" * 40 + b"\r\nx", [413]),
        (CHUNKED + b"\r\n13\r\n" + SHOW + b"\r\n1\r\n \r\n1\r\n \r\n0\r\n\r\n" + LIVE, [413]),
        (CHUNKED + b"\r\nfffffffffffffffff\r\n" + b"x" * 20, [413]),
        (CHUNKED + b"Expect: 100-continue\r\n\r\n14\r\n" + b"x" * 20, [100, 413]),
        (CHUNKED + b"\r\n" + b"1;%b\r\nx\r\n" % (b"x" * 1_000) * 18 + b"0\r\n\r\n", [400]),
        (CHUNKED + b"\r\n" + b"0;%b" % (b"x" * 100_000), [400]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_body(engine: ScriptedEngine, log: LogLines, sent: bytes, found: list[int]) -> None:
    """One client could fill the gateway's memory or disk."""
    gateway = await small(engine, max_body_bytes=19)
    client = await connect(gateway.url, OLLAMA + b"Connection: close\r\n" + sent)
    await client.ended
    await stop_gateway(gateway)
    assert [reply.status for reply in replies(client.data)] == found
    if found[-1] == 413:
        assert "19 bytes" in assert_refused(replies(client.data)[-1:], 413, "/api")
        assert_line(log, "POST /api/show 413")


@pytest_twisted.ensureDeferred
async def test_chunks_of_nothing(engine: ScriptedEngine, log: LogLines) -> None:
    """A client could keep the gateway busy for as long as it likes with a body of which nearly nothing is body."""
    gateway = await small(engine, max_body_bytes=1_000)
    chunks = b"".join(b"1;%b\r\nx\r\n" % (b"x" * 1_000) for _ in range(100))
    found = await say(gateway, OPENAI + CHUNKED + b"\r\n" + chunks)
    await stop_gateway(gateway)
    assert_refused(found, 413)
    assert_line(log, "POST /v1/chat/completions 413")


@pytest_twisted.ensureDeferred
async def test_expect(gateway: RunningGateway) -> None:
    """Curl would wait a second before it sends a long question."""
    client = await connect(gateway.url, OLLAMA + b"Content-Length: 19\r\nExpect: 100-continue\r\n\r\n")
    await client.until(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.transport.write(SHOW + LAST)  # type: ignore[union-attr]
    await client.ended
    assert [reply.status for reply in replies(client.data)] == [100, 200, 200]


@pytest_twisted.ensureDeferred
async def test_refusal_arrives_while_the_body_is_sent(gateway: RunningGateway) -> None:
    """A user would read "connection reset" where the gateway has said that the question is too long."""

    def send_and_read() -> bytes:
        body = b"x" * 30_000_000
        with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), LIMIT_S) as client:
            client.sendall(OPENAI + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            return b"".join(iter(lambda: client.recv(65_536), b""))

    assert "4194304 bytes" in assert_refused(replies(await in_thread(send_and_read)), 413)


@pytest.mark.parametrize(
    ("sent", "status", "line"),
    [
        (b"GET /health/live?%b HTTP/1.1\r\n" % (b"x" * (16_384 - 26)) + CLOSE, 200, "GET /health/live 200"),
        (b"GET /health/live?%b HTTP/1.1\r\n" % (b"x" * (16_385 - 26)) + CLOSE, 414, "GET /health/live 414"),
        (b"GET /api/%b" % (b"x" * 20_000), 414, "GET /api/xxxx"),
        (b"x" * 20_000, 414, "- / 414"),
        (b"GET /health/live HTTP/1.1\r\nX: %b\r\n" % (b"x" * (2_048 - 32 - 3)) + CLOSE, 200, "GET /health/live 200"),
        (b"GET /health/live HTTP/1.1\r\nX: %b\r\n" % (b"x" * (2_048 - 32 - 2)) + CLOSE, 431, "GET /health/live 431"),
        (b"GET /api/tags HTTP/1.1\r\nX: %b" % (b"x" * 3_000), 431, "GET /api/tags 431"),
        (b"GET /api/tags HTTP/1.1\r\n" + b"X: yyyyyy\r\n" * 400, 431, "GET /api/tags 431"),
        (b"POST /api/chat HTTP/1.1\r\n" + b"X: yyyyyy\r\n" * 400, 431, "POST /api/chat 431"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_head(engine: ScriptedEngine, log: LogLines, sent: bytes, status: int, line: str) -> None:
    """One client could fill the gateway's memory, or would be cut off without being told what was too long."""
    gateway = await small(engine, max_header_bytes=2_048)
    found = await say(gateway, sent)
    await stop_gateway(gateway)
    if status == 200:
        assert [reply.status for reply in found] == [200]
    else:
        assert_refused(found, status, line.split(" ")[1])
    (text,) = log.of_requests()
    assert text.startswith(line)
    assert len(text) < 500


@pytest.mark.parametrize(("fields", "status"), [(498, 200), (499, 431)])
@pytest_twisted.ensureDeferred
async def test_number_of_headers(gateway: RunningGateway, fields: int, status: int) -> None:
    """A client could keep the gateway busy with thousands of headers that are empty."""
    found = await say(gateway, b"GET /health/live HTTP/1.1\r\n" + b"X:\r\n" * fields + CLOSE)
    assert [reply.status for reply in found] == [status]


# Deadlines.


class Timed:
    """A connection whose time the test makes."""

    def __init__(self) -> None:
        self.clock = Clock()
        bounds = Bounds(max_body_bytes=1_000, max_header_bytes=2_048, headers_timeout_s=10.0, body_timeout_s=30.0)
        resource = Resource()
        resource.isLeaf = True
        resource.render_POST = lambda _: b"ok"  # type: ignore[attr-defined]
        site = GatewaySite(
            resource,
            reactor=cast("IReactorTime", self.clock),
            refuse=refuse,
            origins=cors_origins.read("*"),
            bounds=bounds,
        )
        site.observers = [log_request]
        self.channel = cast("GatewayChannel", site.buildProtocol(None))
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)

    def say(self, *pieces: bytes, each_s: float = 0.0) -> None:
        for piece in pieces:
            self.channel.dataReceived(piece)
            self.clock.advance(each_s)

    def heard(self) -> list[int]:
        return [reply.status for reply in replies(self.transport.value())]


HEAD: Final = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize("sent", [b"P", b"POST /api/show HTTP/1.1\r\n", HEAD, HEAD + b"X", HEAD + b"X: y\r\n"])
def test_slow_headers(log: LogLines, sent: bytes) -> None:
    """A client that sends a byte now and then could hold a connection for ever."""
    timed = Timed()
    timed.clock.advance(50.0)
    timed.say(sent)
    timed.clock.advance(9.9)
    assert timed.heard() == []
    timed.clock.advance(0.2)
    path = "/api" if b"/api" in sent else "/v1"
    assert "headers" in assert_refused(replies(timed.transport.value()), 408, path)
    assert timed.transport.disconnecting
    assert len(log.texts) == 1


def test_slow_headers_byte_by_byte() -> None:
    """A client that sends a byte a second could hold a connection for as long as it has bytes."""
    timed = Timed()
    timed.say(*(HEAD[place : place + 1] for place in range(9)), each_s=1.1)
    assert timed.heard() == []
    timed.say(b"x", each_s=0.2)
    assert timed.heard() == [408]


def test_slow_body_byte_by_byte(log: LogLines) -> None:
    """A client that sends its question a byte a second could hold a connection, and a temporary file, for hours."""
    timed = Timed()
    timed.say(HEAD, each_s=9.0)
    timed.say(b"Content-Length: 100\r\n\r\n")
    timed.say(*([b"x"] * 29), each_s=1.0)
    assert timed.heard() == []
    timed.say(b"x", each_s=1.0)
    assert "body" in assert_refused(replies(timed.transport.value()), 408, "/api")
    assert_line(log, "POST /api/show 408")


def test_slow_chunks() -> None:
    """A body without a length could take for ever."""
    timed = Timed()
    timed.say(HEAD + CHUNKED + b"\r\n")
    timed.say(*([b"1\r\nx\r\n"] * 29), each_s=1.0)
    assert timed.heard() == []
    timed.clock.advance(1.0)
    assert timed.heard() == [408]


def test_deadlines_are_each_requests_own() -> None:
    """A client that keeps its connection open would be cut off in its second request, for the time the first took."""
    timed = Timed()
    for _ in range(3):
        timed.say(HEAD, each_s=9.0)
        timed.say(b"Content-Length: 2\r\n\r\n", each_s=25.0)
        timed.say(b"x", each_s=4.0)
        timed.say(b"x", each_s=50.0)
    assert timed.heard() == [200, 200, 200]
    timed.say(HEAD)
    timed.clock.advance(10.0)
    assert timed.heard() == [200, 200, 200, 408]


def test_idle_connection() -> None:
    """A connection that nobody uses would stay for ever, or its client be told of a request it never made."""
    timed = Timed()
    timed.say(HEAD + b"Content-Length: 0\r\n\r\n")
    timed.clock.advance(59.0)
    assert not timed.transport.disconnecting
    timed.clock.advance(2.0)
    assert timed.transport.disconnecting
    assert timed.heard() == [200]


def test_nothing_is_left_to_happen() -> None:
    """Every connection would leave a timer behind."""
    timed = Timed()
    timed.say(HEAD + b"Content-Length: 2\r\n\r\nx")
    timed.channel.connectionLost()
    assert timed.clock.getDelayedCalls() == []
    refused = Timed()
    refused.say(b"nonsense\r\n")
    refused.channel.connectionLost()
    assert refused.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("sent", "setting"), [(b"GET / HT", "headers_timeout_s"), (HEAD + b"Content-Length: 9\r\n\r\n", "body_timeout_s")]
)
@pytest_twisted.ensureDeferred
async def test_deadlines_are_settings(engine: ScriptedEngine, sent: bytes, setting: str) -> None:
    """The operator's choice of how long a client may take would have no effect."""
    gateway = await small(engine, **{setting: 0.1})
    assert_refused(await say(gateway, sent), 408, "/api" if b"/api" in sent else "/v1")
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_who_does_not_leave_is_thrown_out(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was refused could hold its connection by never closing it, or by sending for ever."""
    monkeypatch.setattr(channel, "_LINGER_S", 0.1)
    client = await connect(gateway.url, b"nonsense\r\n")
    cast("Connection", client.transport).pauseProducing()
    connections = gateway.service._site.connections  # noqa: SLF001 - nothing else tells of a connection that ended
    while not connections:
        await deferLater(cast("IReactorTime", reactor), 0)
    while connections:
        await deferLater(cast("IReactorTime", reactor), 0)
    cast("Connection", client.transport).resumeProducing()
    await client.ended


# Host.


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:8000", "10.1.2.3",
        "172.16.0.1", "192.168.1.1:1", "0.0.0.0", "[fd00::1]", "[::ffff:127.0.0.1]", "a.localhost", "nas.local",  # noqa: S104
        "host.docker.internal:8000",
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_local_host(gateway: RunningGateway, host: str) -> None:
    """A user on this machine, or in a container on it, would be refused."""
    assert (await gateway.ask("GET", "/v1/models", headers={"Host": host})).status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags", "/health/live", "/nothing"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example",
        "8.8.8.8", "[2606:4700::1111]", "127.1", "0x7f000001", "local", "internal",
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_strange_host(gateway: RunningGateway, log: LogLines, host: str, path: str) -> None:
    """A page of the web could ask the company's engine by a name that it points to the visitor's own machine."""
    found = await say(gateway, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert "PROXY_ALLOWED_HOSTS" in assert_refused(found, 403, path)
    assert_line(log, f"GET {path} 403")


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [("http://evil.example", "localhost", 403), ("http://localhost", "evil.example", 200)],
)
@pytest_twisted.ensureDeferred
async def test_host_of_the_target(gateway: RunningGateway, target: str, host: str, status: int) -> None:
    """The check of the Host could be passed by with a whole URL as the target."""
    sent = f"GET {target}/v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert [reply.status for reply in await say(gateway, sent.encode())] == [status]


@pytest.mark.parametrize(
    ("listen", "allowed", "host", "status"),
    [
        ("tcp:0:interface=127.0.0.1", "", "machine.example", 200),
        ("tcp:0:interface=127.0.0.1", "", "gateway.example", 403),
        ("tcp:0:interface=127.0.0.1", "a.example,Gateway.example", "GATEWAY.example:80", 200),
        ("tcp:0:interface=127.0.0.1", "*", "evil.example", 200),
        ("tcp:0", "", "evil.example", 200),
        ("tcp:0", "gateway.example", "gateway.example", 200),
        ("tcp:0", "gateway.example", "localhost", 200),
        ("tcp:0", "gateway.example", "evil.example", 403),
    ],
)
@pytest_twisted.ensureDeferred
async def test_allowed_hosts(  # noqa: PLR0913, PLR0917 - a row of the table
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, listen: str, allowed: str, host: str, status: int
) -> None:
    """The operator's choice of names would have no effect, or a gateway for the whole network refuse its clients."""
    monkeypatch.setattr("brunix_twisted.app.service.gethostname", lambda: "Machine.example")
    settings = Settings(grpc_target=engine.target, drain_s=0.0, allowed_hosts=allowed_hosts.read(allowed))
    service = GatewayService(cast("Reactor", reactor), settings, serverFromString(reactor, listen))
    service.startService()
    port = cast("Any", service.port.getHost()).port
    client = await connect(
        f"http://127.0.0.1:{port}", f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    await client.ended
    await cast("Any", service.stopService())
    assert [reply.status for reply in replies(client.data)] == [status]


@pytest.mark.parametrize("text", ["a b", "a/b", "http://a", "a:80", "*.example", "é", "a,b c"])
def test_malformed_setting(text: str) -> None:
    """An operator's typing mistake would let nobody in, or everybody, without a word."""
    with pytest.raises(ValueError, match=r"."):
        allowed_hosts.read(text)


def test_setting() -> None:
    """An operator could not write addresses as they are usually written."""
    assert Hosts(allowed_hosts.read("2001:db8::1, [2001:db8::2],8.8.8.8")).names == {
        "2001:db8::1",
        "2001:db8::2",
        "8.8.8.8",
    }
    assert Hosts(allowed_hosts.read("[2001:4860::8888]")).allow("[2001:4860::8888]")


# A page of the web.

PAGE: Final = b"Origin: http://localhost:3000\r\nX-Request-Id: r-1\r\n"
LONG: Final = b"X: " + b"y" * 3_000 + b"\r\n"
MANY: Final = b"X:\r\n" * 600


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (OPENAI + PAGE + b"Content-Length: 999999999\r\n\r\n", 413),
        (OPENAI + PAGE + CHUNKED + b"\r\n500000\r\n", 413),
        (OPENAI + PAGE + CHUNKED + b"\r\nx\r\n", 400),
        (OPENAI + PAGE + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (OPENAI + b"Content-Length: 99999999999999999999\r\n" + PAGE + b"\r\n", 413),
        (b"GET /?%b HTTP/1.1\r\nHost: localhost\r\n" % (b"x" * 20_000) + PAGE + b"\r\n", 414),
        (b"GET /?%b HTTP/1.1\r\nHost: localhost\r\n" % (b"x" * 200_000) + PAGE + b"\r\n", 414),
        (OPENAI + PAGE + LONG + b"\r\n", 431),
        (OPENAI + LONG + PAGE + b"\r\n", 431),
        (OPENAI + LONG + LONG * 20 + PAGE + b"\r\n", 431),
        (OPENAI + b"X: yyyyy\r\n" * 400 + PAGE + b"\r\n", 431),
        (OPENAI + b"X: y\r\n" * 290 + PAGE + LONG + b"\r\n", 431),
        (OPENAI + b"X:\r\n" * 498 + PAGE + b"\r\n", 431),
        (OPENAI + b"X:\r\n" * 499 + PAGE + b"\r\n", 431),
        (OPENAI + MANY + PAGE + b"\r\n", 431),
        (OPENAI.replace(b"POST", b"post") + PAGE + b"\r\n", 501),
        (OPENAI + PAGE + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (OPENAI + b"Transfer-Encoding: gzip, chunked\r\n" + PAGE + b"\r\n", 501),
        (OPENAI.replace(b"1.1", b"1.2") + PAGE + b"\r\n", 505),
        (OPENAI.replace(b"HTTP", b"HTTX") + PAGE + b"\r\n", 400),
        (OPENAI + b"nonsense\r\n" + PAGE + b"\r\n", 400),
        (OPENAI + PAGE + b"nonsense\r\n\r\n", 400),
        (OPENAI + PAGE + b"X: y\n\r\n", 400),
        (OPENAI + PAGE + b"X: y", 408),
        (OPENAI + b"X: y\r\n" + PAGE, 408),
        (OPENAI + PAGE + b"Content-Length: 5\r\n\r\n", 408),
    ],
)
@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_page_reads_its_refusal(sent: bytes, status: int, *, in_pieces: bool) -> None:
    """A chat page could only say "network error" where the gateway has said that the question is too long."""
    timed = Timed()
    # Whatever the network makes of it: a long line in pieces, and what follows in some of its own.
    size = max(1, len(sent) // 50)
    timed.say(*([sent[place : place + size] for place in range(0, len(sent), size)] if in_pieces else [sent]))
    if status == 408:
        timed.clock.advance(30.0)
    (reply,) = replies(timed.transport.value())
    assert reply.status == status
    if not (in_pieces and status == 400):
        # One that is not HTTP is refused at once, and no browser sends one.
        assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert reply.headers["x-request-id"] == "r-1"


@pytest_twisted.ensureDeferred
async def test_a_page_reads_which_host_is_wrong(gateway: RunningGateway) -> None:
    """A chat page could not say what is wrong with the address that its user gave it."""
    (reply,) = await say(gateway, OPENAI.replace(b"localhost", b"evil.example") + PAGE + b"\r\n")
    assert reply.status == 403
    assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"


@pytest.mark.parametrize("sent", [b"GET /?" + b"x" * 20_000, OPENAI + LONG[:-2], OPENAI + MANY, b"GET / HTTP/3.0\r\n"])
def test_a_head_without_an_end(log: LogLines, sent: bytes) -> None:
    """A head that is refused is not awaited for long, however slowly or endlessly it goes on."""
    timed = Timed()
    timed.say(sent)
    assert timed.heard() == []
    timed.clock.advance(0.5)
    timed.say(b"x")
    timed.clock.advance(0.5)
    assert len(timed.heard()) == 1
    assert len(log.texts) == 1
    timed.channel.connectionLost()
    assert timed.clock.getDelayedCalls() == []
    endless = Timed()
    endless.say(sent, *([b"x" * 30_000] * 9))
    assert len(endless.heard()) == 1


def test_the_next_request_is_another_pages() -> None:
    """The refusal of a request is not for the page that sent the one before it on the same connection."""
    timed = Timed()
    timed.say(OPENAI + b"Content-Length: 0\r\n" + PAGE + b"\r\n")
    timed.say(b"GET /?" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    first, second = replies(timed.transport.value())
    assert (first.status, second.status) == (200, 414)
    assert first.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "access-control-allow-origin" not in second.headers
    assert second.headers["x-request-id"] != "r-1"


def test_protocols_of_tls() -> None:
    """Over TLS a browser would speak HTTP/2 to a gateway that does not, once a package for it is installed."""
    assert cast("Any", Timed().channel.factory).acceptableProtocols() == [b"http/1.1"]


# Reason phrases.


@pytest.mark.parametrize(
    ("sent", "first_line"),
    [
        (b"GET /health/live HTTP/1.1\r\n" + CLOSE, b"200 OK"),
        (b"OPTIONS * HTTP/1.1\r\n" + CLOSE, b"204 No Content"),
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403 Forbidden"),
        (b"GET /nothing HTTP/1.1\r\n" + CLOSE, b"404 Not Found"),
        (b"GET /api/chat HTTP/1.1\r\n" + CLOSE, b"405 Method Not Allowed"),
        (OPENAI + b"Content-Length: 99999999\r\n\r\n", b"413 Content Too Large"),
        (b"GET /?" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", b"414 URI Too Long"),
        (OLLAMA + b"Connection: close\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
         b"415 Unsupported Media Type"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", b"431 Request Header Fields Too Large"),
        (b"get / HTTP/1.1\r\n\r\n", b"501 Not Implemented"),
        (b"GET / HTTP/1.2\r\n\r\n", b"505 HTTP Version Not Supported"),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_reason_phrase(gateway: RunningGateway, sent: bytes, first_line: bytes) -> None:
    """Whoever reads the status line with their own eyes reads the phrase that is registered for it."""
    client = await connect(gateway.url, sent)
    await client.ended
    assert bytes(client.data).startswith(b"HTTP/1.1 %b\r\n" % first_line)


@pytest.mark.parametrize(
    "kind", [kind for kind in vars(errors).values() if isinstance(kind, errors.Kind)], ids=lambda kind: str(kind.code)
)
@pytest.mark.parametrize("dialect", [openai, anthropic, ollama], ids=["openai", "anthropic", "ollama"])
def test_every_status_has_a_phrase(kind: errors.Kind, dialect: ErrorFormat) -> None:
    """No failure is an "Unknown Status"."""
    request = GatewayRequest(Timed().channel)
    request.setResponseCode(dialect.error_status(kind))
    assert request.code_message not in {b"", b"Unknown Status"}
    assert request.code_message.istitle() or b"HTTP" in request.code_message or b"URI" in request.code_message
