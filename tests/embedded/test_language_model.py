"""The client of a language model: what it sends, what it reads, and each fault of the API."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brunix_twisted.embedded import language_model
from brunix_twisted.embedded.language_model import LanguageModel, ModelError, base_url
from certificates import Authority
from language_models import STREAM, Call, ScriptedModel, Serve, completion, event
from threads import Threads

Start = Callable[..., tuple[LanguageModel, ScriptedModel]]
QUESTION = [{"role": "user", "content": "¿Qué?"}]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts an API which follows scripts, and returns its client."""
    with ExitStack() as stack:

        def started(*scripts: bytes | Serve, **options: float) -> tuple[LanguageModel, ScriptedModel]:
            server = stack.enter_context(ScriptedModel(*scripts).running())
            return LanguageModel(server.url, "llama", "secret", **options), server

        yield started


def texts(model: LanguageModel) -> list[str]:
    return list(model.start(QUESTION))


def failure(model: LanguageModel) -> tuple[list[str], str, str]:
    """Return the texts until the failure, its reason and the detail for the log."""
    received: list[str] = []
    with pytest.raises(ModelError) as raised:
        received.extend(iter_into(received, model))
    return received, str(raised.value), raised.value.detail


def iter_into(received: list[str], model: LanguageModel) -> list[str]:
    for text in model.start(QUESTION):
        received.append(text)  # noqa: PERF402 - kept when the iteration fails
    return []


def test_request(start: Start) -> None:
    """The request is the one that every compatible API understands, with the key."""
    model, server = start(completion("one ", "two"))
    assert texts(model) == ["one ", "two"]
    call = server.call()
    assert call.head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert "Authorization: Bearer secret" in call.head
    assert call.body == {"model": "llama", "messages": QUESTION, "stream": True, "temperature": 0}


def test_without_a_key(start: Start) -> None:
    """Without a key, no header claims one."""
    model, server = start(completion("x"))
    assert list(LanguageModel(model.url, "llama").start(QUESTION)) == ["x"]
    assert "Authorization" not in server.call().head


DONE = b"data: [DONE]\n\n"
ROLE = b'data: {"choices": [{"delta": {"role": "assistant", "content": null}}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {}}\n\n'
CHUNKED = STREAM.replace(b"Connection: close", b"Transfer-Encoding: chunked")
JSON = STREAM.replace(b"text/event-stream", b"application/json")
WHOLE = b'{"choices": [{"message": {"content": "one"}, "finish_reason": "stop"}]}'


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


@pytest.mark.parametrize(
    "answer",
    [
        STREAM + event("one") + DONE,
        STREAM + event("one", finish_reason="stop"),
        STREAM + b": comment\n\nevent: x\n" + event("one") + USAGE + DONE,
        STREAM + event("one").replace(b"\n", b"\r\n") + b"data:[DONE]\r\n\r\n",
        STREAM + ROLE + event("one") + b"data: [DONE]",
        STREAM + event("<think>so") + event(" so</thi") + event("nk>\n\none") + DONE,
        STREAM + event("on") + event("e", finish_reason="length"),
        CHUNKED + chunks(event("one")[:9], event("one")[9:], DONE),
        JSON + WHOLE,
    ],
    ids=["done", "reason", "comment", "crlf", "role", "thoughts", "length", "chunked", "whole"],
)
def test_forms_of_an_answer(start: Start, answer: bytes) -> None:
    """The forms in which servers stream an answer are all read."""
    assert "".join(texts(start(answer)[0])) == "one"


def test_temperature(start: Start) -> None:
    """A model that accepts no temperature is asked without one."""
    refusal = (
        b'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n{"error": {"message": "temperature is not supported"}}'
    )
    model, server = start(refusal, completion("one"))
    assert texts(model) == ["one"]
    server.call()
    assert "temperature" not in server.call().body


def hang(call: Call) -> None:
    call.wait_until_closed()


def head_then_hang(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nContent-")
    call.wait_until_closed()


def token_then_hang(call: Call) -> None:
    call.send(STREAM + event("one"))
    call.wait_until_closed()


def drip(call: Call) -> None:
    # More often than the timeout of one read.
    stop = threading.Event()
    call.send(STREAM)
    while not stop.wait(0.05):
        call.send(b": still here\n\n")


def drip_head(call: Call) -> None:
    stop = threading.Event()
    call.send(b"HTTP/1.1 200 OK\r\nX-Header: ")
    while not stop.wait(0.05):
        call.send(b"x")


def reset(call: Call) -> None:
    call.send(STREAM + event("one"))
    call.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize(
    ("script", "received", "reason"),
    [
        (b"", [], "is unreachable"),
        (b"nonsense\r\n\r\n", [], "is unreachable"),
        (hang, [], "did not respond in time"),
        (head_then_hang, [], "did not respond in time"),
        (drip, [], "did not respond in time"),
        (drip_head, [], "did not respond in time"),
        (token_then_hang, ["one"], "did not respond in time"),
        (reset, ["one"], "ended its answer early"),
        (STREAM + event("one"), ["one"], "ended its answer early"),
        (STREAM, [], "ended its answer early"),
        (STREAM + b"data: [DONE]\n\n", [], "sent an empty answer"),
        (STREAM + event(" ")[:0] + event("", finish_reason="stop"), [], "sent an empty answer"),
        (STREAM + event("one") + b"data: {nonsense\n\n", ["one"], "sent an invalid answer"),
        (STREAM + b"data: [1]\n\n", [], "sent an invalid answer"),
        (STREAM + b'data: {"choices": [3]}\n\n', [], "sent an invalid answer"),
        (STREAM + b'data: {"choices": 3}\n\n', [], "sent an invalid answer"),
        (STREAM + b'data: {"choices": [{"delta": {"content": 3}}]}\n\n', [], "sent an invalid answer"),
        (STREAM + b"data: " + b"[" * 100_000 + b"\n\n", [], "sent an invalid answer"),
        (STREAM + b"data: " + b"x" * 2_000_000, [], "sent an invalid answer"),
        (STREAM + b'data: {"error": {"message": "out of memory"}}\n\n', [], "returned an error"),
        (STREAM + event("one", finish_reason="content_filter"), [], "refused to answer"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n" + b'{"error": {"message": "model not found"}}', [], "returned an error"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nexplosion", [], "returned an error"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", [], "returned an error"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\nnot json", [], "sent an invalid answer"),
    ],
)
def test_faults(start: Start, script: bytes | Serve, received: list[str], reason: str) -> None:
    """Each fault ends the answer with its reason, and with the text that came before it."""
    # Only what hangs waits for the timeout, and the first text must arrive before it, also on a busy machine.
    limit_s = 3.0 if script is token_then_hang else 0.5 if callable(script) and script is not reset else 60.0
    model, _ = start(script, timeout_s=limit_s)
    assert failure(model)[:2] == (received, reason)


def test_refused() -> None:
    """If nothing listens, the model is unreachable."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    received, reason, detail = failure(LanguageModel(f"http://127.0.0.1:{port}/v1", "llama"))
    assert (received, reason) == ([], "is unreachable")
    assert "refused" in detail


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTPS, the certificate is verified; a call that hangs can be cancelled there as well."""
    authority = Authority(tmp_path, "authority")
    party = authority.sign("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(party.certificate, party.key)
    closed = threading.Event()

    def serve(call: Call) -> None:
        with suppress(OSError):
            token_then_hang(call)
        closed.set()

    with ScriptedModel(completion("one"), serve, tls=context).running() as server:
        model = LanguageModel(server.url, "llama")
        _, reason, detail = failure(model)
        assert reason == "is unreachable"
        assert "CERTIFICATE_VERIFY_FAILED" in detail
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.party.certificate))
        assert texts(model) == ["one"]
        answer = model.start(QUESTION)
        received = iter(answer)
        assert next(received) == "one"
        answer.cancel()
        with pytest.raises(ModelError):
            next(received)
        assert closed.wait(60)


def test_details_for_the_log(start: Start) -> None:
    """The message of the API is for the log, on one line, and shortened."""
    body = json.dumps({"error": {"message": "no such\nmodel " + "x" * 1000}}).encode()
    model, _ = start(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n" + body)
    _, reason, detail = failure(model)
    assert "no such" not in reason
    assert detail.startswith("HTTP 404: no such model x")
    assert len(detail) < 250


def test_endless(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless answer ends at the maximum length, and the API notices that it is not read any more."""
    monkeypatch.setattr(language_model, "MAX_ANSWER_CHARACTERS", 1000)
    closed = threading.Event()

    def endless(call: Call) -> None:
        call.send(STREAM)
        try:
            while True:
                call.send(event("word " * 7))
        except OSError:
            closed.set()

    model, _ = start(endless)
    answer = model.start(QUESTION)
    assert len("".join(answer)) == 1000
    assert answer.is_shortened
    assert closed.wait(60)


def test_total_time(start: Start) -> None:
    """An answer that never ends, one word after the other, ends after the maximum time."""

    def slow(call: Call) -> None:
        call.send(STREAM)
        stop = threading.Event()
        while not stop.wait(0.05):
            call.send(event("word "))

    model, _ = start(slow, max_total_s=1.0)
    received, reason, _ = failure(model)
    assert received
    assert reason == "took too long"


def test_a_model_that_timed_out_is_not_asked_again_at_once(start: Start) -> None:
    """After one question has waited for the whole timeout, the next ones do not wait."""
    model, server = start(hang, timeout_s=0.5)
    assert failure(model)[1] == "did not respond in time"
    server.call()
    with pytest.raises(ModelError, match="did not respond in time"):
        model.start(QUESTION)
    assert server.calls.empty()


@pytest.mark.parametrize("script", [hang, token_then_hang, drip], ids=["head", "text", "comments"])
def test_cancel(start: Start, script: Serve) -> None:
    """A cancelled call closes the connection at once, so that the API stops generating."""
    closed = threading.Event()

    def serve(call: Call) -> None:
        try:
            script(call)
        finally:
            closed.set()

    model, server = start(serve, timeout_s=60.0)
    answer = model.start(QUESTION)
    with Threads() as threads:

        def read() -> None:
            with pytest.raises(ModelError):
                list(answer)

        threads.start(read)
        server.call()
        answer.cancel()
        assert closed.wait(60)


def test_cancel_before_the_start(start: Start) -> None:
    """A call that was cancelled before it began sends nothing."""
    model, server = start(completion("one"))
    answer = model.start(QUESTION)
    answer.cancel()
    with pytest.raises(ModelError):
        list(answer)
    assert server.calls.empty()


@given(st.lists(st.sampled_from(["<think>", "<thi", "nk>", "</think>", "</th", "ink>", " ", "\n", "a", "<", "b c"])))
def test_thoughts(parts: list[str]) -> None:
    """Thoughts are left out wherever the pieces of the stream divide them, and everything else is kept."""
    text = "".join(parts).lstrip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].lstrip()
    shown = "".join(language_model._without_thoughts(iter(parts)))  # noqa: SLF001 - with every division
    assert shown.rstrip() == text.rstrip()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("http://localhost:11434/", "http://localhost:11434/v1"),
        ("https://api.example/v1/", "https://api.example/v1"),
        ("https://api.example/openai/v1/chat/completions", "https://api.example/openai/v1"),
        (" http://[::1]:8080/v1 ", "http://[::1]:8080/v1"),
    ],
)
def test_base_url(text: str, url: str) -> None:
    """A base URL is accepted as people write it."""
    assert base_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["localhost:11434", "ftp://x/v1", "http://", "http://u:p@x/v1", "http://x:y/v1", "http://x/v1?a=b", "http://x/a b"],
)
def test_invalid_base_url(text: str) -> None:
    """Anything else is rejected when the engine starts."""
    with pytest.raises(ValueError, match=r".*"):
        base_url(text)
