"""ccxt.pro: one ``watch_*`` loop for each stream, as its manual shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import ccxt.pro as pro
from ccxt_words import symbol, ticker, trade
from telling import BASE_URL, CODES, LISTEN_S, now_ms, tell

STREAMED = CODES[:3]


async def watched(watch: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Everything that ``watch`` gives for as long as it is listened to."""
    seen: list[Any] = []
    end_ms = now_ms() + LISTEN_S * 1000
    while (left_s := (end_ms - now_ms()) / 1000) > 0:
        try:
            seen.append(await asyncio.wait_for(watch(), left_s))
        except TimeoutError:
            break
    return seen


def told(stream: str, code: str, asked_ms: int, rows: list[Any], **more: Any) -> None:
    tell("frames", code, asked_ms, rows, stream=stream, **more)


async def main() -> None:
    client = pro.upbit({"hostname": BASE_URL.removeprefix("http://")})
    client.urls["api"]["public"] = client.urls["api"]["private"] = "http://{hostname}"
    client.urls["api"]["ws"] = "ws://{hostname}/websocket/v1"
    try:
        await client.load_markets()
        symbols = [symbol(code) for code in STREAMED]

        asked_ms = now_ms()
        pages = await watched(lambda: client.watch_trades_for_symbols(symbols))
        trades = [each for page in pages for each in page]
        for code in STREAMED:
            mine = [each for each in trades if each["symbol"] == symbol(code)]
            # What it calls the trade's time is the frame's `timestamp`.
            rows = [trade(each) for each in mine]
            tell("trade time", code, asked_ms, [trade(each, "trade_timestamp") for each in mine])
            told("trade", code, asked_ms, rows, whole=True)

        asked_ms = now_ms()
        seen = await watched(lambda: client.watch_ticker(symbols[0]))
        told("ticker", STREAMED[0], asked_ms, [ticker(each, "code") for each in seen], whole=False)

        def book(seen: dict[str, Any]) -> dict[str, Any]:
            sides = {side: [list(level) for level in seen[side]] for side in ("asks", "bids")}
            return {"timestamp": seen["timestamp"], **sides}

        asked_ms = now_ms()

        async def next_book() -> dict[str, Any]:
            return book(await client.watch_order_book(symbols[1]))

        told("orderbook", STREAMED[1], asked_ms, await watched(next_book), whole=False, depth=15)
    finally:
        await client.close()


asyncio.run(main())
