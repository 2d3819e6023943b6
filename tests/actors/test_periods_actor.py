"""Bars of a day and more: made from tickers, equal to REST's, over midnight, for as long as somebody wants them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
import pytest
import rig
import trio
from paper_exchange import DAY_MS, CandleExchange, bar
from paper_streams import Rest, asking, ticker
from rig import open_rig

from marketpipe.actors.deduplicator import BarMessage, BarPage, Deduplicator, Doubt, Forget, LiveBars
from marketpipe.actors.hub import Hub
from marketpipe.actors.periods import Periods
from marketpipe.core import timeframes
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import ExchangeUnavailable, UnknownMarket
from marketpipe.models import Candle, CandleState, Gap, Source

D1, W1, MONTH, Y1 = Timeframe.D1, Timeframe.W1, Timeframe.MONTH, Timeframe.Y1


def of(timeframe: Timeframe, market: str = "KRW-BTC") -> Topic:
    return Topic(Line.CANDLE, market, timeframe)


# 30 s before a midnight that ends a week and a month: 2027-02-01 is a Monday.
MIDNIGHT_MS = int(datetime(2027, 2, 1, tzinfo=UTC).timestamp()) * 1000
BEGIN_MS = MIDNIGHT_MS - 30_000


def now_ms() -> int:
    return BEGIN_MS + round(trio.current_time() * 1000)


def shows(request: CandlesRequest) -> tuple[Candle, ...]:
    """REST: a bar in every slot, up to now."""
    running_ms = timeframes.floor(request.timeframe, now_ms())
    opens = [timeframes.shift(request.timeframe, running_ms, -ago) for ago in range(40, -1, -1)]
    return CandleExchange([bar(request.timeframe, open_ms, now_ms(), market=request.market) for open_ms in opens]).page(
        request
    )


@attrs.define(eq=False)
class Bench:
    periods: Periods
    hub: Hub
    rest: Rest
    sent: list[BarMessage]

    def told(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]

    def bars(self) -> list[Candle]:
        return [candle for message in self.told(LiveBars) for candle in message.candles]

    def asked(self) -> list[tuple[float, str, int, int | None]]:
        """When, which timeframe, how many and before when."""
        return [(round(at_s, 2), key.timeframe.value, key.count, key.to_ms) for at_s, key in self.rest.asked]


@asynccontextmanager
async def following(answer: Any = shows, **options: Any) -> AsyncIterator[Bench]:
    sent: list[BarMessage] = []
    rest, hub = Rest(answer, **options), Hub()
    async with asking(rest) as asker, trio.open_nursery() as nursery:
        periods = Periods(asker, hub, sent.append, now_ms)
        await nursery.start(periods.run)
        yield Bench(periods, hub, rest, sent)
        nursery.cancel_scope.cancel()


def shown(at_ms: int | None = None, market: str = "KRW-BTC", **changes: Any) -> Any:
    return ticker(market, now_ms() if at_ms is None else at_ms, **changes)


async def test_nothing_is_made_of_tickers_that_nobody_wants_such_bars_of(autojump_clock):
    async with following() as bench:
        bench.periods.take([shown()])
        bench.periods.want([of(Timeframe.M1), Topic(Line.TICKER, "KRW-BTC")])
        bench.periods.take([shown()])
        bench.periods.release([of(Timeframe.M1)])
        await trio.sleep(3600)
        assert (bench.sent, bench.rest.asked) == ([], [])


async def test_a_day_is_its_ticker(autojump_clock):
    async with following() as bench:
        bench.periods.want([of(D1)])
        bench.periods.take([shown(), shown(market="KRW-ETH")])
        (made,) = bench.bars()
        assert (made.market, made.timeframe, made.open_ms) == ("KRW-BTC", D1, MIDNIGHT_MS - DAY_MS)
        assert (made.state, made.source) == (CandleState.RUNNING, Source.STREAM)
        bench.periods.take([shown()])  # refreshed, and nothing new
        assert len(bench.bars()) == 1


async def test_no_ticker_makes_such_a_bar_final(autojump_clock):
    """None says that it is the day's last: all of it is in doubt until a page was read."""
    async with following() as bench:
        bench.periods.want([of(W1)])
        bench.periods.take([shown()])
        (doubt,) = bench.told(Doubt)
        assert (tuple(doubt.topics), doubt.start_ms) == ((of(W1),), 0)
        assert doubt.end_ms > MIDNIGHT_MS * 1000
        assert bench.sent[0] is doubt


async def test_a_longer_bar_waits_for_its_closed_days(autojump_clock):
    async with following() as bench:
        bench.periods.want([of(MONTH)])
        bench.periods.take([shown(volume=Decimal(5))])
        assert bench.bars() == []
        await trio.sleep(1)
        (made,) = bench.bars()
        days = [made for made in shows(CandlesRequest("KRW-BTC", D1, 31, None))[::-1] if made.open_ms < BEGIN_MS][:-1]
        assert len(days) == 30
        assert made.open_ms == timeframes.floor(MONTH, BEGIN_MS)
        assert made.volume == sum(day.volume for day in days) + 5
        assert made.open == days[0].open
        assert [row[1:3] for row in bench.asked()] == [("1M", 2), ("1d", 30)]


async def test_the_bar_itself_is_read_when_it_is_wanted_and_when_a_day_has_ended(autojump_clock):
    """With the one before it: only a page that was read after its end makes such a bar final."""
    async with following() as bench:
        bench.periods.want([of(D1)])
        await trio.sleep(29)
        assert [row[0] for row in bench.asked()] == [0.0]
        await trio.sleep(10)
        assert [row[0] for row in bench.asked()] == [0.0, 33.0]
        (_, after) = bench.told(BarPage)
        assert after.read_ms == MIDNIGHT_MS + 3_000
        assert [candle.open_ms for candle in after.candles] == [MIDNIGHT_MS - DAY_MS, MIDNIGHT_MS]
        await trio.sleep(2 * 86_400)
        assert [row[0] for row in bench.asked()] == [0.0, 33.0, 86_433.0, 172_833.0]


async def test_midnight_is_not_missed_by_a_machine_that_is_suspended_while_its_clock_stands_still(
    autojump_clock, monkeypatch
):
    async with following() as bench:
        bench.periods.want([of(D1)])
        await trio.sleep(40)
        began_ms = now_ms()
        monkeypatch.setattr(f"{__name__}.BEGIN_MS", BEGIN_MS + DAY_MS - 3_600_000)
        assert now_ms() == began_ms + DAY_MS - 3_600_000
        await trio.sleep(3_600 - 6)  # 33 s were over at the first midnight's reading
        assert len(bench.asked()) == 3
        assert bench.told(BarPage)[-1].read_ms == MIDNIGHT_MS + DAY_MS + 3_000


async def test_what_is_wanted_before_the_last_day_has_settled_is_read_again_when_it_has(autojump_clock):
    async with following() as bench:
        await trio.sleep(31)
        bench.periods.want([of(D1)])
        await trio.sleep(60)
        assert [row[0] for row in bench.asked()] == [31.0, 33.0]


async def test_the_day_that_has_just_closed_is_read_too(autojump_clock):
    """It belongs to the period from then on; of a period that has just begun there is nothing to read."""
    async with following() as bench:
        bench.periods.want([of(W1), of(Y1)])
        await trio.sleep(40)
        after_midnight = [row[1:] for row in bench.asked() if row[0] > 30]
        assert sorted(row[0] for row in after_midnight) == ["1d", "1w", "1y"]
        assert ("1d", 1, MIDNIGHT_MS) in after_midnight


async def test_two_who_want_the_same_are_served_once_and_the_last_one_ends_it(autojump_clock):
    async with following() as bench:
        for _ in range(2):
            bench.periods.want([of(D1)])
        await trio.sleep(1)
        assert len(bench.rest.asked) == 1
        bench.periods.release([of(D1)])
        bench.periods.take([shown()])
        assert len(bench.bars()) == 1
        bench.periods.release([of(D1)])
        assert bench.told(Forget) == [Forget((of(D1),))]
        bench.periods.take([shown(now_ms() + 1, price=Decimal(9))])
        assert len(bench.bars()) == 1
        await trio.sleep(86_400)
        assert len(bench.rest.asked) == 1
        bench.periods.release([of(D1)])  # harmless
        assert len(bench.told(Forget)) == 1
        bench.periods.want([of(D1)])
        await trio.sleep(1)
        assert len(bench.rest.asked) == 2


async def test_who_comes_back_begins_anew(autojump_clock):
    async with following() as bench:
        bench.periods.want([of(W1)])
        await trio.sleep(1)
        bench.periods.release([of(W1)])
        bench.periods.want([of(W1)])
        await trio.sleep(1)
        assert [row[1] for row in bench.asked()] == ["1w", "1d"] * 2


async def test_one_timeframe_of_a_market_may_go_and_the_other_stay(autojump_clock):
    async with following() as bench:
        bench.periods.want([of(D1), of(W1)])
        await trio.sleep(1)
        bench.periods.release([of(W1)])
        bench.periods.take([shown()])
        assert [made.timeframe for made in bench.bars()] == [D1]


async def test_who_leaves_at_once_leaves_nothing_behind(autojump_clock):
    """The last that is heard of it is that it is forgotten."""
    async with following() as bench:
        bench.periods.want([of(D1)])
        bench.periods.release([of(D1)])
        await trio.sleep(10)
        assert [type(message) for message in bench.sent] == [Doubt, Forget]
        assert bench.rest.asked == []


async def test_rest_that_fails_is_asked_again(autojump_clock):
    def down(request: Any) -> Any:
        raise ExchangeUnavailable("HTTP 503", status=503)

    async with following(down) as bench:
        bench.periods.want([of(D1)])
        await trio.sleep(3.5)
        assert [row[0] for row in bench.asked()] == [0.0, 1.02, 2.04, 3.06]
        bench.rest.answer = shows
        await trio.sleep(5)
        assert len(bench.told(BarPage)) == 1
        assert len(bench.rest.asked) == 5


async def test_who_leaves_while_rest_is_asked_is_not_told_of_it(autojump_clock):
    async with following(latency_s=2.0) as bench:
        bench.periods.want([of(D1)])
        await trio.sleep(1)
        bench.periods.release([of(D1)])
        await trio.sleep(10)
        assert bench.told(BarPage) == []


async def test_a_market_that_is_not_listed_any_more_is_told_to_those_who_listen(autojump_clock):
    def unknown(request: Any) -> Any:
        raise UnknownMarket(request.market)

    async with following(unknown) as bench:
        alone = bench.hub.attach((of(D1),), policy="cut-off", depth=10)
        both = bench.hub.attach((of(D1), of(D1, "KRW-ETH")), policy="cut-off", depth=10)
        bench.periods.want([of(D1)])
        await trio.sleep(86_400)
        assert len(bench.rest.asked) == 1
        with pytest.raises(UnknownMarket):
            alone.receive_nowait()
        assert isinstance(both.receive_nowait(), Gap)
        bench.periods.release([of(D1)])
        assert bench.told(Forget) == [Forget((of(D1),))]


async def test_a_hole_in_the_tickers_is_one_in_what_is_made_of_them(autojump_clock):
    gap = Gap("KRW-BTC", 1, 2, "closed 1006")
    async with following() as bench:
        listener = bench.hub.attach((of(D1), of(W1), of(D1, "KRW-ETH")), policy="cut-off", depth=10)
        bench.periods.gap(gap)
        bench.periods.want([of(D1), of(D1, "KRW-ETH")])
        bench.periods.gap(gap)
        assert listener.receive_nowait() == gap  # of the day alone: the week is not made
        with pytest.raises(trio.WouldBlock):
            listener.receive_nowait()


async def test_every_bar_that_is_made_of_the_tickers_has_their_hole_and_its_end(autojump_clock):
    opened = Gap("KRW-BTC", 1, 2, "closed 1006")
    closed = attrs.evolve(opened, end_ms=3, repaired=True, proof="the stream shows the newest state")
    async with following() as bench:
        topics = [of(timeframe) for timeframe in (D1, W1, MONTH, Y1)]
        listeners = [bench.hub.attach((topic,), policy="cut-off", depth=10) for topic in topics]
        bench.periods.want(topics)
        for gap in (opened, closed):
            bench.periods.gap(gap)
            assert [listener.receive_nowait() for listener in listeners] == [gap] * 4


async def test_a_market_that_is_gone_ends_every_bar_that_is_made_of_its_tickers(autojump_clock):
    """At the exchange's time; who also listens to another market has a gap that nothing will mend."""
    async with following() as bench:
        topics = [of(timeframe) for timeframe in (D1, W1, MONTH, Y1)]
        listeners = [bench.hub.attach((topic,), policy="cut-off", depth=10) for topic in topics]
        both = bench.hub.attach((of(D1), of(D1, "KRW-ETH")), policy="cut-off", depth=10)
        bench.periods.want(topics)
        await trio.sleep(5)
        bench.periods.gone("KRW-BTC", UnknownMarket("KRW-BTC"))
        for listener in listeners:
            with pytest.raises(UnknownMarket, match="KRW-BTC"):
                listener.receive_nowait()
        gap = both.receive_nowait()
        assert isinstance(gap, Gap)
        assert (gap.start_ms, gap.end_ms) == (now_ms(), now_ms())
        assert (gap.is_open, gap.repaired) == (False, False)


async def test_those_who_listen_are_told_when_their_market_is_found_gone(autojump_clock):
    async with following() as bench:
        day = bench.hub.attach((of(D1),), policy="cut-off", depth=10)
        other = bench.hub.attach((of(D1, "KRW-ETH"),), policy="cut-off", depth=10)
        bench.periods.want([of(D1), of(D1, "KRW-ETH")])
        bench.periods.gone("KRW-BTC", UnknownMarket("KRW-BTC"))
        bench.periods.gone("KRW-XRP", UnknownMarket("KRW-XRP"))
        with pytest.raises(UnknownMarket):
            day.receive_nowait()
        assert other.failed == {}


async def test_with_the_deduplicator_each_day_is_final_once_and_as_rest_shows_it(autojump_clock):
    published: list[Candle] = []
    inbox, messages = trio.open_memory_channel[BarMessage](1000)
    async with asking(Rest(shows)) as asker, trio.open_nursery() as nursery:
        await nursery.start(Deduplicator(messages, published.extend).run)
        periods = Periods(asker, Hub(), inbox.send_nowait, now_ms)
        await nursery.start(periods.run)
        periods.want([of(D1)])
        for second in range(60):
            # After midnight a market without a trade shows the day before.
            day_ms = MIDNIGHT_MS - 1_000 if second < 45 else now_ms()
            periods.take([shown(trade_ms=min(now_ms(), day_ms), volume=Decimal("0.1") * second)])
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    inbox.close()
    yesterday = [candle for candle in published if candle.open_ms == MIDNIGHT_MS - DAY_MS]
    assert [candle.state for candle in yesterday].count(CandleState.FINAL) == 1
    assert yesterday[-1].state is CandleState.FINAL
    assert yesterday[-1].volume == Decimal("1.5")
    assert published[-1].open_ms == MIDNIGHT_MS
    assert published[-1].state is CandleState.RUNNING


VALUES = ("open", "high", "low", "close", "volume", "quote_volume")


@pytest.mark.slow
@pytest.mark.parametrize("timeframe", [D1, W1, MONTH, Y1])
async def test_what_is_made_of_tickers_equals_what_rest_shows(autojump_clock, monkeypatch, timeframe):
    """Over a midnight that ends a day, a week and a month."""
    monkeypatch.setattr(rig, "EPOCH_MS", BEGIN_MS)
    async with open_rig(streams=True, markets=10) as pipe:
        told: dict[int, Candle] = {}
        finals: list[int] = []

        async def listen() -> None:
            async with pipe.market.stream_candle("KRW-BTC", timeframe.value, history=2) as bars:
                async for made in bars:
                    assert isinstance(made, Candle)
                    told[made.open_ms] = made
                    if made.state is CandleState.FINAL and made.revision == 0:
                        finals.append(made.open_ms)

        async def equal(open_ms: int) -> None:
            """Both are some tenths of a second behind the market, each for itself."""
            for _ in range(100):
                reply = await pipe.exchange.rest.fetch(CandlesRequest("KRW-BTC", timeframe, 3))
                rows = {row.open_ms: row for row in reply.rows}
                if open_ms in told and content(told[open_ms]) == content(rows[open_ms]):
                    return
                await trio.sleep(0.25)
            pytest.fail(f"{told.get(open_ms)} is not {rows[open_ms]}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await trio.sleep(10)
            before_ms = timeframes.floor(timeframe, BEGIN_MS)
            await equal(before_ms)
            await trio.sleep_until(45)
            await equal(before_ms)
            running_ms = timeframes.floor(timeframe, MIDNIGHT_MS)
            await equal(running_ms)
            assert told[before_ms].state is (CandleState.RUNNING if timeframe is Y1 else CandleState.FINAL)
            assert sorted(finals) == sorted(set(finals))
            nursery.cancel_scope.cancel()


def content(made: Candle) -> tuple[Any, ...]:
    return tuple(getattr(made, name) for name in VALUES)
