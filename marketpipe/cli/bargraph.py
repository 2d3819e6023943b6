"""A collection in the background as people watch it: a bar for each market and timeframe, and how fast it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from marketpipe import JobState, Outcome, Progress
from marketpipe.cli import figures
from marketpipe.cli.footer import packed

__all__ = ["BarGraph", "in_words", "label", "share_of"]

# Where less is left for a bar than this, it goes.
LEAST_BAR = 10
# All the slots of a second are free at the start: until these are forgotten, the pace is too good to be true.
SETTLED_S = 5.0


def label(part: Outcome) -> str:
    """``KRW-BTC 1m``"""
    return f"{part.market} {part.timeframe}"


def share_of(part: Outcome) -> float:
    """From 0.0 to 1.0; nothing to do is all done."""
    return (part.done + part.gone) / part.slots if part.slots else 1.0


def in_words(progress: Progress, limit: int) -> Iterator[Text]:
    """How far, how much, how fast, how long still; and what keeps it waiting."""
    yield Text(f"{progress.share:.0%}")
    yield Text(figures.counted(progress.bars, "bar"))
    is_settled = progress.elapsed_s >= SETTLED_S
    if is_settled:
        yield Text(f"{progress.bars_per_s:,.0f} bars/s")
        yield Text(f"{progress.requests_per_s:.1f} of {limit} requests/s")
    if is_settled and progress.state is JobState.RUNNING and progress.eta_s is not None:
        yield Text(f"{figures.duration(progress.eta_s)} left" if progress.eta_s >= 1 else "nearly done")
    if progress.trouble:
        yield Text(f"waiting: {progress.trouble}", style="red")


@attrs.define(eq=False)
class BarGraph:
    """To be drawn often. ``limit``: requests a second that the exchange allows."""

    snapshot: Callable[[], Progress]
    limit: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        progress = self.snapshot()
        if progress.state is JobState.PLANNING:
            yield Text(f"looking at what is stored of {len(progress.parts):,} series")
            return
        footer = packed(in_words(progress, self.limit), console, options.max_width)
        room = max(1, console.size.height - len(footer) - 2)
        shown = _the_ones_to_see(progress.parts, room)
        yield _graph(shown, options.max_width)
        if len(shown) < len(progress.parts):
            done = sum(part.is_whole for part in progress.parts)
            yield Text(
                f"and {len(progress.parts) - len(shown)} more; {done} of {len(progress.parts)} done", style="dim"
            )
        yield from footer


def _the_ones_to_see(parts: Sequence[Outcome], room: int) -> Sequence[Outcome]:
    """Those in the middle of it, if there is no room for all; in the order asked."""
    if len(parts) <= room:
        return parts
    interest = sorted(range(len(parts)), key=lambda index: (parts[index].is_whole, not parts[index].pages, index))
    return [parts[index] for index in sorted(interest[:room])]


def _graph(parts: Sequence[Outcome], width: int) -> Table:
    rows = [(label(part), f"{share_of(part):.0%}", figures.counted(part.bars, "bar")) for part in parts]
    bar_width = width - sum(max(map(len, column)) for column in zip(*rows, strict=True)) - 6
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", *(["left"] if bar_width >= LEAST_BAR else []), "right", "right"):
        table.add_column(justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for part, (name, share, bars) in zip(parts, rows, strict=True):
        style = "red" if part.error is not None else ""
        bar = [_bar(part, min(60, bar_width))] if bar_width >= LEAST_BAR else []
        table.add_row(Text(name, style=style), *bar, share, bars)
    return table


def _bar(part: Outcome, width: int) -> ProgressBar:
    return ProgressBar(total=1.0, completed=share_of(part), width=width)
