"""A table that fits: where the screen is too narrow, whole columns go, and no number is ever cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from marketpipe.cli.letters import plain

__all__ = ["Column", "Sheet"]

ENDLESS = 10_000


@attrs.frozen
class Column:
    """``rank``: the higher, the sooner the column goes; 0 stays. ``wrap_at``: text longer than this is folded."""

    title: str
    justify: Literal["left", "right"] = "left"
    rank: int = 0
    wrap_at: int | None = None


@attrs.define
class Sheet:
    """Columns and rows. Rich prints it as wide as it may be, and wider where even the columns that stay do not fit."""

    columns: Sequence[Column]
    title: str | None = None
    rows: list[tuple[Text, ...]] = attrs.field(factory=list)
    dim: set[int] = attrs.field(factory=set)

    def add(self, *cells: str | Text, dim: bool = False) -> None:
        """One more row, a cell for each column."""
        if dim:
            self.dim.add(len(self.rows))
        # As a text of rich, a cell may hold square brackets too: in a str they would be markup.
        self.rows.append(tuple(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(*self._fitting(console, options))

    def _fitting(self, console: Console, options: ConsoleOptions) -> tuple[Table, ConsoleOptions]:
        table, width = self._up_to(max(column.rank for column in self.columns), console, options)
        for rank in sorted({column.rank for column in self.columns}, reverse=True)[1:]:
            if width <= options.max_width:
                break
            table, width = self._up_to(rank, console, options)
        return table, options.update(width=max(width, options.max_width))

    def _up_to(self, rank: int, console: Console, options: ConsoleOptions) -> tuple[Table, int]:
        table = self._table([index for index, column in enumerate(self.columns) if column.rank <= rank])
        return table, console.measure(table, options=options.update(width=ENDLESS)).maximum

    def _table(self, shown: Sequence[int]) -> Table:
        table = Table(
            box=SIMPLE_HEAD,
            title=self.title,
            title_justify="left",
            title_style="bold",
            pad_edge=False,
            collapse_padding=True,
        )
        for column in (self.columns[index] for index in shown):
            table.add_column(
                column.title, justify=column.justify, no_wrap=column.wrap_at is None, max_width=column.wrap_at
            )
        for number, row in enumerate(self.rows):
            table.add_row(*(row[index] for index in shown), style="dim" if number in self.dim else None)
        return table
