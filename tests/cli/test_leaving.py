"""SIGINT and SIGTERM at random moments: an exit code, no traceback, a line at most, and what was told as stored is."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
from cli.collecting import HANG_S, requests, strike, until

from bench.ledger import MINUTE_MS, proven_spans

SIGNALS = [signal.SIGINT, signal.SIGTERM]
WHEN_S = 0.3
# Each begins to say something, or to ask for pages, and would go on for long.
COMMANDS = {
    "watch": ["watch", "KRW-BTC", "KRW-ETH", "--trades", "--json"],
    "backfill": ["backfill", "KRW-BTC", "--start", "90d", "--json"],
    "candles": ["candles", "KRW-BTC", "--start", "90d", "--json"],
    "export": ["export", "KRW-BTC", "--start", "90d"],
}


def check(code: int, number: int, err: str) -> None:
    assert code == 128 + number, err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 1


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("silent", [False, True], ids=["answers", "silent"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_left_at_any_moment_and_in_silence(cli, tmp_path: Path, name, silent):
    dice = random.Random(f"{name} {silent}")
    with cli.simulator("--markets", "40", "--limit", "1000", "--latency-ms", "20") as url, ExitStack() as stack:
        files = {number: tmp_path / f"{number}.db" for number in SIGNALS}
        running = {}
        for number in SIGNALS:
            asked, words = requests(url), [*COMMANDS[name], "--base-url", url, "--store", str(files[number])]
            running[number] = ours = stack.enter_context(cli.start(*words))
            if name in ("watch", "backfill"):
                assert ours.stdout.readline()
            else:
                until(lambda asked=asked: requests(url) > asked, ours)
        if silent:
            strike(url, kind="hang")
            strike(url, kind="ws-stall", pongs=False)
        for number, ours in running.items():
            time.sleep(dice.uniform(0, WHEN_S))  # noqa: TID251 - the moment is what is looked at
            ours.send_signal(number)
            out, err = ours.communicate(timeout=HANG_S)
            check(ours.returncode, number, err)
            if name != "watch":
                look(files[number], out if name == "backfill" else "")


def look(path: Path, told: str) -> None:
    """The file is whole, closed and free, and has all that was told of."""
    assert not path.with_name(f"{path.name}-wal").exists()
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    proven = sum(end_ms - start_ms for start_ms, end_ms in proven_spans(path, "KRW-BTC")) // MINUTE_MS
    assert proven >= max((json.loads(line).get("done", 0) for line in told.splitlines()), default=0)


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("number", SIGNALS)
def test_the_demo_takes_its_simulator_with_it(cli, number):
    dice = random.Random(number)
    with cli.start("demo", "--markets", "20") as ours:
        assert ours.stdout.readline()
        children = psutil.Process(ours.pid).children()
        assert children
        time.sleep(dice.uniform(0, WHEN_S))  # noqa: TID251 - the moment is what is looked at
        ours.send_signal(number)
        _, err = ours.communicate(timeout=HANG_S)
    check(ours.returncode, number, err)
    assert psutil.wait_procs(children, timeout=HANG_S)[1] == []


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", COMMANDS)
def test_an_exchange_that_never_answers_is_left_as_well(cli, tmp_path: Path, name, number):
    with (
        cli.simulator("--markets", "5", "--latency-ms", "3600000") as url,
        cli.start(*COMMANDS[name], "--base-url", url, "--store", str(tmp_path / "x.db")) as ours,
    ):
        until((tmp_path / "x.db").exists, ours)
        ours.send_signal(number)
        _, err = ours.communicate(timeout=HANG_S)
    check(ours.returncode, number, err)


STUBBORN = """
import trio
from marketpipe.cli.running import run
async def command():
    try:
        print("begun", flush=True)
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            print("leaving", flush=True)
            await trio.sleep_forever()
run(command)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", SIGNALS)
def test_the_second_ctrl_c_ends_what_does_not_leave(first):
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=-1, stderr=-1, text=True) as ours:
        try:
            assert ours.stdout is not None
            assert ours.stdout.readline() == "begun\n"
            ours.send_signal(first)
            assert ours.stdout.readline() == "leaving\n"
            ours.send_signal(signal.SIGINT)
            _, err = ours.communicate(timeout=HANG_S)
        finally:
            ours.kill()
    assert (ours.returncode, err) == (-signal.SIGINT, "")
