"""
The cases of uNetworking/h1spec (https://github.com/uNetworking/h1spec), 33 of them, over raw sockets.

They are restated with a Host that the gateway has and paths that are there.
"""

from __future__ import annotations

from typing import Final

import pytest
import pytest_twisted

from gateways import RunningGateway
from raw_http import pass_time, replies, say
from received import connect

WHOLE: Final = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SHOW: Final = b'{"model": "brunix"}'

FRAGMENTS: Final = [
    b"G",
    b"GET ",
    b"GET /v1/models",
    b"GET /v1/models ",
    b"GET /v1/models HTTP",
    b"GET /v1/models HTTP/1.1",
    b"GET /v1/models HTTP/1.1\r",
    b"GET /v1/models HTTP/1.1\r\n",
    b"GET /v1/models HTTP/1.1\r\nHos",
    b"GET /v1/models HTTP/1.1\r\nHost:",
    b"GET /v1/models HTTP/1.1\r\nHost: ",
    b"GET /v1/models HTTP/1.1\r\nHost: localhost",
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r",
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r",
]


@pytest.mark.parametrize("fragment", FRAGMENTS)
@pytest_twisted.ensureDeferred
async def test_fragment(gateway: RunningGateway, fragment: bytes) -> None:
    """A request that the network brings in two pieces would be refused, or answered before it is there."""
    client = await connect(gateway.url, fragment)
    await pass_time(gateway)
    assert not client.data
    assert WHOLE.startswith(fragment)
    client.transport.write(WHOLE.removeprefix(fragment))  # type: ignore[union-attr]
    await client.ended
    assert [reply.status for reply in replies(client.data)] == [200]


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        pytest.param(b"GET / \r\n\r\n", {400}, id="without a version"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Invalid[]: test\r\n\r\n", {400}, id="characters of a name"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", {400}, id="no Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: a.localhost\r\n\r\n", {400}, id="two Hosts"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -123456789123456789123456789\r\n\r\n",
            {400},
            id="Content-Length far below zero",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1234\r\n\r\n", {400}, id="below zero"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n", {400}, id="no number"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Bad: test\x07\r\n\r\n", {400}, id="control character"),
        pytest.param(b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", {505}, id="version 9.9"),
        pytest.param(b"Extra lineGET / HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}, id="something before"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\rSome-Header: Test\r\n\r\n", {400}, id="line ending"),
        pytest.param(
            b"POST /api/show HTTP/1.1\r\nHost: localhost\r\ncontent-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\n"
            b"13\r\n%b\r\n0\r\n\r\n" % SHOW,
            {400},
            id="both lengths",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_refused(gateway: RunningGateway, request_bytes: bytes, statuses: set[int]) -> None:
    """Something that is no HTTP would be taken for a request, and two servers in a row could read it differently."""
    (reply,) = await say(gateway, request_bytes)
    assert reply.status in statuses
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n%b\r\n", [100, 200], id="Expect"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\r\n", [200], id="GET"),
        pytest.param(b"GET / HTTP/1.1\r\nhoSt:\tlocalhost\r\nempty:\r\n%b\r\n", [200], id="case and tab"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Empty-Header: \r\n%b\r\n", [200], id="empty value"),
        pytest.param(
            b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 19\r\n%b\r\n" + SHOW, [200], id="POST"
        ),
        pytest.param(
            b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n%b\r\n"
            b"13\r\n" + SHOW + b"\r\n0\r\n\r\n",
            [200],
            id="chunked",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_answered(gateway: RunningGateway, request_bytes: bytes, statuses: list[int]) -> None:
    """A client that keeps to the standard would be refused."""
    found = await say(gateway, request_bytes % b"Connection: close\r\n")
    assert [reply.status for reply in found] == statuses
    assert found[-1].body
