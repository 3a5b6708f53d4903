"""The doctor's checks as functions of measured values, and the parsers they use."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any

import attrs
import pytest

from brunix_twisted.cli.address import parse
from brunix_twisted.cli.api_formats import API_FORMATS, ApiFormat
from brunix_twisted.cli.diagnosis import Diagnosis, diagnose_response, parse_error_body
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.doctor.http_checks import (
    Preflight,
    RoundTrip,
    check_preflight,
    check_round_trip,
    clock_skew_s,
    is_allowed,
)
from brunix_twisted.cli.doctor.identity import (
    Identity,
    check_health,
    check_identity,
    check_model,
    intermediaries,
)
from brunix_twisted.cli.doctor.idle import check_idle
from brunix_twisted.cli.doctor.network import (
    ConnectAttempt,
    TlsDetails,
    check_addresses,
    check_tls,
    look_up,
    measure_addresses,
    proxy_for,
)
from brunix_twisted.cli.doctor.sessions import CancelObservation, check_cancellation, check_sessions
from brunix_twisted.cli.doctor.streams import (
    StreamObservation,
    bursts,
    check_answer,
    check_silence,
    check_stream,
    parse_server_timing,
)
from brunix_twisted.cli.http_client import Chunk, FullResponse, Headers, Target
from brunix_twisted.cli.sockets import ResolvedAddress
from cli_gateways import Gateway

WHERE, _ = parse("http://localhost:8000")


# The network.


@pytest.mark.parametrize("first", ["::1", "127.0.0.1"])
def test_localhost_is_two_addresses(monkeypatch: pytest.MonkeyPatch, served: Gateway, first: str) -> None:
    """A localhost that is also ::1, where nothing listens, is reported."""
    families = {"::1": socket.AF_INET6, "127.0.0.1": socket.AF_INET}
    order = sorted(families, key=lambda address: address != first)

    def both(_host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        return [(families[address], socket.SOCK_STREAM, 0, "", (address, port)) for address in order]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    target = Target(attrs.evolve(WHERE, port=served.port))
    (finding,) = check_addresses(target.address, measure_addresses(target, look_up(target, 5), 5))
    assert finding.level == ("warning" if first == "::1" else "note")
    assert finding.says == "localhost also resolves to ::1, which does not respond; 127.0.0.1 does"
    assert f"http://127.0.0.1:{served.port}" in finding.todo


def attempts(*servers: str | None) -> list[ConnectAttempt]:
    """Make one attempt per server; None stands for an address that does not respond."""
    addresses = [ResolvedAddress(socket.AF_INET, (f"10.0.0.{number}", 8000)) for number in range(len(servers))]
    refused = Diagnosis("refused", "nothing listens")
    return [
        ConnectAttempt(resolved, 0.001, refused if server is None else None, server or "")
        for resolved, server in zip(addresses, servers, strict=True)
    ]


@pytest.mark.parametrize(
    ("servers", "level"),
    [
        (["a"], "ok"),
        (["a", "a"], "ok"),
        (["a", "b"], "problem"),
        ([None], "problem"),
        ([None, None], "problem"),
        ([None, "a"], "warning"),
        (["a", None], "note"),
    ],
)
def test_addresses(servers: list[str | None], level: str) -> None:
    """Different servers behind one name, and addresses that do not respond, are reported."""
    (finding,) = check_addresses(WHERE, attempts(*servers))
    assert finding.level == level


@pytest.mark.parametrize(("days", "level"), [(0.5, "warning"), (13, "warning"), (30, "ok")])
def test_certificates_expire(days: float, level: str) -> None:
    """A certificate that expires soon is reported."""
    assert check_tls(TlsDetails("TLSv1.3", "an issuer", days)).level == level


@pytest.mark.parametrize(
    ("url", "environment", "variable"),
    [
        ("http://host", {}, None),
        ("http://host", {"http_proxy": "p"}, "http_proxy"),
        ("http://host", {"HTTP_PROXY": "p"}, "HTTP_PROXY"),
        ("http://host", {"HTTPS_PROXY": "p"}, None),
        ("https://host", {"HTTPS_PROXY": "p"}, "HTTPS_PROXY"),
        ("https://host", {"ALL_PROXY": "p"}, "ALL_PROXY"),
        ("http://host", {"http_proxy": "p", "no_proxy": "host"}, None),
        ("http://host", {"http_proxy": "p", "NO_PROXY": "*"}, None),
        ("http://a.host", {"http_proxy": "p", "NO_PROXY": " x , .host "}, None),
        ("http://a.host", {"http_proxy": "p", "NO_PROXY": "*.host"}, None),
        ("http://ahost", {"http_proxy": "p", "NO_PROXY": "host"}, "http_proxy"),
        ("http://host:8000", {"http_proxy": "p", "NO_PROXY": "host:8000"}, None),
        ("http://host:8000", {"http_proxy": "p", "NO_PROXY": "host:9000"}, "http_proxy"),
        ("http://[::1]:8000", {"http_proxy": "p", "NO_PROXY": "::1"}, None),
        ("http://[::1]:8000", {"http_proxy": "p", "NO_PROXY": "[::1]"}, None),
    ],
)
def test_proxies_for(url: str, environment: dict[str, str], variable: str | None) -> None:
    """A proxy is found exactly if other clients would use it for this address."""
    found = proxy_for(parse(url)[0], environment)
    assert (found and found[0]) == variable


# The server.


def page(status: int = 200, body: bytes = b"{}", **given: Any) -> FullResponse:  # noqa: ANN401 - headers
    return FullResponse(status, Headers(tuple((name.replace("_", "-"), value) for name, value in given.items())), body)


OURS = page(body=b'{"status": "ok", "version": "0.1.0"}')


@pytest.mark.parametrize(
    ("health", "models", "word"),
    [
        (OURS, page(), "brunix_twisted 0.1.0"),
        (page(404), page(body=b'{"data": [{"owned_by": "brunix"}]}'), "(unknown release)"),
        (page(200, b""), page(body=b'{"data": [{"owned_by": "vllm"}]}'), "vLLM"),
        (page(body=b'{"status": "ok"}'), page(Server="llama.cpp"), "llama.cpp"),
        (page(404, b"no", Server="Apache"), page(404), "another server (Apache"),
        (page(200, b"[]"), page(200, b"[]"), "another server"),
    ],
)
def test_identity(health: FullResponse, models: FullResponse, word: str) -> None:
    """The gateway and other servers are distinguished."""
    assert word in check_identity(WHERE, Identity(health, models, page(404))).says


@pytest.mark.parametrize(
    ("health", "level"),
    [
        (OURS, "ok"),
        (page(503, b'{"status": "draining", "version": "0"}'), "problem"),
        (page(503, b'{"status": "unavailable", "version": "0", "reason": "why"}'), "problem"),
        (page(404, b"<html>"), "warning"),
        (page(200, b'{"status": "ok", "version": "0", "processes": {"running": 1, "configured": 2}}'), "warning"),
        (page(200, b'{"status": "ok", "version": "0", "processes": {"running": 2, "configured": 2}}'), "ok"),
        (page(200, b'{"status": "ok", "version": "0", "state": "unavailable"}'), "warning"),
        (page(200, b'{"status": "ok", "version": "0", "state": "ok"}'), "ok"),
    ],
)
def test_health(health: FullResponse, level: str) -> None:
    """A gateway that is stopping, or has lost its engine or a process, is not reported as healthy."""
    assert check_health(WHERE, Identity(health, page(), page()), lambda: None).level == level


@pytest.mark.parametrize("published", [None, "localhost:50052"])
def test_an_engine_at_its_published_port(published: str | None) -> None:
    """A user starts the engine with its compose file, and is not told that its port is another one."""
    health = page(503, b'{"status": "unavailable", "version": "0", "reason": "why"}')
    finding = check_health(WHERE, Identity(health, page(), page()), lambda: published)
    assert ("BRUNIX_GRPC_TARGET=localhost:50052" in finding.todo) is (published is not None)
    assert finding.figures.get("published") == published


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"Server": "TwistedWeb/26.10"}, []),
        ({"Server": "nginx/1.22.1"}, ["nginx/1.22.1"]),
        ({"Server": "cloudflare", "CF_Ray": "8a"}, ["Cloudflare", "cloudflare"]),
        ({"Via": "1.1 squid", "Server": "TwistedWeb/26.10"}, ["1.1 squid"]),
    ],
)
def test_visible_proxies(given: dict[str, Any], seen: list[str]) -> None:
    """A proxy that reveals itself is named."""
    assert intermediaries(Identity(page(**given), page(), page())) == seen


@pytest.mark.parametrize(
    ("names", "asked", "known", "level"),
    [
        (["brunix"], None, True, "ok"),
        ([], None, False, "problem"),
        (["brunix"], "brunix:latest", True, "ok"),
        (["brunix"], "gpt-4o", False, "problem"),
    ],
)
def test_model(names: list[str], asked: str | None, known: bool, level: str) -> None:  # noqa: FBT001 - as pytest gives it
    """A wrong model name is a problem."""
    assert check_model(names, asked, known=known).level == level


# Requests.


def test_clocks() -> None:
    """Rounding and the round trip do not count as clock skew."""
    now_s = 1_795_000_000.9
    assert clock_skew_s(formatdate(now_s, usegmt=True), now_s, 0.01) == 0
    assert clock_skew_s(formatdate(now_s - 1.5, usegmt=True), now_s, 1.5) == 0
    assert clock_skew_s(formatdate(now_s + 100, usegmt=True), now_s, 0.01) == pytest.approx(99.1)
    assert clock_skew_s(formatdate(now_s - 100, usegmt=True), now_s, 0.01) == pytest.approx(-99.9, abs=0.1)
    assert clock_skew_s("", now_s, 0) is None
    assert clock_skew_s("yesterday", now_s, 0) is None


@pytest.mark.parametrize(
    ("change", "check", "level"),
    [
        ({}, "connection", "ok"),
        ({}, "request id", "ok"),
        ({}, "clock", "ok"),
        ({"http_version": "1.0"}, "connection", "warning"),
        ({"keep_alive": False}, "connection", "note"),
        ({"received_id": "other"}, "request id", "note"),
        ({"received_id": ""}, "request id", "warning"),
        ({"skew_s": -86_400.0 * 3}, "clock", "warning"),
        ({"skew_s": None}, "clock", "note"),
    ],
)
def test_round_trip(change: dict[str, Any], check: str, level: str) -> None:
    """Lost ids, closed connections, HTTP/1.0 and wrong clocks are reported."""
    seen = attrs.evolve(RoundTrip("1.1", True, "id", "id", 0.0, 0.001), **change)  # noqa: FBT003 - a value
    assert {finding.check: finding.level for finding in check_round_trip(seen)}[check] == level


def preflight(status: int, allowed: Sequence[str], asks: str = "authorization, content-type") -> Preflight:
    return Preflight("https://chat.example", status, allowed, "GET, POST", asks)


@pytest.mark.parametrize(
    ("seen", "allowed"),
    [
        (preflight(204, ["https://chat.example"]), True),
        (preflight(204, ["*"]), True),
        (preflight(204, ["https://other.example"]), False),
        (preflight(204, []), False),
        (preflight(403, ["https://chat.example"]), False),
        (preflight(204, ["https://chat.example", "*"]), False),
        (preflight(204, ["https://chat.example"], "content-type"), False),
        # A * does not cover Authorization.
        (preflight(204, ["https://chat.example"], "*"), False),
    ],
)
def test_preflights(seen: Preflight, *, allowed: bool) -> None:
    """A page is allowed exactly if browsers would allow it."""
    assert is_allowed(seen) == allowed
    refused = preflight(403, [])
    assert check_preflight(seen, refused, requested=True).level == ("ok" if allowed else "problem")
    if allowed:
        assert check_preflight(seen, seen, requested=True).level == "note"
    elif len(seen.allowed) < 2:
        assert check_preflight(seen, refused, requested=False).level == "note"


@pytest.mark.parametrize(
    ("closed_s", "level"), [(None, "ok"), (1.0, "warning"), (20.0, "note"), (60.1, "ok"), (75.0, "ok")]
)
def test_idle(closed_s: float | None, level: str) -> None:
    """An idle connection that is closed earlier than the gateway does it is reported."""
    assert check_idle(closed_s, 80).level == level


# Answers.


def observation(**given: Any) -> StreamObservation:  # noqa: ANN401 - as in StreamObservation
    """Make an ideal answer of 50 pieces in two seconds, with some changes."""
    times = [0.1 + number * 0.04 for number in range(50)]
    right = StreamObservation(
        api="chat", status=200, head_s=0.1, end_s=2.1, text_s=times, text="x" * 200, body_bytes=12_000,
        complete=True, engine_first_text_s=0.09, session_id="s",
    )  # fmt: skip
    return attrs.evolve(right, **given)


@pytest.mark.parametrize(
    ("change", "level", "word"),
    [
        ({}, "ok", "piece by piece"),
        ({"generation_s": 2.0, "engine_first_text_s": None}, "ok", "piece by piece"),
        ({"text_s": [2.0] * 50}, "problem", "arrives within"),
        ({"text_s": [2.0] * 50, "encoding": "gzip"}, "problem", "arrives within"),
        ({"text_s": [2.0 + number / 1000 for number in range(50)]}, "problem", "arrives within"),
        ({"text_s": [0.1 + number // 17 for number in range(50)]}, "warning", "bursts of about"),
        ({"encoding": "gzip"}, "warning", "compressed"),
        ({"text_s": [0.1 + number / 1000 for number in range(50)]}, "note", "too fast"),
        ({"text_s": [0.1] * 50, "generation_s": 0.1}, "note", "too fast"),
        ({"engine_first_text_s": None}, "note", "generation time is unknown"),
    ],
)
def test_streams(change: dict[str, Any], level: str, word: str) -> None:
    """Buffering, bursts and compression are distinguished from an answer that streams."""
    finding = check_stream("it", observation(**change))
    assert finding is not None
    assert (finding.level, word in finding.says) == (level, True), finding


def test_no_stream_to_check() -> None:
    """An answer without text, or with an error, gets no finding about streaming."""
    assert check_stream("it", observation(text_s=())) is None
    assert check_stream("it", observation(diagnosis=Diagnosis("engine_error", "failed"))) is None


@pytest.mark.parametrize(
    ("change", "level", "word"),
    [
        ({}, "ok", "answers"),
        ({"complete": False, "stopped": True}, "ok", "answers"),
        ({"complete": False}, "problem", "truncated after 2.1 s, 0.0 s after the last data"),
        ({"complete": False, "end_s": 62.0}, "problem", "59.9 s after the last data"),
        ({"text_s": ()}, "warning", "the answer has no text"),
        ({"text_s": (), "stopped": True}, "warning", "no text within"),
        ({"status": 404, "diagnosis": Diagnosis("unknown_url", "nothing")}, "note", "not implemented by this release"),
        ({"status": 404, "diagnosis": Diagnosis("not_offered", "nothing")}, "note", "not implemented by this release"),
        ({"status": 404, "diagnosis": Diagnosis("model_not_found", "nothing")}, "problem", "nothing"),
        ({"status": 404, "diagnosis": Diagnosis("not_the_gateway", "nothing")}, "problem", "nothing"),
    ],
)
def test_answers(change: dict[str, Any], level: str, word: str) -> None:
    """A truncated answer is a problem; an API that this release lacks is not."""
    finding = check_answer("it", observation(**change))
    assert (finding.level, word in finding.says) == (level, True), finding


def test_silences() -> None:
    """Heartbeats are reported with the silence before them."""
    silent = observation(head_s=15.0, heartbeat_s=[15.0, 30.0], text_s=[40.0], end_s=40.1)
    assert check_silence([silent], patient=False).level == "ok"
    assert "after 15.0 to 15.0 s" in check_silence([silent], patient=False).says
    assert check_silence([observation()], patient=True).level == "note"
    assert "--patient" in check_silence([observation()], patient=False).todo
    assert check_silence([], patient=False).level == "note"


def test_bursts() -> None:
    """Data that arrives together counts as one burst."""
    assert [bursts([]), bursts([1.0]), bursts([1.0, 1.001, 1.002]), bursts([1.0, 1.1, 1.101])] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("queue;dur=0.1, first;dur=412.6", 0.4126), ("first;dur=5", 0.005), ("queue;dur=0.1", None), ("", None)],
)
def test_server_timing(text: str, expected: float | None) -> None:
    """The time of the engine's first text is parsed."""
    assert parse_server_timing(text) == expected


@pytest.mark.parametrize(
    ("first", "unnamed", "named", "levels"),
    [
        ({}, {}, {}, ["ok", "ok"]),
        ({}, {"session_id": "t"}, {"session_id": "t"}, ["problem", "warning"]),
        ({}, {"session_id": "t", "session_outcome": "new"}, None, ["warning"]),
        # The session of an identical conversation.
        ({}, {"session_id": "t", "session_outcome": "found"}, None, ["ok"]),
        ({"session_id": ""}, None, None, ["warning"]),
        ({}, None, None, []),
        ({"session_id": "", "diagnosis": Diagnosis("x", "x")}, None, None, []),
    ],
)
def test_sessions(
    first: dict[str, Any], unnamed: dict[str, Any] | None, named: dict[str, Any] | None, levels: list[str]
) -> None:
    """Follow-up questions that lose their session are reported."""
    found = check_sessions(
        observation(**first),
        None if unnamed is None else observation(**unnamed),
        None if named is None else observation(**named),
        "s",
    )
    assert [finding.level for finding in found] == levels


@pytest.mark.parametrize(
    ("seen", "level"),
    [
        (None, "note"),
        (CancelObservation(began=False), "note"),
        (CancelObservation(began=False, error="refused"), "note"),
        (CancelObservation(began=True), "warning"),
        (CancelObservation(began=True, cancelled_s=3.0), "warning"),
        (CancelObservation(began=True, cancelled_s=0.01), "ok"),
    ],
)
def test_cancelling(seen: CancelObservation | None, level: str) -> None:
    """An engine call that is not cancelled after a disconnect is reported."""
    assert check_cancellation(seen).level == level


# The APIs.


STREAMS = {
    "chat": b'data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n: keep-alive\n\n'
    b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    "completions": b'data: {"choices":[{"text":"hi","finish_reason":null}]}\r\n\r\n: x\n'
    b'data: {"choices":[{"text":"","finish_reason":"stop"}]}\n\n',
    "ollama-chat": b'{"message":{"content":"hi"},"done":false}\n{"message":{"content":""},"done":true}\n',
    "ollama-generate": b'{"response":"hi","done":false}\n{"response":"","done":true,"eval_duration":5}',
    "responses": b'event: response.created\ndata: {"type":"response.created","response":{"error":null}}\n\n: x\n\n'
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n'
    b'data: {"type":"response.completed","response":{"error":null}}\n\n',
    "messages": b'event: ping\ndata: {"type":"ping"}\n\n: x\n'
    b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"hi"}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}


@pytest.mark.parametrize("api", API_FORMATS, ids=lambda api: api.id)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_api_formats(api: ApiFormat, size: int) -> None:
    """Answers are parsed in every API, however the network splits them."""
    stream = STREAMS[api.id]
    chunks = [Chunk(stream[at : at + size], float(at)) for at in range(0, len(stream), size)]
    events = list(api.events(chunks))
    assert "".join(api.text_of(event.data) for event in events if event.data is not None) == "hi"
    assert [api.is_end(event.data) for event in events if event.data is not None].count(True) == 1
    assert any(event.data is None for event in events) == (api.framing == "sse")
    body = api.request("m", [{"role": "user", "content": "q"}], 5)
    assert (body["model"], body["stream"]) == ("m", True)
    assert "5" in str(body)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error": {"message": "m", "type": "t", "param": null, "code": "c"}}', "m", "c"),
        (b'{"error": {"message": "m", "type": "t", "code": null}}', "m", "t"),
        (b'{"error": "m"}', "m", ""),
        (b'{"type": "error", "error": {"type": "t", "message": "m"}}', "m", "t"),
        (b'{"type": "response.failed", "response": {"error": {"code": "c", "message": "m"}}}', "m", "c"),
        (b"<html><title> 502  Bad\nGateway</title><body>x", "502 Bad Gateway", ""),
        (b"plain &amp; simple", "plain & simple", ""),
        (b"", "", ""),
        (b"\xff", "\ufffd", ""),
        (b"[" * 100_000, "", None),
    ],
)
def test_error_bodies(body: bytes, message: str, code: str | None) -> None:
    """The error message and code are found in every format."""
    read_fault = parse_error_body(body)
    if code is not None:
        assert (read_fault.message, read_fault.code) == (message, code)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://brunix.example", "PROXY_ALLOWED_HOSTS=brunix.example"),
        ("http://9.9.9.9", "PROXY_ALLOWED_HOSTS=9.9.9.9"),
        ("http://localhost:8000", "proxy_set_header Host"),
        ("http://10.0.0.7", "proxy_set_header Host"),
        ("http://[::1]:8000", "proxy_set_header Host"),
        ("http://printer.local", "proxy_set_header Host"),
    ],
)
def test_a_rejected_host(url: str, remedy: str) -> None:
    """The remedy is the gateway's setting, unless the gateway always accepts this name: then a proxy changed it."""
    response = page(403, b'{"error": {"message": "Host not allowed", "code": "host_not_allowed"}}')
    diagnosis = diagnose_response(response, parse(url)[0])
    assert diagnosis.kind == "host_not_allowed"
    assert remedy in diagnosis.remedy


def test_a_finding_is_json() -> None:
    """The keys of the JSON output are stable."""
    assert attrs.asdict(Finding("check", "ok", "says")) == {
        "check": "check", "level": "ok", "says": "says", "means": "", "todo": "", "figures": {},
    }  # fmt: skip


@pytest.mark.parametrize("api", API_FORMATS, ids=lambda api: api.id)
@pytest.mark.parametrize("text", [5, ["a"], {"a": 1}, None, True])
def test_text_of_another_type(api: ApiFormat, text: object) -> None:
    """A server that streams other values instead of text does not break the command."""
    event = {"choices": [{"delta": {"content": text}}], "message": {"content": text}}
    event |= {"type": "content_block_delta", "delta": {"text": text}}
    assert api.text_of(event) == ""
