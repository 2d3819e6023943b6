"""``marketpipe doctor``: is the database well, is anything missing in it; and makes it so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click
import trio

from marketpipe.cli import figures
from marketpipe.cli.following import Kept, complain_of_missing, follow, telling_what_is_kept
from marketpipe.cli.options import Target, asking
from marketpipe.cli.patience import patience
from marketpipe.cli.rows import json_line
from marketpipe.cli.running import run
from marketpipe.cli.session import open_market, show
from marketpipe.cli.waiting import waiting_for
from marketpipe.client import Client
from marketpipe.core.checkup import Flawed, SeriesCheck, StoreCheck

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["doctor"]

MEMORY = ":memory:"
DAMAGED = "DAMAGED"
# Longer words take a second line.
WORDS_WIDTH = 36


@click.command()
@click.option("--repair", is_flag=True, help="Fetch what is missing in between, and read wrong bars again.")
@asking
def doctor(target: Target, repair: bool) -> None:
    """Look through the database: the file, every bar, every span that is proven, and what is missing in between.

    Nothing is asked of the exchange, unless it is to --repair: then holes between the first and the last bar of each
    market are fetched, and bars that cannot be true are read again; the old ones are kept as evidence. The exit code is
    0 if all is well, 1 otherwise.

    \b
    marketpipe doctor
    marketpipe doctor --repair --store history.db
    """

    async def command() -> int:
        await _refuse_what_is_not_there(target.store_path)
        with telling_what_is_kept() as kept:
            return await examine(kept)

    async def examine(kept: Kept) -> int:
        async with open_market(target) as market:
            check = await _check(market)
            _print(check, target)
            if check.is_well or not repair:
                return 0 if check.is_well else 1
            await _repair(market, target, kept)
            check = await _check(market)
            _print(check, target)
        return 0 if check.is_well else 1

    run(command)


async def _refuse_what_is_not_there(path: str) -> None:
    # Opening would make a new one.
    if path != MEMORY and not await trio.Path(path).exists():
        raise FileNotFoundError(f"{Path(path)}: there is no database")


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
    yield {"event": "verdict", "path": check.path, "bars": check.bars, "is_well": check.is_well}


def _tables(check: StoreCheck) -> Iterator[RenderableType]:
    if check.series:
        yield _series_table(check.series)
    if check.findings:
        yield _findings_table(check.findings)


def _verdict(check: StoreCheck) -> str:
    what = f"{len(check.series):,} series, {figures.counted(check.bars, 'bar')}"
    if check.is_well:
        return f"{check.path}: all is well: {what}" if check.series else f"{check.path}: all is well, and empty"
    troubles = []
    if check.findings:
        troubles.append(figures.counted(len(check.findings), "thing") + " wrong")
    if missing := sum(each.slots_missing for each in check.series):
        troubles.append(f"{figures.counted(missing, 'slot')} missing in between")
    is_damaged = any(finding.kind == DAMAGED for finding in check.findings)
    cure = "the file itself is broken: move it away, and collect again" if is_damaged else "--repair mends that"
    return f"{check.path}: {' and '.join(troubles)}; {cure}"


def _series_table(series: Sequence[SeriesCheck]) -> RenderableType:
    from rich.text import Text

    from marketpipe.cli.sheet import Column, Sheet

    columns = [Column("market"), Column("timeframe"), Column("bars", "right"), Column("first (UTC)", rank=1)]
    columns += [Column("last", rank=1), Column("holes", "right"), Column("missing", "right", rank=2)]
    columns.append(Column("amended", "right", rank=3))
    sheet = Sheet(columns)
    for each in series:
        style = "red" if each.holes else ""
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
