"""Requests as the exchange wants them written: path and query."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from marketpipe.core.requests import (
    CandlesRequest,
    MarketsRequest,
    OrderbooksRequest,
    QuoteTickersRequest,
    Request,
    TickersRequest,
    TradesRequest,
)
from marketpipe.core.timeframes import Timeframe

__all__ = ["encode", "markets_of"]

ORDERBOOK_UNITS = 30  # the most there is, and the default (reference/list-orderbooks, 2026-07-28)

_CANDLE_PATHS = {
    Timeframe.S1: "seconds",
    Timeframe.M1: "minutes/1",
    Timeframe.M3: "minutes/3",
    Timeframe.M5: "minutes/5",
    Timeframe.M10: "minutes/10",
    Timeframe.M15: "minutes/15",
    Timeframe.M30: "minutes/30",
    Timeframe.H1: "minutes/60",
    Timeframe.H4: "minutes/240",
    Timeframe.D1: "days",
    Timeframe.W1: "weeks",
    Timeframe.MONTH: "months",
    Timeframe.Y1: "years",
}


def encode(request: Request) -> str:
    """Path and query of ``request``, to be put behind the host as it is.

    Every value is percent-encoded, as the exchange demands (reference/rest-api-guide, 2026-10-06). A candle page's
    ``to`` is exclusive on the open time and has whole seconds, so ``to_ms`` is rounded up: nothing before it is lost.
    """
    path, params = _path_and_params(request)
    given = {name: value for name, value in params.items() if value is not None}
    return f"{path}?{urlencode(given, quote_via=quote, safe='')}"


def markets_of(request: Request) -> tuple[str, ...]:
    """The markets that ``request`` names; empty where it asks for all, or for all of a quote currency."""
    match request:
        case TradesRequest() | CandlesRequest():
            return (request.market,)
        case TickersRequest() | OrderbooksRequest():
            return request.markets
        case _:
            return ()


def _path_and_params(request: Request) -> tuple[str, dict[str, object]]:
    match request:
        case MarketsRequest():
            return "/v1/market/all", {"is_details": "true"}
        case TickersRequest():
            return "/v1/ticker", {"markets": ",".join(request.markets)}
        case QuoteTickersRequest():
            return "/v1/ticker/all", {"quote_currencies": ",".join(request.quotes)}
        case OrderbooksRequest():
            return "/v1/orderbook", {"markets": ",".join(request.markets), "count": ORDERBOOK_UNITS}
        case TradesRequest(market, count, cursor, days_ago):
            params = {"market": market, "count": count, "cursor": cursor, "days_ago": days_ago or None}
            return "/v1/trades/ticks", params
        case _:
            to = None if request.to_ms is None else _utc_seconds(request.to_ms)
            params = {"market": request.market, "count": request.count, "to": to}
            return f"/v1/candles/{_CANDLE_PATHS[request.timeframe]}", params


def _utc_seconds(at_ms: int) -> str:
    rounded_up_s = -(-at_ms // 1000)
    return f"{datetime.fromtimestamp(rounded_up_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
