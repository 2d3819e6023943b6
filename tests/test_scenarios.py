"""Whatever the callers ask and whatever goes wrong: the limit holds, everybody is answered, and it passes."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import open_rig

from marketpipe import Batch, CandleSeries, ExchangeError, Orderbook, Priority, Ticker
from marketpipe.sim import (
    DownFault,
    DropFault,
    EditFault,
    GarbageFault,
    HalfFault,
    LatencyFault,
    StatusFault,
)

SYMBOLS = ("KRW-BTC", "KRW-ETH", "KRW-XRP", "BTC-ETH", "USDT-BTC", "KRW-NOPE", "krw-btc")
KINDS = {"get_ticker": Ticker, "get_orderbook": Orderbook, "get_candle": CandleSeries, "get_trade": tuple}
FAULTS = st.one_of(
    st.builds(StatusFault, status=st.sampled_from([429, 500, 503]), body=st.sampled_from(["", "<html>", "{}"])),
    st.builds(StatusFault, status=st.just(418), body=st.just("Try again in 3 seconds"), count=st.just(1)),
    st.builds(LatencyFault, latency_s=st.floats(0, 3)),
    st.builds(DropFault),
    st.builds(HalfFault),
    st.builds(DownFault),
    st.builds(GarbageFault),
    st.builds(EditFault, change=st.sampled_from(["drop", "duplicate"]), every_row=st.booleans()),
)
TIMELINE = st.lists(st.tuples(st.floats(0, 10), FAULTS, st.floats(0.5, 5)), max_size=4)
CALL = st.tuples(
    st.sampled_from([0.0, 0.5, 1.0, 5.0, 14.0]),
    st.sampled_from(sorted(KINDS)),
    st.one_of(st.sampled_from(SYMBOLS), st.lists(st.sampled_from(SYMBOLS), max_size=4)),
    st.sampled_from(Priority),
    st.one_of(st.none(), st.floats(0.01, 5)),
)


@pytest.mark.slow
@settings(max_examples=max(20, settings.default.max_examples // 10))
@given(
    timeline=TIMELINE,
    calls=st.lists(CALL, max_size=60),
    window=st.sampled_from(["fixed", "rolling", "first"]),
    jitter_s=st.sampled_from([0.0, 0.3]),
    burst=st.integers(0, 40),
)
def test_any_callers_and_any_faults(timeline, calls, window, jitter_s, burst):
    """Every call ends with a value of its kind, a typed error or its own deadline; never over the limit."""

    async def main():
        async with open_rig(window=window, jitter_s=jitter_s, ban_after=None) as rig:

            async def strike(after_s, fault, for_s):
                await trio.sleep(after_s)
                rig.sim.add_fault(fault)
                await trio.sleep(for_s)
                rig.sim.clear_faults()

            async def call(count, after_s, verb, symbols, priority, deadline_s):
                options = {"count": count} if verb in ("get_candle", "get_trade") else {}  # no two questions alike
                await trio.sleep(after_s)
                with trio.move_on_after(60 if deadline_s is None else deadline_s):
                    try:
                        answer = await getattr(rig.market, verb)(symbols, priority=priority, **options)
                    except ExchangeError:
                        return
                    assert isinstance(answer, KINDS[verb] if isinstance(symbols, str) else Batch)
                    return
                assert deadline_s is not None, f"{verb} {symbols} has waited for a minute"

            async with trio.open_nursery() as nursery:
                for row in timeline:
                    nursery.start_soon(strike, *row)
                for count in range(101, 101 + burst):
                    nursery.start_soon(call, count, 0.0, "get_candle", "KRW-BTC", Priority.LOW, None)
                for count, row in enumerate(calls, 1):
                    nursery.start_soon(call, count, *row)
            await trio.sleep(20)
            batch = await rig.market.get_ticker(["KRW-BTC", "KRW-NOPE"], max_age_s=0)
            assert list(batch) == ["KRW-BTC"]
            assert list(batch.failed) == ["KRW-NOPE"]
            assert rig.greatest() <= 10
            assert rig.market.status().requests_in_flight == 0
            assert not any(rig.market.status().waiting.values())

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
