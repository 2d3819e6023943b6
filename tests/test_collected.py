"""Candles through the store: the same answers as without one, for fewer requests, whatever was stored before.

Everything runs in virtual time over the simulator, whose candles are the truth.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import EPOCH_MS, Rig, open_rig
from trio.testing import MockClock

from marketpipe import (
    CandleState,
    CollectionState,
    Config,
    ExchangeError,
    ExchangeUnavailable,
    PipelineClosed,
    Source,
    StoreError,
    Timeframe,
    UnknownMarket,
)
from marketpipe.actors import proving
from marketpipe.config import Buffers, CacheOptions, Collecting, Limits
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.freshness import Freshness
from marketpipe.core.history import Piece
from marketpipe.core.ranges import SECONDS_BELOW
from marketpipe.core.requests import CANDLES_LIMIT, CandlesRequest
from marketpipe.models import Candle
from marketpipe.sim import EditFault, LatencyFault, StatusFault
from marketpipe.sim.day import Bar
from marketpipe.sim.world import World
from marketpipe.store.sqlite import SqliteStore

M1, S1 = Timeframe.M1, Timeframe.S1
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
MARKETS = 60
BUSY, THIN = "KRW-BTC", "BTC-ONDO"
# Three seconds after a minute, an hour and a day of trading began are over, that minute has settled.
NOON_MS = EPOCH_MS - EPOCH_MS % HOUR_MS
UNIT = Decimal("0.00000001")

# Nothing takes time and nothing is remembered but by the store: questions to two pipes are asked at one moment.
FORGETFUL = Freshness(fast_s=1e-6, min_s=1e-6, max_s=1e-6)
AT_ONCE = Config(limits=Limits(per_second=100_000), cache=CacheOptions(candle_pages=1, freshness=FORGETFUL))
TIMELESS: dict[str, Any] = {"latency_s": 0.0, "limit": 100_000, "markets": MARKETS}


def pages(rig: Rig) -> list[CandlesRequest]:
    return rig.exchange.of(CandlesRequest)


def plain(bars: Iterator[Candle] | Any) -> list[Candle]:
    """Without what tells how they came."""
    return [attrs.evolve(bar, received_ms=0, source=Source.REST, revision=0) for bar in bars]


def truth(rig: Rig, market: str, start_ms: int, end_ms: int, timeframe: Timeframe = M1) -> list[Bar]:
    return rig.sim.world.candles(market, timeframe, start_ms, end_ms, rig.clock.now_ms())


def brief(bars: Any) -> list[tuple[int, Decimal, Decimal]]:
    return [(bar.open_ms, bar.close, bar.volume) for bar in bars]


def true_brief(rig: Rig, market: str, start_ms: int, end_ms: int, timeframe: Timeframe = M1) -> list[Any]:
    return [
        (bar.open_ms, bar.close * UNIT, bar.volume * UNIT) for bar in truth(rig, market, start_ms, end_ms, timeframe)
    ]


def settled_ms(rig: Rig, timeframe: Timeframe = M1) -> int:
    return timeframes.floor(timeframe, rig.clock.now_ms() - GRACE_MS)


# -- the same answers as without a store ------------------------------------------------------------------------------

Question = dict[str, Any]


@attrs.frozen
class Step:
    """Wait, then ask of one of the markets; ``into_s`` is until so long after the next minute, or day, has begun."""

    wait_s: float
    until: int | None
    market: int
    timeframe: Timeframe
    question: Question

    def pause_s(self, now_ms: int) -> float:
        wait_s = max(0.001, self.wait_s)
        return wait_s if self.until is None else (self.until - now_ms % self.until) / 1000 + wait_s


@st.composite
def moments(draw: st.DrawFn, timeframe: Timeframe) -> tuple[str, int, int]:
    """Slots after now or after the listing, and milliseconds besides."""
    anchor = draw(st.sampled_from(["now", "now", "now", "listing"]))
    slots = draw(st.integers(-5, 3) | st.integers(-300, 0) | st.integers(-1_500, 600 if anchor == "listing" else 0))
    return anchor, slots, draw(st.sampled_from([0, 0, 1, -1, 777]))


@st.composite
def questions(draw: st.DrawFn, timeframe: Timeframe) -> Question:
    kind = draw(st.sampled_from(["count", "count", "count end", "count start", "start end", "start", ""]))
    asked: Question = {}
    if "count" in kind:
        asked["count"] = draw(st.sampled_from([1, 2, 199, 200, 201]) | st.integers(1, 1_200))
    if "start" in kind:
        asked["start"] = draw(moments(timeframe))
    if "end" in kind:
        asked["end"] = draw(moments(timeframe))
    if draw(st.booleans()):
        asked["closed_only"] = True
    if draw(st.integers(0, 3)) == 0:
        asked["fill"] = "forward"
    return asked


@st.composite
def steps(draw: st.DrawFn, timeframe: Timeframe) -> Step:
    until = draw(st.sampled_from([None, None, None, MINUTE_MS, DAY_MS]))
    waits = [0.0, 0.5, 1.999, 2.0, 2.001, 3.0, 61.0, 3_600.0] if until is None else [0.0, 0.5, 1.0, 1.999, 2.0, 3.0]
    market = 0 if timeframe is S1 else draw(st.integers(0, 2))
    return Step(draw(st.sampled_from(waits)), until, market, timeframe, draw(questions(timeframe)))


sequences = (
    st.lists(st.sampled_from([M1, M1, M1, *Timeframe]), min_size=1, max_size=2)
    .flatmap(lambda chosen: st.lists(st.sampled_from(chosen).flatmap(steps), min_size=4, max_size=10))
    .filter(lambda steps: sum(step.until == DAY_MS for step in steps) < 3)
)


def spelled(step: Step, now_ms: int, listing_ms: int) -> Question:
    """With its moments in milliseconds, and a range of 1500 slots at most."""
    asked, timeframe = dict(step.question), step.timeframe
    for name in ("start", "end"):
        if name in asked:
            anchor, slots, extra_ms = asked[name]
            base_ms = timeframes.floor(timeframe, now_ms if anchor == "now" else listing_ms)
            slots = max(slots, 1 - timeframes.bars_between(timeframe, 0, base_ms))
            at_ms = timeframes.shift(timeframe, base_ms, slots) + extra_ms
            asked[name] = at_ms if at_ms > SECONDS_BELOW else 0
    if "start" in asked and "count" not in asked:
        last_ms = timeframes.shift(timeframe, timeframes.floor(timeframe, asked["start"]), 1_500)
        end_ms = asked.get("end", now_ms)
        if end_ms > last_ms:
            asked["end"] = last_ms
        if "end" in asked:
            asked["end"] = max(asked["end"], asked["start"] + 1, SECONDS_BELOW)
    return asked


def must_be_the_same(step: Step, asked: Question, now_ms: int, stored: list[Candle], bare: list[Candle]) -> None:
    """What is in its grace counts as closed for one and not yet for the other; that aside, all is equal."""
    running_ms = timeframes.floor(step.timeframe, now_ms)
    # What time it is at the exchange is known to a second.
    settled = {timeframes.floor(step.timeframe, now_ms - GRACE_MS - late_ms) for late_ms in (0, 1_000)}
    if not asked.get("closed_only") or settled == {running_ms}:
        assert stored == bare
    else:
        assert any(is_the_same_before(each_ms, asked, stored, bare) for each_ms in settled)


def is_the_same_before(settled_ms: int, asked: Question, stored: list[Candle], bare: list[Candle]) -> bool:
    closed = [bar for bar in bare if bar.open_ms < settled_ms]
    if any(bar.open_ms >= settled_ms for bar in stored):
        return False
    if "start" in asked:
        return stored == closed
    # So many newest as were asked for.
    return len(stored) >= len(closed) and stored[len(stored) - len(closed) :] == closed


@settings(max_examples=max(25, settings.default.max_examples // 5))
@given(sequences)
def test_a_pipe_with_a_store_answers_as_one_without_and_asks_no_more(sequence: list[Step]):
    """Whatever was asked before, and when; nor is more asked of the exchange than was explained."""

    async def main() -> None:
        async with (
            open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig,
            open_rig(AT_ONCE, **TIMELESS) as bare,
        ):
            world = rig.sim.world
            names = BUSY, THIN, max(world.markets, key=world.opening_ms)
            begun: set[CandlesRequest] = set()
            for step in sequence:
                await trio.sleep(step.pause_s(rig.clock.now_ms()))
                await ask_both(step, names[step.market], rig, bare, begun)
            check_store(rig)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def ask_both(step: Step, market: str, rig: Rig, bare: Rig, begun: set[CandlesRequest]) -> None:
    """``begun``: pages that have confirmed where a history begins; each of them is one request more, once."""
    now_ms = rig.clock.now_ms()
    for pipe in (rig, bare):
        await pipe.market.get_market(max_age_s=0)  # both have last heard at this moment what time it is
    asked = spelled(step, now_ms, rig.sim.world.opening_ms(market))
    words = {name: value for name, value in asked.items() if name in ("count", "start", "end")}
    explained = await rig.market.explain_candle(market, step.timeframe, **words)
    before, bare_before = len(pages(rig)), len(pages(bare))
    stored = await rig.market.get_candle(market, step.timeframe, **asked)
    expected = await bare.market.get_candle(market, step.timeframe, **asked)
    assert rig.clock.now_ms() == bare.clock.now_ms() == now_ms
    must_be_the_same(step, asked, now_ms, plain(stored), plain(expected))
    requests, bare_requests = len(pages(rig)) - before, len(pages(bare)) - bare_before
    most = bare_requests
    if "start" in asked and "count" not in asked and "fill" not in asked:
        most = min(most, explained.requests)
    if requests > most:
        confirming = {page for page in pages(rig)[before:] if page.count == 1 and page.to_ms is not None} - begun
        begun |= confirming
        requests -= len(confirming)
    assert requests <= most, (asked, now_ms, pages(rig)[before:])


def check_store(rig: Rig) -> None:
    """What is proven is the truth, and nothing else."""
    assert rig.store is not None
    assert rig.store.integrity() == ()
    for series in rig.store.series():
        assert series.amended == 0
        timeframe = Timeframe(series.timeframe)
        for start_ms, end_ms in rig.store.coverage(series.market, timeframe, 0, 1 << 50):
            assert end_ms <= settled_ms(rig, timeframe)
            kept_ms = max(start_ms, rig.clock.now_ms() - 80 * DAY_MS) if timeframe is S1 else start_ms
            bars = rig.store.bars(series.market, timeframe, kept_ms, end_ms)
            assert brief(bars) == true_brief(rig, series.market, kept_ms, end_ms, timeframe)


@pytest.mark.parametrize("flush_s", [1.0, 10_000.0])
async def test_what_is_not_stored_yet_is_read_with_what_is(flush_s: float, autojump_clock):
    """Bars on their way to the database do not hide those beside them."""
    config = attrs.evolve(AT_ONCE, collecting=Collecting(flush_s=flush_s, batch_rows=100_000))
    async with open_rig(config, store=":memory:", **TIMELESS) as rig:
        for count, ago in ((50, 100), (10, 0), (30, 60), (40, 20)):
            end_ms = NOON_MS - ago * MINUTE_MS
            bars = await rig.market.get_candle(THIN, count=count, end=end_ms)
            start_ms = bars[0].open_ms
            assert len(bars) == count
            assert brief(bars) == true_brief(rig, THIN, start_ms, end_ms)
        everything = await rig.market.get_candle(THIN, start=NOON_MS - 200 * MINUTE_MS, end=NOON_MS)
        assert brief(everything) == true_brief(rig, THIN, NOON_MS - 200 * MINUTE_MS, NOON_MS)


async def test_two_hundred_asked_with_three_stored_are_two_hundred(autojump_clock):
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        for market in (BUSY, THIN):
            assert len(await rig.market.get_candle(market, count=3, end=NOON_MS)) == 3
            bars = await rig.market.get_candle(market, count=200, end=NOON_MS)
            assert len(bars) == 200
            assert brief(bars) == true_brief(rig, market, bars[0].open_ms, NOON_MS)
            assert len(await rig.market.get_candle(market)) == 200
            before = len(pages(rig))
            assert plain(await rig.market.get_candle(market, count=200, end=NOON_MS)) == plain(bars)
            assert len(pages(rig)) == before  # however far below the 200 minutes before it they reach


async def test_the_answer_took_long_and_nothing_is_missing_in_between(autojump_clock):
    """More bars have begun while the page with the running one was under way than were asked for."""
    async with open_rig(store=":memory:", markets=5) as rig:
        await rig.market.get_candle(BUSY, "1s", count=200)
        await trio.sleep(0.3)
        start_ms = settled_ms(rig, S1) - 100_000
        rig.sim.add_fault(LatencyFault(latency_s=7.0, groups=("candles",), for_s=0.1))
        for asked in ({"start": start_ms}, {"count": 60}):
            before, moment_ms = len(pages(rig)), rig.clock.now_ms() + 3_000  # the question gets there by then
            bars = await rig.market.get_candle(BUSY, "1s", **asked)
            assert pages(rig)[before].count < 10
            shown = [bar.open_ms for bar in bars if bar.open_ms < moment_ms]
            assert shown == [bar.open_ms for bar in truth(rig, BUSY, shown[0], moment_ms, S1)]
            assert len(bars) >= 60
            await trio.sleep(0.3)
            rig.sim.add_fault(LatencyFault(latency_s=7.0, groups=("candles",), for_s=0.1))


async def test_bars_in_their_grace_do_not_hide_the_running_one(autojump_clock):
    """The first page ends with a minute that is over and not settled; the next one begins there."""
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        rig.sim.world = World(rig.sim.config.seed, MARKETS, [(NOON_MS - 3 * HOUR_MS, NOON_MS - 2 * HOUR_MS)])
        await trio.sleep(5)
        minute_ms = timeframes.floor(M1, rig.clock.now_ms())
        assert settled_ms(rig) == minute_ms - MINUTE_MS
        start_ms = minute_ms - 200 * MINUTE_MS
        bars = await rig.market.get_candle(BUSY, count=200, start=start_ms)
        assert [bar.open_ms for bar in bars] == [bar.open_ms for bar in truth(rig, BUSY, start_ms, minute_ms + 1)]
        assert bars[-1].open_ms == minute_ms


@pytest.mark.parametrize("behind_s", [-18_000, 0, 18_000])
async def test_a_clock_that_is_hours_off_moves_nothing(behind_s: int, autojump_clock):
    """Neither what counts as settled, nor the running bar; nor is anything proven that has not happened."""
    async with open_rig(behind_s=behind_s, store=":memory:", markets=5) as rig:
        bars = await rig.market.get_candle(BUSY, start=NOON_MS)
        assert brief(bars)[:-1] == true_brief(rig, BUSY, NOON_MS, bars[-1].open_ms)
        assert bars[-1].open_ms == timeframes.floor(M1, rig.clock.now_ms())
        assert bars[-1].state is CandleState.RUNNING
        await trio.sleep(120)
        later = await rig.market.get_candle(BUSY, start=NOON_MS)
        assert brief(later)[:-1] == true_brief(rig, BUSY, NOON_MS, later[-1].open_ms)
        await trio.sleep(2)
        check_store(rig)


def days_in(zone: ZoneInfo, first: date, days: int) -> list[datetime]:
    return [datetime(first.year, first.month, first.day, tzinfo=zone) + timedelta(days=n) for n in range(days + 1)]


@pytest.mark.parametrize(
    ("zone", "first", "hours"),
    [
        ("Asia/Seoul", date(2026, 9, 20), [24, 24, 24]),
        ("Europe/Berlin", date(2026, 3, 28), [24, 23, 24]),
        ("America/New_York", date(2025, 11, 1), [24, 25, 24]),
    ],
)
async def test_a_day_is_as_long_as_it_is_where_it_was_asked(zone: str, first: date, hours, autojump_clock):
    """In Seoul it begins at 15:00 UTC; where clocks change it has 23 or 25 hours, each of which is there once."""
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        for again in range(2):
            before = len(pages(rig))
            midnights = days_in(ZoneInfo(zone), first, len(hours))
            for (start, end), length in zip(pairwise(midnights), hours, strict=True):
                bars = await rig.market.get_candle(BUSY, "1h", start=start, end=end)
                span = [int(moment.timestamp()) * 1000 for moment in (start, end)]
                assert brief(bars) == true_brief(rig, BUSY, *span, Timeframe.H1)
                assert len(bars) == length
            assert len(pages(rig)) - before == (0 if again else len(hours))


async def test_hours_of_maintenance_are_empty_and_known_to_be(autojump_clock):
    """Nothing was traded for hours: that is proven by one page, and never asked for again."""
    hole = NOON_MS - 6 * HOUR_MS, NOON_MS - 2 * HOUR_MS
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        rig.sim.world = World(rig.sim.config.seed, MARKETS, [hole])
        start_ms = NOON_MS - 7 * HOUR_MS
        for _ in range(2):
            bars = await rig.market.get_candle(BUSY, start=start_ms, end=NOON_MS)
            assert brief(bars) == true_brief(rig, BUSY, start_ms, NOON_MS)
            assert len(pages(rig)) == 1
            assert not any(hole[0] <= bar.open_ms < hole[1] for bar in bars)
        summary = await rig.market.collection_summary(BUSY, start=start_ms, end=NOON_MS)
        assert (*hole, CollectionState.EMPTY) in list(summary.spans())
        assert summary.is_whole
        flat = await rig.market.get_candle(BUSY, count=100, end=hole[1], fill="forward")
        assert len(flat) == 100
        assert all(bar.filled for bar in flat)
        assert brief(await rig.market.get_candle(BUSY, start=hole[0], end=hole[1])) == []


async def test_before_the_listing_there_is_nothing_and_that_is_asked_once(autojump_clock):
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        listed_ms = timeframes.floor(M1, rig.sim.world.opening_ms(THIN))
        before = {"start": listed_ms - 3_000 * MINUTE_MS, "end": listed_ms}
        for _ in range(2):
            assert brief(await rig.market.get_candle(THIN, **before)) == []
            assert [page.count for page in pages(rig)] == [200, 1]  # the second one confirms that it is the listing
        assert (await rig.market.explain_candle(THIN, **before)).requests == 0
        first = await rig.market.get_candle(THIN, count=1, start=listed_ms - 300 * DAY_MS)
        assert brief(first) == true_brief(rig, THIN, listed_ms, listed_ms + MINUTE_MS)


async def test_bars_of_a_second_that_are_kept_no_more_are_neither_invented_nor_asked_for_again(autojump_clock):
    """The exchange keeps them for three months. What was stored in time stays."""
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        assert rig.store is not None
        start_ms = NOON_MS - 200 * DAY_MS
        kept = Candle(
            BUSY,
            S1,
            start_ms + 5_000,
            *[Decimal(7)] * 6,
            exchange_ms=start_ms + 5_500,
            received_ms=start_ms,
            source=Source.REST,
            state=CandleState.FINAL,
        )
        rig.store.write([Piece(BUSY, S1, start_ms, start_ms + 10_000, (kept,))], now_ms=1)
        for _ in range(3):
            bars = await rig.market.get_candle(BUSY, "1s", start=start_ms - 60_000, end=start_ms + 60_000)
            assert brief(bars) == brief([kept])
            assert len(pages(rig)) == 1
            assert brief(await rig.market.get_candle(BUSY, "1s", count=10, end=start_ms - 60_000)) == []
            assert len(pages(rig)) == 1
        summary = await rig.market.collection_summary(BUSY, "1s", start=start_ms, end=start_ms + 60_000)
        assert (summary.collected, summary.empty, summary.pending) == (1, 9, 50)


# -- what it costs ----------------------------------------------------------------------------------------------------


async def polled(rig: Rig, polls: int = 80, every_s: float = 0.75, **asked: Any) -> int:
    """Pages asked for by ``polls`` questions over a minute, in which one bar ends."""
    before = len(pages(rig))
    for _ in range(polls):
        bars = await rig.market.get_candle(BUSY, count=120, **asked)
        end_ms = settled_ms(rig) if asked else bars[-1].close_ms
        assert [bar.open_ms for bar in bars] == [bar.open_ms for bar in truth(rig, BUSY, bars[0].open_ms, end_ms)]
        assert end_ms >= rig.clock.now_ms() - MINUTE_MS - GRACE_MS
        await trio.sleep(every_s)
    return len(pages(rig)) - before


async def test_polling_closed_bars_asks_once_and_then_once_for_every_bar(autojump_clock):
    async with open_rig(store=":memory:", markets=5) as rig:
        assert await polled(rig, closed_only=True) == 2
        assert [request.count for request in pages(rig)] == [CANDLES_LIMIT, 1]
        assert await polled(rig, polls=8, every_s=60.0, closed_only=True) == 7  # of the first one it knows


async def test_polling_running_bars_asks_until_they_are_streamed(autojump_clock):
    """What is read often is streamed by itself; the few bars that a stream vouches for are put to the stored ones."""
    async with open_rig(store=":memory:", streams=True, markets=5) as rig:
        await trio.sleep(5)
        assert await polled(rig) <= 5
        # Now and then a stream is checked, and is not vouched for meanwhile.
        assert await polled(rig) <= 5


async def test_polling_running_bars_without_a_stream_asks_for_them_alone(autojump_clock):
    async with open_rig(store=":memory:", markets=5) as rig:
        assert await polled(rig) == 80
        assert [request.count for request in pages(rig)[:1]] == [CANDLES_LIMIT]
        assert all(request.count <= 3 for request in pages(rig)[1:])


async def test_a_long_stretch_of_history_is_asked_for_once_and_in_as_few_pages_as_it_takes(autojump_clock):
    """And `explain_candle` says so before; where every slot has a bar, exactly."""
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        start_ms, end_ms = NOON_MS - 9_990 * MINUTE_MS, NOON_MS
        await rig.market.get_candle(BUSY, start=NOON_MS - 5_000 * MINUTE_MS, end=NOON_MS - 4_000 * MINUTE_MS)
        before = len(pages(rig))
        explained = await rig.market.explain_candle(BUSY, start=start_ms, end=end_ms)
        assert (explained.slots, explained.slots_missing) == (9_990, 8_990)
        assert [span[1] - span[0] for span in explained.missing] == [4_990 * MINUTE_MS, 4_000 * MINUTE_MS]
        assert explained.bars_stored == len(truth(rig, BUSY, start_ms + 4_990 * MINUTE_MS, end_ms - 4_000 * MINUTE_MS))
        assert explained.requests == 45
        assert explained.seconds == pytest.approx(45 / 100_000)
        bars = await rig.market.get_candle(BUSY, start=start_ms, end=end_ms)
        assert brief(bars) == true_brief(rig, BUSY, start_ms, end_ms)
        assert len(pages(rig)) - before == explained.requests
        assert (await rig.market.explain_candle(BUSY, start=start_ms, end=end_ms)).requests == 0
        assert plain(await rig.market.get_candle(BUSY, start=start_ms, end=end_ms)) == plain(bars)
        assert len(pages(rig)) - before == explained.requests


@pytest.mark.parametrize(
    ("asked", "requests"),
    [
        ({}, 1),
        ({"count": 1}, 1),
        ({"count": 500}, 3),
        ({"start": NOON_MS - 1_000 * MINUTE_MS}, 6),
        ({"start": NOON_MS - 560 * MINUTE_MS}, 3),
        ({"start": NOON_MS - 562 * MINUTE_MS}, 3),
        ({"start": NOON_MS}, 1),
        ({"start": EPOCH_MS + DAY_MS}, 0),
        ({"count": 5, "start": NOON_MS - 1_000 * MINUTE_MS}, 1),
        ({"count": 34, "start": NOON_MS}, 1),
        ({"count": 50, "start": NOON_MS}, 1),
        ({"count": 450, "start": NOON_MS - 200 * MINUTE_MS}, 2),
        ({"count": 5, "start": EPOCH_MS + DAY_MS}, 0),
        ({"count": 450, "end": NOON_MS}, 3),
        ({"start": NOON_MS - 400 * MINUTE_MS, "end": EPOCH_MS + DAY_MS}, 3),
    ],
)
async def test_what_a_question_costs_is_known_before_on_a_busy_market(asked, requests: int, autojump_clock):
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        explained = await rig.market.explain_candle(BUSY, **asked)
        assert pages(rig) == []
        await rig.market.get_candle(BUSY, **asked)
        assert (len(pages(rig)), explained.requests) == (requests, requests)


async def test_the_first_bars_from_a_moment_on_take_nothing_before_it(autojump_clock):
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        start_ms = NOON_MS - 5 * MINUTE_MS
        known = await rig.market.get_candle(BUSY, start=start_ms, closed_only=True)
        before = len(pages(rig))
        assert plain(await rig.market.get_candle(BUSY, count=150, start=start_ms, closed_only=True)) == plain(known)
        assert len(pages(rig)) == before


async def test_the_first_bars_that_are_stored_are_not_asked_for(autojump_clock):
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        start_ms = NOON_MS - 300 * MINUTE_MS
        await rig.market.get_candle(BUSY, start=start_ms, end=start_ms + 20 * MINUTE_MS)
        before = len(pages(rig))
        for count, requests in ((1, 0), (20, 0), (21, 1), (50, 0)):
            explained = await rig.market.explain_candle(BUSY, count=count, start=start_ms + 1 - MINUTE_MS)
            bars = await rig.market.get_candle(BUSY, count=count, start=start_ms + 1 - MINUTE_MS)
            assert brief(bars) == true_brief(rig, BUSY, start_ms, start_ms + count * MINUTE_MS)
            assert (len(pages(rig)) - before, explained.requests) == (requests, requests)
            before = len(pages(rig))


async def test_it_is_told_whether_anything_was_asked(autojump_clock):
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        for asked in ({"start": NOON_MS - HOUR_MS, "end": NOON_MS}, {"count": 300, "end": NOON_MS}):
            for rate in (0.0, 1.0):
                batch = await rig.market.get_candle([BUSY], **asked)
                assert batch.cache_hit_rate == rate


async def test_a_thin_market_takes_as_many_pages_as_its_bars_fill(autojump_clock):
    """A fortnight of a market with few trades: not one page for every 200 minutes."""
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        start_ms = NOON_MS - 60 * DAY_MS
        explained = await rig.market.explain_candle(THIN, start=start_ms, end=NOON_MS)
        bars = await rig.market.get_candle(THIN, start=start_ms, end=NOON_MS)
        assert brief(bars) == true_brief(rig, THIN, start_ms, NOON_MS)
        fewest = len(bars) // CANDLES_LIMIT + 1
        assert fewest <= len(pages(rig)) <= 1.2 * fewest + 1 < explained.requests / 3


@pytest.mark.parametrize("read_only", [False, True])
async def test_two_who_ask_for_the_same_at_once_cost_one_set_of_pages(read_only: bool, tmp_path: Path, autojump_clock):
    """Also if one comes later and wants more; where nothing can be stored, he must ask for what he has missed."""
    async with stored_at(tmp_path / "a.db", read_only=read_only) as store, open_rig(store=store, markets=5) as rig:
        start_ms, end_ms = NOON_MS - 2_000 * MINUTE_MS, NOON_MS
        answers = []

        async def ask(late_s: float, more: int) -> None:
            await trio.sleep(late_s)
            answers.append(await rig.market.get_candle(BUSY, start=start_ms - more * MINUTE_MS, end=end_ms))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0.0, 0)
            nursery.start_soon(ask, 0.0, 0)
            if not read_only:
                nursery.start_soon(ask, 0.11, 50)
        expected = true_brief(rig, BUSY, start_ms - 50 * MINUTE_MS, end_ms)
        for bars in answers:
            assert brief(bars) == expected[-len(bars) :]
        assert sorted(map(len, answers)) == ([2_000, 2_000] if read_only else [2_000, 2_000, 2_050])
        assert len(pages(rig)) == len(set(pages(rig))) == (10 if read_only else 11)


async def test_what_another_fetches_is_told_where_nothing_can_be_stored(tmp_path: Path, autojump_clock):
    """One asks for more than the other, who is already at it: nothing that comes from now on is asked for twice."""
    async with stored_at(tmp_path / "a.db", read_only=True) as store, open_rig(store=store, markets=5) as rig:
        start_ms, end_ms = NOON_MS - 6_000 * MINUTE_MS, NOON_MS
        answers = []

        async def ask(late_s: float, more: int) -> None:
            await trio.sleep(late_s)
            answers.append(await rig.market.get_candle(BUSY, start=start_ms - more * MINUTE_MS, end=end_ms))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0.0, 0)
            nursery.start_soon(ask, 0.11, 90)
        expected = true_brief(rig, BUSY, start_ms - 90 * MINUTE_MS, end_ms)
        assert [brief(bars) for bars in sorted(answers, key=len)] == [expected[90:], expected]
        assert len(pages(rig)) < 45


# -- what goes wrong --------------------------------------------------------------------------------------------------


async def test_a_page_that_fails_fails_the_symbol_that_needed_it_and_says_what_is_missing(autojump_clock):
    """The others are answered, and so is whoever has it stored. The ledger knows of it until it is fetched."""
    async with open_rig(store=":memory:", markets=20) as rig:
        asked = {"start": NOON_MS - 300 * MINUTE_MS, "end": NOON_MS}
        await rig.market.get_candle("KRW-ETH", **asked)
        await trio.sleep(2)
        rig.sim.add_fault(StatusFault(status=500, groups=("candles",)))
        batch = await rig.market.get_candle([BUSY, "KRW-ETH", "KRW-XRP"], **asked)
        assert list(batch) == ["KRW-ETH"]
        assert brief(batch["KRW-ETH"]) == true_brief(rig, "KRW-ETH", asked["start"], asked["end"])
        assert set(batch.failed) == {BUSY, "KRW-XRP"}
        for error in batch.failed.values():
            assert isinstance(error, ExchangeUnavailable)
            assert "1m bars from 2026-09-23 07:00:00 to 2026-09-23 12:00:00 UTC are missing" in str(error)
        for count_asked in ({"count": 50, "end": NOON_MS}, {"count": 5, "start": NOON_MS - 30 * MINUTE_MS}, {}):
            with pytest.raises(ExchangeUnavailable, match=r"1m bars from .* UTC are missing"):
                await rig.market.get_candle(BUSY, **count_asked)
        await trio.sleep(2)
        failed = await rig.market.collection_summary(BUSY, **asked)
        assert failed.failed >= 100
        assert not failed.is_whole
        assert {failure.code for failure in failed.failures} == {"ExchangeUnavailable"}
        assert all(failure.attempts >= 1 and failure.last_ms > EPOCH_MS for failure in failed.failures)
        rig.sim.clear_faults()
        assert len(await rig.market.get_candle(BUSY, **asked)) == 300
        await trio.sleep(2)
        mended = await rig.market.collection_summary(BUSY, **asked)
        assert (mended.collected, mended.failed, mended.is_whole) == (300, 0, True)


async def test_the_ledger_knows_what_the_newest_bars_lack(autojump_clock):
    """A question for so many bars has no stretch of its own; its page has."""
    async with open_rig(store=":memory:", markets=5) as rig:
        await rig.market.get_market()
        rig.sim.add_fault(StatusFault(status=400, groups=("candles",)))
        for _ in range(2):
            with pytest.raises(ExchangeError, match="1m bars from 2026-09-23 08:40:00 to 2026-09-23 12:00:00 UTC"):
                await rig.market.get_candle(BUSY, count=5, end=NOON_MS)
        await trio.sleep(2)
        summary = await rig.market.collection_summary(BUSY, start=NOON_MS - 300 * MINUTE_MS, end=NOON_MS)
        assert list(summary.spans()) == [
            (NOON_MS - 300 * MINUTE_MS, NOON_MS - 200 * MINUTE_MS, CollectionState.PENDING),
            (NOON_MS - 200 * MINUTE_MS, NOON_MS, CollectionState.FAILED),
        ]
        assert [failure.attempts for failure in summary.failures] == [2]


async def test_what_came_before_the_page_that_failed_is_not_asked_for_again(autojump_clock):
    async with open_rig(store=":memory:", markets=5) as rig:
        asked = {"start": NOON_MS - 2_000 * MINUTE_MS, "end": NOON_MS}
        await rig.market.get_market()
        rig.sim.add_fault(StatusFault(status=500, groups=("candles",), after_s=0.03))
        with pytest.raises(ExchangeUnavailable, match=r"from 2026-09-22 02:40:00 to 2026-09-2\d \d\d:\d\d:00 UTC"):
            await rig.market.get_candle(BUSY, **asked)
        rig.sim.clear_faults()
        before = len(pages(rig))
        assert len(await rig.market.get_candle(BUSY, **asked)) == 2_000
        assert len(pages(rig)) - before < 10


async def test_a_market_that_is_none_fails_by_name(autojump_clock):
    async with open_rig(store=":memory:", markets=5) as rig:
        for asked in ({}, {"start": NOON_MS, "end": NOON_MS + HOUR_MS}, {"closed_only": True}):
            with pytest.raises(UnknownMarket, match="KRW-NOPE"):
                await rig.market.get_candle("KRW-NOPE", **asked)


@attrs.define(eq=False)
class Unreadable:
    """A database of which nothing can be read, or only so many times."""

    store: SqliteStore
    reads: int = 0

    def __getattr__(self, name: str) -> Any:
        if name in ("coverage", "bars", "newest", "failures"):
            self.reads -= 1
            if self.reads < 0:
                raise StoreError(f"{self.store.path}: cannot read: disk I/O error")
        return getattr(self.store, name)


@pytest.mark.parametrize("reads", [0, 1, 2, 3, 5, 8])
async def test_a_database_that_cannot_be_read_is_done_without(reads: int, autojump_clock):
    """From the beginning, or from anywhere on."""
    with SqliteStore.open(":memory:", source="http://sim") as inner:
        async with open_rig(AT_ONCE, store=Unreadable(inner, reads), **TIMELESS) as rig:  # type: ignore[arg-type]
            for asked in (
                {"count": 300, "end": NOON_MS},
                {"start": NOON_MS - 500 * MINUTE_MS, "end": NOON_MS},
                {"count": 10, "start": NOON_MS - 50 * DAY_MS},
            ):
                bars = await rig.market.get_candle(THIN, **asked)
                expected = true_brief(rig, THIN, bars[0].open_ms, bars[-1].open_ms + 1)
                assert brief(bars) == expected
                assert len(bars) == asked.get("count", len(truth(rig, THIN, asked.get("start", 0), NOON_MS)))
            assert len(await rig.market.get_candle(BUSY)) == 200
            walked = [
                bar async for part in rig.market.iterate_candle(BUSY, start=NOON_MS, end=EPOCH_MS) for bar in part
            ]
            assert brief(walked) == true_brief(rig, BUSY, NOON_MS, settled_ms(rig))
            with pytest.raises(StoreError, match="disk I/O error"):
                await rig.market.collection_summary(BUSY, start=NOON_MS)


@asynccontextmanager
async def stored_at(path: Path, *, read_only: bool) -> AsyncIterator[SqliteStore]:
    """A database in a file; if another holds it, it can be read alone."""
    with SqliteStore.open(path, source="http://sim") as first:
        if not read_only:
            yield first
            return
        with SqliteStore.open(path, source="http://sim") as second:
            yield second


async def test_a_database_for_reading_only_is_read_and_the_rest_is_asked_for(tmp_path: Path, autojump_clock):
    async with stored_at(tmp_path / "a.db", read_only=True) as store, open_rig(store=store, markets=5) as rig:
        assert store.read_only
        for _ in range(2):
            before = len(pages(rig))
            bars = await rig.market.get_candle(BUSY, start=NOON_MS - 700 * MINUTE_MS, end=NOON_MS)
            assert brief(bars) == true_brief(rig, BUSY, NOON_MS - 700 * MINUTE_MS, NOON_MS)
            assert len(pages(rig)) - before == 4
        assert store.series() == ()
        status = rig.market.status().store
        assert status is not None
        assert status.read_only
        walked = [
            bar
            async for part in rig.market.iterate_candle(BUSY, start=NOON_MS - 700 * MINUTE_MS, end=NOON_MS)
            for bar in part
        ]
        assert brief(walked) == brief(bars)


def wrong(open_ms: int) -> Candle:
    """A bar as the exchange never had it."""
    prices = dict.fromkeys(("open", "high", "low", "close", "volume", "quote_volume"), Decimal(1))
    return Candle(
        BUSY,
        M1,
        open_ms,
        **prices,
        exchange_ms=open_ms + 1,
        received_ms=1,
        source=Source.REST,
        state=CandleState.FINAL,
    )


async def test_a_bar_that_was_corrected_later_is_amended_when_it_is_read_again(autojump_clock):
    """Proven stretches are not read again on their own account; a page that reaches over one counts."""
    with SqliteStore.open(":memory:", source="http://sim") as store:
        start_ms, end_ms = NOON_MS - 20 * MINUTE_MS, NOON_MS - 10 * MINUTE_MS
        stale = tuple(wrong(open_ms) for open_ms in range(start_ms, end_ms, MINUTE_MS))
        store.write([Piece(BUSY, M1, start_ms, end_ms, stale)], now_ms=1)
        async with open_rig(store=store, markets=5) as rig:
            assert plain(await rig.market.get_candle(BUSY, start=start_ms, end=end_ms)) == plain(stale)
            assert pages(rig) == []
            bars = await rig.market.get_candle(BUSY, start=start_ms - 5 * MINUTE_MS, end=NOON_MS)
            assert brief(bars) == true_brief(rig, BUSY, start_ms - 5 * MINUTE_MS, NOON_MS)
            await trio.sleep(2)
            again = await rig.market.get_candle(BUSY, start=start_ms, end=end_ms)
            assert brief(again) == true_brief(rig, BUSY, start_ms, end_ms)
            assert {bar.revision for bar in again} == {1}
            status = rig.market.status().store
            assert status is not None
            assert status.rows_amended == 10
            assert plain(each.was for each in store.amendments(BUSY, M1)) == plain(stale)


async def test_rows_that_nobody_asked_for_are_refused_and_not_stored(autojump_clock):
    async with open_rig(store=":memory:", markets=5) as rig:
        assert rig.store is not None
        rig.sim.add_fault(EditFault(change="duplicate", groups=("candles",)))
        for asked in ({"count": 20, "end": NOON_MS}, {"start": NOON_MS - HOUR_MS, "end": NOON_MS}):
            with pytest.raises(Exception, match=r"(two bars|bars came|missing)"):
                await rig.market.get_candle(BUSY, **asked)
        await trio.sleep(2)
        assert rig.store.series() == () or rig.store.series()[0].bars == 0


# -- long readings ----------------------------------------------------------------------------------------------------


def bars_alive() -> int:
    return sum(type(each) is Candle for each in gc.get_objects())


@pytest.fixture
def small_steps() -> Iterator[int]:
    """A long reading goes by steps of so many slots."""
    with mock.patch.multiple(proving, STEP=1_000, LONGEST_STEP=100_000, PAGES_AT_MOST=10):
        yield 1_000


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("market", "days_before", "days"), [(BUSY, 0, 9), (THIN, 0, 60), (BUSY, 40, 9), (THIN, 100, 60)]
)
async def test_a_long_reading_is_what_a_question_answers_with_few_bars_at_a_time(
    market: str, days_before: int, days: int, stored: bool, small_steps: int, autojump_clock
):
    """From long before the listing, too: there, hardly a page is asked for, and then no more bars are held at once."""
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        end_ms = NOON_MS
        if days_before:
            end_ms = timeframes.floor(M1, rig.sim.world.opening_ms(market)) + days * DAY_MS
        start_ms = end_ms - (days_before + days) * DAY_MS
        expected = true_brief(rig, market, start_ms, end_ms)
        if stored:
            await rig.market.get_candle(market, start=start_ms, end=end_ms)
        gc.collect()
        before, others, greatest = len(pages(rig)), bars_alive(), 0
        found: list[Any] = []
        async for bars in rig.market.iterate_candle(market, start=start_ms, end=end_ms):
            found += brief(bars)
            assert len(bars) <= 2 * small_steps
            greatest = max(greatest, bars_alive() - others)
            await trio.sleep(2)  # what was fetched is stored
        assert found == expected
        # A step, what it was made of, and the pages in flight when it proved to be longer than was thought.
        assert greatest <= 8 * small_steps
        if stored:
            assert len(pages(rig)) == before
        # Not one page for every step where next to nothing was traded.
        assert len(pages(rig)) <= len(expected) / CANDLES_LIMIT * 1.3 + 25
        assert len(pages(rig)) == len(set(pages(rig)))


async def test_a_long_reading_may_be_left_in_the_middle(small_steps: int, autojump_clock):
    """Nothing of it is left running, nor to the garbage collector, which would complain."""
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        async with aclosing(rig.market.iterate_candle(BUSY, start=NOON_MS - 3 * DAY_MS)) as parts:
            async for bars in parts:
                assert len(bars) == small_steps
                break
        before = len(pages(rig))
        gc.collect()
        await trio.sleep(5)
        assert len(pages(rig)) == before == 5


@pytest.mark.parametrize(
    ("asked", "kind", "text"),
    [
        ({"symbol": 5}, TypeError, "symbol must be a str"),
        ({"symbol": [BUSY]}, TypeError, "symbol must be a str"),
        ({"timeframe": "7m"}, ValueError, "7m"),
        ({"timeframe": 60}, TypeError, "60"),
        ({"start": datetime(2026, 9, 1)}, ValueError, "start must be an aware datetime"),  # noqa: DTZ001
        ({"start": "2026-09-01"}, TypeError, "start must be an aware datetime"),
        ({"end": 12.5}, TypeError, "end must be an aware datetime"),
        ({"end": NOON_MS - DAY_MS}, ValueError, "start must be before end"),
        ({"priority": 2}, TypeError, "CRITICAL, HIGH, NORMAL, LOW"),
    ],
)
async def test_misuse_of_a_long_reading_is_told_by_the_call(asked, kind, text: str, autojump_clock):
    """Not by the first step of the loop, which may be elsewhere; and whether or not the exchange may be asked."""
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        for stored_only in (False, True):
            with pytest.raises(kind, match=text):
                rig.market.iterate_candle(**{"symbol": BUSY, "start": NOON_MS, "stored_only": stored_only, **asked})
        assert pages(rig) == []


async def test_a_long_reading_without_a_database_is_refused_by_the_call(autojump_clock):
    async with open_rig(AT_ONCE, **TIMELESS) as rig:
        with pytest.raises(RuntimeError, match="without a database"):
            rig.market.iterate_candle(BUSY, start=NOON_MS)


async def test_a_long_reading_of_a_pipeline_that_was_left_is_refused_by_the_call_and_by_its_first_step(autojump_clock):
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        readings = [rig.market.iterate_candle(BUSY, start=NOON_MS, stored_only=only) for only in (False, True)]
    with pytest.raises(PipelineClosed):
        rig.market.iterate_candle(BUSY, start=NOON_MS)
    for reading in readings:
        with pytest.raises(PipelineClosed):
            await anext(reading)


@pytest.mark.filterwarnings("error")
async def test_a_long_reading_that_is_never_begun_leaves_nothing_behind(autojump_clock):
    """Closed or forgotten: nothing was asked, and Python has nothing to complain of."""
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        readings = [rig.market.iterate_candle(BUSY, start=NOON_MS) for _ in range(500)]
        async with aclosing(readings.pop()):
            pass
        readings.clear()
        gc.collect()
        await trio.sleep(5)
        assert pages(rig) == []


async def test_closing_a_long_reading_closes_what_it_reads_from(small_steps: int, autojump_clock):
    """At once, rather than when the garbage collector comes: a read of the database would be held open until then."""
    closed: list[str] = []
    through = proving.Proving.through

    async def watched(self: proving.Proving, *args: Any, **options: Any) -> AsyncIterator[Any]:
        try:
            async with aclosing(through(self, *args, **options)) as bars:
                async for page in bars:
                    yield page
        finally:
            closed.append("the pages")

    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        with mock.patch.object(proving.Proving, "through", watched):
            reading = rig.market.iterate_candle(BUSY, start=NOON_MS - 3 * DAY_MS)
            await anext(reading)
            assert closed == []
            await reading.aclose()
            assert closed == ["the pages"]


async def test_a_long_reading_ends_with_what_has_settled(autojump_clock):
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        found = [part async for part in rig.market.iterate_candle(BUSY, start=NOON_MS)]
        assert brief(found[0]) == true_brief(rig, BUSY, NOON_MS, settled_ms(rig))
        assert {bar.state for bar in found[0]} == {CandleState.FINAL}
        assert [part async for part in rig.market.iterate_candle(BUSY, start=EPOCH_MS + DAY_MS)] == []


async def test_a_long_reading_of_what_is_stored_asks_nothing(small_steps: int, autojump_clock):
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        spans = [(NOON_MS - days * DAY_MS, NOON_MS - days * DAY_MS + 2 * HOUR_MS) for days in (9, 5, 1)]
        for start_ms, end_ms in spans:
            await rig.market.get_candle(BUSY, start=start_ms, end=end_ms)
        before = len(pages(rig))
        found = [
            bar
            async for part in rig.market.iterate_candle(BUSY, start=NOON_MS - 10 * DAY_MS, stored_only=True)
            for bar in part
        ]
        assert brief(found) >= [bar for span in spans for bar in true_brief(rig, BUSY, *span)]
        assert {bar.open_ms for bar in found} >= set(range(*spans[0], MINUTE_MS))
        assert len(pages(rig)) == before


# -- what is known ----------------------------------------------------------------------------------------------------


async def test_a_summary_is_a_look_at_every_slot(autojump_clock):
    """Slots are proven by what was asked, failed where it was not answered, and pending otherwise."""
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        assert rig.store is not None
        start_ms, end_ms = NOON_MS - 6_000 * MINUTE_MS, NOON_MS
        for ago, slots in ((4_000, 100), (1_500, 3), (1_000, 40)):
            low_ms = NOON_MS - ago * MINUTE_MS
            await rig.market.get_candle(THIN, start=low_ms, end=low_ms + slots * MINUTE_MS)
        rig.sim.add_fault(StatusFault(status=400, groups=("candles",)))
        batch = await rig.market.get_candle([THIN], start=NOON_MS - 150 * MINUTE_MS, end=NOON_MS - 30 * MINUTE_MS)
        assert THIN in batch.failed
        await trio.sleep(2)
        summary = await rig.market.collection_summary(THIN, start=start_ms, end=end_ms)
        covered = rig.store.coverage(THIN, M1, start_ms, end_ms)
        traded = {bar.open_ms for bar in truth(rig, THIN, start_ms, end_ms)}
        states = []
        for open_ms in range(start_ms, end_ms, MINUTE_MS):
            if open_ms in covered:
                state = CollectionState.COLLECTED if open_ms in traded else CollectionState.EMPTY
            elif NOON_MS - 150 * MINUTE_MS <= open_ms < NOON_MS - 30 * MINUTE_MS:
                state = CollectionState.FAILED
            else:
                state = CollectionState.PENDING
            states.append(state)
            assert summary.state_at(open_ms) is state
        assert set(states) == set(CollectionState)
        listed = [state for low, high, state in summary.spans() for _ in range(low, high, MINUTE_MS)]
        assert listed == states
        assert summary.slots == len(states) == 6_000
        assert summary.unknown == tuple(
            (max(low, start_ms), high) for low, high in _complement(covered, start_ms, end_ms)
        )


def _complement(covered: Any, start_ms: int, end_ms: int) -> Iterator[tuple[int, int]]:
    for _, high in covered:
        if high < end_ms:
            yield high, min([low for low, _ in covered if low > high], default=end_ms)


async def test_the_running_slot_is_pending(autojump_clock):
    async with open_rig(AT_ONCE, store=":memory:", **TIMELESS) as rig:
        await rig.market.get_candle(BUSY, start=NOON_MS)
        summary = await rig.market.collection_summary(BUSY, start=NOON_MS)
        assert (summary.collected, summary.pending, summary.failed) == (34, 1, 0)
        assert list(summary.spans())[-1] == (
            settled_ms(rig),
            settled_ms(rig) + MINUTE_MS,
            CollectionState.PENDING,
        )


# -- streams ----------------------------------------------------------------------------------------------------------


async def test_bars_that_are_streamed_are_stored_as_they_were(autojump_clock):
    """After their second reading; a question for them then asks for nothing."""
    async with open_rig(store=":memory:", streams=True, markets=20) as rig:
        assert rig.store is not None
        markets = [BUSY, "KRW-ETH", "BTC-ETH"]
        async with rig.market.stream_candle(markets) as candles:
            with trio.move_on_after(600):
                async for _ in candles:
                    pass
            start_ms = timeframes.ceil(M1, EPOCH_MS) + MINUTE_MS
            end_ms = settled_ms(rig) - 2 * MINUTE_MS
            for market in markets:
                stored = rig.store.bars(market, M1, start_ms, end_ms)
                assert brief(stored) == true_brief(rig, market, start_ms, end_ms)
                # Of a market without a trade nothing is read, so that it had none is not proven.
                covered = rig.store.coverage(market, M1, start_ms, end_ms)
                assert covered.covers(start_ms, end_ms) or market == "BTC-ETH"
            before = len(pages(rig))
            await rig.market.get_candle(BUSY, start=start_ms, end=end_ms)
            assert len(pages(rig)) == before
        check_store(rig)


@pytest.mark.parametrize(("kept", "read_only"), [(50, False), (3, False), (3, True)])
async def test_bars_that_are_streamed_and_stored_make_one_answer(
    kept: int, read_only: bool, tmp_path: Path, autojump_clock
):
    """Right after a minute has begun, before it has settled and after, and however few bars the stream vouches for."""
    config = Config(buffers=Buffers(candles=kept))
    async with (
        stored_at(tmp_path / "a.db", read_only=read_only) as store,
        open_rig(config, store=store, streams=True, markets=5) as rig,
    ):
        async with rig.market.stream_candle(BUSY):
            for turn in range(16):
                now_ms = rig.clock.now_ms()
                into_minute_s = [5.0, 0.8, 1.6, 3.2][turn % 4]
                await trio.sleep(((MINUTE_MS - now_ms % MINUTE_MS) / 1000 + into_minute_s) % 60)
                minute_ms = timeframes.floor(M1, rig.clock.now_ms())
                for asked in (
                    {"count": 60},
                    {"start": NOON_MS},
                    {"count": 60, "fill": "forward"},
                    {"start": NOON_MS, "end": minute_ms},
                    {"count": 30, "end": minute_ms},
                ):
                    bars = await rig.market.get_candle(BUSY, **asked)
                    opens = [bar.open_ms for bar in bars]
                    assert opens == [bar.open_ms for bar in truth(rig, BUSY, opens[0], opens[-1] + 1)]
                    assert len(bars) == asked.get("count", (opens[-1] - NOON_MS) // MINUTE_MS + 1)
                    # The first frame of a bar may be under way; what is asked of the exchange is there.
                    assert opens[-1] >= minute_ms - MINUTE_MS
                    assert opens[-1] < asked.get("end", minute_ms + 1)
                    closed = [bar for bar in bars if bar.state is CandleState.FINAL]
                    assert brief(closed) == true_brief(rig, BUSY, opens[0], closed[-1].close_ms)
                    if into_minute_s > 3:
                        assert closed[-1].close_ms == minute_ms
        check_store(rig)


async def test_a_bar_that_has_settled_is_final_though_nothing_came_after_it(autojump_clock):
    """The stream waits for longer, to be sure of it; a page does not have to."""
    async with open_rig(store=":memory:", streams=True, markets=40) as rig, rig.market.stream_candle("BTC-ETH"):
        await trio.sleep(10)
        for turn in range(40):
            now_ms = rig.clock.now_ms()
            into_minute_s = [3.01, 3.6, 4.4, 5.5][turn % 4]
            await trio.sleep(((MINUTE_MS - now_ms % MINUTE_MS) / 1000 + into_minute_s) % 60)
            minute_ms = timeframes.floor(M1, rig.clock.now_ms())
            bars = await rig.market.get_candle("BTC-ETH", start=NOON_MS)
            closed = [bar for bar in bars if bar.state is CandleState.FINAL]
            assert brief(closed) == true_brief(rig, "BTC-ETH", NOON_MS, minute_ms)
