"""The engine as a separate process."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from fake_reactor import LIMIT_S
from isolation import CLEAN
from twistd import free_port

Start = Callable[..., "subprocess.Popen[str]"]

LISTENING = re.compile(r"embedded engine listening on (\S+): (\d+) passages of (\d+) documents\n")


@pytest.fixture
def start(corpus: Path, questions_file: Path, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts the engine on a free port, with the given options and variables changed."""
    started: list[subprocess.Popen[str]] = []

    def run(*argv: str, ignoring: str = "", stdout: int = subprocess.PIPE, **environ: str) -> "subprocess.Popen[str]":
        usual = {
            "BRUNIX_ENGINE_LISTEN": "localhost:0",
            "BRUNIX_DOCS": str(corpus),
            "BRUNIX_GOLDEN": str(questions_file),
        }
        ignorant = ["sh", "-c", f'trap \'\' {ignoring}; exec "$0" "$@"'] if ignoring else []
        process = subprocess.Popen(  # noqa: S603 - the engine under test
            [*ignorant, sys.executable, "-m", "brunix_twisted.embedded", *argv],
            env=CLEAN | usual | environ,
            cwd=tmp_path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def invalid_files(tmp_path: Path, golden_line: Callable[..., str]) -> None:
    """Create invalid documents and golden files in the engine's working directory."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "page.md").write_text("# Only a heading\n")
    (tmp_path / "malformed").write_text(f"{golden_line()}\n{{}}\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")


def listening(process: "subprocess.Popen[str]") -> re.Match[str]:
    """Wait for the line that a started engine prints."""
    assert process.stdout is not None
    match = LISTENING.fullmatch(process.stdout.readline())
    assert match is not None
    return match


def ask(stub: brunix_pb2_grpc.AssistanceEngineStub) -> str:
    return "".join(
        message.text for message in stub.AskAgent(brunix_pb2.AgentRequest(query="What is a checkpoint?"), timeout=20)
    )


def test_log_is_not_read(start: Start) -> None:
    """The engine answers while its standard error is not read, and SIGTERM stops it."""
    process = start()
    assert process.stderr is not None
    fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    with grpc.insecure_channel(listening(process)[1]) as channel:
        stub = brunix_pb2_grpc.AssistanceEngineStub(channel)
        for _ in range(100):
            assert ask(stub)
    process.terminate()
    assert process.wait(60) == 0


def test_ignored_signals(start: Start) -> None:
    """SIGUSR1 has no effect, and neither has SIGHUP under nohup."""
    process = start(ignoring="HUP")
    with grpc.insecure_channel(listening(process)[1]) as channel:
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGHUP)
        assert ask(brunix_pb2_grpc.AssistanceEngineStub(channel))
    process.terminate()
    assert process.wait(60) == 0


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_start_answer_stop(start: Start, stop: signal.Signals) -> None:
    """The engine starts, answers, stops with status 0 on each stop signal, and logs one line per call."""
    process = start()
    address, passages, documents = listening(process).groups()
    assert (int(passages), int(documents)) == (45, 10)
    with grpc.insecure_channel(address) as channel:
        stub = brunix_pb2_grpc.AssistanceEngineStub(channel)
        *_, last = stub.AskAgentStream(brunix_pb2.AgentRequest(query="What is a checkpoint?"), timeout=20)
    assert last.is_final
    process.send_signal(stop)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == ""
    assert re.fullmatch(r"\S+ \S+ INFO AskAgentStream request=- outcome=OK tokens=\d+ ms=[\d.]+\n", errors)


def test_a_stop_signal_before_the_engine_waits_for_one(start: Start) -> None:
    """SIGTERM stops an engine that has not printed its address yet, with status 0."""
    address = f"127.0.0.1:{free_port()}"
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as output:
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        # The engine serves on its other threads, while the main one cannot print.
        process = start("--listen", address, stdout=writer)
        os.close(writer)
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(LIMIT_S)
        process.terminate()
        assert b"embedded engine listening" in output.read()
    assert process.wait(LIMIT_S) == 0


def test_stop_during_a_stream(start: Start) -> None:
    """A stop during a stream ends the call, with status 0 and no traceback."""
    process = start("--tokens-per-second", "0.001")
    with grpc.insecure_channel(listening(process)[1]) as channel:
        stub = brunix_pb2_grpc.AssistanceEngineStub(channel)
        call = stub.AskAgentStream(brunix_pb2.AgentRequest(query="What is a checkpoint?"), timeout=60)
        next(call)
        process.terminate()
        with pytest.raises(grpc.RpcError):
            next(call)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_evaluation_report(start: Start) -> None:
    """--evaluate prints a line per question and the figures."""
    out, _ = start("--evaluate").communicate(timeout=60)
    lines = out.splitlines()
    assert re.fullmatch(r"question +rank  source", lines[0])
    assert any(
        re.fullmatch(r"How do I run a job every quarter of an hour\? +\d+  cron\.md#the-five-fields", each)
        for each in lines
    )
    assert sum(bool(re.fullmatch(r"(hit@1|hit@3|MRR): [01]\.\d{3}", each)) for each in lines) == 3


def test_evaluation_exit_status(start: Start) -> None:
    """--evaluate exits with status 0."""
    process = start("--evaluate")
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_default_documents(start: Start) -> None:
    """Without settings, the engine serves the project's documentation."""
    process = start(BRUNIX_DOCS="", BRUNIX_GOLDEN="")
    assert int(listening(process)[2]) > 0


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("BRUNIX_DOCS", "/no/such/folder", "an existing folder"),
        ("BRUNIX_DOCS", "empty", "documents with text"),
        ("BRUNIX_GOLDEN", "/no/such/file", "a readable file"),
        ("BRUNIX_GOLDEN", "empty", "a readable file"),
        ("BRUNIX_GOLDEN", "malformed", "line 2: "),
        ("BRUNIX_GOLDEN", "binary", "UTF-8"),
        ("BRUNIX_ENGINE_LISTEN", "nonsense", "host:port"),
        ("BRUNIX_ENGINE_LISTEN", "192.0.2.1:0", "of this machine"),
        ("BRUNIX_ENGINE_TOKENS_PER_SECOND", "fast", "a number"),
    ],
)
def test_invalid_option(start: Start, invalid_files: None, name: str, value: str, allowed: str) -> None:
    """An invalid option is reported in one line that names it, with status 2."""
    del invalid_files  # in the engine's working directory
    process = start(**{name: value})
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert out == ""
    assert re.fullmatch(
        rf"embedded engine: {name} \(--[a-z-]+\) is '{value}': [^\n]*{re.escape(allowed)}[^\n]*\n", errors
    )


def wait_for(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Wait for a line on standard error that contains the pattern."""
    assert process.stderr is not None
    return next(line for line in process.stderr if re.search(pattern, line))


def test_a_broken_file_is_reported_and_skipped(start: Start, tmp_path: Path) -> None:
    """Files that cannot be read do not stop the engine: each is named with the reason, and the others are answered."""
    (tmp_path / "coffee.md").write_text("# Coffee\n\nThe coffee machine is on the second floor.\n")
    (tmp_path / "broken.docx").write_bytes(b"nonsense")
    (tmp_path / "slides.pptx").write_bytes(b"nonsense")
    (tmp_path / "unreadable.md").symlink_to("/proc/self/mem")
    process = start(BRUNIX_DOCS=".")
    address, passages, documents = listening(process).groups()
    assert (int(passages), int(documents)) == (1, 1)
    with grpc.insecure_channel(address) as channel:
        stub = brunix_pb2_grpc.AssistanceEngineStub(channel)
        messages = list(stub.AskAgent(brunix_pb2.AgentRequest(query="Where is the coffee machine?"), timeout=20))
    assert "second floor" in messages[0].text
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    reported = [line.partition("WARNING ")[2] for line in errors.splitlines() if "WARNING" in line]
    assert reported == [
        "skipped files of types that are not read: 1 .pptx",
        "skipped broken.docx: it is no Word file, or is protected with a password",
        "skipped unreadable.md: Input/output error",
    ]


def test_a_changed_file_is_read_again(start: Start, tmp_path: Path) -> None:
    """A file that is added, changed or removed changes the answers and the sample questions, without a restart."""
    page = tmp_path / "coffee.md"
    page.write_text("# Coffee\n\n## Cleaning the machine\n\nThe machine is cleaned on Mondays.\n")
    process = start(BRUNIX_DOCS=str(tmp_path))
    address = listening(process)[1]
    with grpc.insecure_channel(address) as channel:
        stub = brunix_pb2_grpc.AssistanceEngineStub(channel)

        def answer(question: str) -> str:
            return "".join(
                each.text
                for each in stub.AskAgent(brunix_pb2.AgentRequest(query=question), timeout=20, wait_for_ready=True)
            )

        assert "Mondays" in answer("When is the machine cleaned?")
        page.write_text("# Coffee\n\n## Cleaning the machine\n\nThe machine is cleaned on Fridays.\n")
        wait_for(process, "documents changed: 1 passages of 1")
        assert "Fridays" in answer("When is the machine cleaned?")
        (tmp_path / "tea.html").write_text("<h1>Tea</h1><p>The teapot is in the kitchen.")
        wait_for(process, "documents changed: 2 passages of 2")
        assert "kitchen" in answer("Where is the teapot?")
        page.unlink()
        wait_for(process, "documents changed: 1 passages of 1")
        assert "Fridays" not in answer("When is the machine cleaned?")
        health = health_pb2_grpc.HealthStub(channel)
        _, call = health.Check.with_call(health_pb2.HealthCheckRequest(), timeout=20)  # type: ignore[attr-defined]  # not in its types
        assert dict(call.trailing_metadata())["brunix-sample-questions-bin"] == b'["What should I know about Tea?"]'
    process.terminate()
    assert process.wait(60) == 0


def test_port_in_use(start: Start) -> None:
    """A port that is in use is reported in one line, with status 2."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        process = start(BRUNIX_ENGINE_LISTEN=f"localhost:{stranger.getsockname()[1]}")
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert re.fullmatch(r"embedded engine: BRUNIX_ENGINE_LISTEN [^\n]* free port \(Address already in use\)\n", errors)


def test_two_engines_cannot_share_a_port(start: Start) -> None:
    """A second engine on the same port does not start."""
    address = listening(start())[1]
    _, errors = start(BRUNIX_ENGINE_LISTEN=address).communicate(timeout=20)
    assert "Address already in use" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("text", ["what ", "SELECT id FROM users WHERE open = 'x';\n"])
def test_megabytes_do_not_block_the_engine(start: Start, text: str) -> None:
    """While questions of a megabyte arrive, other callers and health checks are served, and SIGTERM ends it."""
    process = start()
    question = text * (1_000_000 // len(text))
    with grpc.insecure_channel(listening(process)[1]) as channel:
        stub = brunix_pb2_grpc.AssistanceEngineStub(channel)
        calls = [stub.AskAgentStream(brunix_pb2.AgentRequest(query=question), timeout=60) for _ in range(8)]
        health: Any = health_pb2_grpc.HealthStub(channel)  # the generated stub has no annotations
        checked = health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        assert list(stub.AskAgent(brunix_pb2.AgentRequest(query="What does git stash do?"), timeout=20))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        for call in calls:
            call.cancel()
