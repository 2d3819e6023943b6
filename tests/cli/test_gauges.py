"""A status as people see it: every part of it, nothing that has not happened, and as wide as the terminal."""

from __future__ import annotations

import io

import attrs
import pytest
from rich.console import Console
from statuses import quiet_status, status_of_everything

from marketpipe import Status
from marketpipe.cli.gauges import Gauges
from marketpipe.models import Priority


def shown(gauges: Gauges | Status, width: int = 250) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(gauges if isinstance(gauges, Gauges) else Gauges(gauges), crop=False)
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]


def line_of(lines: list[str], beginning: str) -> str:
    (line,) = [line for line in lines if line.strip().startswith(beginning)]
    return line


def test_every_part_of_a_status_is_shown():
    status = status_of_everything()
    lines = shown(status)
    for group, budget in status.budgets.items():
        line = line_of(lines[:12], f"{group} ")
        assert {f"{budget.sent:,}", f"{budget.refused:,}", f"{budget.in_flight}", f"{status.waiting[group]:,}"} <= set(
            line.split()
        )
        assert f"of {budget.limit}, {budget.ceiling} in use" in line
    assert f"{status.queues['questions ticker'].peak:,}" in line_of(lines[:12], "ticker ").split()
    for verb, each in status.verbs.items():
        assert line_of(lines, verb).split()[1:4] == [f"{each.calls:,}", f"{each.symbols:,}", f"{each.failed:,}"]
        assert line_of(lines, verb).count(" ms") == 3
    text = "\n".join(lines)
    for kind, cache in status.caches.items():
        assert f" {kind} " in text
        assert f"{cache.hits + cache.misses:,}" in text
        assert f"{cache.fast_hits / (cache.hits + cache.misses) * 100:.1f} %" in text
    told = status.candles
    assert (
        f"candles of {told.memory:,} markets from memory, {told.store:,} from the database, {told.exchange:,} asked"
        in text
    )
    for line, connection in status.connections.items():
        assert f"{connection.frames:,}" in text
        assert f" {connection.reconnects:,} " in text
        assert f"{status.streams[line].values:,}" in text
    assert text.count("closed 1006") == len(status.connections)
    assert "2 active, 1 stale" in text
    assert "1 error" in text
    late = status.late[Priority.CRITICAL]
    assert f"late: critical {late:,}, high " in text
    assert f"given up: critical {status.given_up[Priority.CRITICAL]:,}, " in text
    consumers, store = status.consumers, status.store
    assert f"{consumers.subscribers:,} subscribers: {consumers.received:,} values received" in text
    assert f"{consumers.dropped:,} dropped" in text
    assert f"frames trade: {status.queues['frames trade'].depth:,}, at most" in text
    assert f"/data/upbit.db: {store.rows_written:,} bars written, {store.rows_amended:,} amended" in text
    assert f"{store.failures:,} failed: the disk is full" in text
    assert "read only: no room" in text
    assert text.count("collecting (running)") == 2
    assert "1 min 30 s left" in text
    assert "up " in lines[0]
    assert "MiB resident" in lines[0]
    assert "event loop late p50 " in lines[0]
    assert "blocked by the exchange (418)" in text


def test_what_has_not_happened_takes_no_room():
    lines = shown(quiet_status())
    assert len(lines) == 2
    assert lines[0].startswith("up 0 s   1.0 MiB resident   0 symbols/s   0 messages/s   0.0 % from memory")
    assert lines[1] == "late: critical 0, high 0, normal 0, low 0"


@pytest.mark.parametrize("width", [80, 100, 140])
def test_it_fits_the_terminal(width: int):
    lines = shown(status_of_everything(), width)
    assert max(map(len, lines)) <= width
    assert line_of(lines, "get_ticker").count(" ms") >= 2


def drawn(status: Status, width: int, height: int, *, fits: bool) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    console.print(Gauges(status, fits=fits), crop=False)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 160])
def test_a_short_terminal_gets_whole_blocks_and_is_told_how_much_is_missing(width: int):
    status = status_of_everything()
    whole = drawn(status, width, 24, fits=False)
    for height in range(6, len(whole) + 2):
        lines = drawn(status, width, height, fits=True)
        if height >= len(whole):
            assert lines == whole
            continue
        assert len(lines) <= height
        missing = len(whole) - (len(lines) - 1)
        assert lines[-1] == f"and {missing} more lines: make the terminal taller, or leave out --watch"
        assert set(lines[:-1]) <= set(whole)
        if height >= 24:
            assert sum(line.startswith(" stream ") for line in lines) == 1
        rows = [line for line in lines if line.strip().startswith(("ticker ", "trade ", "get_"))]
        assert rows == [line for line in whole if line in rows]  # in their order, none alone


def test_rates_are_of_the_time_between_two_looks():
    first = attrs.evolve(status_of_everything(), uptime_s=100.0)
    (verb, counts), *_ = first.verbs.items()
    more = attrs.evolve(counts, symbols=counts.symbols + 400)
    gauges = Gauges(first)
    symbols = sum(each.symbols for each in first.verbs.values())
    assert f"   {symbols / 100:,.0f} symbols/s   " in shown(gauges)[0]
    gauges.take(attrs.evolve(first, uptime_s=102.0, verbs={**first.verbs, verb: more}))
    assert "   200 symbols/s   0 messages/s   " in shown(gauges)[0]
    gauges.take(attrs.evolve(first, uptime_s=0.5, verbs={}))  # another program, at the same port
    assert "   0 symbols/s   " in shown(gauges)[0]
    gauges.take(attrs.evolve(first, uptime_s=1.5, verbs={verb: attrs.evolve(more, symbols=30)}))
    assert "   30 symbols/s   " in shown(gauges)[0]
