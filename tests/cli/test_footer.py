"""The line about the pipe."""

from __future__ import annotations

import io

import attrs
import pytest
import trio
from rich.console import Console
from rig import open_rig

from marketpipe.cli.footer import Footer
from marketpipe.sim import WsDownFault


def lines_of(footer: Footer, width: int = 160) -> list[str]:
    console = Console(file=io.StringIO(), width=width, _environ={})
    console.print(footer)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
async def rig(autojump_clock):
    async with open_rig(streams=True) as rig:
        yield rig


async def test_only_the_streams_that_somebody_wants_are_named(rig, autojump_clock):
    footer = Footer(rig.market.status, rig.clock.now_ms)
    async with rig.market.stream_trade(["KRW-BTC"]):
        assert lines_of(footer) == ["trade: connecting   0 messages/s   gaps: 0 told, 0 mended"]
        await trio.sleep(1)
        assert lines_of(footer)[0].startswith("trade: connected   ")


async def test_messages_are_counted_over_the_last_seconds(rig, autojump_clock):
    footer = Footer(rig.market.status, rig.clock.now_ms)
    status = rig.market.status()
    (line, connection), *others = status.connections.items()

    def at(frames: int) -> str:
        connections = {line: attrs.evolve(connection, frames=frames), **dict(others)}
        footer.status = lambda: attrs.evolve(status, connections=connections)
        return next(part for part in lines_of(footer)[0].split("   ") if "messages/s" in part)

    assert at(0) == "0 messages/s"
    for second in range(1, 11):
        await trio.sleep(1)
        assert at(second * 1_000) == "1,000 messages/s"
    await trio.sleep(3)
    assert at(10_000) == "0 messages/s"


async def test_what_belongs_together_stays_on_one_line_where_it_can(rig, autojump_clock):
    footer = Footer(rig.market.status, rig.clock.now_ms)
    async with rig.market.stream_trade(["KRW-BTC"]), rig.market.stream_ticker(["KRW-BTC"]):
        await trio.sleep(1)
        rig.sim.add_fault(WsDownFault(for_s=10))
        await trio.sleep(2.5)
        (line,) = lines_of(footer, 200)
        parts = line.split("   ")
        assert parts[0].startswith("ticker, trade: reconnecting 2 s, could not connect to sim")
        assert [part for each in lines_of(footer, 100) for part in each.split("   ")] == parts
        assert max(map(len, lines_of(footer, 20))) <= 20


async def test_a_block_is_told_with_the_time_it_lasts(rig, autojump_clock):
    status = attrs.evolve(rig.market.status(), banned_for_s=42.4)
    assert "next try in 43 s, blocked by the exchange (418)" in lines_of(Footer(lambda: status, rig.clock.now_ms))[0]


async def test_what_could_not_be_read_is_counted(rig, autojump_clock):
    status = rig.market.status()
    (line, connection), *others = status.connections.items()
    connections = {line: attrs.evolve(connection, unreadable=3), **dict(others)}
    broken = attrs.evolve(status, connections=connections)
    assert lines_of(Footer(lambda: broken, rig.clock.now_ms))[0].endswith("   3 unreadable")
