"""Questions in the words of the original interface: what they ask of the pipe, and how its answers are told.

A question is put to the verbs of `marketpipe.BlockingClient`, or, for futures, to those of its ``submit``: they are
called the same. It always asks for several symbols, also for one: a `Batch` says whether the exchange was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import attrs

from marketpipe.compat.responses import BatchRequestResult, DataResponse, moment
from marketpipe.compat.rows import candle_row, market_row, orderbook_row, ticker_row, trade_row
from marketpipe.core.ranges import epoch_ms, positive_count
from marketpipe.core.timeframes import bars_between, parse
from marketpipe.errors import MarketPipeError
from marketpipe.models import Batch, Candle, Market, Orderbook, Priority, Source, Ticker, Trade

__all__ = [
    "REFUSALS",
    "Answer",
    "Call",
    "Question",
    "Time",
    "candles",
    "markets",
    "orderbooks",
    "single",
    "tickers",
    "trades",
]

# What becomes an answer without success. Anything else is a bug, here or in the calling code, and comes out.
REFUSALS = (MarketPipeError, TypeError, ValueError)
MAX_TRADES = 500

Answer = DataResponse | BatchRequestResult
Answer_co = TypeVar("Answer_co", bound=Answer, covariant=True)
Time = str | datetime | None
Value = Ticker | Orderbook | Market
Told = Value | Sequence[Trade] | Sequence[Candle]


@attrs.frozen
class Question:
    """``names`` as asked, None for all markets. ``ask`` puts it, ``rows`` makes its data of what a symbol got."""

    names: tuple[str, ...] | None
    priority: Priority
    ask: Callable[[Any, float | None], Any]
    rows: Callable[[Any], Any]

    def one(self, batch: Batch[Any]) -> DataResponse:
        """The answer for a single symbol."""
        return next(iter(self._responses(batch).values()))

    def each(self, batch: Batch[Any]) -> BatchRequestResult:
        """The answers for several symbols, one by one."""
        return BatchRequestResult(
            successful_symbols=list(batch),
            failed_symbols=list(batch.failed),
            total_response_time_ms=batch.elapsed_s * 1000,
            symbols_per_second=batch.symbols_per_second,
            cache_hit_rate=batch.cache_hit_rate * 100,
            individual_responses=self._responses(batch),
            error=_failures(batch),
        )

    def listed(self, batch: Batch[Any]) -> DataResponse:
        """The answers for several symbols, in one list. Without success if there is none at all."""
        if batch.failed and not batch:
            errors = list(batch.failed.values())
            several = len(errors) > 1
            answer = DataResponse.create_error(
                ExceptionGroup("no symbol was answered", errors) if several else errors[0],
                priority_used=self.priority,
                response_time_ms=batch.elapsed_s * 1000,
            )
            return attrs.evolve(answer, error=_failures(batch)) if several else answer
        values = list(batch.values())
        return DataResponse.create_success(
            [self.rows(value) for value in values],
            priority_used=self.priority,
            data_source=_source(values, is_hit=batch.cache_hit_rate == 1),
            response_time_ms=batch.elapsed_s * 1000,
            cache_hit=batch.cache_hit_rate == 1,
            data_timestamp=_stamp(values),
            error=_failures(batch),
        )

    def _responses(self, batch: Batch[Any]) -> dict[str, DataResponse]:
        answered = {
            name: self._response(name, value, batch, is_hit=name in batch.from_memory) for name, value in batch.items()
        }
        failed = {
            name: DataResponse.create_error(error, priority_used=self.priority, response_time_ms=batch.elapsed_s * 1000)
            for name, error in batch.failed.items()
        }
        return answered | failed

    def _response(self, name: str, value: Told, batch: Batch[Any], *, is_hit: bool) -> DataResponse:
        return DataResponse.create_success(
            self.rows(value),
            priority_used=self.priority,
            data_source=_source([value], is_hit=is_hit),
            response_time_ms=batch.elapsed_s * 1000,
            cache_hit=is_hit,
            data_timestamp=_stamp([value]),
            symbol=name,
        )


@attrs.frozen
class Call(Generic[Answer_co]):
    """A question that is yet to be made, and how it is answered in any case."""

    make: Callable[[], Question]
    tell: Callable[[Question, Batch[Any]], Answer_co]
    refuse: Callable[[Exception], Answer_co]

    @classmethod
    def of(cls, symbols: object, priority: object, make: Callable[[], Question]) -> Call[Answer]:
        """One answer for one symbol (a ``str``), and several for several."""
        return Call.of_one(priority, make) if isinstance(symbols, str) else Call.of_each(symbols, priority, make)

    @classmethod
    def of_one(cls, priority: object, make: Callable[[], Question]) -> Call[DataResponse]:
        """One answer."""
        return Call(make, Question.one, lambda error: _refused(error, priority))

    @classmethod
    def of_each(cls, symbols: object, priority: object, make: Callable[[], Question]) -> Call[BatchRequestResult]:
        """Several answers."""
        return Call(make, Question.each, lambda error: _refused_each(error, priority, symbols))

    @classmethod
    def of_list(cls, priority: object, make: Callable[[], Question]) -> Call[DataResponse]:
        """One answer with a list of rows."""
        return Call(make, Question.listed, lambda error: _refused(error, priority))


def tickers(symbols: str | Iterable[str], priority: Priority) -> Question:
    """The current state of each."""
    names = _names(symbols)

    def ask(verbs: Any, max_age_s: float | None) -> Any:
        return verbs.get_ticker(names, max_age_s=max_age_s, priority=priority)

    return Question(names, priority, ask, ticker_row)


def orderbooks(symbols: str | Iterable[str], priority: Priority) -> Question:
    """The whole book of each."""
    names = _names(symbols)

    def ask(verbs: Any, max_age_s: float | None) -> Any:
        return verbs.get_orderbook(names, max_age_s=max_age_s, priority=priority)

    return Question(names, priority, ask, orderbook_row)


def trades(symbols: str | Iterable[str], count: int, priority: Priority) -> Question:
    """The newest ``count`` (1..500) trades of each, newest first."""
    names = _names(symbols)
    if positive_count(count) > MAX_TRADES:
        raise ValueError(f"count must be a whole number from 1 to {MAX_TRADES}, was {count!r}")

    def ask(verbs: Any, max_age_s: float | None) -> Any:
        return verbs.get_trade(names, count=count, max_age_s=max_age_s, priority=priority)

    return Question(names, priority, ask, lambda found: [trade_row(trade) for trade in found])


def candles(
    symbols: str | Iterable[str],
    timeframe: str,
    count: int | None,
    start_time: Time,
    end_time: Time,
    priority: Priority,
    *,
    include_empty: bool = False,
) -> Question:
    """Bars of each, newest first: the newest ``count``, or those that open from ``start_time`` to before ``end_time``.

    With ``count`` and ``start_time``, the newest ``count`` of those. Without ``end_time``, up to now.
    """
    names, start, end = _names(symbols), _time("start_time", start_time), _time("end_time", end_time)
    if start is not None and end is not None and start >= end:
        raise ValueError(f"start_time must be before end_time, was start_time={start_time}, end_time={end_time}")
    most = None if count is None else positive_count(count)
    asked, since = most, start
    if most is not None and start is not None:  # only one of the two can be asked for: whichever is less
        if _slots(timeframe, start, end) <= most:
            asked = None
        else:
            since = None

    def ask(verbs: Any, _: float | None) -> Any:
        return verbs.get_candle(
            names,
            timeframe,
            count=asked,
            start=since,
            end=end,
            fill="forward" if include_empty else "none",
            priority=priority,
        )

    def rows(found: Sequence[Candle]) -> list[Any]:
        bars = found if start is None else [bar for bar in found if bar.open_time >= start]
        return [candle_row(bar) for bar in list(reversed(bars))[:most]]

    return Question(names, priority, ask, rows)


def continuous(
    symbol: str, timeframe: str, span: tuple[Time, Time], priority: Priority, *, include_empty: bool
) -> Question:
    """Bars of one symbol in ``span``, newest first. A span begins somewhere; it may last until now."""
    if span[0] is None:
        raise ValueError(f"start_time must be ISO 8601 text or a datetime, was {span[0]}")
    return candles(single(symbol), timeframe, None, *span, priority, include_empty=include_empty)


def markets(priority: Priority, *, is_details: bool) -> Question:
    """All that is listed."""

    def ask(verbs: Any, max_age_s: float | None) -> Any:
        return verbs.get_market(max_age_s=max_age_s, priority=priority)

    return Question(None, priority, ask, lambda market: market_row(market, is_details=is_details))


def _refused(error: Exception, priority: object) -> DataResponse:
    return DataResponse.create_error(error, priority_used=_given(priority))


def _refused_each(error: Exception, priority: object, symbols: object) -> BatchRequestResult:
    iterable = symbols if isinstance(symbols, Iterable) and not isinstance(symbols, str) else (symbols,)
    names = list(dict.fromkeys(name for name in iterable if isinstance(name, str)))
    answer = _refused(error, priority)
    return BatchRequestResult([], names, 0.0, 0.0, 0.0, dict.fromkeys(names, answer), answer.error)


def single(symbol: str) -> str:
    """The symbol, where there may be only one. ``TypeError`` for a list of them."""
    if not isinstance(symbol, str):
        raise TypeError(f"symbol must be a str such as 'KRW-BTC', was {symbol!r}")
    return symbol


def _given(priority: object) -> Priority | None:
    return priority if isinstance(priority, Priority) else None


def _names(symbols: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(symbols, str):
        return (symbols,)
    if not isinstance(symbols, Iterable):
        raise TypeError(f"symbols must be a str or an iterable of str, was {symbols!r}")
    names = tuple(symbols)
    if not names:
        raise ValueError(f"symbols must name at least one market, was {symbols!r}")
    return names


def _time(name: str, given: Time) -> datetime | None:
    """A moment as it may be written; what has no zone is UTC, as ``to`` of the exchange is, never this host's time."""
    if given is None:
        return None
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given.strip())
        except ValueError:
            raise ValueError(f"{name} must be an ISO 8601 time such as '2026-01-31T09:00:00Z', was {given!r}") from None
    if not isinstance(given, datetime):
        raise TypeError(f"{name} must be ISO 8601 text or a datetime, was {given!r}")
    return given.replace(tzinfo=UTC) if given.utcoffset() is None else given


def _slots(timeframe: str, start: datetime, end: datetime | None) -> int:
    """How many bars open in ``[start, end)``; up to now by this machine's clock, which is good enough to choose by."""
    start_ms = epoch_ms("start_time", start)
    return bars_between(parse(timeframe), start_ms, epoch_ms("end_time", moment() if end is None else end))


def _dated(value: Told) -> Sequence[Any]:
    return (value,) if isinstance(value, Value) else value


def _source(values: Sequence[Told], *, is_hit: bool) -> str:
    """What all of it needed: the exchange, if it was asked; otherwise the database, a stream, or only memory."""
    sources = {each.source for value in values for each in _dated(value)}
    if not is_hit:
        return "api"
    if Source.STORE in sources:
        return "database"
    return "stream" if Source.STREAM in sources else "cache"


def _stamp(values: Sequence[Told]) -> datetime | None:
    newest_ms = max((each.exchange_ms for value in values for each in _dated(value)), default=None)
    return None if newest_ms is None else moment(newest_ms)


def _failures(batch: Batch[Any]) -> str | None:
    if not batch.failed:
        return None
    told = "; ".join(f"{name}: {error}" for name, error in list(batch.failed.items())[:3])
    more = ", and others" if len(batch.failed) > 3 else ""
    return f"{len(batch.failed)} of {len(batch) + len(batch.failed)} symbols failed ({told}{more})"
