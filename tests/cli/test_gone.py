"""What the exchange keeps no more is told apart from what has no bar, and from what nobody has asked for."""

from __future__ import annotations

import pytest
from rig import EPOCH_MS, open_rig
from store.paper_store import piece

from marketpipe.cli.gone import cannot_be_known, gone
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import StoreError

MARKET = "KRW-BTC"
S1 = Timeframe.S1
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOW_MS = EPOCH_MS // 1000 * 1000
# The exchange keeps bars of a second for three months.
OLD_MS = NOW_MS - 100 * DAY_MS


async def test_nothing_is_gone_as_long_as_nobody_has_asked_for_it(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        assert await gone(rig.market, MARKET, S1, OLD_MS, OLD_MS + HOUR_MS) == SpanSet()


async def test_what_was_asked_for_in_vain_is_gone_and_nothing_more_is_asked(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        assert not await rig.market.get_candle(MARKET, "1s", start=OLD_MS, end=OLD_MS + HOUR_MS)
        asked = len(rig.exchange.requests)
        spans = await gone(rig.market, MARKET, S1, OLD_MS, OLD_MS + HOUR_MS)
        assert spans == SpanSet.of((OLD_MS, OLD_MS + HOUR_MS))
        assert len(rig.exchange.requests) == asked


async def test_what_is_still_kept_is_not_gone(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        series = await rig.market.get_candle(MARKET, "1s", start=OLD_MS, count=300)
        first_ms, last_ms = series[0].open_ms, series[-1].open_ms
        (span,) = await gone(rig.market, MARKET, S1, OLD_MS, last_ms)
        assert span[0] == OLD_MS
        assert first_ms - HOUR_MS < span[1] <= first_ms
        later_ms = NOW_MS - HOUR_MS
        assert await gone(rig.market, MARKET, S1, later_ms, NOW_MS + HOUR_MS) == SpanSet(), "not asked for, to come"


async def test_what_was_stored_when_it_was_still_kept_is_known(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        first = (OLD_MS // 1000) - piece(0, 1, timeframe=S1).start_ms // 1000
        rig.store.write([piece(first + 100, first + 200, [first + 150], timeframe=S1)], now_ms=1)
        await rig.market.get_candle(MARKET, "1s", start=OLD_MS, end=OLD_MS + HOUR_MS)
        assert await gone(rig.market, MARKET, S1, OLD_MS, OLD_MS + HOUR_MS) == SpanSet.of(
            (OLD_MS, OLD_MS + 100_000), (OLD_MS + 200_000, OLD_MS + HOUR_MS)
        )


async def test_of_other_timeframes_nothing_is_ever_gone(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        start_ms = NOW_MS - 20 * 365 * DAY_MS  # before the exchange was there
        assert not await rig.market.get_candle(MARKET, "1m", start=start_ms, end=start_ms + HOUR_MS)
        assert await gone(rig.market, MARKET, Timeframe.M1, start_ms, start_ms + HOUR_MS) == SpanSet()


async def test_a_database_that_cannot_be_read_is_told_and_the_bars_are_not_lost(autojump_clock, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise StoreError("the disk is gone")

    async with open_rig(store=":memory:") as rig:
        monkeypatch.setattr(type(rig.store), "coverage", refuse)
        assert await gone(rig.market, MARKET, S1, OLD_MS, OLD_MS + HOUR_MS) == SpanSet()
    assert capsys.readouterr() == ("", "marketpipe: the disk is gone\n")


@pytest.mark.parametrize(("slots", "words"), [(1, "1 slot"), (SpanSet.of((0, 2_000), (5_000, 6_000)), "3 slots")])
def test_it_is_told_in_one_line(slots, words):
    assert cannot_be_known(MARKET, S1, slots) == f"KRW-BTC 1s: {words} cannot be known: the exchange keeps them no more"
