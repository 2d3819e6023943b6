"""One stream of one market: what it says and when, as a function of the world and time.

Books are told when they change, everything else a little after it happened, as the exchange must store it first. A
snapshot is what the stream has last said, so that it is never newer than what follows, and nothing lies between them. A
feed keeps nothing but what saves work when several connections ask for the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import attrs

from marketpipe.core.timeframes import parse
from marketpipe.sim.books import Book
from marketpipe.sim.cadence import (
    LONGEST_LAG_MS,
    LONGEST_WAIT_MS,
    SHORTEST_LAG_MS,
    Grid,
    TradeTimes,
    candle_grid,
    ticker_grid,
)
from marketpipe.sim.day import Bar, Deal, seen_ms, stored_ms
from marketpipe.sim.frames import Shown, candle_frame, orderbook_frame, ticker_frame, trade_frame
from marketpipe.sim.tape import DAY_MS
from marketpipe.sim.world import World

__all__ = ["CandleFeed", "Feed", "Message", "OrderbookFeed", "TickerFeed", "TradeFeed"]

# (abbreviated, in a list) by the format's name (reference/websocket-guide, 2026-08-31; lists since 2025-07-07).
FORMATS = {
    "DEFAULT": (False, False),
    "SIMPLE": (True, False),
    "JSON_LIST": (False, True),
    "SIMPLE_LIST": (True, True),
}
# How many of a feed's last moments are at hand for other connections, which are hardly behind each other.
KEPT = 3
PLAN_MS = 10_000


@attrs.frozen(eq=False)
class Message:
    """A frame to be sent at ``at_ms``; ``text`` spells it, abbreviated or not. Connections share it."""

    type: str
    code: str
    at_ms: int
    text: Callable[[bool], str] = attrs.field(repr=False)
    _encoded: dict[str, bytes] = attrs.field(factory=dict, init=False, repr=False)

    def encode(self, format: str) -> bytes:
        """The frame in ``format``: DEFAULT, SIMPLE, JSON_LIST or SIMPLE_LIST; others are a ``KeyError``."""
        encoded = self._encoded.get(format)
        if encoded is None:
            simple, listed = FORMATS[format]
            text = self.text(simple)
            encoded = self._encoded[format] = (f"[{text}]" if listed else text).encode()
        return encoded


class Feed(ABC):
    """``stream`` of the market ``code``, which must be one of the world's; it may not be listed yet."""

    def __init__(self, world: World, stream: str, code: str) -> None:
        self.stream = stream
        self.code = code
        self._world = world
        self._market = world.market(code)
        self._quiet = (0, 0)
        self._recent: deque[tuple[int, tuple[Message, ...]]] = deque(maxlen=KEPT)

    def next_ms(self, after_ms: int) -> int:
        """When there may be a message next after ``after_ms``: perhaps early, never late."""
        from_ms, until_ms = self._quiet
        if not from_ms <= after_ms < until_ms:
            until_ms = self._find_next_ms(after_ms)
            self._quiet = (after_ms, until_ms)
        return until_ms

    def at(self, at_ms: int) -> tuple[Message, ...]:
        """The messages of that very millisecond."""
        for kept_ms, messages in self._recent:
            if kept_ms == at_ms:
                return messages
        messages = tuple(self._say(at_ms))
        self._recent.appendleft((at_ms, messages))
        return messages

    @abstractmethod
    def snapshot(self, now_ms: int) -> Message | None:
        """What the stream knows at ``now_ms``; None if that is nothing."""

    @abstractmethod
    def _find_next_ms(self, after_ms: int) -> int: ...

    @abstractmethod
    def _say(self, at_ms: int) -> Iterable[Message]: ...

    def _message(self, at_ms: int, text: Callable[[bool], str]) -> Message:
        return Message(self.stream, self.code, at_ms, text)


class OrderbookFeed(Feed):
    """The best ``units`` of the book, grouped by ``level``: sent whenever the book changes."""

    def __init__(self, world: World, code: str, units: int, level: int, *, kr: bool) -> None:
        super().__init__(world, "orderbook", code)
        self._units = units
        self._level = level
        self._kr = kr

    def snapshot(self, now_ms: int) -> Message | None:
        """The book, which may have changed long ago."""
        if not self._world.is_listed(self.code, now_ms):
            return None
        return self._frame(self._world.orderbook(self.code, now_ms, self._level), now_ms, "SNAPSHOT")

    def _find_next_ms(self, after_ms: int) -> int:
        return self._world.next_orderbook_ms(self.code, after_ms)

    def _say(self, at_ms: int) -> Iterable[Message]:
        if not self._world.is_listed(self.code, at_ms):
            return ()
        book = self._world.orderbook(self.code, at_ms, self._level)
        return (self._frame(book, at_ms, "REALTIME"),) if book.changed_ms == at_ms else ()

    def _frame(self, book: Book, at_ms: int, shown: Shown) -> Message:
        units, kr = self._units, self._kr
        return self._message(at_ms, lambda simple: orderbook_frame(book, units, shown, simple=simple, kr=kr))


class _GridFeed(Feed):
    """A stream that looks at what is new at the moments of a grid."""

    def __init__(self, world: World, stream: str, code: str, grid: Grid) -> None:
        super().__init__(world, stream, code)
        self._grid = grid

    def snapshot(self, now_ms: int) -> Message | None:
        """What was new when it last looked, however long ago that was."""
        known_ms = seen_ms(self._grid.before(now_ms), self._market.phase_ms)
        if not self._world.is_listed(self.code, known_ms):
            return None
        return self._show(known_ms, now_ms, 0, "SNAPSHOT")[-1]

    def _find_next_ms(self, after_ms: int) -> int:
        phase_ms = self._market.phase_ms
        known_ms = seen_ms(self._grid.before(after_ms), phase_ms)
        return self._grid.after(stored_ms(self._world.next_trade_ms(self.code, known_ms), phase_ms))

    def _say(self, at_ms: int) -> Iterable[Message]:
        known_ms = seen_ms(at_ms, self._market.phase_ms)
        if not self._world.is_listed(self.code, known_ms):
            return ()
        return self._show(known_ms, at_ms, at_ms - self._grid.period_ms, "REALTIME")

    @abstractmethod
    def _show(self, known_ms: int, at_ms: int, since_ms: int, shown: Shown) -> list[Message]:
        """What was stored after ``since_ms``, as of ``known_ms``; the newest last."""


class TickerFeed(_GridFeed):
    """The newest summary, if there was a trade since it was looked at, or a new day began."""

    def __init__(self, world: World, code: str) -> None:
        super().__init__(world, "ticker", code, ticker_grid(world.market(code).phase_ms))

    def _show(self, known_ms: int, at_ms: int, since_ms: int, shown: Shown) -> list[Message]:
        # It never looks in vain: a new day is news.
        market, ticker = self._market, self._world.ticker(self.code, known_ms)
        bought = self._world.bought(self.code, known_ms)
        return [self._message(at_ms, lambda simple: ticker_frame(market, ticker, bought, shown, simple=simple))]


class CandleFeed(_GridFeed):
    """The running bar if a trade changed it, after the bar before it if a trade changed that too."""

    def __init__(self, world: World, stream: str, code: str, *, kr: bool) -> None:
        super().__init__(world, stream, code, candle_grid(world.market(code).phase_ms))
        self._timeframe = parse(stream.removeprefix("candle."))
        self._kr = kr

    def _show(self, known_ms: int, at_ms: int, since_ms: int, shown: Shown) -> list[Message]:
        # A bar is no shorter than the time from one look to the next, which can touch no more than two.
        bars = self._world.newest_candles(self.code, self._timeframe, known_ms + 1, 2, known_ms)
        return [self._frame(bar, at_ms, shown) for bar in reversed(bars) if bar.stored_ms > since_ms]

    def _frame(self, bar: Bar, at_ms: int, shown: Shown) -> Message:
        stream, code, kr = self.stream, self.code, self._kr
        return self._message(at_ms, lambda simple: candle_frame(stream, code, bar, shown, simple=simple, kr=kr))


class TradeFeed(Feed):
    """Every trade, at the time that ``times`` gives it. What is sent is worked out for ten seconds at once."""

    def __init__(self, world: World, code: str, times: TradeTimes) -> None:
        super().__init__(world, "trade", code)
        self._times = times
        self._plans: deque[tuple[int, list[_Sending]]] = deque(maxlen=2)
        self._close = (-1, 0)

    def snapshot(self, now_ms: int) -> Message | None:
        """The newest trade that was sent."""
        before_id = None
        while self._world.is_listed(self.code, now_ms):
            deals = self._world.newest_trades(self.code, 0, now_ms - SHORTEST_LAG_MS + 1, now_ms, 1, before_id)
            if not deals:
                break
            sent_ms = self._sent_ms(deals[0])
            if sent_ms <= now_ms:
                return self._frame(deals[0], sent_ms, now_ms, "SNAPSHOT")
            before_id = deals[0].sequential_id
        return None

    def _find_next_ms(self, after_ms: int) -> int:
        number = after_ms // PLAN_MS
        plan = self._plan(number)
        place = bisect_right(plan, after_ms, key=lambda sending: sending.at_ms)
        if place < len(plan):
            return plan[place].at_ms
        end_ms = (number + 1) * PLAN_MS
        trade_ms = self._world.next_trade_ms(self.code, end_ms - LONGEST_WAIT_MS - 1)
        return max(end_ms, trade_ms + SHORTEST_LAG_MS)

    def _say(self, at_ms: int) -> Iterable[Message]:
        plan = self._plan(at_ms // PLAN_MS)
        return [
            self._frame(sending.deal, sending.first_ms, at_ms, "REALTIME") for sending in plan if sending.at_ms == at_ms
        ]

    def _plan(self, number: int) -> list[_Sending]:
        for planned, plan in self._plans:
            if planned == number:
                return plan
        plan = sorted(self._sendings(number * PLAN_MS, (number + 1) * PLAN_MS), key=lambda sending: sending.at_ms)
        self._plans.appendleft((number, plan))
        return plan

    def _sendings(self, start_ms: int, end_ms: int) -> Iterator[_Sending]:
        first_ms = start_ms - LONGEST_WAIT_MS - LONGEST_LAG_MS
        known_ms = self._world.last_listed_ms(self.code, end_ms)
        if known_ms is None or known_ms < first_ms:
            return
        deals = self._world.trades(self.code, first_ms, end_ms, known_ms)
        for deal, sent_ms in self._times.sent(deals):
            if start_ms <= sent_ms < end_ms:
                yield _Sending(sent_ms, deal, sent_ms)
            echo_ms = self._times.repeated_after_ms(deal)
            if echo_ms is not None and start_ms <= sent_ms + echo_ms < end_ms:
                yield _Sending(sent_ms + echo_ms, deal, sent_ms)

    def _sent_ms(self, deal: Deal) -> int:
        recent = self._world.trades(self.code, deal.at_ms - LONGEST_LAG_MS, deal.at_ms + 1, deal.at_ms)
        return dict(self._times.sent(recent))[deal]

    def _frame(self, deal: Deal, sent_ms: int, at_ms: int, shown: Shown) -> Message:
        # The last trades before a delisting go out after it.
        known_ms = self._world.last_listed_ms(self.code, sent_ms) or sent_ms
        book = self._world.orderbook(self.code, known_ms)
        close = self._previous_close(deal.at_ms - deal.at_ms % DAY_MS, known_ms)
        return self._message(at_ms, lambda simple: trade_frame(deal, book, close, sent_ms, shown, simple=simple))

    def _previous_close(self, day_ms: int, now_ms: int) -> int:
        if self._close[0] != day_ms:
            self._close = (day_ms, self._world.previous_close(self.code, day_ms, now_ms))
        return self._close[1]


@attrs.frozen
class _Sending:
    """``deal`` goes out at ``at_ms``; the frame is the one of ``first_ms``."""

    at_ms: int
    deal: Deal
    first_ms: int
