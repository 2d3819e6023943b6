"""pyupbit, whose addresses are literals: the one funnel of its REST and the connect of its WebSocket are redirected.

https://github.com/sharebook-kr/pyupbit: it leaves pacing to its user, so a call is followed by a pause.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from typing import Any

import pyupbit
import pyupbit.websocket_api as streams
from pyupbit import request_api
from telling import BASE_URL, CODES, LISTEN_S, WS_URL, Asking, now_ms, open_ms, refused, tell, units

PAUSE_S = 0.12
INTERVALS = {"minute1": "minutes/1", "minute15": "minutes/15", "minute60": "minutes/60", "day": "days", "week": "weeks"}
COLUMNS = {
    "open": "opening_price",
    "high": "high_price",
    "low": "low_price",
    "close": "trade_price",
    "volume": "candle_acc_trade_volume",
    "value": "candle_acc_trade_price",
}
SEOUL_MS = 9 * 3_600_000
WEEK_MS, MONDAY_MS = 604_800_000, 4 * 86_400_000

_call_get = request_api._call_get
request_api._call_get = lambda url, **words: _call_get(url.replace("https://api.upbit.com", BASE_URL), **words)


class Connect(streams.websockets.connect):
    """Connects to the simulator, whatever the address."""

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(WS_URL, **options)


def asked(function: Any, *words: Any, **options: Any) -> tuple[Asking, Any]:
    with Asking() as asking:
        answer = function(*words, **options)
    time.sleep(PAUSE_S)  # noqa: TID251 - a script without a loop
    return asking, answer


def ask() -> None:
    asking, markets = asked(pyupbit.get_tickers)
    asking.tell("markets", "all", markets)
    asking, prices = asked(pyupbit.get_current_price, markets)
    for code, price in prices.items():
        asking.tell("ticker", code, {"market": code, "trade_price": price})
    asking, rows = asked(pyupbit.get_current_price, CODES, verbose=True)
    for row in rows:
        asking.tell("ticker", row["market"], row)
    asking, books = asked(pyupbit.get_orderbook, CODES)
    for book in books:
        sides = {
            f"{side}s": units([(unit[f"{side}_price"], unit[f"{side}_size"]) for unit in book["orderbook_units"]])
            for side in ("ask", "bid")
        }
        named = {name: value for name, value in book.items() if name != "orderbook_units"}
        asking.tell("orderbook", book["market"], {**named, **sides})
    to_ms = (now_ms() - MONDAY_MS) // WEEK_MS * WEEK_MS + MONDAY_MS
    for code in CODES:
        for interval, kind in INTERVALS.items():
            to = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(to_ms / 1000))
            asking, frame = asked(pyupbit.get_ohlcv, code, interval, count=250, to=to)
            bars = [
                {"open_ms": open_ms(at.isoformat()) - SEOUL_MS, **{COLUMNS[name]: row[name] for name in COLUMNS}}
                for at, row in frame.iterrows()
            ]
            asking.tell("candles", code, bars, kind=kind, count=250, until_ms=to_ms)


def listen() -> None:
    for stream in ("trade", "ticker", "orderbook"):
        asked_ms = now_ms()
        manager = streams.WebSocketManager(stream, CODES[:3])
        seen: list[dict[str, Any]] = []
        threading.Thread(target=collect, args=(manager, seen), daemon=True).start()
        time.sleep(LISTEN_S)  # noqa: TID251
        manager.terminate()
        for code in CODES[:3]:
            rows = [row for row in list(seen) if row["code"] == code]
            tell("frames", code, asked_ms, rows, stream=stream, whole=True)


def collect(manager: Any, seen: list[dict[str, Any]]) -> None:
    """``get`` waits for ever if nothing comes any more: it is left in a thread of its own."""
    while True:
        seen.append(manager.get())


def be_refused() -> None:
    try:
        request_api._call_public_api("https://api.upbit.com/v1/ticker", markets="KRW-NOPE")
        refused("UpbitError", None)
    except Exception as error:
        refused("UpbitError", error)
    seen = None
    for _ in range(40):
        try:
            request_api._call_public_api("https://api.upbit.com/v1/ticker", markets="KRW-BTC")
        except Exception as error:
            seen = error
            break
    refused("TooManyRequests", seen)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    streams.websockets.connect = Connect
    ask()
    listen()
    be_refused()
