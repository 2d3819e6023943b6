"""What a bench hands back: figures with their samples, baselines and goals, and the promises that were broken."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

import attrs

__all__ = ["Figure", "Goal", "Matrix", "Outcome", "at_least", "at_most", "ratio_below"]


@attrs.frozen(kw_only=True)
class Goal:
    """What a figure, or with ``of_ratio`` its ratio to the baseline, should reach."""

    bound: float
    upper: bool
    of_ratio: bool = False

    def met(self, figure: Figure) -> bool:
        """Whether ``figure`` reaches it."""
        reached = figure.ratio if self.of_ratio else figure.value
        if reached is None:
            raise ValueError(f"{figure.what!r} has a goal for its ratio, but no baseline")
        return reached <= self.bound if self.upper else reached >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.upper else '≥'} {self.bound:,.10g}{'×' if self.of_ratio else ''}"


def at_least(bound: float) -> Goal:
    """The more the better."""
    return Goal(bound=bound, upper=False)


def at_most(bound: float) -> Goal:
    """The less the better."""
    return Goal(bound=bound, upper=True)


def ratio_below(bound: float) -> Goal:
    """At most ``bound`` times the baseline."""
    return Goal(bound=bound, upper=True, of_ratio=True)


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


def _figures(values: Iterable[Figure]) -> tuple[Figure, ...]:
    return tuple(values)


def _matrices(values: Iterable[Matrix]) -> tuple[Matrix, ...]:
    return tuple(values)


def _rows(values: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row) for row in values)


def _lines(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _not_empty(instance: object, attribute: attrs.Attribute[tuple[float, ...]], value: tuple[float, ...]) -> None:
    if not value:
        raise ValueError(f"{attribute.name} must hold a sample at least")


@attrs.frozen(kw_only=True)
class Figure:
    """One line of the table: the median of ``samples``, beside the median of the baseline measured in the same run."""

    what: str
    unit: str
    samples: tuple[float, ...] = attrs.field(converter=_floats, validator=_not_empty)
    baseline: str = ""
    baseline_samples: tuple[float, ...] = attrs.field(default=(), converter=_floats)
    goal: Goal | None = None

    @property
    def value(self) -> float:
        """The median."""
        return median(self.samples)

    @property
    def baseline_value(self) -> float | None:
        """The baseline's median, or None if it has none."""
        return median(self.baseline_samples) if self.baseline_samples else None

    @property
    def ratio(self) -> float | None:
        """The median over the baseline's, or None without a baseline (or one of zero)."""
        return self.value / self.baseline_value if self.baseline_value else None

    def with_more(self, other: Figure) -> Figure:
        """This figure with the samples of another that measured the same."""
        return attrs.evolve(
            self,
            samples=self.samples + other.samples,
            baseline_samples=self.baseline_samples + other.baseline_samples,
        )

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        return None if self.goal is None else self.goal.met(self)


@attrs.frozen
class Matrix:
    """What is read row by row and column by column, as text: many properties of many cases."""

    title: str
    columns: tuple[str, ...] = attrs.field(converter=_lines)
    rows: tuple[tuple[str, ...], ...] = attrs.field(converter=_rows)


@attrs.frozen
class Outcome:
    """What came of a bench. ``broken``: one line for each broken promise, of which none is about speed."""

    figures: tuple[Figure, ...] = attrs.field(converter=_figures)
    broken: tuple[str, ...] = attrs.field(default=(), converter=_lines)
    matrices: tuple[Matrix, ...] = attrs.field(default=(), converter=_matrices)

    @staticmethod
    def joined(outcomes: Iterable[Outcome]) -> Outcome:
        """All of them as one."""
        parts = list(outcomes)
        return Outcome(
            [figure for part in parts for figure in part.figures],
            [line for part in parts for line in part.broken],
            [matrix for part in parts for matrix in part.matrices],
        )

    @staticmethod
    def merged(repeats: Iterable[Outcome]) -> Outcome:
        """Repeats of one bench as one: the samples of figures of the same name are put together."""
        parts = list(repeats)
        by_name: dict[tuple[str, str], Figure] = {}
        for figure in (figure for part in parts for figure in part.figures):
            known = by_name.get((figure.what, figure.unit))
            by_name[figure.what, figure.unit] = figure if known is None else known.with_more(figure)
        joined = Outcome.joined(parts)
        return attrs.evolve(joined, figures=by_name.values())
