"""Seven trading rules: pure functions over a frozen position and a price. `seven_rules` runs them on live prices.

Everything is reckoned in fractions: a price that lies exactly at a threshold has reached it, whatever was paid before.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from itertools import pairwise

import attrs

__all__ = [
    "Position",
    "Rule",
    "Thresholds",
    "Window",
    "adds_on_profit",
    "averages_down",
    "crashes",
    "decide",
    "is_oversold",
    "leaves_as_planned",
    "surges",
    "trails_out",
    "wilder_rsi",
]


class Rule(IntEnum):
    """The seven rules. Rule 7 never orders anything, it silences rule 2."""

    OVERSOLD_ENTRY = 1
    ADD_ON_PROFIT = 2
    PLANNED_EXIT = 3
    TRAILING_STOP = 4
    AVERAGE_DOWN = 5
    CRASH = 6
    SURGE = 7


@attrs.frozen(kw_only=True)
class Thresholds:
    """The numbers of the rules. Fractions are exact: 5 % is ``Decimal("0.05")``.

    ``stake``: what one purchase costs, in the quote currency. ``bars``: how many closed bars the RSI is worked out
    over. ``window_ms``: the stretch of exchange time of crash and surge. ``late_ms``: a trade that is told later than
    that, measured by the promptest, is history. ``patience_s``: how long a price to enter at may take.
    """

    stake: Decimal = Decimal(100_000)
    oversold: Decimal = Decimal(20)
    rsi_period: int = 14
    bars: int = 200
    add: Decimal = Decimal("0.05")
    adds: int = 3
    leave: Decimal = Decimal("0.05")
    arm: Decimal = Decimal("0.05")
    trail: Decimal = Decimal("0.03")
    down: Decimal = Decimal("0.05")
    downs: int = 2
    crash: Decimal = Decimal("0.05")
    surge: Decimal = Decimal("0.05")
    window_ms: int = 60_000
    late_ms: int = 3_000
    patience_s: float = 5.0


def _exact(number: Decimal | Fraction) -> Fraction:
    return Fraction(number)


@attrs.frozen
class Position:
    """What is held of one market, and what has become of it. ``peak``: the highest price since ``opened_ms``.

    ``volume`` and ``cost`` are exact: a stake divided by a price seldom ends, and is rounded only when it is ordered.
    ``armed``: whether its profit has ever reached `Thresholds.arm`. ``adds`` and ``downs`` count what rules 2 and 5
    have bought.
    """

    market: str
    opened_ms: int
    volume: Fraction = attrs.field(converter=_exact)
    cost: Fraction = attrs.field(converter=_exact)
    peak: Decimal
    adds: int = 0
    downs: int = 0
    armed: bool = False

    @classmethod
    def opened(cls, market: str, price: Decimal, stake: Decimal, at_ms: int) -> Position:
        """One purchase for ``stake`` at ``price``."""
        return cls(market, at_ms, Fraction(stake) / Fraction(price), stake, price)

    @property
    def average(self) -> Fraction:
        """What a unit has cost."""
        return self.cost / self.volume

    def profit(self, price: Decimal) -> Fraction:
        """As a share of the cost: 1/20 is five percent."""
        return Fraction(price) * self.volume / self.cost - 1

    def seen(self, price: Decimal, rules: Thresholds) -> Position:
        """The position after the market traded at ``price``."""
        armed = self.armed or self.profit(price) >= Fraction(rules.arm)
        return attrs.evolve(self, peak=max(self.peak, price), armed=armed)

    def bought(self, rule: Rule, price: Decimal, stake: Decimal) -> Position:
        """The position after one more purchase, by rule 2 or by rule 5."""
        return attrs.evolve(
            self,
            volume=self.volume + Fraction(stake) / Fraction(price),
            cost=self.cost + Fraction(stake),
            adds=self.adds + (rule is Rule.ADD_ON_PROFIT),
            downs=self.downs + (rule is Rule.AVERAGE_DOWN),
        )


def wilder_rsi(closes: Sequence[Decimal], period: int = 14) -> Decimal | None:
    """Wilder's relative strength index of ``closes``, oldest first: 0 to 100; None if there are too few.

    The first ``period`` changes are averaged, every later one counts ``1/period``. Without any change it is 50.
    """
    index = _exact_rsi(closes, period)
    return None if index is None else Decimal(index.numerator) / index.denominator


def _exact_rsi(closes: Sequence[Decimal], period: int) -> Fraction | None:
    if len(closes) <= period:
        return None
    changes = [Fraction(later) - Fraction(earlier) for earlier, later in pairwise(closes)]
    # Both averages times one power of the period, which goes out in the end: whole numbers, where prices are.
    gain = sum((max(change, Fraction(0)) for change in changes[:period]), Fraction(0))
    loss = sum((max(-change, Fraction(0)) for change in changes[:period]), Fraction(0))
    scale = period
    for change in changes[period:]:
        gain = gain * (period - 1) + max(change, Fraction(0)) * scale
        loss = loss * (period - 1) + max(-change, Fraction(0)) * scale
        scale *= period
    return 100 * gain / (gain + loss) if gain + loss else Fraction(50)


def is_oversold(closes: Sequence[Decimal], rules: Thresholds) -> bool:
    """Rule 1, for a market of which nothing is held. ``closes``: of closed bars in which somebody traded."""
    if len(closes) < rules.bars:
        return False
    rsi = _exact_rsi(closes[-rules.bars :], rules.rsi_period)
    return rsi is not None and rsi < Fraction(rules.oversold)


def adds_on_profit(position: Position, price: Decimal, rules: Thresholds) -> bool:
    """Rule 2: a further five percent over what a unit has cost by now; three times."""
    return position.adds < rules.adds and position.profit(price) >= Fraction(rules.add)


def leaves_as_planned(position: Position, price: Decimal, rules: Thresholds) -> bool:
    """Rule 3: the next five percent after that."""
    return position.adds >= rules.adds and position.profit(price) >= Fraction(rules.leave)


def trails_out(position: Position, price: Decimal, rules: Thresholds) -> bool:
    """Rule 4: three percent below the peak, once there was a profit of five."""
    return position.armed and Fraction(price) <= Fraction(position.peak) * (1 - Fraction(rules.trail))


def averages_down(position: Position, price: Decimal, rules: Thresholds) -> bool:
    """Rule 5: five percent below what a unit has cost by now; twice."""
    return position.downs < rules.downs and position.profit(price) <= -Fraction(rules.down)


def crashes(price: Decimal, high: Decimal, rules: Thresholds) -> bool:
    """Rule 6. ``high``: the highest price within the window that ends now."""
    return Fraction(price) <= Fraction(high) * (1 - Fraction(rules.crash))


def surges(price: Decimal, low: Decimal, rules: Thresholds) -> bool:
    """Rule 7. ``low``: the lowest price within the window that ends now."""
    return Fraction(price) >= Fraction(low) * (1 + Fraction(rules.surge))


def decide(position: Position, price: Decimal, high: Decimal, low: Decimal, rules: Thresholds) -> Rule | None:
    """The rule that orders something now: 6 before all, 3 and 4 before 2 and 5, and 7 silences 2."""
    if crashes(price, high, rules):
        return Rule.CRASH
    if leaves_as_planned(position, price, rules):
        return Rule.PLANNED_EXIT
    if trails_out(position, price, rules):
        return Rule.TRAILING_STOP
    if adds_on_profit(position, price, rules) and not surges(price, low, rules):
        return Rule.ADD_ON_PROFIT
    if averages_down(position, price, rules):
        return Rule.AVERAGE_DOWN
    return None


@attrs.define
class Window:
    """The trades of the last ``window_ms`` of exchange time, in whichever order they are told."""

    window_ms: int
    newest_ms: int = 0
    _trades: list[tuple[int, Decimal]] = attrs.field(factory=list, init=False)

    def add(self, at_ms: int, price: Decimal) -> bool:
        """Take a trade in; whether none is newer."""
        insort(self._trades, (at_ms, price))
        is_newest = at_ms >= self.newest_ms
        self.newest_ms = max(self.newest_ms, at_ms)
        while self._trades[0][0] < self.newest_ms - self.window_ms:
            del self._trades[0]
        return is_newest

    @property
    def high(self) -> Decimal:
        """The highest price up to the newest trade, of which there must be one."""
        return max(price for _, price in self._trades)

    @property
    def low(self) -> Decimal:
        """The lowest, likewise."""
        return min(price for _, price in self._trades)

    def high_at(self, now_ms: int, price: Decimal) -> Decimal:
        """The highest price of the window that ends at ``now_ms``, when it is ``price``."""
        return max([price, *(each for at_ms, each in self._trades if at_ms >= now_ms - self.window_ms)])
