"""
The pages of the documentation as a reader uses them: their blocks of code, and a shell to type them into.

Every block in sh, console, bash or Python is run, from the top of its page to its end, unless a comment in the line
before it says which tests run it, or what it rests on:

    <!-- tested by tests/system/test_proxies.py, .ci/run -->

What stands there is a test, the list of what has to pass before a change lands, or another page on which the same is
run. The same words with ``all code on this page is`` before them, below a page's title, hold for every block of it; a
page that is written by a script says what its code is ``made from … and`` tested by.
A program that goes on running is told of in the same way, by the addresses at which it then answers:

    <!-- serves 127.0.0.1:8000 -->

It is run in the background until another takes the address, or the page ends. Before the first block that asks
somebody there is an engine, and a gateway before it, each with its default settings but for the ports, unless the page
serves them itself, or says that ``nothing runs beforehand``.
"""

from __future__ import annotations

import os
import re
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, Literal

import attrs
from markdown_it import MarkdownIt

from fake_reactor import LIMIT_S
from isolation import CLEAN
from paths import ROOT
from twistd import free_port

PAGES: Final = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "changes/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)

SHELL: Final = ("sh", "console", "bash")
RUN: Final = (*SHELL, "python")
GATEWAY_PORT: Final = "8000"
ENGINE_PORT: Final = "50051"
USUAL_PORTS: Final = (GATEWAY_PORT, ENGINE_PORT, "8080", "9464", "4317")

_PARSER: Final = MarkdownIt("commonmark")
_NAMES: Final = r"([^ ,]+(?:, [^ ,]+)*)"
_TESTED: Final = re.compile(rf"<!-- (all code on this page is )?(?:made from {_NAMES} and )?tested by {_NAMES} -->")
_SERVES: Final = re.compile(r"<!-- serves (\S+:\d+(?: and \S+:\d+)*) -->")
_NOTHING_BEFOREHAND: Final = "<!-- nothing runs beforehand -->"
_MARK: Final = "\x1f"
"""Stands in no output."""

# Machines of the examples.
_EXAMPLE_HOSTS: Final = re.compile(r"\b(?:engine|collector)\.example\b")

# What is measured, or chosen by the machine: each is another at each run.
_DIFFERS: Final = re.compile(
    r"""
    \d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:,\d+|\.\d+Z|\+\d{4})    # when
    | (?<="created":)\d+ | (?<=chatcmpl-)[0-9a-f]{32}
    | \d+(?:\.\d+)?(?=\ ms\b|\ s\b|\ bytes\b)
    | (?<=\bfirst_ms=)[\d.]+ | (?<=\bms=)[\d.]+ | (?<=;dur=)[\d.]+
    | (?<=\btokens=)\d+ | (?<=\bsession=)[0-9a-f]+ | (?<=\bpid\ )\d+ | (?<="pid":\ )\d+
    | (?<="number":)\ ?\d | (?<=Process\ )\d
    """,
    re.VERBOSE,
)
_ANYTHING: Final = "…"

# What every second command has in it says nothing of any of them.
_COMMON: Final = frozenset(("brunix", "docs", "example", "http", "https", "local", "make", "nodaemon", "pidfile"))


@attrs.frozen
class Block:
    """A block of code on a page: in which line it begins, what is in it, and what a comment says of it."""

    page: Path
    line: int
    language: str
    code: str
    tests: tuple[str, ...] = ()
    """And what it is made from, which they read."""
    serves: tuple[str, ...] = ()
    """Ports, as the page has them."""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether it is run where it stands, and not by tests of its own."""
        return self.language in RUN and not self.tests

    def steps(self) -> Iterator[Step]:
        """Read what is to be typed, in order."""
        if self.language != "console":
            yield Step(self, self.code, None)
            return
        for typed in re.split(r"^\$ ", self.code, flags=re.MULTILINE)[1:]:
            lines = typed.splitlines(keepends=True)
            # What is typed goes on while a line ends in a backslash, or a quotation mark is open.
            count = next(count for count in range(1, len(lines) + 1) if _is_whole("".join(lines[:count])))
            yield Step(self, "".join(lines[:count]), "".join(lines[count:]))

    def commands(self) -> Iterator[str]:
        """Read the commands one by one, each in one line."""
        for step in self.steps():
            typed = ""
            for line in step.command.splitlines(keepends=True):
                typed += line
                if _is_whole(typed):
                    if words := shlex.split(typed, comments=True):
                        yield " ".join(words)
                    typed = ""


@attrs.frozen
class Step:
    """What is typed, and what the page shows of its output; None: the status has to be 0."""

    block: Block
    command: str
    shown: str | None


def _is_whole(typed: str) -> bool:
    if typed.endswith("\\\n"):
        return False
    try:
        shlex.split(typed, comments=True)
    except ValueError:
        return False
    return True


def _names(tested: re.Match[str]) -> tuple[str, ...]:
    return tuple(name for names in tested.groups()[1:] if names for name in names.split(", "))


def blocks(page: Path) -> tuple[Block, ...]:
    """Read the blocks of code of a page, those in lists and quotations too."""
    everywhere: tuple[str, ...] = ()
    found = []
    comment = ""
    for token in _PARSER.parse(page.read_text("utf-8")):
        if token.type == "html_block":
            comment = token.content.strip()
            if (tested := _TESTED.search(comment)) and tested[1]:
                everywhere = _names(tested)
        elif token.type == "fence":
            tested, served = _TESTED.search(comment), _SERVES.search(comment)
            ports = re.findall(r":(\d+)", served[1]) if served else ()
            tests = _names(tested) if tested else everywhere
            line = (token.map or [0])[0] + 1
            found.append(Block(page, line, token.info.strip(), token.content, tests, tuple(ports)))
            comment = ""
        elif token.type == "code_block":
            found.append(Block(page, (token.map or [0])[0] + 1, "", token.content))
        elif token.nesting >= 0:
            comment = ""
    return tuple(found)


def is_prepared(page: Path) -> bool:
    """Whether a reader of the page has an engine and a gateway already."""
    return _NOTHING_BEFOREHAND not in page.read_text("utf-8")


def is_covered(command: str, test: str) -> bool:
    """
    Whether a test can be about a command.

    A list of commands has it as it is, a page in a block that is run. A test at least mentions a word of it.
    """
    path = ROOT / test
    if test == ".ci/run":
        return re.search(rf"^{re.escape(command)}$", path.read_text("utf-8"), re.MULTILINE) is not None
    if path in PAGES:
        return any(command in block.commands() for block in blocks(path) if block.is_run and block.language in SHELL)
    words = set(re.findall(r"[a-z]{4,}", command.lower())) - _COMMON
    return not words.isdisjoint(re.findall(r"[a-z]{4,}", path.read_text("utf-8").lower()))


def pattern(shown: str) -> str:
    """Make an expression of what a page shows: what differs from run to run may differ, the rest may not."""

    def words(text: str) -> str:
        return ".*".join(re.escape(part) for part in text.split(_ANYTHING))

    ends = [0, *(end for found in _DIFFERS.finditer(shown) for end in found.span()), len(shown)]
    texts = [words(shown[begin:end]) for begin, end in zip(ends[::2], ends[1::2], strict=True)]
    return r"[\dTZa-f ,:.+-]+".join(texts)


def is_as_shown(output: str, shown: str, *, goes_on: bool = False) -> bool:
    """Whether a reader would take the output for what the page shows; empty lines at the end do not count."""
    expected = pattern(_EXAMPLE_HOSTS.sub("127.0.0.1", shown.rstrip("\n")))
    rest = r"(\n.*)?" if goes_on else ""
    return re.fullmatch(expected + rest, output.rstrip("\n"), re.DOTALL) is not None


def _until(condition: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    """Wait for what tells nobody that it has come."""
    give_up_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up_s, otherwise()
        time.sleep(0.05)


def checkout(folder: Path) -> None:
    """Make the folder that a reader of the pages is in: what the commands name, everything installed."""
    for name in (
        "Makefile",
        "CHANGELOG.md",
        "benchmarks",
        "changes",
        "deploy",
        "docs",
        "entrypoint.sh",
        "pyproject.toml",
        "tests",
    ):
        (folder / name).symlink_to(ROOT / name)
    environment = folder / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if not entry.name.startswith("installed"):
            (environment / entry.name).symlink_to(entry)
    # Newer than pyproject.toml: make has nothing to install.
    for name in ("installed", "installed-dev"):
        (environment / name).touch()
    for name in ("handbook", "notes"):
        (folder / "home" / name).mkdir(parents=True)
        (folder / "home" / name / "coffee.md").write_text("# Coffee\n\nThe machine is on the second floor.\n", "utf-8")


class Shell:
    """
    A bash in which a page is followed, on ports of its own.

    A command that asks over HTTP and gets an error fails, which curl would not do by itself.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {port: str(free_port()) for port in USUAL_PORTS}
        self._count = 0
        self._servers: dict[str, int] = {}
        (folder / "home" / ".curlrc").write_text("fail-with-body\nno-progress-meter\n", "utf-8")
        gateway, engine = self._ports[GATEWAY_PORT], f"127.0.0.1:{self._ports[ENGINE_PORT]}"
        self._process = subprocess.Popen(
            ["bash"],  # noqa: S607 - the reader's
            cwd=folder,
            # Pages show `twistd brunix --check`, which lists every setting that differs from its default.
            env={name: text for name, text in CLEAN.items() if name != "BRUNIX_GRPC_CONNECT_TIMEOUT_S"}
            | {
                "HOME": str(folder / "home"),
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "PROXY_LISTEN": f"tcp:{gateway}:interface=127.0.0.1",
                "BRUNIX_GRPC_TARGET": engine,
                "BRUNIX_ENGINE_LISTEN": engine,
                "BRUNIX_URL": f"http://127.0.0.1:{gateway}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # A test that is killed closes nothing, but its end of the pipe: then bash exits, and stops what it has started.
        self._told("trap 'for leader in $(jobs -p); do kill -TERM -- -$leader; done' EXIT")

    def run(self, command: str, language: str = "sh") -> tuple[str, int]:
        """Run a command as it stands on a page, but for the ports; give what it printed, and how it ended."""
        if language == "python":
            command = f"python {self._written(command, 'py')}\n"
        return self._told(f". ./{self._written(command, 'sh')} </dev/null")

    def serve(self, command: str, ports: tuple[str, ...], *, shown: str | None = None) -> None:
        """Run a command that goes on running, and return once it answers and has printed what the page shows."""
        self.stop(ports)
        script = self._written(command, "sh")
        log = self._folder / f"{script}.log"
        # In a process group of its own, so that it can be stopped with everything that it starts, as Control-C does.
        pid = self._told(f"set -m; . ./{script} </dev/null >{log.name} 2>&1 & set +m; echo $!")[0]
        self._servers |= dict.fromkeys(ports, int(pid))
        _until(
            lambda: (
                all(self._answers(port) for port in ports)
                and (shown is None or is_as_shown(self._as_usual(log.read_text("utf-8")), shown, goes_on=True))
            ),
            lambda: f"{command} does not answer on {', '.join(ports)}, or prints something else:\n{log.read_text()}",
        )

    def is_served(self, port: str) -> bool:
        """Whether somebody was started who answers there."""
        return port in self._servers

    def stop(self, ports: tuple[str, ...]) -> None:
        """Stop who answers on these ports, as a reader does before starting another."""
        for pid in {self._servers[port] for port in ports if port in self._servers}:
            self._told(f"kill -TERM -- -{pid}; wait {pid} 2>/dev/null")
            closed = [port for port, other in self._servers.items() if other == pid]
            # Bash has waited for its own process alone. As long as the program still answers, it would be taken for the
            # next one, which would then be stopped before it has begun: a signal that comes so early can be lost.
            _until(lambda: not any(map(self._listens, closed)), lambda: f"{', '.join(closed)} still answers")  # noqa: B023 - called at once
            self._servers = {port: other for port, other in self._servers.items() if other != pid}

    def close(self) -> None:
        """Leave nothing behind that was started here."""
        with suppress(OSError, AssertionError):
            self.stop(tuple(self._servers))
        for pid in {self._process.pid, *self._servers.values()}:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._process.communicate()

    def _written(self, command: str, suffix: Literal["py", "sh"]) -> str:
        """Write a file of a command, with the ports and machines that there are here."""
        self._count += 1
        for usual, own in self._ports.items():
            command = re.sub(rf"\b{usual}\b", own, command)
        name = f"step-{self._count}.{suffix}"
        (self._folder / name).write_text(_EXAMPLE_HOSTS.sub("127.0.0.1", command), "utf-8")
        return name

    def _as_usual(self, output: str) -> str:
        """Make of what was printed what a reader would see."""
        output = output.replace("\r\n", "\n")
        for usual, own in self._ports.items():
            output = re.sub(rf"\b{own}\b", usual, output)
        return output

    def _listens(self, port: str) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", int(self._ports[port]))):
            return True
        return False

    def _answers(self, port: str) -> bool:
        if port != GATEWAY_PORT:
            return self._listens(port)
        connection = HTTPConnection("127.0.0.1", int(self._ports[port]), timeout=LIMIT_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _told(self, line: str) -> tuple[str, int]:
        """Have bash read a line, and give what was printed and the worst status of all its commands."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        whole = f"failed=0; trap 'failed=$?' ERR; {line}; trap - ERR; printf '{_MARK}%s{_MARK}' $failed\n"
        with suppress(BrokenPipeError):
            self._process.stdin.write(whole.encode())
            self._process.stdin.flush()
        read = b""
        give_up_s = time.monotonic() + LIMIT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while (
                ended := re.fullmatch(rf"(.*){_MARK}(\d+){_MARK}", read.decode(errors="replace"), re.DOTALL)
            ) is None:
                left_s = give_up_s - time.monotonic()
                more = os.read(self._process.stdout.fileno(), 65536) if selector.select(max(0.0, left_s)) else b""
                assert more, f"It does not end, or it ended the shell. What was printed before:\n{read.decode()}"
                read += more
        return self._as_usual(ended[1]), int(ended[2])
