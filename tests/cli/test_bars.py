"""The bars that are running."""

from __future__ import annotations

import io

import attrs
import pytest
from rich.console import Console
from rig import open_rig

from marketpipe.cli.bars import RunningBars
from marketpipe.cli.lines import Columns
from marketpipe.models import CandleState


@pytest.fixture
async def rig(autojump_clock):
    async with open_rig(streams=True) as rig:
        yield rig


def lines_of(bars: RunningBars, width: int = 120, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, _environ={})
    console.print(bars)
    return console.file.getvalue().splitlines()


async def test_a_bar_is_shown_while_it_runs_and_no_longer(rig, autojump_clock):
    bars = RunningBars(rig.market.status, rig.clock.now_ms, Columns())
    before, running = await rig.market.get_candle("KRW-BTC", "1m", count=2)
    running = attrs.evolve(running, state=CandleState.RUNNING)
    bars.take(running)
    assert "KRW-BTC" in lines_of(bars)[0]
    bars.take(before)  # amended, while the next one runs
    assert "KRW-BTC" in lines_of(bars)[0]
    bars.take(attrs.evolve(running, state=CandleState.FINAL))
    assert len(lines_of(bars)) == 1


@pytest.mark.parametrize("width", [120, 40])
async def test_of_more_bars_than_lines_the_first_are_shown_and_the_others_counted(rig, width, autojump_clock):
    bars = RunningBars(rig.market.status, rig.clock.now_ms, Columns())
    batch = await rig.market.get_candle(list(rig.sim.world.markets), "1d", count=1)
    for series in batch.values():
        bars.take(attrs.evolve(series[0], state=CandleState.RUNNING))
    lines = lines_of(bars, width, height=10)
    assert len(lines) <= 10
    (others,) = (int(line.split()[1]) for line in lines if line.startswith("and "))
    assert sum(line.startswith("20") for line in lines) + others == len(batch)
    assert max(map(len, lines)) <= width
