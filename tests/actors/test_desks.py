"""Tickers and books: what is current, what ages, and how a loss is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import trio
from paper_streams import EPOCH_MS, book, now_ms, ticker

from marketpipe.actors.cache import Cache
from marketpipe.actors.desks import SnapshotDesk
from marketpipe.actors.hub import Hub, Subscription
from marketpipe.actors.messages import Answered
from marketpipe.config import CacheOptions
from marketpipe.core.expiring import MISSING
from marketpipe.core.freshness import Kind
from marketpipe.core.topics import Frame, Line, Topic
from marketpipe.models import Gap

BTC, ETH = "KRW-BTC", "KRW-ETH"


@attrs.define(eq=False)
class Bench:
    """A desk of ``line``, its cache, and one who listens to both markets."""

    line: Any
    also: Callable[[Sequence[Any]], None] | None = None
    also_gap: Callable[[Gap], None] | None = None
    cache: Cache = attrs.field(init=False)
    hub: Hub = attrs.field(factory=Hub)
    desk: SnapshotDesk = attrs.field(init=False)
    listener: Subscription[Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        answered, answers = trio.open_memory_channel[Answered](math.inf)
        self.cache = Cache(answers, CacheOptions())
        answered.close()
        answers.close()
        self.desk = SnapshotDesk(self.line, self.cache, self.hub, also=self.also, also_gap=self.also_gap)
        self.listener = self.hub.attach(self.topics(BTC, ETH), policy="drop-oldest", depth=100)

    def topics(self, *markets: str) -> list[Topic]:
        return [Topic(self.line, market) for market in markets]

    def value(self, market: str = BTC, at_ms: int = EPOCH_MS, **changes: Any) -> Any:
        return (ticker if self.line is Line.TICKER else book)(market, at_ms, **changes)

    def take(self, *values: Any, snapshot: bool = False) -> None:
        self.desk.take([Frame(value, snapshot) for value in values], trio.current_time())

    def read(self, market: str = BTC, max_age_s: float | None = None) -> Any:
        view = self.cache.view
        return (view.ticker if self.line is Line.TICKER else view.orderbook)(market, max_age_s)

    def heard(self) -> list[Any]:
        events = []
        while True:
            try:
                events.append(self.listener.receive_nowait())
            except trio.WouldBlock:
                return events

    def lose(self, *markets: str, start_ms: int = EPOCH_MS, cause: str = "closed 1006") -> None:
        self.desk.lost(self.topics(*markets), start_ms, now_ms(), cause)


lines = pytest.mark.parametrize("line", [Line.TICKER, Line.ORDERBOOK])


@lines
async def test_what_arrives_is_current_and_told(autojump_clock, line):
    seen: list[Any] = []
    bench = Bench(line, also=seen.append)
    first, second = bench.value(), bench.value(ETH)
    bench.take(first, second)
    await trio.sleep(3600)
    assert bench.read() is first
    assert bench.read(max_age_s=3601) is first
    assert bench.read(max_age_s=3600) is MISSING
    assert bench.heard() == [first, second]
    assert seen == [[first, second]]


@lines
async def test_a_doubted_value_is_as_old_as_it_is_and_comes_back_when_the_doubt_is_over(autojump_clock, line):
    bench = Bench(line)
    bench.take(bench.value(), bench.value(ETH))
    await trio.sleep(0.1)
    bench.desk.suspend(bench.topics(BTC), now_ms())
    assert bench.read() is not MISSING  # received a tenth of a second ago, and good for some more
    await trio.sleep(1)
    assert bench.read() is MISSING
    assert bench.read(ETH) is not MISSING
    bench.desk.resume(bench.topics(BTC))
    assert bench.read() is not MISSING
    assert bench.read(max_age_s=1.0) is MISSING
    assert [event for event in bench.heard() if isinstance(event, Gap)] == []


@lines
async def test_a_frame_during_the_doubt_makes_its_market_current(autojump_clock, line):
    bench = Bench(line)
    bench.take(bench.value(), bench.value(ETH))
    await trio.sleep(2)
    bench.desk.suspend(bench.topics(BTC, ETH), now_ms())
    fresh = bench.value(at_ms=EPOCH_MS + 2_000)
    bench.take(fresh)
    await trio.sleep(5)
    assert bench.read() is fresh
    assert bench.read(ETH) is MISSING


@lines
async def test_a_loss_is_told_once_open_and_once_closed(autojump_clock, line):
    bench = Bench(line)
    bench.take(bench.value(), bench.value(ETH))
    await trio.sleep(2)
    bench.lose(BTC, ETH, start_ms=EPOCH_MS + 1_000)
    await trio.sleep(1)
    bench.lose(BTC, ETH, start_ms=EPOCH_MS + 3_000, cause="503")
    assert bench.read() is MISSING
    bench.heard()
    healed = bench.value(at_ms=EPOCH_MS + 4_000)
    bench.take(healed)
    proof = "the stream shows the newest state"
    closed = Gap(BTC, EPOCH_MS + 1_000, EPOCH_MS + 4_000, "closed 1006", repaired=True, proof=proof)
    assert bench.heard() == [closed, healed]
    assert (bench.desk.tally.gaps, bench.desk.tally.repaired) == (2, 1)
    bench.take(bench.value(ETH, EPOCH_MS + 5_000))
    assert bench.heard()[0] == attrs.evolve(closed, market=ETH, end_ms=EPOCH_MS + 5_000)
    bench.take(bench.value(ETH, EPOCH_MS + 6_000))
    assert len(bench.heard()) == 1


@lines
async def test_the_open_hole_says_since_when_and_why(autojump_clock, line):
    bench = Bench(line)
    bench.take(bench.value())
    bench.heard()
    await trio.sleep(2)
    bench.lose(BTC, ETH, start_ms=EPOCH_MS + 1_000)
    assert bench.heard() == [Gap(BTC, EPOCH_MS + 1_000, EPOCH_MS + 2_000, "closed 1006")]  # of ETH nothing was shown
    bench.take(bench.value(ETH, EPOCH_MS + 3_000))
    assert [type(event).__name__ for event in bench.heard()] == [type(bench.value()).__name__]


@lines
async def test_the_hole_is_known_while_it_is_open_and_told_beside_too(autojump_clock, line):
    """To whoever joins meanwhile, and to whoever makes something else of the values."""
    beside: list[Gap] = []
    bench = Bench(line, also_gap=beside.append)
    topic = bench.topics(BTC)[0]
    bench.take(bench.value())
    assert bench.desk.open_gap(topic) is None
    bench.lose(BTC, ETH)
    opened = bench.heard()[-1]
    assert bench.desk.open_gap(topic) == opened
    assert bench.desk.open_gap(bench.topics(ETH)[0]) is None
    bench.take(bench.value(at_ms=EPOCH_MS + 1))
    assert bench.desk.open_gap(topic) is None
    assert beside == [opened, bench.heard()[0]]


@lines
async def test_a_hole_never_ends_before_it_begins(autojump_clock, line):
    """What is shown may be older than the loss: nothing has happened since. And the two clocks may disagree."""
    bench = Bench(line)
    bench.take(bench.value())
    bench.lose(BTC, start_ms=EPOCH_MS + 60_000)
    bench.take(bench.value())
    gaps = [event for event in bench.heard() if isinstance(event, Gap)]
    assert [(gap.start_ms, gap.end_ms) for gap in gaps] == [(EPOCH_MS + 60_000, EPOCH_MS + 60_000)] * 2


@lines
async def test_a_frame_that_cannot_be_read_is_a_loss_of_its_market(autojump_clock, line):
    bench = Bench(line)
    bench.take(bench.value(), bench.value(ETH))
    bench.heard()
    await trio.sleep(1)
    bench.desk.spoiled(bench.topics(BTC)[0], now_ms(), now_ms(), "unreadable frame")
    assert bench.heard() == [Gap(BTC, EPOCH_MS + 1_000, EPOCH_MS + 1_000, "unreadable frame")]
    assert bench.read() is MISSING
    assert bench.read(ETH) is not MISSING


@lines
async def test_what_nobody_wants_any_more_ages_and_is_forgotten(autojump_clock, line):
    bench = Bench(line)
    bench.take(bench.value(), bench.value(ETH))
    bench.lose(ETH)
    bench.desk.release(bench.topics(BTC, ETH), now_ms())
    assert bench.read() is not MISSING
    await trio.sleep(1)
    assert bench.read() is MISSING
    assert bench.desk.shown_ms(bench.topics(BTC)[0]) is None
    bench.heard()
    # Another subscription, another story: no hole of the first is closed in it, and none is told for what was before.
    bench.take(bench.value(ETH))
    assert [event for event in bench.heard() if isinstance(event, Gap)] == []
    bench.lose(BTC)
    assert bench.heard() == []


@lines
async def test_a_value_of_rest_that_is_newer_than_a_lost_one_stays(autojump_clock, line):
    """What is demoted takes no memory back."""
    bench = Bench(line)
    bench.take(bench.value())
    kind = Kind.TICKER if line is Line.TICKER else Kind.ORDERBOOK
    newer = bench.value(at_ms=EPOCH_MS + 50)
    bench.cache._tiers[kind].put(BTC, newer, 10.0)
    bench.lose(BTC)
    assert bench.read() is newer


async def test_what_a_ticker_has_shown_is_its_last_trade_and_what_a_book_its_last_change():
    """They are compared with what REST says of them."""
    tickers, books = Bench(Line.TICKER), Bench(Line.ORDERBOOK)
    tickers.take(ticker(BTC, EPOCH_MS, trade_ms=EPOCH_MS - 7_000))
    books.take(book(BTC, EPOCH_MS))
    assert tickers.desk.shown_ms(tickers.topics(BTC)[0]) == EPOCH_MS - 7_000
    assert books.desk.shown_ms(books.topics(BTC)[0]) == EPOCH_MS
    assert books.desk.shown_ms(books.topics(ETH)[0]) is None


@lines
async def test_a_frame_that_was_overtaken_does_not_make_the_stream_look_behind(line):
    """REST would be ahead of it, and the line be taken for stalled."""
    bench = Bench(line)
    topic = bench.topics(BTC)[0]
    bench.take(bench.value(at_ms=EPOCH_MS), bench.value(at_ms=EPOCH_MS - 300))
    assert bench.desk.shown_ms(topic) == EPOCH_MS
    bench.take(bench.value(at_ms=EPOCH_MS - 60_000))  # another clock
    assert bench.desk.shown_ms(topic) == EPOCH_MS - 60_000


async def test_live_tickers_teach_the_cache_the_pace_of_their_markets(autojump_clock, monkeypatch):
    taught: list[int] = []
    tickers, books = Bench(Line.TICKER), Bench(Line.ORDERBOOK)
    for bench in (tickers, books):
        monkeypatch.setattr(Cache, "learn_from_live", lambda self, at_ms: taught.append(at_ms))
        bench.desk.proven(EPOCH_MS)
    assert taught == [EPOCH_MS]


@lines
async def test_there_is_nothing_to_prepare_and_nothing_to_mend(line):
    bench = Bench(line)
    bench.desk.subscribing(bench.topics(BTC), bench.topics(ETH), now_ms())
    bench.desk.silent(bench.topics(BTC))
    await bench.desk.work()
    assert bench.heard() == []
    assert bench.read() is MISSING
