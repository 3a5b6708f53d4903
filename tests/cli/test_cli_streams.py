"""``brunix`` when output cannot be written, input cannot be read, or arguments are not valid UTF-8."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Final

import pytest

from cli_commands import COMMAND, brunix
from cli_gateways import Gateway
from fake_reactor import LIMIT_S
from fake_servers import answering, http
from isolation import CLEAN
from scripted_engine import ScriptedEngine, script

EVERY: Final = [
    *("--help", "--version", "", "ask --help", "connect", "connect --json"),
    *("ask q", "ask q --json", "ask q --no-stream", "chat", "connect llm", "connect --all"),
    *("doctor --no-questions", "doctor --no-questions --json"),
]

every_command = pytest.mark.parametrize("command", EVERY)
# Unbuffered, Python notices the error at once; buffered, possibly only at exit.
buffered_or_not = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])


def redirected(
    command: str, redirection: str, gateway: Gateway, stdin: bytes = b"q\n", unbuffered: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command through a shell that redirects or closes its streams."""
    return subprocess.run(  # noqa: S603 - this interpreter
        ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, *command.split()],  # noqa: S607 - POSIX
        env=CLEAN | {"BRUNIX_URL": gateway.url, "PYTHONUNBUFFERED": unbuffered},
        input=stdin,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )


@cache
def undisturbed(command: str, gateway: Gateway) -> subprocess.CompletedProcess[bytes]:
    """Run a command with usable streams; the result is cached for comparisons."""
    return redirected(command, "", gateway)


# The output.


@every_command
@buffered_or_not
def test_a_full_disk(served: Gateway, command: str, unbuffered: str) -> None:
    """Output that cannot be written is reported in one line, with exit status 1."""
    done = redirected(command, "> /dev/full", served, unbuffered=unbuffered)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"brunix: cannot write the output: No space left on device"
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@every_command
def test_a_closed_output(served: Gateway, shared_engine: ScriptedEngine, command: str) -> None:
    """A command with closed standard output reports it and asks no question."""
    known = len(shared_engine.calls)
    done = redirected(command, ">&-", served)
    assert (done.returncode, done.stderr) == (1, b"brunix: standard output is closed\n")
    assert len(shared_engine.calls) == known


def test_a_full_disk_frees_the_engine(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """The engine call is cancelled if its answer cannot be written."""
    known = len(shared_engine.calls)
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = subprocess.run(  # noqa: S603 - this interpreter
            [*COMMAND, "ask", "--url", served.url, script("one\n", {"hang": True})],
            env=CLEAN,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            check=False,
        )
    assert done.returncode == 1
    assert shared_engine.call(known).ended.wait(LIMIT_S)


@every_command
@pytest.mark.parametrize(("redirection", "unbuffered"), [("2> /dev/full", ""), ("2>&-", "1")], ids=["full", "closed"])
def test_standard_error_cannot_be_written(served: Gateway, command: str, redirection: str, unbuffered: str) -> None:
    """If standard error cannot be written, the output and the exit status are the same."""
    normal = undisturbed(command, served)
    done = redirected(command, redirection, served, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (normal.returncode, b"")
    assert done.stdout.count(b"\n") == normal.stdout.count(b"\n") > 0


@pytest.mark.parametrize("command", ["ask --bad", "ask q --session \x7f", "nothing", "ask", "ask q --model gpt-7"])
@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-"])
def test_a_mistake_that_cannot_be_reported(served: Gateway, command: str, redirection: str) -> None:
    """The exit status reports an error even if standard error cannot be written."""
    done = redirected(command, redirection, served, stdin=b"")
    assert (done.returncode, done.stdout, done.stderr) == (1 if "gpt-7" in command else 2, b"", b"")


@every_command
@buffered_or_not
def test_the_reader_closes_the_pipe(served: Gateway, command: str, unbuffered: str) -> None:
    """A closed pipe ends every command with 141 and without a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter
            [*COMMAND, *command.split()],
            env=CLEAN | {"BRUNIX_URL": served.url, "PYTHONUNBUFFERED": unbuffered},
            input=b"q\n",
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


def test_characters_that_the_output_cannot_encode() -> None:
    """Lone surrogates and characters that the output's encoding lacks are replaced."""
    body = rb'{"choices": [{"message": {"content": "a\ud800b\u20ac"}, "finish_reason": "stop"}]}'
    with answering(http("200 OK", body)) as port:
        url = f"http://127.0.0.1:{port}"
        arguments = ("ask", "q", "--model", "m", "--no-stream", "--url", url)
        done = brunix(*arguments, environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "a?b?\n", "")


# The input.


@pytest.mark.parametrize(("command", "status"), [("ask q", 0), ("ask", 2), ("ask -", 2), ("chat", 0), ("connect", 0)])
def test_a_closed_input(served: Gateway, command: str, status: int) -> None:
    """Closed standard input counts as empty."""
    done = redirected(command, "<&-", served)
    assert (done.returncode, b"Traceback" in done.stderr) == (status, False)


def test_an_input_that_cannot_be_read(served: Gateway) -> None:
    """An input error is reported, not treated as empty input."""
    done = redirected("ask q", "< /proc/self/mem", served)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"brunix ask: cannot read standard input: Input/output error\n"


def test_an_input_without_an_end(served: Gateway) -> None:
    """Endless input is rejected and does not fill the memory."""
    done = redirected("ask q", "< /dev/zero", served)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"brunix ask: the piped text is longer than 64 MiB\n"


def test_an_input_that_is_too_long_for_the_gateway(served: Gateway) -> None:
    """The gateway's rejection is shown even if it arrives before the whole question was sent."""
    done = redirected("ask", "", served, stdin=b"a" * (20 << 20))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"raise PROXY_MAX_BODY_BYTES" in done.stderr


def test_an_undecodable_line_in_a_chat(served: Gateway) -> None:
    """An undecodable line is reported, and the chat continues."""
    done = redirected("chat", "", served, stdin=b"\xff\n/session \xc3\xa9\nhello\n")
    assert (done.returncode, done.stdout.split()) == (0, [b"hello"])
    assert done.stderr.splitlines() == [
        b"[the line is not valid text in this terminal's encoding]",
        b"[a session id must be printable ASCII without spaces]",
    ]


# The arguments and the environment.


def given(*arguments: str | bytes, environment: Mapping[bytes, bytes] | None = None) -> tuple[int, bytes, bytes]:
    """Run the command with arguments and variables of any bytes."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [*COMMAND, *arguments],
        env={os.fsencode(name): os.fsencode(text) for name, text in CLEAN.items()} | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("undecodable", [b"\xff", b"a\xe9", b"\xed\xa0\x80", b"\xf0\x9f\x98"])
def test_an_undecodable_question(served: Gateway, shared_engine: ScriptedEngine, undecodable: bytes) -> None:
    """An undecodable question is reported and not sent."""
    known = len(shared_engine.calls)
    said = b"brunix ask: the question is not valid UTF-8\n"
    assert given("ask", "--url", served.url, undecodable) == (2, b"", said)
    assert len(shared_engine.calls) == known


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ask", "q", "--model", b"\xff"], "--model"),
        (["ask", "q", "--url", b"http://\xff"], "--url"),
        (["chat", "--model", b"\xff"], "--model"),
        (["connect", b"\xff"], "the client"),
        (["doctor", b"\xff"], "the address"),
        (["doctor", "--question", b"\xff"], "--question"),
        (["doctor", "--metrics", b"\xff"], "--metrics"),
        (["ask", "q", "--session", b"\xff"], "--session"),
        (["ask", "q", "--session", "a\nb"], "--session"),
        (["chat", "--session", "\u00e9"], "--session"),
        (["doctor", "--origin", b"http://\xff"], "--origin"),
        (["doctor", "--origin", "http://a\nb"], "--origin"),
        (["ask", "q", "--header", b"A: \xff"], "--header"),
        (["ask", "q", "--timeout", b"\xff"], "--timeout"),
        (["ask", "q", "--ca", b"/nothing/\xff"], "--ca"),
    ],
)
def test_an_undecodable_option(arguments: list[str | bytes], named: str) -> None:
    """An undecodable option is named, without a traceback."""
    status, stdout, stderr = given(*arguments)
    assert (status, stdout) == (2, b"")
    assert named.encode() in stderr.splitlines()[-1]


@pytest.mark.parametrize("variable", [b"BRUNIX_URL", b"BRUNIX_API_KEY"])
@pytest.mark.parametrize("command", [("ask", "q"), ("chat",), ("connect", "llm"), ("doctor",)])
def test_an_undecodable_variable(variable: bytes, command: tuple[str, ...]) -> None:
    """An undecodable variable is named, without a traceback."""
    status, stdout, stderr = given(*command, environment={variable: b"\xff"})
    assert (status, stdout) == (2, b"")
    assert variable in stderr
    assert b"Traceback" not in stderr
