"""What a wait is for, in words."""

from __future__ import annotations

import attrs
import pytest
import trio
from rig import open_rig

from marketpipe.cli.waiting import waiting_for
from marketpipe.core.requests import Group


async def test_an_answer_that_takes_its_time_is_waited_for(autojump_clock):
    async with open_rig(latency_s=3.0) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(rig.market.get_ticker, "KRW-BTC")
        await trio.sleep(1)
        assert waiting_for(rig.market.status()) == "waiting for the exchange"


@pytest.mark.slow
async def test_many_pages_tell_how_far_they_are(autojump_clock):
    async with open_rig() as rig, trio.open_nursery() as nursery:
        names = list(rig.sim.world.markets)[:15]
        await rig.market.get_market()
        nursery.start_soon(rig.market.get_candle, names, "1w")
        await trio.sleep(0.5)
        assert waiting_for(rig.market.status()) == "waiting for the exchange, 11 answered, 5 queued"


async def test_a_refusal_and_a_block_are_told_with_the_time_they_last(autojump_clock):
    async with open_rig() as rig:
        await rig.market.get_ticker("KRW-BTC")
        status = rig.market.status()
        slots = attrs.evolve(status.budgets[Group.TICKER], refused=1, blocked_s=7.6)
        refused = attrs.evolve(status, budgets={**status.budgets, Group.TICKER: slots})
        assert waiting_for(refused) == "next try in 8 s, refused by the exchange (429)"
        blocked = attrs.evolve(refused, banned_for_s=42.4)
        assert waiting_for(blocked) == "next try in 43 s, blocked by the exchange (418)"
