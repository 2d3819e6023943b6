"""Trades, bars and gaps as lines of text."""

from __future__ import annotations

import attrs
import pytest
from rig import EPOCH_MS, open_rig

from marketpipe.cli import figures
from marketpipe.cli.lines import Columns, bar_text, gap_text, trade_text
from marketpipe.models import CandleState, Gap


@pytest.fixture
async def rig(autojump_clock):
    async with open_rig() as rig:
        yield rig


async def test_a_trade_is_told_with_every_digit_and_its_side_in_colour(rig, autojump_clock):
    trades = await rig.market.get_trade("KRW-BTC", count=20)
    colours = {"BUY": "green", "SELL": "red"}
    for trade in trades:
        text = trade_text(trade, Columns())
        for part in ("KRW-BTC", trade.side, figures.exact(trade.price), figures.exact(trade.volume)):
            assert part in text.plain.split()
        assert text.plain.startswith(figures.utc(trade.trade_ms, digits="milliseconds").split()[1])
        assert [span.style for span in text.spans] == [colours[trade.side]]


async def test_lines_of_one_listing_have_their_prices_below_each_other(rig, autojump_clock):
    columns = Columns()
    names = ["KRW-BTC", "KRW-ETH"]
    trades = [trade for name in names for trade in await rig.market.get_trade(name, count=5)]
    for trade in trades:
        trade_text(trade, columns)
    assert len({len(trade_text(trade, columns).plain) for trade in trades}) == 1


async def test_a_bar_says_whether_it_runs_is_final_or_was_amended(rig, autojump_clock):
    (running,) = await rig.market.get_candle("KRW-BTC", "1m", count=1)
    final = attrs.evolve(running, state=CandleState.FINAL)
    kinds = (attrs.evolve(running, state=CandleState.RUNNING), final, attrs.evolve(final, revision=2))
    ends = [bar_text(bar, Columns()).plain.split("  ")[-1] for bar in kinds]
    assert ends == ["running", "final", "amended 2"]


async def test_a_bar_of_a_second_has_the_second_of_its_time(rig, autojump_clock):
    (second,) = await rig.market.get_candle("KRW-BTC", "1s", count=1)
    odd = attrs.evolve(second, open_ms=EPOCH_MS)
    assert bar_text(odd, Columns()).plain.startswith("2026-09-23 12:34:56  KRW-BTC  1s  ")


def test_a_gap_is_told_when_it_opens_and_how_it_ended():
    gap = Gap("KRW-BTC", EPOCH_MS, EPOCH_MS + 5_240, "closed 1006")
    mended = attrs.evolve(gap, repaired=True, proof="17 were missing")
    lost = attrs.evolve(gap, proof="the exchange keeps 8 days")
    assert [gap_text(each).plain for each in (gap, mended, lost)] == [
        "gap  KRW-BTC  since 12:34:56.000: closed 1006",
        "gap  KRW-BTC  5.2 s, closed 1006; mended: 17 were missing",
        "gap  KRW-BTC  5.2 s, closed 1006; not mended: the exchange keeps 8 days",
    ]
