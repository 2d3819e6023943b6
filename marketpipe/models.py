"""The values that travel through the pipe: frozen, slotted, exact.

Prices and sizes are `decimal.Decimal`, as printed by the exchange. Times are integers in milliseconds UTC and end in
``_ms``; durations are floats in seconds and end in ``_s``. Every value says when the exchange stamped it
(``exchange_ms``), when this machine received it (``received_ms``) and where it was born (``source``).

`Ticker`, `Trade`, `Orderbook` with its `Level`s and `Candle` are made from the rows of `marketpipe.upbit.wire_rows`
attribute by attribute: their names belong together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import attrs

from marketpipe.core import timeframes
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import MarketPipeError

if TYPE_CHECKING:
    import pandas
    import polars

__all__ = [
    "Batch",
    "Candle",
    "CandleSeries",
    "CandleState",
    "Change",
    "Gap",
    "Level",
    "Market",
    "Orderbook",
    "Priority",
    "Side",
    "Source",
    "Ticker",
    "Timeframe",
    "Trade",
]

T = TypeVar("T")


class Source(StrEnum):
    """Where a value was born. A cached value keeps the source it came with; its age tells the rest."""

    REST = "REST"
    STREAM = "STREAM"
    STORE = "STORE"


class Change(StrEnum):
    """Direction of the price against the previous UTC day's close."""

    RISE = "RISE"
    EVEN = "EVEN"
    FALL = "FALL"


class Side(StrEnum):
    """The taker's side of a trade."""

    BUY = "BUY"
    SELL = "SELL"


class CandleState(StrEnum):
    """RUNNING while the bar's time lasts, FINAL once it can only be amended."""

    RUNNING = "RUNNING"
    FINAL = "FINAL"


class Priority(IntEnum):
    """How soon an answer is wanted. It orders the wait for request slots; it never lifts a limit of the exchange."""

    CRITICAL = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4

    @property
    def budget_s(self) -> float:
        """The latency budget in seconds; later answers are counted in ``status()``."""
        return _BUDGETS_S[self]

    @property
    def max_response_time_ms(self) -> int:
        """`budget_s` under the name, and in the unit, of the original brief."""
        return round(self.budget_s * 1000)


_BUDGETS_S = {Priority.CRITICAL: 0.05, Priority.HIGH: 0.1, Priority.NORMAL: 0.5, Priority.LOW: 5.0}


class _Aged:
    """What every dated value can say about its age."""

    __slots__ = ()
    received_ms: int

    def age_ms(self, now_ms: int) -> int:
        """Milliseconds from the receipt of this value to ``now_ms`` (epoch)."""
        return now_ms - self.received_ms


@attrs.frozen
class Market(_Aged):
    """One listed market. ``market`` is QUOTE-BASE, such as ``KRW-BTC``.

    ``korean_name`` is "" in the global regions, which do not have it. ``cautions`` names the alerts that are raised.
    The exchange does not date its list, so ``exchange_ms`` is the receipt.
    """

    market: str
    korean_name: str
    english_name: str
    warning: bool
    cautions: frozenset[str]
    exchange_ms: int
    received_ms: int
    source: Source = Source.REST

    @property
    def quote(self) -> str:
        """The currency prices are in: ``KRW`` of ``KRW-BTC``."""
        return self.market.partition("-")[0]

    @property
    def base(self) -> str:
        """The currency that is traded: ``BTC`` of ``KRW-BTC``."""
        return self.market.partition("-")[2]


@attrs.frozen
class Ticker(_Aged):
    """The state of one market. ``open``, ``high``, ``low``, ``volume``, ``quote_volume`` count from 00:00 UTC.

    ``signed_change`` is price - ``prev_close``, ``signed_change_rate`` the same as a fraction rounded to 10 digits.
    ``trade_ms`` is the last trade, ``exchange_ms`` when the exchange refreshed the ticker.
    """

    market: str
    change: Change
    high_52w_date: date
    low_52w_date: date
    trade_ms: int
    exchange_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    price: Decimal
    prev_close: Decimal
    signed_change: Decimal
    signed_change_rate: Decimal
    last_volume: Decimal
    quote_volume: Decimal
    quote_volume_24h: Decimal
    volume: Decimal
    volume_24h: Decimal
    high_52w: Decimal
    low_52w: Decimal
    received_ms: int
    source: Source


@attrs.frozen
class Trade(_Aged):
    """One execution. ``sequential_id`` is unique per market only and does not promise an order."""

    market: str
    side: Side
    trade_ms: int
    sequential_id: int
    price: Decimal
    volume: Decimal
    exchange_ms: int
    received_ms: int
    source: Source


@attrs.frozen
class Level:
    """One price level of an order book."""

    price: Decimal
    size: Decimal


@attrs.frozen
class Orderbook(_Aged):
    """A whole book, best level first on both sides; padding slots (price 0, size 0) are removed.

    ``total_bid_size`` and ``total_ask_size`` are the exchange's totals, not the sum of the levels shown.
    ``level`` is the grouping step, 0 for none. ``exchange_ms`` is the book's last *change*: old on a quiet book.
    """

    market: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    total_bid_size: Decimal
    total_ask_size: Decimal
    level: Decimal
    exchange_ms: int
    received_ms: int
    source: Source

    @property
    def best_bid(self) -> Level | None:
        """The highest bid, or None on an empty side."""
        return self.bids[0] if self.bids else None

    @property
    def best_ask(self) -> Level | None:
        """The lowest ask, or None on an empty side."""
        return self.asks[0] if self.asks else None

    @property
    def spread(self) -> Decimal | None:
        """Best ask price minus best bid price, or None if a side is empty."""
        return self.asks[0].price - self.bids[0].price if self.asks and self.bids else None

    @property
    def mid(self) -> Decimal | None:
        """The middle between best ask and best bid, or None if a side is empty."""
        return (self.asks[0].price + self.bids[0].price) / 2 if self.asks and self.bids else None


@attrs.frozen
class Candle(_Aged):
    """One bar, named by its open time. A bar exists only if there was at least one trade in it.

    ``filled`` is True only for a synthetic bar made by ``fill="forward"``: all four prices are the previous close and
    both volumes 0. ``revision`` counts amendments after FINAL.
    """

    market: str
    timeframe: Timeframe
    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    exchange_ms: int
    received_ms: int
    source: Source
    state: CandleState
    revision: int = 0
    filled: bool = False

    @property
    def open_time(self) -> datetime:
        """The open time as an aware UTC datetime."""
        return datetime.fromtimestamp(self.open_ms / 1000, UTC)

    @property
    def close_ms(self) -> int:
        """The end of the bar, exclusive: the open time of the next one."""
        return timeframes.next_open(self.timeframe, self.open_ms)


@attrs.frozen
class Gap:
    """A hole in a stream, told in band: between ``start_ms`` and ``end_ms`` (exchange time) values may be missing here.

    It is told twice. When it is noticed, it is *open*: what the stream showed since ``start_ms`` is not certain any
    more, ``end_ms`` is the moment of noticing and ``proof`` is empty. When the stream is whole again, it is told once
    more with the same ``market`` and ``start_ms``: ``repaired`` with the proof, or not ``repaired`` with the reason why
    it cannot be. Repaired trades follow it, before any later one.

    ``cause`` is what happened, in words: ``"closed 1006"``, ``"stalled: no frame for 2.1 s"``.
    """

    market: str
    start_ms: int
    end_ms: int
    cause: str
    repaired: bool = False
    proof: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it has only been noticed so far."""
        return not self.repaired and not self.proof


@attrs.frozen(repr=False)
class CandleSeries(Sequence[Candle]):
    """An immutable sequence of bars of one market, oldest first. Slices are series too."""

    market: str
    timeframe: Timeframe
    candles: tuple[Candle, ...]

    def __len__(self) -> int:
        return len(self.candles)

    def __iter__(self) -> Iterator[Candle]:
        return iter(self.candles)

    @overload
    def __getitem__(self, index: int) -> Candle: ...
    @overload
    def __getitem__(self, index: slice) -> CandleSeries: ...
    def __getitem__(self, index: int | slice) -> Candle | CandleSeries:
        if isinstance(index, slice):
            return CandleSeries(self.market, self.timeframe, self.candles[index])
        return self.candles[index]

    def __repr__(self) -> str:
        span = f", {self[0].open_time:%Y-%m-%d %H:%M} .. {self[-1].open_time:%Y-%m-%d %H:%M} UTC" if self else ""
        return f"<CandleSeries {self.market} {self.timeframe}: {len(self)} bars{span}>"

    def to_ohlcv(self) -> list[list[float]]:
        """ccxt's shape, ``[open_ms, open, high, low, close, volume]`` per bar, oldest first; prices become floats."""
        return [
            [c.open_ms, float(c.open), float(c.high), float(c.low), float(c.close), float(c.volume)]
            for c in self.candles
        ]

    def to_pandas(self, *, exact: bool = False) -> pandas.DataFrame:
        """A DataFrame with a UTC index named ``time`` and columns open, high, low, close, volume, quote_volume.

        Floats, as pandas users expect; with ``exact`` the Decimals themselves (object columns). Needs the extra
        ``marketpipe[pandas]``.
        """
        import pandas

        index = pandas.DatetimeIndex(
            pandas.to_datetime([c.open_ms for c in self.candles], unit="ms", utc=True), name="time"
        )
        return pandas.DataFrame(self._columns(exact=exact), index=index, dtype=object if exact else float)

    def to_polars(self, *, exact: bool = False) -> polars.DataFrame:
        """A DataFrame with the columns time (UTC), open, high, low, close, volume, quote_volume.

        Floats; with ``exact`` the Decimals as they are. Needs the extra ``marketpipe[polars]``.
        """
        import polars

        columns = self._columns(exact=exact)
        schema = {"time": polars.Int64} | ({} if exact and self else dict.fromkeys(columns, polars.Float64))
        frame = polars.DataFrame({"time": [c.open_ms for c in self.candles], **columns}, schema_overrides=schema)
        return frame.with_columns(polars.col("time").cast(polars.Datetime("ms", "UTC")))

    def _columns(self, *, exact: bool) -> dict[str, list[Any]]:
        convert = (lambda value: value) if exact else float
        names = ("open", "high", "low", "close", "volume", "quote_volume")
        return {name: [convert(getattr(candle, name)) for candle in self.candles] for name in names}


@attrs.frozen(repr=False)
class Batch(Mapping[str, T], Generic[T]):
    """The answers for many symbols: a mapping of what succeeded, in the order asked, and beside it what failed.

    ``symbols_per_second`` counts distinct symbols that were answered; ``cache_hit_rate`` (0..1) is the share of the
    distinct symbols asked that was answered from memory, and ``from_memory`` names them.
    """

    values_by_symbol: Mapping[str, T]
    failed: Mapping[str, MarketPipeError]
    elapsed_s: float
    cache_hit_rate: float
    from_memory: Collection[str] = frozenset()

    def __getitem__(self, symbol: str) -> T:
        try:
            return self.values_by_symbol[symbol]
        except KeyError:
            if symbol in self.failed:
                raise KeyError(f"{symbol} failed: {self.failed[symbol]}") from self.failed[symbol]
            raise

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_symbol)

    def __len__(self) -> int:
        return len(self.values_by_symbol)

    def __repr__(self) -> str:
        return f"<Batch {len(self)} answered, {len(self.failed)} failed, {self.elapsed_s * 1000:.1f} ms>"

    @property
    def symbols_per_second(self) -> float:
        """Distinct symbols answered per second; 0.0 for an empty batch."""
        return len(self) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def raise_for_failed(self) -> None:
        """Do nothing if every symbol was answered; raise the only failure, or a group of them all."""
        failures = list(self.failed.values())
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup(f"{len(failures)} of {len(self) + len(failures)} symbols failed", failures)
