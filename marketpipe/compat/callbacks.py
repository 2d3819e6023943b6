"""Streams told to a callback, in a thread of its own.

::

    stream of tickers ── reader thread ──┐
    stream of trades  ── reader thread ──┴──> one event at a time ──> worker thread: callback(symbol, data_type, row)

A callback that is slow holds up its own readers, and then the policy of its streams decides: tickers, books and bars
are replaced by newer ones, the oldest trades are dropped, with a word in the log. Nobody else is delayed.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from marketpipe.blocking import BlockingClient, BlockingSubscription
from marketpipe.compat.rows import Row, candle_row, orderbook_row, ticker_row, trade_row
from marketpipe.errors import MarketPipeError, PipelineClosed
from marketpipe.logs import fields
from marketpipe.models import Candle, Gap, Orderbook, Ticker, Trade

__all__ = ["Callback", "Listener", "open_streams"]

logger = logging.getLogger("marketpipe.compat")

Callback = Callable[[str, str, Row], object]
Streams = dict[str, BlockingSubscription[Any]]

# How long leaving waits for a callback that is running.
LEAVE_S = 2.0
CANDLE = "candle"


def open_streams(market: BlockingClient, symbols: str | Iterable[str], data_types: str | Iterable[str]) -> Streams:
    """One stream for each data type, opened: ticker, orderbook, trade, candle (of a minute) or such as candle.5m.

    Raises what opening them raises, with none of them left open; ``ValueError`` for a type that there is not.
    """
    names = symbols if isinstance(symbols, str) else list(symbols)
    asked = list(dict.fromkeys([data_types] if isinstance(data_types, str) else data_types))
    if not asked:
        raise ValueError(f"data_types must name at least one type, was {data_types!r}")
    for data_type in asked:
        _check(data_type)
    streams: Streams = {}
    try:
        for data_type in asked:
            streams[data_type] = _open(market, names, data_type)
    except BaseException:
        for stream in streams.values():
            stream.close()
        raise
    return streams


class Listener:
    """Calls ``callback`` for whatever ``streams`` bring, one call at a time; without one it only keeps them open."""

    def __init__(self, name: str, streams: Streams, callback: Callback | None) -> None:
        self.streams = streams
        self._name = name
        self._callback = callback
        self._closed = threading.Event()
        # One, so that what waits, waits in the streams, where their policies are.
        self._events: queue.Queue[tuple[str, Any] | None] = queue.Queue(1)
        self._worker = threading.Thread(target=self._work, name=f"marketpipe callback {name}", daemon=True)
        for data_type, stream in streams.items():
            for symbol, error in stream.failed.items():
                about = fields("no-stream", error, market=symbol, data_type=data_type)
                logger.warning("%s: no %s of %s: %s", name, data_type, symbol, error, extra=about)
        if callback is not None:
            self._worker.start()
            for data_type, stream in streams.items():
                reader = threading.Thread(
                    target=self._read, args=(data_type, stream), name=f"marketpipe {data_type} {name}", daemon=True
                )
                reader.start()

    @property
    def symbols(self) -> Sequence[str]:
        """The markets it listens to."""
        return next(iter(self.streams.values())).markets

    def close(self) -> None:
        """Call back no more: no call begins after this, and one that is running is waited for, for up to two seconds.

        It may be called by the callback itself, which then is the last call.
        """
        self._closed.set()
        for stream in self.streams.values():
            stream.close()
        if self._worker.is_alive() and threading.current_thread() is not self._worker:
            self._worker.join(LEAVE_S)

    def _read(self, data_type: str, stream: BlockingSubscription[Any]) -> None:
        try:
            for event in stream:
                self._events.put((data_type, event))
        except PipelineClosed:
            about = fields("left", data_type=data_type)
            logger.debug("%s: %s ended with the pipeline", self._name, data_type, extra=about)
        except MarketPipeError as error:
            about = fields("ended", error, data_type=data_type)
            logger.warning("%s: %s ended: %s", self._name, data_type, error, extra=about)
        finally:
            self._events.put(None)

    def _work(self) -> None:
        reading = len(self.streams)
        while reading:
            event = self._events.get()
            if event is None:
                reading -= 1
            elif not self._closed.is_set():
                self._tell(*event)

    def _tell(self, data_type: str, event: Any) -> None:
        if isinstance(event, Gap):
            level = logging.INFO if event.is_open or event.repaired else logging.WARNING
            about = fields("gap", market=event.market, data_type=data_type, repaired=event.repaired)
            logger.log(level, "%s: a gap in %s: %s", self._name, data_type, event, extra=about)
            return
        assert self._callback is not None
        try:
            self._callback(event.market, data_type, _row(event))
        except BaseException:
            # Also SystemExit: it would end this thread, and with it the stream, without a word.
            about = fields("callback-failed", market=event.market, data_type=data_type)
            logger.exception("%s: the callback failed on a %s of %s", self._name, data_type, event.market, extra=about)


def _check(data_type: object) -> None:
    if data_type in _PLAIN or (isinstance(data_type, str) and data_type.partition(".")[0] == CANDLE):
        return  # which timeframes there are, the stream knows
    raise ValueError(f"data_types may be ticker, orderbook, trade, candle or such as candle.5m, was {data_type!r}")


def _open(market: BlockingClient, symbols: str | list[str], data_type: str) -> BlockingSubscription[Any]:
    if data_type in _PLAIN:
        return _PLAIN[data_type](market, symbols)
    return market.stream_candle(symbols, data_type.partition(".")[2] or "1m", policy="conflate")


_PLAIN: dict[str, Callable[[BlockingClient, str | list[str]], BlockingSubscription[Any]]] = {
    "ticker": lambda market, symbols: market.stream_ticker(symbols),
    "orderbook": lambda market, symbols: market.stream_orderbook(symbols),
    "trade": lambda market, symbols: market.stream_trade(symbols, policy="drop-oldest"),
}


def _row(value: Ticker | Orderbook | Trade | Candle) -> Row:
    match value:
        case Ticker():
            return ticker_row(value)
        case Orderbook():
            return orderbook_row(value)
        case Trade():
            return trade_row(value)
        case Candle():
            return candle_row(value)
