"""Each example runs, to its end, and says what it says it says."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import marketpipe
import marketpipe.examples
from marketpipe import Candle, CandleState, Gap, Source, Timeframe
from marketpipe.examples.backtest import Backtest
from marketpipe.examples.chart_data import Chart

FOLDER = Path(marketpipe.examples.__file__).parent
SHORT = ("screener", "chart_data", "backtest", "asyncio_program")
AT_MOST = 80
# Long after anything should have happened; only a hang comes this far.
HANG_S = 60


def module(name: str, *args: str) -> list[str]:
    return [sys.executable, "-m", f"marketpipe.examples.{name}", *args]


def run(environment: dict[str, str], name: str, *args: str) -> list[str]:
    """The lines it printed; nothing on stderr."""
    done = subprocess.run(
        module(name, *args), env=environment, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", SHORT)
def test_a_short_example_is_short(name):
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= AT_MOST


def test_an_example_knows_nothing_of_ours_but_the_public_names():
    """And the simulator, if it is to start one, and what the examples share."""
    for path in FOLDER.glob("*.py"):
        imported = re.findall(r"^\s*(?:from|import) (marketpipe\S*)", path.read_text(), re.MULTILINE)
        assert set(imported) <= {
            "marketpipe",
            "marketpipe.sim",
            "marketpipe.examples.exchange",
            "marketpipe.examples.rules",
        }


@pytest.mark.slow
@pytest.mark.socket
def test_the_screener_sorts_all_won_markets(environment, base_url):
    *rows, summary = run(environment, "screener", "--base-url", base_url, "--top", "100")
    turnovers = [int(row.split("%")[1].split()[0].replace(",", "")) for row in rows]
    assert len(rows) > 10
    assert all(row.startswith("KRW-") for row in rows)
    assert turnovers == sorted(turnovers, reverse=True)
    assert re.fullmatch(rf"\d+ of {len(rows)} rise; [\d,]+ symbols/s", summary)


@pytest.mark.slow
@pytest.mark.socket
def test_the_chart_has_the_past_and_then_the_running_bar(environment, base_url):
    words = ("KRW-BTC", "--base-url", base_url, "--timeframe", "1s", "--history", "30", "--updates", "6")
    *rows, summary = run(environment, "chart_data", *words)
    assert summary == "30 bars, 0 holes"
    assert len(rows) == 6
    assert rows[-1].endswith("running") or rows[-1].endswith("final")


@pytest.mark.slow
@pytest.mark.socket
def test_the_backtest_collects_and_reads(environment, base_url):
    words = ("--base-url", base_url, "--timeframe", "4h", "--days", "60", "--fall", "1")
    collected, result = run(environment, "backtest", *words)
    assert re.fullmatch(r"\d+ bars were new, in \d+ requests", collected)
    assert re.fullmatch(r"361 bars, [1-9]\d* trades, [+-]\d+\.\d\d%", result)  # 60 days of six, and the newest


@pytest.mark.slow
@pytest.mark.socket
def test_the_asyncio_program_asks_and_listens(environment, base_url):
    lines = run(environment, "asyncio_program", "--base-url", base_url, "--values", "3", "KRW-BTC", "KRW-ETH")
    tickers = [line for line in lines if re.fullmatch(r"KRW-\w+ [\d,.]+", line)]
    trades = [line for line in lines if re.fullmatch(r"KRW-\w+ (BUY|SELL) [\d.]+ at [\d,.]+", line)]
    assert [line.split()[0] for line in tickers] == ["KRW-BTC", "KRW-ETH"]
    assert len(trades) == 3
    assert any(re.fullmatch(r"KRW-BTC spread [\d.E+]+", line) for line in lines)


@pytest.mark.slow
@pytest.mark.socket
def test_the_seven_rules_run_for_a_while_and_leave(environment, base_url):
    first, *_, last = run(environment, "seven_rules", "--base-url", base_url, "--for", "3", "KRW-BTC", "KRW-ETH")
    assert first == "listening to KRW-BTC, KRW-ETH"
    assert re.fullmatch(r"left after 3 s: \d+ orders would have been given", last)


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("name", ["seven_rules", "screener", "asyncio_program"])
def test_an_example_brings_its_own_exchange(environment, name):
    words = {"seven_rules": ("--for", "2"), "screener": ("--top", "3"), "asyncio_program": ("--values", "1")}[name]
    assert run(environment, name, "--sim", *words)


@pytest.mark.slow
@pytest.mark.socket
def test_ctrl_c_leaves_the_seven_rules_without_a_traceback(environment, base_url):
    with subprocess.Popen(
        module("seven_rules", "--base-url", base_url), env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline().startswith("listening to ")
            process.send_signal(signal.SIGINT)
            told, complaints = process.communicate(timeout=HANG_S)
        finally:
            process.kill()
    assert (process.returncode, told, complaints) == (0, "left\n", "")


@pytest.fixture
def silent_exchange() -> Iterator[socket.socket]:
    """It takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(HANG_S)
        yield listener


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("name", SHORT)
def test_ctrl_c_ends_a_short_example_without_a_traceback(environment, silent_exchange, name):
    port = silent_exchange.getsockname()[1]
    with subprocess.Popen(
        module(name, "--base-url", f"http://127.0.0.1:{port}"), env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            silent_exchange.accept()[0].close()  # it waits for an answer, or is about to ask again
            process.send_signal(signal.SIGINT)
            told, complaints = process.communicate(timeout=HANG_S)
        finally:
            process.kill()
    assert (process.returncode, told, complaints) == (130, "", "")


def complaint(environment: dict[str, str], name: str, *args: str) -> str:
    """The one line on stderr of an example that fails."""
    done = subprocess.run(
        module(name, *args), env=environment, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.count("\n") == 1, done
    return done.stderr


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("name", [*SHORT, "seven_rules"])
def test_without_an_exchange_an_example_says_so_in_one_line(environment, name):
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        told = complaint(environment, name, "--base-url", f"http://127.0.0.1:{port}")
    assert f"could not connect to 127.0.0.1:{port}" in told


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("name", ["chart_data", "backtest", "asyncio_program", "seven_rules"])
def test_an_unknown_market_is_named_in_one_line(environment, base_url, name):
    assert complaint(environment, name, "--base-url", base_url, "KRW-NOPE").startswith("unknown market 'KRW-NOPE'")


def bar(open_ms: int, close: Any, state: CandleState = CandleState.FINAL) -> Candle:
    price = Decimal(close)
    return Candle(
        "KRW-BTC", Timeframe.M1, open_ms, price, price, price, price, price, price, 0, 0, Source.STREAM, state
    )


def test_a_chart_shows_a_hole_until_it_is_mended():
    chart, gap = Chart(2), Gap("KRW-BTC", 0, 120_000, "closed 1006")
    for event in (bar(0, 1), gap, bar(60_000, 2, CandleState.RUNNING), bar(60_000, 3, CandleState.RUNNING)):
        chart.hear(event)
    assert [each.close for each in chart.bars.values()] == [1, 3]
    assert list(chart.holes) == [0]
    chart.hear(attrs.evolve(gap, repaired=True, proof="read again"))
    chart.hear(bar(120_000, 4))
    assert not chart.holes
    assert [each.close for each in chart.bars.values()] == [3, 4]


def test_a_backtest_buys_the_fall_and_sells_half_of_the_way_back():
    test = Backtest(Decimal("0.1"), look=3)
    for place, close in enumerate((100, 95, 90, 94, 95, 200)):
        test.follow(bar(place, close))
    assert (test.trades, test.gain) == (1, Decimal(95) / 90)


@given(st.lists(st.integers(1, 1000)))
def test_a_backtest_never_sells_below_its_entry(closes):
    test = Backtest(Decimal("0.05"), look=5)
    for place, close in enumerate(closes):
        test.follow(bar(place, close))
    assert test.gain >= 1
