"""One client asking one task, as a process: ``python -m bench.rival CLIENT TASK BASE_URL``, the symbols on stdin.

Each is used as its documentation shows, with its own rate limit on where it has one, and warm: the market list is
loaded where the client wants it. Prints seconds, prices and errors as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import trio

# Imports of the rivals stand in their functions: only one of them is needed, and none may be installed.

Told = dict[str, Any]
# What upbit's documentation calls too many at once; the usual way to use a client that blocks.
THREADS = 10


def main() -> None:
    """Run, print, leave."""
    client, task, base_url = sys.argv[1:4]
    names = json.load(sys.stdin)
    print(json.dumps(CLIENTS[client](task, base_url, names)))


def _marketpipe(task: str, base_url: str, names: Sequence[str]) -> Told:
    return trio.run(_ask_marketpipe, task, base_url, names)


async def _ask_marketpipe(task: str, base_url: str, names: Sequence[str]) -> Told:
    from marketpipe import open_pipeline

    prices: dict[str, float] = {}
    async with open_pipeline(base_url=base_url) as market:
        await market.get_market()

        async def caller(name: str) -> None:
            prices[name] = float((await market.get_ticker(name)).price)

        began_s = perf_counter()
        if task == "batch":
            prices.update((name, float(ticker.price)) for name, ticker in (await market.get_ticker(names)).items())
        else:
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(caller, name)
        return _told(began_s, prices, [])


def _ccxt(task: str, base_url: str, names: Sequence[str]) -> Told:
    return asyncio.run(_ask_ccxt(task, base_url, names))


async def _ask_ccxt(task: str, base_url: str, names: Sequence[str]) -> Told:
    import ccxt.async_support as ccxt

    exchange = ccxt.upbit({"hostname": base_url.removeprefix("http://")})
    exchange.urls["api"]["public"] = exchange.urls["api"]["private"] = "http://{hostname}"
    try:
        await exchange.load_markets()
        symbols = {exchange.markets_by_id[name][0]["symbol"]: name for name in names}
        began_s = perf_counter()
        if task == "batch":
            tickers = list((await exchange.fetch_tickers(list(symbols))).values())
        else:
            calls = [exchange.fetch_ticker(symbol) for symbol in symbols]
            tickers = await asyncio.gather(*calls, return_exceptions=True)
        errors = [type(each).__name__ for each in tickers if isinstance(each, BaseException)]
        prices = {symbols[each["symbol"]]: each["last"] for each in tickers if isinstance(each, dict)}
        return _told(began_s, prices, errors)
    finally:
        await exchange.close()


def _pyupbit(task: str, base_url: str, names: Sequence[str]) -> Told:
    import pyupbit
    from pyupbit import request_api

    ask = request_api._call_get
    request_api._call_get = lambda url, **words: ask(url.replace("https://api.upbit.com", base_url), **words)
    errors: list[str] = []

    def caller(name: str) -> float | None:
        try:
            price: float | None = pyupbit.get_current_price(name)
            return price
        except Exception as error:
            errors.append(type(error).__name__)
            return None

    began_s = perf_counter()
    if task == "batch":
        prices = pyupbit.get_current_price(list(names)) or {}
    else:
        with ThreadPoolExecutor(THREADS) as pool:
            prices = dict(zip(names, pool.map(caller, names), strict=True))
    return _told(began_s, {name: price for name, price in prices.items() if price is not None}, errors)


def _told(began_s: float, prices: dict[str, float], errors: Sequence[str]) -> Told:
    return {"elapsed_s": perf_counter() - began_s, "prices": prices, "errors": list(errors)}


CLIENTS: dict[str, Callable[[str, str, Sequence[str]], Told]] = {
    "marketpipe": _marketpipe,
    "ccxt": _ccxt,
    "pyupbit": _pyupbit,
}

if __name__ == "__main__":
    main()
