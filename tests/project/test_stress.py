"""``make stress``: what it counts, and what it finds."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fake_reactor import LIMIT_S
from isolation import CLEAN
from paths import TESTS
from stress import read

STRESS = TESTS / "support" / "stress.py"


def stress(folder: Path, script: str, *arguments: str) -> tuple[int, list[str]]:
    """Run it with a script for the shell in the place of the tests, and return its status and output."""
    (folder / "script").write_text(script, "utf-8")
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, STRESS, f"--command=sh {folder}/script", f"--logs={folder}/logs", *arguments],
        cwd=folder,
        env=CLEAN,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def cells(row: str) -> list[str]:
    """Take a row of the table apart, without the time."""
    found = [cell.strip() for cell in row.strip("|").split("|")]
    return found[:2] + found[3:]


def test_good_runs(tmp_path: Path) -> None:
    """Each run has its row, and every second one runs next to busy processes."""
    status, lines = stress(tmp_path, "echo '3 passed, 1 skipped in 0.10s'; echo '2 passed in 1.00s'", "--runs=4")
    assert [cells(row) for row in lines[2:6]] == [
        [str(number), busy, "0", "5", "0", "0", "1", "0"] for number, busy in ((1, "0"), (2, "4"), (3, "0"), (4, "4"))
    ]
    assert (status, lines[6:]) == (0, ["4 of 4 runs passed"])


def test_a_failure_and_a_process_left_behind(tmp_path: Path) -> None:
    """A failed test is named, and a daemon that a run leaves behind is named and ended."""
    script = """
        (sleep 600 & echo $! >pid)
        echo 'FAILED tests/test_a.py::test_b[c d] - E: no'
        echo '1 failed in 1s'
        exit 1
    """
    status, lines = stress(tmp_path, script, "--runs=1")
    assert cells(lines[2]) == ["1", "0", "1", "0", "1", "0", "0", "1"]
    pid = (tmp_path / "pid").read_text("ascii").strip()
    failed, left, end = lines[3:]
    assert (failed, end) == ("run 1: tests/test_a.py::test_b[c d]", "0 of 1 runs passed")
    assert left.startswith(f"run 1 left: {pid} ")
    assert status == 1
    process = Path(f"/proc/{pid}/stat")
    assert not process.exists() or process.read_text("ascii").rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    ("line", "counts", "failures"),
    [
        ("1 failed, 8224 passed, 3 skipped, 2 errors in 523.10s (0:08:43)", [1, 8224, 3, 2], []),
        ("=========== 1 passed, 1 error in 0.10s ===========", [0, 1, 0, 1], []),
        ("ERROR tests/test_a.py", [0, 0, 0, 0], ["tests/test_a.py"]),
        ("ERROR tests/test_a.py::test_b - RuntimeError: x", [0, 0, 0, 0], ["tests/test_a.py::test_b"]),
        ("All checks passed!", [0, 0, 0, 0], []),
    ],
)
def test_reading(line: str, counts: list[int], failures: list[str]) -> None:
    """What pytest prints is counted as it is meant, for any number of tests and with or without bars."""
    expected = Counter(dict(zip(("failed", "passed", "skipped", "error"), counts, strict=True)))
    assert read(line) == (expected, failures)
