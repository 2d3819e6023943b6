"""``python -m bench [NAMES...] [--json FILE] [--quick] [--rivals] [--list]``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import trio
from rich.console import Console

from bench.catalogue import BENCHES, RIVALS, about
from bench.figures import Outcome
from bench.report import machine, save, show
from bench.scale import FULL, QUICK, Scale

__all__ = ["main"]

WIDTH = 170


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "path", type=click.Path(dir_okay=False, writable=True, path_type=Path),
              help="Write every figure and sample to this file.")  # fmt: skip
@click.option("--quick", is_flag=True, help="Fewer repeats, shorter scenarios.")
@click.option("--rivals", "with_rivals", is_flag=True, help="Other clients too, side by side; takes a minute.")
@click.option("--list", "only_list", is_flag=True, help="Name the benches and leave.")
def main(names: tuple[str, ...], path: Path | None, quick: bool, with_rivals: bool, only_list: bool) -> None:
    """Measure marketpipe: all benches, or those named. Ends with 1 if an answer was wrong or a limit was broken."""
    if only_list:
        for name, bench in BENCHES.items():
            click.echo(f"{name:<12} {about(bench)}")
        return
    chosen = _chosen(names, with_rivals=with_rivals)
    # Warnings of the library are told by the figures; a handler of none would print them between the tables.
    logging.getLogger("marketpipe").addHandler(logging.NullHandler())
    outcomes = trio.run(_run_all, chosen, QUICK if quick else FULL)
    if path is not None:
        save(path, outcomes, "quick" if quick else "full")
    sys.exit(1 if any(outcome.broken for outcome in outcomes.values()) else 0)


def _chosen(names: Sequence[str], *, with_rivals: bool) -> list[str]:
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        raise click.BadParameter(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    wanted = set(names) or set(BENCHES) - {RIVALS}
    return [name for name in BENCHES if name in wanted or (with_rivals and name == RIVALS)]


async def _run_all(names: Sequence[str], scale: Scale) -> dict[str, Outcome]:
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    progress = Console(stderr=True)
    console.print("  ".join(f"{key} {value}" for key, value in machine().items()), style="dim")
    outcomes: dict[str, Outcome] = {}
    for name in names:
        began_s = trio.current_time()
        with progress.status(f"{name}: {about(BENCHES[name])}"):
            outcomes[name] = await BENCHES[name](scale)
        show(console, name, about(BENCHES[name]), outcomes[name], trio.current_time() - began_s)
    return outcomes


if __name__ == "__main__":
    main()
