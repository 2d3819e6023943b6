"""``marketpipe status``: what the pipe of a running program does, from outside of it."""

from __future__ import annotations

import sys

import click
import trio

from marketpipe.cli.attaching import ask_program, port_option
from marketpipe.cli.outlet import write
from marketpipe.cli.running import run
from marketpipe.metrics.snapshot import decode_status

__all__ = ["status"]

EVERY_S = 1.0
REDRAW_S = 0.5


@click.command()
@port_option
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@click.option("--json/--table", "as_json", default=None, help="JSON lines or tables.  [default: tables on a terminal]")
def status(port: int, watch: bool, as_json: bool | None) -> None:
    """What a running program's pipe does: its budgets, verbs, caches, streams, queues, database and jobs.

    The program tells it on a port of this machine, if its pipe was opened with Config(metrics_port=8601). Of our own
    commands, `marketpipe demo` does so by itself, and watch and backfill with --metrics-port. Prometheus finds the same
    at that port, under /metrics.

    \b
    marketpipe status --watch
    marketpipe status --json | jq .budgets
    """
    for_programs = not sys.stdout.isatty() if as_json is None else as_json

    async def command() -> int:
        await (_as_json if for_programs else _as_tables)(port, watch)
        return 0

    run(command)


async def _as_json(port: int, watch: bool) -> None:
    while True:
        text = await ask_program(port, "/status")
        decode_status(text)  # what is no status is told as such, and not handed on
        await write(f"{text.decode()}\n")
        if not watch:
            return
        await trio.sleep(EVERY_S)


async def _as_tables(port: int, watch: bool) -> None:
    from marketpipe.cli.gauges import Gauges
    from marketpipe.cli.screen import Screen, open_console
    from marketpipe.cli.session import show

    gauges = Gauges(decode_status(await ask_program(port, "/status")))
    if not watch:
        show(gauges)
        return
    screen = Screen(open_console(), gauges, redraw_s=REDRAW_S)
    gauges.fits = screen.is_live  # what scrolls has room for all
    with screen.open():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.run, name="screen")
            while True:
                await trio.sleep(EVERY_S)
                gauges.take(decode_status(await ask_program(port, "/status")))
