"""A command that is forked, as most are in these tests, does what one does that is started afresh."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from cli.forked import Forked

pytestmark = [pytest.mark.slow, pytest.mark.socket]

HANG_S = 60


@pytest.mark.parametrize(
    "args",
    [
        ["--version"],
        ["ticker"],
        ["ticker", "KRW-BTC", "--base-url", "http://127.0.0.1:1"],
        ["gaps", "KRW-BTC", "--start", "2026-09-01", "--end", "2026-09-02", "--base-url", "http://127.0.0.1:1"],
    ],
    ids=["said", "misused", "failed", "done"],
)
def test_it_says_and_ends_the_same(cli, args):
    forked, afresh = cli.run(*args), cli.run(*args, afresh=True)
    assert (forked.returncode, forked.stdout, forked.stderr) == (afresh.returncode, afresh.stdout, afresh.stderr)


def test_it_has_its_own_folder_and_environment(cli, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli.run("gaps", "KRW-BTC", "--start", "1d", "--store", "missing.db")
    assert done.stderr.startswith("marketpipe: missing.db: there is no database")
    words = ["gaps", "KRW-BTC", "--start", "1d", "--table", "--base-url", "http://127.0.0.1:1"]
    for terminal, is_bold in (("xterm", True), ("dumb", False)):
        ours, theirs = pty.openpty()
        with Forked(cli.starter, words, {**cli.environment, "TERM": terminal}, stdout=theirs) as process:
            os.close(theirs)
            shown = os.read(ours, 65_536)
            assert process.wait(HANG_S) == 0
        os.close(ours)
        assert (b"\x1b" in shown) == is_bold


def test_a_death_is_told_as_the_signal_that_caused_it(cli):
    with cli.start("sim", "--port", "0", "--markets", "1") as process:
        assert process.stdout.readline()
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert os.getpgid(process.pid) == process.pid
        process.kill()
        assert process.wait(HANG_S) == -signal.SIGKILL
        process.send_signal(signal.SIGINT)  # to nobody: it is gone
        assert process.poll() == -signal.SIGKILL


def test_whoever_is_left_behind_ends_with_the_process_that_forks(cli):
    starter = type(cli.starter)(cli.environment)
    process = Forked(starter, ["sim", "--port", "0", "--markets", "1"], cli.environment)
    assert process.stdout.readline()
    starter.close()
    assert process.stdout.read() is not None  # until nobody can write there any more
    process.stdout.close()
    process.stderr.close()
    with pytest.raises(AssertionError, match="has died"):
        process.wait(HANG_S)
