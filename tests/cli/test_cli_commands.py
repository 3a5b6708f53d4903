"""``brunix`` itself: its options, what it imports, and how it is installed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from brunix_twisted import __version__
from brunix_twisted.cli.commands import parser
from cli.running import brunix, modules_after

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "command-line.md"
COMMANDS = ("ask", "chat", "connect", "doctor")
# What a client's system may lack, or what would make every command wait.
HEAVY = {"twisted", "grpc", "klein", "msgspec", "google", "opentelemetry", "prometheus_client", "zope"}
POSIX = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_is_there_at_once(arguments: list[str]) -> None:
    """Somebody who wants to look an option up waits for Twisted, gRPC or TLS to be read."""
    loaded = modules_after(arguments)
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert not loaded & {"ssl", "h11", "socket", "asyncio"}


@pytest.mark.parametrize(
    "arguments", [["ask", "hello"], ["doctor"], ["connect", "openai-python"], ["connect"]], ids=" ".join
)
def test_no_command_loads_the_gateway(arguments: list[str]) -> None:
    """A client's machine needs what only the server needs, or a command takes half a second to start."""
    loaded = modules_after([*arguments, *([] if "doctor" in arguments else ["--url", "http://127.0.0.1:1"])])
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert not loaded & {f"brunix_twisted.{room}" for room in ("app", "api", "http", "engine", "dialects", "tap")}


def test_nothing_of_posix_at_the_top() -> None:
    """The command does not start on Windows."""
    for path in (ROOT / "brunix_twisted" / "cli").rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not set(names) & POSIX, path


def test_without_a_command() -> None:
    """Somebody who tries the name alone is not told what there is, or where the gateway is."""
    done = brunix()
    assert done.returncode == 2
    assert all(command in done.stdout for command in COMMANDS)
    assert "twistd brunix" in done.stdout
    assert brunix("--version").stdout == f"brunix {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ask", "q", "--url", "ftp://host"], "ftp://host"),
        (["ask", "q", "--url", "http://"], "no address of a gateway"),
        (["ask", "q", "--header", "no colon"], "a header is written"),
        (["ask", "q", "--header", "A: b\r\nC: d"], "a header is written"),
        (["ask", "q", "--header", "content-length: 5"], "brunix sets content-length itself"),
        (["ask", "q", "--timeout", "soon"], "no number of seconds"),
        (["ask", "q", "--ca", "/nothing/here.pem"], "--ca /nothing/here.pem"),
        (["doctor", "http://host:99999"], "no address of a gateway"),
        (["connect", "openai-python", "--part", "x"], "--part"),
        (["nothing"], "nothing"),
        (["ask", "q", "--ur", "http://host"], "--ur"),
    ],
)
def test_usage(arguments: list[str], told: str) -> None:
    """A mistyped option is taken for another, or answered with a traceback or the wrong status."""
    done = brunix(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_environment() -> None:
    """An address or a key that is set for every command is not heeded, or its mistake not told of by its name."""
    assert "http://127.0.0.1:1" in brunix("ask", "q", environment={"BRUNIX_URL": "127.0.0.1:1/v1"}).stderr
    done = brunix("ask", "q", environment={"BRUNIX_URL": "ldap://host"})
    assert (done.returncode, "BRUNIX_URL: 'ldap://host'" in done.stderr) == (2, True)
    done = brunix("ask", "q", environment={"BRUNIX_API_KEY": "key\x07"})
    assert (done.returncode, "BRUNIX_API_KEY" in done.stderr) == (2, True)


def test_every_option_is_on_the_page() -> None:
    """Somebody who reads the page does not learn of an option, or of one that is none."""
    page = PAGE.read_text("utf-8")
    sections = dict(re.findall(r"^## `brunix (\w+)`\n(.*?)(?=^## )", page + "\n## ", re.DOTALL | re.MULTILINE))
    assert set(sections) == set(COMMANDS)
    common = page[page.index("## Options of every command") : page.index("## `brunix ask`")]
    choices = next(action.choices for action in parser()._actions if action.dest == "command")  # noqa: SLF001 - no other way
    assert choices is not None
    for name, section in sections.items():
        has = {option for action in choices[name]._actions for option in action.option_strings}  # type: ignore[index]  # noqa: SLF001 - likewise
        has -= {"-h", "--help"}
        rows = set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE))
        everywhere = set(re.findall(r"^\| `(--[a-z-]+)", common, re.MULTILINE))
        assert has - everywhere == rows, name
        assert everywhere - has <= {"--url"}, name
