"""``marketpipe watch`` as people and programs meet it: what it shows, what it survives, how it ends."""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import termios
import time
from collections.abc import Callable
from decimal import Decimal
from urllib.request import Request, urlopen

import pytest
import trio
from click.testing import CliRunner
from rig import open_rig
from terminal import at_a_terminal

from marketpipe.cli import views
from marketpipe.cli.app import cli as group
from marketpipe.cli.views import Watched
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import ExchangeUnavailable
from marketpipe.sim import WsDownFault

# Long after anything should have happened; only a hang comes this far.
HANG_S = 60
NAMES = ["KRW-BTC", "KRW-ETH", "BTC-ETH"]


def lines_of(text: str) -> list[dict]:
    return [json.loads(line, parse_float=Decimal) for line in text.splitlines()]


def strike(base_url: str, **fault: object) -> None:
    body = json.dumps(fault).encode()
    urlopen(Request(f"{base_url}/sim/faults", data=body, method="POST"), timeout=HANG_S).close()


def truth(base_url: str, market: str, start_ms: int, end_ms: int) -> list[int]:
    """The ids of all trades there were, oldest first."""
    with urlopen(
        f"{base_url}/sim/truth/trades?market={market}&start_ms={start_ms}&end_ms={end_ms}", timeout=HANG_S
    ) as reply:
        return [row["sequential_id"] for row in json.load(reply)]


# -- before anything is started ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Missing argument 'SYMBOL...'"),
        (["KRW-BTC", "--trades", "--candles", "1m"], "give one of --trades, --candles, not 2"),
        (["KRW-BTC", "--candles", "7m"], "'--candles': unknown timeframe '7m'; allowed: 1s 1m"),
        (["KRW-BTC", "--for", "0"], "--for must be more than 0 s, was 0"),
        (["KRW-BTC", "--for", "nan"], "--for must be more than 0 s, was nan"),
        (["KRW-BTC", "--for", "soon"], "'soon' is not a valid float"),
        (["KRW-BTC", "--count", "0"], "'--count': 0 is not in the range x>=1"),
        (["KRW-BTC", "--sim", "--region", "sg"], "give one of --sim, --region"),
    ],
)
def test_a_wrong_option_is_a_usage_error_before_anything_is_started(args, message, monkeypatch):
    def start(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(trio, "run", start)
    result = CliRunner().invoke(group, ["watch", *args])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


# -- for programs --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize(
    ("args", "event", "field", "sources"),
    [
        ([], "ticker", "quote_volume_24h", {"STREAM"}),
        (["--trades"], "trade", "sequential_id", {"STREAM"}),
        (["--candles", "1m"], "candle", "close", {"STREAM"}),
        (["--candles", "1d"], "candle", "close", {"STREAM", "REST"}),  # a day begins before we do
    ],
)
def test_piped_each_event_is_a_line_of_json_and_there_are_as_many_as_wished(cli, base_url, args, event, field, sources):
    done = cli.run("watch", *NAMES, *args, "--count", "4", "--base-url", base_url)
    assert (done.returncode, done.stderr) == (0, "")
    rows = lines_of(done.stdout)
    assert [row["event"] for row in rows] == [event] * 4
    assert all(row["market"] in NAMES and row[field] is not None and row["source"] in sources for row in rows)


@pytest.mark.slow
@pytest.mark.socket
def test_after_the_seconds_wished_it_leaves_by_itself(cli, base_url):
    done = cli.run("watch", "krw-btc,KRW-ETH", "--for", "2", "--base-url", base_url, afresh=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {row["market"] for row in lines_of(done.stdout)} == {"KRW-BTC", "KRW-ETH"}


@pytest.mark.slow
@pytest.mark.socket
def test_a_lost_connection_is_a_gap_among_the_lines_and_no_trade_is_missing_or_double(cli):
    with cli.simulator("--markets", "40") as url, cli.start("watch", "KRW-BTC", "--trades", "--base-url", url) as ours:
        rows: list[dict] = []

        def read_until(enough: Callable[[dict], bool]) -> None:
            while not (rows and enough(rows[-1])):
                line = ours.stdout.readline()
                assert line, ours.stderr.read()
                rows.append(json.loads(line))

        read_until(lambda row: row["event"] == "trade")
        strike(url, kind="ws-down", for_s=1)
        read_until(lambda row: row["event"] == "gap" and row["is_open"])
        read_until(lambda row: row["event"] == "gap" and row["repaired"])
        read_until(lambda row: row["event"] == "trade" and row["source"] == "STREAM")
        ours.send_signal(signal.SIGINT)
        rest, told = ours.communicate(timeout=HANG_S)
        trades = [row for row in [*rows, *lines_of(rest)] if row["event"] == "trade"]
        ids = sorted(trade["sequential_id"] for trade in trades)
        times = [trade["trade_ms"] for trade in trades]
        since = truth(url, "KRW-BTC", min(times), max(times) + 1)
        assert ids == since[since.index(ids[0]) : since.index(ids[-1]) + 1]
    assert (ours.returncode, told) == (130, "")
    gaps = [row for row in rows if row["event"] == "gap"]
    assert gaps[0]["proof"] == ""
    assert "closed 1006" in gaps[0]["cause"]


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("form", ["--json", "--table"])
def test_a_reader_who_leaves_early_is_no_error(cli, base_url, form):
    with cli.start("watch", *NAMES, "--trades", form, "--base-url", base_url, afresh=form == "--table") as ours:
        assert ours.stdout.readline()
        ours.stdout.close()
        assert ours.wait(HANG_S) == 141
        assert ours.stderr.read() == ""


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("args", [[], ["--trades"], ["--candles", "1s"]])
def test_ctrl_c_leaves_at_once_and_without_a_traceback(cli, base_url, args):
    with cli.start("watch", *NAMES, *args, "--base-url", base_url, afresh=not args) as ours:
        assert ours.stdout.readline()
        os.killpg(ours.pid, signal.SIGINT)
        _, told = ours.communicate(timeout=HANG_S)
    assert (ours.returncode, told) == (130, "")


@pytest.mark.slow
@pytest.mark.socket
def test_ctrl_c_leaves_at_once_though_nobody_reads_what_was_written(cli, base_url):
    with urlopen(f"{base_url}/v1/market/all", timeout=HANG_S) as reply:
        names = [market["market"] for market in json.load(reply)]
    with cli.start("watch", *names, "--base-url", base_url) as ours:
        fcntl.fcntl(ours.stdout, fcntl.F_SETPIPE_SZ, 4096)
        waiting, since = 0, tickers_sent(base_url)
        while waiting == 0 or tickers_sent(base_url) < since + 30:  # it has had much to say, and has said nothing
            assert ours.poll() is None
            time.sleep(0.01)  # noqa: TID251 - it is another process that we wait for
            if unread(ours.stdout.fileno()) != waiting:
                waiting, since = unread(ours.stdout.fileno()), tickers_sent(base_url)
        os.killpg(ours.pid, signal.SIGINT)
        assert ours.wait(HANG_S) == 130
        assert ours.stderr.read() == ""


def tickers_sent(base_url: str) -> int:
    with urlopen(f"{base_url}/sim/stats", timeout=HANG_S) as reply:
        return json.load(reply)["streams"]["frames"].get("ticker", 0)


def unread(descriptor: int) -> int:
    waiting = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
    return waiting[0]


@pytest.mark.slow
@pytest.mark.socket
def test_an_unknown_market_is_one_line_and_exit_code_1(cli, base_url):
    done = cli.run("watch", "KRW-NOPE", "--base-url", base_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "marketpipe: unknown market 'KRW-NOPE': the exchange does not list it\n"


@pytest.mark.slow
@pytest.mark.socket
def test_one_unknown_market_is_told_and_the_others_go_on(cli, base_url):
    done = cli.run("watch", "KRW-NOPE", "KRW-BTC", "--count", "2", "--base-url", base_url)
    assert done.returncode == 1
    assert done.stderr == "marketpipe: unknown market 'KRW-NOPE': the exchange does not list it\n"
    assert [row["market"] for row in lines_of(done.stdout)] == ["KRW-BTC"] * 2


@pytest.mark.slow
@pytest.mark.socket
def test_an_address_where_nobody_answers_is_one_line_and_exit_code_1(cli):
    done = cli.run("watch", "KRW-BTC", "--base-url", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("marketpipe: could not connect to 127.0.0.1:1")


@pytest.mark.parametrize("view", [views.as_json, views.as_board, views.as_lines])
async def test_a_stream_that_cannot_be_reached_at_the_start_is_given_up(view, autojump_clock, capsys):
    watched = Watched(names=("KRW-BTC",), trades=False, timeframe=Timeframe.M1, for_s=60, count=1)
    async with open_rig(streams=True) as rig:
        rig.sim.add_fault(WsDownFault())
        message = "^no connection to the exchange's stream within 10 s: could not connect to sim"
        with pytest.RaisesGroup(pytest.RaisesExc(ExchangeUnavailable, match=message)):
            await view(rig.market, watched)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.socket
def test_a_table_in_a_pipe_is_printed_as_it_was_at_the_end(cli, base_url):
    done = cli.run("watch", *NAMES, "--table", "--for", "2", "--base-url", base_url)
    assert (done.returncode, done.stderr) == (0, "")
    for name in NAMES:
        (line,) = (line for line in done.stdout.splitlines() if name in line)
        assert "STREAM" in line
    assert "\x1b" not in done.stdout


# -- on a terminal -------------------------------------------------------------------------------------------------


def rows(screen: list[str]) -> list[str]:
    return [line for line in screen if line.split()[:1] and line.split()[0] in NAMES]


@pytest.mark.slow
@pytest.mark.socket
def test_a_terminal_shows_the_exchange_drop_and_come_back_and_is_left_as_it_was(cli):
    with (
        cli.simulator("--markets", "40") as url,
        at_a_terminal(cli, "watch", *NAMES, "--base-url", url) as watcher,
    ):
        watcher.read_until(lambda screen: sum("STREAM" in line for line in rows(screen)) == 3)
        assert [line.split()[0] for line in rows(watcher.screen)] == NAMES
        strike(url, kind="ws-down")
        watcher.read_until(lambda screen: all("reconnecting" in line for line in rows(screen)))
        watcher.read_until(lambda screen: all("REST" in line for line in rows(screen)))
        urlopen(Request(f"{url}/sim/faults", method="DELETE"), timeout=HANG_S).close()
        watcher.read_until(lambda screen: all("STREAM" in line and "reconnecting" not in line for line in rows(screen)))
        watcher.read_until(lambda screen: screen[-1].startswith("ticker, orderbook, candle: connected   "))
        os.killpg(watcher.ours.pid, signal.SIGINT)
        assert watcher.end() == 130
    assert len(rows(watcher.screen)) == 3
    assert watcher.screen[-1].startswith("ticker, orderbook, candle: connected   ")
    assert "Traceback" not in watcher.text
    assert watcher.text.count("\x1b[?25l") == 1
    assert watcher.text.endswith("\x1b[?25h")


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize(
    ("columns", "environment"), [(80, {}), (40, {}), (80, {"NO_COLOR": "1"}), (80, {"TERM": "dumb"})]
)
def test_any_terminal_can_show_the_table(cli, base_url, columns, environment):
    with at_a_terminal(
        cli, "watch", *NAMES, "--for", "2", "--base-url", base_url, columns=columns, **environment
    ) as watcher:
        assert watcher.end() == 0
    for name in NAMES:
        assert any(line.split()[0] == name and len(line.split()) > 2 for line in rows(watcher.screen))
    if environment.get("TERM") == "dumb":
        assert "\x1b" not in watcher.text
    if "NO_COLOR" in environment:
        assert "\x1b[3" not in watcher.text


@pytest.mark.slow
@pytest.mark.socket
def test_trades_run_over_a_terminal_above_the_line_about_the_pipe(cli, base_url):
    with at_a_terminal(cli, "watch", *NAMES, "--trades", "--count", "6", "--base-url", base_url) as watcher:
        assert watcher.end() == 0
    *trades, footer = watcher.screen
    assert len(trades) == 6
    assert all({"BUY", "SELL"} & set(line.split()) for line in trades)
    assert footer.startswith("trade: connected   ")


@pytest.mark.slow
@pytest.mark.socket
def test_bars_that_are_final_run_over_a_terminal_above_the_ones_that_are_running(cli, base_url):
    with at_a_terminal(cli, "watch", *NAMES, "--candles", "1s", "--base-url", base_url) as watcher:
        watcher.read_until(lambda screen: sum(line.endswith(" final") for line in screen) > 5)
        os.killpg(watcher.ours.pid, signal.SIGINT)
        assert watcher.end() == 130
    *bars, footer = watcher.screen
    assert footer.startswith("candle: connected   ")
    kinds = [line.split()[-1] for line in bars]
    assert kinds == sorted(kinds)  # all that are final, then those that are running
