"""What the gateway is to reach, and whether it did; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from figures import number, paired, spread
from workloads import Workload

# Of fewer rounds an interval would say nothing.
SURE_ROUNDS = 5

Seen = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""What was measured: by workload, by variant, round by round."""


@attrs.frozen
class Verdict:
    """What was measured of a goal."""

    text: str
    met: bool


Check = Callable[[Seen], Verdict | None]
"""None: what it looks at has not been measured."""


@attrs.frozen
class Goal:
    """One row of the table."""

    what: str
    goal: str
    checks: tuple[Check, ...]


@attrs.frozen
class Row:
    """One goal as it is shown."""

    what: str
    goal: str
    measured: str
    met: str
    """*yes*, *no*, or *not measured*."""


def values(seen: Seen, workload: str, variant: str, figure: str) -> list[float]:
    """One figure round by round; empty where it was not measured."""
    return [figures[figure] for figures in seen.get(workload, {}).get(variant, ()) if figure in figures]


def ratio(  # noqa: PLR0913 - what is compared, with what, and what it is to be
    workload: str, figure: str, variant: str, baseline: str, *, at_most: float | None = None, at_least: float = 0
) -> Check:
    """Compare a figure with a baseline's, round by round."""

    def check(seen: Seen) -> Verdict | None:
        own, others = values(seen, workload, variant, figure), values(seen, workload, baseline, figure)
        if len(own) != len(others) or (found := paired(own, others)) is None:
            return None
        text = f"{found.median:.2f} × {baseline} ({found.low:.2f} – {found.high:.2f})"
        if found.count >= SURE_ROUNDS:
            text += f" [{found.sure_low:.2f} – {found.sure_high:.2f}]"
        return Verdict(text, at_least <= found.median and (at_most is None or found.median <= at_most))

    return check


def most(workload: str, figure: str, variant: str, limit: float, unit: str) -> Check:
    """Hold a figure to a limit."""

    def check(seen: Seen) -> Verdict | None:
        if not (own := values(seen, workload, variant, figure)):
            return None
        middle = spread(own)
        text = f"{number(middle.median)} {unit} ({number(middle.low)} – {number(middle.high)})"
        return Verdict(text, middle.median <= limit)

    return check


def complete(workload: str, variant: str, connections: int) -> Check:
    """See that every answer of every round was complete."""

    def check(seen: Seen) -> Verdict | None:
        if not (own := values(seen, workload, variant, "complete")):
            return None
        worst = int(min(own))
        late = values(seen, workload, variant, "late_ms")
        text = ("all" if worst == connections else f"only {worst:,} of {connections:,}") + " complete"
        if late:
            text += f", {number(spread(late).median)} ms late"
        return Verdict(text, worst == connections)

    return check


def added(workload: str, limit: float) -> Check:
    """Compare what the gateway adds to a bare gRPC call with what LiteLLM's proxy adds to its stub."""

    def check(seen: Seen) -> Verdict | None:
        times = [values(seen, workload, variant, "first_ms") for variant in ("gateway", "engine", "litellm", "stub")]
        if not times[0] or len({len(each) for each in times}) != 1:
            return None
        gateway, engine, litellm, stub = times
        ours = [one - other for one, other in zip(gateway, engine, strict=True)]
        theirs = [one - other for one, other in zip(litellm, stub, strict=True)]
        if (found := paired(ours, theirs)) is None:
            return None
        text = f"{found.median:.3f} × ({number(spread(ours).median)} of {number(spread(theirs).median)} ms)"
        return Verdict(text, found.median <= limit)

    return check


GOALS = (
    Goal(
        "CPU a token, 500 streams at 20/s",
        "≤ 0.60 × A and ≤ 0.75 × A+",
        (
            ratio("paced-500", "cpu_us_per_token", "gateway", "A", at_most=0.60),
            ratio("paced-500", "cpu_us_per_token", "gateway", "A+", at_most=0.75),
        ),
    ),
    Goal(
        "tokens/s flat out, 20 streams",
        "≥ 2 × A and ≥ 1.2 × A+",
        (
            ratio("stream-flat-20", "tokens_per_s", "gateway", "A", at_least=2),
            ratio("stream-flat-20", "tokens_per_s", "gateway", "A+", at_least=1.2),
        ),
    ),
    Goal(
        "added median latency a token, 100 streams at 20/s",
        "≤ A+",
        (ratio("paced-100", "delay_ms", "gateway", "A+", at_most=1),),
    ),
    Goal(
        "time to first token, 200 streams opened at once (median)",
        "≤ 0.8 × A",
        (ratio("first-200", "first_ms", "gateway", "A", at_most=0.8),),
    ),
    Goal(
        "1,000 streams at 10/s, one process",
        "all complete, median lateness of the last token ≤ 0.5 × A",
        (
            complete("paced-1000-at-10", "gateway", 1000),
            ratio("paced-1000-at-10", "late_ms", "gateway", "A", at_most=0.5),
        ),
    ),
    Goal("1,000 streams at 20/s, two processes", "all complete", (complete("paced-1000", "two", 1000),)),
    Goal(
        "whole answers/s, c = 20", "≥ 1.1 × A+", (ratio("whole-20", "requests_per_s", "gateway", "A+", at_least=1.1),)
    ),
    Goal("added latency, sequential, against LiteLLM's proxy", "≤ 1/20", (added("sequential", 0.05),)),
    Goal("memory an open stream", "≤ 70 KB", (most("memory", "memory_kb_per_stream", "gateway", 70, "KB"),)),
    Goal("start to first answer", "≤ 0.6 s", (most("start", "start_s", "gateway", 0.6, "s"),)),
    Goal(
        "without threads (`aio`): CPU a token, 500 streams at 20/s",
        "≤ 0.42 × A",
        (ratio("paced-500", "cpu_us_per_token", "aio", "A", at_most=0.42),),
    ),
    Goal(
        "without threads (`aio`): 1,000 streams at 20/s, one process",
        "all complete",
        (complete("paced-1000", "aio", 1000),),
    ),
)


def judge(goal: Goal, seen: Seen) -> Row:
    """Say what was measured of a goal, and whether it is met: not before all of it has been measured."""
    verdicts = [check(seen) for check in goal.checks]
    measured = "; ".join(verdict.text for verdict in verdicts if verdict is not None)
    if any(verdict is not None and not verdict.met for verdict in verdicts):
        met = "no"
    else:
        met = "not measured" if None in verdicts else "yes"
    return Row(goal.what, goal.goal, measured or "–", met)


@attrs.frozen
class Noise:
    """One workload's figure of the gateway, measured a second time in each round."""

    workload: str
    figure: str
    verdict: Verdict


def noise(seen: Seen, workloads: Sequence[Workload], again: str) -> list[Noise]:
    """Compare the gateway with itself, wherever it was measured twice."""
    found = []
    for workload in workloads:
        own = again.rstrip("'")
        verdict = ratio(workload.name, workload.shown[0], again, own)(seen)
        if verdict is not None:
            found.append(Noise(workload.name, workload.shown[0], verdict))
    return found


def busiest(seen: Seen, figure: str, servers: Sequence[str]) -> float:
    """The greatest share of a core in any measurement of these variants; 0 when there was none."""
    return max(
        (
            figures[figure]
            for variants in seen.values()
            for variant, rounds in variants.items()
            if variant in servers
            for figures in rounds
            if figure in figures
        ),
        default=0.0,
    )
