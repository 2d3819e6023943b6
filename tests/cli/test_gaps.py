"""``marketpipe gaps``: what is not known of a stretch, why not, and what it costs."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from cli.collecting import edit, interrupted, lines_of, refused_files, requests, told, until
from rig import EPOCH_MS, open_rig

from marketpipe.cli.gaps import cost, unknown_spans
from marketpipe.core.collection import CollectionState
from marketpipe.core.timeframes import Timeframe

MINUTE_MS = 60_000
END_MS = EPOCH_MS // MINUTE_MS * MINUTE_MS - MINUTE_MS
DAY = ["--start", "2026-09-01", "--end", "2026-09-02"]


def opens(minutes_ago: int) -> int:
    return END_MS - minutes_ago * MINUTE_MS


async def test_a_failed_span_is_cut_out_of_what_nobody_asked_for_and_the_last_reason_counts(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        await (await rig.market.start_backfill("KRW-BTC", start=opens(300), end=opens(200))).wait()
        store, m1 = rig.store, Timeframe.M1
        store.note_failure("KRW-BTC", m1, opens(120), opens(100), "OLD", "long ago", 1)
        store.note_failure("KRW-BTC", m1, opens(110), opens(90), "NEW", "just now", 2)
        store.note_failure("KRW-BTC", m1, opens(110), opens(90), "NEW", "just now", 3)
        store.note_failure("KRW-BTC", m1, opens(250), opens(190), "HALF", "half of it came", 4)
        summary = await rig.market.collection_summary("KRW-BTC", "1m", start=opens(300), end=END_MS)
        found = [
            (each.start_ms, each.end_ms, each.state, each.failure and (each.failure.code, each.failure.attempts))
            for each in unknown_spans(summary)
        ]
    assert found == [
        (opens(200), opens(190), CollectionState.FAILED, ("HALF", 1)),
        (opens(190), opens(120), CollectionState.PENDING, None),
        (opens(120), opens(110), CollectionState.FAILED, ("OLD", 1)),
        (opens(110), opens(90), CollectionState.FAILED, ("NEW", 2)),
        (opens(90), END_MS, CollectionState.PENDING, None),
    ]
    assert sum(each.slots for each in unknown_spans(summary)) == summary.pending + summary.failed


async def test_what_is_known_has_no_gaps(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        await (await rig.market.start_backfill("KRW-BTC", start=opens(300), end=opens(200))).wait()
        summary = await rig.market.collection_summary("KRW-BTC", "1m", start=opens(300), end=opens(200))
    assert list(unknown_spans(summary)) == []
    assert summary.requests == 0


async def test_the_cost_is_that_of_whole_pages(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        summary = await rig.market.collection_summary("KRW-BTC", "1m", start=opens(401), end=END_MS)
    assert summary.requests == 3


@pytest.mark.parametrize(
    ("requests", "words"),
    [(1, "1 request, about 1 s"), (121, "121 requests, about 12 s"), (6_000, "6,000 requests, about 10 min")],
)
def test_a_cost_is_told_in_requests_and_in_time_at_the_limit(requests, words):
    assert cost(requests, 10) == words


@pytest.mark.slow
@pytest.mark.socket
def test_a_stretch_that_nobody_asked_for_and_then_what_is_left_of_it(cli, base_url, tmp_path: Path):
    done = cli.run(
        "gaps", "krw-btc,KRW-BTC", "KRW-ETH", "--timeframe", "1m,1h", *DAY, "--base-url", base_url, afresh=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = lines_of(done.stdout)
    assert [(row["market"], row["timeframe"], row["pending"]) for row in rows] == [
        ("KRW-BTC", "1m", 1_440), ("KRW-BTC", "1h", 24), ("KRW-ETH", "1m", 1_440), ("KRW-ETH", "1h", 24)
    ]  # fmt: skip
    assert (rows[0]["requests"], rows[0]["seconds"]) == (8, 0.8)
    half = ["--start", "2026-09-01T06:00Z", "--end", "2026-09-01T18:00Z"]
    to = ["--store", str(tmp_path / "x.db"), "--base-url", base_url]
    assert cli.run("backfill", "KRW-BTC", *half, *to).returncode == 0
    asked = requests(base_url)
    (row,) = lines_of(cli.run("gaps", "KRW-BTC", *DAY, *to).stdout)
    assert (row["collected"] + row["empty"], row["pending"], row["failed"], row["slots"]) == (720, 720, 0, 1_440)
    assert [(span["state"], span["slots"]) for span in row["spans"]] == [("pending", 360)] * 2
    assert requests(base_url) == asked


@pytest.mark.slow
@pytest.mark.socket
def test_for_people_it_is_a_table_with_attempts_and_reasons(cli, base_url, tmp_path: Path):
    path = tmp_path / "x.db"
    to = ["--store", str(path), "--base-url", base_url]
    assert cli.run("backfill", "KRW-BTC", "--start", "2026-09-01", "--end", "2026-09-01T12:00Z", *to).returncode == 0
    day_ms = 1_788_220_800_000
    edit(
        path,
        f"INSERT INTO failures VALUES ('KRW-BTC', '1m', {day_ms + 46_800_000}, {day_ms + 50_400_000}, 5, 'Error',"
        " 'HTTP 400 from /v1/candles', 1, 2)",
    )
    done = cli.run("gaps", "KRW-BTC", *DAY, "--table", *to)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2026-09-01 13:00" in done.stdout
    (failed,) = (line.split() for line in done.stdout.splitlines() if "HTTP 400" in line)
    assert failed[:10] == ["KRW-BTC", "1m", "2026-09-01", "13:00", "2026-09-01", "14:00", "60", "failed", "5", "HTTP"]
    assert done.stdout.count("not asked for yet") == 2
    assert done.stdout.endswith("to fetch what is missing: 4 requests, about 1 s\n")
    done = cli.run("gaps", "KRW-BTC", "--start", "2026-09-01", "--end", "2026-09-01T12:00Z", "--table", *to)
    assert done.stdout.endswith("nothing is missing\n")


@pytest.mark.slow
@pytest.mark.socket
def test_nobody_has_to_answer_for_it(cli):
    done = cli.run("gaps", "KRW-BTC", *DAY, "--base-url", "http://127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert lines_of(done.stdout)[0]["pending"] == 1_440


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["KRW-BTC", "--start", "0d"], "no 1m bar has opened and ended in that time yet"),
        (["KRW-BTC", "--start", "2040-01-01"], "no 1m bar has opened and ended in that time yet"),
    ],
)
def test_what_cannot_be_meant_is_one_line(cli, args, message):
    told(cli.run("gaps", *args, "--base-url", "http://127.0.0.1:1"), message)


@pytest.mark.slow
@pytest.mark.socket
def test_what_is_no_database_of_ours_is_one_line(cli, tmp_path: Path):
    for path, message in refused_files(tmp_path).values():
        told(cli.call("gaps", "KRW-BTC", "--start", "1d", "--store", str(path)), message)


def test_where_there_is_no_database_none_is_made_and_one_line_says_so(cli, tmp_path: Path):
    missing = tmp_path / "typo" / "deep" / "x.db"
    told(cli.call("gaps", "KRW-BTC", *DAY, "--store", str(missing)), f"{missing}: there is no database")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.socket
def test_a_timeframe_without_a_settled_bar_is_told_and_the_others_are_shown(cli):
    words = ["--timeframe", "1y,1m", "--start", "1h", "--base-url", "http://127.0.0.1:1"]
    done = cli.call("gaps", "KRW-BTC", *words)
    assert (done.returncode, done.stderr) == (0, "marketpipe: no 1y bar has opened and ended in that time yet\n")
    assert [row["timeframe"] for row in lines_of(done.stdout)] == ["1m"]


@pytest.mark.slow
@pytest.mark.socket
def test_ctrl_c_leaves_without_a_traceback(cli, tmp_path: Path):
    """While a simulator is started, which takes longest of it."""
    with cli.start("gaps", "KRW-BTC", "--start", "1d", "--sim", "--verbose") as ours:
        until(lambda: "marketpipe.sim" in children(ours.pid), ours)
        interrupted(ours)


def children(pid: int) -> str:
    """The command lines of what a process has started."""
    return " ".join(word for child in psutil.Process(pid).children() for word in child.cmdline())
