"""ccxt's unified structures in the exchange's words."""

from __future__ import annotations

from typing import Any

__all__ = ["bar", "symbol", "ticker", "trade"]

_TICKER = {
    "trade_price": "last",
    "opening_price": "open",
    "high_price": "high",
    "low_price": "low",
    "prev_closing_price": "previousClose",
    "acc_trade_volume_24h": "baseVolume",
    "acc_trade_price_24h": "quoteVolume",
    "trade_timestamp": "timestamp",
}


def ticker(seen: dict[str, Any], name_of_market: str = "market") -> dict[str, Any]:
    """What ccxt understood of a ticker."""
    code = seen["info"][name_of_market]
    return {name_of_market: code, **{field: seen[name] for field, name in _TICKER.items()}}


def trade(seen: dict[str, Any], name_of_time: str = "timestamp") -> dict[str, Any]:
    """REST and WebSocket name the time of a trade differently."""
    return {
        "sequential_id": int(seen["id"]),
        name_of_time: seen["timestamp"],
        "ask_bid": "BID" if seen["side"] == "buy" else "ASK",
        "trade_price": seen["price"],
        "trade_volume": seen["amount"],
    }


def bar(seen: list[Any]) -> dict[str, Any]:
    names = ("open_ms", "opening_price", "high_price", "low_price", "trade_price", "candle_acc_trade_volume")
    return dict(zip(names, seen, strict=True))


def symbol(code: str) -> str:
    quote, base = code.split("-")
    return f"{base}/{quote}"
