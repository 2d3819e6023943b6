"""The list of commands; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

import click

import marketpipe

__all__ = ["cli"]

COMMANDS = {
    "demo": "marketpipe.cli.demo",
    "ticker": "marketpipe.cli.asking",
    "orderbook": "marketpipe.cli.asking",
    "trades": "marketpipe.cli.asking",
    "candles": "marketpipe.cli.candles",
    "markets": "marketpipe.cli.asking",
    "backfill": "marketpipe.cli.backfill",
    "gaps": "marketpipe.cli.gaps",
    "export": "marketpipe.cli.exporting",
    "doctor": "marketpipe.cli.doctor",
    "watch": "marketpipe.cli.watch",
    "status": "marketpipe.cli.status",
    "sim": "marketpipe.cli.simulate",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        return None if module is None else getattr(import_module(module), cmd_name)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(marketpipe.__version__, prog_name="marketpipe")
def cli() -> None:
    """Market data from Upbit: batched, paced inside the exchange's limits, exact to the last decimal.

    \b
    marketpipe demo                        everything, against a simulated exchange
    marketpipe ticker KRW-BTC KRW-ETH      two markets of the real one
    marketpipe backfill KRW-BTC --start 1y --timeframe 1h
                                           a year of candles into the database

    Tables for people, JSON lines for programs: as soon as the output is piped, or with --json.
    """
