"""``marketpipe candles`` with a picture, and from what is stored alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from cli.collecting import connections, interrupted, lines_of, refused_files, requests, strike, told, until
from click.testing import CliRunner

from marketpipe.cli.app import cli as group
from marketpipe.clock import SystemClock

DAY = ["--start", "2026-09-01", "--end", "2026-09-02"]
PNG = b"\x89PNG"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--plot", "btc.jpg"], "a chart must be named *.png or *.html, was 'btc.jpg'"),
        (["--plot", "btc.png", "--zone", "Mars/Olympus"], "must be a time zone such as Asia/Seoul, was 'Mars/Olympus'"),
        (["--plot", "btc.png", "--zone", "../etc"], "must be a time zone such as Asia/Seoul"),
        (["--plot", "btc.png", "--colors", "pink"], "'pink' is not one of 'korean', 'western'"),
        (["--stored-only"], "--stored-only needs --start"),
        (["--stored-only", "--start", "1d", "--count", "5"], "--stored-only needs --start, without --count"),
        (["--stored-only", "--start", "1d", "--fill", "forward"], "--stored-only needs --start, without --count or"),
    ],
)
def test_a_wrong_option_is_a_usage_error_before_anything_is_started(args, message, monkeypatch):
    def start(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(trio, "run", start)
    result = CliRunner().invoke(group, ["candles", "KRW-BTC", *args])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.socket
def test_a_picture_or_a_page_is_drawn_and_its_path_is_printed(cli, base_url, tmp_path: Path):
    picture, page = tmp_path / "btc.png", tmp_path / "btc.html"
    done = cli.run("candles", "krw-btc", "--timeframe", "5m", *DAY, "--plot", str(picture), "--base-url", base_url,
                   afresh=True)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{picture}\n", "")
    assert picture.read_bytes().startswith(PNG)
    looks = ["--zone", "Asia/Seoul", "--colors", "western"]
    done = cli.run("candles", "KRW-BTC", "--count", "50", "--plot", str(page), *looks, "--base-url", base_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{page}\n", "")
    html = page.read_text()
    assert "Asia/Seoul" in html.replace("\\u002f", "/")
    assert "not fetched" not in html


@pytest.mark.slow
@pytest.mark.socket
def test_what_was_never_asked_for_is_marked_in_a_picture_of_what_is_stored(cli, base_url, tmp_path: Path):
    page, to = tmp_path / "btc.html", ["--store", str(tmp_path / "x.db"), "--base-url", base_url]
    for hours in (("00", "06"), ("18", "20")):
        stretch = [f"2026-09-01T{hour}:00Z" for hour in hours]
        assert cli.run("backfill", "KRW-BTC", "--start", stretch[0], "--end", stretch[1], *to).returncode == 0
    asked = requests(base_url)
    done = cli.run("candles", "KRW-BTC", *DAY, "--stored-only", "--plot", str(page), *to)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{page}\n", "")
    assert "not fetched: 2 spans, 16 h" in page.read_text()
    assert requests(base_url) == asked
    done = cli.run("candles", "KRW-BTC", *DAY, "--stored-only", *to)
    assert (done.returncode, done.stderr) == (0, "marketpipe: KRW-BTC: 960 slots of that time not stored\n")
    assert 400 < len(lines_of(done.stdout)) <= 480
    done = cli.run("candles", "KRW-BTC", "--start", "2026-08-01", "--end", "2026-08-02", "--stored-only", *to)
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "marketpipe: no bar is known there"


@pytest.mark.slow
@pytest.mark.socket
def test_what_the_exchange_keeps_no_more_is_not_told_as_empty(cli, base_url, tmp_path: Path):
    words = ["candles", "KRW-BTC", "--timeframe", "1s", "--base-url", base_url]
    hour = ["--start", "2400h", "--end", "2399h"]
    line = "marketpipe: KRW-BTC 1s: {} slots cannot be known: the exchange keeps them no more"
    done = cli.run(*words, *hour)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [line.format("3,600"), "marketpipe: no bar is known there"]
    done = cli.run(*words, *hour, "--table")
    assert done.stdout.split("\n")[0].strip() == "KRW-BTC 1s: no bar is known there"
    assert done.stderr.splitlines() == [line.format("3,600")]
    done = cli.run(*words, "--end", "2399h", "--count", "30")
    assert done.stderr.splitlines() == [line.format("30"), "marketpipe: no bar is known there"]
    start_ms = SystemClock().now_ms() // 1000 * 1000 - 2_400 * 3_600_000
    done = cli.run(*words, "--start", str(start_ms), "--count", "30")
    first, *_ = bars = lines_of(done.stdout)
    assert len(bars) == 30
    slots = int(done.stderr.split()[3].replace(",", ""))
    assert done.stderr == line.format(f"{slots:,}") + "\n"
    assert 3_600 < slots <= (first["open_ms"] - start_ms) // 1000
    done = cli.run(*words, "--count", "30")
    assert (len(lines_of(done.stdout)), done.stderr) == (30, "")


@pytest.mark.slow
@pytest.mark.socket
def test_what_the_exchange_keeps_no_more_is_marked_in_a_picture(cli, base_url, tmp_path: Path):
    words = ["candles", "KRW-BTC", "--timeframe", "1s", "--plot", str(tmp_path / "btc.html"), "--base-url", base_url]
    (first, *_) = lines_of(cli.run(*words[:-4], "--base-url", base_url, "--start", "2400h", "--count", "1").stdout)
    hour = ["--start", str(first["open_ms"] - 3_600_000), "--end", str(first["open_ms"] + 600_000)]
    done = cli.run(*words, *hour)
    assert (done.returncode, done.stdout) == (0, f"{words[5]}\n")
    assert done.stderr.startswith("marketpipe: KRW-BTC 1s: 3,")
    assert "not fetched: 1 h" in (tmp_path / "btc.html").read_text()


@pytest.mark.slow
@pytest.mark.socket
def test_what_the_exchange_did_not_tell_is_marked_and_the_exit_code_is_1(cli, tmp_path: Path):
    page = tmp_path / "btc.html"
    with cli.simulator("--markets", "40") as url:
        to = ["--store", str(tmp_path / "x.db"), "--base-url", url]
        assert (
            cli.run("backfill", "KRW-BTC", "--start", "2026-09-01", "--end", "2026-09-01T12:00Z", *to).returncode == 0
        )
        strike(url, kind="status", status=400, groups=["candles"])
        done = cli.run("candles", "KRW-BTC", *DAY, "--plot", str(page), *to)
        assert (done.returncode, done.stdout) == (1, f"{page}\n")
        (line,) = done.stderr.splitlines()
        assert "400" in line
        assert "not fetched: 12 h" in page.read_text()
        page.unlink()
        told(cli.run("candles", "KRW-ETH", *DAY, "--plot", str(page), *to), "400")
        told(cli.run("candles", "KRW-BTC", "--count", "500", "--plot", str(page), *to), "400")
    assert not page.exists()


@pytest.mark.slow
@pytest.mark.socket
def test_without_a_bar_there_is_no_picture(cli, base_url, tmp_path: Path):
    page = tmp_path / "btc.html"
    window = ["--start", "1990-01-01", "--end", "1990-01-02"]
    done = cli.run("candles", "KRW-BTC", *window, "--plot", str(page), "--base-url", base_url)
    told(done, "there is no 1m bar of KRW-BTC to draw")
    assert not page.exists()


@pytest.mark.parametrize("form", [[], ["--plot", "btc.html"]])
def test_what_is_stored_of_no_database_is_one_line_and_none_is_made(cli, tmp_path: Path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    missing = tmp_path / "typo" / "x.db"
    done = cli.call("candles", "KRW-BTC", *DAY, "--stored-only", *form, "--store", str(missing))
    told(done, f"{missing}: there is no database")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.socket
def test_what_is_no_database_of_ours_is_one_line(cli, base_url, tmp_path: Path):
    for path, message in refused_files(tmp_path).values():
        told(cli.call("candles", "KRW-BTC", "--store", str(path), "--base-url", base_url), message)


@pytest.mark.slow
@pytest.mark.socket
def test_stored_bars_are_not_asked_for_again(cli, base_url, tmp_path: Path):
    to = ["--store", str(tmp_path / "x.db"), "--base-url", base_url]
    first = lines_of(cli.run("candles", "KRW-BTC", *DAY, *to).stdout)
    asked = requests(base_url)
    second = lines_of(cli.run("candles", "KRW-BTC", *DAY, *to).stdout)
    assert requests(base_url) == asked
    assert [bar["open_ms"] for bar in second] == [bar["open_ms"] for bar in first]
    assert {bar["source"] for bar in second} == {"STORE"}


@pytest.mark.slow
@pytest.mark.socket
def test_ctrl_c_leaves_no_picture(cli, tmp_path: Path):
    page = tmp_path / "btc.png"
    with (
        cli.simulator("--markets", "5", "--latency-ms", "3600000") as url,
        cli.start("candles", "KRW-BTC", "--plot", str(page), "--base-url", url) as ours,
    ):
        until(lambda: connections(url) > 1, ours)  # ours and its own
        assert interrupted(ours) == ("", "")
    assert not page.exists()
