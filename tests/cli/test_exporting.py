"""``marketpipe export`` as people and programs meet it: the rows, the files, and what is left when it is stopped."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from cli.collecting import HANG_S, lines_of, refused_files, requests, strike, told, until
from click.testing import CliRunner
from store import paper_store
from terminal import at_a_terminal

from marketpipe.cli.app import cli as group
from marketpipe.models import Candle
from marketpipe.store.sqlite import SqliteStore

DAY = ["--start", "2026-09-01", "--end", "2026-09-02"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Missing argument 'SYMBOL...'"),
        (["KRW-BTC"], "Missing option '--start'"),
        (["KRW-BTC", "--start", "1d", "--format", "xlsx"], "'xlsx' is not one of 'csv', 'jsonl', 'parquet'"),
        (["KRW-BTC", "--start", "1d", "--format", "parquet"], "parquet cannot be written to stdout"),
        (["KRW-BTC", "--start", "1d", "--timeframe", "1m,2m"], "unknown timeframe '2m'"),
    ],
)
def test_a_wrong_option_is_a_usage_error_before_anything_is_started(args, message, monkeypatch):
    def start(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(trio, "run", start)
    result = CliRunner().invoke(group, ["export", *args])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.socket
def test_all_formats_have_the_same_bars_and_the_second_file_is_asked_of_nobody(cli, base_url, tmp_path: Path):
    import pyarrow.parquet

    to = [*DAY, "--store", str(tmp_path / "x.db"), "--base-url", base_url]
    done = cli.run("export", "KRW-BTC,krw-btc", "BTC-ETH", *to, afresh=True)
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["market"] for row in rows] == sorted((row["market"] for row in rows), key=["KRW-BTC", "BTC-ETH"].index)
    assert 1_440 < len(rows) <= 2_880
    asked = requests(base_url)
    lines = tmp_path / "bars.JSONL"
    done = cli.run("export", "KRW-BTC", "BTC-ETH", *to, "-o", str(lines))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(rows):,} bars in {lines}\n", "")
    opens = [(row["market"], row["open_ms"]) for row in lines_of(lines.read_text())]
    assert opens == [(row["market"], int(row["open_ms"])) for row in rows]
    table = tmp_path / "bars.parquet"
    assert cli.run("export", "KRW-BTC", "BTC-ETH", *to, "--output", str(table), afresh=True).returncode == 0
    columns = pyarrow.parquet.read_table(table).to_pydict()
    assert list(zip(columns["market"], columns["open_ms"], strict=True)) == opens
    assert columns["close"] == [Decimal(row["close"]) for row in rows]
    assert requests(base_url) == asked


@pytest.mark.slow
@pytest.mark.socket
def test_several_timeframes_follow_each_other(cli, base_url):
    frames = ["--timeframe", "4h", "--timeframe", "1d"]
    done = cli.run("export", "KRW-BTC", *frames, *DAY, "--format", "jsonl", "--base-url", base_url)
    assert [row["timeframe"] for row in lines_of(done.stdout)] == ["4h"] * 6 + ["1d"]


@pytest.mark.slow
@pytest.mark.socket
def test_a_bar_that_is_running_is_left_out(cli, base_url):
    done = cli.run("export", "KRW-BTC", "--timeframe", "1y", "--start", "2024-01-01", "--base-url", base_url)
    assert (done.returncode, done.stderr) == (0, "")
    (running,) = lines_of(
        cli.run("candles", "KRW-BTC", "--timeframe", "1y", "--count", "1", "--base-url", base_url).stdout
    )
    opens = [int(row["open_ms"]) for row in csv.DictReader(io.StringIO(done.stdout))]
    assert opens
    assert max(opens) < running["open_ms"]


@pytest.mark.slow
@pytest.mark.socket
def test_what_the_exchange_keeps_no_more_is_told(cli, base_url, tmp_path: Path):
    target, to = tmp_path / "bars.csv", ["--store", str(tmp_path / "x.db"), "--base-url", base_url]
    hour = ["--timeframe", "1s,1m", "--start", "2400h", "--end", "2399h"]
    done = cli.run("export", "KRW-BTC", *hour, *to, "-o", str(target))
    assert (done.returncode, done.stdout) == (0, f"60 bars in {target}\n")
    assert done.stderr == "marketpipe: KRW-BTC 1s: 3,600 slots cannot be known: the exchange keeps them no more\n"


def test_a_time_that_is_to_come_is_one_line_and_nothing_is_written(cli, tmp_path: Path):
    words = ["--start", "2090-01-01", "-o", str(tmp_path / "x.csv"), "--store", str(tmp_path / "new" / "x.db")]
    told(cli.call("export", "KRW-BTC", *words), "no 1m bar has opened and ended in that time yet")
    assert list(tmp_path.iterdir()) == []


def test_what_is_stored_of_no_database_is_one_line_and_none_is_made(cli, tmp_path: Path):
    missing = tmp_path / "typo" / "x.db"
    words = [*DAY, "--stored-only", "-o", str(tmp_path / "x.csv"), "--store", str(missing)]
    told(cli.call("export", "KRW-BTC", *words), f"{missing}: there is no database")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.socket
def test_stored_only_asks_nobody_and_says_what_is_missing(cli, base_url, tmp_path: Path):
    to = ["--store", str(tmp_path / "x.db"), "--base-url", base_url]
    half = ["--start", "2026-09-01", "--end", "2026-09-01T12:00Z"]
    whole = cli.run("export", "KRW-BTC", *half, *to)
    asked = requests(base_url)
    done = cli.run("export", "KRW-BTC", "KRW-ETH", *DAY, "--stored-only", *to)
    assert (done.returncode, done.stdout) == (0, whole.stdout)
    first, second = done.stderr.splitlines()
    assert first == (
        "marketpipe: KRW-BTC 1m: 720 slots between 2026-09-01 12:00 and 2026-09-02 00:00 UTC not stored; "
        "4 requests, about 1 s to fetch"
    )
    assert second.startswith("marketpipe: KRW-ETH 1m: 1,440 slots ")
    done = cli.run("export", "KRW-BTC", *half, "--stored-only", *to)
    assert (done.returncode, done.stdout, done.stderr) == (0, whole.stdout, "")
    assert requests(base_url) == asked


@pytest.mark.slow
def test_however_many_bars_are_stored_few_are_in_memory_at_once(cli, tmp_path: Path, monkeypatch):
    path, read = tmp_path / "x.db", []
    with paper_store.opened(path, "http://127.0.0.1:1") as store:
        store.write([paper_store.full(-20_100, -10_000), paper_store.full(-9_000, -100)], now_ms=1)

    def bars(store: SqliteStore, *args: Any, **options: Any) -> tuple[Candle, ...]:
        found = bars_of(store, *args, **options)
        read.append(len(found))
        return found

    bars_of = SqliteStore.bars
    monkeypatch.setattr(SqliteStore, "bars", bars)
    stretch = ["--start", str(paper_store.opens(-20_100)), "--end", str(paper_store.opens(-100))]
    words = [
        "--stored-only",
        "-o",
        str(tmp_path / "x.csv"),
        "--store",
        str(path),
        "--base-url",
        "http://127.0.0.1:1",
    ]
    done = cli.call("export", "KRW-BTC", *stretch, *words)
    assert (done.returncode, done.stdout.split()[0]) == (0, "19,000")
    assert " 1,000 slots between " in done.stderr
    assert sum(read) >= 19_000
    assert max(read) <= 5_000


@pytest.mark.slow
@pytest.mark.socket
def test_a_failure_leaves_the_file_that_was_there_and_keeps_what_was_fetched(cli, tmp_path: Path):
    target, path = tmp_path / "bars.csv", tmp_path / "x.db"
    target.write_text("an older one\n")
    with cli.simulator("--markets", "40") as url:
        strike(url, kind="status", status=400, groups=["candles"], after_s=3)
        to = ["--store", str(path), "--base-url", url]
        done = cli.run("export", "KRW-BTC", "--start", "2026-09-01", "--end", "2026-09-15", *to, "-o", str(target))
        told(done, "400")
        assert re.search(r"1m bars from 2026-09-\d\d", done.stderr), "it says what is missing, wherever it was by then"
    assert target.read_text() == "an older one\n"
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix == ".part") == []


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["KRW-NOPE", *DAY], "unknown market 'KRW-NOPE'"),
        (["KRW-BTC", *DAY, "-o", "/nowhere/bars.csv"], "No such file or directory: '/nowhere/bars.csv'"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(cli, base_url, args, message):
    done = cli.run("export", "--base-url", base_url, *args)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert message in line


@pytest.mark.slow
@pytest.mark.socket
def test_an_address_where_nobody_answers_is_one_line(cli, tmp_path: Path):
    done = cli.run("export", "KRW-BTC", *DAY, "-o", str(tmp_path / "bars.csv"), "--base-url", "http://127.0.0.1:1")
    told(done, "could not connect to 127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.socket
def test_what_is_no_database_of_ours_is_one_line(cli, base_url, tmp_path: Path):
    for path, message in refused_files(tmp_path).values():
        told(cli.call("export", "KRW-BTC", *DAY, "--store", str(path), "--base-url", base_url), message)


@pytest.mark.slow
@pytest.mark.socket
def test_a_reader_who_leaves_early_is_no_error(cli, base_url):
    with cli.start("export", "KRW-BTC", "--start", "5d", "--base-url", base_url) as ours:
        assert ours.stdout.readline().startswith("market,")
        ours.stdout.close()
        assert ours.wait(HANG_S) == 141
        assert ours.stderr.read() == ""


@pytest.mark.slow
@pytest.mark.socket
def test_ctrl_c_leaves_though_nobody_reads_what_was_written(cli, tmp_path: Path):
    with (
        cli.simulator("--markets", "40", "--limit", "1000") as url,
        cli.start("export", "KRW-BTC", "--start", "5d", "--store", str(tmp_path / "x.db"), "--base-url", url) as ours,
    ):
        until(lambda: is_blocked_in_a_write(ours.pid), ours)
        ours.send_signal(signal.SIGINT)
        assert ours.wait(HANG_S) == 130
        assert ours.stderr.read() == ""


def is_blocked_in_a_write(pid: int) -> bool:
    return any("pipe_write" in (task / "wchan").read_text() for task in Path(f"/proc/{pid}/task").iterdir())


@pytest.mark.slow
@pytest.mark.socket
def test_ctrl_c_while_a_file_is_written_leaves_none_and_says_so(cli, tmp_path: Path):
    target = tmp_path / "bars.csv"
    with (
        cli.simulator("--markets", "40") as url,
        at_a_terminal(
            cli, "export", "KRW-BTC", "--start", "60d", "-o", str(target), "--base-url", url, columns=200
        ) as watcher,
    ):
        watcher.read_until(lambda screen: any(" bars written; KRW-BTC 1m, " in line for line in screen))
        os.killpg(watcher.ours.pid, signal.SIGINT)
        assert watcher.end() == 130
    assert watcher.screen[-1].startswith(f"marketpipe: stopped; {target} was not written")
    assert list(tmp_path.iterdir()) == []
