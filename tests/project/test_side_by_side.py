"""Commands that are run at the same time, as ``make test`` runs its own."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from typing import Final

from fake_reactor import LIMIT_S
from paths import TESTS

SCRIPT: Final = TESTS / "support" / "side_by_side.py"


def python(program: str) -> str:
    """Write a command that runs a program."""
    return shlex.join([sys.executable, "-c", program])


def side_by_side(*programs: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, str(SCRIPT), *map(python, programs)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_what_each_writes_stays_together() -> None:
    """A fault that one command reports is torn apart by what another writes, or is not shown."""
    done = side_by_side("print('first')", "import sys; print('a', file=sys.stderr); print('b')", "print('c')")
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if len(line) == 1 or line == "first"]
    assert (lines, done.stderr) == (["first", *sorted(lines[1:3]), "c"], "")


def test_one_that_fails_fails_the_whole() -> None:
    """Lint fails beside tests that pass, and a change with a fault lands."""
    for number in range(3):
        programs = ["print('done')"] * 3
        programs[number] = "print('done'); raise SystemExit(3)"
        done = side_by_side(*programs)
        assert (done.returncode, done.stdout.splitlines().count("done")) == (1, 3)
        assert f"failed: {python(programs[number])}" in done.stdout.splitlines()


def test_all_end_with_it() -> None:
    """What was begun goes on after ``make test`` was stopped."""
    waits = "import signal; print('up', flush=True); signal.pause()"
    script = [sys.executable, str(SCRIPT), python(waits), python(waits)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - as above
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        # Its end is the end of the first one's output too.
        _, stderr = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, "KeyboardInterrupt" in stderr) == (130, True)
