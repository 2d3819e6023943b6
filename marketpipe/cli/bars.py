"""The bars that are running, one line each, under those that are final."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from marketpipe import Status
from marketpipe.cli.footer import Footer
from marketpipe.cli.lines import Columns, bar_text
from marketpipe.models import Candle, CandleState

__all__ = ["RunningBars"]


@attrs.define(eq=False)
class RunningBars:
    """Of each market the bar that is running now, and the footer."""

    status: Callable[[], Status]
    now_ms: Callable[[], int]
    columns: Columns
    _footer: Footer = attrs.field(init=False)
    _bars: dict[str, Candle] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._footer = Footer(self.status, self.now_ms)

    def take(self, bar: Candle) -> None:
        """Show ``bar`` if it runs; a final one is shown here no longer."""
        held = self._bars.get(bar.market)
        if bar.state is CandleState.RUNNING:
            self._bars[bar.market] = bar
        elif held is not None and held.open_ms <= bar.open_ms:
            del self._bars[bar.market]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        footer = self._footer.lines(console, options.max_width)
        lines = [bar_text(bar, self.columns, ascii_only=options.ascii_only) for bar in self._bars.values()]
        room = max(1, console.size.height - len(footer) - 2)
        for line in lines[:room]:
            line.truncate(options.max_width)
            yield line
        if room < len(lines):
            yield Text(f"and {len(lines) - room} more than this terminal has lines for", style="dim")
        yield from footer
