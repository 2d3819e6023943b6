"""The demo: every step true in virtual time, and a broken promise told and paid for with exit code 1."""

from __future__ import annotations

import json

import attrs
import pytest
from rig import Rig, open_rig

from marketpipe.cli import demo, main, steps
from marketpipe.cli.steps import STEPS, Shown, Stage
from marketpipe.models import Gap
from marketpipe.sim import SimConfig
from marketpipe.sim.faults import parse_faults


@attrs.frozen
class OwnSide:
    """The side of the simulator that the demo asks over HTTP, in memory."""

    rig: Rig

    async def statistics(self) -> dict:
        return attrs.asdict(self.rig.sim.statistics())

    async def strike(self, fault: dict) -> None:
        for each in parse_faults(json.dumps(fault).encode()):
            self.rig.sim.add_fault(each)


class Peaceful(OwnSide):
    async def strike(self, fault: dict) -> None:
        pass


def stage_of(rig: Rig, side: type[OwnSide] = OwnSide) -> Stage:
    names = ["KRW-BTC", *(name for name in rig.sim.world.markets if name != "KRW-BTC")]
    return Stage(rig.market, rig.sim.world, rig.clock, names, side(rig))


def priced_in_won(rig: Rig) -> list[str]:
    return [name for name in rig.sim.world.markets if name.startswith("KRW-")]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
async def test_each_step_gets_something_and_all_of_it_is_true(step, autojump_clock):
    async with open_rig(streams=True, store=":memory:") as rig:
        shown = await step(stage_of(rig))
        assert rig.refused() == 0
        assert rig.greatest() <= 10
    assert shown.count > 0
    assert shown.came
    assert shown.wrong == []


async def test_however_many_listeners_come_at_once_one_subscribe_message_says_it_all(autojump_clock):
    async with open_rig(streams=True, markets=220) as rig:
        shown = await steps.independent_listeners(stage_of(rig))
    assert (shown.count, shown.subscribes, shown.wrong) == (200, 1, [])


async def test_a_listener_who_hears_nothing_is_a_broken_promise(autojump_clock):
    async with open_rig(streams=True) as rig:
        await OwnSide(rig).strike({"kind": "ws-mute", "codes": ["KRW-ETH"]})
        shown = await steps.independent_listeners(stage_of(rig))
    assert shown.count == 39
    assert shown.wrong == ["KRW-ETH: not answered"]


async def test_the_lost_connection_is_noticed_and_what_was_missed_is_fetched(autojump_clock):
    async with open_rig(streams=True) as rig:
        shown = await steps.a_lost_connection(stage_of(rig))
        (connection,) = (each for each in rig.market.status().connections.values() if each.connects)
        assert connection.losses == 1
    assert shown.subscribes == 2
    told, fetched = shown.came
    assert f" told in {len(priced_in_won(rig))} markets: " in told
    assert int(fetched.split()[0]) > 0


async def test_a_connection_that_was_never_lost_is_no_proof(autojump_clock):
    async with open_rig(streams=True) as rig:
        shown = await steps.a_lost_connection(stage_of(rig, Peaceful))
    assert shown.wrong == ["no gap was told"]


def test_a_gap_that_stays_is_a_broken_promise():
    heard = steps._Heard()
    gap = Gap("KRW-BTC", 1_000, 2_000, "closed 1006")
    heard.take(gap)
    assert not heard.mended.is_set()
    heard.take(attrs.evolve(gap, proof="the exchange keeps 8 days"))
    assert not heard.mended.is_set()
    assert heard.unmended() == ["KRW-BTC: not mended, the exchange keeps 8 days"]


def group(**counts: int) -> dict[str, int]:
    return {"requests": 10, "refused": 0, "greatest_per_second": 10, **counts}


def test_a_refusal_or_an_eleventh_request_in_a_second_is_a_broken_promise():
    limits = {"ticker": 10, "candles": 10}
    assert demo._over_the_limit({"ticker": group()}, limits) == []
    assert demo._over_the_limit({"ticker": group(refused=1)}, limits) == ["1 requests of group ticker were refused"]
    (line,) = demo._over_the_limit({"candles": group(greatest_per_second=11)}, limits)
    assert line == "11 requests of group candles in one second, the limit is 10"


async def test_each_group_is_held_against_its_own_limit(autojump_clock):
    config = SimConfig(limit=9, connect_limit=4, message_limit=3)
    async with open_rig(limit=9) as rig:
        groups = (await OwnSide(rig).statistics())["groups"]
    limits = demo._limits(config, groups)
    assert set(limits) == set(groups)
    assert (limits["ticker"], limits["websocket-connect"], limits["websocket-message"]) == (9, 4, 3)
    assert demo._requests(groups | {"websocket-message": group(requests=5)}) == 0


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
