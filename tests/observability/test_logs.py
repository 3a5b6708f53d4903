"""The log: the line of a request, and the form of everything that is logged."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from twisted.python.failure import Failure

from asking import ask
from brunix_twisted.observability import logs
from brunix_twisted.observability.logs import Format, as_json, log_request, observer, twistd_observer
from fake_reactor import LIMIT_S
from isolation import CLEAN
from log_lines import log_lines
from metrics_table import record
from scripted_engine import ScriptedEngine
from several_processes import serving, watched
from twistd import TWISTD, get, twistd, wait_for_port

LISTEN = "tcp:0:interface=127.0.0.1"


@contextmanager
def written(log_format: Format) -> Iterator[tuple[Logger, io.StringIO]]:
    """Give a logger, and what is written of it."""
    out, publisher = io.StringIO(), LogPublisher()
    publisher.addObserver(observer(lambda lines: out.write(lines.decode()), log_format, lambda: False))
    yield Logger("here", observer=publisher), out


def event_of(*arguments: Any, **fields: Any) -> LogEvent:  # noqa: ANN401 - as in Logger
    events: list[LogEvent] = []
    Logger("here", observer=cast("ILogObserver", events.append)).emit(*arguments, **fields)
    return events[0]


@pytest.mark.parametrize(
    "event",
    [
        event_of(LogLevel.info, "{what} came", what="a request"),
        event_of(LogLevel.warn, "two\nlines"),
        event_of(LogLevel.info, "{line}", line="GET /v1/models 200"),
        event_of(LogLevel.info, "{line}", line="GET / 200\nforged"),
        event_of(LogLevel.critical, "Broken", log_failure=Failure(ValueError("why"))),
        event_of(LogLevel.info, ""),
        event_of(LogLevel.info, "{missing}"),
        event_of(LogLevel.info, "said", log_system="another"),
        {"log_format": "no time, level or namespace"},
        {},
    ],
    ids=count(),
)
def test_text_is_twisteds(event: LogEvent) -> None:
    """A tool that reads twistd's logs cannot read the gateway's."""
    assert logs._as_text(event).decode() == (formatEventAsClassicLogText(event) or "")  # noqa: SLF001 - what each form writes


# The line of a request.


def test_a_line() -> None:
    """An operator could not read from the log what became of a request."""
    with log_lines() as log:
        log_request(record(session="0123456789ab"))
    (line,) = log.of_requests()
    assert re.fullmatch(
        "POST /v1/chat/completions 200 56 bytes 2000[.]0 ms request=req-1 session=0123456789ab match=found "
        "dialect=openai first_ms=1000[.]0 tokens=34 ended=complete",
        line,
    )


def test_the_line_of_a_side_request() -> None:
    """The log says which kind of side request a client made, in the text and in the event's fields."""
    events: list[LogEvent] = []
    keep = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(keep)
    log_request(attrs.evolve(record(), side_request="open-webui/title", trace_id="4bf9"))
    globalLogPublisher.removeObserver(keep)
    (event,) = events
    assert event["line"].endswith(" ended=complete side=open-webui/title trace=4bf9")
    assert event["side"] == "open-webui/title"


def test_a_line_for_somebody_who_left() -> None:
    """A client that left would look like one that was answered."""
    with log_lines() as log:
        log_request(record("/nothing {line} {0}", status=None))
    (line,) = log.of_requests()
    assert line.startswith("POST /nothing {line} {0} gone 56 bytes ")


@pytest.mark.parametrize(("path", "level"), [("/health", "debug"), ("/health/live", "debug"), ("/api/tags", "info")])
def test_health_checks_are_for_who_debugs(path: str, level: str) -> None:
    """The log of a gateway that is probed would hold little but probes."""
    events: list[LogEvent] = []
    keep = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(keep)
    log_request(record(path))
    globalLogPublisher.removeObserver(keep)
    assert [event["log_level"].name for event in events] == [level]


def test_what_is_for_who_debugs_is_not_written() -> None:
    """The probes would be written all the same."""
    with written("text") as (log, out):
        log.debug("a probe")
        log.info("a question")
    assert "a probe" not in out.getvalue()
    assert "[here#info] a question" in out.getvalue()


# JSON.


def test_json() -> None:
    """What reads the log by machine would find no JSON, or not what it looks for."""
    told = json.loads(as_json(event_of(LogLevel.warn, "{who} failed: {why_not}", who="it", why_not=1.23456789)))
    assert told.pop("timestamp").endswith("Z")
    assert told == {
        "level": "warn",
        "logger": "here",
        "message": "it failed: 1.23456789",
        "who": "it",
        "why_not": 1.234568,
    }


def test_time() -> None:
    """Somebody who compares two logs would be off by hours."""
    event = event_of(LogLevel.info, "x") | {"log_time": 1795348800.25}
    assert json.loads(as_json(event))["timestamp"] == "2026-11-22T12:00:00.250Z"


def test_one_line_each() -> None:
    """A text with a line break would become two broken lines, or a line that somebody outside has made up."""
    with written("json") as (log, out):
        log.info("{text}", text='one\n{"level": "critical"}\u2028\x85two\x1b')
        log.info("next")
    lines = out.getvalue().splitlines()
    assert [json.loads(line)["level"] for line in lines] == ["info", "info"]
    assert out.getvalue().isascii()


def test_own_fields_replace_nothing() -> None:
    """A field of an event would be taken for its time, its level or its text."""
    fields = {"timestamp": 1, "level": "fatal", "logger": "elsewhere", "message": "lies"}
    told = json.loads(as_json(event_of(LogLevel.info, "truth") | fields))
    assert (told["level"], told["logger"], told["message"]) == ("info", "here", "truth")
    assert isinstance(told["timestamp"], str)


def test_a_traceback() -> None:
    """An operator could not see where the gateway failed."""
    with written("json") as (log, out):
        try:
            int("no number")
        except ValueError:
            log.failure("It failed")
    told = json.loads(out.getvalue())
    assert told["level"] == "critical"
    assert told["message"].startswith("It failed\nTraceback")
    assert "ValueError" in told["message"]


def test_request_fields() -> None:
    """The figures of a request would have to be picked out of a text."""
    events: list[LogEvent] = []
    keep = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(keep)
    log_request(record(session="0123456789ab"))
    globalLogPublisher.removeObserver(keep)
    told = json.loads(as_json(events[0]))
    assert {
        "request_id": "req-1",
        "endpoint": "/v1/chat/completions",
        "dialect": "openai",
        "status": 200,
        "streamed": True,
        "queue_s": 0.5,
        "first_token_s": 1.0,
        "engine_s": 1.0,
        "total_s": 2.0,
        "tokens": 34,
        "prompt_tokens": 12,
        "calls": ["AskAgentStream UNAVAILABLE", "AskAgentStream OK"],
        "ended": "complete",
        "sent_bytes": 56,
    }.items() <= told.items()
    assert "line" not in told


# Where twistd's options say.


def test_twistd_stdout(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway in the foreground would not log to where its supervisor reads."""
    monkeypatch.setattr(logs, "reactor_runs", lambda: False)
    found = twistd_observer({"nodaemon": True, "logfile": None}, "json")
    assert found is not None
    found(event_of(LogLevel.info, "hello"))
    assert json.loads(capsys.readouterr().out)["message"] == "hello"


@pytest.mark.parametrize(
    "options",
    [
        {"nodaemon": True, "logger": "somebody.elses"},
        # twistd says so, and ends.
        {"nodaemon": False, "logfile": "-"},
    ],
)
def test_left_to_twistd(options: dict[str, Any]) -> None:
    """An option of twistd's own would have no effect."""
    assert twistd_observer(options, "json") is None


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_gateway_that_logs_json(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Some of the log would be no JSON, and whoever reads it by machine stumble."""
    with twistd(tmp_path, PROXY_LOG_FORMAT="json", PROXY_LISTEN=LISTEN, BRUNIX_GRPC_TARGET=engine.target) as process:
        port = wait_for_port(process)
        assert get(port, "/v1/models")[0] == 200
        assert get(port, "/health")[0] == 200
        process.terminate()
        assert process.stdout is not None
        told = objects(process.stdout.read())
    (request,) = [line for line in told if "request_id" in line]
    assert (request["endpoint"], request["status"]) == ("/v1/models", 200)
    assert told[-1]["message"] == "Server Shut Down."


def test_several_processes_log_json_once(tmp_path: Path, engine: ScriptedEngine) -> None:
    """What one of several processes logs would be a text within a text, or stand there twice."""
    with serving(tmp_path, engine, PROXY_LOG_FORMAT="json") as gateway:
        connection = gateway.connect(1)
        assert ask(connection) == "one two "
        connection.close()
        gateway.process.terminate()
        told = objects(gateway.rest())
    (request,) = [line for line in told if line.get("endpoint") == "/api/generate"]
    assert (request["process"], request["status"], request["calls"]) == (1, 200, ["AskAgent OK"])
    assert request["logger"] == "brunix.access"
    assert request["message"].startswith("POST /api/generate 200 ")


@pytest.mark.parametrize(("options", "name"), [((), "twistd.log"), (("--logfile", "a.log"), "a.log")])
def test_a_daemon_logs_json(tmp_path: Path, options: tuple[str, ...], name: str) -> None:
    """A gateway in the background would write another log than one in the foreground, or elsewhere."""
    command = [str(TWISTD), "--pidfile=pid", *options, "brunix", "--listen", LISTEN, "--log-format", "json"]
    subprocess.run(command, cwd=tmp_path, env=CLEAN, check=True, timeout=LIMIT_S)  # noqa: S603 - this environment's own
    pid = int((tmp_path / "pid").read_text())
    with watched(pid) as gone:
        os.kill(pid, signal.SIGTERM)
        gone()
    told = objects((tmp_path / name).read_text())
    assert told[0]["message"].endswith("starting up.")
    assert any(line["message"].startswith("Serving the model") for line in told)
    assert told[-1]["message"] == "Server Shut Down."
