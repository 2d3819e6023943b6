"""History first, then live: no seam, no duplicate, no hole, and no waiting for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from paper_bars import FINAL, MINUTE_MS, RUNNING, START_MS, brief, opens, reading
from paper_exchange import CandleExchange
from paper_streams import Rest, asking
from trio.testing import MockClock, wait_all_tasks_blocked

from marketpipe.actors.deduplicator import BarMessage, Deduplicator, LiveBars
from marketpipe.actors.histories import Histories
from marketpipe.actors.hub import Hub, Subscription
from marketpipe.config import Subscriptions as Options
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import BadPayload, Banned, ExchangeError, ExchangeUnavailable, RateLimited, UnknownMarket
from marketpipe.models import Candle, Source

BTC = Topic(Line.CANDLE, "KRW-BTC", Timeframe.M1)
ETH = Topic(Line.CANDLE, "KRW-ETH", Timeframe.M1)
DAYS = Topic(Line.CANDLE, "KRW-BTC", Timeframe.D1)


def now_ms() -> int:
    """The mock clock begins in the middle of slot 10."""
    return opens(10) + 30_000 + round(trio.current_time() * 1000)


@attrs.define(eq=False)
class Bench:
    """Histories between a hub, a deduplicator and REST. ``shown``: the topics whose stream flows."""

    histories: Histories
    hub: Hub
    rest: Rest
    inbox: trio.MemorySendChannel[BarMessage]
    deduplicator: Deduplicator
    shown: dict[Topic, trio.Event]
    distrusted: list[tuple[Topic, int]]

    def begin(self, *topics: Topic, count: int = 3) -> Subscription[Candle]:
        subscription = self.hub.attach(topics, policy="drop-oldest", depth=10_000, silent=True)
        self.histories.want(subscription, topics, count)
        return subscription

    def show(self, topic: Topic = BTC) -> None:
        self.shown[topic].set()

    def live(self, *candles: Candle) -> None:
        self.inbox.send_nowait(LiveBars(candles))


def heard(subscription: Subscription[Any]) -> list[Any]:
    events = []
    while True:
        try:
            events.append(subscription.receive_nowait())
        except trio.WouldBlock:
            return events


def shows(request: CandlesRequest) -> tuple[Candle, ...]:
    """REST: twenty bars up to now, one a slot; the running one with what has been traded by now."""
    assert request.timeframe in (Timeframe.M1, Timeframe.D1)
    if request.timeframe is Timeframe.D1:
        return CandleExchange([reading(0, timeframe=Timeframe.D1, open_ms=opens(0) // 86_400_000 * 86_400_000)]).page(
            request
        )
    running = (now_ms() - START_MS) // MINUTE_MS
    bars = [
        reading(
            slot,
            market=request.market,
            source=Source.REST,
            at=min(59_000, now_ms() - opens(slot)),
            volume=min(59_000, now_ms() - opens(slot)),
        )
        for slot in range(running - 20, running + 1)
    ]
    return CandleExchange(bars).page(request)


def frame(slot: int, at_ms: int, market: str = "KRW-BTC") -> Candle:
    """What the stream shows of a slot: as REST does, its volume grows with the time."""
    return reading(slot, market=market, at=at_ms, volume=at_ms)


@asynccontextmanager
async def reading_histories(answer: Callable[[Any], Any] = shows, **options: Any) -> AsyncIterator[Bench]:
    rest, hub = Rest(answer), Hub()
    inbox, messages = trio.open_memory_channel[BarMessage](10_000)
    deduplicator = Deduplicator(messages, lambda told: hub.publish(Line.CANDLE, told), mend=hub.tell)
    shown = {topic: trio.Event() for topic in (BTC, ETH, DAYS)}
    distrusted: list[tuple[Topic, int]] = []

    async def wait_shown(topic: Topic) -> None:
        await shown[topic].wait()

    async with asking(rest) as asker, trio.open_nursery() as nursery:
        histories = Histories(
            asker,
            hub,
            inbox.send_nowait,
            now_ms,
            wait_shown,
            lambda topic, since_ms: distrusted.append((topic, since_ms)),
            lambda topic: None,
            Options(**options),
        )
        await nursery.start(deduplicator.run)
        await nursery.start(histories.run)
        yield Bench(histories, hub, rest, inbox, deduplicator, shown, distrusted)
        nursery.cancel_scope.cancel()
    inbox.close()


async def test_the_history_comes_first_and_oldest_first_then_what_changes(autojump_clock):
    async with reading_histories() as bench:
        subscription = bench.begin(BTC)
        bench.live(frame(10, 29_000))
        bench.show()
        await trio.sleep(1)
        assert brief(heard(subscription)) == [
            (8, 59_000, FINAL, 0),
            (9, 59_000, FINAL, 0),
            (10, 30_020, RUNNING, 0),
        ]
        bench.live(frame(10, 31_000), frame(11, 100))
        await trio.sleep(1)
        assert brief(heard(subscription)) == [
            (10, 31_000, RUNNING, 0),
            (10, 31_000, FINAL, 0),
            (11, 100, RUNNING, 0),
        ]
        assert bench.distrusted == []


async def test_nothing_is_read_before_the_stream_flows(autojump_clock):
    async with reading_histories() as bench:
        subscription = bench.begin(BTC)
        await trio.sleep(9)
        assert bench.rest.asked == []
        bench.show()
        await trio.sleep(1)
        assert len(heard(subscription)) == 3


async def test_where_no_stream_flows_the_history_is_read_all_the_same_and_not_trusted(autojump_clock):
    """After the time that connecting and a first frame may take; what comes until it flows will be read again."""
    async with reading_histories(handshake_s=5.0, snapshot_s=5.0) as bench:
        subscription = bench.begin(BTC)
        await trio.sleep(11)
        assert bench.distrusted == [(BTC, opens(10) + 40_000)]
        assert [at_s for at_s, _ in bench.rest.asked] == [10.0]
        assert len(heard(subscription)) == 3


async def test_bars_made_of_tickers_have_no_stream_that_could_be_distrusted(autojump_clock):
    async with reading_histories() as bench:
        subscription = bench.begin(DAYS)
        await trio.sleep(11)
        assert bench.distrusted == []
        assert len(heard(subscription)) == 1


async def test_each_market_begins_for_itself(autojump_clock):
    async with reading_histories() as bench:
        subscription = bench.begin(BTC, ETH)
        bench.show(ETH)
        await trio.sleep(1)
        assert {candle.market for candle in heard(subscription)} == {"KRW-ETH"}
        bench.live(frame(10, 32_000), frame(10, 32_000, "KRW-ETH"))
        await trio.sleep(1)
        assert {candle.market for candle in heard(subscription)} == {"KRW-ETH"}  # of the other nothing yet
        bench.show(BTC)
        await trio.sleep(1)
        assert {candle.market for candle in heard(subscription)} == {"KRW-BTC"}


async def test_whoever_came_earlier_is_not_told_the_history_of_a_latecomer(autojump_clock):
    async with reading_histories() as bench:
        early = bench.hub.attach((BTC,), policy="drop-oldest", depth=1000)
        bench.live(frame(10, 31_000))
        bench.show()
        late = bench.begin(BTC, count=5)
        await trio.sleep(1)
        assert brief(heard(early)) == [(10, 31_000, RUNNING, 0)]
        assert [slot for slot, *_ in brief(heard(late))] == [6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    "error",
    [
        ExchangeUnavailable("503", status=503),
        RateLimited("429", retry_after_s=0.1),
        Banned("418", until_ms=1),
        BadPayload("no JSON", market="KRW-BTC"),
        ExchangeError("400", status=400),
    ],
)
async def test_a_history_that_cannot_be_read_now_is_read_later(autojump_clock, error):
    def down(request: Any) -> Any:
        raise error

    async with reading_histories(down) as bench:
        subscription = bench.begin(BTC)
        bench.show()
        await trio.sleep(3.5)
        assert [round(at_s, 2) for at_s, _ in bench.rest.asked] == [0.0, 1.02, 2.04, 3.06]
        assert heard(subscription) == []
        bench.rest.answer = shows
        await trio.sleep(1)
        assert len(heard(subscription)) == 3


async def test_a_history_that_never_can_be_read_is_told_to_whoever_wanted_it(autojump_clock):
    """And to nobody else."""

    def fails(request: Any) -> Any:
        if request.market == "KRW-ETH":
            return shows(request)
        raise UnknownMarket(request.market)

    async with reading_histories(fails) as bench:
        other = bench.hub.attach((BTC,), policy="drop-oldest", depth=1000)
        alone, both = bench.begin(BTC), bench.begin(BTC, ETH)
        bench.show(BTC)
        bench.show(ETH)
        await trio.sleep(1)
        with pytest.raises(UnknownMarket):
            heard(alone)
        assert isinstance(both.failed["KRW-BTC"], UnknownMarket)
        assert {getattr(event, "market", None) for event in heard(both)} == {"KRW-BTC", "KRW-ETH"}  # a gap, and bars
        asked = len(bench.rest.asked)
        bench.live(frame(10, 32_000))
        await trio.sleep(10)
        assert len(heard(other)) == 1
        assert heard(both) == []
        assert len(bench.rest.asked) == asked


@pytest.mark.parametrize("after_s", [0.0, 1.0, 1.01, 1.5])
async def test_whoever_leaves_meanwhile_gets_nothing_and_costs_nothing(autojump_clock, after_s):
    """While the stream is waited for, while REST is asked, or after it: no request more, and nobody is attached."""
    async with reading_histories() as bench:
        subscription = bench.begin(BTC)
        with trio.move_on_after(after_s):
            await trio.sleep(1)
            bench.show()
            await trio.sleep_forever()
        asked = len(bench.rest.asked)
        subscription.close()
        bench.histories.cancel(subscription)
        bench.histories.cancel(subscription)
        bench.show()
        await trio.sleep(20)
        assert len(bench.rest.asked) == asked
        bench.live(frame(10, 40_000))
        await wait_all_tasks_blocked()
        assert bench.hub.statistics().subscribers == 0
        assert bench.histories._scopes == {}


async def test_whoever_leaves_between_two_attempts_is_not_asked_for_again(autojump_clock):
    def down(request: Any) -> Any:
        raise ExchangeUnavailable("503", status=503)

    async with reading_histories(down) as bench:
        subscription = bench.begin(BTC)
        bench.show()
        await trio.sleep(2.5)
        asked = len(bench.rest.asked)
        bench.histories.cancel(subscription)
        await trio.sleep(60)
        assert len(bench.rest.asked) == asked == 3


async def test_a_bug_is_not_hidden(autojump_clock):
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with reading_histories(lambda request: 1 // 0) as bench:
            bench.begin(BTC)
            bench.show()
            await trio.sleep(10)


@pytest.mark.slow
@given(
    latency_ms=st.integers(0, 3_000),
    began_ms=st.integers(0, 60_000),
    shown_ms=st.integers(0, 3_000),
    every_ms=st.integers(300, 2_000),
    count=st.integers(1, 30),
)
def test_wherever_the_history_falls_into_the_flow_there_is_no_seam(latency_ms, began_ms, shown_ms, every_ms, count):
    """Bars in order, each change once, each FINAL once, and in the end what is held is what was told."""

    async def main() -> None:
        async with reading_histories() as bench:
            bench.rest.latency_s = latency_ms / 1000
            async with trio.open_nursery() as nursery:

                async def flow() -> None:
                    last = 10
                    while True:
                        slot, at_ms = divmod(now_ms() - START_MS, MINUTE_MS)
                        ended = [frame(last, 59_000)] if slot > last else []
                        bench.live(*ended, frame(slot, min(at_ms, 59_000)))
                        last = slot
                        await trio.sleep(every_ms / 1000)

                nursery.start_soon(flow)
                await trio.sleep(began_ms / 1000)
                subscription = bench.begin(BTC, count=count)
                await trio.sleep(shown_ms / 1000)
                bench.show()
                await trio.sleep(80)
                nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()
            told = heard(subscription)
            assert_no_seam(told, count)
            newest = {candle.open_ms: candle for candle in told}
            held = bench.deduplicator.view.bars(BTC)
            assert [newest[candle.open_ms] for candle in held if candle.open_ms in newest] == [
                candle for candle in held if candle.open_ms in newest
            ]
            assert held[-1].open_ms in newest

    trio.run(main, clock=MockClock(autojump_threshold=0))


def assert_no_seam(told: Sequence[Candle], count: int) -> None:
    history = told[: min(count, 21)]
    assert [candle.open_ms for candle in history] == [
        history[0].open_ms + number * MINUTE_MS for number in range(len(history))
    ]
    slots = [candle.open_ms for candle in told]
    assert slots == sorted(slots)
    assert len(set(slots)) == (slots[-1] - slots[0]) // MINUTE_MS + 1
    finals = [candle.open_ms for candle in told if candle.state is FINAL]
    assert len(finals) == len(set(finals))
    assert set(finals) == set(slots[:-1]) - {slots[-1]}
    content = [(candle.open_ms, candle.volume, candle.state) for candle in told]
    assert len(content) == len(set(content))
    assert all(candle.revision == 0 for candle in told)
