"""The desk of bars: what is doubted, when it is read again, and how that is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import attrs
import pytest
import trio
from paper_exchange import CandleExchange, bar
from paper_streams import EPOCH_MS, Rest, asking, now_ms, ticker

from marketpipe.actors import candle_desk
from marketpipe.actors.candle_desk import CandleDesk
from marketpipe.actors.deduplicator import BarMessage, BarPage, Cleared, Deduplicator, Doubt, Forget, LiveBars, Proven
from marketpipe.actors.hub import Hub, Subscription
from marketpipe.core import timeframes
from marketpipe.core.history import Piece
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Frame, Line, Topic
from marketpipe.errors import ExchangeUnavailable, UnknownMarket
from marketpipe.models import Candle, CandleState, Gap, Priority, Source

M1, M3 = Timeframe.M1, Timeframe.M3
BTC, ETH = Topic(Line.CANDLE, "KRW-BTC", M1), Topic(Line.CANDLE, "KRW-ETH", M1)
BTC_3M = Topic(Line.CANDLE, "KRW-BTC", M3)
MINUTE_MS = 60_000
# 12:34:56 is four seconds before a minute ends.
BOUNDARY_S = 4.0


def at(seconds: float) -> int:
    return EPOCH_MS + round(seconds * 1000)


def frame(topic: Topic = BTC, at_s: float | None = None, **changes: Any) -> Candle:
    """The running bar of ``topic`` as the stream shows it."""
    made_ms = now_ms() if at_s is None else at(at_s)
    assert topic.timeframe is not None
    made = bar(topic.timeframe, timeframes.floor(topic.timeframe, made_ms), market=topic.market)
    return attrs.evolve(
        made, exchange_ms=made_ms, source=Source.STREAM, state=CandleState.RUNNING, received_ms=made_ms, **changes
    )


@attrs.define(eq=False)
class Bench:
    desk: CandleDesk
    hub: Hub
    rest: Rest
    sent: list[BarMessage]
    listener: Subscription[Any]
    nursery: trio.Nursery
    connection: trio.CancelScope | None = None

    def connect(self, *topics: Topic) -> None:
        self.connection = trio.CancelScope()
        self.nursery.start_soon(self._work, self.connection)
        self.desk.subscribing(topics, [], now_ms())

    async def _work(self, scope: trio.CancelScope) -> None:
        with scope:
            await self.desk.work()

    def lose(self, *topics: Topic, cause: str = "closed 1006") -> None:
        assert self.connection is not None
        self.desk.lost(topics, now_ms(), now_ms(), cause)
        self.connection.cancel()

    def take(self, *candles: Candle, snapshot: bool = False) -> None:
        self.desk.take([Frame(candle, snapshot) for candle in candles], trio.current_time())

    def told(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]

    def heard(self) -> list[Any]:
        events = []
        while True:
            try:
                events.append(self.listener.receive_nowait())
            except trio.WouldBlock:
                return events

    def asked_s(self) -> list[float]:
        return [round(at_s, 3) for at_s, _ in self.rest.asked]


def shows(request: CandlesRequest) -> tuple[Candle, ...]:
    """REST: a bar in every slot of the last hour."""
    running_ms = timeframes.floor(request.timeframe, now_ms())
    opens = [timeframes.shift(request.timeframe, running_ms, -ago) for ago in range(60, -1, -1)]
    bars = [bar(request.timeframe, open_ms, now_ms(), market=request.market) for open_ms in opens]
    return CandleExchange(bars).page(request)


@asynccontextmanager
async def at_work(archive: Callable[[Piece], object] | None = None) -> AsyncIterator[Bench]:
    sent: list[BarMessage] = []
    rest, hub = Rest(shows), Hub()
    async with asking(rest) as asker, trio.open_nursery() as nursery:
        listener = hub.attach((BTC, ETH, BTC_3M), policy="drop-oldest", depth=1000)
        yield Bench(CandleDesk(asker, hub, sent.append, now_ms, archive), hub, rest, sent, listener, nursery)
        nursery.cancel_scope.cancel()


async def test_frames_are_handed_on_as_they_came(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC, ETH)
        bars = (frame(BTC), frame(ETH))
        bench.take(*bars)
        assert bench.sent == [LiveBars(bars)]
        await trio.sleep(60)
        assert bench.rest.asked == []


async def test_each_topic_is_in_doubt_from_its_own_beginning_on(autojump_clock):
    """Of what was doubted because of another, the same bar in the snapshot would clear only the newest part."""
    async with at_work() as bench:
        bench.connect(BTC, ETH)
        bench.take(frame(BTC), frame(ETH))
        await trio.sleep(1_000)
        shown = frame(BTC)
        bench.take(shown)
        await trio.sleep(10)
        bench.desk.lost([ETH], at(1), at(1_010), "the exchange does not send it")
        bench.lose(BTC)
        bench.sent.clear()
        bench.connect(BTC, ETH)
        assert {topic: doubt.start_ms for doubt in bench.told(Doubt) for topic in doubt.topics} == {
            ETH: at(1),
            BTC: at(1_010),
        }
        bench.take(attrs.evolve(shown, received_ms=now_ms()), snapshot=True)
        (cleared,) = bench.told(Cleared)
        assert cleared.start_ms <= at(1_010)


async def test_what_is_proven_is_proven_of_what_has_shown_something(autojump_clock):
    """A market that never showed a bar may yet be kept from us."""
    async with at_work() as bench:
        bench.connect(BTC, ETH)
        bench.take(frame(BTC))
        bench.desk.proven(at(5))
        assert bench.told(Proven) == [Proven((BTC,), at(5))]


async def test_the_newest_stamp_counts_as_shown(autojump_clock):
    async with at_work() as bench:
        assert bench.desk.shown_ms(BTC) is None
        bench.take(frame(BTC, 10), frame(BTC, 9), frame(BTC_3M, 8))
        assert bench.desk.shown_ms(BTC) == at(10)
        assert bench.desk.shown_ms(BTC_3M) == at(8)
        bench.take(frame(BTC, -60))  # another clock
        assert bench.desk.shown_ms(BTC) == at(-60)


# -- losses -----------------------------------------------------------------------------------------------------


async def test_after_a_loss_what_may_be_spoilt_is_read_again_once_it_has_settled(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        await trio.sleep(10)
        bench.take(frame(BTC))
        bench.lose(BTC)
        assert bench.heard() == [Gap("KRW-BTC", at(10), at(10), "closed 1006")]
        assert bench.told(Doubt) == [Doubt((BTC,), at(8), at(12))]
        await trio.sleep(300)
        assert bench.rest.asked == []  # nothing is certain before the stream is back
        bench.connect(BTC)
        assert bench.told(Doubt)[-1] == Doubt((BTC,), at(10), at(312))
        await trio.sleep(2.9)
        assert bench.rest.asked == []
        await trio.sleep(1)
        assert bench.asked_s() == [313.0]
        (page,) = bench.told(BarPage)
        from_ms = timeframes.floor(M1, at(7))
        assert (page.topic, page.from_ms, page.read_ms) == (BTC, from_ms, at(313))
        assert [candle.open_ms for candle in page.candles] == list(range(from_ms, at(314), MINUTE_MS))
        (closed,) = bench.heard()
        assert (closed.start_ms, closed.end_ms, closed.repaired) == (at(10), at(313), True)
        assert f"{len(page.candles)} bars read again" in closed.proof
        assert (bench.desk.tally.gaps, bench.desk.tally.repaired) == (1, 1)


async def test_the_hole_is_known_while_it_is_open(autojump_clock):
    """For whoever joins meanwhile."""
    async with at_work() as bench:
        bench.connect(BTC, ETH)
        bench.take(frame(BTC))
        assert bench.desk.open_gap(BTC) is None
        bench.lose(BTC, ETH)
        assert bench.desk.open_gap(BTC) == bench.heard()[0]
        assert bench.desk.open_gap(ETH) is None
        bench.connect(BTC, ETH)
        await trio.sleep(5)
        assert bench.desk.open_gap(BTC) is None


async def test_the_bar_that_had_just_ended_is_read_again_too(autojump_clock):
    """Its last frame may come a second after its end, and the exchange's time is known to a second."""
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        await trio.sleep(BOUNDARY_S + 1)
        bench.take(frame(BTC))
        bench.lose(BTC)
        bench.connect(BTC)
        await trio.sleep(5)
        (page,) = bench.told(BarPage)
        assert page.from_ms == at(BOUNDARY_S) - MINUTE_MS


async def test_of_what_was_never_shown_nothing_is_lost(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC, ETH)
        bench.lose(BTC, ETH)
        assert bench.heard() == []
        assert bench.sent == []
        bench.connect(BTC)
        bench.take(frame(BTC))
        bench.lose(BTC, ETH)
        assert [gap.market for gap in bench.heard()] == ["KRW-BTC"]


async def test_a_hole_over_several_losses_is_one_and_reaches_from_the_first(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        await trio.sleep(10)
        bench.lose(BTC)
        await trio.sleep(70)
        bench.connect(BTC)
        await trio.sleep(1)
        bench.lose(BTC, cause="again")
        await trio.sleep(70)
        bench.connect(BTC)
        await trio.sleep(10)
        opened, closed = bench.heard()
        assert (opened.start_ms, opened.cause) == (closed.start_ms, closed.cause) == (at(10), "closed 1006")
        assert closed.repaired
        assert bench.told(BarPage)[-1].from_ms == timeframes.floor(M1, at(7))
        assert (bench.desk.tally.gaps, bench.desk.tally.repaired) == (1, 1)


async def test_what_is_doubted_anew_while_it_is_read_is_read_again(autojump_clock):
    """The page of before cannot show what was missed since."""
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        bench.lose(BTC)
        await trio.sleep(60)
        bench.rest.latency_s = 2.0
        bench.connect(BTC)
        await trio.sleep(4)
        assert bench.asked_s() == [63.0]
        bench.desk.spoiled(BTC, now_ms(), now_ms(), "unreadable frame")
        await trio.sleep(3)
        assert bench.told(BarPage) == []
        assert len(bench.heard()) == 1
        await trio.sleep(7)
        assert bench.asked_s() == [63.0, 67.0]
        assert [page.read_ms for page in bench.told(BarPage)] == [at(67)]
        assert bench.heard()[-1].repaired


async def test_a_market_that_shows_the_same_bar_as_before_is_not_read_again(autojump_clock):
    """What comes first is the latest bar there is: nothing was traded while the connection was away."""
    async with at_work() as bench:
        bench.connect(BTC, ETH)
        shown = frame(BTC), frame(ETH)
        bench.take(*shown)
        await trio.sleep(10)
        bench.lose(BTC, ETH)
        await trio.sleep(100)
        bench.connect(BTC, ETH)
        bench.take(shown[0], attrs.evolve(shown[1], volume=shown[1].volume + 1), snapshot=True)
        assert bench.told(Cleared) == [Cleared(BTC, at(10) - 2_000, at(110) + 2_000)]
        [gap] = [event for event in bench.heard() if event.repaired]
        assert (gap.market, gap.start_ms, gap.end_ms) == ("KRW-BTC", at(10), at(110))
        assert gap.proof == "the newest bar is the one that was shown before, with the same volume"
        assert (bench.desk.tally.gaps, bench.desk.tally.repaired) == (2, 1)
        await trio.sleep(10)
        assert [page.topic for page in bench.told(BarPage)] == [ETH]


@pytest.mark.parametrize("change", [
    {"volume": Decimal("99")},
    {"quote_volume": Decimal("99")},
    {"open_ms": timeframes.floor(M1, EPOCH_MS) + 2 * MINUTE_MS},
])  # fmt: skip
async def test_any_other_bar_is_read_again(autojump_clock, change):
    async with at_work() as bench:
        bench.connect(BTC)
        shown = frame(BTC)
        bench.take(shown)
        await trio.sleep(10)
        bench.lose(BTC)
        await trio.sleep(100)
        bench.connect(BTC)
        bench.take(attrs.evolve(shown, **change), snapshot=True)
        bench.take(shown, snapshot=True)  # too late: something has been shown since
        await trio.sleep(10)
        assert bench.told(Cleared) == []
        assert len(bench.told(BarPage)) == 1


async def test_the_same_bar_proves_nothing_if_it_was_shown_after_what_is_certain(autojump_clock):
    """A frame of the bar before may have been kept from us while this one came."""
    async with at_work() as bench:
        bench.connect(BTC)
        await trio.sleep(10)
        shown = frame(BTC)
        bench.take(shown)
        bench.desk.lost((BTC,), at(11), now_ms(), "stalled")
        bench.desk.subscribing([], [BTC], now_ms())
        bench.take(shown, snapshot=True)
        await trio.sleep(10)
        assert bench.told(Cleared) == []
        assert len(bench.told(BarPage)) == 1


async def test_nor_if_it_is_no_snapshot(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        shown = frame(BTC)
        bench.take(shown)
        await trio.sleep(10)
        bench.lose(BTC)
        bench.connect(BTC)
        bench.take(shown)
        await trio.sleep(10)
        assert bench.told(Cleared) == []
        assert len(bench.told(BarPage)) == 1


async def test_a_snapshot_that_comes_before_the_subscription_is_told_clears_it_too(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        shown = frame(BTC)
        bench.take(shown)
        await trio.sleep(10)
        bench.lose(BTC)
        await trio.sleep(10)
        bench.take(shown, snapshot=True)
        bench.nursery.start_soon(bench.desk.work)
        await trio.sleep(10)
        assert len(bench.told(Cleared)) == 1
        assert bench.told(BarPage) == []
        assert bench.heard()[-1].repaired


@pytest.mark.parametrize("volume", [None, Decimal(99)])
async def test_the_same_bar_may_be_shown_twice_at_once(volume, autojump_clock):
    """Two subscriptions, one soon after the other, are answered in one read: the first has proven all up to then."""
    async with at_work() as bench:
        bench.connect(BTC)
        shown = frame(BTC)
        bench.take(shown)
        await trio.sleep(10)
        bench.lose(BTC)
        await trio.sleep(10)
        bench.connect(BTC)
        bench.take(shown, shown if volume is None else attrs.evolve(shown, volume=volume), snapshot=True)
        await trio.sleep(10)
        assert len(bench.told(Cleared)) == 1
        assert bench.told(BarPage) == []
        assert (bench.desk.tally.gaps, bench.desk.tally.repaired) == (1, 1)


async def test_rereadings_go_side_by_side(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC, ETH, BTC_3M)
        bench.take(frame(BTC), frame(ETH), frame(BTC_3M))
        bench.lose(BTC, ETH, BTC_3M)
        await trio.sleep(60)
        bench.rest.latency_s = 2.0
        bench.connect(BTC, ETH, BTC_3M)
        await trio.sleep(6)
        assert bench.asked_s() == [63.0] * 3
        assert {page.topic for page in bench.told(BarPage)} == {BTC, ETH, BTC_3M}


async def test_a_reading_that_fails_is_tried_again(autojump_clock):
    def down(request: Any) -> Any:
        raise ExchangeUnavailable("HTTP 503", status=503)

    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        bench.lose(BTC)
        bench.rest.answer = down
        bench.connect(BTC)
        await trio.sleep(10)
        asked = len(bench.rest.asked)
        assert asked > 5
        assert bench.told(BarPage) == []
        bench.rest.answer = shows
        await trio.sleep(1)
        assert bench.heard()[-1].repaired
        await trio.sleep(60)
        assert len(bench.rest.asked) == asked + 1


async def test_the_bars_of_a_delisted_market_cannot_be_read_again(autojump_clock):
    def unknown(request: Any) -> Any:
        raise UnknownMarket(request.market)

    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        bench.lose(BTC)
        bench.rest.answer = unknown
        bench.connect(BTC)
        await trio.sleep(60)
        assert len(bench.rest.asked) == 1
        opened, closed = bench.heard()
        assert (opened.start_ms, opened.is_open) == (closed.start_ms, True)
        assert (closed.is_open, closed.repaired) == (False, False)
        assert "does not list it" in closed.proof
        assert (bench.desk.tally.gaps, bench.desk.tally.repaired) == (1, 0)
        # Where nothing was told of a hole, nothing is told of its end.
        bench.desk.distrust(ETH, now_ms())
        bench.desk.silent([ETH])
        await trio.sleep(60)
        assert bench.heard() == []


async def test_rereading_ends_with_its_connection(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        bench.lose(BTC)
        bench.connect(BTC)
        await trio.sleep(1)
        bench.lose(BTC)
        await trio.sleep(60)
        assert bench.rest.asked == []
        bench.connect(BTC)
        await trio.sleep(5)
        assert len(bench.rest.asked) == 1


async def test_a_reading_under_way_is_begun_anew_with_the_next_connection(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        bench.lose(BTC)
        bench.connect(BTC)
        bench.rest.deaf = True
        await trio.sleep(5)
        bench.lose(BTC)
        bench.rest.deaf = False
        bench.connect(BTC)
        await trio.sleep(5)
        assert bench.asked_s() == [3.0, 8.0]
        assert len(bench.told(BarPage)) == 1


async def test_what_was_released_while_it_was_read_is_told_to_nobody(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        bench.lose(BTC)
        bench.rest.latency_s = 2.0
        bench.connect(BTC)
        await trio.sleep(4)
        bench.desk.release([BTC], now_ms())
        assert bench.told(Forget) == [Forget((BTC,))]
        await trio.sleep(10)
        assert bench.told(BarPage) == []
        assert len(bench.heard()) == 1
        assert len(bench.rest.asked) == 1
        assert bench.desk.shown_ms(BTC) is None


async def test_releasing_nothing_is_nothing(autojump_clock):
    async with at_work() as bench:
        bench.desk.release([], now_ms())
        assert bench.sent == []


# -- on a connection that goes on -------------------------------------------------------------------------------


async def test_a_frame_that_cannot_be_read_has_its_bars_read_again(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        await trio.sleep(10)
        bench.desk.spoiled(BTC, now_ms(), now_ms(), "unreadable frame")
        await trio.sleep(4)
        opened, closed = bench.heard()
        assert (opened.cause, closed.repaired) == ("unreadable frame", True)
        assert bench.asked_s() == [13.0]


async def test_what_is_silent_after_a_loss_is_read_all_the_same(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC, ETH)
        bench.take(frame(BTC))
        bench.lose(BTC, ETH)
        assert bench.connection is not None
        bench.connection = trio.CancelScope()
        bench.nursery.start_soon(bench._work, bench.connection)
        bench.desk.silent([BTC, ETH])
        await trio.sleep(10)
        assert [page.topic for page in bench.told(BarPage)] == [BTC]
        assert bench.heard()[-1].repaired


@pytest.mark.parametrize(
    ("at_s", "read"),
    [
        pytest.param(0.0, [], id="well before a bar ends"),
        pytest.param(BOUNDARY_S - 1.9, [BTC], id="just before a bar ends"),
        pytest.param(BOUNDARY_S + 1.9, [BTC], id="its last frame may fall between the two"),
        pytest.param(BOUNDARY_S + 2.1, [], id="well after"),
    ],
)
async def test_where_a_subscription_is_replaced_the_end_of_a_bar_is_doubted(autojump_clock, at_s, read):
    """Without a word to those who listen: most likely nothing was missed."""
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        await trio.sleep_until(at_s)
        bench.desk.subscribing([ETH], [BTC], now_ms())
        await trio.sleep(10)
        assert [page.topic for page in bench.told(BarPage)] == read
        if read:
            assert bench.told(Doubt) == [Doubt((BTC,), at(at_s - 2), at(at_s + 2))]
            assert bench.asked_s() == [round(at_s + 3, 3)]
        assert bench.heard() == []


async def test_silence_that_is_only_being_checked_changes_nothing(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        bench.sent.clear()
        bench.desk.suspend([BTC], now_ms())
        bench.desk.resume([BTC])
        assert bench.sent == []


# -- bars that were read before their stream flowed -------------------------------------------------------------


async def test_what_was_read_before_its_stream_flowed_is_read_again_when_it_does(autojump_clock):
    """Subscribed already, but shown nothing yet: there is no other moment at which that would be noticed."""
    async with at_work() as bench:
        bench.connect(BTC)
        await trio.sleep(12)
        bench.desk.distrust(BTC, now_ms())
        await trio.sleep(30)
        assert bench.rest.asked == []
        bench.take(frame(BTC))
        # First the doubt, then the bar: or it would make those before it final.
        assert [type(message) for message in bench.sent] == [Doubt, LiveBars]
        assert bench.told(Doubt) == [Doubt((BTC,), at(12), at(44))]
        bench.take(frame(BTC))
        assert len(bench.told(Doubt)) == 1
        await trio.sleep(5)
        (page,) = bench.told(BarPage)
        assert page.from_ms == timeframes.floor(M1, at(9))
        assert bench.heard() == []


async def test_what_was_read_without_a_connection_is_read_again_with_one(autojump_clock):
    async with at_work() as bench:
        bench.desk.distrust(BTC, now_ms())
        await trio.sleep(30)
        bench.connect(BTC)
        await trio.sleep(5)
        assert [page.from_ms for page in bench.told(BarPage)] == [timeframes.floor(M1, at(-3))]


async def test_an_earlier_doubt_is_not_forgotten_for_a_later_one(autojump_clock):
    async with at_work() as bench:
        bench.desk.distrust(BTC, at(0))
        bench.desk.distrust(BTC, at(500))
        bench.connect(BTC)
        assert bench.told(Doubt)[0].start_ms == at(0)


# -- with the deduplicator --------------------------------------------------------------------------------------


async def test_a_bar_that_a_loss_has_spoilt_becomes_final_with_what_rest_shows_of_it(autojump_clock):
    """And not before: neither by the time nor by the bar after it."""
    published: list[Candle] = []
    inbox, messages = trio.open_memory_channel[BarMessage](1000)
    actor, hub = Deduplicator(messages, published.extend), Hub()
    async with asking(Rest(shows)) as asker, trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        desk = CandleDesk(asker, hub, inbox.send_nowait, now_ms)
        scope = trio.CancelScope()

        async def work() -> None:
            with scope:
                await desk.work()

        nursery.start_soon(work)
        desk.subscribing([BTC], [], now_ms())
        spoilt = frame(BTC, volume=Decimal("0.1"))
        desk.take([Frame(spoilt, True)], 0.0)
        desk.lost([BTC], now_ms(), now_ms(), "closed 1006")
        scope.cancel()
        await trio.sleep(BOUNDARY_S + 20)
        desk.proven(now_ms())
        nursery.start_soon(desk.work)
        desk.subscribing([BTC], [], now_ms())
        desk.take([Frame(frame(BTC), True)], trio.current_time())
        desk.proven(now_ms())
        await trio.sleep(1)
        told = [candle.state for candle in published if candle.open_ms == spoilt.open_ms]
        assert told == [CandleState.RUNNING]
        await trio.sleep(5)
        told = [candle for candle in published if candle.open_ms == spoilt.open_ms]
        assert [candle.state for candle in told] == [CandleState.RUNNING, CandleState.FINAL]
        assert (told[1].volume, told[1].revision) == (Decimal("1.5"), 0)
        nursery.cancel_scope.cancel()
    inbox.close()


# -- what is lost without a trace ------------------------------------------------------------------------------


def audit(bench: Bench, *topics: Topic, traded_s: float | None = None) -> None:
    """What REST tells of these: last traded now, if not said otherwise."""
    traded_ms = now_ms() if traded_s is None else at(traded_s)
    bench.desk.audited({topic: ticker(topic.market, now_ms(), trade_ms=traded_ms) for topic in topics}, now_ms())


async def test_a_bar_that_has_ended_is_read_a_second_time(autojump_clock):
    """Its last frame may have been lost, and nothing would tell."""
    async with at_work() as bench:
        bench.connect(BTC, ETH)
        bench.take(frame(BTC))
        audit(bench, BTC)
        await trio.sleep(2)
        assert bench.rest.asked == [], "no bar has ended yet"
        await trio.sleep(BOUNDARY_S + 1)
        audit(bench, BTC)
        await trio.sleep(1)
        (page,) = bench.told(BarPage)
        assert page.from_ms == timeframes.floor(M1, at(0) - 1_000)
        assert [candle.open_ms for candle in page.candles] == [page.from_ms, page.from_ms + MINUTE_MS]
        assert set(bench.rest.priorities) == {Priority.LOW}
        audit(bench, BTC)
        await trio.sleep(1)
        assert len(bench.rest.asked) == 1, "once is enough, until the next one has ended"
        await trio.sleep(MINUTE_MS / 1000)
        audit(bench, BTC)
        await trio.sleep(1)
        assert bench.told(BarPage)[1].from_ms == page.from_ms + MINUTE_MS
        assert bench.heard() == []


async def test_where_nothing_was_traded_there_is_nothing_to_read(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        for _ in range(10):
            await trio.sleep(60)
            audit(bench, BTC, traded_s=-10)
        assert bench.rest.asked == []
        await trio.sleep(60)
        audit(bench, BTC)
        await trio.sleep(1)
        (page,) = bench.told(BarPage)
        assert page.from_ms is not None
        assert page.from_ms > at(500), "what had no trade is not read"


async def test_of_many_some_are_read_at_a_time_and_all_in_turn(autojump_clock):
    many = [Topic(Line.CANDLE, f"KRW-C{number}", M1) for number in range(25)]
    async with at_work() as bench:
        bench.connect(*many)
        bench.take(*map(frame, many))
        await trio.sleep(10)
        for expected in (10, 20, 25, 25):
            audit(bench, *many)
            await trio.sleep(2)
            assert len({page.topic for page in bench.told(BarPage)}) == len(bench.told(BarPage)) == expected


async def test_a_second_reading_that_fails_has_its_turn_again(autojump_clock):
    def down(request: Any) -> Any:
        raise ExchangeUnavailable("HTTP 503", status=503)

    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        await trio.sleep(10)
        bench.rest.answer = down
        audit(bench, BTC)
        await trio.sleep(2)
        assert bench.told(BarPage) == []
        bench.rest.answer = shows
        audit(bench, BTC)
        await trio.sleep(2)
        assert len(bench.told(BarPage)) == 1


async def test_what_is_in_doubt_is_read_once(autojump_clock):
    """A loss while it is being verified: its page may be from before the loss, and the doubt has one of its own."""
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        await trio.sleep(10)
        bench.rest.latency_s = 1.0
        audit(bench, BTC)
        await trio.sleep(0.5)
        bench.desk.spoiled(BTC, now_ms(), now_ms(), "unreadable")
        await trio.sleep(10)
        first, second = bench.told(BarPage)
        assert first.read_ms < second.read_ms
        assert [event.repaired for event in bench.heard()] == [False, True]


async def test_the_page_of_a_short_doubt_does_not_verify_what_lies_before_it(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        await trio.sleep(130)
        bench.desk.spoiled(BTC, now_ms(), now_ms(), "unreadable")
        await trio.sleep(10)
        (page,) = bench.told(BarPage)
        assert page.from_ms > at(60)
        audit(bench, BTC)
        await trio.sleep(2)
        assert bench.told(BarPage)[1].from_ms == timeframes.floor(M1, at(0) - 1_000)


async def test_nobody_verifies_what_was_released(autojump_clock):
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        await trio.sleep(10)
        bench.rest.latency_s = 1.0
        audit(bench, BTC)
        await trio.sleep(0.5)
        bench.desk.release([BTC], now_ms())
        await trio.sleep(2)
        assert bench.told(BarPage) == []
        audit(bench, BTC)
        await trio.sleep(2)
        assert len(bench.rest.asked) == 1


async def test_of_a_very_long_hole_only_the_newest_bars_are_read_and_that_is_said(autojump_clock, monkeypatch):
    monkeypatch.setattr(candle_desk, "READ_AT_MOST", 30)
    async with at_work() as bench:
        bench.connect(BTC)
        bench.take(frame(BTC))
        bench.lose(BTC)
        await trio.sleep(2_990)
        bench.connect(BTC)
        await trio.sleep(5)
        (page,) = bench.told(BarPage)
        assert len(page.candles) == 31
        opened, closed = bench.heard()
        assert (closed.start_ms, closed.end_ms, closed.repaired) == (opened.start_ms, page.from_ms, False)
        assert closed.proof == f"of so many bars only the newest are read again, from {page.from_ms} on"
        bench.take(frame(BTC))
        audit(bench, BTC)
        await trio.sleep(2)
        assert len(bench.rest.asked) == 1, "nor is it tried for ever"


# -- what is kept of it -----------------------------------------------------------------------------------------


async def kept_of(spoil: Callable[[tuple[Candle, ...]], tuple[Candle, ...]]) -> list[Piece]:
    """What the archive gets when minutes are read again that ``spoil`` has changed."""
    kept: list[Piece] = []
    async with at_work(kept.append) as bench:
        whole = bench.rest.answer
        bench.rest.answer = lambda key: spoil(whole(key))
        bench.connect(BTC)
        bench.take(frame(BTC))
        await trio.sleep(10)
        bench.lose(BTC)
        await trio.sleep(300)
        bench.connect(BTC)
        await trio.sleep(60)
    return kept


async def test_minutes_that_are_read_again_are_kept_as_they_were_shown(autojump_clock):
    (piece,) = await kept_of(lambda page: page)
    assert piece.start_ms == piece.shown_ms == piece.bars[0].open_ms == timeframes.floor(M1, at(7))


@pytest.mark.parametrize("rows", [0, 2])
async def test_what_was_read_again_and_not_shown_is_a_conclusion(rows: int, autojump_clock):
    """So that no stored bar is lost to a page that lacks rows."""
    (piece,) = await kept_of(lambda page: page[:rows])
    assert piece.start_ms == timeframes.floor(M1, at(7))
    assert piece.shown_ms == (piece.bars[0].open_ms if piece.bars else piece.end_ms)
    assert piece.is_concluded


async def test_nothing_impossible_is_kept(autojump_clock):
    assert await kept_of(lambda page: tuple(attrs.evolve(bar, volume=Decimal(-1)) for bar in page)) == []
