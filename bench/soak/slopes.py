"""Whether something grows: a robust slope, and how certain it is.

Theil and Sen: the slope of a series is the median of the slopes of all pairs of its points, which a few wild points do
not move. Its confidence interval comes from Kendall's count of rising and falling pairs (P. K. Sen, "Estimates of the
regression coefficient based on Kendall's tau", 1968): nothing is assumed about how the noise is distributed.

Kendall takes points for independent, and samples of memory are not: garbage piles up until it is collected. So a series
is first reduced to its `floors`, the least value of each of some stretches of time: what is never given back is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, median

import attrs

__all__ = ["Point", "Slope", "floors", "theil_sen"]

# When, in seconds, and how much.
Point = tuple[float, float]
# One in a thousand series that do not grow has a lower bound above its slope of 0; some dozens are judged in a run.
CONFIDENCE = 0.998
FEWEST = 5


@attrs.frozen
class Slope:
    """How much a series grows in a second: the estimate, and between which bounds it lies for all we know."""

    per_s: float
    least_per_s: float
    most_per_s: float
    points: int


def theil_sen(points: Sequence[Point], confidence: float = CONFIDENCE) -> Slope | None:
    """The slope of ``points``, whose times rise; None if there are too few to say anything."""
    count = len(points)
    if count < FEWEST:
        return None
    slopes = sorted(
        (later - earlier) / (later_s - earlier_s)
        for index, (earlier_s, earlier) in enumerate(points)
        for later_s, later in points[index + 1 :]
    )
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * deviation
    lowest = max(0, math.floor((len(slopes) - reach) / 2))
    return Slope(median(slopes), slopes[lowest], slopes[-1 - lowest], count)


def floors(points: Sequence[Point], parts: int) -> list[Point]:
    """The least point of each of ``parts`` stretches of equal length; a stretch without a point has none."""
    if not points:
        return []
    first_s, last_s = points[0][0], points[-1][0]
    length_s = (last_s - first_s) / parts
    if length_s <= 0:
        return [min(points, key=_amount)]
    stretches: dict[int, list[Point]] = {}
    for point in points:
        stretches.setdefault(min(parts - 1, int((point[0] - first_s) / length_s)), []).append(point)
    return [min(stretch, key=_amount) for _, stretch in sorted(stretches.items())]


def _amount(point: Point) -> float:
    return point[1]
