"""The commands of docs/operations.md: run as they stand there, in one shell, and what they print compared."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import pytest

from fake_reactor import LIMIT_S
from test_tap import CLEAN, TWISTD, free_port

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs" / "operations.md").read_text("utf-8")
NOT_RUN: Final = "**Not run here**"
MARK: Final = "\x1f"
"""Stands in no output."""

# What is measured, or chosen by the machine: each is another at each run.
_DIFFERS: Final = re.compile(
    r"""
    \d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:,\d+|\.\d+Z|\+\d{4})    # when
    | \d+(?:\.\d+)?(?=\ ms\b|\ bytes\b)
    | (?<=\bfirst_ms=)[\d.]+ | (?<=\bms=)[\d.]+ | (?<=;dur=)[\d.]+
    | (?<=\btokens=)\d+ | (?<=\bsession=)[0-9a-f]+ | (?<=\bpid\ )\d+ | (?<="pid":\ )\d+
    | (?<="number":)\ ?\d | (?<=Process\ )\d
    """,
    re.VERBOSE,
)
_ANYTHING: Final = "…"


@attrs.frozen
class Step:
    """What is typed, and what the page shows of its output; None: the status has to be 0."""

    command: str
    shown: str | None


def blocks() -> Iterator[tuple[str, str, str]]:
    """Read the blocks of code: the text before each, up to the one before, its language and what is in it."""
    before = ""
    for part in re.split(r"^(```[a-z]+\n.*?^```)$", PAGE, flags=re.MULTILINE | re.DOTALL):
        if part.startswith("```"):
            language, _, code = part[3:-3].partition("\n")
            yield before, language, code
        before = part


def is_run(before: str) -> bool:
    """Whether the paragraph before a block does not say otherwise."""
    return NOT_RUN not in before.strip().split("\n\n")[-1]


def steps() -> Iterator[Step]:
    """Read what is to be typed, in order."""
    for before, language, code in blocks():
        if not is_run(before):
            continue
        if language == "sh":
            yield Step(code, None)
            continue
        assert language == "console"
        for typed in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
            # A line that ends in a backslash goes on.
            found = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*\n)(.*)", typed, re.DOTALL)
            assert found is not None
            yield Step(found[1], found[2])


def pattern(shown: str) -> str:
    """Make an expression of what the page shows: what differs from run to run may differ, the rest may not."""

    def words(text: str) -> str:
        return ".*".join(re.escape(part) for part in text.split(_ANYTHING))

    ends = [0, *(end for found in _DIFFERS.finditer(shown) for end in found.span()), len(shown)]
    texts = [words(shown[begin:end]) for begin, end in zip(ends[::2], ends[1::2], strict=True)]
    return r"[\dTZa-f ,:.+-]+".join(texts)


@pytest.fixture
def environment() -> dict[str, str]:
    """Give the page's shell what a reader's has, and ports of its own."""
    for program in ("bash", "curl", "pgrep"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    path = os.pathsep.join([str(TWISTD.parent), os.environ["PATH"]])
    ports = {name: str(free_port()) for name in ("PORT", "METRICS_PORT", "ENGINE_PORT")}
    return CLEAN | ports | {"PATH": path}


def run(script: str, folder: Path, environment: dict[str, str]) -> str:
    """Run bash on a script; nothing that it started is left."""
    (folder / "page.sh").write_text(script, "utf-8")
    process = subprocess.Popen(
        ["bash", "page.sh"],  # noqa: S607 - the reader's
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=LIMIT_S)[0]
    except subprocess.TimeoutExpired as expired:
        said = expired.output or b""
        told = said.decode() if isinstance(said, bytes) else said
        raise AssertionError(f"A command of the page does not end. What was printed before:\n{told}") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_commands(tmp_path: Path, environment: dict[str, str]) -> None:
    """An operator who follows the page would get stuck, or see something else than it shows."""
    todo = list(steps())
    assert len(todo) >= 20
    script = "".join(f"{step.command}printf '{MARK}%s{MARK}' $?\n" for step in todo)
    printed = run(script, tmp_path, environment)
    for name, usual in (("PORT", "8080"), ("METRICS_PORT", "9464"), ("ENGINE_PORT", "50051")):
        printed = printed.replace(f":{environment[name]}", f":{usual}")
    outputs = printed.split(MARK)
    told = list(zip(outputs[::2], outputs[1::2], strict=False))
    for step, (output, status) in zip(todo, told, strict=False):
        if step.shown is None:
            assert (status, output) == ("0", ""), step.command
        else:
            assert re.fullmatch(pattern(step.shown), output, re.DOTALL), f"{step.command}\n{output}"
    assert len(told) == len(todo)


def test_what_is_not_run_is_tested_elsewhere() -> None:
    """An operator would be told to run what nobody has ever run in any form."""
    left_out = [before.strip().split("\n\n")[-1] for before, _, _ in blocks() if not is_run(before)]
    assert len(left_out) == PAGE.count(NOT_RUN) - 1  # the page's first paragraph says what the words mean
    for paragraph in left_out:
        tests = re.findall(r"`(tests/[^`]+)`", paragraph)
        assert tests, paragraph
        assert all((ROOT / test).is_file() for test in tests), paragraph


def test_what_is_named_exists() -> None:
    """An operator would look for an alert, a metric or a setting that is not there."""
    files = ("docs/metrics.md", "docs/settings.md", "deploy/prometheus/brunix-gateway.rules.yml")
    known = "".join((ROOT / file).read_text("utf-8") for file in files)
    names = set(re.findall(r"\b(?:Brunix[A-Z]\w+|(?:PROXY|BRUNIX)_[A-Z_]+)\b", PAGE))
    watched = re.search(r"^\| number \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert watched is not None
    names |= {f"brunix_gateway_{name}" for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", watched[0])}
    names -= {"brunix_gateway_engine_error"}
    assert len(names) >= 20
    assert {name for name in names if name not in known} == set()
    alerts = set(re.findall(r"- alert: (\w+)", known))
    assert set(re.findall(r"\bBrunix[A-Z]\w+", watched[0])) == alerts
