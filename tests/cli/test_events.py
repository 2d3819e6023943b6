"""Events as JSON lines: what each is, every digit, and gaps among them."""

from __future__ import annotations

import json
from decimal import Decimal

import attrs
from rig import open_rig

from marketpipe.cli.events import event_line
from marketpipe.models import Gap


async def test_each_line_says_what_it_is_and_keeps_every_digit(autojump_clock):
    async with open_rig() as rig:
        (trade,) = await rig.market.get_trade("KRW-BTC", count=1)
        (bar,) = await rig.market.get_candle("KRW-BTC", count=1)
        told = [trade, await rig.market.get_ticker("KRW-BTC"), bar]
        now_ms = rig.clock.now_ms() + 7
    rows = [json.loads(event_line(event, now_ms), parse_float=Decimal) for event in told]
    assert [row["event"] for row in rows] == ["trade", "ticker", "candle"]
    assert rows[0]["price"] == trade.price
    assert rows[0]["volume"] == trade.volume
    assert rows[2]["close"] == bar.close
    assert all(row["age_ms"] >= 7 for row in rows)


def test_a_gap_is_an_event_and_says_whether_it_is_open():
    gap = Gap("KRW-BTC", 1, 2, "closed 1006")
    row = {"event": "gap", **attrs.asdict(gap), "is_open": True}
    assert json.loads(event_line(gap, 0)) == row
    mended = attrs.evolve(gap, repaired=True, proof="none was missing")
    assert json.loads(event_line(mended, 0))["is_open"] is False
