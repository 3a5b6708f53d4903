"""The two ways to parse a request's head, in one pass and line by line, agree."""

from __future__ import annotations

import re
from typing import cast

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource

from brunix_twisted.api.routes import refuse
from brunix_twisted.config import cors_origins
from brunix_twisted.config.allowed_hosts import Hosts
from brunix_twisted.http import syntax
from brunix_twisted.http.channel import Bounds, GatewayChannel
from brunix_twisted.http.site import GatewayRequest, GatewaySite

BOUNDS = Bounds(max_body_bytes=100, max_header_bytes=300, headers_timeout_s=10.0, body_timeout_s=30.0)

Outcome = tuple[list[int], list[object], bool]


class Recording(Resource):
    """Answers every request, and notes what it has received."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self) -> None:
        super().__init__()
        self.received: list[object] = []

    def render(self, request: GatewayRequest) -> int:
        headers = list(request.requestHeaders.getAllRawHeaders())
        body = request.content.read() if request.content else None
        self.received.append((request.method, request.uri, request.clientproto, request.args, headers, body))
        request.finish_with(b"ok")
        return 1


def outcome(*pieces: bytes) -> Outcome:
    """Send a connection some bytes; return the statuses of its answers, what was received, and whether it closes."""
    resource = Recording()
    site = GatewaySite(
        resource, reactor=cast("IReactorTime", Clock()), refuse=refuse, origins=cors_origins.read("*"), bounds=BOUNDS
    )
    site.hosts = Hosts(frozenset())
    channel, transport = cast("GatewayChannel", site.buildProtocol(None)), StringTransport()
    channel.makeConnection(transport)
    for piece in pieces:
        channel.dataReceived(piece)
    statuses = [int(status) for status in re.findall(rb"HTTP/1[.]1 ([0-9]{3}) ", transport.value())]
    return statuses, resource.received, transport.disconnecting


NAMES = st.sampled_from(
    [b"Host", b"host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Expect", b"X-A"]
) | st.binary(max_size=4)
VALUES = st.sampled_from(
    [
        *(b" localhost", b"localhost", b" example.org", b" 2", b" 2 ", b" 0", b" 02", b" +2", b" 2, 2", b" 101"),
        *(b" chunked", b" close", b" keep-alive", b" 100-continue", b"", b" \xe9", b" a\tb", b" a\x00b"),
        *(b" " + b"9" * 20, b"x" * 200),
    ]
) | st.binary(max_size=6)
HEADS = st.builds(
    lambda line, fields: b"\r\n".join([line, *(b"%b:%b" % field for field in fields)]) + b"\r\n\r\n",
    st.sampled_from(
        [
            *(b"POST /x HTTP/1.1", b"GET /x?a=1&b HTTP/1.1", b"HEAD /x HTTP/1.1", b"get /x HTTP/1.1"),
            *(b"CONNECT /x HTTP/1.1", b"POST  /x HTTP/1.1", b"POST /x HTTP/1.0", b"POST http://localhost/x HTTP/1.1"),
            *(b"POST /\xe9 HTTP/1.1", b"POST /" + b"x" * 300 + b" HTTP/1.1", b"OPTIONS * HTTP/1.1"),
            *(b"POST /x HTTP/1.1 ", b"\r\nPOST /x HTTP/1.1"),
        ]
    ),
    st.lists(st.tuples(NAMES, VALUES), max_size=4).map(lambda fields: [(b"Host", b" localhost"), *fields])
    | st.lists(st.tuples(NAMES, VALUES), max_size=4),
)


@settings(max_examples=500)
@given(HEADS, st.binary(max_size=5))
@example(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n", b"{}")
@example(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\n", b"{}")
@example(
    b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-encoding: chunked\r\n\r\n", b"0\r\n\r\n"
)
@example(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101\r\n\r\n", b"{}")
@example(b"POST /x HTTP/1.1\r\nHost: example.org\r\nContent-Length: 2\r\n\r\n", b"{}")
@example(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n", b"{}GET ")
def test_both_ways_agree(head: bytes, body: bytes) -> None:
    """What a request means depends on how the network splits it, and a proxy's check can be avoided."""
    expected = outcome(*(head[place : place + 1] for place in range(len(head))), body)
    assert outcome(head + body) == expected
    assert outcome(head, body) == expected
    assert outcome(head + body[:1], body[1:]) == expected


def test_an_ordinary_request_is_parsed_in_one_pass() -> None:
    """Every request is parsed line by line, which takes five times as long."""
    data = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nX-A:  b \r\n\r\n{}"
    head = syntax.ordinary_head(data, data.index(b"\r\n\r\n"))
    assert head is not None
    assert head.first == syntax.RequestLine(b"POST", b"/x", b"HTTP/1.1")
    assert head.fields == ((b"Host", b"localhost"), (b"Content-Length", b"2"), (b"X-A", b"b"))
    assert head.length == 2


def test_many_requests_at_once() -> None:
    """A client that sends hundreds of requests without waiting exhausts the stack."""
    request = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    statuses, received, _ = outcome(request * 2_000)
    assert (len(statuses), len(received)) == (2_000, 2_000)


def test_an_open_connection_has_one_timer() -> None:
    """Every request creates a timer and cancels it, and the reactor keeps the cancelled ones."""
    clock = Clock()
    site = GatewaySite(
        Recording(), reactor=cast("IReactorTime", clock), refuse=refuse, origins=cors_origins.read("*"), bounds=BOUNDS
    )
    channel = cast("GatewayChannel", site.buildProtocol(None))
    channel.makeConnection(StringTransport())
    (timer,) = clock.getDelayedCalls()
    for _ in range(3):
        clock.advance(1)
        channel.dataReceived(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert clock.getDelayedCalls() == [timer]
