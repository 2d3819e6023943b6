"""The handle programs hold: plain calls over the pipe.

It reads the cache's published view in the caller's own task, asks the batcher for what is not there, and puts the
answers in the order of the question. It has no policy of its own, and no timeouts: the caller's deadline is Trio's,
``with trio.fail_after(0.5): await market.get_ticker("KRW-BTC")``, and giving up disturbs nobody else.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, overload

import attrs
import trio

from marketpipe.actors.backfill import Backfill
from marketpipe.actors.batcher import Batcher
from marketpipe.actors.cache import CacheView, Reader
from marketpipe.actors.hub import Subscription
from marketpipe.actors.job import Job
from marketpipe.actors.mailbox import LEFT, Ask, ask
from marketpipe.actors.messages import Answers, Question
from marketpipe.actors.subscriptions import Subscriptions
from marketpipe.collected import Collected
from marketpipe.core import timeframes
from marketpipe.core.bars import BarsWanted, bars_walk
from marketpipe.core.batching import Key, Wanted
from marketpipe.core.buffers import Policy
from marketpipe.core.checkup import StoreCheck
from marketpipe.core.collection import CollectionSummary, Explanation
from marketpipe.core.expiring import MISSING
from marketpipe.core.listing import MarketList
from marketpipe.core.meter import Meter
from marketpipe.core.paging import trade_walk
from marketpipe.core.ranges import bar_range, positive_count
from marketpipe.core.requests import CandlesRequest, Group, MarketsRequest, TradesRequest
from marketpipe.core.symbols import normalise, normalise_all
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import STREAMED, Line, Topic
from marketpipe.errors import ExchangeError, MarketPipeError, PipelineClosed, UnknownMarket
from marketpipe.listening import Listening
from marketpipe.models import Batch, Candle, CandleSeries, Market, Orderbook, Priority, Ticker, Trade
from marketpipe.reporting import Reporter
from marketpipe.status import CandleAnswers, Status

__all__ = ["Client"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

BOOK_DEPTH = 30
# How long a new list is waited for by who listens, if there is an older one.
LISTING_PATIENCE_S = 1.0
NO_STORE = "this pipeline was opened without a database"

_LINES = {Group.TICKER: Line.TICKER, Group.ORDERBOOK: Line.ORDERBOOK}


@attrs.frozen
class _Found(Generic[T_co]):
    value: T_co
    from_memory: bool


@attrs.define(eq=False)
class Client:
    """The verbs. One symbol (a ``str``) gives one value or raises; an iterable of symbols gives a `Batch`.

    Symbols are normalised to upper case; the order asked is the order answered; duplicates are asked and counted once.
    Every verb raises `PipelineClosed` once the pipeline has been left, ``TypeError`` or ``ValueError`` for misuse
    before anything is asked, and an `ExchangeError` where the exchange cannot answer.

    ``max_age_s`` demands a value received less than that long ago (0: one that is still to come; a request that is
    already under way for somebody else counts as such). Without it, the cache's own freshness applies; it is never
    loosened.
    ``priority`` orders the wait for request slots; it never lifts a limit.
    """

    _inbox: trio.MemorySendChannel[Ask[Question, Answers]]
    _view: CacheView
    _batcher: Batcher
    _reporter: Reporter
    _subscriptions: Subscriptions | None
    _collected: Collected | None = None
    _backfill: Backfill | None = None
    _meter: Meter = attrs.field(factory=Meter, init=False)
    _candle_answers: Counter[str] = attrs.field(factory=Counter, init=False)  # by where they came from
    _closed: bool = attrs.field(default=False, init=False)
    _last_listed: dict[str, Market | MarketPipeError] = attrs.field(factory=dict, init=False)

    # -- tickers and order books --------------------------------------------------------------------------------

    @overload
    async def get_ticker(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
        self, symbols: str, *, max_age_s: float | None = None, priority: Priority = Priority.HIGH
    ) -> Ticker: ...
    @overload
    async def get_ticker(
        self, symbols: Iterable[str], *, max_age_s: float | None = None, priority: Priority = Priority.HIGH
    ) -> Batch[Ticker]: ...
    async def get_ticker(
        self, symbols: str | Iterable[str], *, max_age_s: float | None = None, priority: Priority = Priority.HIGH
    ) -> Ticker | Batch[Ticker]:
        """The current state of one market or of many. Any number of concurrent callers share as few requests."""
        if isinstance(symbols, str):
            return await self._snapshot("get_ticker", Group.TICKER, self._view.ticker, symbols, max_age_s, priority)
        return await self._snapshots("get_ticker", Group.TICKER, self._view.ticker, symbols, max_age_s, priority)

    def get_ticker_nowait(self, symbol: str, *, max_age_s: float | None = None) -> Ticker:
        """The ticker if a fresh one is in memory, at once; `trio.WouldBlock` if it would have to be fetched."""
        return self._nowait(Line.TICKER, self._view.ticker, symbol, max_age_s)

    @overload
    async def get_orderbook(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
        self,
        symbols: str,
        *,
        depth: int = BOOK_DEPTH,
        max_age_s: float | None = None,
        priority: Priority = Priority.HIGH,
    ) -> Orderbook: ...
    @overload
    async def get_orderbook(
        self,
        symbols: Iterable[str],
        *,
        depth: int = BOOK_DEPTH,
        max_age_s: float | None = None,
        priority: Priority = Priority.HIGH,
    ) -> Batch[Orderbook]: ...
    async def get_orderbook(
        self,
        symbols: str | Iterable[str],
        *,
        depth: int = BOOK_DEPTH,
        max_age_s: float | None = None,
        priority: Priority = Priority.HIGH,
    ) -> Orderbook | Batch[Orderbook]:
        """The order book of one market or of many, ``depth`` (1..30) levels a side, best first."""
        _check_depth(depth)
        view = self._view.orderbook
        if isinstance(symbols, str):
            book = await self._snapshot("get_orderbook", Group.ORDERBOOK, view, symbols, max_age_s, priority)
            return _cut(book, depth)
        books = await self._snapshots("get_orderbook", Group.ORDERBOOK, view, symbols, max_age_s, priority)
        if depth == BOOK_DEPTH:
            return books
        return attrs.evolve(books, values_by_symbol={name: _cut(book, depth) for name, book in books.items()})

    def get_orderbook_nowait(
        self, symbol: str, *, depth: int = BOOK_DEPTH, max_age_s: float | None = None
    ) -> Orderbook:
        """The book if a fresh one is in memory, at once; `trio.WouldBlock` if it would have to be fetched."""
        _check_depth(depth)
        return _cut(self._nowait(Line.ORDERBOOK, self._view.orderbook, symbol, max_age_s), depth)

    # -- trades, candles, markets -------------------------------------------------------------------------------

    @overload
    async def get_trade(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
        self,
        symbols: str,
        *,
        count: int = 100,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> tuple[Trade, ...]: ...
    @overload
    async def get_trade(
        self,
        symbols: Iterable[str],
        *,
        count: int = 100,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> Batch[tuple[Trade, ...]]: ...
    async def get_trade(
        self,
        symbols: str | Iterable[str],
        *,
        count: int = 100,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> tuple[Trade, ...] | Batch[tuple[Trade, ...]]:
        """The newest ``count`` trades, newest first; pages of 500 are joined without gap or double.

        Fewer come back if the exchange keeps no more: it keeps the current UTC day and the seven before it
        (reference/list-pair-trades, 2026-07-28). ``max_age_s`` is about the newest page; what lies before it is past.
        """
        positive_count(count)

        async def of(name: str) -> _Found[tuple[Trade, ...]]:
            return await self._trades(name, count, max_age_s, priority)

        return await self._each("get_trade", symbols, max_age_s, priority, of)

    @overload
    async def get_candle(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
        self,
        symbols: str,
        timeframe: str = "1m",
        *,
        count: int | None = None,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
        closed_only: bool = False,
        fill: Literal["none", "forward"] = "none",
        priority: Priority = Priority.NORMAL,
    ) -> CandleSeries: ...
    @overload
    async def get_candle(
        self,
        symbols: Iterable[str],
        timeframe: str = "1m",
        *,
        count: int | None = None,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
        closed_only: bool = False,
        fill: Literal["none", "forward"] = "none",
        priority: Priority = Priority.NORMAL,
    ) -> Batch[CandleSeries]: ...
    async def get_candle(
        self,
        symbols: str | Iterable[str],
        timeframe: str = "1m",
        *,
        count: int | None = None,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
        closed_only: bool = False,
        fill: Literal["none", "forward"] = "none",
        priority: Priority = Priority.NORMAL,
    ) -> CandleSeries | Batch[CandleSeries]:
        """Bars, oldest first: the newest ``count`` (200 if nothing is said), or those that open in ``[start, end)``.

        ``start`` and ``end`` are aware datetimes or epoch milliseconds; at most two of ``count``, ``start``, ``end``
        may be given; ``count`` with ``start`` means the first bars from there on. ``timeframe`` is one of 1s 1m 3m 5m
        10m 15m 30m 1h 4h 1d 1w 1M 1y; ``1M`` is a month. The last bar may still be running (``state``), unless
        ``closed_only``. A slot without a trade has no bar; ``fill="forward"`` puts a flat one there, ``filled=True``.
        """
        if fill not in ("none", "forward"):
            raise ValueError(f"fill must be 'none' or 'forward', was {fill!r}")
        bars = bar_range(count, start, end)
        wanted = BarsWanted(timeframes.parse(timeframe), bars, closed_only=closed_only, fill=fill == "forward")

        async def of(name: str) -> _Found[CandleSeries]:
            return await self._candles(name, wanted, priority)

        return await self._each("get_candle", symbols, None, priority, of)

    def iterate_candle(
        self,
        symbol: str,
        timeframe: str = "1m",
        *,
        start: datetime | int,
        end: datetime | int | None = None,
        stored_only: bool = False,
        priority: Priority = Priority.NORMAL,
    ) -> AsyncGenerator[CandleSeries]:
        """The closed bars that open in ``[start, end)``, oldest first, some thousands at a time.

        ``async for bars in market.iterate_candle("KRW-BTC", "1m", start=...)``: a million bars take no more memory than
        a few thousand. What is missing is fetched and stored on the way. Otherwise as `get_candle`.

        With ``stored_only`` nothing is asked of the exchange: the bars that are proven come, and what is missing among
        them, `collection_summary` tells.

        Misuse is raised by the call; nothing is read or asked before the first step. ``contextlib.aclosing`` ends a
        loop that is left early at once.
        """
        parsed, (start_ms, end_ms) = timeframes.parse(timeframe), _moments(start, end)
        name, collected = normalise(symbol), self._collecting()
        self._begin(None, priority)
        return self._iterate_candle(collected, name, parsed, start_ms, end_ms, priority, stored_only=stored_only)

    async def _iterate_candle(
        self,
        collected: Collected,
        name: str,
        parsed: Timeframe,
        start_ms: int,
        end_ms: int | None,
        priority: Priority,
        *,
        stored_only: bool,
    ) -> AsyncGenerator[CandleSeries]:
        if not stored_only:
            await self._know_the_time(priority)
        pages = collected.iterate(name, parsed, start_ms, end_ms, priority, stored_only=stored_only)
        async with contextlib.aclosing(pages):  # whoever closes this closes that, rather than the garbage collector
            async for bars in pages:
                yield CandleSeries(name, parsed, bars)

    @overload
    async def explain_candle(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first wins
        self,
        symbols: str,
        timeframe: str = "1m",
        *,
        count: int | None = None,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
    ) -> Explanation: ...
    @overload
    async def explain_candle(
        self,
        symbols: Iterable[str],
        timeframe: str = "1m",
        *,
        count: int | None = None,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
    ) -> Batch[Explanation]: ...
    async def explain_candle(
        self,
        symbols: str | Iterable[str],
        timeframe: str = "1m",
        *,
        count: int | None = None,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
    ) -> Explanation | Batch[Explanation]:
        """What `get_candle` with the same words would find stored, what is missing, and what that would cost.

        No candle is asked for. See `Explanation`.
        """
        wanted = BarsWanted(timeframes.parse(timeframe), bar_range(count, start, end))
        collected = self._collecting()

        async def of(name: str) -> _Found[Explanation]:
            await self._know_the_time(Priority.NORMAL)
            return _Found(await collected.explain(name, wanted), True)

        return await self._each("explain_candle", symbols, None, Priority.NORMAL, of)

    async def collection_summary(
        self,
        symbol: str,
        timeframe: str = "1m",
        *,
        start: datetime | int,
        end: datetime | int | None = None,
    ) -> CollectionSummary:
        """What is known of each slot in ``[start, end)``: a bar, proven empty, never asked for, or failed.

        Without ``end``, up to the running one. Nothing is asked of the exchange but its time, if that is needed and not
        known. See `CollectionSummary`.
        """
        parsed, (start_ms, end_ms) = timeframes.parse(timeframe), _moments(start, end)
        name, collected = normalise(symbol), self._collecting()
        self._begin(None, Priority.NORMAL)
        if end_ms is None:
            await self._know_the_time(Priority.NORMAL)
        return await collected.summary(name, parsed, start_ms, end_ms)

    async def start_backfill(
        self,
        symbols: str | Iterable[str],
        timeframe: str | Iterable[str] = "1m",
        *,
        start: datetime | int,
        end: datetime | int | None = None,
        priority: Priority = Priority.LOW,
    ) -> Job:
        """Collect the bars that open in ``[start, end)`` (up to now) into the database, in the background.

        Only what is not proven yet is asked for; the same job started again continues where this one was, however it
        ended. Several symbols and timeframes take turns. See `Job`: ``progress()``, ``pause()``, ``resume()``,
        ``cancel()``, ``await job.wait()``. Raises `StoreError` if the database is open for reading only.
        """
        names = (normalise(symbols),) if isinstance(symbols, str) else normalise_all(symbols)
        if not names:
            raise ValueError("a backfill needs at least one symbol, was given none")
        spellings = [timeframe] if isinstance(timeframe, str) else list(timeframe)
        parsed = list(dict.fromkeys(timeframes.parse(each) for each in spellings))
        if not parsed:
            raise ValueError("a backfill needs at least one timeframe, was given none")
        start_ms, end_ms = _moments(start, end)
        self._begin(None, priority)
        if self._backfill is None:
            raise RuntimeError(NO_STORE)
        await self._know_the_time(Priority.NORMAL)
        series = [(name, each) for each in parsed for name in names]
        return self._backfill.start(series, start_ms, end_ms, priority)

    async def check_store(self) -> StoreCheck:
        """Look through the whole database: what is stored of each series, what is missing in between, what is wrong.

        Nothing is asked of the exchange. Takes seconds for each million of bars, and holds up nobody. See `StoreCheck`.
        """
        self._begin(None, Priority.LOW)
        if self._backfill is None:
            raise RuntimeError(NO_STORE)
        return await self._backfill.check()

    async def repair_store(self, *, priority: Priority = Priority.LOW) -> Job:
        """Mend what `check_store` finds: the ledger at once; holes and wrong rows are asked of the exchange by the job.

        Rows that the exchange tells otherwise are amended, and kept as evidence. What is wrong with the file itself
        stays so.
        """
        self._begin(None, priority)
        if self._backfill is None:
            raise RuntimeError(NO_STORE)
        await self._know_the_time(priority)
        return await self._backfill.repair(priority)

    def _collecting(self) -> Collected:
        if self._closed:
            raise PipelineClosed(LEFT)
        if self._collected is None:
            raise RuntimeError(NO_STORE)
        return self._collected

    async def _know_the_time(self, priority: Priority) -> None:
        await trio.lowlevel.checkpoint()
        if not self._batcher.knows_the_time:
            await self._learn_the_time(priority)

    @overload
    async def get_market(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
        self, symbols: str, *, max_age_s: float | None = None, priority: Priority = Priority.NORMAL
    ) -> Market: ...
    @overload
    async def get_market(
        self, symbols: Iterable[str], *, max_age_s: float | None = None, priority: Priority = Priority.NORMAL
    ) -> Batch[Market]: ...
    @overload
    async def get_market(
        self,
        symbols: None = None,
        *,
        quote: str | None = None,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> Batch[Market]: ...
    async def get_market(
        self,
        symbols: str | Iterable[str] | None = None,
        *,
        quote: str | None = None,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> Market | Batch[Market]:
        """What is listed: one market, some, or (None) all of them, or all that are quoted in ``quote`` ("KRW")."""
        if symbols is not None and quote is not None:
            raise ValueError(f"give symbols or quote, not both; quote was {quote!r}")
        names = None if symbols is None or isinstance(symbols, str) else normalise_all(symbols)
        quote = None if quote is None else normalise(quote)
        began_s = self._begin(max_age_s, priority)
        listed, hit = await self._markets(max_age_s, priority)
        if isinstance(symbols, str):
            name = normalise(symbols)
            answer = listed.get(name, UnknownMarket(name))
            failed = isinstance(answer, MarketPipeError)
            self._record("get_market", began_s, priority, symbols=not failed, failed=failed)
            return _value(answer)
        if names is None:
            names = _quoted_in(listed, quote)
        answers = {name: listed.get(name) or UnknownMarket(name) for name in names}
        return self._batch("get_market", answers, answers if hit else (), began_s, priority)

    # -- streams ------------------------------------------------------------------------------------------------

    def stream_ticker(
        self, symbols: str | Iterable[str], *, policy: Policy = "conflate", depth: int = 1000
    ) -> AbstractAsyncContextManager[Subscription[Ticker]]:
        """Every change of one market's state or of many, as the exchange tells it, the current one first.

        ``async with market.stream_ticker("KRW-BTC") as tickers: async for ticker in tickers: ...`` yields `Ticker` and
        `Gap`. ``policy`` says what happens when the loop is slower than the market: ``"conflate"`` keeps the newest of
        each market, ``"cut-off"`` ends with `SubscriberLagged` once more than ``depth`` values wait, ``"drop-oldest"``
        drops, and says so with a `Gap`. Nobody else is delayed.

        A market that is not listed is in ``failed`` of the subscription; if none is, `UnknownMarket` is raised.
        """
        return self._listening().open(Line.TICKER, symbols, None, policy, depth)

    def stream_orderbook(
        self, symbols: str | Iterable[str], *, policy: Policy = "conflate", depth: int = 1000
    ) -> AbstractAsyncContextManager[Subscription[Orderbook]]:
        """Every change of one order book or of many, each the whole book, the current one first. See `stream_ticker`.

        ``depth`` is how many values may wait, not how deep a book is: all have up to 30 levels.
        """
        return self._listening().open(Line.ORDERBOOK, symbols, None, policy, depth)

    def stream_trade(
        self, symbols: str | Iterable[str], *, policy: Policy = "cut-off", depth: int = 1000
    ) -> AbstractAsyncContextManager[Subscription[Trade]]:
        """Every trade of one market or of many, each once, the last one before the stream began first.

        Any interruption is told as a `Gap`, and mended: the trades of that time follow the second, closed `Gap`, in the
        order of their time. If they are gone for good, it says so. See `stream_ticker` for ``policy``.
        """
        return self._listening().open(Line.TRADE, symbols, None, policy, depth)

    def stream_candle(
        self,
        symbols: str | Iterable[str],
        timeframe: str = "1m",
        *,
        history: int = 0,
        policy: Policy = "cut-off",
        depth: int = 1000,
    ) -> AbstractAsyncContextManager[Subscription[Candle]]:
        """Every change of the running bar; each bar once as FINAL, and with the next ``revision`` if it is amended.

        ``history``: begin with the newest so many bars, oldest first; nothing is missing or double where they meet the
        live ones. Bars of a day and more, which the exchange does not stream, are made of tickers, exactly. See
        `stream_ticker` for ``policy``; ``"conflate"`` keeps the newest state of each bar, and every FINAL one.
        """
        parsed = timeframes.parse(timeframe)
        return self._listening().open(Line.CANDLE, symbols, parsed, policy, depth, history)

    def _listening(self) -> Listening:
        if self._subscriptions is None:
            raise RuntimeError("this pipeline was opened without the exchange's WebSocket side")
        return Listening(self._subscriptions, self._listed, lambda: self._closed)

    async def _listed(self, max_age_s: float | None) -> Collection[str]:
        if not self._last_listed:
            await self._markets(max_age_s, Priority.HIGH)
            return self._last_listed
        # REST may be in trouble while the streams are not: what was listed last is good enough to listen.
        with contextlib.suppress(ExchangeError), trio.move_on_after(LISTING_PATIENCE_S):
            await self._markets(max_age_s, Priority.HIGH)
        return self._last_listed

    def _noticed(self, line: Line, names: Iterable[str]) -> None:
        if self._subscriptions is not None:
            self._subscriptions.read(line, names)

    def status(self) -> Status:
        """What the pipe is doing and has done; a frozen snapshot, for which nothing is asked.

        With 855 symbols' 2,565 topics moving it takes 0.8 ms; the first look after all of them changed at once, 4.3 ms.
        """
        return self._reporter.status(self._meter, CandleAnswers(**self._candle_answers))

    def close(self) -> None:
        """Refuse every further question with `PipelineClosed`. The pipeline calls it on the way out."""
        self._closed = True
        self._inbox.close()

    # -- how the verbs are made ---------------------------------------------------------------------------------

    def _begin(self, max_age_s: float | None, priority: Priority) -> float:
        if self._closed:
            raise PipelineClosed(LEFT)
        if max_age_s is not None:
            _check_age(max_age_s)
        if not isinstance(priority, Priority):
            raise TypeError(f"priority must be a Priority ({', '.join(Priority.__members__)}), was {priority!r}")
        return trio.current_time()

    def _nowait(self, line: Line, read: Reader[str, T], symbol: str, max_age_s: float | None) -> T:
        if self._closed:
            raise PipelineClosed(LEFT)
        if max_age_s is not None:
            _check_age(max_age_s)
        name = normalise(symbol)
        value = read(name, max_age_s)
        if value is MISSING:
            raise trio.WouldBlock
        self._noticed(line, (name,))
        return value

    def _record(self, verb: str, began_s: float, priority: Priority, *, symbols: int, failed: int) -> float:
        now_s = trio.current_time()
        elapsed_s = now_s - began_s
        self._meter.record(verb, elapsed_s, priority, now_s=now_s, symbols=symbols, failed=failed)
        return elapsed_s

    async def _ask(self, keys: tuple[Key, ...], priority: Priority) -> Answers:
        began_s = trio.current_time()
        try:
            return await ask(self._inbox, Question(keys, priority))
        except trio.Cancelled:
            self._meter.give_up(trio.current_time() - began_s, priority)
            raise

    async def _snapshot(
        self,
        verb: str,
        group: Group,
        read: Reader[str, T],
        symbol: str,
        max_age_s: float | None,
        priority: Priority,
    ) -> T:
        name = normalise(symbol)
        began_s = self._begin(max_age_s, priority)
        held = read(name, max_age_s)
        answer: T | MarketPipeError
        if held is MISSING:
            key = Wanted(group, name)
            answer = (await self._ask((key,), priority))[key]
        else:
            answer = held
            await trio.lowlevel.checkpoint()
        failed = isinstance(answer, MarketPipeError)
        if not failed:
            self._noticed(_LINES[group], (name,))
        self._record(verb, began_s, priority, symbols=not failed, failed=failed)
        return _value(answer)

    async def _snapshots(
        self,
        verb: str,
        group: Group,
        read: Reader[str, T],
        symbols: Iterable[str],
        max_age_s: float | None,
        priority: Priority,
    ) -> Batch[T]:
        names = normalise_all(symbols)
        began_s = self._begin(max_age_s, priority)
        answers = {name: read(name, max_age_s) for name in names}
        missing = [name for name, value in answers.items() if value is MISSING]
        if missing:
            fetched = await self._ask(tuple(Wanted(group, name) for name in missing), priority)
            answers.update((key.market, value) for key, value in fetched.items() if isinstance(key, Wanted))
        else:
            await trio.lowlevel.checkpoint()
        hits = names if not missing else set(names).difference(missing)
        batch = self._batch(verb, answers, hits, began_s, priority)
        self._noticed(_LINES[group], batch)
        return batch

    def _batch(
        self, verb: str, answers: dict[str, Any], from_memory: Collection[str], began_s: float, priority: Priority
    ) -> Batch[Any]:
        failed = {name: error.copy() for name, error in answers.items() if isinstance(error, MarketPipeError)}
        values = {name: value for name, value in answers.items() if name not in failed} if failed else answers
        elapsed_s = self._record(verb, began_s, priority, symbols=len(values), failed=len(failed))
        rate = len(from_memory) / len(answers) if answers else 0.0
        return Batch(values, failed, elapsed_s, rate, frozenset(from_memory))

    async def _each(
        self,
        verb: str,
        symbols: str | Iterable[str],
        max_age_s: float | None,
        priority: Priority,
        of: Callable[[str], Awaitable[_Found[T]]],
    ) -> T | Batch[T]:
        names = (normalise(symbols),) if isinstance(symbols, str) else normalise_all(symbols)
        began_s = self._begin(max_age_s, priority)
        found: dict[str, _Found[T] | MarketPipeError] = {}

        async def one(name: str) -> None:
            try:
                found[name] = await of(name)
            except MarketPipeError as error:
                found[name] = error

        if isinstance(symbols, str):
            await one(names[0])  # no nursery for one: a cheaper call, and a plain traceback
        else:
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(one, name, name=f"{verb} {name}")
        if any(isinstance(answer, PipelineClosed) for answer in found.values()):
            raise PipelineClosed(LEFT)  # no failure of a symbol
        hits = [name for name, answer in found.items() if isinstance(answer, _Found) and answer.from_memory]
        answers = {name: _plain(found[name]) for name in names}
        batch: Batch[T] = self._batch(verb, answers, hits, began_s, priority)
        return _value(answers[names[0]]) if isinstance(symbols, str) else batch

    async def _trades(
        self, name: str, count: int, max_age_s: float | None, priority: Priority
    ) -> _Found[tuple[Trade, ...]]:
        found = await self._newest_trades(name, count, max_age_s, priority)
        self._noticed(Line.TRADE, (name,))
        return found

    async def _newest_trades(
        self, name: str, count: int, max_age_s: float | None, priority: Priority
    ) -> _Found[tuple[Trade, ...]]:
        if self._subscriptions is not None and max_age_s is None:
            streamed = self._subscriptions.newest_trades(name, count)
            if streamed is not None:
                await trio.lowlevel.checkpoint()
                return _Found(streamed, True)
        newest = self._view.trades(name, max_age_s)

        def read(request: TradesRequest) -> tuple[Trade, ...] | Any:
            first = request.cursor is None and request.days_ago == 0
            return (
                newest[: request.count] if first and newest is not MISSING and len(newest) >= request.count else MISSING
            )

        return await self._walk(trade_walk(name, count), read, priority)

    async def _candles(self, name: str, wanted: BarsWanted, priority: Priority) -> _Found[CandleSeries]:
        streamed = self._streamed_bars(name, wanted)
        if streamed is not None:
            self._noticed_bars(name, wanted.timeframe)
            await trio.lowlevel.checkpoint()
            self._candle_answers["memory"] += 1
            return _Found(CandleSeries(name, wanted.timeframe, streamed), True)

        def read(request: CandlesRequest) -> tuple[Candle, ...] | Any:
            return self._view.candles(request, None)

        if (self._collected is not None or wanted.needs_the_time) and not self._batcher.knows_the_time:
            await self._learn_the_time(priority)
        if self._collected is not None:
            bars = await self._collected.bars(name, wanted, priority)
            if wanted.range.end_ms is None:
                self._noticed_bars(name, wanted.timeframe)
            told = "store" if bars.stored else "memory"
            self._candle_answers[told if bars.from_memory else "exchange"] += 1
            return _Found(CandleSeries(name, wanted.timeframe, bars.bars), bars.from_memory)
        found = await self._walk(bars_walk(name, wanted, self._batcher.exchange_now_ms()), read, priority)
        self._candle_answers["memory" if found.from_memory else "exchange"] += 1
        return _Found(CandleSeries(name, wanted.timeframe, found.value), found.from_memory)

    def _noticed_bars(self, name: str, timeframe: Timeframe) -> None:
        if self._subscriptions is not None and timeframe in STREAMED:
            self._subscriptions.read(Line.CANDLE, (name,), timeframe)

    def _streamed_bars(self, name: str, wanted: BarsWanted) -> tuple[Candle, ...] | None:
        count = wanted.range.count
        newest = wanted.range.start_ms is None and wanted.range.end_ms is None and not wanted.fill
        if self._subscriptions is None or count is None or not newest or wanted.closed_only:
            return None
        return self._subscriptions.newest_bars(Topic(Line.CANDLE, name, wanted.timeframe), count)

    async def _learn_the_time(self, priority: Priority) -> None:
        # This machine's clock may be hours off; any answer tells the exchange's. If none comes, the pages will say so.
        with contextlib.suppress(ExchangeError):
            await self._markets(0, priority)

    async def _walk(
        self,
        walk: Generator[tuple[Any, ...], tuple[Any, ...], tuple[T, ...]],
        read: Callable[[Any], Any],
        priority: Priority,
    ) -> _Found[tuple[T, ...]]:
        """Drive a generator of page requests: from memory what is there, from the exchange the rest."""
        from_memory = True
        pages: tuple[Any, ...] | None = None
        while True:
            try:
                requests = next(walk) if pages is None else walk.send(pages)
            except StopIteration as stop:
                return _Found(stop.value, from_memory)
            answers = {request: read(request) for request in requests}
            missing = tuple(request for request, page in answers.items() if page is MISSING)
            if missing:
                from_memory = False
                answers.update(await self._ask(missing, priority))
            else:
                await trio.lowlevel.checkpoint()
            pages = tuple(_value(answers[request]) for request in requests)

    async def _markets(
        self, max_age_s: float | None, priority: Priority
    ) -> tuple[dict[str, Market | MarketPipeError], bool]:
        key = MarketsRequest()
        held = self._view.markets(key, max_age_s)
        if held is not MISSING:
            await trio.lowlevel.checkpoint()
            self._last_listed = _listed(held)
            return self._last_listed, True
        listed = _listed(_value((await self._ask((key,), priority))[key]))
        self._last_listed = listed
        return listed, False


def _plain(answer: _Found[T] | MarketPipeError) -> T | MarketPipeError:
    return answer.value if isinstance(answer, _Found) else answer


def _value(answer: T | MarketPipeError) -> T:
    if isinstance(answer, MarketPipeError):
        raise answer.copy()
    return answer


def _moments(start: datetime | int, end: datetime | int | None) -> tuple[int, int | None]:
    asked = bar_range(None, start, end)
    assert asked.start_ms is not None
    return asked.start_ms, asked.end_ms


def _listed(markets: MarketList) -> dict[str, Market | MarketPipeError]:
    return {**markets.failed, **{market.market: market for market in markets.markets}}


def _quoted_in(names: Iterable[str], quote: str | None) -> tuple[str, ...]:
    if quote is None:
        return tuple(sorted(names))
    by_quote: dict[str, list[str]] = {}
    for name in sorted(names):
        by_quote.setdefault(name.partition("-")[0], []).append(name)
    if quote not in by_quote:
        quotes = ", ".join(by_quote)
        raise ValueError(f"no market is quoted in {quote!r}; quotes are {quotes}")
    return tuple(by_quote[quote])


def _cut(book: Orderbook, depth: int) -> Orderbook:
    return book if depth == BOOK_DEPTH else attrs.evolve(book, bids=book.bids[:depth], asks=book.asks[:depth])


def _check_depth(depth: int) -> None:
    if isinstance(depth, bool) or not isinstance(depth, int):
        raise TypeError(f"depth must be a whole number from 1 to {BOOK_DEPTH}, was {depth!r}")
    if not 1 <= depth <= BOOK_DEPTH:
        raise ValueError(f"depth must be a whole number from 1 to {BOOK_DEPTH}, was {depth}")


def _check_age(max_age_s: float) -> None:
    if isinstance(max_age_s, bool) or not isinstance(max_age_s, int | float):
        raise TypeError(f"max_age_s must be a number of seconds, was {max_age_s!r}")
    if not max_age_s >= 0:
        raise ValueError(f"max_age_s must be at least 0, was {max_age_s!r}")
