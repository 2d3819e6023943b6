"""Bars as files for other programs: CSV, JSON lines, Parquet. Page by page, so that memory stays flat however long.

All three have the same columns: ``market``, ``timeframe``, ``time`` (of opening, UTC), ``open_ms`` (the same in epoch
milliseconds), ``open``, ``high``, ``low``, ``close``, ``volume`` (base currency), ``quote_volume`` (quote currency).
Every digit is kept:

- CSV: plain decimal text with a header line, ``2026-11-23T07:14:00Z`` for times, and ``\\n`` at the end of lines.
- JSON lines: numbers, not strings, without exponents; ``json.loads(line, parse_float=Decimal)`` reads them exactly.
- Parquet: decimal128(38, 8), and (38, 16) for ``quote_volume``, since a price times a volume has so many decimals;
  ``time`` is a timestamp[ms, UTC]. It needs ``marketpipe[parquet]``.

A bar that is still running is left out: it would be wrong a moment later. A bar made up by ``fill="forward"`` is
written as it is, and known by its volume: 0.

::

    with opened(Path("bars.parquet"), Format.PARQUET) as sink:  # there when the block has ended well
        async for page in ...:
            await trio.to_thread.run_sync(sink.write, page)
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import attrs

from marketpipe.cli.extras import needs
from marketpipe.cli.files import replacing
from marketpipe.cli.rows import json_line
from marketpipe.models import Candle, CandleState

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema
    from pyarrow.parquet import ParquetWriter

__all__ = ["COLUMNS", "STDOUT", "Format", "Sink", "opened", "write_csv", "write_jsonl", "write_parquet"]

Page = Sequence[Candle]
STDOUT = Path("-")

NUMBERS = ("open", "high", "low", "close", "volume", "quote_volume")
COLUMNS = ("market", "timeframe", "time", "open_ms", *NUMBERS)
DIGITS = 38
DECIMALS = {**dict.fromkeys(NUMBERS, 8), "quote_volume": 16}
# Parquet is read and skipped in groups of rows: so many, up to twice as many, make a good one; a page's 200 do not.
ROWS_IN_GROUP = 100_000


class Format(StrEnum):
    """What `opened` can write."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


class Sink(Protocol):
    """Where pages go. ``bars`` counts what was written; whoever shows progress may read it at any time."""

    @property
    def bars(self) -> int: ...

    def write(self, page: Page) -> None:
        """Add the bars of ``page`` that are not running. Blocks while the file is written, so call it in a thread."""
        ...


def write_csv(pages: Iterable[Page], target: Path) -> int:
    """Write all ``pages`` as CSV and return how many bars that are; errors as in `opened`."""
    return _write(pages, target, Format.CSV)


def write_jsonl(pages: Iterable[Page], target: Path) -> int:
    """Write all ``pages`` as JSON lines and return how many bars that are; errors as in `opened`."""
    return _write(pages, target, Format.JSONL)


def write_parquet(pages: Iterable[Page], target: Path) -> int:
    """Write all ``pages`` as Parquet and return how many bars that are; errors as in `opened`."""
    return _write(pages, target, Format.PARQUET)


@contextmanager
def opened(target: Path, format: Format) -> Iterator[Sink]:
    """A sink whose file takes its place when the block ends well; if not, what was there before stays as it was.

    `STDOUT`, which is ``Path("-")``, is for text only. ``OSError`` names the file that cannot be written,
    ``BrokenPipeError`` says that nobody reads stdout any more. ``ValueError``: Parquet to stdout, or a number that does
    not fit into its column. ``RuntimeError``: pyarrow is not installed.
    """
    if format is Format.PARQUET:
        if target == STDOUT:
            raise ValueError("parquet cannot be written to stdout: name a file")
        with _parquet(target) as sink:
            yield sink
        return
    with _stdout() if target == STDOUT else replacing(target) as file:
        if format is Format.CSV:
            file.write((",".join(COLUMNS) + "\n").encode())
        yield _Lines(file, _csv if format is Format.CSV else _jsonl)


def _write(pages: Iterable[Page], target: Path, format: Format) -> int:
    with opened(target, format) as sink:
        for page in pages:
            sink.write(page)
        return sink.bars


def _final(page: Page) -> list[Candle]:
    return [bar for bar in page if bar.state is CandleState.FINAL]


# -- text ---------------------------------------------------------------------------------------------------------


@contextmanager
def _stdout() -> Iterator[BinaryIO]:
    # A file of its own, and without a buffer: a thread that is left behind in the middle of a write would keep
    # `sys.stdout` locked, and whoever closes a buffer waits for it.
    sys.stdout.flush()
    with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as file:
        yield file


@attrs.define
class _Lines:
    file: BinaryIO
    text: Callable[[Sequence[Candle]], str]
    bars: int = 0

    def write(self, page: Page) -> None:
        bars = _final(page)
        rest = memoryview(self.text(bars).encode())
        while rest:  # a pipe takes as much at a time as it has room for
            rest = rest[self.file.write(rest) :]
        self.bars += len(bars)


def _csv(bars: Sequence[Candle]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        (
            bar.market,
            bar.timeframe.value,
            _time(bar),
            bar.open_ms,
            _number(bar.open),
            _number(bar.high),
            _number(bar.low),
            _number(bar.close),
            _number(bar.volume),
            _number(bar.quote_volume),
        )
        for bar in bars
    )
    return out.getvalue()


def _jsonl(bars: Sequence[Candle]) -> str:
    return "".join(
        f'{{"market":{json_line(bar.market)},"timeframe":"{bar.timeframe.value}","time":"{_time(bar)}",'
        f'"open_ms":{bar.open_ms},"open":{_number(bar.open)},"high":{_number(bar.high)},"low":{_number(bar.low)},"close":{_number(bar.close)},'
        f'"volume":{_number(bar.volume)},"quote_volume":{_number(bar.quote_volume)}}}\n'
        for bar in bars
    )


def _number(number: Decimal) -> str:
    # In one spelling, so that a file is the same whether its bars come from the exchange or out of the database.
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time(bar: Candle) -> str:
    # A third faster than strftime; a bar opens on a whole second.
    return datetime.fromtimestamp(bar.open_ms // 1000, UTC).isoformat().removesuffix("+00:00") + "Z"


# -- Parquet ------------------------------------------------------------------------------------------------------


@contextmanager
def _parquet(target: Path) -> Iterator[Sink]:
    with needs("pyarrow", "parquet", "a .parquet file"):
        from pyarrow.parquet import ParquetWriter

    schema = _schema()
    with replacing(target) as file, ParquetWriter(file, schema, compression="zstd") as writer:
        sink = _Groups(writer, schema)
        yield sink
        sink.flush()


def _schema() -> Schema:
    import pyarrow

    return pyarrow.schema(
        {
            "market": pyarrow.string(),
            "timeframe": pyarrow.string(),
            "time": pyarrow.timestamp("ms", tz="UTC"),
            "open_ms": pyarrow.int64(),
            **{name: pyarrow.decimal128(DIGITS, decimals) for name, decimals in DECIMALS.items()},
        }
    )


@attrs.define
class _Groups:
    """Pages become Arrow's columns at once, which are a tenth of the bars' size; a file's group is made of many."""

    writer: ParquetWriter
    schema: Schema
    bars: int = 0
    _held: list[RecordBatch] = attrs.field(factory=list, init=False)

    def write(self, page: Page) -> None:
        import pyarrow

        bars = _final(page)
        opens_ms = [bar.open_ms for bar in bars]
        columns = [[bar.market for bar in bars], [bar.timeframe.value for bar in bars], opens_ms, opens_ms]
        columns += [[_fitting(bar, name, decimals) for bar in bars] for name, decimals in DECIMALS.items()]
        self._held.append(
            pyarrow.record_batch(
                [pyarrow.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)],
                schema=self.schema,
            )
        )
        self.bars += len(bars)
        if sum(map(len, self._held)) >= ROWS_IN_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what is held as a group of its own."""
        import pyarrow

        if self._held:
            self.writer.write_table(pyarrow.Table.from_batches(self._held), row_group_size=2 * ROWS_IN_GROUP)
            self._held.clear()


# pyarrow itself makes 0 of a number with more digits than it has room for.
_EXACT = Context(prec=DIGITS, traps=[Inexact, InvalidOperation])
_UNITS = {name: Decimal(1).scaleb(-decimals) for name, decimals in DECIMALS.items()}


def _fitting(bar: Candle, name: str, decimals: int) -> Decimal:
    number: Decimal = getattr(bar, name)
    try:
        return number.quantize(_UNITS[name], context=_EXACT)
    except (Inexact, InvalidOperation):
        raise ValueError(
            f"{bar.market} {bar.timeframe} at {_time(bar)}: {name} {number} does not fit into {DIGITS} digits, "
            f"{decimals} of them decimals; csv and jsonl have no such limit"
        ) from None
