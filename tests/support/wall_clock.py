"""A wall clock that a test sets while a process runs, as an administrator or NTP would; the monotonic clock stays."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs

HOUR_S: Final = 3600

_LIBRARIES: Final = tuple(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

# Stands before every program of Python. It is not what C reads; so it is not what gRPC reads either, which hands times
# of day from the one to the other.
_PYTHON: Final = """
import os, sys, time

def _shifted(read, unit):
    def now():
        if sys._getframe(1).f_globals.get("__name__", "").startswith("grpc"):
            return read()
        with open(os.environ["WALL_CLOCK"]) as file:
            return read() + unit * int(file.read())
    return now

time.time, time.time_ns = _shifted(time.time, 1), _shifted(time.time_ns, 1_000_000_000)
gmtime = time.gmtime
time.gmtime = lambda seconds=None: gmtime(time.time() if seconds is None else seconds)
"""


@attrs.frozen
class WallClock:
    """The clock of the processes that have its environment."""

    path: Path
    environment: dict[str, str]

    def set(self, shift_s: int) -> None:
        """Set the clock, from now on, to so many seconds after the real one."""
        following = self.path.with_suffix(".new")
        following.write_text(f"{shift_s:+d}", "ascii")
        following.rename(self.path)


def in_python(folder: Path) -> WallClock:
    """Set the clock that Python's ``time`` reads: works everywhere."""
    (folder / "clock").mkdir()
    (folder / "clock" / "sitecustomize.py").write_text(_PYTHON, "utf-8")
    path = folder / "clock" / "shift"
    clock = WallClock(path, {"PYTHONPATH": str(folder / "clock"), "WALL_CLOCK": str(path)})
    clock.set(0)
    return clock


def in_everything(folder: Path) -> WallClock | None:
    """Set the clock that the C library reads, for gRPC as well; None where libfaketime is not installed."""
    if not _LIBRARIES:
        return None
    path = folder / "shift"
    clock = WallClock(
        path,
        {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            # It is read each time.
            "FAKETIME_NO_CACHE": "1",
            # The names that the older and the newer releases know it by.
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            "NO_FAKE_STAT": "1",
        },
    )
    clock.set(0)
    return clock
