"""What the samples of a run say: whether anything grows, whether a limit was broken, whether anything happened at all.

Pure functions of what was sampled, so that a recorded series can be judged again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import attrs

from bench.soak.plan import Plan
from bench.soak.slopes import Point, Slope, floors, theil_sen

__all__ = ["QUANTITIES", "Growth", "Quantity", "beyond_limits", "failures_while_calm", "growths", "idle",
           "queue_flaws", "series"]  # fmt: skip

HOUR_S = 3_600.0
MEGA = 2**20
# A stretch is reduced to so many floors.
FLOORS = 24
# After the last fault, what it started may still fail for so long: a block, a back-off, a request that hangs.
AFTERMATH_S = 25.0
# How many objects of a type may become more in an hour for certain: so many, or such a share of all of that type.
OBJECTS_PER_H = 1_000.0
TYPE_SHARE_PER_H = 0.04
BY_DESIGN = ("SubscriberLagged",)


@attrs.frozen
class Quantity:
    """What must not grow, and how much of growth is none.

    ``per_hour`` is what a slope may be for certain; ``noise``: growth over the judged stretch that is too little to be
    called one; ``filling``: the same while memory still fills up by design.
    """

    name: str
    unit: str
    scale: float
    per_hour: float
    noise: float
    filling: float


QUANTITIES = (
    Quantity("rss", "MiB", MEGA, per_hour=2.0, noise=4.0, filling=40.0),
    Quantity("malloc", "MiB", MEGA, per_hour=0.5, noise=0.4, filling=20.0),
    Quantity("blocks", "thousand blocks", 1e3, per_hour=3.0, noise=2.5, filling=400.0),
    Quantity("handles", "handles", 1, per_hour=3.0, noise=2.5, filling=4.0),
    Quantity("threads", "threads", 1, per_hour=3.0, noise=2.5, filling=4.0),
    Quantity("tasks", "tasks", 1, per_hour=3.0, noise=2.5, filling=4.0),
)
# Tasks of one name, as `tasks`.
_OF_A_NAME = Quantity("tasks", "tasks", 1, per_hour=2.0, noise=1.5, filling=2.5)


@attrs.frozen
class Growth:
    """One quantity over the stretch that is judged. ``allowed_per_h``: beyond it, for certain, it is a leak."""

    name: str
    unit: str
    slope: Slope
    allowed_per_h: float
    grown: float

    @property
    def per_h(self) -> float:
        """The estimate."""
        return self.slope.per_s * HOUR_S

    @property
    def least_per_h(self) -> float:
        """What it grows at least, for all we know."""
        return self.slope.least_per_s * HOUR_S

    @property
    def is_leak(self) -> bool:
        """Whether it grows beyond noise."""
        return self.least_per_h > self.allowed_per_h

    def __str__(self) -> str:
        return (f"{self.name} grows by {self.per_h:,.2f} {self.unit} an hour (for certain {self.least_per_h:,.2f}, "
                f"allowed {self.allowed_per_h:,.2f})")  # fmt: skip


def growths(looks: Sequence[Mapping[str, Any]], plan: Plan, samples: Sequence[Mapping[str, Any]] = ()) -> list[Growth]:
    """How everything grows over the part of the run that is judged; nothing of what there are too few looks for."""
    judged = [look for look in looks if look["at_s"] >= plan.warm_s]
    named: dict[str, list[Point]] = {}
    for look in judged:
        for name in look["tasks"]:
            named.setdefault(name, [])
    for look in judged:
        for name, points in named.items():
            points.append((look["at_s"], float(look["tasks"].get(name, 0))))
    found = [_growth(quantity, series(judged, quantity), plan) for quantity in QUANTITIES]
    found += [_growth(attrs.evolve(_OF_A_NAME, name=f"tasks named {name!r}"), points, plan)
              for name, points in named.items()]  # fmt: skip
    if not plan.is_short:
        found += _of_types([sample for sample in samples if sample["at_s"] >= plan.warm_s])
    return [growth for growth in found if growth is not None]


def _of_types(judged: Sequence[Mapping[str, Any]]) -> Iterator[Growth]:
    # All blocks together come and go by the hundred thousand, and would hide a leak of a megabyte an hour for many
    # hours. Of the type that leaks there are few others, or at least as many as before.
    for name in sorted({name for sample in judged for name in sample["objects"]}):
        points = [(sample["at_s"], float(sample["objects"].get(name, 0))) for sample in judged]
        slope = theil_sen(points)
        if slope is not None:
            allowed = max(OBJECTS_PER_H, TYPE_SHARE_PER_H * median(count for _, count in points))
            yield Growth(f"objects named {name!r}", "objects", slope, allowed,
                         slope.per_s * (points[-1][0] - points[0][0]))  # fmt: skip


def series(looks: Sequence[Mapping[str, Any]], quantity: Quantity) -> list[Point]:
    """One quantity over time, in its unit."""
    points = []
    for look in looks:
        value = sum(look["tasks"].values()) if quantity.name == "tasks" else look[quantity.name]
        if value is not None:
            points.append((look["at_s"], value / quantity.scale))
    return points


def _growth(quantity: Quantity, points: Sequence[Point], plan: Plan) -> Growth | None:
    lowest = floors(points, min(FLOORS, max(6, len(points) // 3)))
    slope = theil_sen(lowest)
    if slope is None:
        return None
    lasted_s = points[-1][0] - points[0][0]
    # What is too little over the stretch, as an hour's rate.
    noise = (quantity.filling if plan.is_short else quantity.noise) * HOUR_S / max(lasted_s, 1.0)
    return Growth(quantity.name, quantity.unit, slope, max(quantity.per_hour, noise), slope.per_s * lasted_s)


def beyond_limits(stats: Mapping[str, Any], limits: Mapping[str, int], limit: int, minute_limit: int) -> Iterator[str]:
    """Where the exchange has seen more of us than it allows. What it refused for a fault's sake is not counted there.

    ``limits``: by group, where they are not ``limit``.
    """
    for name, group in stats["groups"].items():
        allowed = limits.get(name, limit)
        if group["refused"]:
            yield f"{name}: {group['refused']} requests were refused, allowed 0"
        if group["greatest_per_second"] > allowed:
            yield f"{name}: {group['greatest_per_second']} requests in a second, allowed {allowed}"
    if stats["streams"]["greatest_per_minute"] > minute_limit:
        yield f"messages: {stats['streams']['greatest_per_minute']} in a minute, allowed {minute_limit}"


def queue_flaws(pipe: Mapping[str, Any]) -> Iterator[str]:
    """What the pipe's own counts say against it."""
    for name, (_, peak, capacity) in pipe["queues"].items():
        if capacity is not None and peak > capacity:
            yield f"queue {name!r} held {peak}, allowed {capacity}"
    if pipe["unaccounted"]:
        yield f"{pipe['unaccounted']} values of consumers are unaccounted for, allowed 0"
    if pipe["rows_let_go"] or pipe["store_failures"]:
        yield f"the database: {pipe['store_failures']} failures, {pipe['rows_let_go']} rows let go, allowed 0"


def failures_while_calm(samples: Sequence[Mapping[str, Any]], calm_from_s: float) -> Iterator[str]:
    """Calls that failed although nothing had been wrong with the exchange for a while."""
    calm = [sample for sample in samples if sample["at_s"] >= calm_from_s + AFTERMATH_S]
    if len(calm) < 2:
        return
    before, after = calm[0]["failures"], calm[-1]["failures"]
    for what, count in after.items():
        more = count - before.get(what, 0)
        if more and not what.endswith(BY_DESIGN):
            yield f"{what} {more} times while all was well, allowed 0"


def idle(counts: Mapping[str, int], expected: Sequence[str]) -> Iterator[str]:
    """What did not happen at all: a run in which nothing goes on proves nothing."""
    for name in expected:
        if not counts.get(name):
            yield f"no {name} in the whole run"
