"""The statistics of the benchmark; pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

import attrs

RESAMPLES = 2000


def quantiles(values: Sequence[float]) -> list[float]:
    """The percentiles from the least to the greatest, 101 of them; none of nothing."""
    if not values:
        return []
    if len(values) == 1:
        return [values[0]] * 101
    return [min(values), *statistics.quantiles(values, n=100, method="inclusive"), max(values)]


@attrs.frozen
class Spread:
    """Some values of one figure: their middle, and how far they lie apart."""

    median: float
    low: float
    """The lower quartile."""
    high: float
    """The upper quartile."""
    count: int


def spread(values: Sequence[float]) -> Spread:
    """The median and the quartiles of at least one value."""
    cuts = quantiles(values)
    return Spread(statistics.median(values), cuts[25], cuts[75], len(values))


@attrs.frozen
class Ratio:
    """One variant's figure as a multiple of another's, round by round."""

    median: float
    low: float
    """The lower quartile of the rounds' ratios."""
    high: float
    """The upper quartile."""
    sure_low: float
    """With `sure_high` the 95 % interval of the median."""
    sure_high: float
    count: int


def paired(values: Sequence[float], others: Sequence[float]) -> Ratio | None:
    """
    Compare what was measured in the same rounds; None where there is nothing to compare.

    The interval is a bootstrap's: the medians of as many ratios drawn again and again from those that there are.
    """
    ratios = [value / other for value, other in zip(values, others, strict=True) if other]
    if not ratios:
        return None
    middle = spread(ratios)
    dice = random.Random(0)  # noqa: S311 - the same figures from the same measurements
    medians = sorted(statistics.median(dice.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    sure = medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975)]
    return Ratio(middle.median, middle.low, middle.high, *sure, len(ratios))


def number(value: float) -> str:
    """A number with as many digits as mean something."""
    if abs(value) >= 100:  # noqa: PLR2004 - three digits
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"  # noqa: PLR2004 - likewise


def significant(value: float, digits: int = 5) -> float:
    """Leave out what no measurement can mean."""
    return float(f"{value:.{digits}g}")
