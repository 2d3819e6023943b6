"""Hours of market in virtual time: they end green, and what is planted in it is found."""

from __future__ import annotations

import json
from decimal import Decimal

import attrs
import pytest

from bench.endurance.__main__ import main
from bench.endurance.course import Bars, endure
from bench.endurance.plan import DAY_MS, LAST_MS, START_MS, Plan, absences, clock_steps, naps, struck, worlds
from bench.soak.bars import UNIT, Shown
from bench.soak.strikes import kinds
from marketpipe.core.timeframes import Timeframe, floor, next_open
from marketpipe.sim.faults import KINDS

MONTH = Plan(days=30)


def test_a_month_has_all_boundaries_and_thousands_of_faults_and_a_thousand_listings():
    for timeframe in (Timeframe.D1, Timeframe.W1, Timeframe.MONTH, Timeframe.Y1):
        assert next_open(timeframe, floor(timeframe, START_MS)) < MONTH.end_ms
    world, unlisted = worlds(MONTH)
    strikes = list(struck(MONTH, world.markets))
    assert sum(len(strike.faults) for strike in strikes) > 3_000
    assert kinds(strikes) == set(KINDS)
    assert 2 * sum(map(len, unlisted.values())) >= 1_000
    assert {nap.counted for nap in naps(MONTH)} == {True, False}
    assert {step.off_ms > 0 for step in clock_steps(MONTH)} == {True, False}


def test_nothing_is_on_its_way_when_a_market_is_delisted_and_all_are_back_before_the_end():
    world, unlisted = worlds(Plan(days=3))
    for name, spans in unlisted.items():
        for begin_ms, end_ms in spans:
            assert not world.in_hindsight().trades(name, begin_ms - 5_000, end_ms, end_ms)
            assert end_ms <= START_MS + 3 * DAY_MS - LAST_MS


def test_a_longer_run_begins_as_a_shorter_one():
    steady = worlds(MONTH)[0].in_hindsight()
    short, long = absences(Plan(days=4), steady), absences(MONTH, steady)
    assert all(long[name][: len(spans)] == spans for name, spans in short.items())


# The machine sleeps for two hours.
SMALL = Plan(days=0.22, markets=8, unsteady=3, minutes=3, sleeps=((0.6, 2.0), (3.0, 0.3)), fault_every_s=(100.0, 400.0))


def test_a_bar_of_a_day_that_was_told_is_not_forgotten_before_it_is_judged():
    world = worlds(Plan(days=3))[0].in_hindsight()

    def truth(market, timeframe, start_ms, end_ms):
        return world.candles(market, timeframe, start_ms, end_ms, end_ms - 1)

    book = Bars("KRW-BTC", Timeframe.D1, truth, START_MS, from_ms=START_MS)
    end_ms = START_MS + DAY_MS
    (bar,) = truth("KRW-BTC", Timeframe.D1, START_MS, end_ms)
    prices = (bar.opening, bar.high, bar.low, bar.close)
    turnover = Decimal(bar.turnover) / UNIT
    assert list(book.bar(Shown(START_MS, prices, bar.volume, turnover, is_final=True, revision=0))) == []
    for after_ms in (-60_000, 0, 600_000, 3_600_000):
        assert list(book.check(end_ms + after_ms)) == []
    assert book.checked == 1
    assert book.behind == 0


@pytest.mark.slow
@pytest.mark.long
def test_hours_in_virtual_time_end_green(tmp_path):
    told: list[str] = []
    course = endure(SMALL, tmp_path / "endurance.json", told.append)
    assert course.findings.told == []
    assert course.verdict.startswith("GREEN after 0.2 days")
    assert told == []
    document = json.loads((tmp_path / "endurance.json").read_text())
    assert document["counts"]["faults"] > 5
    assert document["rows"]["compared"] > 0
    assert all(group["refused"] == 0 for group in document["groups"].values())


@pytest.mark.slow
@pytest.mark.long
def test_a_trade_that_is_lost_now_and_then_is_found():
    course = endure(attrs.evolve(SMALL, days=0.16, lose_every=50), say=lambda line: None)
    assert course.findings.counts.keys() == {"trades"}
    assert course.verdict.startswith("RED")


def test_misuse_is_told_and_nothing_runs(capsys):
    assert main(["--days", "0.1"]) == 2
    assert "--days must be at least" in capsys.readouterr().err
