"""The simulated market: a pure function of seed, market and time.

The same seed gives the same market, whatever was asked before and in which order; caches only save time. Candles of
every timeframe, trades and tickers are sums over the *same* trades, in integers: prices and volumes of 1e-8, turnover
of 1e-16. Nothing that happens after ``now_ms`` is ever shown, and what happened at ``now_ms`` is.

Values here are for reading and comparing; `quotation` writes them the way the exchange does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from copy import copy
from itertools import islice, takewhile

import attrs

from marketpipe.core.timeframes import Timeframe
from marketpipe.sim.books import Book, changed_ms, draw_book, next_change_ms
from marketpipe.sim.coins import DELISTED
from marketpipe.sim.day import Bar, Deal, Span, stored_ms
from marketpipe.sim.draw import draw
from marketpipe.sim.history import Extremes, History
from marketpipe.sim.script import ScriptedTrade, scripted_days
from marketpipe.sim.tape import DAY_MS, DEEP, drawn_tape
from marketpipe.sim.universe import SimMarket, universe

__all__ = ["Summary", "World"]

YEAR_DAYS = 364


@attrs.frozen(cache_hash=True)
class Summary:
    """A ticker: the state of a market as of its last trade, or as of 00:00 UTC if there was none since.

    Without a trade today all prices are the previous close and today's sums are 0. The 24 hours end at that same
    moment, not now, so that a summary stays what it is until the next trade. ``high_day`` and ``low_day`` number the
    days since 1970 of the 52 weeks' extremes, today included.
    """

    market: str
    last: Deal
    opening: int
    high: int
    low: int
    previous_close: int
    volume: int
    turnover: int
    volume_24h: int
    turnover_24h: int
    year: Extremes
    stored_ms: int

    @property
    def change(self) -> int:
        """The last price less the previous close."""
        return self.last.price - self.previous_close


@attrs.frozen
class _Cached:
    from_ms: int
    until_ms: int
    summary: Summary


class World:
    """``markets`` markets drawn from ``seed``; no trades in ``holes`` (pairs of epoch milliseconds, half-open).

    ``absences`` are holes of single markets, by code, in which they are not listed either: delisted when one begins,
    and listed again, with their history, when it ends. One that covers a market's listing puts it off.

    ``lively``: see `universe`.

    Times in queries are epoch milliseconds. A code that is not listed, or not yet, is a ``KeyError``.
    """

    def __init__(
        self,
        seed: int = 7,
        markets: int = 855,
        holes: Iterable[Span] = (),
        absences: Mapping[str, Iterable[Span]] | None = None,
        lively: int | None = None,
    ) -> None:
        if markets < 1:
            raise ValueError(f"markets must be at least 1, was {markets!r}")
        self.seed = seed
        self.holes = _joined(holes)
        self._absences = {code: _joined(spans) for code, spans in (absences or {}).items()}
        self._histories = {
            market.code: History(seed, market, _joined([*self.holes, *self._absences.get(market.code, ())]))
            for market in universe(seed, markets, lively)
        }
        unknown = sorted(self._absences.keys() - self._histories.keys())
        if unknown:
            raise ValueError(f"absences must be of markets there are, were of {', '.join(unknown)}")
        self.markets = tuple(self._histories)
        self._shuffled = sorted(self.markets, key=lambda code: draw(1 << 32, seed, code, "order"))
        self._summaries: dict[str, _Cached] = {}
        self._year: dict[str, tuple[int, Extremes | None]] = {}
        self._books: dict[tuple[str, int], Book] = {}

    def warm_up(self) -> None:
        """Draw the tapes of the busiest markets now: many of them take seconds, in which nobody is answered."""
        deep = [history.market for history in self._histories.values() if history.market.activity == DEEP]
        for amplitude in sorted({market.amplitude for market in deep}):
            for index in range(len(DEEP.trades)):
                drawn_tape(self.seed, DEEP, index, amplitude)

    def script(self, code: str, trades: Iterable[ScriptedTrade]) -> None:
        """Let the market trade exactly so from 00:00 UTC of the first of ``trades`` until 00:00 UTC after the last.

        Before and after it trades as ever. What was worked out before is worked out anew; what was told before cannot
        be taken back, so a script is for a market that nobody has seen yet. Raises ``ValueError`` for trades that this
        market cannot have, ``KeyError`` for a code there is not.
        """
        history = self._histories[code]
        history.script(scripted_days(history.market, trades))
        self._summaries.pop(code, None)
        self._year.pop(code, None)
        self._books = {key: book for key, book in self._books.items() if key[0] != code}

    @property
    def delisted(self) -> tuple[str, ...]:
        """Codes that were listed once; they are unknown everywhere."""
        return DELISTED

    def listed(self, now_ms: int) -> list[str]:
        """The codes listed at ``now_ms``, in the exchange's arbitrary order."""
        return [code for code in self._shuffled if self.is_listed(code, now_ms)]

    def is_listed(self, code: str, now_ms: int) -> bool:
        """Whether ``code`` can be asked for at ``now_ms``."""
        history = self._histories.get(code)
        if history is None or history.opening_ms > now_ms:
            return False
        return code not in self._absences or self._absence(code, now_ms) is None

    def last_listed_ms(self, code: str, now_ms: int) -> int | None:
        """The last moment, ``now_ms`` or before it, at which ``code`` was listed; None if it never was."""
        absence = self._absence(code, now_ms)
        last_ms = now_ms if absence is None else absence[0] - 1
        return last_ms if self._histories[code].opening_ms <= last_ms else None

    def in_hindsight(self) -> World:
        """The same market, of which everything that has happened can be asked for, also while it is not listed."""
        world = copy(self)
        world._absences = {}
        world._summaries, world._year, world._books = {}, {}, {}
        return world

    def market(self, code: str) -> SimMarket:
        """What the market is like."""
        return self._histories[code].market

    def opening_ms(self, code: str) -> int:
        """When the market's first trade happened."""
        return self._histories[code].opening_ms

    def trades(self, code: str, start_ms: int, end_ms: int, now_ms: int) -> list[Deal]:
        """The trades in ``[start_ms, end_ms)``, oldest first."""
        return self.newest_trades(code, start_ms, end_ms, now_ms)[::-1]

    def newest_trades(
        self, code: str, start_ms: int, end_ms: int, now_ms: int, count: int | None = None, before_id: int | None = None
    ) -> list[Deal]:
        """The newest ``count`` trades of ``[start_ms, end_ms)`` with an id below ``before_id``, newest first."""
        end_ms = min(end_ms, now_ms + 1)
        if before_id is not None:
            end_ms = min(end_ms, before_id // 10_000 + 1)
        deals = self._listed(code, now_ms).deals(start_ms, end_ms)
        return list(islice((deal for deal in deals if before_id is None or deal.sequential_id < before_id), count))

    def candles(self, code: str, timeframe: Timeframe, start_ms: int, end_ms: int, now_ms: int) -> list[Bar]:
        """The bars that open in ``[start_ms, end_ms)`` and have a trade, oldest first; the last may be running."""
        bars = self._listed(code, now_ms).bars(timeframe, min(end_ms, now_ms + 1), now_ms + 1)
        return list(takewhile(lambda bar: bar.open_ms >= start_ms, bars))[::-1]

    def newest_candles(self, code: str, timeframe: Timeframe, before_ms: int, count: int, now_ms: int) -> list[Bar]:
        """The newest ``count`` bars that open before ``before_ms`` and have a trade, newest first, never cut short."""
        bars = self._listed(code, now_ms).bars(timeframe, min(before_ms, now_ms + 1), now_ms + 1)
        return list(islice(bars, count))

    def previous_close(self, code: str, day_ms: int, now_ms: int) -> int:
        """The last price before the day beginning at ``day_ms``; on the first day, its first price."""
        return _previous_close(self._listed(code, now_ms), day_ms)

    def ticker(self, code: str, now_ms: int) -> Summary:
        """The market's summary; one object for as long as it does not change."""
        cached = self._summaries.get(code)
        if cached is None or not cached.from_ms <= now_ms < cached.until_ms:
            cached = self._summaries[code] = self._summarise(self._listed(code, now_ms), now_ms)
        return cached.summary

    def bought(self, code: str, now_ms: int) -> int:
        """What takers bought since 00:00 UTC: the part of the ticker's volume that is not sales."""
        return self._listed(code, now_ms).bought(now_ms + 1)

    def next_trade_ms(self, code: str, after_ms: int) -> int:
        """When the market trades next after ``after_ms``, or the next 00:00 UTC if it does not before then."""
        history = self._histories[code]
        if after_ms < history.opening_ms:
            return history.opening_ms
        return history.next_ms(after_ms, after_ms - after_ms % DAY_MS + DAY_MS)

    def next_orderbook_ms(self, code: str, after_ms: int) -> int:
        """When the order book changes next after ``after_ms``, or the next 00:00 UTC if it does not before then."""
        history = self._histories[code]
        trade_ms = self.next_trade_ms(code, after_ms)
        return next_change_ms(history.market, after_ms, history.opening_ms, trade_ms)

    def orderbook(self, code: str, now_ms: int, level: int = 0) -> Book:
        """The order book, its prices grouped by ``level`` (1e-8 quote units, 0 not at all)."""
        history = self._listed(code, now_ms)
        last = self.ticker(code, now_ms).last
        at_ms = changed_ms(history.market, now_ms, history.opening_ms, last.at_ms)
        book = self._books.get((code, level))
        if book is None or book.changed_ms != at_ms:
            if last.at_ms > at_ms:
                last = _last(history, at_ms)
            book = draw_book(self.seed, history.market, at_ms, last, level)
            self._books[code, level] = book
        return book

    def _absence(self, code: str, at_ms: int) -> Span | None:
        spans = self._absences.get(code, ())
        place = bisect_right(spans, at_ms, key=lambda span: span[0]) - 1
        return spans[place] if place >= 0 and at_ms < spans[place][1] else None

    def _listed(self, code: str, now_ms: int) -> History:
        if not self.is_listed(code, now_ms):
            raise KeyError(code)
        return self._histories[code]

    def _summarise(self, history: History, now_ms: int) -> _Cached:
        midnight_ms = now_ms - now_ms % DAY_MS
        last = _last(history, now_ms)
        as_of_ms = max(last.at_ms, midnight_ms)
        until_ms = history.next_ms(now_ms, midnight_ms + DAY_MS)
        return _Cached(as_of_ms, until_ms, self._summary(history, last, as_of_ms))

    def _summary(self, history: History, last: Deal, as_of_ms: int) -> Summary:
        midnight_ms, end_ms = as_of_ms - as_of_ms % DAY_MS, as_of_ms + 1
        code, today = history.market.code, midnight_ms // DAY_MS
        previous = _previous_close(history, midnight_ms)
        bar = next(history.bars(Timeframe.D1, end_ms, end_ms), None)
        if bar is None or bar.open_ms < midnight_ms:
            bar = Bar(midnight_ms, previous, previous, previous, previous, 0, 0, 0)
        volume_24h, turnover_24h = history.totals(end_ms - DAY_MS, end_ms)
        return Summary(
            code,
            last,
            bar.opening,
            bar.high,
            bar.low,
            previous,
            bar.volume,
            bar.turnover,
            volume_24h,
            turnover_24h,
            _with_today(self._closed_year(history, today), bar, today),
            stored_ms(as_of_ms, history.market.phase_ms),
        )

    def _closed_year(self, history: History, today: int) -> Extremes | None:
        code = history.market.code
        cached = self._year.get(code)
        if cached is None or cached[0] != today:
            cached = self._year[code] = (today, history.extremes(today - YEAR_DAYS + 1, today))
        return cached[1]


def _last(history: History, at_ms: int) -> Deal:
    # Every market opens with a trade, and is not listed before.
    last = history.last(at_ms + 1)
    if last is None:
        raise AssertionError(f"{history.market.code} has never traded at {at_ms}")
    return last


def _previous_close(history: History, day_ms: int) -> int:
    last = history.last(day_ms)
    if last is not None:
        return last.price
    first_day = history.day(history.first_day)
    return first_day.price(first_day.first)


def _with_today(year: Extremes | None, bar: Bar, today: int) -> Extremes:
    if year is None:
        return Extremes(bar.high, today, bar.low, today)
    high, high_day = (bar.high, today) if bar.high > year.high else (year.high, year.high_day)
    low, low_day = (bar.low, today) if bar.low < year.low else (year.low, year.low_day)
    return Extremes(high, high_day, low, low_day)


def _joined(holes: Iterable[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for start_ms, end_ms in sorted(holes):
        if start_ms >= end_ms:
            raise ValueError(f"a hole must end after it begins, was {(start_ms, end_ms)!r}")
        if joined and start_ms <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_ms))
        else:
            joined.append((start_ms, end_ms))
    return tuple(joined)
