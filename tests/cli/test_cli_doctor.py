"""``brunix doctor`` with real faults: each kind of finding that can be provoked."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from email.utils import formatdate
from http.client import HTTPConnection
from pathlib import Path
from typing import get_args

import pytest

from brunix_twisted.api.mismatches import Reason
from brunix_twisted.cli.doctor.mismatches import SessionReport, check_mismatches
from brunix_twisted.cli.doctor.questions import QUESTION
from certificates import Authority, shift_clock
from cli_commands import brunix, doctor
from cli_gateways import Gateway, free_port, tls_gateway, twistd, wait_for_port
from fake_reactor import LIMIT_S
from fake_servers import answering, faulty_proxy, http
from isolation import CLEAN
from paths import ROOT
from proxies import KINDS, Kind, find, proxy
from scripted_engine import ScriptedEngine, script
from several_processes import serving

with_nginx = pytest.mark.skipif(find("nginx") is None, reason="nginx is not installed: apt-get install nginx")


def test_everything_works(paced: Gateway) -> None:
    """A healthy gateway has no warnings or problems, and every check reports."""
    report = doctor(paced.url, "--metrics", f"127.0.0.1:{paced.metrics}")
    assert report.status == 0
    assert set(report.levels.values()) <= {"ok", "note"}
    assert set(report.levels) == {
        "address", "proxies", "gateway", "between", "engine", "model", "connection", "request id", "clock", "body size",
        "browsers", "names", "clients", "answers", "streams", "silence", "sessions", "cancelling",
    }  # fmt: skip
    for check in ("answers", "streams", "sessions", "cancelling", "between", "connection", "request id", "clock"):
        assert report.levels[check] == "ok", report.findings
    assert report.one("names")["says"].endswith("rejects an unknown one")
    assert report.questions <= 10
    # Answers that are only checked for existence are not read to the end.
    chunks = {
        name: report.one("answers", name)["figures"]["pieces"] for name in ("chat completions", "OpenAI's completions")
    }
    assert chunks["OpenAI's completions"] < chunks["chat completions"]


def test_several_engines(tmp_path: Path) -> None:
    """A gateway with two engines is healthy, and keeps the doctor's sessions."""
    engines = [ScriptedEngine("127.0.0.1:0") for _ in range(2)]
    try:
        target = "ipv4:" + ",".join(f"127.0.0.1:{engine.port}" for engine in engines)
        with twistd(tmp_path, BRUNIX_GRPC_TARGET=target) as process:
            report = doctor(f"http://127.0.0.1:{wait_for_port(process)}")
        sessions = [{call.request.session_id for call in engine.calls} for engine in engines]
    finally:
        for engine in engines:
            engine.stop()
    assert report.status == 0
    assert [report.levels[check] for check in ("engine", "answers", "sessions")] == ["ok"] * 3
    assert sessions[0].isdisjoint(sessions[1])


def test_the_text_output(paced: Gateway) -> None:
    """The text output has aligned columns, at most 100 characters a line, and no colours in a pipe."""
    done = brunix("doctor", f"127.0.0.1:{paced.port}/v1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith(f" at {paced.url}")
    assert re.fullmatch(r"\d+ notes?\. The engine received \d+ questions\. The checks took \d+\.\d s\.", lines[-1])
    assert all(re.match(r"(ok|note|warning|problem) +[a-z]", line) or line.startswith(" " * 22) for line in lines[2:-2])
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in done.stdout


def test_what_the_page_shows(paced: Gateway) -> None:
    """The documentation shows the same checks and levels as the program."""
    page = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    shown = re.findall(
        r"^(ok|note|warning|problem) +(.{12}) ", page[page.index("$ brunix doctor") :].partition("```")[0], re.MULTILINE
    )
    done = brunix("doctor", f"127.0.0.1:{paced.port}/v1", "--metrics", f"http://127.0.0.1:{paced.metrics}/metrics")
    seen = re.findall(r"^(ok|note|warning|problem) +(.{12}) ", done.stdout, re.MULTILINE)
    assert seen == shown


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours(variables: dict[str, str], *, coloured: bool) -> None:
    """A terminal gets colours, unless NO_COLOR or TERM=dumb is set."""
    leader, follower = pty.openpty()
    subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "brunix_twisted", "doctor", f"127.0.0.1:{free_port()}"],
        env=CLEAN | {"TERM": "xterm"} | variables,
        stdout=follower,
        timeout=LIMIT_S,
        check=False,
    )
    written = os.read(leader, 4096)
    for end in (leader, follower):
        os.close(end)
    assert (b"\x1b[31mproblem" in written) == coloured
    assert b"problem" in written


def test_the_address_is_corrected(served: Gateway) -> None:
    """A correction of the address, such as a removed /v1, is reported."""
    report = doctor(f"127.0.0.1:{served.port}/v1", "--no-questions")
    finding = report.one("url")
    assert "/v1 was removed" in finding["means"]
    assert "scheme was missing" in finding["means"]
    assert finding["figures"] == {"given": f"127.0.0.1:{served.port}/v1", "url": served.url}
    assert report.status == 0
    assert "url" not in doctor(served.url, "--no-questions").levels


def test_no_questions(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """With --no-questions the engine is not called."""
    known = len(shared_engine.calls)
    report = doctor(served.url, "--no-questions")
    assert (report.status, report.questions, len(shared_engine.calls)) == (0, 0, known)


def test_how_many_questions(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """The reported number of questions is exact and at most ten."""
    known = len(shared_engine.calls)
    report = doctor(served.url, "--metrics", f"http://127.0.0.1:{served.metrics}/metrics")
    asked = [call.request.query for call in shared_engine.calls[known:]]
    assert len(asked) == report.questions <= 10
    assert QUESTION in asked


# The network.


def test_connection_refused() -> None:
    """A gateway that is not running is reported with the command that starts it."""
    report = doctor(f"http://127.0.0.1:{free_port()}")
    assert report.status == 1
    assert report.one("address")["figures"]["kind"] == "refused"
    assert "twistd" in report.one("address")["todo"]
    assert report.questions == 0


def test_an_unknown_host() -> None:
    """A failed DNS lookup is reported."""
    report = doctor("http://gateway.brunix.invalid")
    assert report.one("address")["figures"]["kind"] == "unknown_name"


def test_a_silent_server() -> None:
    """A server that accepts connections and sends nothing is reported as a timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        report = doctor(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert report.one("gateway")["figures"]["kind"] == "timeout"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no_http"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "grpc"),
        (b"", "closed"),
        (http("401 Unauthorized", b"", "WWW-Authenticate: Basic"), "unauthorized"),
        (http("301 Moved Permanently", b"", "Location: https://brunix.example/health"), "redirect"),
        (http("502 Bad Gateway", b"<title>502 Bad Gateway</title>", "Server: nginx"), "proxy_without_gateway"),
        (http("400 Bad Request", b"The plain HTTP request was sent to HTTPS port"), "https"),
        (http("404 Not Found", b"no", "Server: Apache"), "not_the_gateway"),
        (http("200 OK", b"<html>hello</html>", "Content-Type: text/html"), "not_the_gateway"),
    ],
)
def test_another_server(answer: bytes, kind: str) -> None:
    """Other servers and proxies are distinguished from the gateway, and get no questions."""
    with answering(answer) as port:
        report = doctor(f"http://127.0.0.1:{port}")
    assert report.status == 1
    assert report.one("gateway")["figures"]["kind"] == kind
    assert report.questions == 0


def test_the_engine_at_the_address(shared_engine: ScriptedEngine) -> None:
    """The engine's address in place of the gateway's is recognised."""
    report = doctor(f"http://127.0.0.1:{shared_engine.port}")
    assert report.one("gateway")["figures"]["kind"] == "grpc"


def test_ollama_at_the_address() -> None:
    """A real Ollama is recognised."""
    version = http("200 OK", b'{"version": "0.12.3"}', "Content-Type: application/json")
    models = http("200 OK", b'{"object": "list", "data": [{"id": "llama3:latest", "owned_by": "library"}]}')
    # The first connection only checks the port; then come the pages in the order in which they are requested.
    with answering(b"", http("404 Not Found", b"404 page not found"), models, version) as port:
        report = doctor(f"http://127.0.0.1:{port}")
    assert report.status == 1
    assert report.one("gateway")["says"] == "this is not the gateway, but Ollama 0.12.3"


def test_certificates(shared_engine: ScriptedEngine, tmp_path: Path) -> None:
    """Each reason why clients reject a certificate is reported as such."""
    ours, strange = Authority(tmp_path, "ours"), Authority(tmp_path, "strange")
    party = ours.sign("127.0.0.1")
    ca = os.fspath(ours.party.certificate)
    with tls_gateway(tmp_path, shared_engine, party) as process:
        port = wait_for_port(process)
        report = doctor(f"https://127.0.0.1:{port}", "--ca", ca, "--no-questions")
        assert report.status == 0
        # The certificate is valid for an hour.
        assert report.one("tls")["level"] == "warning"
        assert report.one("tls")["figures"]["issuer"] == "ours"
        assert report.one("gateway")["level"] == "ok"
        for arguments, kind in (
            ([f"https://127.0.0.1:{port}"], "tls_unknown"),
            ([f"https://127.0.0.1:{port}", "--ca", os.fspath(strange.party.certificate)], "tls_unknown"),
            ([f"https://localhost:{port}", "--ca", ca], "tls_wrong_name"),
        ):
            report = doctor(*arguments)
            assert (report.status, report.one("tls")["figures"]["kind"]) == (1, kind)
        report = doctor(f"http://127.0.0.1:{port}")
        assert report.one("gateway")["figures"]["kind"] == "https"
        assert report.one("gateway")["todo"] == f"Use https://127.0.0.1:{port}."


def test_plain_http_at_an_https_address(served: Gateway) -> None:
    """https:// for a gateway without TLS is reported with the right address."""
    report = doctor(f"https://127.0.0.1:{served.port}")
    assert report.one("tls")["figures"]["kind"] == "plain_http"
    assert report.one("tls")["todo"] == f"It speaks plain HTTP. Use {served.url}."


@pytest.mark.parametrize(("shift_hours", "kind"), [(-2, "tls_expired"), (2, "tls_not_yet_valid")])
def test_a_certificate_outside_its_validity(
    shared_engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift_hours: int, kind: str
) -> None:
    """Expired and not yet valid certificates are reported as such."""
    ours = Authority(tmp_path, "ours")
    ca = os.fspath(ours.party.certificate)
    shift_clock(monkeypatch, shift_hours)
    with tls_gateway(tmp_path, shared_engine, ours.sign("127.0.0.1")) as process:
        report = doctor(f"https://127.0.0.1:{wait_for_port(process)}", "--ca", ca)
    assert (report.status, report.one("tls")["figures"]["kind"]) == (1, kind)


# Proxies between client and gateway.


def test_a_skewed_clock(served: Gateway) -> None:
    """A wrong clock is reported."""

    def later(data: bytes) -> bytes:
        date = formatdate(time.time() + 3 * 3600, usegmt=True).encode()
        return re.sub(rb"(?m)^Date: .*\r$", b"Date: " + date + b"\r", data)

    with faulty_proxy(served.port, answer=later) as between:
        report = doctor(between.url, "--no-questions")
    assert report.status == 0
    finding = report.one("clock")
    assert (finding["level"], "3 hours ahead of" in finding["says"]) == ("warning", True)
    assert 10_700 < finding["figures"]["skew_s"] < 10_900


def test_a_proxy_drops_headers(served: Gateway) -> None:
    """Lost or replaced request ids and session ids are reported."""

    def strip(data: bytes) -> bytes:
        return re.sub(rb"(?m)^(X-Request-Id|X-Session-Id): .*\r\n", b"", data)

    def rename(data: bytes) -> bytes:
        return data.replace(b"X-Session-Id:", b"X-Nothing-Is:").replace(
            b"X-Request-Id: doctor-", b"X-Request-Id: other--"
        )

    with faulty_proxy(served.port, answer=strip) as between:
        report = doctor(between.url)
        assert report.one("request id")["level"] == "warning"
        assert report.one("sessions")["says"] == "X-Session-Id is missing from the response"
    with faulty_proxy(served.port, request=rename) as between:
        report = doctor(between.url)
        assert report.one("request id")["level"] == "note"
        assert report.one("sessions", "another session")["level"] == "problem"
        assert report.status == 1


WORD = "xyzzy"
"""A word in each text of these tests' conversations."""


def ask(connection: HTTPConnection, key: str, *said: str) -> None:
    """Ask the last of these texts, after a conversation that consists of the others."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": f"{WORD} {text}"} for index, text in enumerate(said)]
    body = json.dumps({"model": "brunix", "messages": messages})
    connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    response.read()
    assert response.status == 200


def test_a_client_that_changes_answers(served: Gateway) -> None:
    """The doctor explains why a client's conversations lose their session, to the same caller and without any text."""
    connection = HTTPConnection("127.0.0.1", served.port, timeout=LIMIT_S)
    ask(connection, "ann", "one")
    ask(connection, "ann", "one", "changed", "two")
    ask(connection, "ann", "one", "changed", "two", "changed", "three")
    ask(connection, "ann", "never", "asked", "one")
    connection.close()
    report = doctor(served.url, "--no-questions", environment={"BRUNIX_API_KEY": "ann"})
    changed, unknown = (report.one("clients", word) for word in ("2 questions", "a question"))
    assert (report.status, changed["level"], unknown["level"]) == (0, "warning", "warning")
    assert re.match(r"Request \S+ to /v1/chat/completions at \S+Z: The first 1 of 2 turns match ", changed["means"])
    assert "but the answer of turn 2 differs. The client changes the answers" in changed["means"]
    assert [each["differing_turn"] for each in changed["figures"]["mismatches"]] == [2, 1]
    assert "keeps conversations in memory" in unknown["means"]
    assert "PROXY_STATE" in unknown["todo"]
    done = brunix("doctor", "--header", "Authorization: Bearer ann", served.url, "--no-questions")
    assert "but the answer of turn 2 differs" in re.sub(r"\s+", " ", done.stdout)
    assert WORD not in done.stdout + json.dumps(report.findings)
    # Another key is another caller.
    for key, mentioned in (("bob", "the same key"), ("", "no key")):
        finding = doctor(served.url, "--no-questions", environment={"BRUNIX_API_KEY": key}).one("clients")
        assert (finding["level"], mentioned in finding["means"]) == ("ok", True)


def test_all_processes_are_asked(tmp_path: Path, shared_engine: ScriptedEngine) -> None:
    """The doctor reports the mismatches of every process of a gateway, whichever process answered."""
    with serving(tmp_path, shared_engine) as gateway:
        count = len(gateway.pids)
        assert count > 1
        for number in range(count):
            connection = gateway.connect(number)
            ask(connection, "ann", "never", "asked", str(number))
            connection.close()
        report = doctor(f"http://127.0.0.1:{gateway.port}", "--no-questions", environment={"BRUNIX_API_KEY": "ann"})
    assert len(report.one("clients")["figures"]["mismatches"]) == count


def test_a_proxy_changes_answers(served: Gateway) -> None:
    """A follow-up question of the doctor that gets a new session is explained by the gateway itself."""
    with faulty_proxy(served.port, answer=lambda data: data.replace(b'"help ', b'"kelp ')) as between:
        report = doctor(between.url, environment={"BRUNIX_API_KEY": "proxied"})
    finding = report.one("sessions", "without a session id gets a new session")
    assert (finding["level"], finding["figures"]["mismatch"]["reason"]) == ("warning", "changed")
    assert finding["means"].startswith("The first question matches session ")
    assert "The client changes the answers" in finding["means"]


@pytest.mark.parametrize("reason", get_args(Reason))
@pytest.mark.parametrize("differs", [None, "question", "answer"])
def test_every_reason_has_advice(reason: str, differs: str | None) -> None:
    """The doctor says what to do about every reason that a gateway reports."""
    mismatch = {"reason": reason, "differs": differs if reason == "changed" else None, "explanation": "It differs."}
    (finding,) = check_mismatches(SessionReport(200, "fitting", [mismatch]), has_key=False)
    assert finding.level in {"note", "warning"}
    assert finding.means.removeprefix("Request None to None at None: It differs. ").endswith(".")
    assert finding.todo.endswith(".")
    assert "does not know the reason" not in finding.todo


@pytest.mark.parametrize(
    "mismatch", [{}, {"reason": "new in a later release", "differs": 1, "explanation": None}, {"reason": []}]
)
def test_an_unknown_reason(mismatch: dict[str, object]) -> None:
    """A gateway of a later release, or another server, does not confuse the doctor."""
    (finding,) = check_mismatches(SessionReport(200, "fitting", [mismatch]), has_key=False)
    assert (finding.level, "does not know the reason" in finding.todo) == ("warning", True)


def test_a_gateway_without_the_report(served: Gateway) -> None:
    """An older gateway, or a proxy that blocks the report, is no problem."""
    with faulty_proxy(served.port, request=lambda data: data.replace(b"/health/sessions", b"/health/nonsense")) as old:
        report = doctor(old.url, "--no-questions")
    assert (report.status, report.one("clients")["level"]) == (0, "note")
    assert report.one("clients")["says"] == "not checked: /health/sessions returns 404"


def test_settings(shared_engine: ScriptedEngine, tmp_path: Path) -> None:
    """The effects of the gateway's settings are reported as such, not as faults."""
    with twistd(
        tmp_path,
        PROXY_LISTEN="tcp:0:interface=127.0.0.1",
        BRUNIX_GRPC_TARGET=shared_engine.target,
        PROXY_SESSION_CONTINUITY="off",
        PROXY_MODEL_ALIASES="other",
        PROXY_ALLOWED_HOSTS="*",
        PROXY_MAX_BODY_BYTES="1000000",
        PROXY_CORS_ORIGINS="https://chat.example",
    ) as process:
        url = f"http://127.0.0.1:{wait_for_port(process)}"
        report = doctor(url, "--model", "other")
        assert report.status == 0
        assert report.one("sessions", "a new session")["level"] == "note"
        assert report.one("sessions", "a new session")["means"] == "PROXY_SESSION_CONTINUITY is off."
        assert report.one("clients")["level"] == "note"
        assert report.one("sessions", "with X-Session-Id")["level"] == "ok"
        assert report.one("model")["says"] == "other is accepted as another name of brunix"
        assert "PROXY_MAX_BODY_BYTES" in report.one("body size")["means"]
        assert report.one("browsers")["level"] == "note"
        assert report.one("names")["says"] == "the gateway accepts any name"
        assert doctor(url, "--no-questions", "--origin", "https://chat.example").one("browsers")["level"] == "ok"


def test_an_origin_that_is_not_allowed(served: Gateway) -> None:
    """A web page that may not use the gateway is reported with the setting that allows it."""
    report = doctor(served.url, "--no-questions", "--origin", "https://chat.example")
    assert report.status == 1
    assert report.one("browsers")["level"] == "problem"
    assert "PROXY_CORS_ORIGINS: https://chat.example" in report.one("browsers")["todo"]


def test_two_origins(served: Gateway) -> None:
    """A proxy that adds a second Access-Control-Allow-Origin is reported."""

    def twice(data: bytes) -> bytes:
        return re.sub(rb"(?m)^(Access-Control-Allow-Origin: ).*\r\n", rb"\g<0>\g<1>*\r\n", data)

    with faulty_proxy(served.port, answer=twice) as between:
        report = doctor(between.url, "--no-questions")
    assert (report.status, report.one("browsers")["level"]) == (1, "problem")
    assert "two values" in report.one("browsers")["says"]


def test_a_wrong_model(served: Gateway) -> None:
    """A wrong model name is reported with the right one."""
    report = doctor(served.url, "--model", "Brunix", "--no-questions")
    assert report.status == 1
    finding = report.one("model")
    assert "case-sensitive" in finding["todo"]
    assert finding["figures"] == {"listed": ["brunix"], "asked": "Brunix"}
    assert doctor(served.url, "--model", "brunix:latest", "--no-questions").status == 0


def test_a_wrong_host(served: Gateway) -> None:
    """A Host that the gateway rejects is reported with the setting, or with the proxy's."""
    report = doctor(served.url, "--header", "Host: chat.example")
    assert (report.status, report.one("gateway")["figures"]["kind"]) == (1, "host_not_allowed")
    assert "proxy_set_header Host" in report.one("gateway")["todo"]
    report = doctor(f"http://{socket.gethostname()}.nowhere.invalid:{served.port}")
    assert report.status == 1


@pytest.mark.parametrize("given", [{"BRUNIX_GRPC_TARGET": "127.0.0.1:1"}])
def test_the_engine_is_unreachable(tmp_path: Path, given: dict[str, str]) -> None:
    """An unreachable engine is reported, and everything before it is still checked."""
    with twistd(tmp_path, PROXY_LISTEN="tcp:0:interface=127.0.0.1", **given) as process:
        report = doctor(f"http://127.0.0.1:{wait_for_port(process)}")
    assert (report.status, report.questions) == (1, 0)
    assert report.one("engine")["level"] == "problem"
    assert "BRUNIX_GRPC_TARGET" in report.one("engine")["todo"]
    assert report.levels["connection"] == "ok"


def test_an_engine_that_fails(served: Gateway) -> None:
    """An engine that is healthy but fails to answer is a problem."""
    report = doctor(served.url, "--question", script({"status": "INTERNAL"}))
    assert report.status == 1
    assert report.one("answers", "chat completions")["figures"]["kind"] == "engine_error"


def test_an_older_release(served: Gateway) -> None:
    """An API that this release lacks is a note, not a problem."""
    with faulty_proxy(
        served.port, request=lambda data: data.replace(b"POST /v1/responses ", b"POST /v1/embeddings ")
    ) as between:
        report = doctor(between.url)
    assert report.one("answers", "responses") == {
        "check": "answers",
        "level": "note",
        "says": "OpenAI's responses: not implemented by this release",
        "means": "",
        "todo": "",
        "figures": {"dialect": "responses", "status": 404, "complete": False},
    }
    assert report.status == 0


def test_a_slow_engine(served: Gateway) -> None:
    """A slow engine ends no check, and heartbeats are counted."""
    report = doctor(served.url, "--question", script({"hang": True}), "--patient", "1.5")
    assert report.status == 0
    finding = report.one("answers", "chat completions")
    assert (finding["level"], "no text" in finding["says"]) == ("warning", True)
    assert report.one("silence")["figures"]["signs"] > 3
    assert report.one("silence")["level"] == "ok"
    # Everything else is still checked.
    assert report.one("idle")["level"] == "ok"


def test_a_proxy_timeout(shared_engine: ScriptedEngine, tmp_path: Path) -> None:
    """An answer that a proxy's timeout truncates is a problem, with the proxy's setting."""
    with twistd(
        tmp_path, PROXY_LISTEN="tcp:0:interface=127.0.0.1", BRUNIX_GRPC_TARGET=shared_engine.target
    ) as process, faulty_proxy(wait_for_port(process), idle_s=1.0) as between:  # fmt: skip
        report = doctor(between.url, "--question", script("one ", {"hang": True}), "--patient", "20")
    assert report.status == 1
    finding = report.one("answers", "chat completions")
    assert finding["level"] == "problem"
    assert "truncated" in finding["says"]
    assert "proxy_read_timeout" in finding["todo"]
    assert report.one("idle")["level"] == "warning"


@with_nginx
@pytest.mark.parametrize(
    ("changes", "level", "word"),
    [
        ({}, "ok", "piece by piece"),
        ({"gzip off;": "", "proxy_buffering off;": "proxy_buffering on;"}, "problem", "arrives within"),
        ({"gzip off;": "gzip on; gzip_min_length 0;"}, "warning", "compressed"),
    ],
    ids=["correct", "buffering", "compressing"],
)
def test_nginx(paced: Gateway, changes: dict[str, str], level: str, word: str) -> None:
    """Buffering and compression in nginx are found, and a correct configuration has no warnings."""
    with proxy("nginx", [f"127.0.0.1:{paced.port}"], changes=changes) as front:
        report = doctor(front.url)
    finding = report.one("streams", "chat completions")
    assert (finding["level"], word in finding["says"]) == (level, True), finding
    assert report.one("streams", "Ollama's generate")["level"] == level
    assert report.one("between")["figures"]["seen"][0].startswith("nginx")
    assert report.status == int(level == "problem")
    if level == "ok":
        assert {each for check, each in report.levels.items() if check != "names"} <= {"ok", "note"}


@pytest.mark.parametrize(
    ("hold_bytes", "level", "word"), [(10**9, "problem", "arrives within"), (3000, "warning", "bursts of about")]
)
def test_a_buffer(paced: Gateway, hold_bytes: int, level: str, word: str) -> None:
    """A buffer between client and gateway is found, whether it holds all or a part of the answer."""
    with faulty_proxy(paced.port, hold_bytes=hold_bytes) as between:
        report = doctor(between.url)
    finding = report.one("streams", "chat completions")
    assert (finding["level"], word in finding["says"]) == (level, True), finding
    assert "proxy_buffering off" in finding["todo"]


@with_nginx
def test_nginx_limits_the_body(served: Gateway) -> None:
    """A request that nginx rejects as too large is reported with nginx's setting."""
    with proxy("nginx", [f"127.0.0.1:{served.port}"], changes={"client_max_body_size 5m;": ""}) as front:
        report = doctor(front.url, "--no-questions")
    assert report.one("body size")["level"] == "warning"
    assert "client_max_body_size" in report.one("body size")["todo"]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.skipif(find(kind) is None, reason=f"no {kind}")) for kind in KINDS]
)
def test_a_proxy_without_a_gateway(kind: Kind) -> None:
    """A proxy that cannot reach the gateway is a problem, and gets no questions."""
    with proxy(kind, [f"127.0.0.1:{free_port()}"]) as front:
        report = doctor(front.url)
    assert (report.status, report.questions) == (1, 0)
    assert report.one("gateway")["level"] == "problem"


# What other clients on this machine do.


def test_proxies_in_the_environment(served: Gateway) -> None:
    """A proxy that other clients would use is reported, without its password."""
    unreachable = f"http://user:secret@127.0.0.1:{free_port()}"
    report = doctor(served.url, "--no-questions", environment={"HTTP_PROXY": unreachable})
    finding = report.one("proxies")
    assert (report.status, finding["level"], finding["figures"]["works"]) == (0, "warning", False)
    assert "secret" not in json.dumps(report.findings)
    assert "NO_PROXY=127.0.0.1" in finding["todo"]
    for name in ("127.0.0.1", "*", f"elsewhere,127.0.0.1:{served.port}"):
        report = doctor(served.url, "--no-questions", environment={"HTTP_PROXY": unreachable, "NO_PROXY": name})
        assert report.one("proxies")["level"] == "ok"
    report = doctor(served.url, "--no-questions", environment={"http_proxy": "http://proxy:port"})
    assert report.one("proxies")["level"] == "warning"
    # The gateway works as this proxy: it accepts an absolute URL.
    report = doctor(served.url, "--no-questions", environment={"http_proxy": served.url})
    assert (report.one("proxies")["level"], report.one("proxies")["figures"]["works"]) == ("note", True)


@pytest.mark.parametrize(
    ("line", "added", "word"),
    [(b"HTTP/1.1 ", b"HTTP/1.0 ", "HTTP/1.0"), (b"\r\nDate:", b"\r\nConnection: close\r\nDate:", "closed")],
)
def test_connections(served: Gateway, line: bytes, added: bytes, word: str) -> None:
    """HTTP/1.0 and connections that are closed after each response are reported."""
    with faulty_proxy(served.port, answer=lambda data: data.replace(line, added, 1)) as between:
        report = doctor(between.url, "--no-questions")
    assert word in report.one("connection")["says"]
    assert report.one("connection")["level"] in {"note", "warning"}


def test_a_proxy_that_does_not_forward_disconnects(paced: Gateway) -> None:
    """A proxy that keeps reading after its client has disconnected is reported."""
    with faulty_proxy(paced.port, reads_on=True) as between:
        report = doctor(between.url, "--metrics", f"127.0.0.1:{paced.metrics}")
    assert report.one("cancelling")["level"] == "warning"
    assert "abortonclose" in report.one("cancelling")["todo"]


def test_unreachable_metrics(paced: Gateway) -> None:
    """An unreachable --metrics is reported as such."""
    report = doctor(paced.url, "--metrics", f"127.0.0.1:{free_port()}", "--question", "What can you help me with?")
    assert report.one("cancelling")["level"] == "note"
    assert "metrics cannot be read" in report.one("cancelling")["says"]


def test_control_c(served: Gateway) -> None:
    """Control-C ends the doctor at once, without a traceback."""
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "brunix_twisted", "doctor", served.url, "--question", script({"hang": True})],
        env=CLEAN,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout
        try:
            assert any(line.startswith("ok       names") for line in running.stdout)
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=LIMIT_S)
        finally:
            running.kill()
    assert (running.returncode, said) == (130, "\nbrunix doctor: stopped\n")
