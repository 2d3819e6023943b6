"""The options that all asking commands share: whom to ask, where to keep bars, and how to show the answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import attrs
import click

from marketpipe.cli.running import start_logging
from marketpipe.config import REGIONS, Config

__all__ = ["Target", "asking", "collecting", "telling"]


@attrs.frozen(kw_only=True)
class Target:
    """Whom to ask (``sim``: a simulator of our own), and whether the answer is for programs."""

    sim: bool
    config: Config
    as_json: bool = False

    @property
    def store_path(self) -> str:
        """Where the bars are kept."""
        return ":memory:" if self.sim and self.config.store is None else self.config.store_path


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the shared options, handed over as its first argument, a `Target`."""

    @click.option(
        "--json/--table", "as_json", default=None, help="JSON lines or a table.  [default: a table on a terminal]"
    )
    @wraps(command)
    def with_form(target: Target, *, as_json: bool | None, **others: Any) -> None:
        for_programs = not sys.stdout.isatty() if as_json is None else as_json
        command(attrs.evolve(target, as_json=for_programs), **others)

    return collecting(with_form)


def collecting(command: Callable[..., None]) -> Callable[..., None]:
    """As `asking`, for a command whose output has a form of its own."""

    @click.option("--sim", is_flag=True, help="Start a simulated exchange and ask that.")
    @click.option("--base-url", metavar="URL", help="Ask this address, such as http://127.0.0.1:8600.")
    @click.option("--region", type=click.Choice(list(REGIONS)), help="Upbit of this region.  [default: kr]")
    @click.option(
        "--store",
        metavar="PATH",
        help="The database of candles, or :memory:.  [default: a file for each region; memory for others]",
    )
    @click.option("-v", "--verbose", is_flag=True, help="Show the library's log on stderr.")
    @wraps(command)
    def with_target(
        *, sim: bool, base_url: str | None, region: str | None, store: str | None, verbose: bool, **others: Any
    ) -> None:
        _at_most_one(**{"--sim": sim, "--base-url": base_url, "--region": region})
        start_logging(verbose=verbose)
        command(Target(sim=sim, config=_config(base_url, region or "kr", store)), **others)

    return with_target


def telling(command: Callable[..., None]) -> Callable[..., None]:
    """For a command that runs for long, below `asking` or `collecting`: others may look at it meanwhile."""

    @click.option(
        "--metrics-port",
        metavar="PORT",
        type=click.IntRange(1, 65_535),
        help="Tell `marketpipe status` and Prometheus how it goes, on this port of 127.0.0.1.",
    )
    @wraps(command)
    def with_port(target: Target, *, metrics_port: int | None, **others: Any) -> None:
        config = attrs.evolve(target.config, metrics_port=metrics_port)
        command(attrs.evolve(target, config=config), **others)

    return with_port


def _at_most_one(**given: object) -> None:
    named = [name for name, value in given.items() if value]
    if len(named) > 1:
        raise click.UsageError(f"give one of {', '.join(named)}, not {len(named)}")


def _config(base_url: str | None, region: str, store: str | None) -> Config:
    try:
        return Config(base_url=base_url, region=region, store=store)
    except ValueError as error:
        said = str(error).replace("Config.base_url", "--base-url").replace("Config.store", "--store")
        raise click.UsageError(said) from None
