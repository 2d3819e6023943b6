"""Bytes of the exchange to models and back; pure.

REST: `encode` writes a request, `decode` reads the answer to it, `error_of` reads a refusal. WebSocket:
`encode_subscription` writes what is listened to, `decode_frame` reads what is heard. Nothing but values, `BadPayload`
and the errors that the exchange itself reports leaves this module, whatever bytes come in.

Rows are exact: every `Decimal` holds the digits of the wire. Fields that are not needed are ignored. A missing or
mistyped field, NaN, Infinity, 1e400 or a negative price is `BadPayload`, which names field and market.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from marketpipe.core.requests import (
    CandlesRequest,
    MarketsRequest,
    OrderbooksRequest,
    Request,
    TickersRequest,
    TradesRequest,
)
from marketpipe.errors import BadPayload
from marketpipe.logs import fields
from marketpipe.models import Market, Orderbook, Ticker
from marketpipe.upbit.wire_decoders import (
    CANDLES,
    INSTRUMENTS,
    MARKETS,
    ORDERBOOKS,
    TICKERS,
    TRADES,
    RowDecoders,
)
from marketpipe.upbit.wire_errors import date_ms, error_of, remaining_req
from marketpipe.upbit.wire_flaws import UNREADABLE, bad_payload, quoted, refuse_too_many
from marketpipe.upbit.wire_frames import decode_frame
from marketpipe.upbit.wire_requests import encode
from marketpipe.upbit.wire_subscriptions import Subscribed, encode_list_subscriptions, encode_subscription
from marketpipe.upbit.wire_values import (
    Instrument,
    candles_of,
    instruments_of,
    markets_of,
    orderbooks_of,
    tickers_of,
    trades_of,
)

__all__ = [
    "Instrument",
    "Subscribed",
    "date_ms",
    "decode",
    "decode_frame",
    "decode_instruments",
    "encode",
    "encode_list_subscriptions",
    "encode_subscription",
    "error_of",
    "remaining_req",
]

log = logging.getLogger("marketpipe.wire")

RowT = TypeVar("RowT", bound=msgspec.Struct)
T = TypeVar("T")
ValueT = TypeVar("ValueT", Market, Ticker, Orderbook)

Failures = dict[str, BadPayload]


class _MarketOnly(msgspec.Struct):
    market: str


_RAW_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_MARKET_ONLY = msgspec.json.Decoder(_MarketOnly)


def decode(
    request: Request, body: bytes, *, received_ms: int, exchange_ms: int | None
) -> tuple[tuple[Any, ...], Failures]:
    """The rows of a 200 answer to ``request`` in the order they came, and those that cannot be read, by market.

    ``exchange_ms`` is the answer's ``Date``; it decides with ``received_ms`` whether the newest bar is FINAL.

    Markets, tickers and books: one bad row harms no other; of several rows of one market the newest is kept; rows of
    markets that were not asked are dropped with a warning in the log ``marketpipe.wire``. Raises `BadPayload` if the
    answer is no JSON list, or if a row does not even name its market.

    Trades and candles: one market, all or nothing. Raises `BadPayload` for any bad row and for a row of another
    market, or a row that stands twice. Candles are put in order, newest first.
    """
    match request:
        case TradesRequest(market):
            return tuple(trades_of(_rows(TRADES, body, market), market, received_ms)), {}
        case CandlesRequest(market, timeframe):
            rows = _rows(CANDLES[timeframe], body, market)
            return tuple(candles_of(rows, market, timeframe, received_ms, exchange_ms)), {}
        case MarketsRequest():
            return _asked(*_batch(MARKETS, markets_of, body, received_ms), lambda names: True)
        case OrderbooksRequest(markets):
            return _asked(*_batch(ORDERBOOKS, orderbooks_of, body, received_ms), set(markets).issuperset)
        case TickersRequest(markets):
            return _asked(*_batch(TICKERS, tickers_of, body, received_ms), set(markets).issuperset)
        case _:
            answered = _batch(TICKERS, tickers_of, body, received_ms)
            return _asked(
                *answered, lambda markets: {name.partition("-")[0] for name in markets} <= set(request.quotes)
            )


def decode_instruments(body: bytes) -> tuple[Instrument, ...]:
    """The rows of orderbook/instruments (reference/list-orderbook-instruments, 2026-07-28).

    Raises `BadPayload` if any row is bad.
    """
    instruments, failed = _batch(INSTRUMENTS, lambda rows, received_ms: instruments_of(rows), body, 0)
    for flaw in failed.values():
        raise flaw
    return tuple(instruments)


def _rows(decoders: RowDecoders[RowT], body: bytes, market: str) -> list[RowT]:
    try:
        return decoders.all(body)
    except UNREADABLE as exc:
        if readable := quoted(body):
            return _rows(decoders, readable, market)
        raise bad_payload(exc, body, market) from exc


def _batch(
    decoders: RowDecoders[RowT], values_of: Callable[[Sequence[RowT], int], list[T]], body: bytes, received_ms: int
) -> tuple[list[T], Failures]:
    try:
        return values_of(decoders.all(body), received_ms), {}
    except (BadPayload, *UNREADABLE):
        return _row_by_row(decoders, values_of, body, received_ms)


def _row_by_row(
    decoders: RowDecoders[RowT], values_of: Callable[[Sequence[RowT], int], list[T]], body: bytes, received_ms: int
) -> tuple[list[T], Failures]:
    values: list[T] = []
    failed: Failures = {}
    for row, market in _split(body):
        try:
            values += values_of([decoders.one(row)], received_ms)
        except BadPayload as exc:
            failed[market] = exc
        except UNREADABLE as exc:
            failed[market] = bad_payload(exc, bytes(row), market)
    return values, failed


def _split(body: bytes) -> list[tuple[msgspec.Raw, str]]:
    try:
        return [(row, _MARKET_ONLY.decode(row).market) for row in refuse_too_many(_RAW_ROWS.decode(body))]
    except UNREADABLE as exc:
        if readable := quoted(body):
            return _split(readable)
        raise bad_payload(exc, body, None) from exc


def _asked(
    values: list[ValueT], failed: Failures, are_asked: Callable[[Iterable[str]], bool]
) -> tuple[tuple[ValueT, ...], Failures]:
    newest: dict[str, ValueT] = _newest(values)
    if not failed and are_asked(newest):
        return tuple(newest.values()), {}
    strangers = {market for market in (*newest, *failed) if not are_asked((market,))}
    if strangers:
        about = fields("not-asked", markets=len(strangers))
        log.warning(
            "dropped rows of %d markets that were not asked: %.80s ...", len(strangers), sorted(strangers), extra=about
        )
    answered = {market: value for market, value in newest.items() if market not in strangers}
    # A market with a good row beside the bad one is answered.
    unread = {market: flaw for market, flaw in failed.items() if market not in strangers and market not in answered}
    return tuple(answered.values()), unread


def _newest(values: list[ValueT]) -> dict[str, ValueT]:
    newest = {value.market: value for value in values}
    if len(newest) < len(values):
        for value in values:
            if value.exchange_ms > newest[value.market].exchange_ms:
                newest[value.market] = value
    return newest
