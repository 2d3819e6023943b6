"""The awaited provider."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self, overload

from marketpipe.compat import asking
from marketpipe.compat.asking import Call
from marketpipe.compat.pipe import Pipe, in_a_thread
from marketpipe.compat.responses import BatchRequestResult, DataResponse
from marketpipe.config import Config
from marketpipe.models import Priority

__all__ = ["AsyncSmartDataProvider"]


class AsyncSmartDataProvider:
    """The seven verbs that were awaited, on Trio and on asyncio. An async context manager, or `close` it.

    Opening and closing take some tenths of a second; inside ``async with`` only opening holds up the loop. Otherwise
    as `SmartDataProvider`.
    """

    def __init__(self, max_workers: int = 10, *, config: Config | None = None) -> None:
        self._pipe = Pipe.open(max_workers, config)

    def __repr__(self) -> str:
        return f"<AsyncSmartDataProvider over {self._pipe.market!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await in_a_thread(self.close)

    def close(self) -> None:
        """End the pipeline. Every further question is answered without success."""
        self._pipe.market.close()

    @overload
    async def get_ticker(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first wins
        self, symbols: str, priority: Priority = Priority.HIGH
    ) -> DataResponse: ...
    @overload
    async def get_ticker(self, symbols: Iterable[str], priority: Priority = Priority.HIGH) -> BatchRequestResult: ...
    async def get_ticker(
        self, symbols: str | Iterable[str], priority: Priority = Priority.HIGH
    ) -> DataResponse | BatchRequestResult:
        """The current state."""
        return await self._pipe.wait(Call.of(symbols, priority, lambda: asking.tickers(symbols, priority)))

    @overload
    async def get_orderbook(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first wins
        self, symbols: str, priority: Priority = Priority.HIGH
    ) -> DataResponse: ...
    @overload
    async def get_orderbook(self, symbols: Iterable[str], priority: Priority = Priority.HIGH) -> BatchRequestResult: ...
    async def get_orderbook(
        self, symbols: str | Iterable[str], priority: Priority = Priority.HIGH
    ) -> DataResponse | BatchRequestResult:
        """The order book, best level first."""
        return await self._pipe.wait(Call.of(symbols, priority, lambda: asking.orderbooks(symbols, priority)))

    @overload
    async def get_trades(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first wins
        self, symbols: str, count: int = 100, priority: Priority = Priority.NORMAL
    ) -> DataResponse: ...
    @overload
    async def get_trades(
        self, symbols: Iterable[str], count: int = 100, priority: Priority = Priority.NORMAL
    ) -> BatchRequestResult: ...
    async def get_trades(
        self, symbols: str | Iterable[str], count: int = 100, priority: Priority = Priority.NORMAL
    ) -> DataResponse | BatchRequestResult:
        """The newest ``count`` (1..500) trades, newest first."""
        return await self._pipe.wait(Call.of(symbols, priority, lambda: asking.trades(symbols, count, priority)))

    @overload
    async def get_candles(  # type: ignore[overload-overlap]  # a str is an iterable of str too: the first wins
        self,
        symbols: str,
        timeframe: str = "1m",
        count: int | None = None,
        start_time: asking.Time = None,
        end_time: asking.Time = None,
        priority: Priority = Priority.NORMAL,
    ) -> DataResponse: ...
    @overload
    async def get_candles(
        self,
        symbols: Iterable[str],
        timeframe: str = "1m",
        count: int | None = None,
        start_time: asking.Time = None,
        end_time: asking.Time = None,
        priority: Priority = Priority.NORMAL,
    ) -> BatchRequestResult: ...
    async def get_candles(
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
        return await self._pipe.wait(
            Call.of(
                symbols, priority, lambda: asking.candles(symbols, timeframe, count, start_time, end_time, priority)
            )
        )

    async def get_markets(self, is_details: bool = False, priority: Priority = Priority.NORMAL) -> DataResponse:
        """All that is listed; with ``is_details`` also the warnings."""
        return await self._pipe.wait(Call.of_list(priority, lambda: asking.markets(priority, is_details=is_details)))

    async def get_tickers(self, symbols: str | Iterable[str], priority: Priority = Priority.HIGH) -> DataResponse:
        """The current state of several symbols, as one list."""
        return await self._pipe.wait(Call.of_list(priority, lambda: asking.tickers(symbols, priority)))

    async def get_continuous_candles(
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
        return await self._pipe.wait(
            Call.of_one(
                priority, lambda: asking.continuous(symbol, timeframe, span, priority, include_empty=include_empty)
            )
        )
