"""The command line's HTTP client against real sockets: every form a response can have, and every way it can fail."""

from __future__ import annotations

import gzip
import json
import socket
import threading

import attrs
import pytest

from brunix_twisted.cli.address import parse
from brunix_twisted.cli.http_client import Connection, ProtocolError, Target, TruncatedError, get
from brunix_twisted.cli.sockets import DeadlineExceededError
from cli_commands import brunix
from fake_reactor import LIMIT_S
from fake_servers import answering, http, request_from, serving

LARGE = 6_000_000


def target_at(port: int) -> Target:
    return Target(parse(f"http://127.0.0.1:{port}")[0])


def body_of(answer: bytes, timeout_s: float = LIMIT_S) -> bytes:
    """Send a request to a server that answers with these bytes, and return the body it reads."""
    with answering(answer) as port, Connection(target_at(port)) as connection:
        return connection.request("GET", "/", timeout_s=timeout_s).read().body


def chunked(*parts: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "no-stream"])
def test_an_answer_of_any_size(*, stream: bool) -> None:
    """An answer is printed whole, however large it is and whether or not it is streamed."""
    text = "word " * (LARGE // 5)
    if stream:
        events = [{"choices": [{"delta": {"content": text}}]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]
        body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    else:
        body = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()
    with answering(http("200 OK", body)) as port:
        arguments = ["ask", "q", "--model", "m", "--url", f"http://127.0.0.1:{port}"]
        done = brunix(*arguments, *([] if stream else ["--no-stream"]))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{text}\n"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (http("200 OK", b"body"), b"body"),
        (http("200 OK", b"x" * LARGE), b"x" * LARGE),
        (http("200 OK", b""), b""),
        (chunked(b"bo", b"dy", b""), b"body"),
        (chunked(b"bo", b"dy") + b"0\r\nX-Trailer: 1\r\n\r\n", b"body"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + http("200 OK", b"body"), b"body"),
        (http("200 OK", gzip.compress(b"body"), "Content-Encoding: gzip"), b"body"),
        (http("200 OK", b"body", "Set-Cookie: a=é"), b"body"),
        (http("200 OK", b"body") + b"HTTP/1.1 500 Unasked\r\n\r\n", b"body"),
        (b"HTTP/1.1 200 \r\nContent-Length: 4\r\n\r\nbody", b"body"),
    ],
    ids=[
        "length", "large", "empty", "chunked", "trailers", "until-end", "http-1.0", "no-content", "informational",
        "gzip", "latin-1", "trailing-data", "no-reason",
    ],
)  # fmt: skip
def test_every_form_of_a_body(answer: bytes, body: bytes) -> None:
    """A body is read as HTTP/1.1 frames it."""
    assert body_of(answer) == body


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody", TruncatedError),
        (chunked(b"body"), TruncatedError),
        (chunked(b"body") + b"5\r\nbo", TruncatedError),
        (b"HTTP/1.1 200 OK\r\nContent-Le", TruncatedError),
        (b"HTTP/1.1 100 Continue\r\n\r\n", TruncatedError),
        (b"HTT", TruncatedError),
        (b"", ConnectionResetError),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ProtocolError),
        (b"HTTP/1.1 OK\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ProtocolError),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", ProtocolError),
    ],
)
def test_what_is_not_a_whole_response(answer: bytes, error: type[Exception]) -> None:
    """A truncated or invalid response is never taken for a complete one."""
    with pytest.raises(error) as raised:
        body_of(answer)
    assert raised.type is error


def test_a_program_that_is_not_http_and_keeps_the_connection() -> None:
    """Another program is recognised by its first bytes, although it neither ends a line nor closes the connection."""
    done = threading.Event()

    def banner(connection: socket.socket) -> None:
        connection.sendall(b"220 ")
        done.wait(LIMIT_S)

    with serving(banner) as port:
        try:
            with pytest.raises(ProtocolError) as raised:
                get(target_at(port), "/", timeout_s=LIMIT_S)
        finally:
            done.set()
    assert raised.value.received == b"220 "


def test_a_reset_in_the_middle() -> None:
    """A connection that is reset within the response is a truncated response, not a server that refuses."""

    def reset(connection: socket.socket) -> None:
        request_from(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbody")
        received.wait(LIMIT_S)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    received = threading.Event()
    with serving(reset) as port, Connection(target_at(port)) as connection:
        chunks = connection.request("GET", "/", timeout_s=LIMIT_S).chunks()
        assert next(chunks).data == b"body"
        received.set()
        with pytest.raises(TruncatedError):
            next(chunks)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["headers", "body"])
def test_a_server_that_drips(head: bytes) -> None:
    """The deadline of the whole exchange ends a response that never ends, although no single read times out."""
    done = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        while not done.wait(0.01):
            connection.sendall(b"X-Drip: 1\r\n")

    with serving(drip) as port, Connection(target_at(port)) as connection:
        try:
            with pytest.raises(DeadlineExceededError, match=r"longer than 0\.3 s"):
                connection.request("GET", "/", timeout_s=0.3, idle_timeout_s=LIMIT_S).read()
        finally:
            done.set()


def test_a_closed_connection_stays_closed() -> None:
    """Reading on after a cancellation fails; it does not open another connection."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbody"
    with answering(answer) as port, Connection(target_at(port)) as connection:
        chunks = connection.request("GET", "/", timeout_s=LIMIT_S).chunks()
        assert next(chunks).data == b"body"
        connection.close()
        with pytest.raises(ConnectionAbortedError):
            next(chunks)


def test_a_silent_server() -> None:
    """The timeout of a single read ends the wait for a server that stopped sending."""
    done = threading.Event()

    def silent(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nbody")
        done.wait(LIMIT_S)

    with serving(silent) as port, Connection(target_at(port)) as connection:
        chunks = connection.request("GET", "/", timeout_s=LIMIT_S, idle_timeout_s=0.2).chunks()
        assert next(chunks).data == b"body"
        with pytest.raises(DeadlineExceededError, match=r"longer than 0\.2 s"):
            next(chunks)
        done.set()


def test_a_refusal_before_the_request_has_been_sent() -> None:
    """The response of a server that refuses a large request without reading it is reported."""

    def refuse(connection: socket.socket) -> None:
        connection.sendall(http("413 Content Too Large", b"too large"))

    with serving(refuse) as port, Connection(target_at(port)) as connection:
        response = connection.request("POST", "/", b"x" * 20_000_000, timeout_s=LIMIT_S).read()
    assert (response.status, response.body) == (413, b"too large")


def test_a_server_that_reads_nothing() -> None:
    """The idle timeout also ends a request that the server does not read, not only a response that does not come."""
    done = threading.Event()
    with serving(lambda _: done.wait(LIMIT_S)) as port, Connection(target_at(port)) as connection:
        try:
            with pytest.raises(DeadlineExceededError, match=r"sending the request took longer than 0\.2 s"):
                connection.request("POST", "/", b"x" * 50_000_000, timeout_s=float("inf"), idle_timeout_s=0.2)
        finally:
            done.set()


@pytest.mark.parametrize(
    ("first", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1),
        (chunked(b"ok", b""), 1),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", 2),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 2),
        # Bytes that no request asked for must not become the next response.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 2),
    ],
    ids=["length", "chunked", "informational", "close", "http-1.0", "trailing-data"],
)
def test_a_connection_is_reused(first: bytes, connections: int) -> None:
    """A second request uses the same connection exactly if HTTP allows that."""
    accepted: list[int] = []

    def serve(connection: socket.socket) -> None:
        accepted.append(1)
        while True:
            request = request_from(connection)
            connection.sendall(first if request.startswith(b"GET /first ") else http("200 OK", b"second"))

    with serving(serve) as port, Connection(target_at(port)) as connection:
        assert connection.request("GET", "/first", timeout_s=LIMIT_S).read().body == b"ok"
        assert connection.request("GET", "/second", timeout_s=LIMIT_S).read().body == b"second"
    assert len(accepted) == connections


def test_an_unread_body_is_not_the_next_response() -> None:
    """After a body that was only read in part, the next request gets its own response over a new connection."""
    answers = [http("200 OK", b"first" * 1000), http("200 OK", b"second")]
    with answering(*answers) as port, Connection(target_at(port)) as connection:
        assert connection.request("GET", "/", timeout_s=LIMIT_S).read(5).body == b"first"
        assert connection.request("GET", "/", timeout_s=LIMIT_S).read().body == b"second"


def test_what_is_sent() -> None:
    """A request has the headers that a gateway needs; those of the caller replace the client's own."""
    received: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        received.append(request_from(connection))
        connection.sendall(http("200 OK", b""))

    with serving(serve) as port:
        address = attrs.evolve(target_at(port).address, prefix="/ai")
        target = Target(address, headers=(("host", " brunix.example "),))
        with Connection(target) as connection:
            connection.request("POST", "/v1/x", {"a": 1}, headers=[("X-Empty", "")], timeout_s=LIMIT_S)
    head, _, body = received[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /ai/v1/x HTTP/1.1"
    assert sorted(headers) == [
        "Accept-Encoding: identity", "Content-Length: 8", "Content-Type: application/json", "User-Agent: brunix",
        "X-Empty: ", "host: brunix.example",
    ]  # fmt: skip
    assert body in {b"", b'{"a": 1}'}


@pytest.mark.parametrize("path", ["/a b", "/a\nb", "/ü"])
def test_a_path_that_cannot_be_sent(path: str) -> None:
    """A path that would break the request is refused before anything is sent."""
    with answering(http("200 OK", b"")) as port, pytest.raises(ValueError, match=r"cannot be sent|ascii"):
        get(target_at(port), path, timeout_s=LIMIT_S)
