"""What ``make coverage`` measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from coverage import CoverageData

from fake_reactor import LIMIT_S
from isolation import unmeasured
from paths import ROOT

CONFIG: Final = ROOT / "pyproject.toml"

# Each imports another module, and ends in another way.
PROGRAMS: Final = {
    "errors.py": "import brunix_twisted.errors, brunix_twisted._pb.brunix_pb2",
    "allowed_hosts.py": "import brunix_twisted.config.allowed_hosts, os; os._exit(0)",
    "cors_origins.py": "import brunix_twisted.config.cors_origins, os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "addresses.py": "import os; os.fork() and os._exit(0); import brunix_twisted.config.addresses",
}

STARTS_THEM: Final = """
import os
import subprocess
import sys

os.chdir("/")
for program in sys.argv[1:]:
    # The end of the pipe is that of all who have it.
    subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE)
"""


def test_processes_are_measured(tmp_path: Path) -> None:
    """Lines that only a process started by a test runs are covered, however that process ends."""
    script = tmp_path / "starts.py"
    script.write_text(STARTS_THEM, "utf-8")
    # These tests may be measured themselves; what they start here is not part of that.
    environment = unmeasured() | {"COVERAGE_FILE": str(tmp_path / "data")}
    for arguments in (
        ("run", f"--rcfile={CONFIG}", str(script), *PROGRAMS.values()),
        ("combine", f"--rcfile={CONFIG}"),
    ):
        subprocess.run(  # noqa: S603 - this interpreter
            [sys.executable, "-m", "coverage", *arguments], env=environment, cwd=tmp_path, check=True, timeout=LIMIT_S
        )
    data = CoverageData(str(tmp_path / "data"))
    data.read()
    measured = {Path(file).name for file in data.measured_files() if data.arcs(file)}
    assert measured >= set(PROGRAMS)
    assert "brunix_pb2.py" not in measured
