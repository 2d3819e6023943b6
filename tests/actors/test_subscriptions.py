"""The subscription manager: who wants what, which connections carry it, and what those who join find."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from keeper_rig import BTC, ETH, budgets_of, snapshots, value
from paper_exchange import CandleExchange, bar
from paper_streams import EPOCH_MS, PaperSession, PaperStream, Rest, asking, now_ms, old_news, ticker, trade
from rig import open_rig

from marketpipe.actors.cache import Cache
from marketpipe.actors.deduplicator import BarMessage, BarPage, Deduplicator
from marketpipe.actors.hub import Hub, Subscription
from marketpipe.actors.messages import Answered
from marketpipe.actors.subscriptions import Subscriptions
from marketpipe.clock import TrioClock
from marketpipe.config import CacheOptions
from marketpipe.config import Subscriptions as Options
from marketpipe.core import timeframes
from marketpipe.core.requests import CandlesRequest, TradesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import BadPayload, ExchangeUnavailable, PipelineClosed, RateLimited, UnknownMarket
from marketpipe.models import CandleState, Gap, Source
from marketpipe.sim import WsDownFault
from marketpipe.status import QueueStatus, SubscriptionState

TRADES, TICKERS, BOOKS = (Topic(line, BTC) for line in (Line.TRADE, Line.TICKER, Line.ORDERBOOK))
MINUTES, DAYS = (Topic(Line.CANDLE, BTC, timeframe) for timeframe in (Timeframe.M1, Timeframe.D1))


def shows(key: Any) -> Any:
    """REST: a bar in every slot, and every market as it was an hour ago."""
    if not isinstance(key, CandlesRequest):
        return old_news(key)
    running_ms = timeframes.floor(key.timeframe, now_ms())
    opens = [timeframes.shift(key.timeframe, running_ms, -ago) for ago in range(10, -1, -1)]
    return CandleExchange([bar(key.timeframe, open_ms, now_ms(), market=key.market) for open_ms in opens]).page(key)


@attrs.define(eq=False)
class Bench:
    subscriptions: Subscriptions
    stream: PaperStream
    rest: Rest
    cache: Cache
    hub: Hub
    inbox: trio.MemorySendChannel[BarMessage]

    def listen(self, *topics: Topic, **options: Any) -> Any:
        return self.subscriptions.listen(topics, **{"policy": "drop-oldest", "depth": 100, **options})

    def sessions(self) -> Iterator[tuple[str, PaperSession]]:
        for session in self.stream.sessions:
            yield ",".join(sorted({topic.line.value for topic in session.topics})), session

    def open(self) -> list[str]:
        return sorted(line for line, session in self.sessions() if session.closed_s is None)

    def session(self, line: Line) -> PaperSession:
        return next(session for name, session in self.sessions() if name == line.value and session.closed_s is None)

    def state(self, topic: Topic) -> str:
        return self.subscriptions.subscriptions()[topic].state.value


def heard(subscription: Subscription[Any]) -> list[Any]:
    events = []
    while True:
        try:
            events.append(subscription.receive_nowait())
        except trio.WouldBlock:
            return events


@asynccontextmanager
async def managing(
    answer: Callable[[Any], Any] = shows,
    *,
    stream: PaperStream | None = None,
    rest_ms: Callable[[], int | None] = lambda: None,
    epoch_ms: int = EPOCH_MS,
    **options: Any,
) -> AsyncIterator[Bench]:
    stream, hub, traded = stream or PaperStream(snapshots), Hub(), []
    greet = stream.greet

    def greeting(session: PaperSession, new: Collection[Topic]) -> None:
        traded.extend(trade(now_ms(), now_ms(), topic.market, Source.REST) for topic in new)  # as `snapshots` shows it
        greet(session, new)

    stream.greet = greeting
    rest = Rest(lambda key: tuple(reversed(traded)) if isinstance(key, TradesRequest) else answer(key))
    answered, answers = trio.open_memory_channel[Answered](0)
    cache = Cache(answers, CacheOptions())
    inbox, messages = trio.open_memory_channel[BarMessage](10_000)
    timed = partial(hub.timed, Line.CANDLE)
    deduplicator = Deduplicator(messages, lambda told: hub.publish(Line.CANDLE, told), mend=hub.tell, timed=timed)
    with answered, answers, inbox:
        async with asking(rest) as asker, trio.open_nursery() as nursery:
            subscriptions = Subscriptions(
                stream,
                asker,
                cache,
                hub,
                inbox,
                deduplicator.view,
                TrioClock(epoch_ms),
                Options(**options),
                budgets_of(),
                lambda: 0.5,
                rest_ms,
            )
            await nursery.start(deduplicator.run)
            await nursery.start(subscriptions.run)
            yield Bench(subscriptions, stream, rest, cache, hub, inbox)
            nursery.cancel_scope.cancel()


# -- what it says of itself ---------------------------------------------------------------------------------------


async def test_how_long_values_take_from_the_socket_to_the_buffers_is_known_of_every_line(autojump_clock):
    async with managing(stream=PaperStream(snapshots, late_s=0.25)) as bench, AsyncExitStack() as listening:
        for topic in (TRADES, TICKERS, BOOKS, MINUTES):
            await listening.enter_async_context(bench.listen(topic))
        await trio.sleep(1)
        for topic in (TRADES, TICKERS, BOOKS, MINUTES):
            line = topic.line
            values_before = bench.hub.streams(trio.current_time())[line].values
            bench.session(line).show(value(line, topic.market, now_ms() + 1))
            await trio.testing.wait_all_tasks_blocked()
            told = bench.hub.streams(trio.current_time())[line]
            assert told.values == values_before + 1
            assert told.p50_s == told.p99_s == pytest.approx(0.25, rel=0.0101)


async def test_frames_that_wait_to_be_decoded_and_bars_are_queues_with_peaks(autojump_clock):
    async with managing() as bench, bench.listen(MINUTES), bench.listen(TRADES):
        await trio.sleep(1)
        session = bench.session(Line.TRADE)
        for number in range(3):
            session.show(value(Line.TRADE, BTC, now_ms() + number))
        assert bench.subscriptions.queues()["frames trade"] == QueueStatus(3, 3)
        before = bench.subscriptions.queues()["bars"]
        for _ in range(before.peak + 3):
            bench.subscriptions.page_read(MINUTES, (), now_ms())
        # The first goes to the deduplicator at once, which waits for it.
        assert bench.subscriptions.queues()["bars"] == QueueStatus(before.peak + 2, before.peak + 2)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.subscriptions.queues()["bars"] == QueueStatus(0, before.peak + 2)
        session.end(ExchangeUnavailable("closed"))
        await trio.sleep(5)
        assert bench.session(Line.TRADE) is not session
        assert bench.subscriptions.queues()["frames trade"] == QueueStatus(0, 3)


# -- connections ------------------------------------------------------------------------------------------------


async def test_each_stream_type_has_a_connection_of_its_own(autojump_clock):
    """So that whoever changes one disturbs no other."""
    async with managing() as bench:
        async with bench.listen(TRADES), bench.listen(TICKERS), bench.listen(BOOKS), bench.listen(MINUTES):
            await trio.sleep(1)
            assert bench.open() == ["candle", "orderbook", "ticker", "trade"]
            async with bench.listen(Topic(Line.TRADE, ETH)):
                await trio.sleep(1)
                said = {line: len(session.subscribed) for line, session in bench.sessions()}
                assert said == {"candle": 1, "orderbook": 1, "ticker": 1, "trade": 2}
        await trio.sleep(1)
        assert bench.open() == []
        assert {status.losses for status in bench.subscriptions.connections().values()} == {0}


async def test_two_who_listen_share_one_subscription_until_both_have_left(autojump_clock):
    async with managing() as bench:
        async with bench.listen(TRADES):
            await trio.sleep(1)
            async with bench.listen(TRADES):
                await trio.sleep(1)
                assert bench.subscriptions.subscriptions()[TRADES].leases == 2
            await trio.sleep(5)
            assert bench.subscriptions.subscriptions()[TRADES].leases == 1
            assert len(bench.session(Line.TRADE).subscribed) == 1
        await trio.sleep(1)
        assert bench.state(TRADES) == "released"
        assert bench.open() == []


async def test_whoever_is_cancelled_or_fails_gives_back_what_it_held(autojump_clock):
    async with managing() as bench:
        with trio.move_on_after(1):
            async with bench.listen(TRADES, history=0):
                await trio.sleep_forever()
        with pytest.raises(KeyError):
            async with bench.listen(MINUTES, history=5):
                await trio.sleep(0.1)
                raise KeyError("mine")
        await trio.sleep(20)
        assert bench.rest.times_s(CandlesRequest) == []
        assert bench.open() == []
        assert bench.hub.statistics().subscribers == 0


async def test_whoever_comes_after_the_end_is_told_so_and_holds_nothing(autojump_clock):
    async with managing() as bench:
        bench.hub.close()
        for topic, history in ((TRADES, 0), (DAYS, 0), (DAYS, 5)):
            with pytest.raises(PipelineClosed):
                async with bench.listen(topic, history=history):
                    pytest.fail("listening to what has ended")
        await trio.sleep(5)
        assert bench.stream.attempts_s == []
        assert bench.rest.asked == []


# -- what those who join find -----------------------------------------------------------------------------------


async def test_whoever_joins_a_stream_that_flows_has_a_value_at_once(autojump_clock):
    kinds = {TRADES: "Trade", TICKERS: "Ticker", BOOKS: "Orderbook", MINUTES: "Candle"}
    async with managing() as bench, AsyncExitStack() as others:
        for topic in kinds:
            await others.enter_async_context(bench.listen(topic))
        await trio.sleep(1)
        bench.session(Line.TRADE).show(trade(7, EPOCH_MS + 60_000))  # well after the snapshot, so certain
        await trio.sleep(0.1)
        for topic, kind in kinds.items():
            async with bench.listen(topic) as joined:
                assert [type(value).__name__ for value in heard(joined)] == [kind]


async def test_whoever_comes_first_of_all_begins_with_the_snapshot(autojump_clock):
    async with managing() as bench:
        for topic in (TRADES, TICKERS, BOOKS, MINUTES):
            async with bench.listen(topic) as first:
                assert heard(first) == []
                await trio.sleep(1)
                assert len(heard(first)) == 1


async def test_with_a_history_the_newest_bar_is_part_of_it(autojump_clock):
    async with managing() as bench, bench.listen(MINUTES):
        await trio.sleep(1)
        async with bench.listen(MINUTES, history=3) as joined:
            assert heard(joined) == []
            await trio.sleep(1)
            opens = [candle.open_ms for candle in heard(joined)]
            assert opens == [timeframes.floor(Timeframe.M1, EPOCH_MS) - ago * 60_000 for ago in (2, 1, 0)]


@pytest.mark.parametrize("topic", [TRADES, TICKERS, BOOKS, MINUTES, DAYS])
async def test_whoever_joins_a_stream_that_is_being_checked_begins_with_what_the_others_have(autojump_clock, topic):
    """On a quiet market nothing may come for hours; if the check finds a hole, it is told to all of them."""
    async with managing() as bench, bench.listen(topic):
        await trio.sleep(1)
        bench.rest.latency_s = 1.0
        carrier = TICKERS if topic is DAYS else topic
        while bench.state(carrier) != "stale":
            await trio.sleep(0.1)
            assert trio.current_time() < 5
        async with bench.listen(topic) as joined:
            assert [event.market for event in heard(joined)] == [BTC]
        bench.rest.latency_s = 0.02
        while bench.state(carrier) != "active":
            await trio.sleep(0.1)
            assert trio.current_time() < 8
        async with bench.listen(topic) as joined:
            assert [event.market for event in heard(joined)] == [BTC]


@pytest.mark.parametrize("topic", [TRADES, TICKERS, BOOKS, MINUTES, DAYS])
async def test_whoever_joins_a_stream_that_is_down_is_told_of_the_hole(autojump_clock, topic):
    """As those who listened already were, and of its end."""
    async with managing() as bench, bench.listen(topic) as earlier:
        await trio.sleep(5)
        line = Line.TICKER if topic is DAYS else topic.line
        bench.stream.refusals.append(RateLimited("429", retry_after_s=20.0))
        bench.session(line).end(ExchangeUnavailable("closed 1006"))
        await trio.sleep(1)
        (opened,) = [event for event in heard(earlier) if isinstance(event, Gap)]
        async with bench.listen(topic) as joined:
            assert heard(joined) == [opened]
            await trio.sleep(30)
            (closed,) = [event for event in heard(joined) if isinstance(event, Gap)]
            assert (closed.start_ms, closed.repaired) == (opened.start_ms, True)


@pytest.mark.parametrize("topic", [TRADES, TICKERS, BOOKS, MINUTES, DAYS])
async def test_whoever_joins_when_a_hole_is_mended_hears_nothing_of_it(autojump_clock, topic):
    async with managing() as bench, bench.listen(topic) as earlier:
        await trio.sleep(5)
        bench.session(Line.TICKER if topic is DAYS else topic.line).end(ExchangeUnavailable("closed 1006"))
        await trio.sleep(30)
        assert [event.is_open for event in heard(earlier) if isinstance(event, Gap)] == [True, False]
        async with bench.listen(topic) as joined:
            await trio.sleep(1)
            begins_with = heard(joined)
            assert len(begins_with) == 1
            assert not isinstance(begins_with[0], Gap)


@pytest.mark.parametrize("topic", [TRADES, TICKERS, BOOKS, MINUTES, DAYS])
async def test_a_stream_that_does_not_begin_is_told_as_a_hole_until_it_does(autojump_clock, topic):
    """Nothing was shown, so nothing is lost; but whoever waits must not wait without knowing."""
    async with managing(handshake_s=3.0, snapshot_s=4.0) as bench:
        bench.stream.refusals.extend(ExchangeUnavailable("503", status=503) for _ in range(7))
        async with bench.listen(topic) as listener:
            await trio.sleep(6.5)
            assert [event for event in heard(listener) if isinstance(event, Gap)] == []
            await trio.sleep(2)
            (opened,) = [event for event in heard(listener) if isinstance(event, Gap)]
            assert opened.is_open
            assert "stream has not begun" in opened.cause
            assert opened.start_ms <= EPOCH_MS + 1_500
            await trio.sleep(40)
            (closed,) = [event for event in heard(listener) if isinstance(event, Gap)]
            assert (closed.start_ms, closed.repaired) == (opened.start_ms, True)
            assert "promises nothing about the time before" in closed.proof
            await trio.sleep(60)
            assert [event for event in heard(listener) if isinstance(event, Gap)] == []


@pytest.mark.parametrize("topic", [TRADES, TICKERS, BOOKS, MINUTES, DAYS])
async def test_that_a_stream_has_begun_is_told_at_once_and_before_anything_that_it_shows(autojump_clock, topic):
    """4.2 s to connect, as long for the first frame: told as a hole by then, and looked at once a second."""
    stream = PaperStream(snapshots, latency_s=4.2)
    async with (
        managing(stream=stream, handshake_s=1.0, snapshot_s=4.5, silence_s=10.0) as bench,
        bench.listen(topic) as listener,
    ):
        await trio.sleep(8.3)
        before = heard(listener)
        assert isinstance(before[-1], Gap)
        assert before[-1].is_open
        assert (before[-1].start_ms, before[-1].end_ms) == (EPOCH_MS + 1_000, EPOCH_MS + 7_000)
        await trio.sleep(0.2)
        closed, *shown = heard(listener)
        assert isinstance(closed, Gap)
        assert (closed.start_ms, closed.end_ms, closed.repaired) == (before[-1].start_ms, EPOCH_MS + 8_400, True)
        assert [value.source for value in shown] == [Source.STREAM]


async def test_what_has_not_begun_is_no_hole_in_what_another_line_carries(autojump_clock):
    """The trades of a market may be kept back while its tickers come, and the bars that are made of them."""

    def greet(session: PaperSession, new: Collection[Topic]) -> None:
        snapshots(session, [topic for topic in new if topic.line is not Line.TRADE])

    async with managing(stream=PaperStream(greet)) as bench, AsyncExitStack() as stack:
        listeners = {
            topic: await stack.enter_async_context(bench.listen(topic))
            for topic in (TRADES, TICKERS, BOOKS, MINUTES, DAYS)
        }
        await trio.sleep(15)
        causes = {
            topic: [event.cause for event in heard(listener) if isinstance(event, Gap)]
            for topic, listener in listeners.items()
        }
        assert causes.pop(TRADES) == ["the trade stream has not begun"]
        assert causes == {topic: [] for topic in (TICKERS, BOOKS, MINUTES, DAYS)}


async def test_whoever_leaves_a_stream_that_has_not_begun_leaves_no_hole_behind(autojump_clock):
    async with managing(stream=PaperStream(snapshots, latency_s=40.0)) as bench:
        async with bench.listen(TRADES) as first:
            await trio.sleep(12)
            assert heard(first)[0].is_open
        await trio.sleep(10)
        async with bench.listen(TRADES) as second:
            await trio.sleep(8)
            assert heard(second) == []
            await trio.sleep(4)
            assert [gap.is_open for gap in heard(second)] == [True]


async def test_nobody_is_told_of_a_stream_that_began_in_time_or_that_they_have_left(autojump_clock):
    async with managing(stream=PaperStream(snapshots, latency_s=15.0)) as bench:
        async with bench.listen(TRADES):
            await trio.sleep(9)
        await trio.sleep(2)
        async with bench.listen(TRADES) as listener:  # another subscription: it has all its time
            await trio.sleep(9)
            assert heard(listener) == []


# -- bars of a day and more -------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_bars_of_a_day_are_carried_by_the_tickers(autojump_clock):
    async with managing() as bench:
        async with bench.listen(DAYS, history=2) as days:
            await trio.sleep(2)
            assert bench.open() == ["ticker"]
            assert [candle.timeframe for candle in heard(days)] == [Timeframe.D1] * 2
            bench.session(Line.TICKER).show(ticker(BTC, EPOCH_MS + 5_000, volume=trade(1).volume * 1000))
            await trio.sleep(0.1)
            (running,) = heard(days)
            assert (running.source, int(running.volume)) == (Source.STREAM, 1000)
            assert bench.subscriptions.subscriptions()[TICKERS].leases == 1
        await trio.sleep(1)
        assert bench.open() == []
        asked = len(bench.rest.asked)
        await trio.sleep(86_400)
        assert len(bench.rest.asked) == asked


async def test_listening_may_begin_in_the_very_step_in_which_everything_stands(autojump_clock):
    for _ in range(20):
        async with managing() as bench, bench.listen(DAYS, history=1):
            await trio.lowlevel.checkpoint()


@pytest.mark.slow
async def test_leaving_the_whole_pipe_while_days_are_listened_to_is_no_error(autojump_clock):
    """The deduplicator may be gone before the listener is, in whatever order they are told."""
    for _ in range(20):
        with trio.move_on_after(0.5) as scope:
            async with open_rig(streams=True, markets=5) as pipe, pipe.market.stream_candle("KRW-BTC", "1d"):
                await trio.sleep_forever()
        assert scope.cancelled_caught


# -- what is read often -----------------------------------------------------------------------------------------


async def test_what_is_read_often_is_listened_to_until_it_is_not_read_for_long(autojump_clock):
    async with managing() as bench:
        for _ in range(2):
            bench.subscriptions.read(Line.TICKER, [BTC, ETH])
        await trio.sleep(1)
        assert bench.stream.attempts_s == []
        bench.subscriptions.read(Line.TICKER, [BTC])
        await trio.sleep(1)
        assert bench.session(Line.TICKER).topics == {TICKERS}
        assert bench.subscriptions.subscriptions()[TICKERS].hot
        await trio.sleep(170)
        bench.subscriptions.read(Line.TICKER, [BTC])
        await trio.sleep(179)
        assert bench.open() == ["ticker"]
        await trio.sleep(3)
        assert bench.open() == []
        assert bench.state(TICKERS) == "released"


@pytest.mark.slow
async def test_two_hundred_and_forty_that_are_read_no_more_leave_one_that_is_listened_to_alone(autojump_clock):
    names = [f"KRW-{number}" for number in range(240)]
    async with managing() as bench, bench.listen(Topic(Line.TICKER, "KRW-7")) as listener:
        for _ in range(10):
            bench.subscriptions.read(Line.TICKER, names)
            await trio.sleep(1)
        assert len(bench.session(Line.TICKER).topics) == 240
        heard(listener)
        await trio.sleep(182)
        assert bench.session(Line.TICKER).topics == {Topic(Line.TICKER, "KRW-7")}
        bench.session(Line.TICKER).show(ticker("KRW-7", now_ms()))
        await trio.sleep(0.1)
        assert [type(event).__name__ for event in heard(listener)] == ["Ticker"]
        assert len(bench.stream.sessions) == 1


async def test_nothing_is_listened_to_by_itself_where_that_is_not_wanted(autojump_clock):
    async with managing(auto=False) as bench:
        for _ in range(50):
            bench.subscriptions.read(Line.TICKER, [BTC])
        await trio.sleep(5)
        assert bench.stream.attempts_s == []


# -- delisted ---------------------------------------------------------------------------------------------------


async def test_those_who_listen_to_a_delisted_market_are_told_and_its_heat_ends(autojump_clock):
    def answer(key: Any) -> Any:
        if key.market == ETH:
            raise UnknownMarket(ETH)
        return shows(key)

    async with managing(answer) as bench:
        eth = Topic(Line.TICKER, ETH)
        for _ in range(3):
            bench.subscriptions.read(Line.TICKER, [ETH])
        async with bench.listen(eth) as alone, bench.listen(eth, TICKERS) as both:
            await trio.sleep(20.5)
            assert bench.state(eth) == "error"
            assert not bench.subscriptions.subscriptions()[eth].hot
            with pytest.raises(UnknownMarket):
                heard(alone)
            assert set(both.failed) == {ETH}
            assert bench.state(TICKERS) == "active"


@pytest.mark.parametrize("topic", [TRADES, BOOKS, MINUTES, DAYS])
async def test_a_market_may_be_gone_from_any_line(autojump_clock, topic):
    """Those who listen to bars of a day are told with the tickers that carry them."""
    async with (
        managing(stream=PaperStream(), handshake_s=1.0, snapshot_s=1.0) as bench,
        bench.listen(topic) as listener,
    ):
        await trio.sleep(1)

        def unknown(key: Any) -> Any:
            raise UnknownMarket(key.market)

        bench.rest.answer = unknown
        await trio.sleep(25)
        with pytest.raises(UnknownMarket):
            heard(listener)
        assert bench.open() == ["ticker" if topic is DAYS else topic.line.value]


@pytest.mark.parametrize("topic", [TRADES, TICKERS, MINUTES, DAYS])
@pytest.mark.parametrize("alone", [True, False])
async def test_a_gap_that_is_open_when_its_market_is_delisted_ends_as_it_began(autojump_clock, topic, alone):
    other = topic._replace(market=ETH)
    async with managing() as bench, bench.listen(*([topic] if alone else [topic, other])) as listener:
        carrier = Topic(Line.TICKER, BTC) if topic is DAYS else topic
        desk = bench.subscriptions._desks[carrier.line]
        await trio.sleep(5)
        heard(listener)
        desk.lost([carrier], now_ms() - 2_000, now_ms(), "closed 1006")
        (opened,) = heard(listener)
        assert opened.is_open
        await trio.sleep(1)
        bench.subscriptions._gone(carrier, UnknownMarket(BTC))
        closed = listener.receive_nowait()
        assert isinstance(closed, Gap)
        assert (closed.market, closed.start_ms, closed.cause) == (BTC, opened.start_ms, opened.cause)
        assert not closed.is_open
        assert not closed.repaired
        if alone:
            with pytest.raises(UnknownMarket):
                heard(listener)
        else:
            # Trades that had not been counted yet reach further back, which is told too.
            *more, last = heard(listener)
            assert last.proof == "nothing more will come"
            assert all(gap.end_ms == opened.start_ms and not gap.is_open for gap in more)
        assert desk.open_gap(carrier) is None


async def test_that_a_stream_has_not_begun_ends_with_its_market_too(autojump_clock):
    async with (
        managing(stream=PaperStream(), handshake_s=1.0, snapshot_s=1.0) as bench,
        bench.listen(TICKERS) as listener,
    ):
        await trio.sleep(4)
        (opened,) = heard(listener)
        assert opened.is_open
        bench.subscriptions._gone(TICKERS, UnknownMarket(BTC))
        closed = listener.receive_nowait()
        assert (closed.start_ms, closed.is_open, closed.repaired) == (opened.start_ms, False, False)


async def test_a_market_gone_from_one_line_is_not_gone_from_another_that_still_shows_it(autojump_clock):
    """Each line finds out for itself: the silent one long before the one that flows."""

    def unknown(key: Any) -> Any:
        raise UnknownMarket(key.market)

    async with (
        managing() as bench,
        bench.listen(TRADES) as trades,
        bench.listen(TICKERS) as tickers,
        bench.listen(DAYS) as days,
    ):
        await trio.sleep(1)
        bench.rest.answer = unknown
        for _ in range(76):
            bench.session(Line.TICKER).show(ticker(BTC, now_ms()))
            await trio.sleep(0.25)
        with pytest.raises(UnknownMarket):
            heard(trades)
        assert [event for event in (*heard(tickers), *heard(days)) if isinstance(event, Gap)] == []
        assert bench.state(TICKERS) == "active"
        for _ in range(200):
            bench.session(Line.TICKER).show(ticker(BTC, now_ms()))
            await trio.sleep(0.25)
        for listener in (tickers, days):
            with pytest.raises(UnknownMarket):
                heard(listener)


# -- bars that were missing -------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_bars_of_an_outage_may_be_more_than_a_consumers_depth(autojump_clock):
    """They are read in one page and told in one step: nobody could take them as fast."""
    told: list[Any] = []
    async with (
        open_rig(streams=True, markets=5) as pipe,
        trio.open_nursery() as nursery,
        pipe.market.stream_candle("KRW-BTC", "1s", policy="cut-off", depth=10) as bars,
    ):

        async def collect() -> None:
            async for event in bars:
                told.append(event)  # noqa: PERF401  # what came before an error counts

        nursery.start_soon(collect)
        await trio.sleep(5)
        pipe.sim.add_fault(WsDownFault(for_s=40.0))
        await trio.sleep(90)
        nursery.cancel_scope.cancel()
    assert [gap.is_open for gap in told if isinstance(gap, Gap)] == [True, False]
    finals = [event.open_ms for event in told if not isinstance(event, Gap) and event.state is CandleState.FINAL]
    assert len(finals) == len(set(finals)) >= 60
    assert finals == sorted(finals)


# -- memory -----------------------------------------------------------------------------------------------------


async def test_the_newest_trades_come_from_the_stream(autojump_clock):
    async with managing() as bench:
        assert bench.subscriptions.newest_trades(BTC, 1) is None
        async with bench.listen(TRADES):
            await trio.sleep(1)
            newest = trade(7, EPOCH_MS + 60_000)
            bench.session(Line.TRADE).show(newest)
            await trio.sleep(0.1)
            assert bench.subscriptions.newest_trades(BTC, 1) == (newest,)
            bench.rest.latency_s = 1.0
            while bench.state(TRADES) != "stale":
                await trio.sleep(0.1)
                assert trio.current_time() < 10
            assert bench.subscriptions.newest_trades(BTC, 1) is None


async def test_the_newest_bars_come_from_the_stream_as_far_as_it_vouches_for_them(autojump_clock):
    async with managing() as bench:
        assert bench.subscriptions.newest_bars(MINUTES, 1) is None  # not listened to
        async with bench.listen(MINUTES):
            await trio.sleep(1)
            assert bench.subscriptions.newest_bars(MINUTES, 1) is None  # no page has shown that there is no hole
            page = tuple(shows(CandlesRequest(BTC, Timeframe.M1, 5)))
            bench.inbox.send_nowait(BarPage(MINUTES, page, now_ms()))
            await trio.sleep(0.1)
            bars = bench.subscriptions.newest_bars(MINUTES, 5)
            assert bars is not None
            assert [candle.open_ms for candle in bars] == sorted(candle.open_ms for candle in page)
            assert bench.subscriptions.newest_bars(MINUTES, 2) == bars[-2:]
            assert bench.subscriptions.newest_bars(MINUTES, 6) is None
            bench.rest.latency_s = 1.0
            await trio.sleep(1.5)
            assert bench.state(MINUTES) == "stale"
            assert bench.subscriptions.newest_bars(MINUTES, 2) is None
            await trio.sleep(1)
            assert bench.subscriptions.newest_bars(MINUTES, 2) == bars[-2:]
            bench.session(Line.CANDLE).end(UnknownMarket("whatever"))
            await trio.sleep(0.1)
            assert bench.subscriptions.newest_bars(MINUTES, 2) is None


async def test_bars_that_are_held_but_were_doubted_since_are_not_vouched_for(autojump_clock):
    async with managing() as bench, bench.listen(MINUTES):
        await trio.sleep(1)
        page = tuple(shows(CandlesRequest(BTC, Timeframe.M1, 5)))
        bench.inbox.send_nowait(BarPage(MINUTES, page, now_ms()))
        await trio.sleep(0.1)
        bench.session(Line.CANDLE).end(UnknownMarket("whatever"))
        await trio.sleep(1)
        assert bench.state(MINUTES) == "active"
        assert bench.subscriptions.newest_bars(MINUTES, 2) is None
        await trio.sleep(5)
        assert bench.subscriptions.newest_bars(MINUTES, 2) is not None


# -- the exchange's time ----------------------------------------------------------------------------------------


async def test_without_a_word_from_the_exchange_it_is_as_late_as_here(autojump_clock):
    async with managing(epoch_ms=EPOCH_MS - 5_000) as bench:
        await trio.sleep(10)
        assert bench.subscriptions.exchange_ms() == EPOCH_MS + 5_000


@pytest.mark.slow
async def test_the_later_of_what_rest_and_the_streams_say_is_the_time(autojump_clock):
    """Both are lower bounds. What is closer counts when it has been so for ten minutes."""
    async with managing(rest_ms=lambda: now_ms() - 900, epoch_ms=0) as bench:
        await trio.sleep(1)
        assert bench.subscriptions.exchange_ms() == now_ms() - 900
        async with bench.listen(TRADES):
            for _ in range(1_300):
                await trio.sleep(0.5)
                bench.session(Line.TRADE).show(trade(now_ms(), now_ms()))
            assert now_ms() - 50 <= bench.subscriptions.exchange_ms() <= now_ms()


# -- what it says of itself -------------------------------------------------------------------------------------


async def test_it_tells_of_every_line_and_every_topic(autojump_clock):
    async with managing() as bench, bench.listen(TRADES), bench.listen(MINUTES):
        await trio.sleep(1)
        connections = bench.subscriptions.connections()
        assert set(connections) == set(Line)
        assert [line for line, status in connections.items() if status.connected_since_ms] == [Line.TRADE, Line.CANDLE]
        states = {topic: status.state for topic, status in bench.subscriptions.subscriptions().items()}
        assert states == dict.fromkeys((TRADES, MINUTES), SubscriptionState.ACTIVE)


async def test_a_bug_in_any_of_its_parts_is_not_hidden(autojump_clock):
    def bug(session: PaperSession, new: Collection[Topic]) -> None:
        session.show(attrs.evolve(trade(1, EPOCH_MS), market=[]))  # no frame holds such a thing

    with pytest.RaisesGroup(TypeError, flatten_subgroups=True):
        async with managing(stream=PaperStream(bug)) as bench, bench.listen(TRADES):
            await trio.sleep(10)


@pytest.mark.parametrize("topic", [MINUTES, DAYS])
async def test_whoever_joins_a_stream_that_is_down_is_told_of_the_hole_after_its_history(autojump_clock, topic):
    async with managing() as bench, bench.listen(topic) as earlier:
        await trio.sleep(5)
        bench.stream.refusals.append(RateLimited("429", retry_after_s=60.0))
        bench.session(Line.TICKER if topic is DAYS else topic.line).end(ExchangeUnavailable("closed 1006"))
        await trio.sleep(1)
        (opened,) = [event for event in heard(earlier) if isinstance(event, Gap)]
        async with bench.listen(topic, history=3) as joined:
            await trio.sleep(15)
            *history, gap = heard(joined)
            assert [candle.timeframe for candle in history] == [topic.timeframe] * 3
            assert gap == opened
            await trio.sleep(90)
            (closed,) = [event for event in heard(joined) if isinstance(event, Gap)]
            assert (closed.start_ms, closed.repaired) == (opened.start_ms, True)


@pytest.mark.parametrize("topic", [TRADES, TICKERS, BOOKS, MINUTES, DAYS])
async def test_whoever_joins_a_stream_that_has_not_begun_is_told_of_the_hole(autojump_clock, topic):
    """As those were who have waited for longer; also with a history, and after it."""
    async with managing(handshake_s=1.0, snapshot_s=2.0) as bench, bench.listen(topic) as first:
        bench.stream.refusals.extend(ExchangeUnavailable("503", status=503) for _ in range(100))
        await trio.sleep(5)
        (opened,) = [event for event in heard(first) if isinstance(event, Gap)]
        for history in (0, 2) if topic.timeframe else (0,):
            async with bench.listen(topic, history=history) as joined:
                await trio.sleep(4)
                *begins_with, gap = heard(joined)
                assert (len(begins_with), gap) == (history, opened)


@pytest.mark.parametrize("topic", [TRADES, TICKERS, BOOKS, MINUTES])
async def test_a_hole_is_told_once_whatever_else_is_the_matter(autojump_clock, topic):
    """A stream of which nothing could be read but that it was there has not begun, and has a hole."""
    async with managing(stream=PaperStream()) as bench, bench.listen(topic) as listener:
        await trio.sleep(1)
        bench.session(topic.line).show(BadPayload("no number", market=BTC))
        await trio.sleep(30)
        assert [event.is_open for event in heard(listener) if isinstance(event, Gap)] == [True]
