"""
Run the tests again and again, every second time on a busy machine: ``make stress``.

Prints a table with one row a run. Ends with status 1 if a test failed, or if a run left processes behind.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from leftovers import Process, descendants, end

BUSY_LOOP: Final = (sys.executable, "-c", "while True: pass")
_PR_SET_CHILD_SUBREAPER: Final = 36
_SUMMARY: Final = re.compile(r"^(?:=+ )?((?:\d+ \w+, )*\d+ \w+) in [\d.]+s")
_FAILURE: Final = re.compile(r"^(?:FAILED|ERROR) (\S+::.*?|\S+\.py)(?: - |$)")


@attrs.frozen
class Run:
    """One run of the command."""

    number: int
    busy: int
    """How many busy processes were next to it."""
    duration_s: float
    status: int
    counts: Counter[str]
    """Tests by outcome, in the words of pytest, over all pytest runs of the command."""
    failures: list[str]
    left: list[str]
    """What was still running afterwards."""

    @property
    def is_good(self) -> bool:
        """Whether every test passed and nothing was left."""
        return self.status == 0 and not self.failures and not self.left

    def row(self) -> str:
        """Its row of the table."""
        counts = [self.counts[outcome] for outcome in ("passed", "failed", "error", "skipped")]
        cells = [self.number, self.busy, f"{self.duration_s:.0f}", self.status, *counts, len(self.left)]
        return f"| {' | '.join(map(str, cells))} |"


HEAD: Final = (
    "| run | busy processes | seconds | status | passed | failed | errors | skipped | processes left |\n"
    "|-----|----------------|---------|--------|--------|--------|--------|---------|----------------|"
)


def read(output: str) -> tuple[Counter[str], list[str]]:
    """Count the tests by outcome, and list those that failed, in what one or several runs of pytest printed."""
    counts: Counter[str] = Counter()
    failures = []
    for line in output.splitlines():
        if summary := _SUMMARY.match(line):
            for part in summary[1].split(", "):
                number, outcome = part.split()
                counts[outcome.removesuffix("s") if outcome == "errors" else outcome] += int(number)
        elif failure := _FAILURE.match(line):
            failures.append(failure[1])
    return counts, failures


@contextmanager
def busy_processes(number: int) -> Iterator[set[int]]:
    """Keep the machine busy with so many processes, and give their pids."""
    started = [subprocess.Popen(BUSY_LOOP) for _ in range(number)]  # noqa: S603 - this interpreter
    try:
        yield {process.pid for process in started}
    finally:
        for process in started:
            process.kill()
            process.wait()


def _adopt_orphans() -> None:
    # On Linux a daemon becomes a child of the nearest ancestor that asks for it, and so can be found afterwards.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait_for(pid: int) -> int:
    """Return the status of a process, and collect that of every orphan which ends before it."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def run(number: int, command: Sequence[str], busy: int, log: Path) -> Run:
    """Run the command once, with its output in a file."""
    with busy_processes(busy) as busy_pids, log.open("wb") as file:
        began_s = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)  # noqa: S603 - as asked
        try:
            process.returncode = _wait_for(process.pid)
        finally:
            left: set[Process] = {each for each in descendants(os.getpid()) if each.pid not in busy_pids}
            names = sorted(map(str, left))
            end(left)
        duration_s = time.monotonic() - began_s
    counts, failures = read(log.read_text("utf-8", errors="replace"))
    return Run(number, busy, duration_s, process.returncode, counts, failures, names)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says, and return the status."""
    parser = argparse.ArgumentParser(prog="stress.py", description="Run the tests again and again.")
    parser.add_argument("--runs", type=int, default=20, help="how often (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=4, help="busy processes next to every second run (default: 4)")
    parser.add_argument("--command", default="make test", help="what to run (default: %(default)s)")
    parser.add_argument("--logs", type=Path, default=Path(".stress"), help="folder for the output (default: .stress)")
    options = parser.parse_args(arguments)
    options.logs.mkdir(parents=True, exist_ok=True)
    _adopt_orphans()
    print(HEAD, flush=True)  # noqa: T201 - the result
    runs = []
    for number in range(1, options.runs + 1):
        busy = 0 if number % 2 else options.busy
        runs.append(run(number, shlex.split(options.command), busy, options.logs / f"run-{number}.log"))
        print(runs[-1].row(), flush=True)  # noqa: T201 - the result
    for each in runs:
        for failure in each.failures:
            print(f"run {each.number}: {failure}")  # noqa: T201 - the result
        for process in each.left:
            print(f"run {each.number} left: {process}")  # noqa: T201 - the result
    bad = [str(each.number) for each in runs if not each.is_good]
    print(f"{len(runs) - len(bad)} of {len(runs)} runs passed")  # noqa: T201 - the result
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
