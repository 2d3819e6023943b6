"""The same verbs for programs without Trio: threads, notebooks, and, as futures, asyncio and Qt.

::

    with mp.connect() as market:
        print(market.get_ticker("KRW-BTC").price)
        with market.stream_trade("KRW-BTC") as trades:
            for event in trades: ...

    ticker = await asyncio.wrap_future(market.submit.get_ticker("KRW-BTC"))

The pipeline runs in one thread of its own (`marketpipe.portal`), whatever the number of threads that ask. Nothing is
decided here: every call is the verb of `marketpipe.client.Client` of the same name, over there.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial, wraps
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, overload

import trio

from marketpipe.actors.hub import Subscription
from marketpipe.actors.job import Job
from marketpipe.client import BOOK_DEPTH, Client
from marketpipe.config import Config
from marketpipe.core.buffers import Policy, SubscriptionStatistics
from marketpipe.core.checkup import StoreCheck
from marketpipe.core.collection import CollectionSummary, Explanation
from marketpipe.core.progress import Progress, Report
from marketpipe.errors import MarketPipeError
from marketpipe.models import Batch, Candle, CandleSeries, Gap, Market, Orderbook, Priority, Ticker, Trade
from marketpipe.pipeline import open_pipeline
from marketpipe.portal import Held, Opener, Portal
from marketpipe.status import Status

__all__ = ["BlockingClient", "BlockingJob", "BlockingSubscription", "connect"]

P = ParamSpec("P")
T = TypeVar("T")


def connect(config: Config | None = None, **options: Any) -> BlockingClient:
    """Open a pipeline to the exchange in a thread of its own. ``config`` and ``options``: as `open_pipeline`.

    Raises what opening it raises, such as `StoreError`. Close it, or use it as a context manager.
    """
    return BlockingClient(partial(open_pipeline, config, **options))


class BlockingSubscription(Generic[T]):
    """A stream of values, with a `Gap` in band wherever some may be missing: ``for event in subscription``.

    Several threads may read it; each value goes to exactly one. Reading ends with the reason why there will be no more,
    as with `marketpipe.Subscription`; after `close` a loop over it simply ends.
    """

    def __init__(self, held: Held[Subscription[T]], portal: Portal) -> None:
        self._held = held
        self._portal = portal
        self._closed = threading.Event()
        self._returned: deque[T | Gap] = deque()  # taken for a reader that was interrupted

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._held.value)[1:]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[T | Gap]:
        return self

    def __next__(self) -> T | Gap:
        try:
            return self.receive()
        except ValueError:
            if self._closed.is_set():
                raise StopIteration from None
            raise

    def receive(self, timeout: float | None = None) -> T | Gap:
        """The next value, when there is one; `TimeoutError` if none comes within ``timeout`` seconds.

        ``ValueError`` once it was closed.
        """
        if self._closed.is_set():
            raise ValueError("this subscription was closed; open a new one to listen again")

        async def take(_: Client) -> T | Gap:
            if self._returned:
                await trio.lowlevel.checkpoint()
                return self._returned.popleft()
            return await self._held.value.__anext__()

        try:
            return self._portal.call(take, timeout, undo=self._returned.append)
        except trio.ClosedResourceError:
            if not self._closed.is_set():  # the end of the pipeline has closed it
                raise self._portal.closed() from None
            raise ValueError("this subscription was closed while it was read") from None

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets it listens to, in the order asked, those that failed included."""
        return self._held.value.markets

    @property
    def failed(self) -> Mapping[str, MarketPipeError]:
        """Markets from which nothing will come any more, and why, as of now."""
        return self._portal.call_sync(lambda _: dict(self._held.value.failed))

    def statistics(self) -> SubscriptionStatistics:
        """What became of its values."""
        return self._portal.call_sync(lambda _: self._held.value.statistics())

    def close(self) -> None:
        """Listen no more; whoever waits for a value is told."""
        self._closed.set()
        self._held.leave()


class BlockingJob:
    """A collection that runs in the background of the pipeline. As `marketpipe.Job`."""

    def __init__(self, job: Job, portal: Portal) -> None:
        self._job = job
        self._portal = portal

    def pause(self) -> None:
        """Ask for nothing more until `resume`; pages that are under way are still stored."""
        self._portal.call_sync(lambda _: self._job.pause())

    def resume(self) -> None:
        """Go on after `pause`."""
        self._portal.call_sync(lambda _: self._job.resume())

    def cancel(self) -> None:
        """End it; what it has stored stays stored. Nothing happens if it has ended."""
        self._portal.call_sync(lambda _: self._job.cancel())

    @property
    def is_over(self) -> bool:
        """Whether it has ended, in whichever way."""
        return self._job.is_over

    def wait(self, timeout: float | None = None) -> Report:
        """Wait until it has ended, and return what became of it; `TimeoutError` leaves it running."""
        return self._portal.call(lambda _: self._job.wait(), timeout)

    def progress(self, *, every_s: float = 0.5) -> Iterator[Progress]:
        """How far it is, now and every ``every_s`` seconds; the last one when it has ended."""
        return self._portal.iterate(lambda _: self._job.progress(every_s=every_s))

    def snapshot(self) -> Progress:
        """How far it is at this moment."""
        return self._portal.call_sync(lambda _: self._job.snapshot())


def _held(portal: Portal, begin: Callable[[Client], Awaitable[Job]]) -> Callable[[Client], Awaitable[BlockingJob]]:
    async def held(client: Client) -> BlockingJob:
        return BlockingJob(await begin(client), portal)

    return held


def _give_up(unwanted: BlockingJob) -> None:
    unwanted._job.cancel()  # the pipeline's own thread calls this


def _submitted(
    verb: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Submit, P], Future[T]]:
    @wraps(verb)
    def submit(self: Submit, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._portal.submit(lambda client: verb(client, *args, **kwargs))

    return submit


def _submitted_job(
    verb: Callable[Concatenate[Client, P], Coroutine[Any, Any, Job]],
) -> Callable[Concatenate[Submit, P], Future[BlockingJob]]:
    @wraps(verb)
    def submit(self: Submit, /, *args: P.args, **kwargs: P.kwargs) -> Future[BlockingJob]:
        held = _held(self._portal, lambda client: verb(client, *args, **kwargs))
        return self._portal.submit(held, undo=_give_up)

    return submit


class Submit:
    """The verbs as `concurrent.futures.Future`: begun at once, waited for by whoever wants.

    ``await asyncio.wrap_future(market.submit.get_ticker("KRW-BTC"))``. Cancelling a future gives the question up.
    Misuse of a verb comes with the future, as from any executor.
    """

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    get_ticker = _submitted(Client.get_ticker)
    get_orderbook = _submitted(Client.get_orderbook)
    get_trade = _submitted(Client.get_trade)
    get_candle = _submitted(Client.get_candle)
    get_market = _submitted(Client.get_market)
    explain_candle = _submitted(Client.explain_candle)
    collection_summary = _submitted(Client.collection_summary)
    check_store = _submitted(Client.check_store)
    start_backfill = _submitted_job(Client.start_backfill)
    repair_store = _submitted_job(Client.repair_store)


class BlockingClient:
    """The verbs of `marketpipe.Client`, each of which waits for its answer. Made by `connect`.

    Any thread of this process may call it; a fork of the process must connect by itself. ``timeout`` is how many
    seconds an answer may take (None: for ever), `TimeoutError` says that it took longer, and giving up disturbs nobody
    else. `PipelineClosed` is raised once it was closed, also by whoever waits then. ``submit`` gives futures.
    While the main thread waits, Ctrl-C is answered within 0.2 s.
    """

    def __init__(self, opener: Opener) -> None:
        self._portal = portal = Portal(opener)
        self.submit = Submit(portal)

    def __repr__(self) -> str:
        return f"<BlockingClient {'open' if self._portal.is_open else 'closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        portal = getattr(self, "_portal", None)  # there is none if opening it failed
        if portal is not None and portal.is_open and not sys.is_finalizing():
            portal.signal_end()
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)

    def close(self) -> None:
        """Leave the pipeline, with what was collected stored; under 2 s. `PipelineCrashed` if it had crashed."""
        self._portal.close()

    # -- tickers and order books --------------------------------------------------------------------------------

    @overload
    def get_ticker(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
        self,
        symbols: str,
        *,
        max_age_s: float | None = None,
        priority: Priority = Priority.HIGH,
        timeout: float | None = None,
    ) -> Ticker: ...
    @overload
    def get_ticker(
        self,
        symbols: Iterable[str],
        *,
        max_age_s: float | None = None,
        priority: Priority = Priority.HIGH,
        timeout: float | None = None,
    ) -> Batch[Ticker]: ...
    def get_ticker(
        self,
        symbols: str | Iterable[str],
        *,
        max_age_s: float | None = None,
        priority: Priority = Priority.HIGH,
        timeout: float | None = None,
    ) -> Ticker | Batch[Ticker]:
        """As `marketpipe.Client.get_ticker`."""
        return self._portal.call(
            lambda client: client.get_ticker(symbols, max_age_s=max_age_s, priority=priority), timeout
        )

    @overload
    def get_orderbook(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
        self,
        symbols: str,
        *,
        depth: int = BOOK_DEPTH,
        max_age_s: float | None = None,
        priority: Priority = Priority.HIGH,
        timeout: float | None = None,
    ) -> Orderbook: ...
    @overload
    def get_orderbook(
        self,
        symbols: Iterable[str],
        *,
        depth: int = BOOK_DEPTH,
        max_age_s: float | None = None,
        priority: Priority = Priority.HIGH,
        timeout: float | None = None,
    ) -> Batch[Orderbook]: ...
    def get_orderbook(
        self,
        symbols: str | Iterable[str],
        *,
        depth: int = BOOK_DEPTH,
        max_age_s: float | None = None,
        priority: Priority = Priority.HIGH,
        timeout: float | None = None,
    ) -> Orderbook | Batch[Orderbook]:
        """As `marketpipe.Client.get_orderbook`."""
        return self._portal.call(
            lambda client: client.get_orderbook(symbols, depth=depth, max_age_s=max_age_s, priority=priority), timeout
        )

    def get_ticker_nowait(self, symbol: str, *, max_age_s: float | None = None) -> Ticker:
        """The ticker if a fresh one is in memory; `trio.WouldBlock` if it would have to be fetched."""
        return self._portal.call_sync(lambda client: client.get_ticker_nowait(symbol, max_age_s=max_age_s))

    def get_orderbook_nowait(
        self, symbol: str, *, depth: int = BOOK_DEPTH, max_age_s: float | None = None
    ) -> Orderbook:
        """The book if a fresh one is in memory; `trio.WouldBlock` if it would have to be fetched."""
        return self._portal.call_sync(
            lambda client: client.get_orderbook_nowait(symbol, depth=depth, max_age_s=max_age_s)
        )

    # -- trades, candles, markets -------------------------------------------------------------------------------

    @overload
    def get_trade(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
        self,
        symbols: str,
        *,
        count: int = 100,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
        timeout: float | None = None,
    ) -> tuple[Trade, ...]: ...
    @overload
    def get_trade(
        self,
        symbols: Iterable[str],
        *,
        count: int = 100,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
        timeout: float | None = None,
    ) -> Batch[tuple[Trade, ...]]: ...
    def get_trade(
        self,
        symbols: str | Iterable[str],
        *,
        count: int = 100,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
        timeout: float | None = None,
    ) -> tuple[Trade, ...] | Batch[tuple[Trade, ...]]:
        """As `marketpipe.Client.get_trade`."""
        return self._portal.call(
            lambda client: client.get_trade(symbols, count=count, max_age_s=max_age_s, priority=priority), timeout
        )

    @overload
    def get_candle(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
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
        timeout: float | None = None,
    ) -> CandleSeries: ...
    @overload
    def get_candle(
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
        timeout: float | None = None,
    ) -> Batch[CandleSeries]: ...
    def get_candle(
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
        timeout: float | None = None,
    ) -> CandleSeries | Batch[CandleSeries]:
        """As `marketpipe.Client.get_candle`."""
        return self._portal.call(
            lambda client: client.get_candle(
                symbols,
                timeframe,
                count=count,
                start=start,
                end=end,
                closed_only=closed_only,
                fill=fill,
                priority=priority,
            ),
            timeout,
        )

    def iterate_candle(
        self,
        symbol: str,
        timeframe: str = "1m",
        *,
        start: datetime | int,
        end: datetime | int | None = None,
        stored_only: bool = False,
        priority: Priority = Priority.NORMAL,
    ) -> Iterator[CandleSeries]:
        """As `marketpipe.Client.iterate_candle`: ``for bars in market.iterate_candle("KRW-BTC", start=...)``."""
        return self._portal.iterate(
            lambda client: client.iterate_candle(
                symbol, timeframe, start=start, end=end, stored_only=stored_only, priority=priority
            )
        )

    @overload
    def explain_candle(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
        self,
        symbols: str,
        timeframe: str = "1m",
        *,
        count: int | None = None,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
        timeout: float | None = None,
    ) -> Explanation: ...
    @overload
    def explain_candle(
        self,
        symbols: Iterable[str],
        timeframe: str = "1m",
        *,
        count: int | None = None,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
        timeout: float | None = None,
    ) -> Batch[Explanation]: ...
    def explain_candle(
        self,
        symbols: str | Iterable[str],
        timeframe: str = "1m",
        *,
        count: int | None = None,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
        timeout: float | None = None,
    ) -> Explanation | Batch[Explanation]:
        """As `marketpipe.Client.explain_candle`."""
        return self._portal.call(
            lambda client: client.explain_candle(symbols, timeframe, count=count, start=start, end=end), timeout
        )

    @overload
    def get_market(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first signature wins
        self,
        symbols: str,
        *,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
        timeout: float | None = None,
    ) -> Market: ...
    @overload
    def get_market(
        self,
        symbols: Iterable[str],
        *,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
        timeout: float | None = None,
    ) -> Batch[Market]: ...
    @overload
    def get_market(
        self,
        symbols: None = None,
        *,
        quote: str | None = None,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
        timeout: float | None = None,
    ) -> Batch[Market]: ...
    def get_market(
        self,
        symbols: Any = None,
        *,
        quote: str | None = None,
        max_age_s: float | None = None,
        priority: Priority = Priority.NORMAL,
        timeout: float | None = None,
    ) -> Market | Batch[Market]:
        """As `marketpipe.Client.get_market`."""
        return self._portal.call(
            lambda client: client.get_market(symbols, quote=quote, max_age_s=max_age_s, priority=priority), timeout
        )

    # -- collecting ---------------------------------------------------------------------------------------------

    def collection_summary(
        self,
        symbol: str,
        timeframe: str = "1m",
        *,
        start: datetime | int,
        end: datetime | int | None = None,
        timeout: float | None = None,
    ) -> CollectionSummary:
        """As `marketpipe.Client.collection_summary`."""
        return self._portal.call(
            lambda client: client.collection_summary(symbol, timeframe, start=start, end=end), timeout
        )

    def start_backfill(
        self,
        symbols: str | Iterable[str],
        timeframe: str | Iterable[str] = "1m",
        *,
        start: datetime | int,
        end: datetime | int | None = None,
        priority: Priority = Priority.LOW,
        timeout: float | None = None,
    ) -> BlockingJob:
        """As `marketpipe.Client.start_backfill`; the job goes on in the background until it ends or this is closed."""
        return self._begin(
            lambda client: client.start_backfill(symbols, timeframe, start=start, end=end, priority=priority), timeout
        )

    def check_store(self, *, timeout: float | None = None) -> StoreCheck:
        """As `marketpipe.Client.check_store`."""
        return self._portal.call(lambda client: client.check_store(), timeout)

    def repair_store(self, *, priority: Priority = Priority.LOW, timeout: float | None = None) -> BlockingJob:
        """As `marketpipe.Client.repair_store`."""
        return self._begin(lambda client: client.repair_store(priority=priority), timeout)

    def _begin(self, begin: Callable[[Client], Awaitable[Job]], timeout: float | None) -> BlockingJob:
        return self._portal.call(_held(self._portal, begin), timeout, undo=_give_up)

    # -- streams ------------------------------------------------------------------------------------------------

    def stream_ticker(
        self,
        symbols: str | Iterable[str],
        *,
        policy: Policy = "conflate",
        depth: int = 1000,
        timeout: float | None = None,
    ) -> BlockingSubscription[Ticker]:
        """As `marketpipe.Client.stream_ticker`, opened at once: ``with market.stream_ticker(...) as tickers:``."""
        return self._listen(lambda client: client.stream_ticker(symbols, policy=policy, depth=depth), timeout)

    def stream_orderbook(
        self,
        symbols: str | Iterable[str],
        *,
        policy: Policy = "conflate",
        depth: int = 1000,
        timeout: float | None = None,
    ) -> BlockingSubscription[Orderbook]:
        """As `marketpipe.Client.stream_orderbook`, opened at once."""
        return self._listen(lambda client: client.stream_orderbook(symbols, policy=policy, depth=depth), timeout)

    def stream_trade(
        self,
        symbols: str | Iterable[str],
        *,
        policy: Policy = "cut-off",
        depth: int = 1000,
        timeout: float | None = None,
    ) -> BlockingSubscription[Trade]:
        """As `marketpipe.Client.stream_trade`, opened at once."""
        return self._listen(lambda client: client.stream_trade(symbols, policy=policy, depth=depth), timeout)

    def stream_candle(
        self,
        symbols: str | Iterable[str],
        timeframe: str = "1m",
        *,
        history: int = 0,
        policy: Policy = "cut-off",
        depth: int = 1000,
        timeout: float | None = None,
    ) -> BlockingSubscription[Candle]:
        """As `marketpipe.Client.stream_candle`, opened at once."""
        return self._listen(
            lambda client: client.stream_candle(symbols, timeframe, history=history, policy=policy, depth=depth),
            timeout,
        )

    def _listen(
        self, make: Callable[[Client], AbstractAsyncContextManager[Subscription[T]]], timeout: float | None
    ) -> BlockingSubscription[T]:
        return BlockingSubscription(self._portal.enter(make, timeout), self._portal)

    # -- what it says of itself ---------------------------------------------------------------------------------

    def status(self) -> Status:
        """As `marketpipe.Client.status`."""
        return self._portal.call_sync(lambda client: client.status())
