"""Bars of a second that the exchange does not keep any more: that nothing is known of them is said, not passed over."""

from __future__ import annotations

import pytest
from rig import Rig, open_rig

from marketpipe import Priority, Timeframe
from marketpipe.core.bars import BarsWanted
from marketpipe.core.ranges import BarRange
from marketpipe.core.spans import SpanSet

S1 = Timeframe.S1
DAY_MS = 86_400_000
BUSY = "KRW-BTC"


async def gone(rig: Rig, start_ms: int, end_ms: int) -> SpanSet:
    await rig.market.get_market()
    collected = rig.market._collected
    assert collected is not None
    wanted = BarsWanted(S1, BarRange(None, start_ms, end_ms))
    return (await collected.bars(BUSY, wanted, Priority.NORMAL)).gone


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "keeps no" in record.getMessage()]


async def test_what_cannot_be_known_any_more_is_told_with_the_bars_and_once_in_the_log(autojump_clock, caplog):
    async with open_rig(store=":memory:", markets=5) as rig:
        now_ms = rig.clock.now_ms() // 1000 * 1000
        start_ms, end_ms = now_ms - 200 * DAY_MS, now_ms - 200 * DAY_MS + 60_000
        for _ in range(2):
            assert await gone(rig, start_ms, end_ms) == SpanSet.of((start_ms, end_ms))
        (line,) = said(caplog)
        assert line.startswith("the exchange keeps no 1s bars of KRW-BTC from before ")


async def test_of_what_is_stored_or_kept_nothing_is_gone(autojump_clock, caplog):
    async with open_rig(store=":memory:", markets=5) as rig:
        now_ms = rig.clock.now_ms() // 1000 * 1000
        assert await gone(rig, now_ms - 60_000, now_ms - 30_000) == SpanSet()
        assert await gone(rig, now_ms - 20 * DAY_MS, now_ms - 20 * DAY_MS + 10_000) == SpanSet()
        assert said(caplog) == []


async def test_a_long_reading_says_it_too(autojump_clock, caplog):
    async with open_rig(store=":memory:", markets=5) as rig:
        now_ms = rig.clock.now_ms() // 1000 * 1000
        pages = rig.market.iterate_candle(BUSY, "1s", start=now_ms - 200 * DAY_MS, end=now_ms - 200 * DAY_MS + 60_000)
        assert [page async for page in pages] == []
        assert len(said(caplog)) == 1
