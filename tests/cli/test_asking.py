"""The asking commands as processes: what they print, how they fail, how they leave."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import time
from decimal import Decimal
from urllib.request import Request, urlopen

import pytest
from cli.forked import Forked
from rich.cells import cell_len

# Long after anything should have happened; only a hang comes this far.
HANG_S = 60

pytestmark = [pytest.mark.slow, pytest.mark.socket]


def lines(done) -> list:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line, parse_float=Decimal) for line in done.stdout.splitlines()]


def test_a_simulator_of_its_own_is_asked_with_sim(cli):
    (ticker,) = lines(cli.run("ticker", "--sim", "krw-btc"))
    assert ticker["market"] == "KRW-BTC"
    assert ticker["price"] > 0


def test_tickers_are_json_lines_in_the_order_asked_when_piped(cli, base_url):
    tickers = lines(cli.run("ticker", "KRW-ETH", "BTC-ETH", "KRW-BTC", "--base-url", base_url, afresh=True))
    assert [ticker["market"] for ticker in tickers] == ["KRW-ETH", "BTC-ETH", "KRW-BTC"]
    assert all(ticker["source"] == "REST" and ticker["age_ms"] >= 0 for ticker in tickers)


def test_symbols_may_be_separated_by_commas(cli, base_url):
    tickers = lines(cli.run("ticker", "KRW-ETH,btc-eth", "KRW-BTC,", "--base-url", base_url))
    assert [ticker["market"] for ticker in tickers] == ["KRW-ETH", "BTC-ETH", "KRW-BTC"]


def test_a_range_without_a_bar_prints_nothing_and_says_so_on_stderr(cli, base_url):
    window = ["--start", "1990-01-01T00:00Z", "--end", "1990-01-02T00:00Z"]
    done = cli.run("candles", "KRW-BTC", *window, "--json", "--base-url", base_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "marketpipe: no bar there\n")
    done = cli.run("candles", "KRW-BTC", *window, "--table", "--base-url", base_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no bar" in done.stdout


def test_what_failed_alike_is_one_line(cli):
    with cli.simulator("--markets", "40") as url:
        fault = json.dumps({"kind": "status", "status": 503, "groups": ["ticker"]}).encode()
        urlopen(Request(f"{url}/sim/faults", data=fault, method="POST"), timeout=HANG_S).close()
        done = cli.run("ticker", "KRW-BTC", "KRW-ETH", "BTC-ETH", "USDT-BTC", "--base-url", url)
    told(done, "4 markets (KRW-BTC, KRW-ETH, BTC-ETH, ...): HTTP 503 from /v1/ticker")


@pytest.mark.parametrize("columns", [120, 80, 40])
@pytest.mark.parametrize(
    "args", [["ticker", "KRW-BTC", "USDT-BTC"], ["candles", "KRW-BTC"], ["trades", "KRW-BTC"], ["orderbook", "KRW-BTC"]]
)
def test_on_a_terminal_of_any_width_no_number_is_cut(cli, base_url, args, columns):
    shown, code = on_a_terminal(cli, [*args, "--base-url", base_url], columns)
    assert code == 0
    assert "price" in shown or "close" in shown
    assert "…" not in shown
    assert max(cell_len(line) for line in shown.splitlines()) <= columns


def on_a_terminal(cli, args: list[str], columns: int) -> tuple[str, int]:
    """What a terminal would have shown, and the exit code."""
    ours, theirs = pty.openpty()
    environment = {**cli.environment, "COLUMNS": str(columns), "LINES": "25", "TERM": "dumb"}  # rich wants both
    with Forked(cli.starter, args, environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody holds the other end any more
            while data := os.read(ours, 65_536):
                shown += data
    os.close(ours)
    return shown.decode().replace("\r\n", "\n"), process.returncode


def test_who_waits_at_a_terminal_is_told_what_for_and_leaves_no_trace(cli):
    ours, theirs = pty.openpty()
    with (
        cli.simulator("--markets", "5", "--latency-ms", "3600000") as url,
        Forked(cli.starter, ["ticker", "KRW-BTC", "--base-url", url], cli.environment, stderr=theirs) as process,
    ):
        os.close(theirs)
        shown = b""
        try:
            while b" s)" not in shown:
                shown += os.read(ours, 65_536)
            process.send_signal(signal.SIGINT)
            assert process.wait(HANG_S) == 130
            shown += os.read(ours, 65_536)
        finally:
            process.kill()
    os.close(ours)
    assert b"... waiting for the exchange (1 s)" in shown
    assert shown.endswith(b"\r\x1b[K")


def test_candles_are_as_many_as_asked_oldest_first(cli, base_url):
    candles = lines(cli.run("candles", "KRW-BTC", "--timeframe", "1m", "--count", "450", "--base-url", base_url))
    opens = [candle["open_ms"] for candle in candles]
    assert len(opens) == 450
    assert opens == sorted(opens)


def test_a_range_of_candles_is_half_open_and_closed_only_leaves_out_the_running_bar(cli, base_url):
    window = ["--start", "2026-09-01T00:00Z", "--end", "2026-09-01T13:00+09:00", "--timeframe", "1h"]
    bars = lines(cli.run("candles", "KRW-BTC", *window, "--base-url", base_url))
    assert [bar["open_time"] for bar in bars] == [f"2026-09-01T0{hour}:00:00Z" for hour in range(4)]
    (bar,) = lines(cli.run("candles", "KRW-BTC", "--count", "1", "--closed-only", "--base-url", base_url))
    assert bar["state"] == "FINAL"


def test_markets_are_filtered_by_quote(cli, base_url):
    listed = lines(cli.run("markets", "--quote", "usdt", "--base-url", base_url))
    assert listed
    assert {market["quote"] for market in listed} == {"USDT"}


def test_books_and_trades_are_cut_to_size(cli, base_url):
    (book,) = lines(cli.run("orderbook", "KRW-BTC", "--depth", "3", "--base-url", base_url))
    assert (len(book["bids"]), len(book["asks"])) == (3, 3)
    assert len(lines(cli.run("trades", "KRW-BTC", "--count", "7", "--base-url", base_url))) == 7


def test_a_table_is_shown_when_it_is_asked_for(cli, base_url):
    done = cli.run("ticker", "KRW-BTC", "--table", "--base-url", base_url)
    assert done.returncode == 0
    assert "KRW-BTC" in done.stdout
    assert not done.stdout.startswith("{")


def test_good_rows_are_printed_and_each_failure_is_one_line(cli, base_url):
    done = cli.run("ticker", "KRW-NOPE", "KRW-BTC", "???", "--base-url", base_url)
    assert done.returncode == 1
    assert [json.loads(line)["market"] for line in done.stdout.splitlines()] == ["KRW-BTC"]
    first, second = done.stderr.splitlines()
    assert first.startswith("marketpipe: unknown market 'KRW-NOPE'")
    assert second.startswith("marketpipe: '???' is no market code")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["candles", "KRW-NOPE"], "marketpipe: unknown market 'KRW-NOPE'"),
        (["orderbook", "KRW-NOPE"], "marketpipe: unknown market 'KRW-NOPE'"),
        (["markets", "--quote", "EUR"], "marketpipe: no market is quoted in 'EUR'"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(cli, base_url, args, message):
    told(cli.run(*args, "--base-url", base_url), message)


def test_an_address_where_nobody_answers_is_one_line_and_exit_code_1(cli):
    told(cli.run("ticker", "KRW-BTC", "--base-url", "http://127.0.0.1:1"), "could not connect to 127.0.0.1:1")


def told(done, message: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("marketpipe: ")
    assert message in line


def test_verbose_shows_the_traceback_of_a_failure_beside_its_line(cli):
    done = cli.run("orderbook", "KRW-BTC", "--base-url", "http://127.0.0.1:1", "--verbose", afresh=True)
    assert done.returncode == 1
    assert "marketpipe: could not connect to 127.0.0.1:1" in done.stderr
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("form", ["--json", "--table"])
def test_a_reader_who_leaves_early_is_no_error(cli, base_url, form):
    words = ["candles", "KRW-BTC", "--count", "1500", form, "--base-url", base_url]
    with cli.start(*words, afresh=form == "--json") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(HANG_S) == 141
        assert process.stderr.read() == ""


def connections(base_url: str) -> int:
    with urlopen(f"{base_url}/sim/stats", timeout=HANG_S) as reply:
        return json.load(reply)["connections"]["open"]


@pytest.mark.parametrize("args", [["ticker", "KRW-BTC"], ["candles", "KRW-BTC", "--count", "1000"]])
def test_ctrl_c_in_the_middle_of_a_request_leaves_at_once_and_without_a_traceback(cli, args):
    with cli.simulator("--markets", "5", "--latency-ms", "3600000") as url:
        with cli.start(*args, "--base-url", url, afresh=args[0] == "ticker") as process:
            while connections(url) < 2:  # ours and its own
                assert process.poll() is None
                time.sleep(0.01)  # noqa: TID251 - it is another process that we wait for
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=HANG_S)
        assert (process.returncode, out, err) == (130, "", "")
