"""How the pages of the documentation are read and followed: what a slip on one of them would come to."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from documented import ENGINE_PORT, GATEWAY_PORT, Block, Shell, blocks, checkout, is_as_shown, is_covered
from fake_reactor import LIMIT_S
from isolation import CLEAN
from leftovers import MARKER, end, new_marker, running
from paths import TESTS

Write = Callable[[str], tuple[Block, ...]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that reads the blocks of a page with this text."""

    def write(text: str) -> tuple[Block, ...]:
        page = tmp_path / "page.md"
        page.write_text(textwrap.dedent(text), "utf-8")
        return blocks(page)

    return write


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    checkout(tmp_path)
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def test_blocks(write: Write) -> None:
    """A comment before a block would be overlooked, or taken for another block's."""
    page = write(
        """\
        # A page

        <!-- tested by tests/http/test_site.py, .ci/run -->
        ```sh
        make run
        ```

        - An item:

          ```python
          print(1)
          ```

        <!-- serves 127.0.0.1:8000 and localhost:50051 -->

        ```sh
        make run
        ```

        <!-- tested by tests/http/test_site.py -->

        A paragraph in between.

        ```sh
        make run
        ```
        """
    )
    assert [(block.line, block.language, block.tests, block.serves, block.is_run) for block in page] == [
        (4, "sh", ("tests/http/test_site.py", ".ci/run"), (), False),
        (10, "python", (), (), True),
        (16, "sh", (), ("8000", "50051"), True),
        (24, "sh", (), (), True),
    ]


def test_a_page_that_is_tested_elsewhere(write: Write) -> None:
    """A page that says what tests it would be run all the same."""
    page = write(
        """\
        # A page

        <!-- all code on this page is tested by tests/http/test_site.py -->

        ```sh
        make run
        ```

        ```js
        main();
        ```
        """
    )
    assert [block.tests for block in page] == [("tests/http/test_site.py",)] * 2
    (made,) = write("<!-- all code on this page is made from a.toml and tested by b.py, c.py -->\n\n```sh\nmake\n```\n")
    assert made.tests == ("a.toml", "b.py", "c.py")


def test_steps(write: Write) -> None:
    """A part of a command would be taken for its output, or the reverse."""
    (block,) = write(
        """\
        ```console
        $ curl -d '{"model": "brunix",
            "prompt": "Hello"}' \\
            http://127.0.0.1:8000
        one
        $ true
        $ echo two
        two
        ```
        """
    )
    assert [(step.command.count("\n"), step.shown) for step in block.steps()] == [(3, "one\n"), (1, ""), (1, "two\n")]
    assert list(block.commands())[1:] == ["true", "echo two"]


@pytest.mark.parametrize(
    ("shown", "output", "same"),
    [
        ("one\ntwo\n", "one\ntwo\n\n", True),
        ("one\ntwo\n", "one\nthree\n", False),
        ("one\n", "one\ntwo\n", False),
        ("one\n…\nfour\n", "one\ntwo\nthree\nfour\n", True),
        ("one\n…\nfour\n", "one\ntwo\nthree\n", False),
        ("it took 6 ms\n", "it took 12.5 ms\n", True),
        ("it took 6 ms\n", "it took very long\n", False),
        ("engine.example:50051 is well\n", "127.0.0.1:50051 is well\n", True),
        ("(a.b) *\n", "(acb) *\n", False),
    ],
)
def test_what_is_as_shown(shown: str, output: str, *, same: bool) -> None:
    """A page could show what no reader will ever see."""
    assert is_as_shown(output, shown) is same
    assert is_as_shown(f"{output}more\n", shown, goes_on=True) is same or shown == "one\n"


def test_what_can_be_about_a_command() -> None:
    """A page could name any test for any command."""
    assert is_covered("make test", ".ci/run")
    assert not is_covered("make tests", ".ci/run")
    assert is_covered("make run", "docs/getting-started.md")
    assert not is_covered("make test", "docs/getting-started.md")
    assert is_covered("systemctl daemon-reload", "tests/system/test_real_systemd.py")
    assert not is_covered("make brunix", "tests/system/test_real_systemd.py")
    assert not is_covered("otelcol-contrib", "tests/system/test_real_systemd.py")


def test_status(shell: Shell) -> None:
    """A command that fails in the middle of a block would be overlooked."""
    assert shell.run("NAME=value\nexport OTHER=more\n") == ("", 0)
    assert shell.run('echo "$NAME"; sh -c \'echo "$OTHER"\'\n') == ("value\nmore\n", 0)
    assert shell.run("false\ntrue\n") == ("", 1)
    assert shell.run("until true; do sleep 1; done\nif false; then true; fi\n") == ("", 0)
    assert shell.run("print(6 * 7)\n", "python") == ("42\n", 0)
    output, status = shell.run("1 / 0\n", "python")
    assert (status, "ZeroDivisionError" in output) == (1, True)
    with pytest.raises(AssertionError, match="ended the shell"):
        shell.run("exit 0\n")


def test_http(shell: Shell) -> None:
    """A page would tell to send what the gateway refuses, and no test would say so."""
    shell.serve("python -m brunix_twisted.embedded\n", (ENGINE_PORT,))
    shell.serve("twistd --nodaemon --pidfile= brunix\n", (GATEWAY_PORT,), shown="…the model brunix on …\n")
    assert shell.run("curl http://127.0.0.1:8000/health\n") == ('{"status":"ok","version":"0.1.0","state":"ok"}', 0)
    output, status = shell.run("curl http://127.0.0.1:8000/api/generate -d '{}'\n")
    assert status == 22, output
    assert '{"error":' in output
    shell.serve("PROXY_MODEL_ID=other twistd --nodaemon --pidfile= brunix\n", (GATEWAY_PORT,))
    assert '"id":"other"' in shell.run("curl http://127.0.0.1:8000/v1/models\n")[0]
    shell.stop((GATEWAY_PORT,))
    assert not shell.is_served(GATEWAY_PORT)
    assert shell.run("curl http://127.0.0.1:8000/v1/models\n")[1] == 7


KILLED = f"""
import os, signal, sys
from pathlib import Path
from documented import Shell, checkout
folder = Path(sys.argv[1])
checkout(folder)
shell = Shell(folder)
shell.serve("make run", ("{GATEWAY_PORT}", "{ENGINE_PORT}"))
print("serves", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_left_when_a_test_is_killed(tmp_path: Path) -> None:
    """The gateway and the engine that a page started end with the tests, also if those are interrupted."""
    marker = new_marker()
    inner = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", KILLED, tmp_path],
        env=CLEAN | {"PYTHONPATH": str(TESTS / "support")} | marker,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    try:
        assert (inner.stdout, inner.returncode) == ("serves\n", -signal.SIGKILL), inner.stderr
        give_up_s = time.monotonic() + LIMIT_S
        # They have no parent here: there is no event for their end.
        while left := running(marker[MARKER]):
            assert time.monotonic() < give_up_s, left
            time.sleep(0.05)
    finally:
        end(running(marker[MARKER]))
