"""What was measured, as pictures: SVG that is the same for the same figures, and readable on light and on dark."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

import goals
from figures import spread
from goals import Seen

mpl.use("svg")

# Each colour on white, and what takes its place where the reader's screen is dark.
PAPER, INK, FAINT = "#ffffff", "#1f2328", "#d1d9e0"
ON_DARK = {PAPER: "#0d1117", INK: "#e6edf3", FAINT: "#3d444d"}
COLOURS = {
    "gateway": ("#0969da", "#58a6ff"),
    "aio": ("#1a7f37", "#3fb950"),
    "two": ("#8250df", "#bc8cff"),
    "A": ("#bc4c00", "#f0883e"),
    "A+": ("#bf8700", "#e3b341"),
}
NAMES = {"gateway": "gateway", "aio": "gateway, aio", "two": "gateway, two processes", "A": "A", "A+": "A+"}
STYLE = {
    "svg.hashsalt": "brunix_twisted",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), PAPER),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
Axis = Any
"""Where a panel is drawn; matplotlib has no types here."""
Panel = Callable[[Axis], object]


def dark_style() -> str:
    """The rules that put the other colours in place on a dark screen."""
    pairs = {**ON_DARK, **dict(COLOURS.values())}
    rules = [
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in pairs.items()
        for what in ("fill", "stroke")
    ]
    return "@media (prefers-color-scheme: dark){" + "".join(rules) + "}"


def save(figure: Any, to: Path) -> None:  # noqa: ANN401 - see Axis
    """Write a picture."""
    figure.savefig(to, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    drawn = to.read_text("utf-8").replace("</style>", f"\n{dark_style()}</style>", 1)
    to.write_text(re.sub(r"[ \t]+\n", "\n", drawn), "utf-8")


def variants_of(seen: Seen, workloads: Sequence[str]) -> list[str]:
    """Those that were measured in any of these workloads, in the order of the colours."""
    measured = {variant for workload in workloads for variant in seen.get(workload, {})}
    return [variant for variant in COLOURS if variant in measured]


def bars(axis: Axis, seen: Seen, workloads: Mapping[str, str], figure: str, title: str) -> None:
    """Draw one figure of some workloads: the medians as bars, the quartiles as lines on them."""
    shown = [name for name in workloads if name in seen]
    variants = variants_of(seen, shown)
    width = 0.8 / max(len(variants), 1)
    for place, variant in enumerate(variants):
        for group, workload in enumerate(shown):
            if own := goals.values(seen, workload, variant, figure):
                middle = spread(own)
                reach = [[middle.median - middle.low], [middle.high - middle.median]]
                at = group + (place - (len(variants) - 1) / 2) * width
                axis.bar(at, middle.median, width * 0.9, color=COLOURS[variant][0])
                axis.errorbar(at, middle.median, reach, color=INK, elinewidth=1, capsize=2)
    axis.set_xticks(range(len(shown)), [workloads[name] for name in shown])
    axis.grid(visible=False, axis="x")
    axis.set_title(title)


def logarithmic(axis: Axis) -> None:
    """Count powers of ten across, and write them out."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def curves(axis: Axis, seen: Seen, workload: str, figure: str, title: str) -> Axis:
    """Draw how a figure is distributed: of each percentile the median of the rounds."""
    for variant in variants_of(seen, [workload]):
        if rounds := [each for each in goals.values(seen, workload, variant, figure) if each]:
            percentiles: Sequence[Sequence[float]] = rounds  # type: ignore[assignment]  # a list for each round
            middle = [median(at) for at in zip(*percentiles, strict=True)]
            axis.plot(middle, range(len(middle)), color=COLOURS[variant][0])
    axis.set_xlabel("ms")
    axis.set_title(title)
    return axis


def lines(axis: Axis, seen: Seen, streams: Mapping[str, int], figure: str, title: str) -> None:
    """Draw a figure against the number of streams."""
    for variant in variants_of(seen, list(streams)):
        points = [
            (count, spread(own))
            for workload, count in streams.items()
            if (own := goals.values(seen, workload, variant, figure))
        ]
        counts = [count for count, _ in points]
        middles = [middle.median for _, middle in points]
        reach = [
            [middle.median - middle.low for _, middle in points],
            [middle.high - middle.median for _, middle in points],
        ]
        axis.errorbar(counts, middles, reach, color=COLOURS[variant][0], marker="o", markersize=3, capsize=2)
    axis.set_xlabel("streams open")
    axis.set_title(title)


def picture(panels: Sequence[Panel], variants: Sequence[str], to: Path) -> None:
    """Draw some panels beside each other, and above them which colour is what."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), layout="constrained", squeeze=False)
        for axis, panel in zip(axes[0], panels, strict=True):
            panel(axis)
            axis.set_ylim(bottom=0)
        marks = [plt.Line2D([], [], color=COLOURS[each][0], linewidth=5) for each in variants]
        figure.legend(marks, [NAMES[each] for each in variants], loc="outside upper center", ncols=len(variants))
        save(figure, to)


def draw(seen: Seen, form: str, folder: Path) -> list[Path]:
    """Draw every picture for which there are figures."""
    paced = {f"paced-{count}": count for count in (20, 100, 500, 1000)}
    whole = {f"whole-{count}": f"{count} at a time" for count in (1, 20, 100)}
    flat = {f"stream-flat-{count}": f"{count} at a time" for count in (1, 20, 100)}
    pictures: dict[str, tuple[list[str], list[Panel]]] = {
        "throughput": (
            [*whole, *flat],
            [
                lambda axis: bars(axis, seen, whole, "requests_per_s", "whole answers/s"),
                lambda axis: bars(axis, seen, flat, "tokens_per_s", "tokens/s flat out"),
            ],
        ),
        "distributions": (
            ["first-200", "paced-100"],
            [
                lambda axis: curves(
                    axis, seen, "first-200", "first_percentiles_ms", "first token, 200 opened at once, %"
                ),
                lambda axis: logarithmic(
                    curves(axis, seen, "paced-100", "delay_percentiles_ms", "delay of a token, 100 streams, %")
                ),
                lambda axis: curves(
                    axis, seen, "paced-100", "gap_percentiles_ms", "pause between tokens, 100 streams, %"
                ),
            ],
        ),
        "streams": (
            [*paced, "memory"],
            [
                lambda axis: lines(axis, seen, paced, "cpu_us_per_token", "CPU a token, µs"),
                lambda axis: lines(axis, seen, paced, "late_ms", "last token late by, ms"),
                lambda axis: lines(axis, seen, paced, "resident_mb", "resident memory, MB"),
            ],
        ),
        "costs": (
            ["memory", "start", "whole-20"],
            [
                lambda axis: bars(axis, seen, {"memory": "500 streams"}, "memory_kb_per_stream", "memory a stream, KB"),
                lambda axis: bars(axis, seen, {"memory": "idle"}, "idle_mb", "memory idle, MB"),
                lambda axis: bars(axis, seen, {"whole-20": "20 at a time"}, "cpu_us_per_request", "CPU an answer, µs"),
                lambda axis: bars(axis, seen, {"start": "start"}, "start_s", "start to first answer, s"),
            ],
        ),
    }
    drawn = []
    for name, (workloads, panels) in pictures.items():
        if variants := variants_of(seen, workloads):
            to = folder / f"{form}-{name}.svg"
            picture(panels, variants, to)
            drawn.append(to)
    return drawn
