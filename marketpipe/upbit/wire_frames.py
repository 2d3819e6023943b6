"""Messages of the exchange's WebSocket to what they mean.

A message names its stream in ``type`` (``ty`` in the short format), which decides in one pass what it is decoded as.
What is not read at once this way (another order of keys, a flaw, an error, the answer to a question) is looked at
again, slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any, TypeVar

import msgspec

from marketpipe.core.topics import STREAMED, Frame
from marketpipe.errors import BadPayload
from marketpipe.models import Source
from marketpipe.upbit import wire_names
from marketpipe.upbit.wire_errors import stream_error_of
from marketpipe.upbit.wire_flaws import UNREADABLE, bad_payload, excerpt, quoted, refuse_too_many
from marketpipe.upbit.wire_names import Names, Spelling
from marketpipe.upbit.wire_rows import CandleRow, TickerRow, TradeRow, book_rows, spelled
from marketpipe.upbit.wire_subscriptions import subscribed_of
from marketpipe.upbit.wire_values import candle_of, orderbook_of, ticker_of, trade_of

__all__ = ["decode_frame"]

RowT = TypeVar("RowT", bound=msgspec.Struct)
ValueOf = Callable[[RowT, int], object]


class _Head(msgspec.Struct):
    """What tells messages from each other."""

    type: str | None = None
    code: str | None = None
    ty: str | None = None
    cd: str | None = None
    status: Any = None
    error: msgspec.Raw = msgspec.Raw()
    method: Any = None
    mthd: Any = None


_HEAD = msgspec.json.Decoder(_Head)
_MESSAGES = msgspec.json.Decoder(list[msgspec.Raw])
# What makes the value of a row, by the row's class.
_VALUE_OF: dict[type[msgspec.Struct], ValueOf[Any]] = {}


class _Reader:
    """Reads frames of one format. A ``guarded`` reader refuses some good books, which the other reads slowly."""

    def __init__(self, spelling: Spelling, tag_name: str, *, guarded: bool) -> None:
        def row(kind: type[RowT], names: Names, stream: str, value_of: ValueOf[RowT], **more: Any) -> Any:
            made = spelled(kind, names, spelling, tag=(tag_name, stream), source=Source.STREAM, **more)
            _VALUE_OF[made] = value_of
            return made

        self._book, bids = book_rows(spelling, guarded=guarded, tag=(tag_name, "orderbook"), source=Source.STREAM)
        _VALUE_OF[self._book] = orderbook_of
        rows = [
            self._book,
            row(TickerRow, wire_names.TICKER, "ticker", ticker_of),
            row(TradeRow, wire_names.TRADE, "trade", trade_of),
        ]
        for timeframe, name in STREAMED.items():
            rows.append(row(CandleRow, wire_names.CANDLE, f"candle.{name}", candle_of, timeframe=timeframe))
        self._rows: msgspec.json.Decoder[Any] = msgspec.json.Decoder(reduce(or_, rows))
        self._bids = msgspec.json.Decoder(bids)

    def read(self, body: bytes) -> Any:
        """The row that ``body`` is; raises `UNREADABLE`."""
        row = self._rows.decode(body)
        if type(row) is self._book:
            row.bids = self._bids.decode(body).bids
        return row


_DEFAULT = _Reader("default", "type", guarded=True)
_SIMPLE = _Reader("simple", "ty", guarded=True)
_ANY_DEFAULT = _Reader("default", "type", guarded=False)
_ANY_SIMPLE = _Reader("simple", "ty", guarded=False)


def decode_frame(data: bytes | str, *, received_ms: int) -> tuple[Frame, ...]:
    """What ``data``, one message in any format, says; nothing for the exchange's sign of life ``{"status":"UP"}``.

    The value of a frame is a `Ticker`, `Trade`, `Orderbook` or `Candle` (RUNNING), or the `BadPayload` it is instead,
    which names the market, and the field as the message does (``tp`` in the short formats); or a `Subscribed`.

    Raises `BadPayload` for what does not even name a stream and a market, and what the exchange complains of
    (reference/websocket-guide, 2026-08-31): `RateLimited` for TOO_MANY_REQUEST, else `ExchangeError`.
    """
    # A lone surrogate cannot come off the wire; it is refused as the bad UTF-8 that it would be there.
    body = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if body.lstrip()[:1] != b"[":
        return _frames(body, received_ms)
    return tuple(frame for message in _messages(body) for frame in _frames(message, received_ms))


def _messages(body: bytes) -> list[bytes]:
    try:
        return [bytes(message) for message in refuse_too_many(_MESSAGES.decode(body))]
    except UNREADABLE as exc:
        if readable := quoted(body):
            return _messages(readable)
        raise bad_payload(exc, body, None) from exc


def _frames(body: bytes, received_ms: int) -> tuple[Frame, ...]:
    try:
        row = (_SIMPLE if body.startswith(b'{"ty"') else _DEFAULT).read(body)
    except UNREADABLE:
        return _odd(body, received_ms)
    return (_frame(row, received_ms),)


def _frame(row: Any, received_ms: int) -> Frame:
    try:
        return Frame(_VALUE_OF[type(row)](row, received_ms), row.stream_type == "SNAPSHOT")
    except BadPayload as flaw:
        return Frame(flaw, False)


def _odd(body: bytes, received_ms: int) -> tuple[Frame, ...]:
    try:
        head = _HEAD.decode(body)
    except UNREADABLE as exc:
        if readable := quoted(body):
            return _odd(readable, received_ms)
        raise bad_payload(exc, body, None) from exc
    if head.type is not None and head.code is not None:
        return (_slow_frame(_ANY_DEFAULT, body, head.code, received_ms),)
    if head.ty is not None and head.cd is not None:
        return (_slow_frame(_ANY_SIMPLE, body, head.cd, received_ms),)
    return _control(head, body)


def _slow_frame(reader: _Reader, body: bytes, market: str, received_ms: int) -> Frame:
    try:
        row = reader.read(body)
    except UNREADABLE as exc:
        return Frame(bad_payload(exc, body, market), False)
    return _frame(row, received_ms)


def _control(head: _Head, body: bytes) -> tuple[Frame, ...]:
    if head.error:
        raise stream_error_of(body)
    if head.status == "UP":
        return ()
    if head.method is None and head.mthd is None:
        raise BadPayload(f"names no stream and no market: {excerpt(body, 80)}")
    try:
        return (Frame(subscribed_of(body, simple=head.method is None), False),)
    except UNREADABLE as exc:
        raise bad_payload(exc, body, None) from exc
