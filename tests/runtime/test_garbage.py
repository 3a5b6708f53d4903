"""How often a process that serves collects its garbage."""

from __future__ import annotations

import subprocess
import sys

_PRINT_SETTINGS = """
import gc
from brunix_twisted.runtime.garbage import collect_less_often
cycle = []
cycle.append(cycle)
collect_less_often()
print(gc.get_threshold()[0], gc.get_freeze_count() > 0, gc.isenabled())
"""


def test_it_collects_less_often() -> None:
    """An eighth of the reactor's time goes into looking for garbage among what stays."""
    command = [sys.executable, "-c", _PRINT_SETTINGS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - its own code
    assert done.stdout.split() == ["10000", "True", "True"]
