"""How figures are written down: a table for people, JSON for comparing with another day or another machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

import marketpipe
from bench.figures import Figure, Matrix, Outcome
from marketpipe.clock import SystemClock

__all__ = ["document", "figures_table", "machine", "matrix_table", "save", "show"]

# Below these a number is told with that many decimals.
_DECIMALS = ((10.0, 3), (100.0, 2), (1_000.0, 1))


def machine() -> dict[str, Any]:
    """Where this was measured."""
    return {
        "python": sys.version.split()[0],
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "marketpipe": marketpipe.__version__,
    }


def show(console: Console, name: str, line: str, outcome: Outcome, elapsed_s: float) -> None:
    """One bench: its table, and what was broken."""
    console.print()
    console.print(Text.assemble((name, "bold"), f"  {line}  ({elapsed_s:.1f} s)"))
    for matrix in outcome.matrices:
        console.print(matrix_table(matrix))
    console.print(figures_table(outcome))
    for broken in outcome.broken[:20]:
        console.print(Text(f"BROKEN  {broken}", style="bold red"))
    if len(outcome.broken) > 20:
        console.print(Text(f"BROKEN  and {len(outcome.broken) - 20} more", style="bold red"))


def figures_table(outcome: Outcome) -> Table:
    """One row a figure."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("what", overflow="fold")
    for column in ("median", "unit", "min – max", "n", "baseline", "ratio", "goal", "met"):
        table.add_column(column, justify="left" if column in ("unit", "met") else "right", no_wrap=True)
    for figure in outcome.figures:
        table.add_row(*_cells(figure))
    for name in dict.fromkeys(figure.baseline for figure in outcome.figures if figure.baseline):
        table.add_row(Text(f"baseline: {name}", style="dim"))
    return table


def matrix_table(matrix: Matrix) -> Table:
    """Its rows as they are; all but the first column are numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), title=matrix.title,
                  title_justify="left")  # fmt: skip
    for number, column in enumerate(matrix.columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in matrix.rows:
        table.add_row(*row)
    return table


def document(outcomes: Mapping[str, Outcome], scale: str) -> dict[str, Any]:
    """Everything, with the raw samples."""
    return {
        "machine": machine(),
        "taken_ms": SystemClock().now_ms(),
        "scale": scale,
        "benches": {name: _told(outcome) for name, outcome in outcomes.items()},
    }


def save(path: Path, outcomes: Mapping[str, Outcome], scale: str) -> None:
    """Write `document` to ``path``."""
    path.write_text(json.dumps(document(outcomes, scale), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _told(outcome: Outcome) -> dict[str, Any]:
    told: dict[str, Any] = {"figures": [_figure(figure) for figure in outcome.figures], "broken": list(outcome.broken)}
    if outcome.matrices:
        told["matrices"] = [attrs.asdict(matrix) for matrix in outcome.matrices]
    return told


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        **attrs.asdict(figure, filter=lambda field, _: field.name != "goal"),
        "value": figure.value,
        "baseline_value": figure.baseline_value,
        "ratio": figure.ratio,
        "goal": None if figure.goal is None else str(figure.goal),
        "met": figure.met,
    }


def _cells(figure: Figure) -> list[str | Text]:
    count = len(figure.samples)
    return [
        figure.what,
        Text(_number(figure.value), style="bold"),
        figure.unit,
        f"{_number(min(figure.samples))} – {_number(max(figure.samples))}" if count > 1 else "",
        str(count),
        "" if figure.baseline_value is None else _number(figure.baseline_value),
        "" if figure.ratio is None else f"{figure.ratio:.{2 if figure.ratio >= 0.1 else 4}f}×",
        "" if figure.goal is None else str(figure.goal),
        _met(figure.met),
    ]


def _met(met: bool | None) -> Text:
    if met is None:
        return Text()
    return Text("yes", style="green") if met else Text("NO", style="bold yellow")


def _number(value: float) -> str:
    if value == int(value):
        return f"{value:,.0f}"
    decimals = next((digits for bound, digits in _DECIMALS if abs(value) < bound), 0)
    return f"{value:,.{decimals}f}"
