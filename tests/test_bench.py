"""The benches still run, at a size where figures mean nothing, and they see what is wrong. No time is asserted."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from urllib.parse import parse_qsl

import attrs
import pytest
import trio
from click.testing import CliRunner
from rig import EPOCH_MS
from trio.testing import MockClock

import bench.__main__ as command
from bench.catalogue import BENCHES, RIVALS, about
from bench.collecting import ratio_above
from bench.delays import Delays
from bench.demand import steady_rate
from bench.figures import Figure, Matrix, Outcome, at_least, at_most, ratio_below
from bench.flooding import Sent, Slice
from bench.ground import Account
from bench.memory import ready_exchange
from bench.oracle import Log, Verdict, verdict_on_bars, verdict_on_trades
from bench.report import document
from bench.scale import TINY
from bench.sparse import ThinExchange, in_bursts, scattered
from bench.stages import open_real_stage
from bench.stream_faults import SCENARIOS, play_virtually
from bench.truth import (
    CANDLE_FIELDS,
    TICKER_FIELDS,
    TRADE_FIELDS,
    wrong_book,
    wrong_candles,
    wrong_tickers,
    wrong_trades,
)
from marketpipe import CandleSeries, CandleState, Gap, Side, Timeframe, Trade
from marketpipe.actors.hub import Hub
from marketpipe.core.requests import CandlesRequest, OrderbooksRequest, TickersRequest, TradesRequest
from marketpipe.sim import World
from marketpipe.sim.quotation import answer
from marketpipe.upbit import wire

HOUR_MS = 3_600_000
WORLD = World(markets=40)
ALONE = ("decode", "pacing", "cache", "hit", "memory", "sparse")
# Floods want processors: at this size two of them at once have enough, and most of their time they wait.
FLOODED = (("ingest", "slow"), ("latency", "subscriptions"), ("flatout", "outages"))
# They collect and read in processes of their own.
COLLECTED = ("backfill", "allowance", "stored", "kills")
# It counts what this process holds, so nothing else may run beside it.
BY_ITSELF = "leaving"


def checked(name, outcome):
    """What every bench owes: figures that are numbers, and nothing found wrong."""
    assert outcome.figures, name
    assert all(sample >= 0 for figure in outcome.figures for sample in figure.samples), name
    assert not outcome.broken, name
    json.dumps(document({name: outcome}, "tiny"), allow_nan=False)


async def checked_at_once(names):
    """The outcome of each; most of their time is spent waiting for a second to pass, and each has its own simulator."""
    outcomes = {}

    async def run(name):
        outcomes[name] = await BENCHES[name](TINY)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(run, name)
    for name, outcome in outcomes.items():
        checked(name, outcome)
    return outcomes


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ALONE)
async def test_a_bench_without_a_network_runs_and_breaks_no_promise(name):
    """In this process."""
    checked(name, await BENCHES[name](TINY))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.socket
@pytest.mark.parametrize("names", FLOODED, ids=" and ".join)
async def test_benches_of_live_streams_run_and_break_no_promise(names):
    """Readers in processes of their own, a simulator in another."""
    assert set(await checked_at_once(names)) == set(names)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.socket
async def test_the_benches_of_collecting_run_and_break_no_promise():
    assert set(await checked_at_once(COLLECTED)) == set(COLLECTED)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.socket
async def test_the_bench_that_counts_what_is_left_behind_runs_and_breaks_no_promise():
    checked(BY_ITSELF, await BENCHES[BY_ITSELF](TINY))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.socket
async def test_the_other_benches_run_and_break_no_promise():
    elsewhere = {*ALONE, *COLLECTED, BY_ITSELF}.union(*FLOODED)
    outcomes = await checked_at_once(BENCHES.keys() - elsewhere)
    assert {*outcomes, *elsewhere} == set(BENCHES)
    missing = {figure.what: figure.value for figure in outcomes[RIVALS].figures if "not answered" in figure.what}
    assert set(missing.values()) == {0}


def test_every_bench_says_what_it_measures():
    """The list is read by people."""
    assert all(about(bench) for bench in BENCHES.values())


# -- the truth ----------------------------------------------------------------------------------------------------


def asked(request):
    """The values of ``request`` as the pipe would get them."""
    path, _, query = wire.encode(request).partition("?")
    told = answer(WORLD, path, parse_qsl(query), EPOCH_MS)
    rows, _ = wire.decode(request, told.body, received_ms=EPOCH_MS, exchange_ms=EPOCH_MS)
    return rows


def tampered(value):
    """Another value of the same kind, as little off as possible."""
    if isinstance(value, Decimal):
        return value + Decimal(1).scaleb(min(-8, value.as_tuple().exponent))
    if hasattr(value, "isoformat"):
        return value + timedelta(days=1)
    return value + 1 if isinstance(value, int) else f"{value}X"


def test_true_values_are_found_true():
    """What the exchange says is the truth, for every market."""
    names = WORLD.listed(EPOCH_MS)
    assert wrong_tickers(WORLD, asked(TickersRequest(tuple(names))), EPOCH_MS) == []
    assert [line for book in asked(OrderbooksRequest(tuple(names))) for line in wrong_book(WORLD, book, EPOCH_MS)] == []


@pytest.mark.parametrize("field", [name for name in TICKER_FIELDS if name not in ("market", "trade_ms")])
def test_a_ticker_that_is_wrong_in_one_field_is_found(field):
    """One unit of the last digit is enough, in any field."""
    (ticker,) = asked(TickersRequest(("KRW-BTC",)))
    wrong = attrs.evolve(ticker, **{field: tampered(getattr(ticker, field))})
    assert [field in line for line in wrong_tickers(WORLD, [wrong], EPOCH_MS)] == [True]


def test_an_old_ticker_is_found():
    """A value of an hour ago is true of then, and wrong as an answer to a question of now."""
    then_ms = EPOCH_MS - HOUR_MS
    body = answer(WORLD, "/v1/ticker", [("markets", "KRW-BTC")], then_ms).body
    old, _ = wire.decode(TickersRequest(("KRW-BTC",)), body, received_ms=then_ms, exchange_ms=then_ms)
    assert wrong_tickers(WORLD, old, then_ms) == []
    assert ["older" in line for line in wrong_tickers(WORLD, old, EPOCH_MS)] == [True]


@pytest.mark.parametrize("side", ["bids", "asks"])
def test_a_book_that_is_wrong_in_one_level_is_found(side):
    """Size, price or a level that is missing."""
    (book,) = asked(OrderbooksRequest(("KRW-BTC",)))
    levels = getattr(book, side)
    for wrong in (
        levels[1:],
        (*levels[:-1], attrs.evolve(levels[-1], size=tampered(levels[-1].size))),
        (*levels[:-1], attrs.evolve(levels[-1], price=tampered(levels[-1].price))),
    ):
        assert wrong_book(WORLD, attrs.evolve(book, **{side: wrong}), EPOCH_MS) == [f"KRW-BTC: {side} differ"]


def test_candles_that_are_wrong_are_found():
    """Any field of any bar, a bar too few, a bar that is not final."""
    page = asked(CandlesRequest("KRW-BTC", Timeframe.M1, 50, EPOCH_MS // HOUR_MS * HOUR_MS))
    series = CandleSeries("KRW-BTC", Timeframe.M1, tuple(reversed(page)))
    end_ms = EPOCH_MS // HOUR_MS * HOUR_MS

    def wrong(candles):
        return wrong_candles(WORLD, attrs.evolve(series, candles=tuple(candles)), 50, end_ms)

    assert wrong(series) == []
    assert wrong(series[1:])
    for field in CANDLE_FIELDS:
        bad = attrs.evolve(series[7], **{field: tampered(getattr(series[7], field))})
        assert [field in line for line in wrong([*series[:7], bad, *series[8:]])] == [True]
    assert wrong([*series[:49], attrs.evolve(series[49], state=CandleState.RUNNING)])
    assert wrong([*series[:49], attrs.evolve(series[49], open_ms=series[49].open_ms + 60_000)])


def test_trades_that_are_wrong_are_found():
    """Any field of any trade, a side, one that is missing at either end or in the middle."""
    trades = asked(TradesRequest("KRW-BTC", 20))

    def wrong(rows):
        return wrong_trades(WORLD, "KRW-BTC", rows, EPOCH_MS, 20)

    assert wrong(trades) == []
    for field in set(TRADE_FIELDS) - {"trade_ms"}:
        bad = attrs.evolve(trades[7], **{field: tampered(getattr(trades[7], field))})
        assert [field in line for line in wrong((*trades[:7], bad, *trades[8:]))] == [True]
    turned = Side.SELL if trades[7].side is Side.BUY else Side.BUY
    assert wrong((*trades[:7], attrs.evolve(trades[7], side=turned), *trades[8:]))
    assert wrong(trades[1:])
    older = asked(TradesRequest("KRW-BTC", 21))
    assert wrong(older[1:])
    assert wrong((*older[:7], *older[8:]))


def test_a_broken_limit_is_found():
    """Refused requests, and more in a second than are allowed."""
    kept = {"requests": 10, "refused": 0, "greatest_per_second": 10}
    assert Account({"ticker": kept}, {}, 10).broken("a test") == []
    assert Account({"ticker": kept | {"refused": 1}}, {}, 10).broken("a test") == ["a test: 1 requests were refused"]
    assert len(Account({"ticker": kept | {"greatest_per_second": 11}}, {}, 10).broken("a test")) == 1


# -- what consumers of streams were told ------------------------------------------------------------------------------


TRADES = asked(TradesRequest("KRW-BTC", 60))[::-1]
BARS = asked(CandlesRequest("KRW-BTC", Timeframe.M1, 50, EPOCH_MS // 60_000 * 60_000))[::-1]
TOLD = {
    "market": "KRW-BTC",
    "start_ms": TRADES[6].trade_ms,
    "end_ms": TRADES[7].trade_ms,
    "cause": "the connection was lost",
}


def log_of(*events):
    """A log in which an event comes every second."""
    return Log(list(enumerate(events)))


def on_trades(*events, **options):
    return verdict_on_trades(log_of(*events), WORLD, "KRW-BTC", EPOCH_MS, **options)


def on_bars(*events):
    return verdict_on_bars(log_of(*events), WORLD, "KRW-BTC", Timeframe.M1, EPOCH_MS)


def test_trades_that_were_told_once_are_fine_in_any_order():
    """Beginning with whatever trade came first, in numbers."""
    assert on_trades(*TRADES) == Verdict()
    assert on_trades(*TRADES[20:], *TRADES[5:20]).is_clean


def test_a_trade_that_was_not_told_or_twice_or_otherwise_is_found():
    """Any field of it."""
    without = on_trades(*TRADES[:7], *TRADES[8:])
    assert (without.lost, without.doubled, without.wrong) == (1, 0, 0)
    assert str(TRADES[7].sequential_id) in without.words[0]
    assert on_trades(*TRADES, TRADES[7]).doubled == 1
    turned = Side.SELL if TRADES[7].side is Side.BUY else Side.BUY
    for change in ({"price": TRADES[7].price * 2}, {"volume": tampered(TRADES[7].volume)}, {"side": turned},
                   {"trade_ms": TRADES[7].trade_ms + 1}):  # fmt: skip
        verdict = on_trades(*TRADES[:7], attrs.evolve(TRADES[7], **change), *TRADES[8:])
        assert (verdict.lost, verdict.wrong) == (0, 1), change
    invented = attrs.evolve(TRADES[7], sequential_id=TRADES[7].sequential_id + 1)
    assert on_trades(*TRADES, invented).wrong == 1


def test_a_trade_is_lost_although_a_gap_promises_it_and_is_not_if_a_gap_says_that_it_is_gone():
    """Only what nobody can have any more is excused, and that is counted."""
    rest = (*TRADES[:7], *TRADES[8:])
    assert on_trades(Gap(**TOLD), *rest).lost == 1
    assert on_trades(Gap(**TOLD), Gap(**TOLD, repaired=True, proof="page"), *rest).lost == 1
    gone = on_trades(Gap(**TOLD), Gap(**TOLD, proof="REST keeps no more"), *rest)
    assert (gone.lost, gone.unrepairable, gone.gaps) == (0, 1, 2)


def test_silence_is_a_loss_for_who_has_listened_long_enough():
    """A stream that never says anything does not pass for one that says nothing wrong."""
    assert on_trades().is_clean
    assert on_trades(since_ms=TRADES[0].trade_ms).lost >= len(TRADES) - 5


def test_bars_that_were_told_as_they_are_are_fine():
    """Running ones before they are final, and amended ones with the next revision."""
    running = attrs.evolve(BARS[7], state=CandleState.RUNNING, volume=BARS[7].volume / 2)
    amended = attrs.evolve(BARS[9], revision=BARS[9].revision + 1)
    assert on_bars(running, *BARS, amended) == Verdict()


def test_bars_that_are_missing_doubled_wrong_or_invented_are_found():
    """Any number of any bar, and the turnover as exactly as the exchange tells it."""
    assert on_bars(*BARS[:7], *BARS[8:]).lost == 1
    assert on_bars(*BARS, BARS[7]).doubled == 1
    assert on_bars(*BARS, attrs.evolve(BARS[7], state=CandleState.RUNNING)).doubled == 1
    for field in ("open", "high", "low", "close", "volume", "quote_volume"):
        wrong = attrs.evolve(BARS[7], **{field: tampered(getattr(BARS[7], field))})
        assert on_bars(*BARS[:7], wrong, *BARS[8:]).wrong == 1, field
    assert on_bars(*BARS[:7], attrs.evolve(BARS[7], state=CandleState.RUNNING), *BARS[8:]).wrong == 1
    invented = attrs.evolve(BARS[7], open_ms=BARS[7].open_ms + 1)
    assert on_bars(*BARS[:8], invented, *BARS[8:]).wrong == 1


def test_a_hole_is_open_until_it_is_closed():
    """By market and start."""
    opened, closed = Gap(**TOLD), Gap(**TOLD, repaired=True, proof="page")
    log = log_of(TRADES[0], opened, attrs.evolve(opened, market="KRW-ETH"), TRADES[1], closed)
    assert log.noticed_s(0) == 1
    assert log.noticed_s(3) == 4
    assert [gap.market for gap in log.holes()] == ["KRW-ETH"]
    assert log.recovered_s() is None
    log.events.append((5, attrs.evolve(closed, market="KRW-ETH")))
    assert log.recovered_s() == 5
    assert log_of(TRADES[0]).recovered_s() is None


def test_verdicts_add_up():
    """Numbers and words."""
    one = Verdict(lost=1, wrong=2, words=("a",))
    assert Verdict.summed([one, Verdict(), Verdict(lost=2, gaps=3, words=("b",))]) == Verdict(3, 0, 2, 3, 0, ("a", "b"))


# -- faults of streams ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if each.virtual], ids=lambda each: each.name)
def test_what_goes_wrong_with_a_stream_costs_nothing_but_time(scenario):
    """Nothing lost, doubled or wrong, every hole closed, noticed in time, no limit of the exchange broken."""
    account = play_virtually(scenario)
    assert account.broken() == []
    assert account.trades.unrepairable == 0


@pytest.mark.slow
def test_a_pipeline_that_does_not_mend_is_caught(monkeypatch):
    """The repairs do not reach the consumers: the table says so."""
    scenario = next(each for each in SCENARIOS if each.name == "outage of 5 s")
    tell = Hub.tell
    monkeypatch.setattr(
        Hub, "tell", lambda hub, topic, events: tell(hub, topic, [e for e in events if not isinstance(e, Trade)])
    )
    account = play_virtually(scenario)
    assert account.trades.lost > 0
    assert any("lost" in line for line in account.broken())


@pytest.mark.slow
def test_a_pipeline_that_says_nothing_of_a_hole_is_caught(monkeypatch):
    """No gap, no notice."""
    scenario = next(each for each in SCENARIOS if each.name == "closed 1006")
    tell = Hub.tell
    monkeypatch.setattr(
        Hub, "tell", lambda hub, topic, events: tell(hub, topic, [e for e in events if not isinstance(e, Gap)])
    )
    account = play_virtually(scenario)
    assert [line for line in account.broken() if "noticed" in line] == ["closed 1006: noticed after -, should be 5"]
    assert "-" in account.cells()


@pytest.mark.slow
@pytest.mark.socket
async def test_an_exchange_that_is_killed_comes_back_to_the_same_address():
    """And shows the same market; who asks meanwhile fails, and who asks afterwards does not."""
    async with open_real_stage(markets=3) as stage:
        before = await stage.market.get_candle("KRW-BTC", count=5, end=stage.now_ms() - HOUR_MS)
        await stage.restart(0.1)
        after = await stage.market.get_candle("KRW-BTC", count=6, end=stage.now_ms() - HOUR_MS)
        assert after[-1].close == before[-1].close or after[-2].close == before[-1].close
        assert await stage.over_the_limits() == []


# -- floods -----------------------------------------------------------------------------------------------------------


def test_delays_are_counted_to_a_twentieth_of_a_millisecond(monkeypatch):
    """Ids are in tenths of a microsecond; what is later than two seconds counts as two."""
    now_ns = 1_790_166_896_000_000_000
    monkeypatch.setattr("bench.delays.time.time_ns", lambda: now_ns)
    delays = Delays()
    assert delays.ms(0.5) == 0.0
    for late_us in (100, 200, 300, 60_000_000):
        delays.note(now_ns // 100 - late_us * 10)
    assert delays.ms(0.25) == pytest.approx(0.15)
    assert delays.ms(0.75) == pytest.approx(0.35)
    assert delays.ms(1.0) == pytest.approx(2000.05)
    delays.forget()
    delays.note(now_ns // 100 + 50)  # the clocks of two processes are one clock, but not to the last digit
    assert delays.ms(1.0) == pytest.approx(0.05)


def test_what_a_flood_has_sent_and_nobody_received_is_found():
    """Frames of a line, a trade, another trade than was sent, and what the reader itself found wrong."""
    sent = Sent({"ticker": 10, "trade": 5}, 5, 500, 1.0)
    whole = Slice(sent=sent, frames={"ticker": 10, "trade": 5}, trades=5, trade_ids=500, gaps=0, cpu_s=0.0015,
                  elapsed_s=1.0, p50_ms=1.0, p99_ms=2.0, faults=())  # fmt: skip
    assert whole.broken("x") == []
    assert (whole.lost, whole.messages, whole.sent.rate) == (0, 15, 15.0)
    assert whole.cpu_us == pytest.approx(100)
    assert attrs.evolve(whole, frames={"ticker": 9, "trade": 5}).lost == 1
    for flaw, word in [
        ({"frames": {"ticker": 9, "trade": 5}}, "ticker"),
        ({"frames": {"trade": 5}}, "ticker"),
        ({"trades": 4}, "4 delivered"),
        ({"trade_ids": 501}, "other trades"),
        ({"faults": ("lost",)}, "lost"),
    ]:
        (line,) = attrs.evolve(whole, **flaw).broken("x")
        assert line.startswith("x: ")
        assert word in line


# -- collecting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [scattered, in_bursts])
def test_a_thin_market_is_as_thin_as_it_is_said_to_be(draw):
    """Five minutes of a hundred, each at most once, in order."""
    year = 365 * 1_440
    slots = list(draw(year))
    assert len(slots) / year == pytest.approx(0.05, rel=0.1)
    assert slots == sorted(set(slots))
    assert 0 <= slots[0] < slots[-1] < year


def test_a_thin_market_shows_the_newest_bars_before_a_moment():
    """And no others, newest first."""
    exchange = ThinExchange(ready_exchange(1).markets, [minute * 60_000 for minute in range(5)])
    request = CandlesRequest(exchange.name, Timeframe.M1, 2, 4 * 60_000)
    reply = trio.run(exchange.fetch, request, clock=MockClock(autojump_threshold=0))
    assert [bar.open_ms // 60_000 for bar in reply.rows] == [3, 2]
    assert exchange.pages == 1


# -- figures and the command ----------------------------------------------------------------------------------------


def test_goals_are_about_the_value_or_the_ratio():
    """Reached exactly is reached."""
    figure = Figure(what="x", unit="us", samples=[1, 4, 100], baseline="y", baseline_samples=[2])
    assert figure.value == 4
    assert figure.ratio == 2
    for goal, met in [
        (at_least(4), True),
        (at_least(5), False),
        (at_most(4), True),
        (at_most(3), False),
        (ratio_below(2), True),
        (ratio_below(1.9), False),
        (ratio_above(2), True),
        (ratio_above(2.1), False),
        (None, None),
    ]:
        assert attrs.evolve(figure, goal=goal).met is met


def test_the_steady_rate_leaves_out_the_burst_at_the_start():
    """Ten at once and ten more each 1.02 s are 9.8 a second, wherever the demand is cut off."""
    rounds = [second * 1.02 for second in range(6) for _ in range(10)]
    for answered in (rounds, rounds[:-3], rounds[:-9]):
        assert steady_rate(answered, 10) == pytest.approx(10 / 1.02)
    with pytest.raises(ValueError, match="two rounds"):
        steady_rate(rounds[:19], 10)


def test_repeats_are_merged_and_different_figures_joined():
    """Samples of the same figure come together; what was broken is never lost."""
    one = Outcome([Figure(what="x", unit="s", samples=[1], baseline="y", baseline_samples=[3])], ["a"])
    two = Outcome([attrs.evolve(one.figures[0], samples=[2], baseline_samples=[4])], ["b"],
                  [Matrix("t", ["c"], [["r"]])])  # fmt: skip
    merged = Outcome.merged([one, two])
    assert [(figure.samples, figure.baseline_samples) for figure in merged.figures] == [((1, 2), (3, 4))]
    assert merged.broken == Outcome.joined([one, two]).broken == ("a", "b")
    assert len(Outcome.joined([one, two]).figures) == 2
    assert merged.matrices == Outcome.joined([one, two]).matrices == two.matrices


@pytest.mark.parametrize(("broken", "code"), [((), 0), (("KRW-BTC: price is 1, the market's is 2",), 1)])
def test_the_command_ends_with_1_if_a_promise_was_broken(monkeypatch, tmp_path, broken, code):
    """A goal that is missed is told; an answer that is wrong is a failure."""

    async def fake(scale):
        table = Matrix("how it went", ["case", "lost"], [["a close", "0"], ["an outage", "17"]])
        return Outcome([Figure(what="slow", unit="s", samples=[9.0], goal=at_most(1))], broken, [table])

    monkeypatch.setattr(command, "BENCHES", {"fake": fake})
    path = tmp_path / "figures.json"
    result = CliRunner().invoke(command.main, ["fake", "--quick", "--json", str(path)])
    assert result.exit_code == code
    assert "NO" in result.output
    assert all(line in result.output for line in broken)
    assert all(word in result.output for word in ("how it went", "an outage", "17"))
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told["machine"]["cores"]
    assert told["benches"]["fake"]["broken"] == list(broken)
    assert told["benches"]["fake"]["figures"][0]["samples"] == [9.0]
    assert told["benches"]["fake"]["figures"][0]["met"] is False
    assert told["benches"]["fake"]["matrices"][0]["rows"] == [["a close", "0"], ["an outage", "17"]]


def test_an_unknown_bench_is_named(tmp_path):
    """With the names there are."""
    result = CliRunner().invoke(command.main, ["nonsense"])
    assert result.exit_code == 2
    assert "nonsense" in result.output
    assert all(name in result.output for name in BENCHES)
    listed = CliRunner().invoke(command.main, ["--list"])
    assert [line.split()[0] for line in listed.output.splitlines()] == list(BENCHES)
