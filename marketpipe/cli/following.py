"""Follows a job to its end: bars that grow on a terminal, a line now and then in a pipe, JSON lines for programs."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from marketpipe import Job, JobState, Outcome, Progress, Report
from marketpipe.cli import figures
from marketpipe.cli.complaints import say
from marketpipe.cli.gone import cannot_be_known
from marketpipe.cli.options import Target
from marketpipe.cli.outlet import write
from marketpipe.cli.rows import json_line
from marketpipe.client import Client

__all__ = ["Kept", "complain_of_missing", "follow", "telling_what_is_kept"]

MEMORY = ":memory:"
LINE_EVERY_S = 3.0
JSON_EVERY_S = 1.0


async def follow(job: Job, target: Target, *, as_json: bool) -> Report:
    """Show how far ``job`` is until it has ended."""
    limit = target.config.limits.per_second
    if as_json:
        async for progress in job.progress(every_s=JSON_EVERY_S):
            await write(f"{json_line(_progress(progress))}\n")
        report = await job.wait()
        await write(f"{json_line(_report(report))}\n")
        return report
    await _show(job, limit)
    return await job.wait()


@attrs.define
class Kept:
    """``market`` is set once there is anything to keep."""

    market: Client | None = None


@contextmanager
def telling_what_is_kept() -> Generator[Kept]:
    """If the block is left by Ctrl-C, say what of it stays, and that the next time goes on from there.

    To be entered outside of the pipeline: what is on its way to the database is stored while that is left.
    """
    kept = Kept()
    try:
        yield kept
    finally:
        if kept.market is not None and trio.current_effective_deadline() == -math.inf:
            store = kept.market.status().store
            assert store is not None
            if store.path == MEMORY:
                say("stopped; nothing is kept, since the database was in memory: --store PATH keeps it")
            elif not Path(store.path).exists():
                say(f"stopped; nothing is kept: {store.path} is there no more")
            else:
                stored = f"{figures.counted(store.rows_written, 'bar')} stored"
                say(f"stopped: {stored} in {store.path}; the same command goes on from there")


def complain_of_missing(report: Report) -> None:
    """A line on stderr for each market and timeframe of which something is missing, with the reason."""
    for part in report.parts:
        if part.gone:
            say(cannot_be_known(part.market, part.timeframe, part.gone))
    for part in report.failed:
        missing = figures.counted(part.slots - part.done - part.gone, "slot")
        reason = "" if part.error is None else f": {' '.join(str(part.error).split())}"
        say(f"{_name(part)}: {missing} missing{reason}")


async def _show(job: Job, limit: int) -> None:
    from marketpipe.cli.bargraph import BarGraph, in_words
    from marketpipe.cli.screen import Screen, open_console

    screen = Screen(open_console(), BarGraph(job.snapshot, limit))
    if not screen.is_live:
        async for progress in job.progress(every_s=LINE_EVERY_S):
            if progress.state is not JobState.PLANNING and not job.is_over:
                await write(f"{', '.join(part.plain for part in in_words(progress, limit))}\n")
        return
    with screen.open():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.run, name="screen")
            await job.wait()
            nursery.cancel_scope.cancel(reason="the job has ended")


def _name(part: Outcome) -> str:
    return f"{part.market} {part.timeframe}"


def _progress(progress: Progress) -> dict[str, Any]:
    fields = {field.name: getattr(progress, field.name) for field in attrs.fields(Progress) if field.name != "parts"}
    return {"event": "progress", **fields, "share": progress.share}


def _report(report: Report) -> dict[str, Any]:
    fields = {field.name: getattr(report, field.name) for field in attrs.fields(Report)}
    return {"event": "report", **fields, "parts": [_part(part) for part in report.parts]}


def _part(part: Outcome) -> dict[str, Any]:
    fields = {field.name: getattr(part, field.name) for field in attrs.fields(Outcome)}
    return {**fields, "error": None if part.error is None else str(part.error), "is_whole": part.is_whole}
