"""ccxt, asynchronous, with its own pacing on (https://docs.ccxt.com)."""

from __future__ import annotations

import asyncio
from typing import Any

import ccxt.async_support as ccxt
from ccxt_words import bar, symbol, ticker, trade
from telling import BASE_URL, CODES, Asking, now_ms, refused, units

PERIODS_MS = {"1s": 1_000, "1m": 60_000, "15m": 900_000, "4h": 14_400_000, "1d": 86_400_000, "1w": 604_800_000}
KINDS = {"1s": "seconds", "1m": "minutes/1", "15m": "minutes/15", "4h": "minutes/240", "1d": "days", "1w": "weeks"}
WEEK_MS, MONDAY_MS = 604_800_000, 4 * 86_400_000
LIMIT = 60


async def ask(client: Any) -> None:
    with Asking() as asking:
        markets = await client.load_markets()
    asking.tell("markets", "all", [market["id"] for market in markets.values()])
    with Asking() as asking:
        tickers = await client.fetch_tickers()
    for seen in tickers.values():
        asking.tell("ticker", seen["info"]["market"], ticker(seen))
    with Asking() as asking:
        books = await client.fetch_order_books([symbol(code) for code in CODES])
    for seen in books.values():
        code = client.market(seen["symbol"])["id"]
        sides = {side: units([level[:2] for level in seen[side]]) for side in ("asks", "bids")}
        asking.tell("orderbook", code, {"timestamp": seen["timestamp"], **sides})
    for code in CODES:
        with Asking() as asking:
            one = await client.fetch_ticker(symbol(code))
        asking.tell("ticker", code, ticker(one))
        with Asking() as asking:
            trades = await client.fetch_trades(symbol(code), limit=200)
        asking.tell("trades", code, [trade(seen) for seen in reversed(trades)], count=200)
        for timeframe, period_ms in PERIODS_MS.items():
            # Weeks begin on Mondays, the epoch on a Thursday.
            offset_ms = MONDAY_MS if period_ms == WEEK_MS else 0
            since = (now_ms() - offset_ms) // period_ms * period_ms + offset_ms - 2 * LIMIT * period_ms
            with Asking() as asking:
                bars = await client.fetch_ohlcv(symbol(code), timeframe, since, LIMIT)
            span = {"from_ms": since, "until_ms": since + LIMIT * period_ms}
            asking.tell("candles", code, [bar(seen) for seen in bars], kind=KINDS[timeframe], **span)


async def be_refused(client: Any) -> None:
    try:
        await client.public_get_ticker({"markets": "KRW-NOPE"})
        refused("ExchangeError", None)
    except ccxt.ExchangeError as error:
        refused("ExchangeError" if "Code not found" in str(error) else "its words", error)
    client.enableRateLimit = False
    answers = await asyncio.gather(*(client.fetch_ticker("BTC/KRW") for _ in range(40)), return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    refused("RateLimitExceeded", errors[0] if errors else None)


async def main() -> None:
    client = ccxt.upbit({"hostname": BASE_URL.removeprefix("http://")})
    client.urls["api"]["public"] = client.urls["api"]["private"] = "http://{hostname}"
    try:
        await ask(client)
        await be_refused(client)
    finally:
        await client.close()


asyncio.run(main())
