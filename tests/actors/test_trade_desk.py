"""The desk of trades: what is told at once, what waits, and how holes are mended from REST."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from paper_exchange import DAY_MS, Deal, TradeExchange
from paper_streams import EPOCH_MS, Rest, asking, now_ms, ticker, trade

from marketpipe.actors.hub import Hub, Subscription
from marketpipe.actors.trade_desk import TradeDesk
from marketpipe.core.requests import TradesRequest
from marketpipe.core.topics import Frame, Line, Topic
from marketpipe.errors import ExchangeUnavailable, UnknownMarket
from marketpipe.models import Gap, Priority, Source, Trade

BTC, ETH, XRP = "KRW-BTC", "KRW-ETH", "KRW-XRP"
TODAY_MS = EPOCH_MS - EPOCH_MS % DAY_MS
REPAIR_S = 300.0


def at(seconds: float) -> int:
    return EPOCH_MS + round(seconds * 1000)


def topics(*markets: str) -> list[Topic]:
    return [Topic(Line.TRADE, market) for market in markets]


@attrs.define(eq=False)
class Market:
    """The exchange's trades: REST shows all that were made, the stream those that the test lets through."""

    made: list[Trade] = attrs.field(factory=list)

    def make(self, sequential_id: int, at_s: float, market: str = BTC) -> Trade:
        """A trade, as the stream tells it."""
        made = trade(sequential_id, at(at_s), market)
        self.made.append(attrs.evolve(made, source=Source.REST))
        return made

    def answer(self, request: TradesRequest) -> tuple[Trade, ...]:
        rows = [Deal(made) for made in self.made if made.market == request.market and made.trade_ms <= now_ms()]
        return TradeExchange(rows, TODAY_MS).page(request)


@attrs.define(eq=False)
class Bench:
    desk: TradeDesk
    hub: Hub
    rest: Rest
    market: Market
    listener: Subscription[Any]
    nursery: trio.Nursery
    connection: trio.CancelScope | None = None

    def connect(self, *markets: str) -> None:
        """A new connection, subscribed to these."""
        self.connection = trio.CancelScope()
        self.nursery.start_soon(self._work, self.connection)
        self.desk.subscribing(topics(*markets), [], now_ms())

    async def _work(self, scope: trio.CancelScope) -> None:
        with scope:
            await self.desk.work()

    def lose(self, *markets: str, cause: str = "closed 1006") -> None:
        """The connection is gone; everything up to now is certain."""
        assert self.connection is not None
        self.desk.lost(topics(*markets), now_ms(), now_ms(), cause)
        self.connection.cancel()

    def take(self, *trades: Trade, snapshot: bool = False) -> None:
        self.desk.take([Frame(told, snapshot) for told in trades], trio.current_time())

    def heard(self) -> list[Any]:
        """What was told since the last time: trades by their id, gaps as they are."""
        events: list[Any] = []
        while True:
            try:
                event = self.listener.receive_nowait()
            except trio.WouldBlock:
                return events
            events.append(event.sequential_id if isinstance(event, Trade) else event)


@asynccontextmanager
async def at_work(snapshot_s: float = 5.0) -> AsyncIterator[Bench]:
    market = Market()
    rest, hub = Rest(market.answer), Hub()
    async with asking(rest) as asker, trio.open_nursery() as nursery:
        listener = hub.attach(topics(BTC, ETH, XRP), policy="drop-oldest", depth=1000)
        yield Bench(TradeDesk(asker, hub, snapshot_s, REPAIR_S), hub, rest, market, listener, nursery)
        nursery.cancel_scope.cancel()


async def begun(bench: Bench, *markets: str) -> None:
    """A connection that has shown its snapshots and a trade of each market, 10 s ago."""
    bench.connect(*markets)
    for market in markets:
        bench.take(bench.market.make(1, -60, market), snapshot=True)
        bench.take(bench.market.make(2, 0, market))
    await trio.sleep(10)
    bench.heard()


async def test_each_trade_is_told_once_in_the_order_it_came(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC, ETH)
        first, second, third = (bench.market.make(number, number) for number in (1, 2, 3))
        other = bench.market.make(9, 2, ETH)
        bench.take(first, snapshot=True)
        bench.take(second, other, second)
        bench.take(first, third)
        assert bench.heard() == [1, 2, 9, 3]
        await trio.sleep(60)
        assert bench.rest.asked == []
        assert bench.desk.tally.gaps == 0


async def test_what_was_shown_last_is_the_newest_trade(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        assert bench.desk.shown_ms(topics(BTC)[0]) is None
        bench.take(bench.market.make(2, 5), snapshot=True)
        bench.take(bench.market.make(1, 4))
        assert bench.desk.shown_ms(topics(BTC)[0]) == at(5)


async def test_a_hole_is_told_mended_and_closed_before_anything_later(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        assert bench.heard() == [Gap(BTC, at(10), at(10), "closed 1006")]
        missed = [bench.market.make(number, 10 + number) for number in (3, 4)]
        await trio.sleep(10)
        bench.connect(BTC)
        bench.take(missed[-1], snapshot=True)
        bench.take(bench.market.make(5, 20))
        assert bench.heard() == []  # held, or it would come before what is missing
        await trio.sleep(1)
        closed, *trades = bench.heard()
        assert (closed.start_ms, closed.cause, closed.repaired) == (at(10), "closed 1006", True)
        assert trades == [3, 4, 5]
        bench.take(bench.market.make(6, 21))
        assert bench.heard() == [6]
        tally = bench.desk.tally
        assert (tally.gaps, tally.repaired, tally.trades_repaired) == (1, 1, 1)


async def test_the_hole_is_known_while_it_is_open(autojump_clock):
    """For whoever joins meanwhile."""
    async with at_work() as bench:
        await begun(bench, BTC, ETH)
        topic = topics(BTC)[0]
        assert bench.desk.open_gap(topic) is None
        bench.lose(BTC, ETH)
        assert bench.desk.open_gap(topic) == bench.heard()[0]
        bench.connect(BTC, ETH)
        bench.take(trade(2, at(0)), snapshot=True)
        assert bench.desk.open_gap(topic) is None
        bench.desk.release(topics(ETH), now_ms())
        assert bench.desk.open_gap(topics(ETH)[0]) is None


async def test_a_snapshot_that_was_delivered_before_needs_no_question(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.heard()
        bench.connect(BTC)
        bench.take(trade(2, at(0)), snapshot=True)
        (closed,) = bench.heard()
        assert closed.repaired
        assert bench.rest.asked == []


async def test_a_trade_that_waited_for_a_repair_is_late_by_its_wait(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)

        def read(made: Trade, *, snapshot: bool = False) -> None:
            now_s = trio.current_time()
            bench.desk.take([Frame(made, snapshot)], now_s, now_s - 0.001)

        def measured() -> tuple[int, float, float]:
            told = bench.hub.streams(trio.current_time())[Line.TRADE]
            return told.values, told.p50_s, told.p99_s

        await trio.sleep(300)
        values, *_ = measured()
        bench.lose(BTC)
        bench.market.make(3, 311)  # which only REST tells
        await trio.sleep(5)
        bench.rest.latency_s = 2.0
        bench.connect(BTC)
        read(bench.market.make(4, 316), snapshot=True)
        read(bench.market.make(4, 316), snapshot=True)
        assert measured() == (values, 0.0, 0.0)  # it waits, and nobody has it
        await trio.sleep(10)
        assert bench.heard()[-2:] == [3, 4]
        told, p50_s, p99_s = measured()
        assert told == values + 2
        assert p50_s == p99_s == pytest.approx(2.5, rel=0.02)
        for number in range(5, 200):
            read(bench.market.make(number, 317))
        assert measured()[:2] == (values + 197, pytest.approx(0.001, rel=0.0101))
        assert not bench.desk._held_s


async def test_holes_of_many_markets_are_mended_side_by_side(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC, ETH, XRP)
        bench.lose(BTC, ETH, XRP)
        for market in (BTC, ETH, XRP):
            bench.market.make(3, 11, market)
        await trio.sleep(5)
        bench.rest.latency_s = 2.0
        bench.heard()
        bench.connect(BTC, ETH, XRP)
        for market in (BTC, ETH, XRP):
            bench.take(trade(3, at(11), market), snapshot=True)
        await trio.sleep(3)
        assert sum(isinstance(event, Gap) and event.repaired for event in bench.heard()) == 3
        assert len({at_s for at_s, _ in bench.rest.asked}) == 1


async def test_a_market_that_falls_into_need_later_is_mended_too(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC, ETH)
        bench.lose(BTC, ETH)
        await trio.sleep(5)
        bench.heard()
        bench.connect(BTC, ETH)
        for delay_s, market in ((0, BTC), (3, ETH)):
            await trio.sleep(delay_s)
            bench.take(bench.market.make(3, 15 + delay_s, market), snapshot=True)
        await trio.sleep(1)
        assert bench.desk.tally.repaired == 2


async def test_mending_ends_with_its_connection_and_begins_anew_with_the_next(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.market.make(3, 11)
        await trio.sleep(5)
        bench.rest.deaf = True
        bench.connect(BTC)
        bench.take(trade(3, at(11)), snapshot=True)
        await trio.sleep(5)
        bench.lose(BTC, cause="again")
        bench.rest.deaf = False
        asked = len(bench.rest.asked)
        await trio.sleep(5)
        assert len(bench.rest.asked) == asked == 1
        bench.connect(BTC)
        await trio.sleep(5)
        assert len(bench.rest.asked) == asked  # nothing was shown yet
        bench.take(trade(3, at(11)), snapshot=True)
        await trio.sleep(1)
        opened, closed, number = bench.heard()
        assert (opened.is_open, closed.start_ms, closed.cause, number) == (True, opened.start_ms, "closed 1006", 3)
        assert (bench.desk.tally.gaps, bench.desk.tally.repaired) == (1, 1)


async def test_what_was_ready_when_the_connection_was_lost_waits_for_the_next_snapshot(autojump_clock):
    """And a need that was there before the work began is not overlooked."""
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.desk.lost(topics(BTC), now_ms(), now_ms(), "unreadable")
        assert bench.connection is not None
        bench.connection.cancel()
        bench.desk.silent(topics(BTC))
        await trio.sleep(1)
        assert bench.rest.asked == []
        bench.connection = trio.CancelScope()
        bench.nursery.start_soon(bench._work, bench.connection)
        await trio.sleep(5)
        assert bench.desk.tally.repaired == 1


async def test_rest_that_fails_is_asked_again_ever_less_often(autojump_clock):
    def down(request: Any) -> Any:
        raise ExchangeUnavailable("HTTP 503", status=503)

    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.market.make(3, 11)
        await trio.sleep(5)
        bench.rest.answer = down
        bench.connect(BTC)
        bench.take(trade(3, at(11)), snapshot=True)
        await trio.sleep(40)
        times_s = bench.rest.times_s(TradesRequest)
        pauses = [round(later - earlier - 0.02, 3) for earlier, later in pairwise(times_s)]
        assert pauses == sorted(pauses)
        assert pauses[0] <= 1.0
        assert pauses[-1] == 10.0
        bench.rest.answer = bench.market.answer
        await trio.sleep(11)
        assert bench.heard()[-1] == 3
        assert bench.desk.tally.repaired == 1


async def test_a_market_that_is_not_listed_any_more_cannot_be_mended(autojump_clock):
    """It is said so, and what was held is let go."""

    def unknown(request: Any) -> Any:
        raise UnknownMarket(request.market)

    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.rest.answer = unknown
        bench.connect(BTC)
        bench.take(trade(3, at(11)), snapshot=True)
        await trio.sleep(5)
        opened, closed, earlier, number = bench.heard()
        assert (opened.is_open, closed.is_open, closed.repaired) == (True, False, False)
        assert "does not list it" in closed.proof
        # Before the first count nobody knows what the stream has left out.
        assert (earlier.start_ms, earlier.end_ms, earlier.repaired) == (at(0), opened.start_ms, False)
        assert number == 3
        assert len(bench.rest.asked) == 1
        assert (bench.desk.tally.gaps, bench.desk.tally.repaired, bench.desk.tally.trades_repaired) == (2, 0, 0)


# -- snapshots that are late or never come ----------------------------------------------------------------------


async def test_a_snapshot_may_be_late_while_trades_flow(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.heard()
        bench.connect(BTC)
        bench.take(bench.market.make(3, 10))
        await trio.sleep(4)
        assert bench.rest.asked == []
        bench.take(bench.market.make(4, 12), snapshot=True)
        await trio.sleep(1)
        assert bench.heard()[1:] == [3, 4]
        await trio.sleep(30)
        assert len(bench.rest.asked) == 1


async def test_a_snapshot_that_does_not_come_is_not_waited_for_for_ever(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        missed = bench.market.make(3, 10)
        bench.heard()
        bench.connect(BTC)
        bench.take(bench.market.make(4, 10.5))
        await trio.sleep(4.9)
        assert bench.rest.asked == []
        await trio.sleep(5)
        closed, *trades = bench.heard()
        assert closed.repaired
        assert trades == [missed.sequential_id, 4]


async def test_trades_that_flow_without_it_do_not_put_it_off(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.connect(BTC)
        for number in range(10):
            bench.take(bench.market.make(3 + number, 10 + number))
            await trio.sleep(1)
        assert bench.desk.tally.repaired == 1


async def test_a_snapshot_that_came_after_all_is_not_given_up_on(autojump_clock):
    """Nor is the next one, because the one before was late."""
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.desk.subscribing([], topics(BTC), now_ms())
        bench.take(bench.market.make(3, 10))
        await trio.sleep(1)
        bench.take(trade(3, at(10)), snapshot=True)
        await trio.sleep(1)
        asked = len(bench.rest.asked)
        await trio.sleep(2)
        bench.desk.subscribing([], topics(BTC), now_ms())
        await trio.sleep(4.5)
        bench.take(trade(3, at(10)), snapshot=True)
        await trio.sleep(10)
        assert len(bench.rest.asked) == asked


async def test_a_snapshot_that_the_last_connection_owed_is_not_the_next_ones(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.desk.subscribing([], topics(BTC), now_ms())
        bench.take(bench.market.make(3, 10))
        bench.lose(BTC)
        await trio.sleep(3)
        bench.connect(BTC)
        await trio.sleep(4)
        assert bench.rest.asked == []


async def test_a_market_is_mended_once_at_a_time(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.market.make(3, 11)
        await trio.sleep(5)
        bench.rest.latency_s = 5.0
        bench.connect(BTC)
        bench.take(trade(3, at(11)), snapshot=True)
        for number in range(6):
            bench.take(bench.market.make(4 + number, 15 + number))
            await trio.sleep(1)
        assert len(bench.rest.asked) == 1
        assert bench.desk.tally.repaired == 1


async def test_a_market_without_a_trade_to_show_is_whole(autojump_clock):
    """What comes next is its first."""
    async with at_work() as bench:
        bench.connect(BTC)
        bench.desk.silent(topics(BTC))
        bench.take(bench.market.make(1, 0))
        assert bench.heard() == [1]
        await trio.sleep(60)
        assert bench.rest.asked == []
        bench.lose(BTC)
        assert bench.heard()[0].is_open


async def test_a_hole_of_a_market_that_shows_no_snapshot_is_mended_from_rest_alone(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.market.make(3, 11)
        bench.connect(BTC)
        await trio.sleep(5)
        bench.desk.silent(topics(BTC))
        await trio.sleep(5)
        opened, closed, number = bench.heard()
        assert (opened.is_open, closed.repaired, number) == (True, True, 3)


async def test_a_frame_that_cannot_be_read_is_mended_at_once(autojump_clock):
    """The connection goes on, so no snapshot will come."""
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.market.make(3, 10)
        bench.desk.spoiled(topics(BTC)[0], now_ms(), now_ms(), "unreadable frame")
        await trio.sleep(0.1)
        bench.take(bench.market.make(4, 10.1))
        await trio.sleep(3)
        opened, closed, *trades = bench.heard()
        assert (opened.cause, closed.repaired, trades) == ("unreadable frame", True, [3, 4])


# -- subscriptions that are replaced ----------------------------------------------------------------------------


async def test_a_trade_that_fell_between_two_subscriptions_is_found(autojump_clock):
    """Nobody was told of a hole, so it is told once, closed."""
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.desk.subscribing(topics(ETH), topics(BTC), now_ms())
        bench.market.make(3, 10.01)
        bench.take(bench.market.make(4, 10.02), snapshot=True)
        await trio.sleep(5)
        told = bench.heard()
        assert [event for event in told if not isinstance(event, Gap)] == [4, 3]
        (gap,) = [event for event in told if isinstance(event, Gap)]
        assert gap.repaired
        assert (bench.desk.tally.gaps, bench.desk.tally.repaired, bench.desk.tally.trades_repaired) == (1, 1, 1)


async def test_a_replaced_subscription_that_lost_nothing_is_not_told(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.desk.subscribing(topics(ETH), topics(BTC), now_ms())
        bench.take(trade(2, at(0)), snapshot=True)
        bench.take(bench.market.make(3, 11))
        await trio.sleep(5)
        assert bench.heard() == [3]
        assert bench.desk.tally.gaps == 0


# -- released ---------------------------------------------------------------------------------------------------


async def test_what_nobody_wants_any_more_is_forgotten(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC, ETH)
        bench.lose(BTC, ETH)
        bench.heard()
        bench.connect(BTC)
        bench.desk.release(topics(ETH), now_ms())
        assert bench.desk.shown_ms(topics(ETH)[0]) is None
        assert bench.desk.newest(ETH, 1) is None
        bench.desk.subscribing(topics(ETH), topics(BTC), now_ms())
        bench.take(bench.market.make(9, 10, ETH), snapshot=True)
        await trio.sleep(5)
        assert bench.heard() == [9]  # a new story: no hole of the old one is closed in it


async def test_mending_of_a_market_that_was_released_is_told_to_nobody(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.market.make(3, 11)
        await trio.sleep(5)
        bench.heard()
        bench.connect(BTC)
        bench.rest.latency_s = 2.0
        bench.take(trade(3, at(11)), snapshot=True)
        await trio.sleep(1)
        assert bench.rest.asked
        bench.desk.release(topics(BTC), now_ms())
        await trio.sleep(5)
        assert bench.heard() == []


async def test_a_market_that_comes_back_is_mended_though_its_former_mending_is_not_over(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.market.make(3, 11)
        await trio.sleep(5)
        bench.heard()
        bench.connect(BTC)
        bench.rest.latency_s = 4.0
        bench.take(trade(3, at(11)), snapshot=True)
        await trio.sleep(1)
        bench.desk.release(topics(BTC), now_ms())
        bench.desk.subscribing(topics(BTC), [], now_ms())
        bench.take(bench.market.make(4, 16), snapshot=True)
        assert bench.heard() == [4]
        bench.desk.spoiled(topics(BTC)[0], now_ms(), now_ms(), "unreadable frame")
        bench.rest.latency_s = 0.1
        await trio.sleep(8)
        opened, closed = bench.heard()
        assert (opened.is_open, closed.repaired) == (True, True)


async def test_a_hole_that_was_left_open_is_not_counted_with_the_next_subscription(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.desk.release(topics(BTC), now_ms())
        bench.connect(BTC)
        bench.take(bench.market.make(5, 10), snapshot=True)
        await trio.sleep(10)
        bench.desk.subscribing([], topics(BTC), now_ms())
        bench.market.make(6, 20.01)
        bench.take(bench.market.make(7, 20.02), snapshot=True)
        await trio.sleep(5)
        assert (bench.desk.tally.gaps, bench.desk.tally.repaired) == (2, 1)


async def test_a_late_snapshot_of_a_released_market_is_nobodys_business(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.desk.subscribing([], topics(BTC), now_ms())
        bench.take(bench.market.make(3, 10))
        bench.desk.release(topics(BTC), now_ms())
        await trio.sleep(30)
        assert bench.heard() == [3]


# -- memory -----------------------------------------------------------------------------------------------------


async def test_the_newest_trades_are_known_while_the_stream_is_whole(autojump_clock):
    async with at_work() as bench:
        assert bench.desk.newest(BTC, 1) is None
        await begun(bench, BTC)
        assert bench.desk.newest(BTC, 1) == (trade(2, at(0)),)
        assert bench.desk.newest(BTC, 5) is None
        bench.lose(BTC)
        assert bench.desk.newest(BTC, 1) is None


async def test_trades_do_not_age_and_wait_for_nothing(autojump_clock):
    async with at_work() as bench:
        await begun(bench, BTC)
        bench.desk.suspend(topics(BTC), now_ms())
        bench.desk.resume(topics(BTC))
        bench.desk.proven(now_ms())
        assert bench.heard() == []
        assert bench.desk.newest(BTC, 1) is not None


@pytest.mark.parametrize("count", [1, 3])
async def test_trades_of_other_markets_keep_their_place_beside_what_a_mending_tells(autojump_clock, count):
    async with at_work() as bench:
        await begun(bench, BTC, ETH)
        bench.desk.lost(topics(BTC), now_ms(), now_ms(), "unreadable")
        before = [bench.market.make(10 + number, 10, ETH) for number in range(count)]
        after = [bench.market.make(20 + number, 10, ETH) for number in range(count)]
        bench.heard()
        bench.desk.subscribing([], topics(BTC), now_ms())
        bench.desk.take(
            [
                *(Frame(told, False) for told in before),
                Frame(trade(2, at(0)), True),
                *(Frame(told, False) for told in after),
            ],
            trio.current_time(),
        )
        told = bench.heard()
        assert [event for event in told if not isinstance(event, Gap)] == [
            told.sequential_id for told in (*before, *after)
        ]
        assert isinstance(told[count], Gap)


# -- what is lost without a trace ------------------------------------------------------------------------------


def count(bench: Bench, *markets: str) -> None:
    """The exchange's tickers, as they are now."""
    tickers = {}
    for market in markets:
        made = [row for row in bench.market.made if row.market == market and row.trade_ms <= now_ms()]
        volume = sum((row.volume for row in made), Decimal(0))
        last_ms = max(row.trade_ms for row in made)
        tickers[Topic(Line.TRADE, market)] = ticker(market, now_ms(), trade_ms=last_ms, volume=volume)
    bench.desk.audited(tickers, now_ms())


async def counted(bench: Bench, *markets: str) -> None:
    """A connection whose trades of these have been counted once, with what that looks through."""
    await begun(bench, *markets)
    count(bench, *markets)
    await trio.sleep(10)
    assert bench.heard() == []
    bench.rest.asked.clear()


async def test_trades_that_add_up_are_not_asked_for(autojump_clock):
    async with at_work() as bench:
        await counted(bench, BTC, ETH)
        for number in range(3, 9):
            bench.take(bench.market.make(number, 10.0 * number))
            count(bench, BTC, ETH)
            await trio.sleep(10)
        assert bench.rest.asked == []


async def test_a_trade_that_the_stream_swallowed_is_found_by_counting(autojump_clock):
    """Nobody was told of a loss, because nobody knew of any: the hole is told closed, and what was missing follows."""
    async with at_work() as bench:
        await counted(bench, BTC, ETH)
        bench.market.make(3, 21)
        await trio.sleep(2)
        bench.take(bench.market.make(4, 22))
        bench.take(bench.market.make(4, 22, ETH))
        assert bench.heard() == [4, 4]
        count(bench, BTC, ETH)
        await trio.sleep(5)
        closed, *found = bench.heard()
        assert isinstance(closed, Gap)
        assert closed.repaired
        assert closed.cause == "trades were made that the stream did not tell"
        assert closed.start_ms <= at(21) <= closed.end_ms
        assert found == [3]
        assert {key.market for _, key in bench.rest.asked} == {BTC}
        assert (bench.desk.tally.gaps, bench.desk.tally.repaired, bench.desk.tally.trades_repaired) == (1, 1, 1)


async def test_a_trade_that_is_still_on_its_way_is_no_loss(autojump_clock):
    async with at_work() as bench:
        await counted(bench, BTC)
        made = bench.market.make(3, 19)
        count(bench, BTC)
        await trio.sleep(1.5)
        bench.take(made)
        await trio.sleep(10)
        assert bench.rest.asked == []


async def test_nobody_waits_for_a_check(autojump_clock):
    """Whatever else is asked goes first; a hole, for which consumers wait, is asked for as others are."""
    async with at_work() as bench:
        await counted(bench, BTC)
        bench.market.make(3, 20)
        count(bench, BTC)
        await trio.sleep(5)
        assert set(bench.rest.priorities) == {Priority.LOW}
        bench.rest.priorities.clear()
        bench.lose(BTC)
        bench.market.make(4, 26)
        await trio.sleep(2)
        bench.connect(BTC)
        bench.take(trade(4, at(26)), snapshot=True)
        await trio.sleep(5)
        assert set(bench.rest.priorities) == {Priority.NORMAL}


async def test_who_was_released_is_not_counted(autojump_clock):
    async with at_work() as bench:
        await counted(bench, BTC)
        bench.market.make(3, 20)
        count(bench, BTC)
        bench.desk.release(topics(BTC), now_ms())
        await trio.sleep(10)
        assert bench.rest.asked == []


async def test_live_trades_do_not_wait_for_a_hole_for_ever(autojump_clock):
    """While REST is out of order nobody knows what was missed; what is live is worth more than that."""

    def down(request: Any) -> Any:
        raise ExchangeUnavailable("HTTP 503", status=503)

    async with at_work() as bench:
        await begun(bench, BTC)
        bench.lose(BTC)
        bench.market.make(3, 11)
        bench.rest.answer = down
        bench.connect(BTC)
        bench.take(trade(3, at(11)), snapshot=True)
        await trio.sleep(REPAIR_S - 20)
        bench.take(trade(4, now_ms()))
        assert [type(event) for event in bench.heard()] == [Gap]
        await trio.sleep(35)
        closed, earlier, *rest = bench.heard()
        assert not closed.repaired
        assert not earlier.repaired
        assert closed.proof == "REST did not tell for 300 s: HTTP 503"
        assert rest == [3, 4]
        bench.take(trade(5, now_ms()))
        assert bench.heard() == [5]
