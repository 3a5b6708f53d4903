"""``brunix ask`` with a real gateway and the scripted engine."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from brunix_twisted.cli.ask import NoQuestionError, question
from certificates import Authority
from cli_commands import COMMAND, brunix
from cli_gateways import Gateway, free_port, tls_gateway, twistd, wait_for_port
from fake_reactor import LIMIT_S
from fake_servers import answering, faulty_proxy, http
from isolation import CLEAN
from scripted_engine import ScriptedEngine, script
from threads import Threads

GONE = 141
INTERRUPTED = 130


@contextmanager
def asking(*arguments: str, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command in the background; it ends with the block."""
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [*COMMAND, "ask", "--url", url, *arguments],
        env=CLEAN,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("how", [[], ["--no-stream"]], ids=["streamed", "whole"])
def test_an_answer(served: Gateway, how: list[str]) -> None:
    """The answer is printed, and nothing else."""
    done = brunix("ask", "one two three", "--url", served.url, *how)
    assert (done.returncode, done.stdout, done.stderr) == (0, "one two three \n", "")


def test_an_answer_over_tls(shared_engine: ScriptedEngine, tmp_path: Path) -> None:
    """The answer streams over TLS, with a certificate from a CA that --ca names; without it, it is not trusted."""
    authority = Authority(tmp_path, "ours")
    with tls_gateway(tmp_path, shared_engine, authority.sign("127.0.0.1")) as process:
        url = f"https://127.0.0.1:{wait_for_port(process)}"
        done = brunix("ask", "one two three", "--url", url, "--ca", os.fspath(authority.party.certificate))
        assert (done.returncode, done.stdout, done.stderr) == (0, "one two three \n", "")
        assert "not signed by a trusted authority" in brunix("ask", "q", "--url", url).stderr


def test_the_answer_streams(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """Each word is printed as soon as the engine sends it."""
    with asking(script("one ", {"wait": "shown"}, "two"), url=served.url) as running:
        assert running.stdout
        assert running.stdout.read(4) == b"one "
        shared_engine.go("shown")
        assert running.communicate(timeout=LIMIT_S) == (b"two\n", b"")
    assert running.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "asked"),
    [
        (["what is this?"], b"some text\n", "what is this?\n\nsome text"),
        (["-"], "größer\n".encode(), "größer"),
        ([], b"only this", "only this"),
        (["what is this?"], b"", "what is this?"),
    ],
    ids=["both", "dash", "none", "empty"],
)
def test_standard_input(
    served: Gateway, shared_engine: ScriptedEngine, arguments: list[str], stdin: bytes, asked: str
) -> None:
    """Piped text is appended to the question, or is the question."""
    done = brunix("ask", *arguments, "--url", served.url, stdin=stdin)
    assert done.returncode == 0
    assert shared_engine.calls[-1].request.query == asked


@pytest.mark.parametrize(
    ("words", "terminal", "read"),
    [(None, True, b""), ("", True, b""), ("-", False, b" \n"), ("q", False, b"\xff\xfe\x00")],
)
def test_no_question(words: str | None, terminal: bool, read: bytes) -> None:  # noqa: FBT001 - as pytest gives it
    """Empty and undecodable questions are never sent."""
    with pytest.raises(NoQuestionError):
        question(words, terminal, read)


def test_status_without_a_question(served: Gateway) -> None:
    """An empty question is an error with exit status 2."""
    done = brunix("ask", "--url", served.url)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "brunix ask: the question is empty\n")


def test_session_model_and_headers(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """The given session, model and headers are sent."""
    done = brunix(
        "ask", "q", "--url", f"{served.url}/v1/", "--session", "ticket-1", "--header", "X-Request-Id: mine", "--json"
    )
    data = json.loads(done.stdout)
    assert data == {
        "answer": "q ",
        "model": "brunix",
        "session_id": "ticket-1",
        "request_id": "mine",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    assert shared_engine.calls[-1].request.session_id == "ticket-1"
    whole = json.loads(brunix("ask", "q", "--url", served.url, "--json", "--no-stream").stdout)
    assert (whole["answer"], whole["usage"], shared_engine.calls[-1].rpc) == ("q ", data["usage"], "AskAgent")


def test_a_key_for_a_proxy(served: Gateway) -> None:
    """BRUNIX_API_KEY is sent with every request; a --header replaces it."""
    seen: list[bytes] = []

    def note(data: bytes) -> bytes:
        seen.append(data)
        return data

    with faulty_proxy(served.port, request=note) as proxy:
        done = brunix("ask", "q", "--url", proxy.url, environment={"BRUNIX_API_KEY": "key"})
        assert done.returncode == 0
        assert all(b"Authorization: Bearer key\r\n" in data for data in seen if b"HTTP/1.1\r\n" in data)
        seen.clear()
        brunix(
            "ask", "q", "--url", proxy.url, "--header", "authorization: other", environment={"BRUNIX_API_KEY": "key"}
        )
        assert all(
            b"authorization: other\r\n" in data and b"Bearer" not in data for data in seen if b"HTTP/1.1\r\n" in data
        )
        assert len(seen) >= 2


def test_control_c_frees_the_engine(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """Control-C cancels the engine call, without a traceback."""
    with asking(script("one ", {"hang": True}), url=served.url) as running:
        assert running.stdout
        assert running.stdout.read(4) == b"one "
        call = shared_engine.calls[-1]
        running.send_signal(signal.SIGINT)
        assert call.ended.wait(LIMIT_S)
        _, stderr = running.communicate(timeout=LIMIT_S)
    assert (running.returncode, stderr) == (INTERRUPTED, b"")


def test_control_c_before_the_first_word(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """Control-C also works while the command waits for the first word."""
    known = len(shared_engine.calls)
    with asking(script({"hang": True}), "--no-stream", url=served.url) as running:
        call = shared_engine.call(known)
        running.send_signal(signal.SIGINT)
        assert call.ended.wait(LIMIT_S)
        assert running.communicate(timeout=LIMIT_S) == (b"", b"")
    assert running.returncode == INTERRUPTED


def test_the_reader_closes_the_pipe(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """``brunix ask … | head -1`` cancels the engine call, without a traceback."""
    with asking(
        script("one\n", {"wait": "closed"}, {"repeat": ["x\n", 1000]}, {"hang": True}), url=served.url
    ) as running:
        assert running.stdout
        assert running.stderr
        assert running.stdout.readline() == b"one\n"
        call = shared_engine.calls[-1]
        running.stdout.close()
        shared_engine.go("closed")
        assert call.ended.wait(LIMIT_S)
        assert running.stderr.read() == b""
        assert running.wait(LIMIT_S) == GONE


@pytest.mark.parametrize(
    ("arguments", "message", "remedy"),
    [
        (["--model", "gpt-7"], "The model 'gpt-7' does not exist", "PROXY_MODEL_ALIASES"),
        (["--session", "a b"], "session", ""),
    ],
)
def test_the_gateway_rejects(served: Gateway, arguments: list[str], message: str, remedy: str) -> None:
    """The gateway's error is shown with a remedy and the request id."""
    done = brunix("ask", "q", "--url", served.url, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert remedy in done.stderr
    assert "Request id in the gateway's log: " in done.stderr


def test_an_engine_that_fails(served: Gateway) -> None:
    """An engine error in the middle of an answer is reported, and the exit status is 1."""
    steps = script("one ", {"status": "INTERNAL"})
    done = brunix("ask", steps, "--url", served.url)
    assert (done.returncode, done.stdout) == (1, "one \n")
    assert done.stderr.startswith("brunix ask: ")
    data = json.loads(brunix("ask", steps, "--url", served.url, "--json").stdout)
    assert data["error"]["kind"] == "engine_error"


def test_an_answer_without_an_end() -> None:
    """A stream that a proxy ends cleanly in the middle is reported as incomplete."""
    half = b'data: {"choices":[{"delta":{"content":"one "},"finish_reason":null}]}\n\n'
    with answering(http("200 OK", half, "Content-Type: text/event-stream")) as port:
        done = brunix("ask", "q", "--model", "m", "--url", f"http://127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (1, "one \n")
    assert "the answer ended before it was complete" in done.stderr


def test_a_connection_that_breaks(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """A connection that breaks in the middle of an answer is reported, and the exit status is 1."""
    with faulty_proxy(served.port) as proxy, asking(script("one ", {"hang": True}), url=proxy.url) as running:
        assert running.stdout
        assert running.stdout.read(4) == b"one "
        call = shared_engine.calls[-1]
        proxy.close()
        rest, stderr = running.communicate(timeout=LIMIT_S)
        assert (running.returncode, rest) == (1, b"\n")
        assert b"the connection ended before the response was complete" in stderr
        assert call.ended.wait(LIMIT_S)


def test_a_silent_gateway(served: Gateway) -> None:
    """--timeout ends the wait for a gateway that sends nothing."""
    done = brunix("ask", script({"hang": True}), "--no-stream", "--url", served.url, "--timeout", "0.3")
    assert done.returncode == 1
    assert "took longer than 0.3 s" in done.stderr


def test_the_engine_is_unreachable(tmp_path: Path) -> None:
    """If the engine is unreachable, the message names it and its setting."""
    target = f"127.0.0.1:{free_port()}"
    with twistd(tmp_path, PROXY_LISTEN="tcp:0:interface=127.0.0.1", BRUNIX_GRPC_TARGET=target) as process:
        done = brunix("ask", "q", "--url", f"http://127.0.0.1:{wait_for_port(process)}")
    assert done.returncode == 1
    assert "BRUNIX_GRPC_TARGET" in done.stderr


def test_connection_refused() -> None:
    """If nothing listens at the address, the message says so and how to start the gateway."""
    done = brunix("ask", "q", "--url", f"http://127.0.0.1:{free_port()}", "--json")
    assert done.returncode == 1
    assert "nothing listens at" in done.stderr
    assert "twistd --nodaemon" in done.stderr
    assert json.loads(done.stdout)["error"]["kind"] == "refused"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (http("200 OK", b"hello", "Content-Type: text/html"), "not one of OpenAI's API"),
        (http("302 Found", b"", "Location: https://login.example/"), "redirects to https://login.example/"),
        (http("401 Unauthorized", b'{"error": "An API key is wanted"}'), "An API key is wanted"),
        (
            http("502 Bad Gateway", b"<html><title>502 Bad Gateway</title></html>"),
            "a proxy responds in place of the gateway",
        ),
        (http("404 Not Found", b"<html><title>404 Not Found</title></html>"), "404 Not Found"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "is not valid HTTP"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "HTTP/2"),
        (b"\x15\x03\x01\x00\x02\x02\x0a", "speaks TLS"),
        (b"", "closes them without a response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "the connection ended before the response was complete"),
    ],
)
def test_another_server(answer: bytes, message: str) -> None:
    """Another server at the address is recognised."""
    with answering(answer) as port:
        done = brunix("ask", "q", "--no-stream", "--url", f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_drips() -> None:
    """A server that sends a byte now and then does not block the command."""
    stop = threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        # The command disconnects when its deadline has passed.
        with connection, suppress(ConnectionError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not stop.wait(0.05):
                connection.sendall(b"X-Drip: 1\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server, Threads() as threads:
        threads.start(drip)
        try:
            # The lookup of the model comes first and has a deadline.
            done = brunix("ask", "q", "--url", f"http://127.0.0.1:{server.getsockname()[1]}")
            assert done.returncode == 1
        finally:
            stop.set()
            server.shutdown(socket.SHUT_RDWR)


def test_control_characters(served: Gateway) -> None:
    """A terminal gets no control characters; a file gets the answer unchanged."""
    leader, follower = pty.openpty()
    evil = script("a\x1b]0;owned\x07\x1b[2Jb\tc\r\nd")
    done = subprocess.run(  # noqa: S603 - this interpreter
        [*COMMAND, "ask", evil, "--url", served.url],
        env=CLEAN,
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=subprocess.PIPE,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0
    assert os.read(leader, 1000) == b"a]0;owned[2Jb\tc\r\nd\r\n"
    for end in (leader, follower):
        os.close(end)
    # A file gets what the engine stderr.
    assert brunix("ask", evil, "--url", served.url).stdout == "a\x1b]0;owned\x07\x1b[2Jb\tc\r\nd\n"


def test_no_proxy_from_the_environment(served: Gateway) -> None:
    """The command connects directly, whatever proxies the environment names."""
    done = brunix(
        "ask",
        "q",
        "--url",
        served.url,
        environment={"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"},
    )
    assert done.returncode == 0
    connection = HTTPConnection("127.0.0.1", served.port, timeout=LIMIT_S)
    connection.request("GET", "/health/live")
    assert connection.getresponse().status == 200
    connection.close()
