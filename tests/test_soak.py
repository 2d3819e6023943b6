"""The harness of long runs finds what it is there to find. Its figures depend on the machine, and none is asserted.

Each planted defect is judged red on a short series that is made here; one real run of three processes ends green, and
one with a lost trade and an open handle ends red.
"""

from __future__ import annotations

import json
import math
import random
import sqlite3
import subprocess
import sys
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.collecting import child_environment
from bench.soak.__main__ import main
from bench.soak.bars import LOST_MS as BAR_LOST_MS
from bench.soak.bars import BarBook, Shown
from bench.soak.findings import TOLD, Findings
from bench.soak.plan import Plan
from bench.soak.plants import PLANTS, Planted
from bench.soak.record import Record
from bench.soak.report import document, write_report
from bench.soak.rows import held
from bench.soak.slopes import floors, theil_sen
from bench.soak.strikes import DECK, kinds, strikes
from bench.soak.trades import LOST_MS, SETTLED_MS, Told, TradeBook
from bench.soak.verdicts import beyond_limits, failures_while_calm, growths, idle, queue_flaws
from marketpipe.core.timeframes import Timeframe
from marketpipe.sim import World
from marketpipe.sim.faults import KINDS, parse_faults
from marketpipe.store.sqlite import SqliteStore

HOUR_S = 3_600.0
MEGA = 2**20
# 2026-09-23T12:34:56Z
NOW_MS = 1_790_166_896_000
BUSY = "KRW-BTC"
HOUR = Plan(seconds=HOUR_S)
SHORT = Plan(seconds=120.0)


@pytest.fixture(scope="module")
def world() -> World:
    return World(7, 20, lively=855)


# -- slopes -----------------------------------------------------------------------------------------------------------


@given(st.floats(-1e3, 1e3), st.floats(-1e6, 1e6), st.integers(5, 40))
def test_a_straight_line_has_its_slope_and_no_doubt_about_it(slope, start, count):
    found = theil_sen([(float(at), start + slope * at) for at in range(count)])
    bounds = (found.least_per_s, found.per_s, found.most_per_s)
    assert all(math.isclose(bound, slope, rel_tol=1e-6, abs_tol=1e-6) for bound in bounds)


@given(st.randoms(use_true_random=False), st.floats(0.1, 100))
def test_bounds_enclose_the_estimate_and_are_wider_for_less_than_for_more(dice, noise):
    points = [(float(at), at + dice.gauss(0, noise)) for at in range(60)]
    found = theil_sen(points)
    assert found.least_per_s <= found.per_s <= found.most_per_s
    fewer = theil_sen(points[:12])
    assert fewer.most_per_s - fewer.least_per_s >= found.most_per_s - found.least_per_s


def test_a_few_wild_points_do_not_move_the_slope():
    points = [(float(at), 2.0 * at) for at in range(50)]
    points[10], points[40] = (10.0, 1e9), (40.0, -1e9)
    assert theil_sen(points).per_s == pytest.approx(2.0)


def test_of_too_few_points_nothing_is_said():
    assert theil_sen([(0.0, 1.0), (1.0, 2.0)]) is None


def test_noise_alone_grows_for_certain_in_fewer_than_one_of_a_hundred_series():
    dice = random.Random(1)
    risen = sum(theil_sen([(float(at), dice.gauss(0, 1)) for at in range(24)]).least_per_s > 0 for _ in range(300))
    assert risen < 3


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=100), st.integers(1, 20))
def test_floors_are_points_of_the_series_in_order_with_the_least_among_them(values, parts):
    points = [(float(at), value) for at, value in enumerate(values)]
    found = floors(points, parts)
    assert found == sorted(set(found) & set(points))
    assert min(value for _, value in found) == min(values)
    assert len(found) <= parts


def test_of_nothing_there_are_no_floors():
    assert floors([], 5) == []


# -- what grows -------------------------------------------------------------------------------------------------------


def looks(plan: Plan, **per_hour: float) -> list[dict[str, Any]]:
    """A run as it would be sampled: garbage comes and goes, faults open connections, and ``per_hour`` is what leaks."""
    dice, told = random.Random(3), []
    at_s, garbage = 0.0, 0.0
    while at_s < plan.seconds:
        garbage = 0.0 if dice.random() < 0.2 else garbage + dice.random()
        hours = at_s / HOUR_S
        # Full after three minutes.
        filled = min(1.0, at_s / 180)
        bursts = 3 if dice.random() < 0.1 else 0

        def grown(name: str, hours: float = hours) -> int:
            return int(per_hour.get(name, 0.0) * hours)

        told.append({
            "at_s": at_s,
            "rss": int((150 + 80 * filled + dice.gauss(0, 0.4)) * MEGA) + grown("bytes"),
            "malloc": int((30 + 5 * filled + garbage * 0.1) * MEGA) + grown("malloc"),
            "blocks": int(5e5 + 1e6 * filled + garbage * 2e3) + grown("bytes") // 141,
            "handles": 40 + bursts + grown("handles"),
            "threads": 3 + dice.choice((0, 1)) + grown("threads"),
            "tasks": {"stream trade": 1, "mending *": dice.choice((0, 0, 40)), "request": dice.randrange(5),
                      **({"watchdog": grown("tasks")} if grown("tasks") else {})},
        })  # fmt: skip
        at_s += plan.look_s
    return told


def leaks(plan: Plan, **per_hour: float) -> set[str]:
    return {growth.name for growth in growths(looks(plan, **per_hour), plan) if growth.is_leak}


@pytest.mark.parametrize("plan", [HOUR, SHORT, Plan(seconds=25.0), Plan(seconds=600.0)])
def test_a_run_that_keeps_nothing_is_not_said_to_leak(plan):
    assert leaks(plan) == set()


def test_a_leak_of_a_megabyte_an_hour_is_found_in_an_hour():
    assert "blocks" in leaks(HOUR, bytes=1e6)


def test_a_leak_outside_of_pythons_own_blocks_is_found_in_an_hour():
    assert leaks(HOUR, malloc=1.5e6) == {"malloc"}


def test_a_flood_of_memory_is_found_in_two_minutes():
    assert {"rss", "blocks"} <= leaks(SHORT, bytes=8e9)


def test_a_task_that_never_ends_is_found_by_its_name_in_an_hour():
    assert "tasks named 'watchdog'" in leaks(HOUR, tasks=60)


def test_tasks_that_never_end_are_found_in_two_minutes():
    assert "tasks named 'watchdog'" in leaks(SHORT, tasks=600)


@pytest.mark.parametrize("what", ["handles", "threads"])
def test_handles_and_threads_that_stay_are_found(what):
    assert what in leaks(HOUR, **{what: 12})
    assert what in leaks(SHORT, **{what: 720})


def samples(plan: Plan, **per_hour: float) -> list[dict[str, Any]]:
    """Objects of some types: few and still, or a hundred thousand that come and go with the trade."""
    dice, told, at_s = random.Random(5), [], 0.0
    while at_s < plan.seconds:
        objects = {"list": 3_400 + dice.randrange(-300, 300), "Trade": 113_000 + dice.randrange(-4_000, 4_000)}
        told.append({"at_s": at_s, "objects": {
            name: count + round(per_hour.get(name, 0.0) * at_s / HOUR_S) for name, count in objects.items()
        }})  # fmt: skip
        at_s += plan.sample_s
    return told


def test_many_small_objects_that_stay_are_found_by_their_type_in_an_hour():
    """However many others come and go meanwhile."""

    def found(**per_hour: float) -> set[str]:
        return {growth.name for growth in growths([], HOUR, samples(HOUR, **per_hour)) if growth.is_leak}

    assert found() == set()
    assert found(list=7_200) == {"objects named 'list'"}
    assert found(Trade=40_000) == {"objects named 'Trade'"}
    assert [growth for growth in growths([], SHORT, samples(SHORT, list=1e6)) if "list" in growth.name] == []


def test_what_cannot_be_measured_here_is_not_judged():
    told = [{**look, "malloc": None} for look in looks(SHORT)]
    assert "malloc" not in {growth.name for growth in growths(told, SHORT)}


# -- trades -----------------------------------------------------------------------------------------------------------


@attrs.define
class Ear:
    """A consumer of trades that is told the truth, but for what ``spoil`` does to it."""

    world: World
    since_ms: int = NOW_MS
    book: TradeBook = attrs.field(init=False)
    flaws: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self):
        self.book = TradeBook(BUSY, lambda name, start, end: self.world.trades(name, start, end, end), self.since_ms)

    def deals(self, for_ms: int = 60_000):
        return self.world.trades(BUSY, self.since_ms, self.since_ms + for_ms, self.since_ms + for_ms)

    def tell(self, deals):
        for deal in deals:
            told = Told(deal.sequential_id, deal.at_ms, deal.buy, deal.price, deal.volume)
            self.flaws += self.book.trade(told)

    def gap(self, start_ms, end_ms, **how):
        self.flaws += self.book.gap(start_ms, end_ms, **how)

    def check(self, at_ms):
        self.flaws += self.book.check(self.since_ms + at_ms)

    def close(self, at_ms=60_000):
        self.flaws += self.book.close(self.since_ms + at_ms)
        return self.flaws


def test_trades_that_are_told_once_as_they_were_are_conserved(world):
    ear = Ear(world)
    deals = ear.deals()
    for number, deal in enumerate(deals):
        ear.tell([deal])
        if not number % 5:
            ear.check(deal.at_ms - ear.since_ms)
    assert ear.close() == []
    assert ear.book.checked == len(deals) > 20


def test_a_trade_that_is_lost_is_found_at_the_end_and_before_it(world):
    ear = Ear(world)
    deals = ear.deals()
    ear.tell(deals[:5] + deals[6:])
    ear.check(60_000 + SETTLED_MS)
    assert ear.flaws == []
    assert ear.book.behind == 1
    later = Ear(world)
    later.tell(deals[:5] + deals[6:])
    later.book.check(NOW_MS + 60_000 + SETTLED_MS)
    assert f"1 trades were never told: [{deals[5].sequential_id}]" in next(
        later.book.check(deals[5].at_ms + LOST_MS + 1)
    )
    assert f"1 trades were never told: [{deals[5].sequential_id}]" in ear.close()[0]


@pytest.mark.parametrize("checked_between", [False, True])
def test_a_trade_that_is_told_twice_is_found(world, checked_between):
    ear = Ear(world)
    deals = ear.deals()
    ear.tell(deals)
    if checked_between:
        ear.check(60_000 + SETTLED_MS)
    ear.tell([deals[3]])
    assert ear.flaws == [f"{BUSY}: trade {deals[3].sequential_id} was told twice"]


def test_a_trade_with_another_price_is_found(world):
    ear = Ear(world)
    deals = ear.deals()
    ear.tell([attrs.evolve(deals[0], price=deals[0].price + 1), *deals[1:]])
    assert "told was" in ear.close()[0]


@pytest.mark.parametrize("checked_between", [False, True])
def test_a_trade_that_never_was_is_found(world, checked_between):
    ear = Ear(world)
    deals = ear.deals()
    ear.tell(deals)
    if checked_between:
        ear.check(60_000 + SETTLED_MS)
    ear.tell([attrs.evolve(deals[0], sequential_id=deals[0].sequential_id + 7)])
    assert "never was" in ear.close()[0]


def test_what_was_last_before_anybody_listened_is_no_flaw(world):
    ear = Ear(world)
    ear.tell(world.newest_trades(BUSY, NOW_MS - 600_000, NOW_MS, NOW_MS, 1))
    ear.tell(ear.deals())
    assert ear.close() == []


def test_trades_that_are_repaired_late_are_conserved(world):
    ear = Ear(world)
    deals = ear.deals()
    ear.tell(deals[:10])
    ear.gap(deals[9].at_ms, deals[20].at_ms, is_open=True, repaired=False)
    ear.check(60_000 + SETTLED_MS)
    assert ear.book.behind > 0
    ear.gap(deals[9].at_ms, deals[20].at_ms, is_open=False, repaired=True)
    ear.tell(deals[10:])
    assert ear.close() == []
    assert (ear.book.gaps, ear.book.repaired, ear.book.unrepairable, ear.book.behind) == (1, 1, 0, 0)


def test_trades_in_a_gap_that_is_told_to_be_for_good_are_not_held_against_anybody(world):
    ear = Ear(world)
    deals = ear.deals()
    ear.tell(deals[:10])
    ear.check(60_000 + SETTLED_MS)
    ear.gap(deals[10].at_ms, deals[-1].at_ms, is_open=False, repaired=False)
    assert ear.close() == []
    assert ear.book.unrepairable == 1


def test_gaps_keep_their_own_rules(world):
    ear = Ear(world)
    ear.gap(NOW_MS, NOW_MS + 1, is_open=True, repaired=False)
    ear.gap(NOW_MS + 5, NOW_MS + 6, is_open=True, repaired=False)
    assert "opens while" in ear.flaws.pop()
    ear.tell(ear.deals()[:1])
    assert "within the open gap" in ear.flaws.pop()
    ear.gap(NOW_MS + 9, NOW_MS + 9, is_open=False, repaired=True)
    assert "was open" in ear.flaws.pop()
    ear.gap(NOW_MS + 20, NOW_MS + 21, is_open=True, repaired=False)
    assert "was never closed" in ear.close()[-1]


# -- bars -------------------------------------------------------------------------------------------------------------


def shown(bar, **other) -> Shown:
    prices = (bar.opening, bar.high, bar.low, bar.close)
    return attrs.evolve(Shown(bar.open_ms, prices, bar.volume, Decimal(bar.turnover) / 10**8, True, 0), **other)


@pytest.fixture
def book(world):
    return BarBook(BUSY, Timeframe.M1, lambda *asked: world.candles(*asked, asked[-1] - 1), NOW_MS)


@pytest.fixture
def true_bars(world):
    end_ms = NOW_MS + 600_000
    return world.candles(BUSY, Timeframe.M1, NOW_MS, end_ms, end_ms)


END_MS = NOW_MS + 540_000


def test_bars_that_are_final_once_and_true_are_conserved(book, true_bars):
    flaws = [flaw for bar in true_bars for flaw in book.bar(shown(bar))]
    assert flaws + list(book.check(END_MS)) + list(book.close(END_MS)) == []
    assert book.checked == 8
    assert book.behind == 0


def test_a_bar_that_is_missing_or_wrong_is_found_at_the_end_and_before_it(book, true_bars):
    wrong = shown(true_bars[2], volume=true_bars[2].volume + 1)
    for bar in (shown(true_bars[0]), wrong, *map(shown, true_bars[3:])):
        assert list(book.bar(bar)) == []
    assert list(book.check(END_MS)) == []
    assert book.behind == 2
    missing, altered = book.check(true_bars[2].open_ms + 60_000 + BAR_LOST_MS)
    assert "was never final" in missing
    assert "told was" in altered
    assert list(book.close(END_MS)) == []


def test_an_amendment_makes_a_wrong_bar_right(book, true_bars):
    for bar in true_bars:
        list(book.bar(shown(bar, volume=bar.volume + 1)))
        assert list(book.bar(shown(bar, revision=1))) == []
    assert list(book.close(END_MS)) == []
    assert book.amended == len(true_bars)


def test_a_bar_that_is_final_twice_or_runs_again_is_found(book, true_bars):
    list(book.bar(shown(true_bars[0])))
    assert "again with 0" in next(book.bar(shown(true_bars[0])))
    assert "again with 2" in next(book.bar(shown(true_bars[0], revision=2)))
    assert "runs again" in next(book.bar(shown(true_bars[0], is_final=False)))


def test_a_bar_that_never_was_is_found(book, true_bars):
    for bar in true_bars:
        list(book.bar(shown(bar)))
    list(book.bar(shown(true_bars[0], open_ms=true_bars[0].open_ms + 7_000)))
    assert "never was" in next(book.close(END_MS))


def test_a_turnover_is_compared_as_far_as_it_is_told(true_bars):
    bar = true_bars[0]
    assert shown(bar, turnover=Decimal(bar.turnover) / 10**8 + Decimal("0.4")).flaw(bar) == ""
    assert "turned over" in shown(bar, turnover=Decimal(bar.turnover) / 10**8 + 1).flaw(bar)


# -- stored rows ------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(world, tmp_path):
    """A database that holds an hour of minutes, as a pipe would have stored them."""
    path = tmp_path / "bars.db"
    SqliteStore.open(str(path), source="test").close()
    start_ms = NOW_MS - NOW_MS % 60_000
    with sqlite3.connect(path) as conn:
        for bar in world.candles(BUSY, Timeframe.M1, start_ms, start_ms + 3_600_000, start_ms + 3_600_000):
            prices = [str(Decimal(n) / 10**8) for n in (bar.opening, bar.high, bar.low, bar.close, bar.volume)]
            row = (BUSY, "1m", bar.open_ms, *prices, f"{Decimal(bar.turnover) / 10**16:f}", 1, 1, 0)
            conn.execute(f"INSERT INTO candles VALUES ({','.join('?' * len(row))})", row)
        conn.execute("INSERT INTO coverage VALUES (?, '1m', ?, ?)", (BUSY, start_ms, start_ms + 3_600_000))
    return path


def altered(path: Path, sql: str) -> Path:
    with sqlite3.connect(path) as conn:
        conn.execute(sql)
    return path


def test_rows_that_are_as_the_market_was_are_conserved(world, stored):
    found = held(world, stored)
    assert found.words == []
    assert (found.rows, found.series) == (60, 1)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE candles SET close = '0.5' WHERE open_ms = (SELECT min(open_ms) FROM candles)", "told was"),
        ("DELETE FROM candles WHERE open_ms = (SELECT max(open_ms) FROM candles)", "is missing"),
        ("UPDATE candles SET open_ms = open_ms + 1 WHERE open_ms = (SELECT max(open_ms) FROM candles)", "never was"),
        ("UPDATE coverage SET start_ms = start_ms + 60000", "is stored and not proven"),
    ],
)
def test_a_row_that_is_altered_lost_invented_or_unproven_is_found(world, stored, sql, words):
    assert any(words in line for line in held(world, altered(stored, sql)).words)


def test_a_sample_of_the_rows_is_a_part_of_them(world, stored):
    altered(stored, "UPDATE coverage SET end_ms = start_ms + 1800000")
    assert held(world, stored, days=1, seed=3).rows == 30


# -- limits, calls, counts --------------------------------------------------------------------------------------------


def stats(**group: int) -> dict[str, Any]:
    return {"groups": {"ticker": {"refused": 0, "greatest_per_second": 10, **group}},
            "streams": {"greatest_per_minute": 100}}  # fmt: skip


def test_what_is_within_the_limits_is_no_flaw():
    assert list(beyond_limits(stats(), {}, 10, 100)) == []


def test_refusals_and_crowded_seconds_and_minutes_are_found():
    assert "1 requests were refused" in next(beyond_limits(stats(refused=1), {}, 10, 100))
    assert "11 requests in a second" in next(beyond_limits(stats(greatest_per_second=11), {}, 10, 100))
    assert "10 requests in a second, allowed 5" in next(beyond_limits(stats(), {"ticker": 5}, 10, 100))
    assert "100 in a minute" in next(beyond_limits(stats(), {}, 10, 99))


def test_calls_that_fail_are_held_against_the_pipe_only_where_nothing_was_wrong():
    samples = [{"at_s": at_s, "failures": {"chart: BadPayload": count, "stream_trade: SubscriberLagged": count}}
               for at_s, count in ((10, 0), (50, 5), (80, 5), (100, 6))]  # fmt: skip
    assert list(failures_while_calm(samples, 20.0)) == ["chart: BadPayload 1 times while all was well, allowed 0"]
    assert list(failures_while_calm(samples[:3], 20.0)) == []
    assert list(failures_while_calm(samples, 60.0)) == []


def test_a_queue_beyond_its_bound_and_counts_that_do_not_add_up_are_found():
    whole = {"queues": {"frames trade": [0, 1000, 1000], "answers": [0, 99, None]}, "unaccounted": 0, "rows_let_go": 0,
             "store_failures": 0}  # fmt: skip
    assert list(queue_flaws(whole)) == []
    broken = {**whole, "queues": {"frames trade": [0, 1001, 1000]}, "unaccounted": 2, "rows_let_go": 1}
    assert len(list(queue_flaws(broken))) == 3


def test_a_run_in_which_nothing_happens_is_no_proof():
    told = list(idle({"trades": 1, "rows": 0}, ("trades", "rows", "reads")))
    assert told == ["no rows in the whole run", "no reads in the whole run"]


# -- what goes wrong --------------------------------------------------------------------------------------------------


def dealt(seed: int = 7, last_s: float = HOUR_S):
    names = ["KRW-BTC", "KRW-ETH"]
    return list(strikes(seed, names, first_s=30.0, last_s=last_s, every_s=HOUR.fault_every_s))


def test_everything_that_the_simulator_can_do_is_done_within_an_hour_and_the_simulator_understands_it():
    struck = dealt()
    assert kinds(struck) == set(KINDS)
    assert sum(len(strike.faults) == 2 for strike in struck) > 5
    for strike in struck:
        assert len(parse_faults(json.dumps(strike.faults).encode())) == len(strike.faults)


def test_the_same_seed_deals_the_same_and_another_seed_something_else():
    assert dealt() == dealt() != dealt(seed=8)


def test_faults_come_every_20_to_60_seconds_and_are_over_before_it_is_calm():
    struck = dealt()
    apart_s = [later.at_s - earlier.at_s for earlier, later in pairwise(struck)]
    assert 20 <= min(apart_s) <= max(apart_s) <= 60.01
    assert max(strike.ends_s for strike in struck) <= HOUR_S
    assert len(DECK) > len(KINDS)


# -- verdict and report -----------------------------------------------------------------------------------------------


def test_the_verdict_names_the_first_finding_and_counts_the_others():
    findings = Findings()
    assert not findings
    for number in range(TOLD + 5):
        findings.add("trades", f"number {number}", 3.0)
    assert str(findings) == f"trades: number 0 (after 3 s; {TOLD + 4} more)"
    assert len(findings.told) == TOLD
    assert Record(SHORT, findings=findings, lasted_s=120).verdict.startswith("RED after 120 s: trades: number 0")


def test_a_run_without_a_finding_is_green_and_one_that_was_stopped_says_so():
    assert Record(SHORT, conserved={"trades": 5}, lasted_s=120).verdict.startswith("GREEN after 120 s: 5 trades")
    assert Record(SHORT, interrupted=True).verdict.startswith("INTERRUPTED")


def test_a_report_of_a_run_that_had_no_time_to_look_can_be_written(tmp_path):
    paths = write_report(Record(SHORT), tmp_path)
    assert {path.name for path in paths} >= {"soak.json", "soak.html"}
    assert json.loads(paths[0].read_text())["green"] is True
    assert document(Record(SHORT))["growths"] == []


def test_misuse_is_told_and_nothing_runs(capsys):
    assert main(["--minutes", "0.1"]) == 2
    assert main(["--minutes", "2", "--plant", "nothing"]) == 2
    assert "a defect must be one of" in capsys.readouterr().err


def test_a_planted_defect_has_a_number_of_its_own_or_the_usual_one():
    assert Planted.parse("leak:5e6") == Planted("leak", 5e6)
    assert Planted.parse("task") == Planted("task", PLANTS["task"][1])


# -- the real thing, small --------------------------------------------------------------------------------------------


def soak(out: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "bench.soak", "--minutes", "0.4", "--markets", "40", "--seconds-of", "0", "--out",
               str(out), *words]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), timeout=240, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads((out / "soak.json").read_text()), done.stdout.strip().splitlines()[-1]


@pytest.mark.long
def test_a_short_run_with_a_lost_trade_an_altered_row_and_an_escaped_error_is_red(tmp_path):
    status, told, last = soak(tmp_path, "--no-faults", "--plant", "lose:20", "--plant", "row:3", "--plant", "escape:3")
    assert status == 1
    assert last == told["verdict"]
    assert last.startswith("RED")
    assert {"trades", "rows", "escaped"} <= told["findings"]["counts"].keys()


@pytest.mark.long
def test_a_short_run_of_three_processes_ends_green_and_is_reported(tmp_path):
    status, told, last = soak(tmp_path)
    assert (status, told["findings"]["told"]) == (0, [])
    assert last.startswith("GREEN")
    assert told["conserved"]["trades"] > 0
    assert told["conserved"]["rows"] > 0
    assert told["strikes"]
    assert (tmp_path / "soak.html").stat().st_size > 1_000
