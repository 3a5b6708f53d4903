"""``brunix doctor`` on ways that are broken for real: each kind of finding, where it can be provoked."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest

import test_tls
from brunix_twisted.cli.doctor.questions import QUESTION
from cli.conftest import Gateway
from cli.running import answering, between, brunix, doctor, http
from fake_reactor import LIMIT_S
from isolation import CLEAN
from proxies import KINDS, Kind, find, proxy
from scripted_engine import ScriptedEngine, script
from test_tap import free_port, twistd, wait_for_port
from test_tls import Authority, Party

ROOT = Path(__file__).parent.parent.parent

with_nginx = pytest.mark.skipif(find("nginx") is None, reason="nginx is not installed: apt-get install nginx")


def test_everything_is_well(paced: Gateway) -> None:
    """Somebody whose gateway is well is told of something wrong, or nothing of what was looked at."""
    told = doctor(paced.url, "--metrics", f"127.0.0.1:{paced.metrics}")
    assert told.status == 0
    assert set(told.levels.values()) <= {"ok", "note"}
    assert set(told.levels) == {
        "address", "proxies", "gateway", "between", "engine", "model", "connection", "request id", "clock", "body size",
        "browsers", "names", "answers", "streams", "silence", "sessions", "cancelling",
    }  # fmt: skip
    for check in ("answers", "streams", "sessions", "cancelling", "between", "connection", "request id", "clock"):
        assert told.levels[check] == "ok", told.findings
    assert told.one("names")["says"].endswith("by a strange name it may not")
    assert told.questions <= 10
    # What only has to be there is not read to its end.
    chunks = {
        name: told.one("answers", name)["figures"]["pieces"] for name in ("chat completions", "OpenAI's completions")
    }
    assert chunks["OpenAI's completions"] < chunks["chat completions"]


def test_what_a_person_reads(paced: Gateway) -> None:
    """The findings are a heap of text, or coloured where nobody sees colours."""
    done = brunix("doctor", f"127.0.0.1:{paced.port}/v1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith(f" at {paced.url}")
    assert re.fullmatch(r"\d+ notes?\. The engine was asked \d+ questions; it took \d+\.\d s\.", lines[-1])
    assert all(re.match(r"(ok|note|warning|problem) +[a-z]", line) or line.startswith(" " * 22) for line in lines[2:-2])
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in done.stdout


def test_what_the_page_shows(paced: Gateway) -> None:
    """Somebody who compares what they see with the page finds another program's output on it."""
    page = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    shown = re.findall(
        r"^(ok|note|warning|problem) +(.{12}) ", page[page.index("$ brunix doctor") :].partition("```")[0], re.MULTILINE
    )
    done = brunix("doctor", f"127.0.0.1:{paced.port}/v1", "--metrics", f"http://127.0.0.1:{paced.metrics}/metrics")
    seen = re.findall(r"^(ok|note|warning|problem) +(.{12}) ", done.stdout, re.MULTILINE)
    assert seen == shown


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours(variables: dict[str, str], *, coloured: bool) -> None:
    """A terminal gets no colours, or somebody who wants none gets them."""
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


def test_the_address_is_put_right(served: Gateway) -> None:
    """The commonest mistake, an address with /v1, is not told of."""
    told = doctor(f"127.0.0.1:{served.port}/v1", "--no-questions")
    finding = told.one("url")
    assert "/v1 was left out" in finding["means"]
    assert "no scheme" in finding["means"]
    assert finding["figures"] == {"given": f"127.0.0.1:{served.port}/v1", "url": served.url}
    assert told.status == 0
    assert "url" not in doctor(served.url, "--no-questions").levels


def test_no_questions(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """The engine is kept busy by somebody who only wants to know whether the way is free."""
    known = len(shared_engine.calls)
    told = doctor(served.url, "--no-questions")
    assert (told.status, told.questions, len(shared_engine.calls)) == (0, 0, known)


def test_how_many_questions(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """The doctor asks the engine more than it says."""
    known = len(shared_engine.calls)
    told = doctor(served.url, "--metrics", f"http://127.0.0.1:{served.metrics}/metrics")
    asked = [call.request.query for call in shared_engine.calls[known:]]
    assert len(asked) == told.questions <= 10
    assert QUESTION in asked


# The way.


def test_nothing_listens() -> None:
    """Somebody whose gateway is not started is not told so."""
    told = doctor(f"http://127.0.0.1:{free_port()}")
    assert told.status == 1
    assert told.one("address")["figures"]["kind"] == "refused"
    assert "twistd" in told.one("address")["todo"]
    assert told.questions == 0


def test_a_name_that_nobody_knows() -> None:
    """Somebody who mistyped a name is not told so."""
    told = doctor("http://gateway.brunix.invalid")
    assert told.one("address")["figures"]["kind"] == "unknown_name"


def test_nobody_answers() -> None:
    """The doctor waits for ever for a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = doctor(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert told.one("gateway")["figures"]["kind"] == "timeout"


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
def test_somebody_else_is_there(answer: bytes, kind: str) -> None:
    """Somebody looks for a fault in the gateway that is another server's, or a proxy's."""
    with answering(answer) as port:
        told = doctor(f"http://127.0.0.1:{port}")
    assert told.status == 1
    assert told.one("gateway")["figures"]["kind"] == kind
    assert told.questions == 0


def test_the_engine_itself_is_there(shared_engine: ScriptedEngine) -> None:
    """Somebody who gives the engine's address to a client learns nothing of that."""
    told = doctor(f"http://127.0.0.1:{shared_engine.port}")
    assert told.one("gateway")["figures"]["kind"] == "grpc"


def test_ollama_is_there() -> None:
    """Somebody who asks a real Ollama takes its answers for the engine's."""
    version = http("200 OK", b'{"version": "0.12.3"}', "Content-Type: application/json")
    models = http("200 OK", b'{"object": "list", "data": [{"id": "llama3:latest", "owned_by": "library"}]}')
    # One for the connection that only tries the port; the rest in the order in which the pages are asked for.
    with answering(b"", http("404 Not Found", b"404 page not found"), models, version) as port:
        told = doctor(f"http://127.0.0.1:{port}")
    assert told.status == 1
    assert told.one("gateway")["says"] == "this is not the gateway, but Ollama 0.12.3 itself"


def tls_gateway(folder: Path, engine: ScriptedEngine, party: Party) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start a gateway that speaks TLS."""
    listen = f"ssl:0:interface=127.0.0.1:privateKey={party.key}:certKey={party.certificate}"
    return twistd(folder, f"--listen={listen}", BRUNIX_GRPC_TARGET=engine.target)


def test_certificates(shared_engine: ScriptedEngine, tmp_path: Path) -> None:
    """A certificate that clients refuse is not told of, or not why they do."""
    ours, strange = Authority(tmp_path, "ours"), Authority(tmp_path, "strange")
    party = ours.sign("127.0.0.1")
    ca = os.fspath(ours.party.certificate)
    with tls_gateway(tmp_path, shared_engine, party) as process:
        port = wait_for_port(process)
        told = doctor(f"https://127.0.0.1:{port}", "--ca", ca, "--no-questions")
        assert told.status == 0
        # The certificate is made for an hour.
        assert told.one("tls")["level"] == "warning"
        assert told.one("tls")["figures"]["issuer"] == "ours"
        assert told.one("gateway")["level"] == "ok"
        for arguments, kind in (
            ([f"https://127.0.0.1:{port}"], "tls_unknown"),
            ([f"https://127.0.0.1:{port}", "--ca", os.fspath(strange.party.certificate)], "tls_unknown"),
            ([f"https://localhost:{port}", "--ca", ca], "tls_wrong_name"),
        ):
            told = doctor(*arguments)
            assert (told.status, told.one("tls")["figures"]["kind"]) == (1, kind)
        told = doctor(f"http://127.0.0.1:{port}")
        assert told.one("gateway")["figures"]["kind"] == "https"
        assert told.one("gateway")["todo"] == f"Write https://127.0.0.1:{port}."


def test_plain_http_where_tls_is_asked(served: Gateway) -> None:
    """Somebody who writes https:// for a gateway that has none is told of TLS's innards."""
    told = doctor(f"https://127.0.0.1:{served.port}")
    assert told.one("tls")["figures"]["kind"] == "plain_http"
    assert told.one("tls")["todo"] == f"It is plain HTTP: write {served.url}."


@pytest.mark.parametrize(("shift_hours", "kind"), [(-2, "tls_expired"), (2, "tls_not_yet_valid")])
def test_a_certificate_of_another_time(
    shared_engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift_hours: int, kind: str
) -> None:
    """A certificate that has ended is told of as one that nobody knows."""
    ours = Authority(tmp_path, "ours")
    ca = os.fspath(ours.party.certificate)

    class Shifted:
        """The clock by which the authority signs."""

        @staticmethod
        def now(zone: dt.tzinfo) -> dt.datetime:
            return dt.datetime.now(zone) + dt.timedelta(hours=shift_hours)

    clock = SimpleNamespace(datetime=Shifted, timedelta=dt.timedelta, UTC=dt.UTC)
    monkeypatch.setattr(test_tls, "dt", clock)
    with tls_gateway(tmp_path, shared_engine, ours.sign("127.0.0.1")) as process:
        told = doctor(f"https://127.0.0.1:{wait_for_port(process)}", "--ca", ca)
    assert (told.status, told.one("tls")["figures"]["kind"]) == (1, kind)


# What stands in between.


def test_a_skewed_clock(served: Gateway) -> None:
    """A clock that is wrong, and makes certificates fail, is not told of."""

    def later(data: bytes) -> bytes:
        date = formatdate(time.time() + 3 * 3600, usegmt=True).encode()
        return re.sub(rb"(?m)^Date: .*\r$", b"Date: " + date + b"\r", data)

    with between(served.port, answer=later) as it:
        told = doctor(it.url, "--no-questions")
    assert told.status == 0
    finding = told.one("clock")
    assert (finding["level"], "3 hours ahead of" in finding["says"]) == ("warning", True)
    assert 10_700 < finding["figures"]["skew_s"] < 10_900


def test_ids_and_sessions_are_lost_on_the_way(served: Gateway) -> None:
    """A proxy that takes headers away makes every conversation begin anew, and nobody is told."""

    def strip(data: bytes) -> bytes:
        return re.sub(rb"(?m)^(X-Request-Id|X-Session-Id): .*\r\n", b"", data)

    def rename(data: bytes) -> bytes:
        return data.replace(b"X-Session-Id:", b"X-Nothing-Is:").replace(
            b"X-Request-Id: doctor-", b"X-Request-Id: other--"
        )

    with between(served.port, answer=strip) as it:
        told = doctor(it.url)
        assert told.one("request id")["level"] == "warning"
        assert told.one("sessions")["says"] == "X-Session-Id does not arrive with an answer"
    with between(served.port, request=rename) as it:
        told = doctor(it.url)
        assert told.one("request id")["level"] == "note"
        assert told.one("sessions", "another session")["level"] == "problem"
        assert told.status == 1


def test_a_gateway_that_is_set_otherwise(shared_engine: ScriptedEngine, tmp_path: Path) -> None:
    """Somebody does not learn why conversations have no memory, or what else a setting has made of the gateway."""
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
        told = doctor(url, "--model", "other")
        assert told.status == 0
        assert told.one("sessions", "fresh session")["level"] == "note"
        assert told.one("sessions", "with X-Session-Id")["level"] == "ok"
        assert told.one("model")["says"] == "other is taken, as another name of brunix"
        assert "PROXY_MAX_BODY_BYTES" in told.one("body size")["means"]
        assert told.one("browsers")["level"] == "note"
        assert told.one("names")["says"] == "the gateway may be called by any name"
        assert doctor(url, "--no-questions", "--origin", "https://chat.example").one("browsers")["level"] == "ok"


def test_a_page_that_may_not(served: Gateway) -> None:
    """Somebody who writes a web page does not learn why the browser refuses."""
    told = doctor(served.url, "--no-questions", "--origin", "https://chat.example")
    assert told.status == 1
    assert told.one("browsers")["level"] == "problem"
    assert "PROXY_CORS_ORIGINS=https://chat.example" in told.one("browsers")["todo"]


def test_two_origins(served: Gateway) -> None:
    """A proxy that allows an origin once more makes browsers refuse, and nobody sees why."""

    def twice(data: bytes) -> bytes:
        return re.sub(rb"(?m)^(Access-Control-Allow-Origin: ).*\r\n", rb"\g<0>\g<1>*\r\n", data)

    with between(served.port, answer=twice) as it:
        told = doctor(it.url, "--no-questions")
    assert (told.status, told.one("browsers")["level"]) == (1, "problem")
    assert "twice" in told.one("browsers")["says"]


def test_a_wrong_model(served: Gateway) -> None:
    """Somebody whose client asks for a model that is not there is not told its name."""
    told = doctor(served.url, "--model", "Brunix", "--no-questions")
    assert told.status == 1
    finding = told.one("model")
    assert "upper and lower case" in finding["todo"]
    assert finding["figures"] == {"listed": ["brunix"], "asked": "Brunix"}
    assert doctor(served.url, "--model", "brunix:latest", "--no-questions").status == 0


def test_a_wrong_host(served: Gateway) -> None:
    """Somebody who calls the gateway by a name that it does not know is not told of the setting."""
    told = doctor(served.url, "--header", "Host: chat.example")
    assert (told.status, told.one("gateway")["figures"]["kind"]) == (1, "host_not_allowed")
    assert "proxy_set_header Host" in told.one("gateway")["todo"]
    told = doctor(f"http://{socket.gethostname()}.nowhere.invalid:{served.port}")
    assert told.status == 1


@pytest.mark.parametrize("given", [{"BRUNIX_GRPC_TARGET": "127.0.0.1:1"}])
def test_the_engine_is_away(tmp_path: Path, given: dict[str, str]) -> None:
    """Somebody looks for the fault between the client and the gateway, when it is the engine that is away."""
    with twistd(tmp_path, PROXY_LISTEN="tcp:0:interface=127.0.0.1", **given) as process:
        told = doctor(f"http://127.0.0.1:{wait_for_port(process)}")
    assert (told.status, told.questions) == (1, 0)
    assert told.one("engine")["level"] == "problem"
    assert "BRUNIX_GRPC_TARGET" in told.one("engine")["todo"]
    assert told.levels["connection"] == "ok"


def test_an_engine_that_fails(served: Gateway) -> None:
    """An engine that is well and answers nothing is taken for one that answers."""
    told = doctor(served.url, "--question", script({"status": "INTERNAL"}))
    assert told.status == 1
    assert told.one("answers", "chat completions")["figures"]["kind"] == "engine_error"


def test_an_older_release(served: Gateway) -> None:
    """A release that does not have an API yet is said to be broken, or the API to be there."""
    with between(served.port, request=lambda data: data.replace(b"POST /v1/responses ", b"POST /v1/embeddings ")) as it:
        told = doctor(it.url)
    assert told.one("answers", "responses") == {
        "check": "answers",
        "level": "note",
        "says": "OpenAI's responses: this release does not have it",
        "means": "",
        "todo": "",
        "figures": {"dialect": "responses", "status": 404, "complete": False},
    }
    assert told.status == 0


def test_a_slow_engine(served: Gateway) -> None:
    """The doctor waits for ever for an engine that says nothing, or does not see the signs of life."""
    told = doctor(served.url, "--question", script({"hang": True}), "--patient", "1.5")
    assert told.status == 0
    finding = told.one("answers", "chat completions")
    assert (finding["level"], "not a word" in finding["says"]) == ("warning", True)
    assert told.one("silence")["figures"]["signs"] > 3
    assert told.one("silence")["level"] == "ok"
    # The rest is looked at all the same.
    assert told.one("idle")["level"] == "ok"


def test_something_cuts_silent_answers(shared_engine: ScriptedEngine, tmp_path: Path) -> None:
    """A time-out in between that cuts answers is not told of, or taken for the engine's fault."""
    with twistd(
        tmp_path, PROXY_LISTEN="tcp:0:interface=127.0.0.1", BRUNIX_GRPC_TARGET=shared_engine.target
    ) as process, between(wait_for_port(process), idle_s=1.0) as it:  # fmt: skip
        told = doctor(it.url, "--question", script("one ", {"hang": True}), "--patient", "20")
    assert told.status == 1
    finding = told.one("answers", "chat completions")
    assert finding["level"] == "problem"
    assert "cut off" in finding["says"]
    assert "proxy_read_timeout" in finding["todo"]
    assert told.one("idle")["level"] == "warning"


@with_nginx
@pytest.mark.parametrize(
    ("changes", "level", "word"),
    [
        ({}, "ok", "piece by piece"),
        ({"gzip off;": "", "proxy_buffering off;": "proxy_buffering on;"}, "problem", "arrives within"),
        ({"gzip off;": "gzip on; gzip_min_length 0;"}, "warning", "compressed"),
    ],
    ids=["as it should be", "buffering", "compressing"],
)
def test_nginx(paced: Gateway, changes: dict[str, str], level: str, word: str) -> None:
    """Something in between that holds the words back is not told of, or something that does not is."""
    with proxy("nginx", [f"127.0.0.1:{paced.port}"], changes=changes) as front:
        told = doctor(front.url)
    finding = told.one("streams", "chat completions")
    assert (finding["level"], word in finding["says"]) == (level, True), finding
    assert told.one("streams", "Ollama's generate")["level"] == level
    assert told.one("between")["figures"]["seen"][0].startswith("nginx")
    assert told.status == int(level == "problem")
    if level == "ok":
        assert {each for check, each in told.levels.items() if check != "names"} <= {"ok", "note"}


@pytest.mark.parametrize(
    ("hold_bytes", "level", "word"), [(10**9, "problem", "arrives within"), (3000, "warning", "lumps of some")]
)
def test_a_buffer(paced: Gateway, hold_bytes: int, level: str, word: str) -> None:
    """Something in between that gathers an answer is not told of, or not how it does."""
    with between(paced.port, hold_bytes=hold_bytes) as it:
        told = doctor(it.url)
    finding = told.one("streams", "chat completions")
    assert (finding["level"], word in finding["says"]) == (level, True), finding
    assert "proxy_buffering off" in finding["todo"]


@with_nginx
def test_nginx_takes_no_large_body(served: Gateway) -> None:
    """Long conversations are refused by a proxy, and nobody knows by whom."""
    with proxy("nginx", [f"127.0.0.1:{served.port}"], changes={"client_max_body_size 5m;": ""}) as front:
        told = doctor(front.url, "--no-questions")
    assert told.one("body size")["level"] == "warning"
    assert "client_max_body_size" in told.one("body size")["todo"]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.skipif(find(kind) is None, reason=f"no {kind}")) for kind in KINDS]
)
def test_a_proxy_without_a_gateway(kind: Kind) -> None:
    """Somebody looks for the fault at the gateway that the proxy does not find."""
    with proxy(kind, [f"127.0.0.1:{free_port()}"]) as front:
        told = doctor(front.url)
    assert (told.status, told.questions) == (1, 0)
    assert told.one("gateway")["level"] == "problem"


# What clients on this machine do otherwise.


def test_proxies_in_the_environment(served: Gateway) -> None:
    """Clients go by way of a proxy that the environment names, and fail, while the doctor says that all is well."""
    nobody = f"http://user:secret@127.0.0.1:{free_port()}"
    told = doctor(served.url, "--no-questions", environment={"HTTP_PROXY": nobody})
    finding = told.one("proxies")
    assert (told.status, finding["level"], finding["figures"]["works"]) == (0, "warning", False)
    assert "secret" not in json.dumps(told.findings)
    assert "NO_PROXY=127.0.0.1" in finding["todo"]
    for name in ("127.0.0.1", "*", f"elsewhere,127.0.0.1:{served.port}"):
        told = doctor(served.url, "--no-questions", environment={"HTTP_PROXY": nobody, "NO_PROXY": name})
        assert told.one("proxies")["level"] == "ok"
    told = doctor(served.url, "--no-questions", environment={"http_proxy": "http://proxy:port"})
    assert told.one("proxies")["level"] == "warning"
    # To this one the gateway is as good as a proxy: it takes a whole address.
    told = doctor(served.url, "--no-questions", environment={"http_proxy": served.url})
    assert (told.one("proxies")["level"], told.one("proxies")["figures"]["works"]) == ("note", True)


@pytest.mark.parametrize(
    ("line", "added", "word"),
    [(b"HTTP/1.1 ", b"HTTP/1.0 ", "HTTP/1.0"), (b"\r\nDate:", b"\r\nConnection: close\r\nDate:", "closed")],
)
def test_connections(served: Gateway, line: bytes, added: bytes, word: str) -> None:
    """An old proxy, or one that closes every connection, is not told of."""
    with between(served.port, answer=lambda data: data.replace(line, added, 1)) as it:
        told = doctor(it.url, "--no-questions")
    assert word in told.one("connection")["says"]
    assert told.one("connection")["level"] in {"note", "warning"}


def test_cancelling_that_does_not_get_through(paced: Gateway) -> None:
    """Something in between reads on for clients that have gone, and the engine works for nobody, unseen."""
    with between(paced.port, reads_on=True) as it:
        told = doctor(it.url, "--metrics", f"127.0.0.1:{paced.metrics}")
    assert told.one("cancelling")["level"] == "warning"
    assert "abortonclose" in told.one("cancelling")["todo"]


def test_metrics_that_are_not_there(paced: Gateway) -> None:
    """A wrong address of the metrics looks like an engine that is not freed."""
    told = doctor(paced.url, "--metrics", f"127.0.0.1:{free_port()}", "--question", "What can you help me with?")
    assert told.one("cancelling")["level"] == "note"
    assert "metrics cannot be read" in told.one("cancelling")["says"]


def test_control_c(served: Gateway) -> None:
    """Who stops the doctor reads a traceback, or waits for the engine."""
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
