"""``brunix`` itself: its options, its imports, and its exit status."""

from __future__ import annotations

import ast
import re

import pytest

from brunix_twisted import __version__
from brunix_twisted.cli.commands import parser
from cli_commands import brunix, modules_after
from paths import ROOT

PAGE = ROOT / "docs" / "command-line.md"
COMMANDS = ("ask", "chat", "connect", "mcp", "doctor")
OPERATOR = ("run", "health")
# What a client's machine may lack, or what takes long to import.
HEAVY = {"twisted", "grpc", "klein", "msgspec", "google", "opentelemetry", "prometheus_client", "zope"}
POSIX = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}


@pytest.mark.parametrize(
    "arguments", [["--help"], *([command, "--help"] for command in COMMANDS + OPERATOR)], ids=" ".join
)
def test_help_is_fast(arguments: list[str]) -> None:
    """``--help`` loads neither Twisted, gRPC nor the HTTP client."""
    loaded = modules_after(arguments)
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert not loaded & {"ssl", "h11", "socket", "asyncio"}


@pytest.mark.parametrize(
    "arguments", [["ask", "hello"], ["doctor"], ["connect", "openai-python"], ["connect"]], ids=" ".join
)
def test_no_command_loads_the_gateway(arguments: list[str]) -> None:
    """A command needs nothing that only the gateway needs."""
    loaded = modules_after([*arguments, *([] if "doctor" in arguments else ["--url", "http://127.0.0.1:1"])])
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert not loaded & {f"brunix_twisted.{room}" for room in ("app", "api", "http", "engine", "dialects", "tap")}


def test_no_posix_modules_at_the_top() -> None:
    """The command starts on Windows."""
    for path in (ROOT / "brunix_twisted" / "cli").rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not set(names) & POSIX, path


def test_without_a_command() -> None:
    """Without a command, ``brunix`` lists the commands."""
    done = brunix()
    assert done.returncode == 2
    assert all(command in done.stdout for command in (*COMMANDS, *OPERATOR, "serve"))
    assert brunix("--version").stdout == f"brunix {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ask", "q", "--url", "ftp://host"], "ftp://host"),
        (["ask", "q", "--url", "http://"], "is not a gateway address"),
        (["ask", "q", "--header", "no colon"], "expected 'Name: value'"),
        (["ask", "q", "--header", "A: b\r\nC: d"], "expected 'Name: value'"),
        (["ask", "q", "--header", "content-length: 5"], "brunix sets content-length itself"),
        (["ask", "q", "--timeout", "soon"], "is not a number of seconds"),
        (["ask", "q", "--ca", "/nothing/here.pem"], "--ca /nothing/here.pem"),
        (["doctor", "http://host:99999"], "is not a gateway address"),
        (["connect", "openai-python", "--part", "x"], "--part"),
        (["nothing"], "nothing"),
        (["ask", "q", "--ur", "http://host"], "--ur"),
    ],
)
def test_usage(arguments: list[str], expected: str) -> None:
    """An invalid option is reported with exit status 2 and without a traceback."""
    done = brunix(*arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_environment() -> None:
    """The variables are the defaults of every command, and errors in them name the variable."""
    assert "http://127.0.0.1:1" in brunix("ask", "q", environment={"BRUNIX_URL": "127.0.0.1:1/v1"}).stderr
    done = brunix("ask", "q", environment={"BRUNIX_URL": "ldap://host"})
    assert (done.returncode, "BRUNIX_URL: 'ldap://host'" in done.stderr) == (2, True)
    done = brunix("ask", "q", environment={"BRUNIX_API_KEY": "key\x07"})
    assert (done.returncode, "BRUNIX_API_KEY" in done.stderr) == (2, True)


def test_every_option_is_on_the_page() -> None:
    """The documentation lists exactly the options of each command."""
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
    assert set(choices) == {*COMMANDS, *OPERATOR, "serve"}


@pytest.mark.parametrize("name", OPERATOR)
def test_operators_commands_are_on_their_page(name: str) -> None:
    """The options and exit statuses of `brunix run` and `brunix health` are documented, and no others."""
    page = (ROOT / "docs" / "production.md").read_text("utf-8")
    section = page[page.index(f"## `brunix {name}`\n") :].partition("\n## ")[0]
    text = brunix(name, "--help").stdout
    assert set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) == set(
        re.findall(r"^  (--\w+)", text, re.MULTILINE)
    )
    statuses = re.findall(r"^\| (\d+) \|", section, re.MULTILINE)
    assert statuses == re.findall(r"(?:^  |[:;] )(\d+) ", text[text.index("exit status:") :], re.MULTILINE)
    variables = dict(re.findall(r"^\| `(BRUNIX_\w+)` \| `([^`]+)`", section, re.MULTILINE))
    assert len(variables) == (4 if name == "run" else 0)
    for variable, default in variables.items():
        assert re.search(rf"^  {variable} .*?default:\s+{re.escape(default)}", text, re.MULTILINE | re.DOTALL), variable
