"""What was measured, in docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import report
from figures import number, spread
from servers import ROOT

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- measured: what follows is written by benchmarks/bench.py --write-docs -->"
END = "<!-- the end of what was measured -->"
COLUMNS = ("gateway", "aio", "two", "A", "A+")
FIGURES = 3
CAPTIONS = {
    "throughput": "Whole answers and tokens a second, with quartiles",
    "distributions": "Distributions of the time to the first token, a token's delay and the pause between tokens",
    "streams": "CPU, lateness and memory against the number of open streams",
    "costs": "Memory, CPU and start",
}


def row(cells: Sequence[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(cells)} |"


def measured(document: Mapping[str, Any], shown: Mapping[str, Sequence[str]], pictures: Sequence[Path]) -> str:
    """
    Write what the page says of a run.

    :param document: the results as they are in their file.
    :param shown: of each workload the figures that tell of it, of which the first few are shown.
    """
    machine, versions = document["machine"], document["versions"]
    releases = ", ".join(f"{name} {version}" for name, version in versions.items())
    system = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    lines = [
        f"Measured on {document['date']} with `{document['command']}`, in {document['elapsed_s']:.0f} s.",
        "",
        f"{system}, load average before {machine['load_average']:.2f}; {releases}.",
        "",
        row(("what", "goal", report.MEASURED, "met")),
        "|---|---|---|---|",
        *(row((goal["what"], goal["goal"], goal["measured"], goal["met"])) for goal in document["goals"]),
        "",
        *(f"- {line}" for line in (*document["noise"], *document["proof"])),
        "",
        row(("workload", "figure", *COLUMNS)),
        "|---" * (2 + len(COLUMNS)) + "|",
    ]
    for name, workload in document["workloads"].items():
        for figure in shown[name][:FIGURES]:
            rounds = [workload["rounds"].get(variant, ()) for variant in COLUMNS]
            cells = [cell([each[figure] for each in own if figure in each]) for own in rounds]
            if any(each != "–" for each in cells):
                lines.append(row((f"`{name}`: {workload['workload']['title']}", report.LABELS[figure], *cells)))
    for path in pictures:
        caption = CAPTIONS[path.stem.rpartition("-")[2]]
        lines += ["", f"![{caption}](../{path.relative_to(ROOT).as_posix()})"]
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """A figure with its quartiles."""
    if not values:
        return "–"
    middle = spread(values)
    return f"{number(middle.median)} ({number(middle.low)} – {number(middle.high)})"


def put(page: str, text: str) -> str:
    """
    Put a text between the page's two markers.

    :raises ValueError: they are not there, in this order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page needs these two lines: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
