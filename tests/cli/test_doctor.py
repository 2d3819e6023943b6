"""``marketpipe doctor``: what it finds, how it mends it, and what it is told to leave alone."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from cli.collecting import edit, interrupted, lines_of, refused_files, requests, strike, told, until
from terminal import at_a_terminal

pytestmark = [pytest.mark.slow, pytest.mark.socket]

DAY_MS = 1_788_220_800_000  # 2026-09-01T00:00Z
NOON_MS = DAY_MS + 43_200_000


@pytest.fixture(scope="module")
def collected(cli, base_url, tmp_path_factory) -> Path:
    """Two markets, a day each, in a database that nobody has touched since."""
    path = tmp_path_factory.mktemp("collected") / "history.db"
    done = cli.run("backfill", "KRW-BTC", "KRW-ETH", "--start", "2026-09-01", "--end", "2026-09-02", "--store",
                   str(path), "--base-url", base_url)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def path(collected: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(collected, tmp_path / "history.db"))


def words(path: Path, base_url: str, *more: str) -> list[str]:
    return ["doctor", *more, "--store", str(path), "--base-url", base_url]


HOLE = f"INSERT INTO coverage SELECT market, timeframe, {NOON_MS + 3_600_000}, end_ms FROM coverage"
HURT = (
    f"DELETE FROM candles WHERE market = 'KRW-BTC' AND open_ms >= {NOON_MS} AND open_ms < {NOON_MS + 3_600_000}",
    f"UPDATE candles SET low = '999999999999' WHERE market = 'KRW-ETH' AND open_ms = "
    f"(SELECT max(open_ms) FROM candles WHERE open_ms < {NOON_MS})",
)


def with_a_hole(path: Path) -> None:
    """An hour at noon that nobody knows of."""
    edit(path, HOLE, f"UPDATE coverage SET end_ms = {NOON_MS} WHERE start_ms < {NOON_MS}")
    edit(path, f"DELETE FROM candles WHERE open_ms >= {NOON_MS} AND open_ms < {NOON_MS + 3_600_000}")
    edit(path, "UPDATE series SET bars = (SELECT count(*) FROM candles c WHERE c.market = series.market)")


def test_a_database_that_is_well_is_told_so_without_a_question(cli, base_url, path: Path):
    asked = requests(base_url)
    done = cli.run(*words(path, base_url, "--table"), afresh=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(f"{path}: all is well: 2 series, 2,")
    series, more, verdict = lines_of(cli.run(*words(path, base_url)).stdout)
    assert (series["market"], series["holes"], more["market"]) == ("KRW-BTC", [], "KRW-ETH")
    assert verdict["is_well"] is True
    assert verdict["bars"] == series["bars"] + more["bars"]
    assert requests(base_url) == asked


def test_nobody_has_to_answer_for_it(cli, base_url, path: Path):
    edit(path, "UPDATE meta SET value = 'http://127.0.0.1:1'")
    done = cli.run(*words(path, "http://127.0.0.1:1"))
    assert (done.returncode, done.stderr) == (0, "")
    told(cli.run("doctor", "--store", str(path)), "holds the data of http://127.0.0.1:1, not of https://api.upbit.com")


def test_a_hole_is_told_as_no_illness_and_filled_by_a_repair(cli, base_url, path: Path, collected: Path):
    with_a_hole(path)
    done = cli.run(*words(path, base_url, "--table"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(" bars; 120 slots in between never fetched: --repair fetches them\n")
    *_, verdict = lines_of(cli.run(*words(path, base_url)).stdout)
    assert (verdict["is_well"], verdict["is_whole"], verdict["slots_missing"]) == (True, False, 120)
    done = cli.run(*words(path, base_url, "--repair", "--table"))
    assert (done.returncode, done.stderr) == (0, "")
    assert " read (2 requests" in done.stdout
    assert f"{path}: all is well" in done.stdout.splitlines()[-1]
    assert bars(cli, base_url, path) == bars(cli, base_url, collected)


def test_what_is_wrong_is_found_read_again_and_then_all_is_well(cli, base_url, path: Path, collected: Path):
    edit(path, *HURT)
    done = cli.run(*words(path, base_url, "--table"))
    assert (done.returncode, done.stderr) == (1, "")
    assert "IMPOSSIBLE" in done.stdout
    assert "MISCOUNTED" in done.stdout
    assert "2 things wrong; --repair mends that" in done.stdout
    done = cli.run(*words(path, base_url, "--repair"))
    assert (done.returncode, done.stderr) == (0, "")
    events = lines_of(done.stdout)
    assert [each["kind"] for each in events if each["event"] == "finding"] == ["MISCOUNTED", "IMPOSSIBLE"]
    assert {each["event"] for each in events} == {"series", "finding", "verdict", "progress", "report"}
    assert [each["is_well"] for each in events if each["event"] == "verdict"] == [False, True]
    assert bars(cli, base_url, path) == bars(cli, base_url, collected)


def bars(cli, base_url: str, path: Path) -> str:
    done = cli.run("export", "KRW-BTC", "KRW-ETH", "--start", "2026-09-01", "--end", "2026-09-02", "--stored-only",
                   "--store", str(path), "--base-url", base_url)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_what_cannot_be_mended_stays_found(cli, base_url, path: Path):
    edit(path, "INSERT INTO coverage VALUES ('KRW-BTC', '7m', 0, 420000)")
    done = cli.run(*words(path, base_url, "--repair", "--table"))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("there is no timeframe '7m'") == 2


def test_a_repair_needs_somebody_who_answers(cli, path: Path):
    with_a_hole(path)
    edit(path, "UPDATE meta SET value = 'http://127.0.0.1:1'")
    done = cli.run(*words(path, "http://127.0.0.1:1", "--repair", "--table"))
    assert done.returncode == 1
    assert "120 slots in between never fetched" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("marketpipe: could not connect to 127.0.0.1:1")


def test_a_damaged_page_is_found_and_no_repair_is_promised(cli, base_url, path: Path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 4_096)
    done = cli.run(*words(path, base_url, "--table"))
    assert done.returncode == 1
    assert "DAMAGED" in done.stdout
    assert "the file itself is broken: move it away" in done.stdout
    assert "Traceback" not in done.stderr


def test_where_there_is_no_database_none_is_made(cli, base_url, tmp_path: Path):
    missing = tmp_path / "missing.db"
    told(cli.run(*words(missing, base_url)), f"{missing}: there is no database")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_database_of_ours_is_one_line_and_is_left_as_it_is(cli, base_url, tmp_path: Path):
    for path, message in refused_files(tmp_path).values():
        before = path.read_bytes() if path.is_file() else b""
        told(cli.call(*words(path, base_url, "--repair")), message)
        assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_database_that_another_one_writes_to_can_be_looked_at(cli, base_url, path: Path):
    with cli.start("watch", "KRW-BTC", "--store", str(path), "--base-url", base_url) as watcher:
        assert watcher.stdout.readline()
        assert cli.run(*words(path, base_url)).returncode == 0
        with_a_hole(path)
        done = cli.run(*words(path, base_url, "--repair", "--table"))
    assert done.returncode == 1
    assert "it is open for reading only, since another" in done.stderr


def test_a_memory_is_empty_and_well(cli, base_url):
    done = cli.run("doctor", "--base-url", base_url, "--table")
    assert (done.returncode, done.stdout, done.stderr) == (0, ":memory:: all is well, and empty\n", "")


def test_ctrl_c_in_the_middle_of_a_repair_says_what_is_stored(cli, tmp_path: Path):
    path = tmp_path / "x.db"
    with cli.simulator("--markets", "40") as url:
        for day in ("2026-08-01", "2026-09-01"):
            done = cli.run("backfill", "KRW-BTC", "--start", day, "--end", f"{day}T01:00Z", "--store", str(path),
                           "--base-url", url)  # fmt: skip
            assert done.returncode == 0, done.stderr
        before = requests(url)
        with cli.start(*words(path, url, "--repair", "--table")) as ours:
            until(lambda: requests(url) > before + 5, ours)
            _, err = interrupted(ours)
    assert err.startswith("marketpipe: stopped: ")
    assert err.endswith(" the same command goes on from there\n")


def test_ctrl_c_while_nobody_answers_leaves_at_once(cli, tmp_path: Path):
    path = tmp_path / "x.db"
    with cli.simulator("--markets", "40") as url:
        assert cli.run("backfill", "KRW-BTC", "--start", "1h", "--store", str(path), "--base-url", url).returncode == 0
        edit(path, "DELETE FROM coverage")
        strike(url, kind="hang")
        with at_a_terminal(cli, *words(path, url, "--repair"), columns=200) as watcher:
            watcher.read_until(lambda screen: any("waiting for the exchange" in line for line in screen))
            os.killpg(watcher.ours.pid, signal.SIGINT)
            assert watcher.end() == 130
    assert "UNCOVERED" in watcher.text
    assert "Traceback" not in watcher.text
