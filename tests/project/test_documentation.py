"""What the documentation says of files and tests is so, and its commands and programs do what it shows."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest
import yaml

from architecture import FILES, LEVELS, PLUGIN, module_of
from documented import (
    ENGINE_PORT,
    GATEWAY_PORT,
    PAGES,
    RUN,
    SHELL,
    Block,
    Shell,
    blocks,
    checkout,
    is_as_shown,
    is_covered,
    is_prepared,
)
from paths import ROOT

DRAWING: Final = ROOT / "docs" / "images" / "architecture.svg"
SVG: Final = "{http://www.w3.org/2000/svg}"
LINKING: Final = (*PAGES, ROOT / "CHANGELOG.md")
BLOCKS: Final = tuple(block for page in PAGES for block in blocks(page))
FOLLOWED: Final = tuple(page for page in PAGES if any(block.is_run for block in blocks(page)))

every_page = pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: str(page.relative_to(ROOT)))


def chosen(*languages: str) -> pytest.MarkDecorator:
    """Give the blocks in some languages to a test, one by one."""
    found = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=lambda block: block.place)


def unit(text: str) -> None:
    """Read a unit of systemd's; raises configparser.Error."""
    configparser.ConfigParser(delimiters="=", strict=False, interpolation=None).read_string(text)


def program(text: str) -> None:
    """Read a program in Python; raises SyntaxError."""
    compile(text, "page", "exec")


READ: Final[dict[str, Callable[[str], object]]] = {
    "ini": unit,
    "json": json.loads,
    "python": program,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}
SHOWN: Final = ("md", "text")
"""Nobody types these anywhere."""


def test_every_promise_has_its_test() -> None:
    """A promise would be made that nothing holds."""
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) >= 20
    for row in rows:
        tests = row.rsplit("|", 2)[1]
        file = ""
        for name in re.findall(r"`([^`]+)`", tests):
            file = name.partition("::")[0] or file
            source = (ROOT / "tests" / file).read_text("utf-8")
            if test := name.partition("::")[2]:
                assert f"def {test}(" in source, row
        assert file, row


def test_every_room_is_on_the_map() -> None:
    """Somebody who looks for a module in the architecture's table would not find it."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = page[page.index("| level |") : page.index("*Pure* means")]
    assert {room for room in LEVELS if f"`{room}`" not in table and f"`{room}/`" not in table} == set()


def test_every_room_is_in_the_drawing() -> None:
    """Somebody who looks at the architecture's drawing would miss a room, or look for one that is not there."""
    drawing = ET.parse(DRAWING).getroot()  # noqa: S314 - our own

    def rooms(part: str) -> set[str]:
        texts = drawing.iterfind(f".//{SVG}g[@id='{part}']//{SVG}text[@class='room']")
        return {text.text or "" for text in texts}

    drawn = {room: level for level in range(11) for room in rooms(f"level-{level}")}
    assert drawn.pop(PLUGIN.stem) == 10
    assert drawn == LEVELS, "see the comment in docs/images/architecture.svg"
    modules = {name for path in FILES for name in module_of(path).split("/")}
    assert {"sockets", "routes", "dialects", "engine", "streaming"} <= rooms("way") <= modules


def test_the_drawing_has_words() -> None:
    """Somebody who does not see the drawing would not be told what is in it."""
    drawing = ET.parse(DRAWING).getroot()  # noqa: S314 - our own
    for name in ("title", "desc"):
        found = drawing.find(f"{SVG}{name}")
        assert found is not None
        assert found.text
        assert found.get("id") in drawing.get("aria-labelledby", "").split()


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    """A reader would follow a link to nowhere."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_variables() -> None:
    """A reader would set a variable that nothing looks at."""
    tables = ("settings", "production", "embedded-engine", "command-line")
    known = {
        name
        for page in PAGES
        if page.stem in tables
        for row in re.findall(r"^\| (`[A-Z][^|]*)\|", page.read_text("utf-8"), re.MULTILINE)
        for name in re.findall(r"[A-Z_]+", row)
    }
    # Those of clients are theirs.
    pages = [page.read_text("utf-8") for page in LINKING if page.name != "clients.md"]
    told = {name for page in pages for name in re.findall(r"\b(?:PROXY|BRUNIX)(?:_[A-Z]+)+\b", page)}
    assert len(told) >= 40
    assert told - known == set()


def test_units() -> None:
    """Somebody who copies a unit from the page would get another than the file."""
    page = (ROOT / "docs" / "systemd.md").read_text("utf-8")
    for name in ("brunix-gateway.service", "brunix-gateway.socket"):
        unit = (ROOT / "deploy" / "systemd" / name).read_text("utf-8")
        assert f"```ini\n{unit}```" in page


# What is typed.


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Give the shell of somebody who follows a page."""
    for name in ("bash", "curl", "jq", "make", "pgrep"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    checkout(tmp_path)
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def prepare(shell: Shell, block: Block) -> None:
    """Start what a reader has running before a block, and the page does not tell to start."""
    shell.stop(block.serves)
    if ENGINE_PORT not in block.serves and not shell.is_served(ENGINE_PORT):
        shell.serve("python -m brunix_twisted.embedded", (ENGINE_PORT,))
    if not block.serves and not shell.is_served(GATEWAY_PORT):
        shell.serve("twistd --nodaemon --pidfile= brunix", (GATEWAY_PORT,))


@every_page
def test_commands_and_programs(page: Path, shell: Shell) -> None:
    """Somebody who follows the page would get stuck, or see something else than it shows."""
    for block in blocks(page):
        if not block.is_run:
            continue
        if is_prepared(page):
            prepare(shell, block)
        if block.serves:
            (step,) = block.steps()
            shell.serve(step.command, block.serves, shown=step.shown)
            continue
        for step in block.steps():
            output, status = shell.run(step.command, block.language)
            what = f"{block.place}: {step.command}\n{output}"
            if step.shown is None:
                assert status == 0, what
                assert output or block.language != "python", what
            else:
                assert is_as_shown(output, step.shown), what


@chosen(*RUN)
def test_what_tests_of_its_own_run(block: Block) -> None:
    """Somebody would be told to run what nobody has ever run in any form."""
    for test in block.tests:
        assert re.fullmatch(r"tests/.+\.(py|mjs)|docs/.+\.md|\.ci/run|brunix_twisted/.+\.toml", test), block.place
        assert (ROOT / test).is_file(), block.place
    assert not block.tests or any(re.search(r"(^|/)test_\w+\.py$|^docs/|^\.ci/", test) for test in block.tests), (
        block.place
    )
    if block.tests and block.language in SHELL:
        for command in block.commands():
            assert any(is_covered(command, test) for test in block.tests), f"{block.place}: {command}"


@chosen(*SHELL)
def test_shells_understand_it(block: Block) -> None:
    """Somebody who copies a command would be told of a mistake in it."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    for step in block.steps():
        done = subprocess.run([bash, "-n"], input=step.command, text=True, capture_output=True, check=False)  # noqa: S603 - the reader's
        assert (done.stderr, done.returncode) == ("", 0), step.command


@chosen(*READ)
def test_what_is_copied_can_be_read(block: Block) -> None:
    """Somebody who copies a configuration or a program from the page would be told that it is none."""
    READ[block.language](block.code)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_block_is_held_by_something(block: Block) -> None:
    """A block of code would be on a page that no test looks at."""
    assert block.language in (*RUN, *READ, *SHOWN) or block.tests, f"{block.place}: {block.language!r}"
    assert not (block.serves and not block.is_run), block.place
