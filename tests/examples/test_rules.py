"""The seven rules as functions: tables at the thresholds themselves, laws in between."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.examples.rules import (
    Position,
    Rule,
    Thresholds,
    Window,
    adds_on_profit,
    averages_down,
    crashes,
    decide,
    is_oversold,
    leaves_as_planned,
    surges,
    trails_out,
    wilder_rsi,
)

RULES = Thresholds()
HELD = Position("KRW-XRP", 0, volume=Decimal(100), cost=Decimal(100_000), peak=Decimal(1000))
prices = st.decimals(min_value=1, max_value=10**6, places=2)
closes = st.lists(prices, min_size=15, max_size=60)


def held(**changes: object) -> Position:
    return attrs.evolve(HELD, **changes)


@pytest.mark.parametrize(
    ("rule", "position", "price", "holds"),
    [
        (adds_on_profit, held(), "1050", True),
        (adds_on_profit, held(), "1049.99", False),
        (adds_on_profit, held(adds=2), "1050", True),
        (adds_on_profit, held(adds=3), "2000", False),
        (leaves_as_planned, held(adds=2), "2000", False),
        (leaves_as_planned, held(adds=3), "1050", True),
        (leaves_as_planned, held(adds=3), "1049.99", False),
        (trails_out, held(peak=Decimal(1100)), "900", False),
        (trails_out, held(peak=Decimal(1100), armed=True), "1067", True),
        (trails_out, held(peak=Decimal(1100), armed=True), "1067.01", False),
        (averages_down, held(), "950", True),
        (averages_down, held(), "950.01", False),
        (averages_down, held(downs=1), "950", True),
        (averages_down, held(downs=2), "1", False),
    ],
)
def test_a_rule_begins_at_its_threshold(rule, position, price, holds):
    assert rule(position, Decimal(price), RULES) is holds


def on_the_grid(threshold: Fraction, *, from_above: bool) -> Decimal:
    """The first price with four digits that has reached ``threshold``, coming down or going up."""
    steps = threshold * 10**4
    return Decimal(math.floor(steps) if from_above else math.ceil(steps)).scaleb(-4)


TICK = Decimal("0.0001")
percentages = st.integers(1, 50).map(lambda percent: Decimal(percent) / 100)
purchases = st.lists(prices, min_size=1, max_size=6)


@given(purchases, percentages)
def test_a_price_at_the_threshold_has_reached_it_and_one_tick_short_of_it_has_not(paid, share):
    """Whatever was paid, of rules 2, 3, 5 and what arms the fourth; the sum is done again, over whole numbers."""
    rules = Thresholds(add=share, leave=share, arm=share, down=share)
    position = Position.opened("KRW-XRP", paid[0], rules.stake, 0)
    for price in paid[1:]:
        position = position.bought(Rule.AVERAGE_DOWN, price, rules.stake)
    fresh, added = (attrs.evolve(position, adds=adds, downs=0) for adds in (0, rules.adds))
    harmonic = len(paid) / sum(1 / Fraction(price) for price in paid)
    upper = on_the_grid(harmonic * (1 + Fraction(share)), from_above=False)
    lower = on_the_grid(harmonic * (1 - Fraction(share)), from_above=True)
    for price, reached in ((upper, True), (upper - TICK, False)):
        assert adds_on_profit(fresh, price, rules) is reached
        assert leaves_as_planned(added, price, rules) is reached
        assert fresh.seen(price, rules).armed is reached
    for price, reached in ((lower, True), (lower + TICK, False)):
        assert averages_down(fresh, price, rules) is reached


@given(prices, percentages)
def test_the_thresholds_of_a_peak_and_of_a_minute_are_as_exact(price, share):
    rules = Thresholds(trail=share, crash=share, surge=share)
    lower, upper = price * (1 - share), price * (1 + share)  # which has four digits
    armed = held(peak=price, armed=True)
    assert [trails_out(armed, each, rules) for each in (lower, lower + TICK)] == [True, False]
    assert [crashes(each, price, rules) for each in (lower, lower + TICK)] == [True, False]
    assert [surges(each, price, rules) for each in (upper, upper - TICK)] == [True, False]


@pytest.mark.parametrize("entry", [449, 3, 7, 4490])
def test_five_percent_below_an_entry_that_does_not_divide_the_stake_is_averaged_down_at(entry):
    position = Position.opened("KRW-XRP", Decimal(entry), RULES.stake, 0)
    price = Decimal(entry * 95).scaleb(-2)
    assert decide(position, price, price, price, RULES) is Rule.AVERAGE_DOWN


def test_an_index_of_exactly_the_threshold_is_not_oversold():
    """One gain of 7 among losses of 28 in the first period; nothing afterwards changes the share of either."""
    changes = [7, *[-2] * 6, -16, *[0] * 191]
    path = [Decimal(1000)]
    for change in changes:
        path.append(path[-1] + change)
    assert wilder_rsi(path) == 20
    assert not is_oversold(path, attrs.evolve(RULES, bars=len(path)))
    assert is_oversold(path, attrs.evolve(RULES, bars=len(path), oversold=Decimal("20.0000001")))


@pytest.mark.parametrize(("price", "holds"), [("950", True), ("950.01", False), ("1000", False)])
def test_a_crash_is_five_percent_below_the_high(price, holds):
    assert crashes(Decimal(price), Decimal(1000), RULES) is holds


@pytest.mark.parametrize(("price", "holds"), [("1050", True), ("1049.99", False), ("1000", False)])
def test_a_surge_is_five_percent_above_the_low(price, holds):
    assert surges(Decimal(price), Decimal(1000), RULES) is holds


@pytest.mark.parametrize(
    ("position", "price", "high", "low", "rule"),
    [
        (held(), 1000, 1000, 1000, None),
        (held(), 1050, 1050, 1010, Rule.ADD_ON_PROFIT),
        (held(), 1050, 1050, 1000, None),  # a surge silences rule 2,
        (held(adds=3), 1050, 1050, 1000, Rule.PLANNED_EXIT),  # but not rule 3,
        (held(armed=True, peak=Decimal(1090)), 1055, 1090, 1000, Rule.TRAILING_STOP),  # and not rule 4
        (held(armed=True, peak=Decimal(1090)), 1055, 1090, 1040, Rule.TRAILING_STOP),  # which comes before 2
        (held(armed=True, peak=Decimal(1060)), 950, 990, 950, Rule.TRAILING_STOP),  # and before 5
        (held(), 950, 990, 950, Rule.AVERAGE_DOWN),
        (held(), 950, 1000, 950, Rule.CRASH),  # 6 before 5
        (held(armed=True, peak=Decimal(1060)), 950, 1000, 950, Rule.CRASH),  # before 4
        (held(adds=3), 1050, 1150, 1050, Rule.CRASH),  # and before 3
    ],
)
def test_the_rules_have_an_order(position, price, high, low, rule):
    assert decide(position, Decimal(price), Decimal(high), Decimal(low), RULES) is rule


@given(prices, prices, prices, st.integers(0, 3), st.integers(0, 2), st.booleans())
def test_a_crash_overrides_everything_and_nothing_is_bought_in_a_surge_but_lower(price, high, peak, adds, downs, armed):
    position = held(peak=max(peak, price), adds=adds, downs=downs, armed=armed)
    high = max(high, price)
    decided = decide(position, price, high, price, RULES)
    assert (decided is Rule.CRASH) == crashes(price, high, RULES)
    in_a_surge = decide(position, price, price, price / 2, RULES)
    assert in_a_surge is not Rule.ADD_ON_PROFIT


@given(st.lists(prices, max_size=40))
def test_nothing_is_added_a_fourth_time_nor_averaged_down_a_third(path):
    position: Position | None = held()
    counts = dict.fromkeys(Rule, 0)
    for price in path:
        position = position.seen(price, RULES)
        rule = decide(position, price, price, price, RULES)
        if rule in (Rule.ADD_ON_PROFIT, Rule.AVERAGE_DOWN):
            position = position.bought(rule, price, RULES.stake)
            counts[rule] += 1
        elif rule is not None:
            break
    assert counts[Rule.ADD_ON_PROFIT] <= 3
    assert counts[Rule.AVERAGE_DOWN] <= 2


@given(st.lists(prices, min_size=1))
def test_a_position_never_forgets_its_peak_nor_that_it_was_armed(path):
    position = held()
    for place, price in enumerate(path, 1):
        position = position.seen(price, RULES)
        assert position.peak == max(*path[:place], HELD.peak)
        assert position.armed == (max(path[:place]) >= 1050)


@given(prices, prices)
def test_a_purchase_moves_the_average_between_the_two_prices(first, second):
    position = Position.opened("KRW-XRP", first, RULES.stake, 0).bought(Rule.AVERAGE_DOWN, second, RULES.stake)
    slack = Decimal("1e-20") * max(first, second)
    assert min(first, second) - slack <= position.average <= max(first, second) + slack
    assert (position.adds, position.downs, position.cost) == (0, 1, 2 * RULES.stake)


def test_the_index_is_wilders():
    """The sheet of the RSI article of StockCharts' ChartSchool, whose closes have four digits: 70.53 and so on."""
    sheet = """44.3389 44.0902 44.1497 43.6124 44.3278 44.8264 45.0955 45.4245 45.8433 46.0826 45.8931 46.0328 45.6140
        46.2820 46.2820 46.0028 46.0328 46.4116 46.2222 45.6439"""
    given_closes = [Decimal(close) for close in sheet.split()]
    indices = [wilder_rsi(given_closes[:count]) for count in range(15, 21)]
    told = "70.53 66.32 66.55 69.41 66.36 57.97"
    assert [round(index, 2) for index in indices] == [Decimal(index) for index in told.split()]


def test_the_index_of_a_few_closes_is_none_and_of_equal_ones_in_the_middle():
    assert wilder_rsi([Decimal(1)] * 14) is None
    assert wilder_rsi([Decimal(1)] * 15) == 50


@given(closes)
def test_the_index_lies_between_0_and_100_and_mirrors(path):
    index = wilder_rsi(path)
    mirrored = wilder_rsi([Decimal(2_000_000) - close for close in path])
    assert 0 <= index <= 100
    assert abs(index + mirrored - 100) < Decimal("1e-18")


@given(closes, st.integers(1, 1000))
def test_the_index_does_not_depend_on_the_unit(path, unit):
    assert abs(wilder_rsi(path) - wilder_rsi([close * unit for close in path])) < Decimal("1e-18")


@given(closes)
def test_another_rise_never_lowers_the_index(path):
    assert wilder_rsi([*path, path[-1] + 1]) >= wilder_rsi(path) - Decimal("1e-18")


def test_199_bars_are_too_few_and_only_the_newest_200_count():
    falling = [Decimal(1000 - place) for place in range(200)]
    assert not is_oversold(falling[1:], RULES)
    assert is_oversold(falling, RULES)
    assert is_oversold([Decimal(1), Decimal(10**9), *falling], RULES)
    assert not is_oversold(falling[::-1], RULES)
    assert not is_oversold(falling, attrs.evolve(RULES, oversold=Decimal(0)))  # less than, not as little as


@given(st.lists(st.tuples(st.integers(0, 300_000), prices), min_size=1))
def test_a_window_knows_the_extremes_of_its_minute_whatever_the_order(trades):
    window = Window(60_000)
    for place, (at_ms, price) in enumerate(trades, 1):
        newest_ms = max(at for at, _ in trades[:place])
        assert window.add(at_ms, price) == (at_ms == newest_ms)
        inside = [price for at, price in trades[:place] if at >= newest_ms - 60_000]
        assert (window.high, window.low) == (max(inside), min(inside))
        assert window.high_at(newest_ms, min(inside)) == max(inside)
        assert window.high_at(newest_ms + 60_001, price) == price
