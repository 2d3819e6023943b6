"""``marketpipe doctor``: is the database well, and is anything missing in it; or who runs in a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from marketpipe.cli import figures
from marketpipe.cli.attaching import ask_program, port_option
from marketpipe.cli.following import Kept, complain_of_missing, follow, telling_what_is_kept
from marketpipe.cli.options import Target, asking
from marketpipe.cli.outlet import write
from marketpipe.cli.patience import patience
from marketpipe.cli.rows import json_line
from marketpipe.cli.running import run
from marketpipe.cli.session import open_market, show
from marketpipe.cli.waiting import waiting_for
from marketpipe.client import Client
from marketpipe.core.checkup import Flawed, SeriesCheck, StoreCheck
from marketpipe.metrics import HOST

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["doctor"]

DAMAGED = "DAMAGED"
# Longer words take a second line.
WORDS_WIDTH = 36
_OF_A_DATABASE = ("repair", "sim", "base_url", "region", "store")


@click.command()
@click.option("--repair", is_flag=True, help="Fetch what is missing in between, and read wrong bars again.")
@click.option("--tasks", is_flag=True, help="Look at a running program instead: its tasks, and where each waits.")
@port_option
@asking
@click.pass_context
def doctor(context: click.Context, target: Target, repair: bool, tasks: bool, port: int) -> None:
    """Look through the database: the file, every bar, every span that is proven, and what is missing in between.

    Nothing is asked of the exchange, unless it is to --repair: then holes between the first and the last bar of each
    market are fetched, and bars that cannot be true are read again; the old ones are kept as evidence. The exit code is
    0 if nothing is wrong, 1 otherwise. A hole that nobody has asked to be filled is nothing wrong; one that --repair
    could not fill is.

    With --tasks, it is a program that is looked at: one that `marketpipe status` could look at as well.

    \b
    marketpipe doctor --repair --store history.db
    marketpipe doctor --tasks
    """
    _refuse_the_others(context, tasks=tasks)
    if tasks:
        run(lambda: _show_tasks(port, as_json=target.as_json))

    async def command() -> int:
        with telling_what_is_kept() as kept:
            return await examine(kept)

    async def examine(kept: Kept) -> int:
        async with open_market(target, must_exist=True) as market:
            check = await _check(market)
            _print(check, target)
            if not repair or (check.is_well and check.is_whole):
                return 0 if check.is_well else 1
            await _repair(market, target, kept)
            check = await _check(market)
            _print(check, target)
        return 0 if check.is_well and check.is_whole else 1

    run(command)


def _refuse_the_others(context: click.Context, *, tasks: bool) -> None:
    """A program and a database are looked at by different words."""
    for name in _OF_A_DATABASE if tasks else ("port",):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            flag = f"--{name.replace('_', '-')}"
            needs = f"--tasks looks at a running program: leave out {flag}" if tasks else f"{flag} belongs to --tasks"
            raise click.UsageError(needs, context)


async def _show_tasks(port: int, *, as_json: bool) -> int:
    from marketpipe.metrics.snapshot import decode_tasks

    text = await ask_program(port, "/tasks")
    root = decode_tasks(text)
    if as_json:
        await write(f"{text.decode()}\n")
        return 0
    from marketpipe.cli.tree import task_tree

    show(task_tree(root))
    click.echo(f"{figures.counted(root.count, 'task')} in the program on {HOST}:{port}")
    return 0


async def _check(market: Client) -> StoreCheck:
    async with patience("looking through the database"):
        return await market.check_store()


async def _repair(market: Client, target: Target, kept: Kept) -> None:
    async with patience(lambda: waiting_for(market.status())):
        await market.get_market()  # whether the exchange can be asked at all; a job would wait for ever
    async with patience("putting the ledger in order"):
        job = await market.repair_store()
    kept.market = market
    report = await follow(job, target, as_json=target.as_json)
    if not target.as_json and report.parts:
        cost = f"{figures.counted(report.pages, 'request')}, {figures.duration(report.elapsed_s)}"
        click.echo(f"{figures.counted(report.bars, 'bar')} read ({cost})")
    complain_of_missing(report)


def _print(check: StoreCheck, target: Target) -> None:
    if target.as_json:
        for line in _lines(check):
            click.echo(json_line(line))
        return
    for part in _tables(check):
        show(part)
    click.echo(_verdict(check))


def _lines(check: StoreCheck) -> Iterator[dict[str, Any]]:
    for series in check.series:
        yield {"event": "series", **attrs.asdict(series)}
    for finding in check.findings:
        names = ("kind", "words", "market", "timeframe", "start_ms", "end_ms")
        yield {"event": "finding", **{name: getattr(finding, name) for name in names}}
    counts = {"bars": check.bars, "slots_missing": check.slots_missing}
    yield {"event": "verdict", "path": check.path, **counts, "is_well": check.is_well, "is_whole": check.is_whole}


def _tables(check: StoreCheck) -> Iterator[RenderableType]:
    if check.series:
        yield _series_table(check.series)
    if check.findings:
        yield _findings_table(check.findings)


def _verdict(check: StoreCheck) -> str:
    holes = f"{figures.counted(check.slots_missing, 'slot')} in between never fetched"
    if check.is_well and not check.series:
        return f"{check.path}: all is well, and empty"
    if check.is_well:
        what = f"{len(check.series):,} series, {figures.counted(check.bars, 'bar')}"
        hint = "" if check.is_whole else f"; {holes}: --repair fetches them"
        return f"{check.path}: all is well: {what}{hint}"
    troubles = figures.counted(len(check.findings), "thing") + " wrong" + ("" if check.is_whole else f" and {holes}")
    is_damaged = any(finding.kind == DAMAGED for finding in check.findings)
    cure = "the file itself is broken: move it away, and collect again" if is_damaged else "--repair mends that"
    return f"{check.path}: {troubles}; {cure}"


def _series_table(series: Sequence[SeriesCheck]) -> RenderableType:
    from rich.text import Text

    from marketpipe.cli.sheet import Column, Sheet

    columns = [Column("market"), Column("timeframe"), Column("bars", "right"), Column("first (UTC)", rank=1)]
    columns += [Column("last", rank=1), Column("holes", "right"), Column("missing", "right", rank=2)]
    columns.append(Column("amended", "right", rank=3))
    sheet = Sheet(columns)
    for each in series:
        style = "yellow" if each.holes else ""
        sheet.add(
            each.market,
            each.timeframe,
            f"{each.bars:,}",
            *("" if at_ms is None else figures.utc(at_ms) for at_ms in (each.first_ms, each.last_ms)),
            Text(f"{len(each.holes):,}", style=style),
            Text(f"{each.slots_missing:,}", style=style),
            f"{each.amended:,}",
        )
    return sheet


def _findings_table(findings: Sequence[Flawed]) -> RenderableType:
    from rich.text import Text

    from marketpipe.cli.sheet import Column, Sheet

    columns = [Column("finding"), Column("market"), Column("timeframe", rank=1), Column("from (UTC)", rank=2)]
    columns += [Column("to", rank=2), Column("what is wrong", wrap_at=WORDS_WIDTH)]
    sheet = Sheet(columns)
    for each in findings:
        sheet.add(
            Text(each.kind, style="red"),
            each.market or "",
            each.timeframe or "",
            *_span(each.start_ms, each.end_ms),
            each.words,
        )
    return sheet


def _span(start_ms: int | None, end_ms: int | None) -> Sequence[str]:
    if start_ms is None or end_ms is None:
        return "", ""
    try:
        return figures.span(start_ms, end_ms).split(" to ")
    except (ValueError, OverflowError, OSError):  # no calendar has that moment
        return str(start_ms), str(end_ms)
