"""How the demo is written down: as text for people, or as JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs
import click

import marketpipe
from marketpipe.cli import figures
from marketpipe.cli.rows import json_line
from marketpipe.cli.steps import Shown
from marketpipe.sim import SimConfig

__all__ = ["Groups", "JsonPaper", "Limits", "Paper", "TextPaper"]

# The simulator's count, by rate-limit group.
Groups = Mapping[str, Mapping[str, int]]
Limits = Mapping[str, int]


class Paper(Protocol):
    """Where the demo writes."""

    def begin(self, config: SimConfig) -> None:
        """What is asked."""
        ...

    def step(self, shown: Shown, requests: int) -> None:
        """One step and what it cost."""
        ...

    def end(self, groups: Groups, limits: Limits, broken: Sequence[str]) -> None:
        """The limits, and whether every promise was kept."""
        ...


@attrs.define
class TextPaper:
    """For people."""

    _number: int = 0

    def begin(self, config: SimConfig) -> None:
        latency = f"{config.latency_s * 1000:.0f} ms latency"
        if config.jitter_s:
            latency += f" and up to {config.jitter_s * 1000:.0f} ms jitter"
        click.echo(
            f"marketpipe {marketpipe.__version__} against a simulated Upbit in its own process:\n"
            f"{config.markets} markets, {latency}, at most {config.limit} requests per second and group.\n"
        )

    def step(self, shown: Shown, requests: int) -> None:
        self._number += 1
        click.secho(f"{self._number}. {shown.asked}", bold=True)
        for line in shown.came:
            click.echo(f"   {line}")
        click.echo(f"   {shown.count:,} {shown.unit} {_cost(shown, requests)}; ", nl=False)
        if shown.wrong:
            click.secho(f"{len(shown.wrong)} WRONG", fg="red")
        else:
            click.secho("all equal to the simulator's truth", fg="green")
        click.echo()

    def end(self, groups: Groups, limits: Limits, broken: Sequence[str]) -> None:
        click.secho("What the simulator counted", bold=True)
        click.echo(f"   {'group':<18}{'requests':>10}{'refused':>10}{'greatest in any rolling second':>34}")
        for name, group in groups.items():
            if group["requests"]:
                greatest = f"{group['greatest_per_second']} of {limits[name]}"
                click.echo(f"   {name:<18}{group['requests']:>10}{group['refused']:>10}{greatest:>34}")
        if broken:
            click.secho(f"\n{len(broken)} promises were broken.", fg="red", bold=True)
        else:
            click.secho("\nNothing was refused, no second saw more than the limit, every value was true.", fg="green")


class JsonPaper:
    """For programs: one object a step, and one for the limit."""

    def begin(self, config: SimConfig) -> None:
        pass

    def step(self, shown: Shown, requests: int) -> None:
        click.echo(json_line({**attrs.asdict(shown), "requests": requests}))

    def end(self, groups: Groups, limits: Limits, broken: Sequence[str]) -> None:
        click.echo(json_line({"limits": limits, "groups": groups, "broken": broken}))


def _cost(shown: Shown, requests: int) -> str:
    if not requests and shown.subscribes is None:
        return "from memory"  # how fast memory is says nothing about the pipe
    spent = [f"in {shown.elapsed_s * 1000:,.0f} ms"]
    if shown.subscribes is None and shown.count > 1:  # how fast a stream is, is the market's doing
        spent[0] += f" = {figures.rate(shown.count, shown.unit, shown.elapsed_s)}"
    if shown.subscribes is not None:
        spent.append(_counted(shown.subscribes, "subscribe message"))
    if requests:
        spent.append(_counted(requests, "request"))
    return ", ".join(spent)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
