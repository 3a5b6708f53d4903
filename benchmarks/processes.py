"""What processes take of the machine, read from the kernel."""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
import time
from pathlib import Path

import attrs

PROC = Path("/proc")
# The clock of a process's CPU time is named by its number: CPUCLOCK_SCHED of the kernel's posix-timers.h.
_CPUCLOCK_SCHED = 2


@attrs.frozen
class Usage:
    """What some processes together have taken until now."""

    at_s: float
    cpu_s: float
    switches: dict[int, tuple[int, int]]
    """By thread: how often it gave the CPU up, and how often it was taken from it."""
    resident_bytes: int
    threads: int

    def switches_since(self, earlier: Usage) -> tuple[int, int]:
        """Voluntary and involuntary context switches since then, of the threads that there are now."""
        voluntary = involuntary = 0
        for thread, (gave, lost) in self.switches.items():
            gave_before, lost_before = earlier.switches.get(thread, (0, 0))
            voluntary += gave - gave_before
            involuntary += lost - lost_before
        return voluntary, involuntary


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, all its threads, those that have ended among them."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def tree(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for each in found:
        for children in PROC.glob(f"{each}/task/*/children"):
            found += map(int, _read(children).split())
    return found


def _read(path: Path) -> str:
    """Read a file of a thread or process that may have ended."""
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""


def status(text: str) -> dict[str, int]:
    """The numbers of a ``status`` file."""
    lines = (line.partition(":")[::2] for line in text.splitlines())
    return {name: int(value.split()[0]) for name, value in lines if value.split()[:1] and value.split()[0].isdigit()}


def usage(pids: list[int], *, with_switches: bool = True) -> Usage:
    """Look at processes: first at the clocks, which is quick."""
    at_s = time.monotonic()
    spent_s = sum(map(cpu_s, pids))
    switches: dict[int, tuple[int, int]] = {}
    resident_bytes = threads = 0
    for pid in pids:
        whole = status(_read(PROC / str(pid) / "status"))
        resident_bytes += 1024 * whole.get("VmRSS", 0)
        threads += whole.get("Threads", 0)
        if with_switches:
            for path in PROC.glob(f"{pid}/task/*/status"):
                numbers = status(_read(path))
                switches[int(path.parent.name)] = (
                    numbers.get("voluntary_ctxt_switches", 0),
                    numbers.get("nonvoluntary_ctxt_switches", 0),
                )
    return Usage(at_s, spent_s, switches, resident_bytes, threads)


def cpu_model() -> str:
    """What the machine calls its CPU."""
    for line in _read(PROC / "cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def load_average() -> float:
    """How many processes have been running or waiting for the CPU in the last minute."""
    return float(_read(PROC / "loadavg").split()[0])


class Counting:
    """``perf stat`` at work on some processes."""

    EVENT = "instructions"

    def __init__(self, pids: list[int]) -> None:
        """Begin to count."""
        self._process = subprocess.Popen(
            [*self._command(), "-p", ",".join(map(str, pids))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    @classmethod
    def _command(cls) -> list[str]:
        return ["perf", "stat", "--field-separator=,", f"--event={cls.EVENT}"]

    @classmethod
    def usable(cls) -> bool:
        """Whether this machine lets it count."""
        if shutil.which("perf") is None:
            return False
        tried = subprocess.run([*cls._command(), "--", "true"], capture_output=True, text=True, check=False)
        return tried.returncode == 0 and counted(tried.stderr) is not None

    def stop(self) -> float | None:
        """Count no more; returns how many there were, or None when nothing could be counted."""
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate()
        return counted(said)


def counted(said: str) -> float | None:
    """Read what ``perf stat`` says: the number is a line's first field, or there are words in its place."""
    for line in said.splitlines():
        number, comma, _ = line.partition(",")
        if comma and number.replace(".", "").isdigit():
            return float(number)
    return None
