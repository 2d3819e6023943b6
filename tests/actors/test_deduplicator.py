"""The deduplicator: what it tells, to whom, and in which step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from paper_bars import FINAL, MINUTE_MS, RUNNING, START_MS, brief, opens, reading, row
from trio.testing import MockClock

from marketpipe.actors.deduplicator import (
    Attach,
    BarMessage,
    BarPage,
    Deduplicator,
    DeduplicatorStatistics,
    Doubt,
    Forget,
    LiveBars,
    Proven,
)
from marketpipe.actors.hub import Hub
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.models import Candle, CandleState

BTC = Topic(Line.CANDLE, "KRW-BTC", Timeframe.M1)
ETH = Topic(Line.CANDLE, "KRW-ETH", Timeframe.M1)
DAYS = Topic(Line.CANDLE, "KRW-BTC", Timeframe.D1)
DAY_OPEN_MS = START_MS - START_MS % 86_400_000


@attrs.define(eq=False)
class Pipe:
    """The actor, running, and all that it published, one list per call."""

    inbox: trio.MemorySendChannel[BarMessage]
    actor: Deduplicator
    published: list[Sequence[Candle]]

    async def put(self, *messages: BarMessage) -> list[list[tuple[int, int, CandleState, int]]]:
        """What is published for ``messages``, by call."""
        del self.published[:]
        for message in messages:
            self.inbox.send_nowait(message)
        await trio.testing.wait_all_tasks_blocked()
        return [brief(told) for told in self.published]


@asynccontextmanager
async def running(keep: int = 50) -> AsyncIterator[Pipe]:
    inbox, messages = trio.open_memory_channel[BarMessage](10_000)
    published: list[Sequence[Candle]] = []
    actor = Deduplicator(messages, published.append, keep)
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        with inbox:
            yield Pipe(inbox, actor, published)


def live(*slots: int, **changes: Any) -> LiveBars:
    return LiveBars(tuple(reading(slot, **changes) for slot in slots))


# -- what is told -----------------------------------------------------------------------------------------------


async def test_what_a_message_changes_is_published_in_one_call_and_in_order():
    async with running() as pipe:
        assert await pipe.put(live(0, 0, 1)) == [[(0, 1, RUNNING, 0), (0, 1, FINAL, 0), (1, 1, RUNNING, 0)]]
        assert await pipe.put(live(1), live(1, at=600, volume=2)) == [[(1, 2, RUNNING, 0)]]
        assert await pipe.put(Proven((BTC,), opens(2) + 2_000)) == [[(1, 2, FINAL, 0)]]
        assert await pipe.put(BarPage(BTC, (row(1, at=700, volume=3), row(0)), opens(3))) == [[(1, 3, FINAL, 1)]]


async def test_what_a_page_brings_is_told_apart_from_what_the_stream_brings():
    """With its topic, where there is somebody for it: it is as long as the hole was."""
    told: list[tuple[str, Any]] = []
    inbox, messages = trio.open_memory_channel[BarMessage](100)
    actor = Deduplicator(
        messages,
        lambda bars: told.append(("published", brief(bars))),
        mend=lambda topic, bars: told.append((topic.market, brief(bars))),
    )
    for message in (
        live(0, 2),
        BarPage(BTC, (row(2), row(1), row(0)), opens(2)),
        live(0, market="KRW-ETH"),
        BarPage(ETH, (row(0, market="KRW-ETH", volume=2, at=600),), opens(0)),
        Proven((BTC,), opens(3) + 2_000),
        Attach(BTC, (row(3), row(2, volume=2, at=600)), opens(3), 2, lambda bars: told.append(("begun", brief(bars)))),
        BarPage(BTC, (row(3),), opens(3)),
        live(4),
    ):
        inbox.send_nowait(message)
    inbox.close()
    await actor.run()
    assert told == [
        ("published", [(0, 1, RUNNING, 0), (0, 1, FINAL, 0), (2, 1, RUNNING, 0)]),
        ("KRW-BTC", [(1, 1, FINAL, 0)]),
        ("published", [(0, 1, RUNNING, 0)]),
        ("KRW-ETH", [(0, 2, RUNNING, 0)]),
        ("published", [(2, 1, FINAL, 0)]),
        ("KRW-BTC", [(2, 2, FINAL, 1), (3, 1, RUNNING, 0)]),
        ("begun", [(2, 2, FINAL, 1), (3, 1, RUNNING, 0)]),
        ("published", [(3, 1, FINAL, 0), (4, 1, RUNNING, 0)]),
    ]
    counts = actor.statistics()
    assert (counts.running, counts.final, counts.amended) == (6, 4, 1)  # as many, whoever is told


async def test_a_hole_that_is_longer_than_a_consumers_depth_costs_it_nothing():
    """Where the hub tells of it, as it does of gaps; what the stream brings at once is the consumer's own affair."""
    hub = Hub()
    listener, other = (hub.attach((topic,), policy="cut-off", depth=5) for topic in (BTC, ETH))
    inbox, messages = trio.open_memory_channel[BarMessage](100)
    actor = Deduplicator(messages, lambda told: hub.publish(Line.CANDLE, told), mend=hub.tell)
    inbox.send_nowait(live(0))
    inbox.send_nowait(BarPage(BTC, tuple(row(slot) for slot in range(20, -1, -1)), opens(20)))
    inbox.send_nowait(live(20, at=700, volume=2))
    inbox.close()
    await actor.run()
    told = [listener.receive_nowait() for _ in range(23)]
    assert [slot for slot, *_ in brief(told)] == [0, 0, *range(1, 21), 20]
    for subscription in (listener, other):
        with pytest.raises(trio.WouldBlock):
            subscription.receive_nowait()
    assert listener.statistics().dropped == 0


async def test_each_market_and_timeframe_is_a_series_of_its_own():
    async with running() as pipe:
        await pipe.put(live(0), live(1, market="KRW-ETH"), live(1, timeframe=Timeframe.M3))
        assert brief(pipe.actor.view.bars(BTC)) == [(0, 1, RUNNING, 0)]
        assert brief(pipe.actor.view.bars(ETH)) == [(1, 1, RUNNING, 0)]
        assert await pipe.put(Proven((ETH,), opens(9))) == [[(1, 1, FINAL, 0)]]


async def test_time_proven_for_all_is_that_of_the_bars_the_exchange_streams():
    """Bars made from tickers come over another connection, of which it says nothing."""
    async with running() as pipe:
        day = reading(0, timeframe=Timeframe.D1, open_ms=DAY_OPEN_MS)
        await pipe.put(LiveBars((day,)), live(0), live(0, market="KRW-ETH"))
        over_ms = day.close_ms + 2_000
        assert [bar.timeframe for bar in pipe.actor.view.bars(DAYS)] == [Timeframe.D1]
        await pipe.put(Proven(None, over_ms))
        assert [(bar.market, bar.state) for told in pipe.published for bar in told] == [
            ("KRW-BTC", FINAL),
            ("KRW-ETH", FINAL),
        ]
        assert [told.state for told in pipe.actor.view.bars(DAYS)] == [RUNNING]
        await pipe.put(Proven((DAYS, Topic(Line.CANDLE, "KRW-XRP", Timeframe.D1)), over_ms))
        assert [told.state for told in pipe.actor.view.bars(DAYS)] == [FINAL]


async def test_a_doubt_holds_for_series_of_which_nothing_was_heard_yet():
    async with running() as pipe:
        assert await pipe.put(Doubt((BTC, ETH), opens(0), opens(1)), live(0, 1)) == [
            [(0, 1, RUNNING, 0), (1, 1, RUNNING, 0)]
        ]
        assert await pipe.put(BarPage(BTC, (), opens(2), from_ms=opens(0))) == [[(0, 1, FINAL, 0)]]
        assert pipe.actor.view.whole_from_ms(BTC) == opens(0)
        assert pipe.actor.view.whole_from_ms(ETH) is None


async def test_a_page_up_to_a_moment_says_nothing_of_what_follows():
    async with running() as pipe:
        page = BarPage(BTC, (row(0),), opens(5), to_ms=opens(1))
        await pipe.put(Doubt((BTC,), opens(0), opens(2)), live(1, 2), page)
        assert [told.state for told in pipe.actor.view.bars(BTC)] == [FINAL, RUNNING, RUNNING]


async def test_what_is_forgotten_is_gone():
    async with running() as pipe:
        await pipe.put(live(0), live(0, market="KRW-ETH"), Forget((BTC, DAYS)))
        assert pipe.actor.view.bars(BTC) == ()
        assert pipe.actor.view.whole_from_ms(BTC) is None
        assert len(pipe.actor.view.bars(ETH)) == 1
        assert await pipe.put(live(0)) == [[(0, 1, RUNNING, 0)]]


async def test_as_many_bars_are_kept_as_it_is_told():
    async with running(keep=2) as pipe:
        await pipe.put(live(0, 1, 2))
        assert [slot for slot, *_ in brief(pipe.actor.view.bars(BTC))] == [1, 2]


async def test_everything_that_came_and_went_is_counted():
    async with running() as pipe:
        await pipe.put(live(0), live(0), live(0, at=600), live(1), BarPage(BTC, (row(0, volume=9, at=700),), opens(2)))
        assert pipe.actor.statistics() == DeduplicatorStatistics(series=1, running=3, final=1, amended=1, ignored=1)
        await pipe.put(Forget((BTC,)))
        assert pipe.actor.statistics() == DeduplicatorStatistics(series=0, running=3, final=1, amended=1, ignored=1)


async def test_a_topic_that_is_no_series_of_bars_is_refused():
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="a series of bars has a timeframe")):
        async with running() as pipe:
            await pipe.put(Doubt((Topic(Line.TRADE, "KRW-BTC"),), 0, 1))


# -- attaching --------------------------------------------------------------------------------------------------


async def test_a_consumer_is_attached_after_the_earlier_ones_were_told_what_its_page_changes():
    async with running(keep=2) as pipe:
        await pipe.put(live(2, 3))
        order: list[Any] = []

        def attach(history: tuple[Candle, ...]) -> None:
            order.extend([len(pipe.published), brief(history)])

        page = (row(2, volume=4, at=900), row(1), row(0))
        told = await pipe.put(Attach(BTC, page, opens(3) + 1_000, 3, attach), live(3, at=600))
        assert told == [[(2, 4, FINAL, 1)], [(3, 1, RUNNING, 0)]]
        assert order == [1, [(1, 1, FINAL, 0), (2, 4, FINAL, 1), (3, 1, RUNNING, 0)]]


async def test_a_consumer_without_a_page_begins_with_what_is_held():
    async with running() as pipe:
        histories: list[tuple[Candle, ...]] = []
        await pipe.put(live(0), Attach(BTC, (), 0, 5, histories.append), Attach(BTC, (), 0, 0, histories.append))
        assert [brief(history) for history in histories] == [[(0, 1, RUNNING, 0)], []]


@attrs.define(eq=False)
class Chart:
    """A consumer: the bars that were held when it came, those it began with, and every later change put in place."""

    held: Sequence[Candle] = ()
    history: Sequence[Candle] = ()
    bars: dict[int, Candle] = attrs.field(init=False)
    begins_ms: int | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        opened = [bar.open_ms for bar in self.history]
        assert opened == sorted(set(opened))
        assert self.history[-len(self.held) :] == self.held[-len(self.history) :] or not (self.history and self.held)
        self.bars = {bar.open_ms: bar for bar in (*self.held, *self.history)}
        self.begins_ms = min(self.bars, default=None)

    def told(self, bar: Candle) -> None:
        before = self.bars.get(bar.open_ms)
        assert bar != before, "told twice"
        if before is not None and before.state is FINAL:
            assert (bar.state, bar.revision) == (FINAL, before.revision + 1), "final twice, or a change between"
        self.bars[bar.open_ms] = bar
        if self.begins_ms is None:
            self.begins_ms = bar.open_ms


slots = st.integers(0, 7)
frames = st.lists(st.tuples(slots, st.integers(1, 4)), min_size=1, max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("live"), frames),
        st.tuples(st.just("page"), frames, slots),
        st.tuples(st.just("attach"), frames | st.just([]), slots, st.integers(0, 9)),
        st.tuples(st.just("proven"), slots),
        st.tuples(st.just("doubt"), slots),
    ),
    max_size=25,
)


@given(steps, st.sampled_from([2, 50]))
def test_a_consumer_attached_at_any_moment_sees_no_seam(given_: list[Any], keep: int):
    """Its history and what it is told after it make up the series, and nothing comes twice."""
    inbox, messages = trio.open_memory_channel[BarMessage](1_000)
    charts: list[Chart] = []

    def publish(told: Sequence[Candle]) -> None:
        for chart in charts:
            for bar in told:
                chart.told(bar)

    def join(history: tuple[Candle, ...]) -> None:
        charts.append(Chart(actor.view.bars(BTC), history))

    actor = Deduplicator(messages, publish, keep)
    charts.append(Chart())

    async def main() -> None:
        for step in given_:
            inbox.send_nowait(message_of(step, join))
        inbox.close()
        await actor.run()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    held = actor.view.bars(BTC)
    for chart in charts:
        since = [bar for bar in held if chart.begins_ms is not None and bar.open_ms >= chart.begins_ms]
        assert [chart.bars[bar.open_ms] for bar in since] == since


async def test_history_that_somebody_asks_for_is_not_told_to_those_who_did_not():
    async with running() as pipe:
        told = await pipe.put(live(3), Attach(BTC, (row(3), row(1), row(0)), opens(3), 3, lambda history: None))
        assert told == [[(3, 1, RUNNING, 0)]]
        assert await pipe.put(live(4)) == [[(3, 1, FINAL, 0), (4, 1, RUNNING, 0)]]


async def test_of_a_page_that_comes_first_of_all_the_newest_bar_is_news():
    async with running() as pipe:
        assert await pipe.put(BarPage(BTC, (row(2), row(1)), opens(2))) == [[(2, 1, RUNNING, 0)]]


def message_of(step: Any, join: Any) -> BarMessage:
    def rows(drawn: list[tuple[int, int]], **changes: Any) -> tuple[Candle, ...]:
        return tuple(reading(slot, at=500 + volume, volume=volume, **changes) for slot, volume in drawn)

    match step:
        case "live", drawn:
            return LiveBars(rows(drawn))
        case "page", drawn, slot:
            return BarPage(BTC, rows(drawn), opens(slot) + 1_000)
        case "attach", drawn, slot, count:
            return Attach(BTC, rows(drawn), opens(slot) + 1_000, count, join)
        case "proven", slot:
            return Proven(None, opens(slot) + 2_000)
        case _, slot:
            return Doubt((BTC,), opens(slot), opens(slot) + MINUTE_MS)


# -- the actor --------------------------------------------------------------------------------------------------


async def test_what_lies_in_the_inbox_when_it_is_closed_is_handled_and_then_the_actor_ends():
    inbox, messages = trio.open_memory_channel[BarMessage](10)
    published: list[Sequence[Candle]] = []
    inbox.send_nowait(live(0))
    inbox.send_nowait(live(1))
    inbox.close()
    await Deduplicator(messages, published.append).run()
    assert [len(told) for told in published] == [1, 2]
    with pytest.raises(trio.ClosedResourceError):
        messages.receive_nowait()


async def test_a_burst_is_handled_in_few_passes_of_the_scheduler_and_leaves_others_their_turn():
    """A pass for each message would cost more than the messages; none at all would stop everything else."""
    inbox, messages = trio.open_memory_channel[BarMessage](5_000)
    handled = 0

    def publish(told: Sequence[Candle]) -> None:
        nonlocal handled
        handled += len(told)

    for n in range(4_000):
        inbox.send_nowait(live(0, at=500 + n))
    inbox.close()
    seen = set()

    async def watch() -> None:
        while handled < 4_000:
            seen.add(handled)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(Deduplicator(messages, publish).run)
    assert 8 <= len(seen) <= 100
