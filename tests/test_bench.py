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

import bench.__main__ as command
from bench.catalogue import BENCHES, RIVALS, about
from bench.demand import steady_rate
from bench.figures import Figure, Outcome, at_least, at_most, ratio_below
from bench.ground import Account
from bench.report import document
from bench.scale import TINY
from bench.truth import (
    CANDLE_FIELDS,
    TICKER_FIELDS,
    TRADE_FIELDS,
    wrong_book,
    wrong_candles,
    wrong_tickers,
    wrong_trades,
)
from marketpipe import CandleSeries, CandleState, Side, Timeframe
from marketpipe.core.requests import CandlesRequest, OrderbooksRequest, TickersRequest, TradesRequest
from marketpipe.sim import World
from marketpipe.sim.quotation import answer
from marketpipe.upbit import wire

HOUR_MS = 3_600_000
WORLD = World(markets=40)
ALONE = ("decode", "pacing", "cache", "hit", "memory")


def checked(name, outcome):
    """What every bench owes: figures that are numbers, and nothing found wrong."""
    assert outcome.figures, name
    assert all(sample >= 0 for figure in outcome.figures for sample in figure.samples), name
    assert not outcome.broken, name
    json.dumps(document({name: outcome}, "tiny"), allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
async def test_a_bench_without_a_network_runs_and_breaks_no_promise(name):
    """In this process."""
    checked(name, await BENCHES[name](TINY))


@pytest.mark.slow
@pytest.mark.socket
async def test_the_other_benches_run_and_break_no_promise():
    """All at once, since most of their time is spent waiting for a second to pass; each has its own simulator."""
    outcomes = {}

    async def run(name):
        outcomes[name] = await BENCHES[name](TINY)

    async with trio.open_nursery() as nursery:
        for name in BENCHES:
            if name not in ALONE:
                nursery.start_soon(run, name)
    for name, outcome in outcomes.items():
        checked(name, outcome)
    assert {*outcomes, *ALONE} == set(BENCHES)
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
    one = Outcome([Figure(what="x", unit="s", samples=[1])], ["a"])
    two = Outcome([Figure(what="x", unit="s", samples=[2])], ["b"])
    merged = Outcome.merged([one, two])
    assert [figure.samples for figure in merged.figures] == [(1, 2)]
    assert merged.broken == Outcome.joined([one, two]).broken == ("a", "b")
    assert len(Outcome.joined([one, two]).figures) == 2


@pytest.mark.parametrize(("broken", "code"), [((), 0), (("KRW-BTC: price is 1, the market's is 2",), 1)])
def test_the_command_ends_with_1_if_a_promise_was_broken(monkeypatch, tmp_path, broken, code):
    """A goal that is missed is told; an answer that is wrong is a failure."""

    async def fake(scale):
        return Outcome([Figure(what="slow", unit="s", samples=[9.0], goal=at_most(1))], broken)

    monkeypatch.setattr(command, "BENCHES", {"fake": fake})
    path = tmp_path / "figures.json"
    result = CliRunner().invoke(command.main, ["fake", "--quick", "--json", str(path)])
    assert result.exit_code == code
    assert "NO" in result.output
    assert all(line in result.output for line in broken)
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told["machine"]["cores"]
    assert told["benches"]["fake"]["broken"] == list(broken)
    assert told["benches"]["fake"]["figures"][0]["samples"] == [9.0]
    assert told["benches"]["fake"]["figures"][0]["met"] is False


def test_an_unknown_bench_is_named(tmp_path):
    """With the names there are."""
    result = CliRunner().invoke(command.main, ["nonsense"])
    assert result.exit_code == 2
    assert "nonsense" in result.output
    assert all(name in result.output for name in BENCHES)
    listed = CliRunner().invoke(command.main, ["--list"])
    assert [line.split()[0] for line in listed.output.splitlines()] == list(BENCHES)
