"""What is left of a run: ``soak.json`` with everything that was seen, ``soak.png`` and ``soak.html`` for people."""

from __future__ import annotations

import base64
import html
import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import psutil

from bench.soak.record import Record

__all__ = ["document", "write_report"]

MEGA = 2**20
MILLI = 1e3
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #1a202c; }
h1 { font-size: 1.3em; padding: .6em .8em; border-radius: 6px; color: white; }
.green { background: #1b6e3c; } .red { background: #b22222; }
h2 { font-size: 1.05em; margin-top: 2em; } img { width: 100%; }
table { border-collapse: collapse; } td, th { padding: .2em .9em .2em 0; text-align: left; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } tr { border-bottom: 1px solid #e2e8f0; }
code { font-size: .92em; }
"""


def write_report(record: Record, folder: Path) -> list[Path]:
    """Write it into ``folder``, which is there; without matplotlib there are no plots. The paths, JSON first."""
    paths = [folder / "soak.json", folder / "soak.html"]
    picture = folder / "soak.png"
    paths[0].write_text(json.dumps(document(record), indent=1))
    try:
        from bench.soak.charts import draw

        draw(record, picture)
        paths.append(picture)
    except ImportError:
        picture.unlink(missing_ok=True)
    paths[1].write_text(_page(record, picture if picture.exists() else None))
    return paths


def document(record: Record) -> dict[str, Any]:
    """Everything, as JSON has it."""
    return {
        "verdict": record.verdict,
        "green": not record.findings,
        "interrupted": record.interrupted,
        "lasted_s": record.lasted_s,
        "whole_s": record.whole_s,
        "stood_still_s": record.stood_still_s,
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cores": psutil.cpu_count()},
        "plan": attrs.asdict(record.plan),
        "findings": {"counts": record.findings.counts, "told": [attrs.asdict(each) for each in record.findings.told]},
        "conserved": record.conserved,
        "growths": [
            {"name": each.name, "unit": each.unit, "per_hour": each.per_h, "for_certain": each.least_per_h,
             "allowed": each.allowed_per_h, "grown": each.grown, "points": each.slope.points}
            for each in record.growths
        ],
        "strikes": [attrs.asdict(strike) for strike in record.strikes],
        "exchange": record.sim,
        "left": record.left,
        "looks": record.looks,
        "samples": record.samples,
        "rates": record.rates,
    }  # fmt: skip


def _page(record: Record, picture: Path | None) -> str:
    colour = "red" if record.findings else "green"
    image = ""
    if picture is not None:
        # In the page itself, so that it can be sent as one file.
        image = f'<img alt="plots" src="data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}">'
    last = record.samples[-1] if record.samples else None
    parts = [
        f"<h1 class={colour}>{html.escape(record.verdict)}</h1>",
        image,
        _table("What is wrong", ("after", "check", "what"), _findings(record)),
        _table("What was held against the truth", ("what", "how many"), record.conserved.items()),
        _table("What grows, over the part that is judged", ("", "an hour", "for certain", "allowed", "unit"),
               _growths(record)),
        _table("What the program did", ("what", "how often"), {} if last is None else last["counts"].items()),
        _table("Calls that the exchange failed", ("what", "how often"),
               () if last is None else last["failures"].items()),
        _table("Queues", ("", "now", "peak", "capacity"), () if last is None else
               [(name, *queue) for name, queue in last["pipe"]["queues"].items()]),
        _table("Of the limit", ("group", "requests", "refused", "most in a second"), _groups(record)),
        _table("What went wrong with the exchange", ("after", "what", "for"),
               [(f"{strike.at_s:.0f} s", strike.name, f"{strike.lasts_s:g} s") for strike in record.strikes]),
        _table("What grew, by tracemalloc", ("where",), [(line,) for line in (last or {}).get("grown", ())]),
    ]  # fmt: skip
    body = "\n".join(part for part in parts if part)
    return f"<!doctype html><meta charset=utf-8><title>marketpipe soak</title><style>{STYLE}</style>\n{body}\n"


def _findings(record: Record) -> Iterable[Sequence[object]]:
    told = [(f"{each.at_s:.0f} s", each.check, each.words) for each in record.findings.told]
    more = sum(record.findings.counts.values()) - len(told)
    return [*told, ("", "", f"and {more} more")] if more else told


def _growths(record: Record) -> Iterable[Sequence[object]]:
    # Tasks by name are many, and all still: those that move are worth a line.
    for each in record.growths:
        if each.per_h or "named" not in each.name:
            bounds = (each.per_h, each.least_per_h, each.allowed_per_h)
            yield (each.name, *(f"{bound:+,.2f}" for bound in bounds), each.unit)


def _groups(record: Record) -> Iterable[Sequence[object]]:
    for name, group in record.sim.get("groups", {}).items():
        yield name, group["requests"], group["refused"], group["greatest_per_second"]


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["".join(_cell(value) for value in row) for row in rows]
    if not lines:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    return f"<h2>{html.escape(title)}</h2><table><tr>{head}</tr><tr>{'</tr><tr>'.join(lines)}</tr></table>"


def _cell(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"<td class=n>{value:,}</td>"
    return f"<td>{html.escape('-' if value is None else str(value))}</td>"
