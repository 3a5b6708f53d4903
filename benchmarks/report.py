"""What was measured, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import goals
from figures import number, paired, spread
from goals import Row, Seen
from variants import BASELINES, ENGINE, STUB
from workloads import AGAIN, Workload

LABELS = {
    "requests_per_s": "answers/s",
    "tokens_per_s": "tokens/s",
    "cpu_us_per_request": "CPU an answer, µs",
    "cpu_us_per_token": "CPU a token, µs",
    "instructions_per_token": "instructions a token",
    "voluntary_per_token": "voluntary switches a token",
    "involuntary_per_token": "involuntary switches a token",
    "first_ms": "to the first token, ms",
    "first_p99_ms": "to the first token, p99, ms",
    "delay_ms": "delay of a token, ms",
    "delay_p99_ms": "delay of a token, p99, ms",
    "gap_p99_ms": "pause between tokens, p99, ms",
    "late_ms": "last token late by, ms",
    "complete": "complete answers",
    "memory_kb_per_stream": "memory a stream, KB",
    "idle_mb": "memory idle, MB",
    "threads": "threads",
    "start_s": "to the first answer, s",
}
MEASURED = "measured: median (quartiles) [95 % interval of the median]"
# What is not compared: it stands behind the gateways.
BEHIND = (ENGINE, STUB)


def show(workload: Workload, seen: Seen, elapsed_s: float) -> None:
    """Print one workload's figures: medians, quartiles, and the paired ratios."""
    variants = seen[workload.name]
    rounds = max(map(len, variants.values()), default=0)
    print(f"\n{workload.name}: {workload.title}; {rounds} rounds in {elapsed_s:.0f} s, median (quartiles)")
    width = max(map(len, variants), default=0)
    against = [each for each in variants if each in BASELINES] or list(variants)[:1]
    extra = ("instructions_per_token",) if workload.form == "stream" else ()
    for name in (*workload.shown, *extra):
        for variant in variants:
            if not (own := goals.values(seen, workload.name, variant, name)):
                continue
            middle = spread(own)
            line = f"  {LABELS[name]:<29} {variant:<{width}}  {number(middle.median):>9}"
            line += f" {f'({number(middle.low)} – {number(middle.high)})':<21}"
            for other in against if variant not in BEHIND else ():
                others = goals.values(seen, workload.name, other, name)
                if other != variant and len(others) == len(own) and (found := paired(own, others)):
                    line += f"  {found.median:.2f} × {other} ({found.low:.2f} – {found.high:.2f})"
            print(line.rstrip())
    for variant in variants:
        for number_of_round, figures in enumerate(variants[variant]):
            if figures["failed"]:
                print(f"  {variant}: failed in round {number_of_round + 1}: {figures['failed']}")
    if workload.kind in {"closed", "open"}:
        shares = ", ".join(
            f"{each} {goals.busiest({workload.name: variants}, f'{each}_cpu_share', _compared(variants)):.0%}"
            for each in ("engine", "client")
        )
        print(f"  at the most, of a core: {shares}")


def _compared(variants: Iterable[str]) -> list[str]:
    return [each for each in variants if each not in BEHIND]


def rows(seen: Seen) -> list[Row]:
    """Every goal, with what was measured of it."""
    return [goals.judge(goal, seen) for goal in goals.GOALS]


def table(found: Sequence[Row]) -> list[str]:
    """The goals as aligned text."""
    lines = [("what", "goal", MEASURED, "met"), *map(_cells, found)]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _cells(row: Row) -> tuple[str, str, str, str]:
    return row.what, row.goal, row.measured, row.met


def proof(seen: Seen) -> list[str]:
    """Say that neither the engine nor the client was what limited anything."""
    lines = []
    fastest = max(
        (
            figure
            for workload, variants in seen.items()
            if workload.startswith("stream-flat-")
            for variant in variants
            if variant not in BEHIND
            for figure in goals.values(seen, workload, variant, "tokens_per_s")
        ),
        default=0.0,
    )
    engine = [goals.values(seen, "stream-flat-1", ENGINE, name) for name in ("tokens_per_s", "engine_cpu_share")]
    if fastest and all(engine):
        taken, share = (spread(each).median for each in engine)
        lines.append(
            f"A bare gRPC client, one blocking call on one thread, took {number(taken)} tokens/s from the engine, "
            f"which was busy {share:.0%} of a core with them. At that price a core sends {number(taken / share)} "
            f"tokens/s, {taken / share / fastest:.1f} × the most that came through a server in the same run."
        )
    if fastest and (taken_by_client := goals.values(seen, "stream-flat-20", STUB, "tokens_per_s")):
        taken = spread(taken_by_client).median
        lines.append(
            f"The load client took {number(taken)} tokens/s from the stub, {taken / fastest:.1f} × the most that came "
            f"through a server in the same run."
        )
    compared = sorted({variant for variants in seen.values() for variant in variants if variant not in BEHIND})
    shares = {each: goals.busiest(seen, f"{each}_cpu_share", compared) for each in ("engine", "client")}
    if any(shares.values()):
        lines.append(
            f"In no measurement of a server did the engine take more than {shares['engine']:.0%} of a core, "
            f"or the load client more than {shares['client']:.0%}."
        )
    return lines


def noise(seen: Seen, workloads: Sequence[Workload]) -> list[str]:
    """Say how far two measurements of the same lie apart."""
    return [
        f"The gateway beside itself, {each.workload}, {LABELS[each.figure]}: "
        f"{each.verdict.text.replace(f'× {AGAIN.rstrip(chr(39))}', '×')}"
        for each in goals.noise(seen, workloads, AGAIN)
    ]
