"""The demo: every step true in virtual time, and a broken promise told and paid for with exit code 1."""

from __future__ import annotations

import json

import pytest
from rig import open_rig

from marketpipe.cli import demo, main
from marketpipe.cli.steps import STEPS, Shown, Stage


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
async def test_each_step_gets_something_and_all_of_it_is_true(step, autojump_clock):
    async with open_rig() as rig:
        names = ["KRW-BTC", *(name for name in rig.sim.world.markets if name != "KRW-BTC")]
        shown = await step(Stage(rig.market, rig.sim.world, rig.clock, names))
        assert rig.refused() == 0
        assert rig.greatest() <= 10
    assert shown.count > 0
    assert shown.came
    assert shown.wrong == []


def group(**counts: int) -> dict[str, int]:
    return {"requests": 10, "refused": 0, "greatest_per_second": 10, **counts}


def test_a_refusal_or_an_eleventh_request_in_a_second_is_a_broken_promise():
    assert demo._over_the_limit({"ticker": group()}, 10) == []
    assert demo._over_the_limit({"ticker": group(refused=1)}, 10) == ["1 requests of group ticker were refused"]
    (line,) = demo._over_the_limit({"candles": group(greatest_per_second=11)}, 10)
    assert line == "11 requests of group candles in one second, the limit is 10"


@pytest.mark.slow
@pytest.mark.socket
def test_the_demo_keeps_its_promises_and_says_so(cli):
    done = cli.run("demo", "--markets", "60")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all equal to the simulator's truth") == len(STEPS)
    assert "60 distinct symbols" in done.stdout
    assert "10 of 10" in done.stdout
    assert done.stdout.endswith("Nothing was refused, no second saw more than the limit, every value was true.\n")


@pytest.mark.slow
@pytest.mark.socket
def test_a_wrong_value_is_told_and_the_exit_code_is_1(monkeypatch, capsys):
    async def liar(stage: Stage) -> Shown:
        return Shown(asked="a lie", came=["?"], count=1, unit="lies", elapsed_s=1.0, wrong=["black is white"])

    monkeypatch.setattr(demo, "STEPS", (liar,))
    assert main(["demo", "--markets", "5", "--json"]) == 1
    out, err = capsys.readouterr()
    assert "marketpipe: broken promise: a lie: black is white\n" in err
    step, limit = map(json.loads, out.splitlines())
    assert step["wrong"] == ["black is white"]
    assert limit["broken"] == ["a lie: black is white"]
