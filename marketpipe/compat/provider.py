"""The blocking provider."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count as counting
from threading import Lock
from typing import Any, Self, overload

from marketpipe.compat import asking
from marketpipe.compat.asking import Call
from marketpipe.compat.callbacks import Callback, Listener, open_streams
from marketpipe.compat.pipe import CacheSystem, Pipe
from marketpipe.compat.records import PerformanceMetrics
from marketpipe.compat.responses import BatchRequestResult, DataResponse
from marketpipe.compat.status import cache_status, comprehensive_status
from marketpipe.config import Config
from marketpipe.models import Priority

__all__ = ["SmartDataProvider"]


class SmartDataProvider:
    """The blocking provider, for any thread. A context manager; without, `close` it, or the interpreter's exit will.

    ``max_workers``: no more requests than that are in flight at once, as `Limits.in_flight`. ``config``: as
    `marketpipe.connect`. Raises what that raises.
    """

    def __init__(self, max_workers: int = 10, *, config: Config | None = None) -> None:
        self._pipe = Pipe.open(max_workers, config)
        self._listeners: dict[str, Listener] = {}
        self._numbers = counting(1)
        self._lock = Lock()
        self.cache_system = CacheSystem()

    def __repr__(self) -> str:
        return f"<SmartDataProvider over {self._pipe.market!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the subscriptions, then the pipeline. Every further question is answered without success."""
        with self._lock:
            listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener.close()
        self._pipe.market.close()

    # -- one symbol or several --------------------------------------------------------------------------------------

    @overload
    def get_ticker(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first wins
        self, symbols: str, priority: Priority = Priority.HIGH
    ) -> DataResponse: ...
    @overload
    def get_ticker(self, symbols: Iterable[str], priority: Priority = Priority.HIGH) -> BatchRequestResult: ...
    def get_ticker(
        self, symbols: str | Iterable[str], priority: Priority = Priority.HIGH
    ) -> DataResponse | BatchRequestResult:
        """The current state."""
        return self._pipe.ask(Call.of(symbols, priority, lambda: asking.tickers(symbols, priority)))

    @overload
    def get_orderbook(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first wins
        self, symbols: str, priority: Priority = Priority.HIGH
    ) -> DataResponse: ...
    @overload
    def get_orderbook(self, symbols: Iterable[str], priority: Priority = Priority.HIGH) -> BatchRequestResult: ...
    def get_orderbook(
        self, symbols: str | Iterable[str], priority: Priority = Priority.HIGH
    ) -> DataResponse | BatchRequestResult:
        """The order book, best level first."""
        return self._pipe.ask(Call.of(symbols, priority, lambda: asking.orderbooks(symbols, priority)))

    @overload
    def get_trade(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first wins
        self, symbols: str, count: int = 100, priority: Priority = Priority.NORMAL
    ) -> DataResponse: ...
    @overload
    def get_trade(
        self, symbols: Iterable[str], count: int = 100, priority: Priority = Priority.NORMAL
    ) -> BatchRequestResult: ...
    def get_trade(
        self, symbols: str | Iterable[str], count: int = 100, priority: Priority = Priority.NORMAL
    ) -> DataResponse | BatchRequestResult:
        """The newest ``count`` (1..500) trades, newest first."""
        return self._pipe.ask(Call.of(symbols, priority, lambda: asking.trades(symbols, count, priority)))

    @overload
    def get_candle(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first wins
        self,
        symbols: str,
        timeframe: str = "1m",
        count: int | None = None,
        start_time: asking.Time = None,
        end_time: asking.Time = None,
        priority: Priority = Priority.NORMAL,
    ) -> DataResponse: ...
    @overload
    def get_candle(
        self,
        symbols: Iterable[str],
        timeframe: str = "1m",
        count: int | None = None,
        start_time: asking.Time = None,
        end_time: asking.Time = None,
        priority: Priority = Priority.NORMAL,
    ) -> BatchRequestResult: ...
    def get_candle(
        self,
        symbols: str | Iterable[str],
        timeframe: str = "1m",
        count: int | None = None,
        start_time: asking.Time = None,
        end_time: asking.Time = None,
        priority: Priority = Priority.NORMAL,
    ) -> DataResponse | BatchRequestResult:
        """Bars, newest first: the newest ``count`` (200), or those from ``start_time`` to before ``end_time``.

        With ``count`` and ``start_time``, the newest ``count`` of those; without ``end_time``, up to now. Times are ISO
        8601 text or datetimes; without a zone they are UTC. ``timeframe``: as `marketpipe.Client`.
        """
        return self._pipe.ask(
            Call.of(
                symbols, priority, lambda: asking.candles(symbols, timeframe, count, start_time, end_time, priority)
            )
        )

    get_trades = get_trade
    get_candles = get_candle

    # -- lists ------------------------------------------------------------------------------------------------------

    def get_market(self, is_details: bool = False, priority: Priority = Priority.NORMAL) -> DataResponse:
        """All that is listed; with ``is_details`` also the warnings."""
        return self._pipe.ask(Call.of_list(priority, lambda: asking.markets(priority, is_details=is_details)))

    get_markets = get_market

    def get_tickers(self, symbols: str | Iterable[str], priority: Priority = Priority.HIGH) -> DataResponse:
        """The current state of several symbols, as one list."""
        return self._pipe.ask(Call.of_list(priority, lambda: asking.tickers(symbols, priority)))

    def get_continuous_candles(
        self,
        symbol: str,
        timeframe: str,
        start_time: asking.Time,
        end_time: asking.Time,
        include_empty: bool = True,
        priority: Priority = Priority.NORMAL,
    ) -> DataResponse:
        """Bars from ``start_time`` to before ``end_time`` (None: up to now), newest first.

        With ``include_empty``, for charts, a flat bar where nobody traded; without, for indicators, real trades only.
        """
        span = (start_time, end_time)
        return self._pipe.ask(
            Call.of_one(
                priority, lambda: asking.continuous(symbol, timeframe, span, priority, include_empty=include_empty)
            )
        )

    def get_multiple_tickers(self, symbols: Iterable[str], priority: Priority = Priority.NORMAL) -> BatchRequestResult:
        """The current state of each of several symbols."""
        return self._pipe.ask(Call.of_each(symbols, priority, lambda: asking.tickers(symbols, priority)))

    def get_multiple_orderbooks(
        self, symbols: Iterable[str], priority: Priority = Priority.NORMAL
    ) -> BatchRequestResult:
        """The order book of each of several symbols."""
        return self._pipe.ask(Call.of_each(symbols, priority, lambda: asking.orderbooks(symbols, priority)))

    # -- live -------------------------------------------------------------------------------------------------------

    def subscribe_realtime_data(
        self,
        symbols: str | Iterable[str],
        data_types: str | Iterable[str] = ("ticker",),
        callback: Callback | None = None,
    ) -> str:
        """Call ``callback(symbol, data_type, row)`` for whatever happens to these symbols; returns an id.

        ``data_types``: ticker, orderbook, trade, candle (of a minute) or such as candle.5m. The calls come one at a
        time, in a thread of the subscription's own; one that raises is logged, and the next one comes. Without
        ``callback`` the symbols are kept current, for the verbs to find. An answer without success has no place in an
        id: this verb raises `MarketPipeError`, ``TypeError`` or ``ValueError``.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable, was {callback!r}")
        streams = open_streams(self._pipe.market, symbols, data_types)
        name = f"subscription-{next(self._numbers)}"
        with self._lock:
            self._listeners[name] = Listener(name, streams, callback)
        return name

    def unsubscribe_realtime_data(self, subscription_id: str) -> bool:
        """End a subscription: its callback is not called any more. False if there is none of that id."""
        with self._lock:
            listener = self._listeners.pop(subscription_id, None)
        if listener is not None:
            listener.close()
        return listener is not None

    # -- what it says of itself -------------------------------------------------------------------------------------

    def get_performance_metrics(self) -> PerformanceMetrics:
        """How much was answered, and how fast."""
        return self._pipe.tally.metrics(self._pipe.market.status())

    def get_comprehensive_status(self) -> dict[str, Any]:
        """Everything, in the layers of the original: `marketpipe.Status` under its old names."""
        from marketpipe import __version__  # the package itself imports this module

        status = self._pipe.market.status()
        with self._lock:
            listeners = dict(self._listeners)
        return comprehensive_status(
            status,
            self._pipe.tally.metrics(status),
            version=__version__,
            max_workers=self._pipe.max_workers,
            config=self._pipe.config,
            callbacks={
                name: {"symbols": list(listener.symbols), "data_types": list(listener.streams)}
                for name, listener in listeners.items()
            },
        )

    def get_cache_status(self) -> dict[str, Any]:
        """The caches, by kind and together."""
        return cache_status(self._pipe.market.status())

    def clear_memory_cache(self) -> None:
        """Let no answer come from what is in memory now. Bars are not affected: those that have closed are facts."""
        self._pipe.forgotten.all()

    def invalidate_symbol_cache(self, symbol: str) -> None:
        """The same, of one symbol."""
        self._pipe.forgotten.symbol(symbol)

    def reset_stats(self) -> None:
        """Begin anew to count what `get_performance_metrics` tells."""
        self._pipe.tally.reset(self._pipe.market.status())
