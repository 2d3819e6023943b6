"""cryptofeed: addresses are class attributes; it refuses ws://, so its connect is given the simulator's address."""

from __future__ import annotations

import asyncio
from typing import Any

import cryptofeed.connection as connection
from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import L2_BOOK, TRADES
from cryptofeed.exchanges import Upbit
from telling import BASE_URL, CODES, LISTEN_S, WS_URL, Asking, now_ms, tell

INTERVALS = {"1m": "minutes/1", "15m": "minutes/15", "4h": "minutes/240"}
# A page takes it a tenth of a second, and a call without a page none: it paces pages only.
PAUSE_S = 0.3
PERIODS_S = {"1m": 60, "15m": 900, "4h": 14_400}

Upbit.rest_endpoints = [RestEndpoint(BASE_URL, routes=Routes("/v1/market/all"))]
Upbit.api = f"{BASE_URL}/v1/"
Upbit.websocket_endpoints = [WebsocketEndpoint(WS_URL.replace("ws://", "wss://"))]
_connect = connection.connect
connection.connect = lambda uri, **options: _connect(WS_URL, **options)


def symbol(code: str) -> str:
    quote, base = code.split("-")
    return f"{base}-{quote}"


def bar(candle: Any) -> dict[str, Any]:
    return {
        "open_ms": round(candle.start * 1000),
        "opening_price": candle.open,
        "high_price": candle.high,
        "low_price": candle.low,
        "trade_price": candle.close,
        "candle_acc_trade_volume": candle.volume,
        "timestamp": round(candle.timestamp * 1000),
    }


async def ask(feed: Upbit) -> None:
    with Asking() as asking:
        mapping = Upbit.symbol_mapping(refresh=True)
    asking.tell("markets", "all", list(mapping.values()))
    # In markets with gaps its paging may never end.
    for code in CODES[:3]:
        for interval, kind in INTERVALS.items():
            period_ms = PERIODS_S[interval] * 1000
            start_ms = now_ms() // period_ms * period_ms - 300 * period_ms
            end_ms = start_ms + 250 * period_ms
            bars: list[Any] = []
            with Asking() as asking:
                async for page in feed.candles(symbol(code), start_ms / 1000, end_ms / 1000, interval):
                    bars += page
            rows = [bar(candle) for candle in bars]
            span = {"from_ms": start_ms, "until_ms": end_ms + period_ms}
            asking.tell("candles", code, rows, kind=kind, **span)
            await asyncio.sleep(PAUSE_S)


async def listen() -> None:
    trades: list[dict[str, Any]] = []
    books: list[dict[str, Any]] = []

    async def on_trade(trade: Any, received_s: float) -> None:
        trades.append({
            "code": trade.raw["cd"],
            "sequential_id": int(trade.id),
            "trade_timestamp": round(trade.timestamp * 1000),
            "ask_bid": trade.side.replace("buy", "BID").replace("sell", "ASK"),
            "trade_price": trade.price,
            "trade_volume": trade.amount,
        })  # fmt: skip

    async def on_book(book: Any, received_s: float) -> None:
        sides = {
            "asks": [list(level) for level in book.book.asks.to_dict().items()],
            "bids": [list(level) for level in book.book.bids.to_dict().items()],
        }
        books.append({"code": book.raw["cd"], "timestamp": round(book.timestamp * 1000), **sides})

    asked_ms = now_ms()
    handler = FeedHandler()
    symbols = [symbol(code) for code in CODES[:3]]
    feed = Upbit(symbols=symbols, channels=[TRADES, L2_BOOK], callbacks={TRADES: on_trade, L2_BOOK: on_book})
    handler.add_feed(feed)
    handler.run(start_loop=False, install_signal_handlers=False)
    await asyncio.sleep(LISTEN_S)
    for each in handler.feeds:
        await each.shutdown()
    for stream, seen in (("trade", trades), ("orderbook", books)):
        for code in CODES[:3]:
            rows = [row for row in seen if row["code"] == code]
            tell("frames", code, asked_ms, rows, stream=stream, whole=True)


async def main() -> None:
    await ask(Upbit())
    await listen()


asyncio.run(main())
