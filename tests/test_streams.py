"""The streams over the whole pipe: who is slow, who leaves, what is read from memory, where a history meets the live.

All in virtual time, over the simulator.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from rig import EPOCH_MS, Rig, open_rig
from stream_checks import BUSIEST, Ears, begun_at, finals, listening, lively, over_the_limits
from trio.testing import MockClock

from bench.oracle import Log, listen
from marketpipe import (
    Candle,
    CandleState,
    Gap,
    Orderbook,
    PipelineClosed,
    Source,
    SubscriberLagged,
    Ticker,
    Timeframe,
    Trade,
    UnknownMarket,
)
from marketpipe.core.freshness import Freshness, Kind, MarketCondition
from marketpipe.core.requests import CandlesRequest, TradesRequest
from marketpipe.core.topics import Line, Topic
from marketpipe.sim import World, WsDropFault, WsMuteFault, WsReorderFault, WsStallFault
from marketpipe.status import SubscriptionState

MINUTE_MS = 60_000
TO_THE_MINUTE_S = (MINUTE_MS - EPOCH_MS % MINUTE_MS) / 1000
VALUES = {"ticker": Ticker, "orderbook": Orderbook, "trade": Trade}


def stream(rig: Rig, kind: str, symbols: Any, **options: Any) -> Any:
    return getattr(rig.market, f"stream_{kind}")(symbols, **options)


# -- who is slow -------------------------------------------------------------------------------------------------


async def read_slowly(subscription: Any, into: list[Any]) -> None:
    async for event in subscription:
        into.append(event)
        await trio.sleep(1)


def what_the_fast_one_hears(*, beside: bool) -> list[tuple[float, Any]]:
    async def main() -> list[tuple[float, Any]]:
        async with open_rig(streams=True) as rig, trio.open_nursery() as nursery:
            log = Log()
            nursery.start_soon(listen, rig.market, "trade", BUSIEST, log)
            async with stream(rig, "trade", BUSIEST, policy="drop-oldest", depth=5) as slow:
                if beside:
                    nursery.start_soon(read_slowly, slow, [])
                await trio.sleep(60)
                assert slow.statistics().dropped > 20
            nursery.cancel_scope.cancel()
        return log.events

    return trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_slow_consumer_delays_nobody():
    """Beside one that reads a value a second, another gets every trade at the same moment as without it."""
    alone, beside = what_the_fast_one_hears(beside=False), what_the_fast_one_hears(beside=True)
    assert len(alone) > 60
    assert beside == alone


async def test_who_is_cut_off_gets_what_was_queued_and_then_learns_how_much_was_lost(autojump_clock):
    async with open_rig(streams=True) as rig, trio.open_nursery() as nursery:
        log, read = Log(), []
        nursery.start_soon(listen, rig.market, "trade", BUSIEST, log)
        async with stream(rig, "trade", BUSIEST, policy="cut-off", depth=10) as slow:
            with pytest.raises(SubscriberLagged, match=r"cut off: (\d+) values were lost") as caught:
                await read_slowly(slow, read)
            counted = slow.statistics()
            # It begins with the snapshots; of what came after, all that fits; and nothing from behind the first loss.
            assert read == [event for _, event in log.events][: len(read)]
            assert 10 < len(read) == counted.delivered
            assert counted.queued == 0
            lost = int(re.search(r"(\d+) values were lost", str(caught.value)).group(1))
            assert lost == counted.dropped == len(log.events) - len(read)
            with pytest.raises(SubscriberLagged):
                await anext(slow)
        nursery.cancel_scope.cancel()


async def test_who_drops_the_oldest_is_told_how_many_where_it_happened(autojump_clock):
    async with open_rig(streams=True) as rig, trio.open_nursery() as nursery:
        log, read = Log(), []
        nursery.start_soon(listen, rig.market, "trade", BUSIEST, log)
        async with stream(rig, "trade", BUSIEST, policy="drop-oldest", depth=10) as slow:
            with trio.move_on_after(60):
                await read_slowly(slow, read)
            heard = len(log.events)
            while True:
                try:
                    read.append(slow.receive_nowait())
                except trio.WouldBlock:
                    break
            counted = slow.statistics()
        nursery.cancel_scope.cancel()
    gaps = [event for event in read if isinstance(event, Gap)]
    told = sum(int(re.search(r"(\d+) values? (was|were) dropped here", gap.proof).group(1)) for gap in gaps)
    assert told == counted.dropped > 20
    assert counted.delivered + counted.dropped == counted.received == heard
    trades = [event for event in read if isinstance(event, Trade)]
    missing = [trade for _, trade in log.events[:heard] if trade not in trades]
    assert len(missing) == told
    for trade in missing:
        assert any(g.market == trade.market and g.start_ms <= trade.exchange_ms <= g.end_ms for g in gaps)
    # Each gap stands between what came before the loss and what came after it.
    for before, gap in pairwise(read):
        if isinstance(gap, Gap) and isinstance(before, Trade) and before.market == gap.market:
            assert before.exchange_ms <= gap.end_ms


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["conflate", "cut-off", "drop-oldest"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("trade", {}), ("ticker", {}), ("orderbook", {}), ("candle", {"timeframe": "1s", "history": 20})],
)
async def test_nothing_gets_out_of_the_count_at_any_moment(kind, options, policy, autojump_clock):
    """Received = delivered + conflated + dropped + queued, through losses, holes and repairs, for slow and fast."""

    def is_conserved(subscription: Any) -> bool:
        counted = subscription.statistics()
        kept = counted.delivered + counted.conflated + counted.dropped + counted.queued
        return counted.received == kept

    async with open_rig(streams=True) as rig, trio.open_nursery() as nursery:
        read: dict[int, list[Any]] = {}

        async def consume(depth: int, pause_s: float) -> None:
            mine = read[depth] = []
            async with stream(rig, kind, BUSIEST, policy=policy, depth=depth, **options) as subscription:
                subscriptions.append(subscription)
                try:
                    async for event in subscription:
                        mine.append(event)
                        assert is_conserved(subscription)
                        await trio.sleep(pause_s)
                        assert is_conserved(subscription)
                except SubscriberLagged:
                    assert policy != "drop-oldest"
                    await trio.sleep_forever()

        subscriptions: list[Any] = []
        for depth, pause_s in ((1, 1.0), (20, 0.5), (1_000, 0.0)):
            nursery.start_soon(consume, depth, pause_s)
        await trio.sleep(10)
        rig.sim.add_fault(WsDropFault())
        rig.sim.add_fault(WsReorderFault(probability=0.5, for_s=20))
        for _ in range(200):
            await trio.sleep(0.1)
            assert all(is_conserved(subscription) for subscription in subscriptions)
        rest = [subscription.statistics() for subscription in subscriptions]
        assert max(count.received for count in rest) > 20
        assert {len(mine) for mine in read.values()} == {count.delivered + count.gaps for count in rest}
        nursery.cancel_scope.cancel()


# -- who only reads ----------------------------------------------------------------------------------------------


def tickers_asked(rig: Rig) -> int:
    return rig.sim.statistics().groups["ticker"].requests


@pytest.mark.slow
async def test_what_is_read_often_is_subscribed_and_released_when_it_is_read_no_more(autojump_clock):
    """240 markets, once a second, by one task that stops: live from the third read on, until 180 s after the last."""
    async with open_rig(streams=True, markets=300) as rig:
        names = rig.sim.world.listed(rig.clock.now_ms())[:240]
        for reads in (1, 2, 3):
            batch = await rig.market.get_ticker(names)
            assert {ticker.source for ticker in batch.values()} == {Source.REST}
            assert rig.sim.statistics().streams.connections["total"] == 0
            assert all(s.hot is False for s in rig.market.status().subscriptions.values()) or reads == 3
            await trio.sleep(1)
        assert rig.sim.statistics().streams.codes == {"ticker": sorted(names)}
        asked = tickers_asked(rig)
        for _ in range(15):
            batch = await rig.market.get_ticker(names)
            assert {ticker.source for ticker in batch.values()} == {Source.STREAM}
            assert batch.cache_hit_rate == 1.0
            last_s = trio.current_time()
            await trio.sleep(1)
        # That the stream is whole is looked at every ten seconds; 240 markets are two requests.
        assert tickers_asked(rig) - asked <= 2 * 2
        await trio.sleep_until(last_s + 179.5)
        assert rig.sim.statistics().streams.codes == {"ticker": sorted(names)}
        # Looked at once a second, then settled for 0.2 s and closed.
        await trio.sleep_until(last_s + 181.5)
        streams = rig.sim.statistics().streams
        assert streams.codes == {}
        assert streams.connections == {"open": 0, "total": 1}
        assert {s.state for s in rig.market.status().subscriptions.values()} == {SubscriptionState.RELEASED}
        assert not list(over_the_limits(rig))
        assert (await rig.market.get_ticker(names[0])).source is Source.REST


@pytest.mark.slow
def test_a_stream_does_not_notice_what_others_read_and_read_no_more():
    """Its connection stays, for its market alone; it is told what it would be told without them, and of no hole."""

    async def main(reads: int) -> set[int]:
        async with open_rig(streams=True, markets=300) as rig, listening(rig, ["KRW-BTC"], ("ticker",)) as ears:
            names = rig.sim.world.listed(rig.clock.now_ms())[:239]
            names += [name for name in ("KRW-BTC",) if name not in names]
            for _ in range(reads):
                await rig.market.get_ticker(names)
                await trio.sleep(1)
            await trio.sleep_until(10)
            assert rig.sim.statistics().streams.codes == {"ticker": sorted(names) if reads else ["KRW-BTC"]}
            await trio.sleep_until(190)
            streams = rig.sim.statistics().streams
            assert streams.codes == {"ticker": ["KRW-BTC"]}
            assert streams.connections == {"open": 1, "total": 1}
            assert streams.subscribes == (3 if reads else 1)
            await trio.sleep(5)
            assert not ears.logs["ticker"].gaps
            return {ticker.trade_ms for _, ticker in ears.logs["ticker"].of(Ticker)}

    alone, among_others = (trio.run(main, reads, clock=MockClock(autojump_threshold=0)) for reads in (0, 5))
    assert len(alone) > 50
    assert among_others == alone


# -- what is read from memory ------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_what_flows_is_answered_from_memory(autojump_clock):
    """Tickers, books, trades and bars: without a request, and no older than the stream."""
    async with (
        open_rig(streams=True) as rig,
        listening(
            rig,
            ["KRW-BTC"],
            ("ticker", "orderbook", "trade"),
        ) as ears,
    ):
        async with stream(rig, "candle", "KRW-BTC", history=50):
            await trio.sleep(30)
            asked = len(rig.exchange.requests)
            world = rig.sim.world
            for _ in range(100):
                await trio.sleep(0.1)
                now_ms = rig.clock.now_ms()
                last = world.newest_trades("KRW-BTC", 0, now_ms - 300, now_ms, count=10)
                ticker, book = await rig.market.get_ticker("KRW-BTC"), await rig.market.get_orderbook("KRW-BTC")
                assert (ticker.source, book.source) == (Source.STREAM, Source.STREAM)
                assert ticker.trade_ms >= last[0].at_ms
                assert book.exchange_ms >= world.orderbook("KRW-BTC", now_ms - 300).changed_ms
                assert rig.market.get_ticker_nowait("KRW-BTC") == ticker
                assert rig.market.get_orderbook_nowait("KRW-BTC") == book
                trades = await rig.market.get_trade("KRW-BTC", count=10)
                older = [trade.sequential_id for trade in trades if trade.trade_ms <= last[0].at_ms]
                assert older == [deal.sequential_id for deal in last][: len(older)]
                bars = await rig.market.get_candle("KRW-BTC", count=50)
                assert [bar.open_ms for bar in bars] == [
                    bar.open_ms for bar in world.candles("KRW-BTC", Timeframe.M1, bars[0].open_ms, now_ms, now_ms)
                ][: len(bars)]
                assert bars[-1].source is Source.STREAM
            assert len(rig.exchange.requests) - asked == probes(rig, asked)
        assert not ears.logs["trade"].gaps


def probes(rig: Rig, since: int) -> int:
    """Requests by which the watch over the streams looks after them."""
    return sum(not isinstance(request, TradesRequest | CandlesRequest) for request in rig.exchange.requests[since:])


@pytest.mark.slow
async def test_more_than_memory_holds_is_asked_for(autojump_clock):
    async with (
        open_rig(streams=True) as rig,
        listening(rig, ["KRW-BTC"], ("trade",)),
        stream(rig, "candle", "KRW-BTC", history=50),
    ):
        await trio.sleep(20)
        for _ in range(2):
            assert len(await rig.market.get_candle("KRW-BTC", count=51)) == 51
            assert len(await rig.market.get_trade("KRW-BTC", count=500)) == 500
            await trio.sleep(1)
        kinds = [type(request) for request in rig.exchange.requests if getattr(request, "count", 0) in (51, 500)]
        assert CandlesRequest in kinds
        assert TradesRequest in kinds


FADES = [
    pytest.param(WsStallFault(for_s=15), id="stall"),
    pytest.param(WsStallFault(for_s=15, pongs=False), id="stall without pongs"),
    pytest.param(WsDropFault(), id="drop"),
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FADES)
@pytest.mark.parametrize("kind", [Kind.TICKER, Kind.ORDERBOOK])
async def test_what_stops_flowing_ages_at_once(kind, fault, autojump_clock):
    """Looked at in small steps: once the stream is not certain, memory shows nothing older than its time to live."""
    line = Line(kind.value)
    topic = Topic(line, "KRW-BTC")
    async with open_rig(streams=True) as rig, listening(rig, ["KRW-BTC"], (line.value,)):
        await trio.sleep(20)
        # The longest that any market may have outside of maintenance.
        ttl_ms = 1000 * Freshness().ttl_s(kind, MarketCondition.QUIET, rig.clock.now_ms())
        read = rig.market.get_ticker_nowait if kind is Kind.TICKER else rig.market.get_orderbook_nowait
        rig.sim.add_fault(fault)
        began_s, states = trio.current_time(), []
        next_ms = rig.sim.world.next_trade_ms if kind is Kind.TICKER else rig.sim.world.next_orderbook_ms
        news_ms = next_ms("KRW-BTC", rig.clock.now_ms())
        while trio.current_time() < began_s + 30:
            await trio.sleep(0.01)
            now_ms = rig.clock.now_ms()
            state = rig.market.status().subscriptions[topic].state
            states += [state] if state not in states[-1:] else []
            with suppress(trio.WouldBlock):
                age_ms = read("KRW-BTC").age_ms(now_ms)
                flows = state is SubscriptionState.ACTIVE and SubscriptionState.RECONNECTING in states
                # Before it is doubted, what flows no more is not known to.
                doubtless = state is SubscriptionState.ACTIVE and now_ms <= news_ms + 5_000
                assert flows or doubtless or age_ms <= ttl_ms
        assert SubscriptionState.RECONNECTING in states
        assert states[-1] is SubscriptionState.ACTIVE


@pytest.mark.slow
async def test_while_a_stream_is_stalled_the_exchange_is_asked(autojump_clock):
    """From the moment it is doubted; a request takes 20 ms, and what is in the fast tier is 0.2 s old at most."""
    streams = ("ticker", "orderbook", "trade", "1m")
    async with open_rig(streams=True) as rig, listening(rig, ["KRW-BTC"], streams, history=5):
        await trio.sleep(20)
        rig.sim.add_fault(WsStallFault())
        checked: Counter[Line] = Counter()
        topics = [topic for topic in rig.market.status().subscriptions if topic.line is not Line.TRADE]
        for _ in range(120):
            await trio.sleep(0.1)
            for topic in topics:
                before_ms = rig.clock.now_ms() - 400
                last = rig.sim.world.newest_trades("KRW-BTC", 0, before_ms, before_ms, count=1)[0]
                if rig.market.status().subscriptions[topic].state is SubscriptionState.ACTIVE:
                    continue
                match topic.line:
                    case Line.TICKER:
                        assert (await rig.market.get_ticker("KRW-BTC")).trade_ms >= last.at_ms
                    case Line.ORDERBOOK:
                        assert (await rig.market.get_orderbook("KRW-BTC")).age_ms(rig.clock.now_ms()) <= 400
                    case Line.CANDLE:
                        assert (await rig.market.get_candle("KRW-BTC", count=2))[-1].exchange_ms >= last.at_ms
                checked[topic.line] += 1
        assert min(checked[topic.line] for topic in topics) > 50


@pytest.mark.slow
async def test_an_age_that_is_demanded_is_kept_whatever_flows(autojump_clock):
    async with open_rig(streams=True) as rig, listening(rig, ["KRW-BTC"], ("ticker", "trade")):
        await trio.sleep(20)
        sources = set()
        for _ in range(40):
            await trio.sleep(0.25)
            asked_ms = rig.clock.now_ms()
            ticker = await rig.market.get_ticker("KRW-BTC", max_age_s=0.3)
            assert ticker.received_ms > asked_ms - 300
            sources.add(ticker.source)
            try:
                assert rig.market.get_ticker_nowait("KRW-BTC", max_age_s=0.1).age_ms(rig.clock.now_ms()) < 100
            except trio.WouldBlock:
                assert ticker.received_ms <= rig.clock.now_ms() - 100
        assert sources == {Source.REST, Source.STREAM}
        before = len(rig.exchange.of(TradesRequest))
        await rig.market.get_trade("KRW-BTC", count=1, max_age_s=0)
        assert len(rig.exchange.of(TradesRequest)) == before + 1


# -- where a history meets the live ------------------------------------------------------------------------------


def flaws_of_history(ears: Ears, stream_name: str, count: int) -> Iterator[str]:
    """What is wrong with a series that should begin with ``count`` bars; its further truth is the oracle's business."""
    told = [bar for _, bar in ears.logs[stream_name].of(Candle)]
    history = [bar.open_ms for bar in told[:count]]
    now_ms = ears.rig.clock.now_ms()
    timeframe = Timeframe(stream_name)
    if history:
        true = ears.rig.sim.world.candles(ears.names[0], timeframe, history[0], history[-1] + 1, now_ms)
        if history != [bar.open_ms for bar in true] or len(history) != count:
            yield f"{count}: begins with {len(history)} bars {history}"
        # What is older than all of the history may still become FINAL, or be amended: that is told too.
        first = [bar.open_ms for bar in told[count:] if history[0] <= bar.open_ms < history[-1]]
        if not set(first) <= set(history):
            yield f"{count}: {set(first) - set(history)} come after the history, and belong into it"
    if any(bar.state is not CandleState.FINAL for bar in told[: max(0, count - 2)]):
        yield f"{count}: a bar of history is not FINAL"
    ends = [bar.open_ms for bar in finals(ears.logs[stream_name], ears.names[0])]
    if len(set(ends)) != len(ends):
        yield f"{count}: FINAL twice"
    yield from ears.flaws()


COUNTS = (0, 1, 3, 50, 200, 500)


@pytest.mark.slow
@pytest.mark.parametrize("timeframe", ["1s", "1m"])
def test_a_history_is_followed_by_the_live_without_a_seam(timeframe):
    """Whatever its length, and whenever it is begun: also where a bar ends, and where others listen already."""
    starts_s = (0.0, 1.0, TO_THE_MINUTE_S - 0.3, TO_THE_MINUTE_S - 0.02, TO_THE_MINUTE_S, TO_THE_MINUTE_S + 0.15, 20.37)

    async def main() -> None:
        async with open_rig(streams=True) as rig, trio.open_nursery() as nursery:
            flaws: list[str] = []

            async def join(start_s: float, count: int, name: str) -> None:
                await trio.sleep_until(start_s)
                async with listening(rig, [name], (timeframe,), history=count, depth=5_000) as ears:
                    await trio.sleep_until(100)
                    flaws.extend(
                        f"{name} from {start_s} on: {flaw}" for flaw in flaws_of_history(ears, timeframe, count)
                    )

            for start_s in starts_s:
                for count in COUNTS:
                    # Of one market several listen, each other market has one that is the first.
                    nursery.start_soon(join, start_s, count, "KRW-BTC")
            for start_s, name in zip(starts_s, lively(rig, 8)[1:], strict=True):
                nursery.start_soon(join, start_s, 50, name)
            await trio.sleep_until(101)
            assert flaws == []

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.slow
async def test_two_consumers_with_and_without_a_history_are_told_the_same_from_then_on(autojump_clock):
    async with (
        open_rig(streams=True) as rig,
        listening(rig, ["KRW-BTC"], ("1s",), history=100) as long,
        listening(rig, ["KRW-BTC"], ("1s",)) as none,
    ):
        await trio.sleep(60)
        assert long.flaws() == none.flaws() == []
        told = [bar for _, bar in long.logs["1s"].of(Candle)]
        live = [bar for _, bar in none.logs["1s"].of(Candle)]
        assert len(live) > 30
        assert len(told) > 100
        # The last 30 events are the same; before, the history may have come later than the first of the others.
        assert told[-30:] == live[-30:]


MIDNIGHTS = [
    pytest.param(datetime(2025, 12, 31, 23, 59, 20, tzinfo=UTC), id="a year's"),
    pytest.param(datetime(2026, 9, 20, 23, 59, 20, tzinfo=UTC), id="a week's"),
]


@pytest.mark.slow
@pytest.mark.parametrize("beginning", MIDNIGHTS)
@pytest.mark.parametrize("fault", [None, WsDropFault(after_s=39.5)], ids=["", "and a drop"])
def test_bars_that_are_not_streamed_equal_those_of_rest_over_a_midnight(fault, beginning):
    """1d, 1w, 1M and 1y, made of tickers: each FINAL once, the running one as new as the stream."""
    long = ("1d", "1w", "1M", "1y")

    async def main() -> None:
        async with open_rig(streams=True) as rig:
            async with listening(rig, ["KRW-BTC", "KRW-ADA"], long, history=3) as ears:
                if fault is not None:
                    rig.sim.add_fault(fault)
                await trio.sleep(100)
                assert ears.flaws() == []
                ended = [
                    (name, bar.open_ms) for name in long for _, bar in ears.logs[name].of(Candle) if not bar.revision
                    and bar.state is CandleState.FINAL and bar.close_ms > rig.clock.now_ms() - 90_000
                ]  # fmt: skip
                assert ended
                now_ms = rig.clock.now_ms()
                shown = {name: [bar for _, bar in ears.logs[name].of(Candle)] for name in long}
            await trio.sleep(1)
            for name in long:
                for market in ears.names:
                    told = {bar.open_ms: bar for bar in shown[name] if bar.market == market}
                    for bar in await rig.market.get_candle(market, name, count=3):
                        if bar.close_ms <= now_ms:
                            assert content(told[bar.open_ms]) == content(bar)

    with begun_at(int(beginning.timestamp() * 1000)):
        trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("timeframe", ["1d", "1w"])
def test_what_was_asked_before_midnight_and_answered_after_it_does_not_count_for_the_day(timeframe):
    """More markets than REST can answer in the last seconds of a week: soon after it, every bar of it is FINAL."""
    monday_ms = int(datetime(2026, 9, 28, tzinfo=UTC).timestamp() * 1000)

    async def main() -> list[str]:
        async with open_rig(streams=True, markets=100) as rig:
            names = sorted(rig.sim.world.listed(rig.clock.now_ms()))
            async with listening(rig, names, (timeframe,)) as ears:
                await trio.sleep(60)
                bars = [bar for _, bar in ears.logs[timeframe].of(Candle) if bar.open_ms < monday_ms]
                final = {bar.market for bar in bars if bar.state is CandleState.FINAL}
                assert len({bar.market for bar in bars}) > 40
                return sorted({bar.market for bar in bars} - final)

    with begun_at(monday_ms - 5_000):
        assert trio.run(main, clock=MockClock(autojump_threshold=0)) == []


def content(bar: Candle) -> Any:
    return attrs.evolve(bar, received_ms=0, source=Source.REST, revision=0, exchange_ms=0)


# -- many at once ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ticker", "orderbook", "trade"])
async def test_two_hundred_subscriptions_at_once_are_one_or_two_messages(kind, autojump_clock):
    """Each has its first value within a second."""
    async with open_rig(streams=True, markets=240) as rig, trio.open_nursery() as nursery:
        names = rig.sim.world.listed(rig.clock.now_ms())[:200]
        first_s: dict[str, float] = {}

        async def subscribe(name: str) -> None:
            async with stream(rig, kind, name) as subscription:
                value = await anext(subscription)
                assert isinstance(value, VALUES[kind])
                assert value.market == name
                first_s[name] = trio.current_time() - began_s
                await trio.sleep_forever()

        began_s = trio.current_time()
        for name in names:
            nursery.start_soon(subscribe, name)
        await trio.sleep(1)
        assert set(first_s) == set(names)
        assert max(first_s.values()) < 1
        streams = rig.sim.statistics().streams
        assert streams.greatest_subscribes <= 2
        assert streams.connections == {"open": 1, "total": 1}
        assert not list(over_the_limits(rig))
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_changes_that_come_close_together_travel_in_one_message(autojump_clock):
    """Beside a stream that flows, two hundred within 180 ms."""
    async with open_rig(streams=True, markets=240) as rig, trio.open_nursery() as nursery:
        names = rig.sim.world.listed(rig.clock.now_ms())[:201]
        nursery.start_soon(listen, rig.market, "ticker", names[:1], Log())
        await trio.sleep(5)
        assert rig.sim.statistics().streams.subscribes == 1
        for name in names[1:]:
            nursery.start_soon(listen, rig.market, "ticker", [name], Log())
            await trio.sleep(0.0009)
        await trio.sleep(1)
        streams = rig.sim.statistics().streams
        assert streams.codes == {"ticker": sorted(names)}
        assert streams.subscribes == 2
        nursery.cancel_scope.cancel()


# -- what cannot be listened to ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ticker", "orderbook", "trade", "candle"])
async def test_a_market_there_is_not_is_refused_alone_and_named_among_others(kind, autojump_clock):
    async with open_rig(streams=True) as rig:
        with pytest.raises(UnknownMarket, match="KRW-NOPE"):
            async with stream(rig, kind, "krw-nope"):
                pass
        assert rig.sim.statistics().streams.connections["total"] == 0
        async with stream(rig, kind, ["KRW-NOPE", "KRW-BTC", "KRW-LUNA2"]) as subscription:
            assert list(subscription.failed) == ["KRW-NOPE", "KRW-LUNA2"]
            assert all(isinstance(error, UnknownMarket) for error in subscription.failed.values())
            with trio.fail_after(2):
                assert (await anext(subscription)).market == "KRW-BTC"


@pytest.mark.parametrize(
    ("kind", "options", "error", "words"),
    [
        (
            "ticker",
            {"policy": "newest"},
            ValueError,
            r"policy must be one of conflate, cut-off, drop-oldest, was 'newest'",
        ),
        ("trade", {"policy": None}, ValueError, r"policy must be one of .*, was None"),
        ("trade", {"depth": 0}, ValueError, r"depth must be .* at least 1, was 0"),
        ("orderbook", {"depth": 2.5}, TypeError, r"depth must be a whole number .*, was 2.5"),
        ("ticker", {"depth": True}, TypeError, r"depth must be a whole number .*, was True"),
        ("candle", {"timeframe": "2m"}, ValueError, r"2m.*1s.*1m.*1y"),
        ("candle", {"timeframe": 60}, TypeError, r"60"),
        ("candle", {"history": -1}, ValueError, r"history must be .* at least 0, was -1"),
        ("candle", {"history": "all"}, TypeError, r"history must be a whole number of bars, was 'all'"),
        ("candle", {"history": True}, TypeError, r"history must be a whole number of bars, was True"),
    ],
)
async def test_misuse_is_told_before_anything_is_asked(kind, options, error, words, autojump_clock):
    """With the value that was wrong and what is allowed, at the call, not in the block."""
    async with open_rig(streams=True) as rig:
        await trio.sleep(5)
        asked = len(rig.exchange.requests)
        with pytest.raises(error, match=words):
            stream(rig, kind, "KRW-BTC", **options)
        await trio.sleep(5)
        assert len(rig.exchange.requests) == asked
        assert rig.sim.statistics().streams.connections["total"] == 0


@pytest.mark.parametrize("symbols", [[], 7, ["KRW-BTC", None], None])
async def test_symbols_that_are_none_are_misuse(symbols, autojump_clock):
    async with open_rig(streams=True) as rig:
        with pytest.raises((ValueError, TypeError)):
            stream(rig, "ticker", symbols)


async def test_after_the_pipeline_nothing_can_be_listened_to(autojump_clock):
    async with open_rig(streams=True) as rig:
        market = rig.market
    with pytest.raises(PipelineClosed):
        async with market.stream_trade("KRW-BTC"):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ticker", "orderbook", "trade", "candle"])
async def test_a_market_that_is_delisted_ends_its_streams_alone(kind, autojump_clock):
    """Found by two looks after the silent: whoever wants nothing else learns why, the others have a gap."""
    async with open_rig(streams=True) as rig, trio.open_nursery() as nursery:
        events: list[Any] = []
        async with stream(rig, kind, "KRW-ADA") as alone, stream(rig, kind, ["KRW-ADA", "KRW-BTC"]) as both:

            async def collect() -> None:
                async for event in both:
                    events.append(event)  # noqa: PERF401  # what came before an error counts

            nursery.start_soon(collect)
            await trio.sleep(20)
            delist(rig, "KRW-ADA")
            with trio.fail_after(80), pytest.raises(UnknownMarket, match="KRW-ADA"):
                async for _ in alone:
                    pass
            assert list(both.failed) == ["KRW-ADA"]
            await trio.testing.wait_all_tasks_blocked()
            ended = [event for event in events if isinstance(event, Gap) and event.market == "KRW-ADA"]
            assert not ended[-1].is_open
            assert not ended[-1].repaired
            # Nothing is held up by it, and nothing of it is asked again and again.
            heard = len(events)
            asked = rig.sim.statistics().groups["ticker"].requests
            await trio.sleep(30)
            assert {event.market for event in events[heard:]} == {"KRW-BTC"}
            assert rig.sim.statistics().groups["ticker"].requests - asked <= 20
            nursery.cancel_scope.cancel()


class Without:
    """A world as REST shows it when ``code`` is delisted."""

    def __init__(self, world: World, code: str) -> None:
        self._world, self._code = world, code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def is_listed(self, code: str, now_ms: int) -> bool:
        return code != self._code and self._world.is_listed(code, now_ms)

    def listed(self, now_ms: int) -> list[str]:
        return [code for code in self._world.listed(now_ms) if code != self._code]


def delist(rig: Rig, code: str) -> None:
    """Let the exchange know nothing of a market any more."""
    rig.sim.world = Without(rig.sim.world, code)
    rig.sim.add_fault(WsMuteFault(codes=(code,)))


@pytest.mark.slow
def test_a_market_that_is_listed_meanwhile_can_be_listened_to():
    """It is unknown until it opens; the list is as old as ten seconds at most."""
    world = World(7, 300)
    code = max((name for name in world.markets if name.startswith("KRW-")), key=world.opening_ms)
    opening_ms = world.opening_ms(code)

    async def main() -> None:
        async with open_rig(streams=True, markets=300) as rig:
            await trio.sleep(1)
            with pytest.raises(UnknownMarket, match=code):
                async with rig.market.stream_trade(code):
                    pass
            await trio.sleep_until((opening_ms - rig_began_ms) / 1000 + 15)
            async with rig.market.stream_trade(code) as trades, rig.market.stream_candle(code, history=5) as bars:
                with trio.fail_after(60):
                    assert (await anext(trades)).market == code
                    assert (await anext(bars)).market == code

    rig_began_ms = opening_ms - 20_000
    with begun_at(rig_began_ms):
        trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("every_s", [0.5, 1.5])
async def test_bars_of_a_second_become_final_while_others_come_and_go(autojump_clock, every_s):
    """Each change of what is subscribed puts bars that end about then in doubt, and these end all the time."""
    async with open_rig(streams=True) as rig, trio.open_nursery() as nursery:
        busy, *others = lively(rig, 6)
        log = Log()
        nursery.start_soon(lambda: listen(rig.market, "candle", [busy], log, timeframe="1s"))
        await trio.sleep(2)
        began_ms = rig.clock.now_ms()

        async def come_and_go() -> None:
            while True:
                for name in others:
                    async with rig.market.stream_candle(name, "1s"):
                        await trio.sleep(every_s)

        nursery.start_soon(come_and_go)
        await trio.sleep(40)
        now_ms = rig.clock.now_ms()
        told = {bar.open_ms for bar in finals(log, busy)}
        true = rig.sim.world.candles(busy, Timeframe.S1, began_ms, now_ms - 10_000, now_ms)
        assert len(true) > 10
        assert {bar.open_ms for bar in true} <= told
        assert not list(over_the_limits(rig))
        nursery.cancel_scope.cancel()


async def test_after_a_loss_only_bars_that_have_changed_are_read_again(autojump_clock):
    """Whatever is quiet shows the same bar as before, so that hundreds of markets do not wait for each other."""
    async with open_rig(streams=True, markets=120) as rig, trio.open_nursery() as nursery:
        names = sorted(await rig.market.get_market())
        log = Log()
        nursery.start_soon(lambda: listen(rig.market, "candle", names, log, timeframe="1m"))
        await trio.sleep(30)
        before = len(rig.exchange.of(CandlesRequest))
        lost_ms = rig.clock.now_ms()
        rig.sim.add_fault(WsDropFault())
        await trio.sleep(15)
        traded = [
            name for name in names if rig.sim.world.trades(name, lost_ms - 10_000, lost_ms + 15_000, rig.clock.now_ms())
        ]
        closed = {gap.market for _, gap in log.gaps if gap.repaired}
        opened = {gap.market for _, gap in log.gaps}
        assert opened
        assert closed == opened
        assert len(rig.exchange.of(CandlesRequest)) - before <= len(traded) + 20 < len(opened)
        nursery.cancel_scope.cancel()
