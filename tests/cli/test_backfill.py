"""``marketpipe backfill`` as people and programs meet it: what it shows, what it stores, how it goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio
from cli.collecting import HANG_S, connections, interrupted, lines_of, refused_files, requests, strike, told, until
from click.testing import CliRunner
from terminal import at_a_terminal, picture_of

from marketpipe.cli.app import cli as group


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--start", "1d"], "give symbols, or --quote"),
        (["KRW-BTC", "--quote", "KRW", "--start", "1d"], "give symbols, or --quote"),
        (["KRW-BTC"], "Missing option '--start'"),
        (["KRW-BTC", "--start", "soon"], "--start must be a time such as"),
        (["KRW-BTC", "--start", "1h", "--end", "2h"], "start must be before end"),
        (["KRW-BTC", "--start", "1h", "--end", "1h"], "start must be before end"),
        (["KRW-BTC", "--start", "1d", "--timeframe", "7m"], "unknown timeframe '7m'"),
        (["KRW-BTC", "--start", "1d", "--timeframe", ","], "Missing option '--timeframe'"),
        (["KRW-BTC", "--start", "1d", "--store", ""], "--store must be a path or ':memory:', was ''"),
    ],
)
def test_a_wrong_option_is_a_usage_error_before_anything_is_started(args, message, monkeypatch):
    def start(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(trio, "run", start)
    result = CliRunner().invoke(group, ["backfill", *args])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.socket
def test_bars_are_collected_and_the_second_time_nothing_is_asked(cli, base_url, tmp_path: Path):
    path = tmp_path / "new" / "folder" / "history.db"
    words = ["backfill", "KRW-BTC", "krw-eth,KRW-BTC", "--timeframe", "1m", "--timeframe", "1h", "--start", "9h",
             "--end", "2h", "--store", str(path), "--base-url", base_url]  # fmt: skip
    done = cli.run(*words, afresh=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith(f", in {path}")
    asked = requests(base_url)
    assert asked > 0
    # Stretches that are relative to now move on; they are within what is stored.
    done = cli.run(*words[:-5], "150m", *words[-4:])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"nothing was missing: all of it is in {path}\n", "")
    assert requests(base_url) == asked


@pytest.mark.slow
@pytest.mark.socket
def test_all_markets_of_a_currency(cli, base_url):
    done = cli.run(
        "backfill", "--quote", "usdt", "--timeframe", "1d", "--start", "30d", "--json", "--base-url", base_url
    )
    assert (done.returncode, done.stderr) == (0, "")
    *_, report = lines_of(done.stdout)
    assert len(report["parts"]) > 3
    assert all(part["market"].startswith("USDT-") and part["is_whole"] for part in report["parts"])


@pytest.mark.slow
@pytest.mark.socket
def test_in_json_progress_is_told_and_a_report_ends_it(cli, base_url, tmp_path: Path):
    done = cli.run("backfill", "KRW-BTC", "--start", "3d", "--end", "1d", "--json", "--store", str(tmp_path / "x.db"),
                   "--base-url", base_url)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    *progress, report = lines_of(done.stdout)
    assert {line["event"] for line in progress} == {"progress"}
    assert progress[-1]["state"] == "done"
    assert (report["event"], report["state"], report["pages"]) == ("report", "done", progress[-1]["pages"])
    (part,) = report["parts"]
    assert (part["market"], part["timeframe"], part["slots"], part["done"]) == ("KRW-BTC", "1m", 2_880, 2_880)
    assert part["error"] is None


@pytest.mark.slow
@pytest.mark.socket
def test_one_unknown_market_is_told_and_the_others_are_collected(cli, base_url, tmp_path: Path):
    done = cli.run("backfill", "KRW-NOPE", "KRW-BTC", "--start", "1h", "--store", str(tmp_path / "x.db"), "--base-url",
                   base_url)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "marketpipe: unknown market 'KRW-NOPE': the exchange does not list it\n"
    assert " collected (1 request" in done.stdout
    told(cli.run("backfill", "KRW-NOPE", "--start", "1h", "--base-url", base_url), "unknown market 'KRW-NOPE'")


@pytest.mark.slow
@pytest.mark.socket
def test_what_is_refused_for_good_is_missing_and_the_reason_is_told(cli, tmp_path: Path):
    with cli.simulator("--markets", "40") as url:
        strike(url, kind="status", status=400, groups=["candles"])
        done = cli.run("backfill", "KRW-BTC", "--start", "2h", "--store", str(tmp_path / "x.db"), "--base-url", url)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("marketpipe: KRW-BTC 1m: 1")
    assert "slots missing: " in line
    assert "400" in line


@pytest.mark.slow
@pytest.mark.socket
def test_an_outage_is_waited_out_and_told(cli, tmp_path: Path):
    with (
        cli.simulator("--markets", "40") as url,
        cli.start(
            "backfill", "KRW-BTC", "--start", "10d", "--store", str(tmp_path / "x.db"), "--base-url", url
        ) as ours,
    ):
        until(lambda: requests(url) >= 5, ours)
        strike(url, kind="status", status=503, groups=["candles"], for_s=4)
        out, err = ours.communicate(timeout=HANG_S)
    assert (ours.returncode, err) == (0, "")
    assert "waiting: " in out
    assert "503" in out


@pytest.mark.slow
@pytest.mark.socket
def test_an_address_where_nobody_answers_is_one_line_and_exit_code_1(cli, tmp_path: Path):
    done = cli.run("backfill", "KRW-BTC", "--start", "1h", "--store", str(tmp_path / "x.db"), "--base-url",
                   "http://127.0.0.1:1")  # fmt: skip
    told(done, "could not connect to 127.0.0.1:1")


def test_a_time_that_is_to_come_is_one_line_and_no_database_is_made(cli, tmp_path: Path):
    folder = tmp_path / "new"
    words = ["--start", "2090-01-01", "--store", str(folder / "x.db"), "--base-url", "http://127.0.0.1:1"]
    told(cli.call("backfill", "KRW-BTC", "--timeframe", "1m,1d", *words), "no 1m or 1d bar has opened and ended in")
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.socket
def test_what_is_no_database_of_ours_is_one_line_and_is_left_as_it_is(cli, base_url, tmp_path: Path):
    for name, (path, message) in refused_files(tmp_path).items():
        before = path.read_bytes() if path.is_file() else b""
        done = cli.call("backfill", "KRW-BTC", "--start", "1h", "--store", str(path), "--base-url", base_url)
        told(done, message)
        assert (path.read_bytes() if path.is_file() else b"") == before, name


@pytest.mark.slow
@pytest.mark.socket
def test_a_database_that_another_one_writes_to_is_one_line(cli, base_url, tmp_path: Path):
    words = ["--store", str(tmp_path / "x.db"), "--base-url", base_url]
    with cli.start("watch", "KRW-BTC", *words) as watcher:
        assert watcher.stdout.readline()
        told(cli.run("backfill", "KRW-BTC", "--start", "1h", *words), "it is open for reading only, since another")


@pytest.mark.slow
@pytest.mark.socket
def test_ctrl_c_says_what_is_stored_and_the_same_command_goes_on(cli, tmp_path: Path):
    path = tmp_path / "x.db"
    with cli.simulator("--markets", "40") as url:
        words = ["backfill", "KRW-BTC", "--timeframe", "1m", "--start", "2026-09-01", "--end", "2026-09-06", "--store",
                 str(path), "--base-url", url]  # fmt: skip
        with cli.start(*words) as ours:
            until(lambda: requests(url) >= 15, ours)
            _, err = interrupted(ours)
        (line,) = err.splitlines()
        assert line.startswith("marketpipe: stopped: ")
        assert line.endswith(f" bars stored in {path}; the same command goes on from there")
        stored = int(line.split()[2].replace(",", ""))
        first = requests(url)
        done = cli.run(*words, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        report = lines_of(done.stdout)[-1]
        assert stored > 0
        # 36 full pages prove it all: those in flight at the end are asked once more, and no other.
        assert report["pages"] <= 36 - stored // 200
        assert requests(url) - first == report["pages"]
        done = cli.run("gaps", "KRW-BTC", *words[2:])
        (summary,) = lines_of(done.stdout)
        assert (summary["slots"], summary["pending"], summary["failed"]) == (5 * 1_440, 0, 0)


@pytest.mark.slow
@pytest.mark.socket
def test_in_memory_nothing_is_kept_and_ctrl_c_says_so(cli):
    with (
        cli.simulator("--markets", "40") as url,
        cli.start("backfill", "KRW-BTC", "--start", "30d", "--base-url", url) as ours,
    ):
        until(lambda: requests(url) >= 3, ours)
        _, err = interrupted(ours)
    assert err == "marketpipe: stopped; nothing is kept, since the database was in memory: --store PATH keeps it\n"


@pytest.mark.slow
@pytest.mark.socket
def test_before_anything_was_collected_ctrl_c_has_nothing_to_say(cli):
    with (
        cli.simulator("--markets", "5", "--latency-ms", "3600000") as url,
        cli.start("backfill", "KRW-BTC", "--start", "1h", "--base-url", url) as ours,
    ):
        until(lambda: connections(url) > 1, ours)  # ours and its own
        assert interrupted(ours) == ("", "")


@pytest.mark.slow
@pytest.mark.socket
def test_a_reader_who_leaves_early_is_no_error(cli):
    with (
        cli.simulator("--markets", "40") as url,
        cli.start("backfill", "KRW-BTC", "--start", "60d", "--json", "--base-url", url) as ours,
    ):
        assert ours.stdout.readline()
        ours.stdout.close()
        assert ours.wait(HANG_S) == 141
        assert ours.stderr.read() == ""


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize(
    ("columns", "environment"), [(100, {}), (40, {}), (60, {"NO_COLOR": "1"}), (80, {"TERM": "dumb"})]
)
def test_any_terminal_can_show_it(cli, base_url, columns, environment):
    with at_a_terminal(
        cli, "backfill", "KRW-BTC", "KRW-ETH", "--start", "2d", "--base-url", base_url, columns=columns, **environment
    ) as watcher:
        assert watcher.end() == 0
    if environment.get("TERM") == "dumb":
        assert "\x1b" not in (rest := watcher.text)
    else:
        drawn, _, rest = watcher.text.rpartition("\x1b[?25h")
        bars = [line for line in picture_of(drawn, columns) if line.startswith("KRW-")]
        assert [line.split()[:2] for line in bars] == [["KRW-BTC", "1m"], ["KRW-ETH", "1m"]]
        assert all("100%" in line for line in bars)
        assert watcher.text.count("\x1b[?25l") == watcher.text.count("\x1b[?25h") == 1
    assert "collected (" in rest


@pytest.mark.slow
@pytest.mark.socket
def test_a_terminal_shows_a_bar_for_each_and_is_left_as_it_was_by_ctrl_c(cli, tmp_path: Path):
    with (
        cli.simulator("--markets", "40") as url,
        at_a_terminal(
            cli,
            "backfill",
            "KRW-BTC",
            "KRW-ETH",
            "--start",
            "30d",
            "--store",
            str(tmp_path / "x.db"),
            "--base-url",
            url,
            columns=200,
        ) as watcher,
    ):
        watcher.read_until(lambda screen: any("bars/s" in line and " left" in line for line in screen))
        os.killpg(watcher.ours.pid, signal.SIGINT)
        assert watcher.end() == 130
    assert "of 10 requests/s" in watcher.screen[-2]
    assert watcher.screen[-1].startswith("marketpipe: stopped: ")
    assert "Traceback" not in watcher.text
    assert watcher.text.count("\x1b[?25l") == watcher.text.count("\x1b[?25h") == 1
