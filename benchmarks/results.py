"""What was measured, as a file: everything that was counted, and on what, but nothing that names the machine."""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs

import goals
import processes
import report
from figures import paired, significant
from goals import Row, Seen
from servers import ROOT, environment
from variants import BASELINES, LITELLM_BIN
from workloads import Workload

FOLDER = Path(__file__).parent / "results"
# Of the 101 percentiles those that a distribution's plot needs.
KEPT = (0, 1, 2, *range(5, 100, 5), 98, 99, 100)
PACKAGES = (
    *("brunix-twisted", "twisted", "klein", "grpcio", "protobuf"),
    *("fastapi", "starlette", "uvicorn", "httptools", "uvloop"),
)


@attrs.frozen
class Machine:
    """What it ran on, and how busy that was before."""

    cpu: str
    cores: int
    system: str
    python: str
    load_average: float

    @classmethod
    def here(cls) -> Machine:
        """This one, now."""
        system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
        return cls(
            processes.cpu_model(), os.cpu_count() or 1, system, platform.python_version(), processes.load_average()
        )


def versions() -> dict[str, str]:
    """The releases of everything that is compared."""
    found = {name: metadata.version(name) for name in PACKAGES}
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - whichever git there is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found["brunix-twisted"] += f" ({described.stdout.strip() or 'no commit'})"
    asked = "import importlib.metadata as m; print(m.version('litellm'))"
    if LITELLM_BIN.exists():
        said = subprocess.run(
            [LITELLM_BIN / "python", "-c", asked], env=environment(None), capture_output=True, text=True, check=False
        )
        found["litellm"] = said.stdout.strip() or "not there"
    return found


@attrs.frozen
class Results:
    """One run of the benchmark."""

    form: str
    command: str
    machine: Machine
    workloads: tuple[Workload, ...]
    seen: Seen
    rows: tuple[Row, ...]
    proof: tuple[str, ...]
    noise: tuple[str, ...]
    elapsed_s: float

    def document(self) -> dict[str, Any]:
        """All of it as JSON can say it."""
        return {
            "form": self.form,
            "command": self.command,
            "date": datetime.now(UTC).date().isoformat(),
            "elapsed_s": significant(self.elapsed_s),
            "machine": attrs.asdict(self.machine),
            "versions": versions(),
            "goals": [attrs.asdict(row) for row in self.rows],
            "ratios": ratios(self.seen),
            "proof": list(self.proof),
            "noise": list(self.noise),
            "workloads": {
                workload.name: {
                    "workload": attrs.asdict(workload, filter=lambda field, _: field.name not in {"name", "shown"}),
                    "rounds": {
                        variant: [thinned(figures) for figures in rounds]
                        for variant, rounds in self.seen[workload.name].items()
                    },
                }
                for workload in self.workloads
                if workload.name in self.seen
            },
        }

    def write(self) -> Path:
        """Write them to their file."""
        FOLDER.mkdir(exist_ok=True)
        to = FOLDER / f"{self.form}.json"
        text = json.dumps(self.document(), indent=1, ensure_ascii=False)
        # A list of numbers, and then what has nothing but numbers and words, on one line each.
        for pattern in (r"\[\s+([^][{}]*?)\s+\]", r"\{\s+([^][{}]*?)\s+\}"):
            text = re.sub(pattern, _on_one_line, text)
        to.write_text(text + "\n", "utf-8")
        return to


def ratios(seen: Seen) -> list[dict[str, Any]]:
    """Every figure of every gateway, as a multiple of the baselines', round by round."""
    found = []
    for workload, variants in seen.items():
        for variant, baseline in itertools.product(variants, BASELINES):
            if variant in {*BASELINES, *report.BEHIND}:
                continue
            for figure in report.LABELS:
                own, others = (goals.values(seen, workload, each, figure) for each in (variant, baseline))
                if own and len(own) == len(others) and (ratio := paired(own, others)):
                    told = {
                        name: significant(value, 4) if name != "count" else value
                        for name, value in attrs.asdict(ratio).items()
                    }
                    found.append({"workload": workload, "figure": figure, "variant": variant, "by": baseline, **told})
    return found


def _on_one_line(found: re.Match[str]) -> str:
    return found[0][0] + re.sub(r",\s+", ", ", found[1]) + found[0][-1]


def thinned(figures: Mapping[str, Any]) -> dict[str, Any]:
    """One measurement with as many digits, and as many percentiles, as mean something."""
    return {
        name: [significant(value[percent], 4) for percent in KEPT]
        if name.endswith("_percentiles_ms")
        else significant(value)
        if isinstance(value, float)
        else value
        for name, value in figures.items()
    }
