"""``brunix`` with an output that cannot be written, an input that cannot be read, and arguments that are no text."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Final

import pytest

from cli.conftest import Gateway
from cli.running import COMMAND, answering, brunix, http
from fake_reactor import LIMIT_S
from isolation import CLEAN
from scripted_engine import ScriptedEngine, script

EVERY: Final = [
    *("--help", "--version", "", "ask --help", "connect", "connect --json"),
    *("ask q", "ask q --json", "ask q --no-stream", "chat", "connect llm", "connect --all"),
    *("doctor --no-questions", "doctor --no-questions --json"),
]

every_command = pytest.mark.parametrize("command", EVERY)
# Python writes at once, or gathers what is written and meets the fault at its end.
buffered_or_not = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])


def redirected(
    command: str, redirection: str, gateway: Gateway, stdin: bytes = b"q\n", unbuffered: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command by way of a shell, which redirects or closes its streams."""
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
    """Run a command whose streams are as they should be; once, for all that is compared with it."""
    return redirected(command, "", gateway)


# The output.


@every_command
@buffered_or_not
def test_a_full_disk(served: Gateway, command: str, unbuffered: str) -> None:
    """An output that cannot be written is reported in one line, and is no success."""
    done = redirected(command, "> /dev/full", served, unbuffered=unbuffered)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"brunix: the output cannot be written: No space left on device"
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@every_command
def test_a_closed_output(served: Gateway, shared_engine: ScriptedEngine, command: str) -> None:
    """A command whose output is closed says so, and asks no question whose answer could not be written."""
    known = len(shared_engine.calls)
    done = redirected(command, ">&-", served)
    assert (done.returncode, done.stderr) == (1, b"brunix: the standard output is closed\n")
    assert len(shared_engine.calls) == known


def test_a_full_disk_frees_the_engine(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """An answer that cannot be written is cancelled."""
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
@buffered_or_not
@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-"])
def test_what_stands_beside_the_output_cannot_be_written(
    served: Gateway, command: str, redirection: str, unbuffered: str
) -> None:
    """The output is whole and the status right though nothing can be said beside it."""
    normal = undisturbed(command, served)
    done = redirected(command, redirection, served, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (normal.returncode, b"")
    assert done.stdout.count(b"\n") == normal.stdout.count(b"\n") > 0


@pytest.mark.parametrize("command", ["ask --bad", "ask q --session \x7f", "nothing", "ask", "ask q --model gpt-7"])
@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-"])
def test_a_mistake_that_cannot_be_reported(served: Gateway, command: str, redirection: str) -> None:
    """The status says that something is wrong where the words cannot."""
    done = redirected(command, redirection, served, stdin=b"")
    assert (done.returncode, done.stdout, done.stderr) == (1 if "gpt-7" in command else 2, b"", b"")


@every_command
@buffered_or_not
def test_the_reader_has_gone(served: Gateway, command: str, unbuffered: str) -> None:
    """Before ``| head -1`` no command leaves a traceback behind, and all end as SIGPIPE ends a program."""
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


def test_an_answer_that_the_output_cannot_show() -> None:
    """A lone surrogate, or a character that the output's encoding lacks, does not end an answer."""
    body = rb'{"choices": [{"message": {"content": "a\ud800b\u20ac"}, "finish_reason": "stop"}]}'
    with answering(http("200 OK", body)) as port:
        url = f"http://127.0.0.1:{port}"
        arguments = ("ask", "q", "--model", "m", "--no-stream", "--url", url)
        done = brunix(*arguments, environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "a?b?\n", "")


# The input.


@pytest.mark.parametrize(("command", "status"), [("ask q", 0), ("ask", 2), ("ask -", 2), ("chat", 0), ("connect", 0)])
def test_a_closed_input(served: Gateway, command: str, status: int) -> None:
    """A command that is started without an input, as some schedulers do it, finds an empty one."""
    done = redirected(command, "<&-", served)
    assert (done.returncode, b"Traceback" in done.stderr) == (status, False)


def test_an_input_that_cannot_be_read(served: Gateway) -> None:
    """An input that fails is not taken for an empty one."""
    done = redirected("ask q", "< /proc/self/mem", served)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"brunix ask: the standard input cannot be read: Input/output error\n"


def test_an_input_without_an_end(served: Gateway) -> None:
    """A device in place of a file does not fill the memory."""
    done = redirected("ask q", "< /dev/zero", served)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"brunix ask: what was piped in is longer than 64 MiB\n"


def test_an_input_that_is_too_long_for_the_gateway(served: Gateway) -> None:
    """The gateway's refusal is read, though it came before all of the question had been sent."""
    done = redirected("ask", "", served, stdin=b"a" * (20 << 20))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"raise PROXY_MAX_BODY_BYTES" in done.stderr


def test_a_line_of_a_chat_that_is_no_text(served: Gateway) -> None:
    """A line that cannot be decoded is reported, and the chat goes on."""
    done = redirected("chat", "", served, stdin=b"\xff\n/session \xc3\xa9\nhello\n")
    assert (done.returncode, done.stdout.split()) == (0, [b"hello"])
    assert done.stderr.splitlines() == [
        b"[that was no text in this terminal's encoding]",
        b"[a session's id is printable ASCII, without spaces]",
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


@pytest.mark.parametrize("no_text", [b"\xff", b"a\xe9", b"\xed\xa0\x80", b"\xf0\x9f\x98"])
def test_a_question_that_is_no_text(served: Gateway, shared_engine: ScriptedEngine, no_text: bytes) -> None:
    """An undecodable question is reported as what it is, and the gateway is not asked."""
    known = len(shared_engine.calls)
    said = b"brunix ask: the question holds bytes that are no UTF-8 text\n"
    assert given("ask", "--url", served.url, no_text) == (2, b"", said)
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
def test_an_option_that_is_no_text(arguments: list[str | bytes], named: str) -> None:
    """An undecodable option is named, without a traceback."""
    status, stdout, stderr = given(*arguments)
    assert (status, stdout) == (2, b"")
    assert named.encode() in stderr.splitlines()[-1]


@pytest.mark.parametrize("variable", [b"BRUNIX_URL", b"BRUNIX_API_KEY"])
@pytest.mark.parametrize("command", [("ask", "q"), ("chat",), ("connect", "llm"), ("doctor",)])
def test_a_variable_that_is_no_text(variable: bytes, command: tuple[str, ...]) -> None:
    """An undecodable variable is named, without a traceback."""
    status, stdout, stderr = given(*command, environment={variable: b"\xff"})
    assert (status, stdout) == (2, b"")
    assert variable in stderr
    assert b"Traceback" not in stderr
