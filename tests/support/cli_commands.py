"""Run the command line as a process, and read what it reports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from fake_reactor import LIMIT_S
from isolation import CLEAN, NOBODY, unmeasured

COMMAND: Final = (sys.executable, "-m", "brunix_twisted")


def brunix(
    *arguments: str, stdin: str | bytes | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, by default with empty standard input."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [*COMMAND, *arguments],
        env=CLEAN | dict(environment or {}),
        input=stdin.encode() if isinstance(stdin, str) else stdin or b"",
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@attrs.frozen
class DoctorReport:
    """The JSON output of the doctor."""

    status: int
    findings: list[dict[str, Any]]
    questions: int

    def one(self, check: str, word: str = "") -> dict[str, Any]:
        """Return the only finding of a check that contains this word."""
        found = [each for each in self.findings if each["check"] == check and word in each["says"]]
        assert len(found) == 1, f"{check}: {self.findings}"
        return found[0]

    @property
    def levels(self) -> dict[str, str]:
        """The worst level of each check."""
        order = ["ok", "note", "warning", "problem"]
        worst: dict[str, str] = {}
        for each in self.findings:
            worst[each["check"]] = max(worst.get(each["check"], "ok"), each["level"], key=order.index)
        return worst


def doctor(*arguments: str, environment: Mapping[str, str] | None = None) -> DoctorReport:
    """Run the doctor, and parse its report."""
    done = brunix("doctor", "--json", *arguments, environment=environment)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["status"] == done.returncode
    return DoctorReport(done.returncode, report["findings"], report["questions"])


def modules_after(arguments: Sequence[str]) -> set[str]:
    """Return the names of all modules that are loaded after a command."""
    script = (
        "import sys\n"
        "from brunix_twisted.cli.commands import run\n"
        "try:\n"
        f"    run({list(arguments)!r}, {{'BRUNIX_URL': 'http://{NOBODY}'}})\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", script],
        env=unmeasured(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    return set(done.stderr.split())
