"""``marketpipe sim`` as a process."""

from __future__ import annotations

import json
import os
import signal
from urllib.request import urlopen

import pytest

# Long after anything should have happened; only a hang comes this far.
HANG_S = 60

pytestmark = [pytest.mark.slow, pytest.mark.socket]


def test_the_simulator_says_where_it_listens_answers_there_and_leaves_on_ctrl_c(cli):
    with cli.start(
        "sim", "--port", "0", "--markets", "5", "--seed", "3", "--window", "rolling", afresh=True
    ) as process:
        base_url = process.stdout.readline().removeprefix("simulator listening on ").strip()
        with urlopen(f"{base_url}/v1/ticker?markets=KRW-BTC", timeout=HANG_S) as reply:
            (row,) = json.load(reply)
        assert row["market"] == "KRW-BTC"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(HANG_S) == 0
        assert process.stderr.read() == ""
        assert f"marketpipe ticker KRW-BTC KRW-ETH --base-url {base_url}" in process.stdout.read()


def test_the_same_seed_gives_the_same_market(cli):
    lists = []
    for seed in ("1", "1", "2"):
        with (
            cli.simulator("--markets", "9", "--seed", seed) as base_url,
            urlopen(f"{base_url}/v1/market/all", timeout=HANG_S) as reply,
        ):
            lists.append(reply.read())
    assert lists[0] == lists[1] != lists[2]


def test_a_port_that_is_taken_is_one_line_and_exit_code_1(cli, base_url):
    port = base_url.rpartition(":")[2]
    done = cli.run("sim", "--port", port, "--markets", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"marketpipe: cannot listen on 127.0.0.1 port {port}: ")
    assert len(done.stderr.splitlines()) == 1
