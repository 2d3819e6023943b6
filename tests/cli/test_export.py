"""Exports keep every digit, read back in what people use, stay small in memory, and are never half."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import weakref
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import attrs
import pandas
import polars
import pyarrow
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_bars import row
from rig import open_rig

from marketpipe.cli import export
from marketpipe.cli.export import COLUMNS, STDOUT, Format, opened, write_csv, write_jsonl, write_parquet
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState, Source

NUMBERS = ("open", "high", "low", "close", "volume", "quote_volume")
WRITERS = {".csv": write_csv, ".jsonl": write_jsonl, ".parquet": write_parquet}
FORMATS = list(WRITERS)


def final(slot: int, **changes) -> Candle:
    return row(slot, state=CandleState.FINAL, **changes)


def read(path: Path) -> list[dict]:
    """The rows of an export, its numbers as Decimals, by the plainest reader there is."""
    if path.suffix == ".parquet":
        return [{**r, "time": r["time"].isoformat().replace("+00:00", "Z")} for r in pq.read_table(path).to_pylist()]
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        rows = [json.loads(line, parse_float=Decimal, parse_int=Decimal) for line in lines]
        return [{**r, "open_ms": int(r["open_ms"])} for r in rows]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{**r, "open_ms": int(r["open_ms"]), **{name: Decimal(r[name]) for name in NUMBERS}} for r in rows]


def expected(bar: Candle) -> dict:
    return {
        "market": bar.market,
        "timeframe": bar.timeframe.value,
        "time": bar.open_time.isoformat().replace("+00:00", "Z"),
        "open_ms": bar.open_ms,
        **{name: getattr(bar, name) for name in NUMBERS},
    }


@st.composite
def spelled(draw, places: int) -> Decimal:
    """A number as the exchange may spell it: padded, bare, or with an exponent."""
    number = Decimal(draw(st.integers(0, 10 ** (18 + places)))).scaleb(-places)
    return draw(st.sampled_from([number, number.normalize()]))


@st.composite
def candles(draw) -> Candle:
    timeframe = draw(st.sampled_from(Timeframe))
    numbers = {name: draw(spelled(16 if name == "quote_volume" else 8)) for name in NUMBERS}
    market = draw(st.from_regex(r"[A-Z0-9]{1,10}-[A-Z0-9]{1,20}", fullmatch=True))
    open_ms = draw(st.integers(0, 250_000_000_000)) * 1000
    return Candle(
        market,
        timeframe,
        open_ms,
        **numbers,
        exchange_ms=0,
        received_ms=0,
        source=Source.STORE,
        state=CandleState.FINAL,
    )


def test_every_bar_is_read_back_with_every_digit(tmp_path_factory):
    """In every format: to think of bars takes longer than to write and to read them."""
    folder = tmp_path_factory.mktemp("export")

    @given(st.lists(st.lists(candles(), max_size=4), max_size=4))
    def law(pages):
        bars = [bar for page in pages for bar in page]
        for suffix in FORMATS:
            path = folder / f"bars{suffix}"
            assert WRITERS[suffix](pages, path) == len(bars), suffix
            rows = read(path)
            assert rows == [expected(bar) for bar in bars], suffix
            assert all(tuple(r) == COLUMNS for r in rows), suffix

    law()


async def test_what_an_exchange_tells_is_exported_as_it_was_told(autojump_clock, tmp_path):
    async with open_rig() as rig:
        series = await rig.market.get_candle("KRW-BTC", "1m", count=450)
    pages = [series[:200], series[200:400], series[400:]]
    for suffix, write in WRITERS.items():
        path = tmp_path / f"bars{suffix}"
        assert write(pages, path) == 449  # without the one that is running
        assert read(path) == [expected(bar) for bar in series[:-1]]


def test_numbers_are_plain_and_times_are_utc(tmp_path):
    bar = final(0, open=Decimal("1.5E+3"), low=Decimal("0E-8"), close=Decimal("6E-8"), volume=Decimal("0.02543600"))
    write_csv([(bar,)], tmp_path / "bars.csv")
    write_jsonl([(bar,)], tmp_path / "bars.jsonl")
    assert (tmp_path / "bars.csv").read_bytes() == (
        b"market,timeframe,time,open_ms,open,high,low,close,volume,quote_volume\n"
        b"KRW-BTC,1m,2026-09-23T12:35:00Z,1790166900000,1500,7,0,0.00000006,0.025436,7\n"
    )
    assert (tmp_path / "bars.jsonl").read_bytes() == (
        b'{"market":"KRW-BTC","timeframe":"1m","time":"2026-09-23T12:35:00Z","open_ms":1790166900000,"open":1500,'
        b'"high":7,"low":0,"close":0.00000006,"volume":0.025436,"quote_volume":7}\n'
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_running_bar_is_left_out_and_a_made_up_one_is_not(tmp_path, suffix):
    path = tmp_path / f"bars{suffix}"
    made_up = final(1, filled=True, volume=0)
    assert WRITERS[suffix]([(final(0), made_up), (row(2),)], path) == 2
    assert [r["volume"] for r in read(path)] == [1, 0]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_export_of_nothing_has_its_columns_and_no_row(tmp_path, suffix):
    path = tmp_path / f"bars{suffix}"
    assert WRITERS[suffix]([], path) == 0
    assert read(path) == []
    if suffix == ".parquet":
        assert pq.read_schema(path).names == list(COLUMNS)
    else:
        assert path.read_text() == ("" if suffix == ".jsonl" else ",".join(COLUMNS) + "\n")


# -- what people read them with -----------------------------------------------------------------------------------

BARS = tuple(final(slot, close=Decimal("148601000.00000001") + slot, volume="0.00000001") for slot in range(3))
CLOSES = [bar.close for bar in BARS]
TIMES = [datetime(2026, 9, 23, 12, 35, tzinfo=UTC) + timedelta(minutes=slot) for slot in range(3)]


def test_polars_reads_parquet_exactly(tmp_path):
    write_parquet([BARS], tmp_path / "bars.parquet")
    frame = polars.read_parquet(tmp_path / "bars.parquet")
    assert frame.schema["time"] == polars.Datetime("ms", "UTC")
    assert frame.schema["close"] == polars.Decimal(38, 8)
    assert frame.schema["quote_volume"] == polars.Decimal(38, 16)
    assert frame["close"].to_list() == CLOSES
    assert frame["time"].to_list() == TIMES


def test_pandas_reads_parquet_exactly(tmp_path):
    write_parquet([BARS], tmp_path / "bars.parquet")
    frame = pandas.read_parquet(tmp_path / "bars.parquet")
    assert list(frame["close"]) == CLOSES
    assert list(frame["time"]) == TIMES
    assert str(frame["time"].dt.tz) == "UTC"


def test_polars_reads_csv_with_its_times_and_exactly_if_told_to(tmp_path):
    write_csv([BARS], tmp_path / "bars.csv")
    plain = polars.read_csv(tmp_path / "bars.csv", try_parse_dates=True)
    assert plain["time"].to_list() == TIMES
    assert plain.schema["close"] == polars.Float64
    exact = polars.read_csv(tmp_path / "bars.csv", schema_overrides={"close": polars.Decimal(38, 8)})
    assert exact["close"].to_list() == CLOSES


def test_pandas_reads_csv_with_its_times_and_exactly_if_told_to(tmp_path):
    write_csv([BARS], tmp_path / "bars.csv")
    frame = pandas.read_csv(tmp_path / "bars.csv", parse_dates=["time"], converters={"close": Decimal})
    assert list(frame["time"]) == TIMES
    assert list(frame["close"]) == CLOSES
    assert frame["volume"].dtype == float


def test_polars_and_pandas_read_json_lines_as_numbers(tmp_path):
    write_jsonl([BARS], tmp_path / "bars.jsonl")
    floats = [float(close) for close in CLOSES]
    assert polars.read_ndjson(tmp_path / "bars.jsonl")["close"].to_list() == floats
    assert list(pandas.read_json(tmp_path / "bars.jsonl", lines=True)["close"]) == floats


# -- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number", "fits"),
    [
        ("close", "0.000000001", False),
        ("close", "0.0000000100000", True),
        ("quote_volume", "0.0000000000000001", True),
        ("quote_volume", "0.00000000000000001", False),
        ("volume", "9" * 30, True),
        ("volume", "1" + "0" * 30, False),
        ("volume", "1." + "0" * 47, True),  # more digits than a column has, and none of them lost
        ("high", "0E+40", True),
    ],
)
def test_parquet_takes_what_fits_and_names_what_does_not(tmp_path, name, number, fits):
    path = tmp_path / "bars.parquet"
    bar = final(0, **{name: Decimal(number)})
    if fits:
        write_parquet([(bar,)], path)
        assert read(path)[0][name] == Decimal(number)
        return
    with pytest.raises(ValueError, match=f"KRW-BTC 1m at 2026-09-23T12:35:00Z: {name} {Decimal(number)} does not fit"):
        write_parquet([(bar,)], path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_more_than_two_pages_are_in_memory_at_any_time(tmp_path, suffix):
    alive: weakref.WeakSet[Candle] = weakref.WeakSet()
    most = 0

    def pages():
        nonlocal most
        for number in range(30):
            page = tuple(Watched.of(final(number * 20 + place)) for place in range(20))
            alive.update(page)
            most = max(most, len(alive))
            yield page

    assert WRITERS[suffix](pages(), tmp_path / f"bars{suffix}") == 600
    assert 20 <= most <= 40


@attrs.frozen(eq=False)
class Watched(Candle):
    """A bar that is told from an equal one."""

    @classmethod
    def of(cls, bar: Candle) -> Watched:
        return cls(**{field.name: getattr(bar, field.name) for field in attrs.fields(Candle)})


def test_the_groups_of_a_parquet_file_are_made_of_many_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "ROWS_IN_GROUP", 100)
    path = tmp_path / "bars.parquet"
    sizes = [30] * 9 + [330]
    write_parquet(([final(slot) for slot in range(sum(sizes[:at]), sum(sizes[: at + 1]))] for at in range(10)), path)
    meta = pq.read_metadata(path)
    assert [meta.row_group(at).num_rows for at in range(meta.num_row_groups)] == [120, 120, 200, 160]
    assert [r["open_ms"] for r in read(path)] == [final(slot).open_ms for slot in range(600)]


# -- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("failure", [RuntimeError("the exchange is away"), KeyboardInterrupt()])
def test_an_interrupted_export_leaves_what_was_there(tmp_path, suffix, failure):
    path = tmp_path / f"bars{suffix}"
    path.write_text("old")

    def pages():
        yield BARS
        raise failure

    with pytest.raises(type(failure)):
        WRITERS[suffix](pages(), path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_cannot_be_written_is_one_line_that_names_it(tmp_path, suffix):
    path = tmp_path / "nowhere" / f"bars{suffix}"
    with pytest.raises(FileNotFoundError) as raised:
        WRITERS[suffix]([BARS], path)
    assert str(raised.value) == f"[Errno 2] No such file or directory: '{path}'"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_is_one_line_that_names_the_file(suffix):
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: '/dev/full'$"):
        WRITERS[suffix]([BARS], Path("/dev/full"))


def test_a_sink_counts_while_it_is_written(tmp_path):
    path = tmp_path / "bars.csv"
    with opened(path, Format.CSV) as sink:
        counts = [sink.bars]
        for _ in range(2):
            sink.write(BARS)
            counts.append(sink.bars)
        assert not path.exists()
    assert counts == [0, 3, 6]
    assert len(read(path)) == 6


def test_parquet_to_stdout_is_refused():
    with pytest.raises(ValueError, match="parquet cannot be written to stdout: name a file"):
        write_parquet([BARS], STDOUT)


PROGRAM = """
import sys
from decimal import Decimal
from pathlib import Path
from marketpipe.cli.export import STDOUT, write_csv, write_jsonl
from marketpipe.models import *
one = Decimal(1)
bar = Candle("KRW-BTC", Timeframe.M1, 0, one, one, one, one, one, one, 0, 0, Source.REST, CandleState.FINAL)
print("before")
try:
    count = {"csv": write_csv, "jsonl": write_jsonl}[sys.argv[1]](((bar,) for _ in range(int(sys.argv[2]))), STDOUT)
except BrokenPipeError:
    sys.exit(141)
print("after", count)
"""


@pytest.mark.parametrize(("format", "header"), [("csv", 1), ("jsonl", 0)])
def test_stdout_gets_the_same_lines_between_what_is_printed_there(format, header):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, format, "3"],
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # what was printed before is still held back
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("before", "after 3")
    assert len(lines) == 5 + header
    assert lines[-2].startswith({"csv": "KRW-BTC,1m,1970-01-01T00:00:00Z,0,1,", "jsonl": '{"market":"KRW-BTC"'}[format])


def test_a_reader_who_leaves_is_told_as_a_broken_pipe_and_as_nothing_else():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "csv", "1000000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "before\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""


def test_arrow_s_own_conversion_is_not_trusted_with_many_digits():
    """If this fails, pyarrow was mended, and `_fitting` may go."""
    number = Decimal("1." + "0" * 47)
    assert pyarrow.array([number], pyarrow.decimal128(38, 8)).to_pylist() != [number]
