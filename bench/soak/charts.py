"""The plots of a run: what it held, what waited, how late it was, and what went wrong meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.soak.record import Record
from bench.soak.slopes import Point

__all__ = ["draw"]

MEGA = 2**20
MILLI = 1e3
MINUTE_S = 60.0
SHADE = "#d9822b"
CALM = "#2f855a"
COLOURS = ("#1f5fa8", "#c0392b", "#2f855a", "#8e5bb5", "#b7791f", "#0f8b8d", "#6b7280", "#d53f8c", "#4a5568")
# Names of faults are written where there is room for them.
NAMED = 40
SHOWN = 7

Lines = dict[str, list[Point]]


def draw(record: Record, path: Path) -> None:
    """Write all plots to ``path``. Raises ``ImportError`` where there is no matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    plots: list[tuple[str, Callable[[Record], Lines], dict[str, Any]]] = [
        ("Memory, MiB", _memory, {}),
        ("Blocks of Python, thousands", _blocks, {}),
        ("Handles, threads, tasks", _counted, {"log": True}),
        ("Waiting in queues", _queues, {"log": True}),
        ("Lateness of the event loop, ms", _lag, {"log": True}),
        ("Calls answered within, ms (99 of 100)", _verbs, {"log": True}),
        ("Requests a second, of 10 allowed for each group", _requests, {"limit": 10}),
        ("Messages a second sent by the exchange", _messages, {}),
        ("Missing for the moment", _missing, {"step": True}),
        ("Gaps, reconnects, failed calls", _troubles, {"step": True}),
    ]
    with pyplot.rc_context({"font.size": 8.5, "axes.titlesize": 10, "axes.titleweight": "bold",
                            "axes.spines.top": False, "axes.spines.right": False}):  # fmt: skip
        figure, all_axes = pyplot.subplots(len(plots) // 2, 2, figsize=(19, 3.1 * len(plots) / 2), sharex=True)
        colour = "#b22222" if record.findings else "#1b6e3c"
        figure.suptitle(record.verdict[:150], color=colour, fontsize=12, fontweight="bold", x=0.01, ha="left")
        for number, (axes, (title, lines_of, how)) in enumerate(zip(all_axes.flat, plots, strict=True)):
            _plot(axes, title, lines_of(record), **how)
            _shade(axes, record, named=number < 2)
        for axes in all_axes[-1]:
            axes.set_xlabel("minutes since everything flowed")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=12, steps=[1, 3, 6, 10]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda at_s, _: f"{at_s / MINUTE_S:.3g}"))
        figure.tight_layout(rect=(0, 0, 1, 0.975))
        figure.savefig(path, dpi=110)
        pyplot.close(figure)


def _plot(
    axes: Any, title: str, lines: Lines, *, log: bool = False, step: bool = False, limit: float | None = None
) -> None:
    axes.set_title(title, loc="left")
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        if points:
            axes.plot(*zip(*points, strict=True), label=name, color=colour, linewidth=1.3, marker=".", markersize=2.5,
                      drawstyle="steps-post" if step else "default")  # fmt: skip
    if limit is not None:
        axes.axhline(limit, color="#b22222", linewidth=1, linestyle="--")
    if log:
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25, linewidth=0.6)
    if any(lines.values()):
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), fontsize=7.5, frameon=False, borderaxespad=0.2)


def _shade(axes: Any, record: Record, *, named: bool) -> None:
    plan = record.plan
    axes.axvspan(plan.warm_s, max(plan.warm_s, record.lasted_s), ymin=0, ymax=0.015, color=CALM, linewidth=0)
    axes.set_xlim(0, max(1.0, record.lasted_s))
    for strike in record.strikes:
        axes.axvspan(strike.at_s, strike.ends_s, color=SHADE, alpha=0.16, linewidth=0)
        if named and len(record.strikes) <= NAMED:
            axes.text(strike.at_s, 0.03, strike.name, rotation=90, fontsize=6.5, color="#7b4a12",
                      transform=axes.get_xaxis_transform(), va="bottom", ha="left", clip_on=True)  # fmt: skip


# -- what is plotted ---------------------------------------------------------------------------------------------------


def _memory(record: Record) -> Lines:
    looks = record.looks
    return {
        "resident": [(look["at_s"], look["rss"] / MEGA) for look in looks],
        "given out by malloc": [(look["at_s"], look["malloc"] / MEGA) for look in looks if look["malloc"] is not None],
        "the simulator, resident": [(rate["at_s"], rate["rss"] / MEGA) for rate in record.rates],
    }


def _blocks(record: Record) -> Lines:
    return {"allocated": [(look["at_s"], look["blocks"] / 1e3) for look in record.looks]}


def _counted(record: Record) -> Lines:
    looks = record.looks
    often = _greatest({name: [look["tasks"].get(name, 0) for look in looks]
                       for name in {name for look in looks for name in look["tasks"]}}, 4)  # fmt: skip
    return {
        "handles": [(look["at_s"], look["handles"]) for look in looks],
        "threads": [(look["at_s"], look["threads"]) for look in looks],
        "tasks": [(look["at_s"], sum(look["tasks"].values())) for look in looks],
        **{f"tasks: {name}": [(look["at_s"], look["tasks"].get(name, 0)) for look in looks] for name in often},
    }


def _queues(record: Record) -> Lines:
    samples = record.samples
    names = {name for sample in samples for name in sample["pipe"]["queues"]}
    depths = {name: [sample["pipe"]["queues"].get(name, [0])[0] for sample in samples] for name in names}
    peaks = {name: samples[-1]["pipe"]["queues"].get(name, [0, 0])[1] for name in names} if samples else {}
    shown = _greatest({name: [max(depth), peaks[name]] for name, depth in depths.items()}, SHOWN)
    return {
        f"{name} (peak {peaks[name]:,})": [
            (sample["at_s"], depth) for sample, depth in zip(samples, depths[name], strict=True)
        ]
        for name in shown
    }


def _lag(record: Record) -> Lines:
    return {share: [(sample["at_s"], MILLI * sample["lag"][share]) for sample in record.samples
                    if sample["lag"]["count"]] for share in ("p50", "p95", "p99", "max")}  # fmt: skip


def _verbs(record: Record) -> Lines:
    verbs = {verb for sample in record.samples for verb in sample["verbs"]}
    often = {verb: [sum(sample["verbs"].get(verb, {}).get("count", 0) for sample in record.samples)] for verb in verbs}
    return {verb: [(sample["at_s"], MILLI * sample["verbs"][verb]["p99"]) for sample in record.samples
                   if verb in sample["verbs"]] for verb in _greatest(often, SHOWN)}  # fmt: skip


def _requests(record: Record) -> Lines:
    names = sorted({name for rate in record.rates for name, count in rate["requests"].items() if count})
    return {name: _rates([(rate["at_s"], rate["requests"].get(name, 0)) for rate in record.rates]) for name in names}


def _messages(record: Record) -> Lines:
    received = [(sample["at_s"], sample["pipe"]["frames"]) for sample in record.samples]
    return {
        "sent": _rates([(rate["at_s"], rate["frames"]) for rate in record.rates]),
        "received by the pipe": _rates(received),
    }


def _missing(record: Record) -> Lines:
    samples = record.samples
    return {what: [(sample["at_s"], sample["conserved"].get(f"{what} missing for now", 0)) for sample in samples]
            for what in ("trades", "bars")}  # fmt: skip


def _troubles(record: Record) -> Lines:
    samples = record.samples
    told = {what: [(sample["at_s"], sample["pipe"][what]) for sample in samples]
            for what in ("gaps", "repaired", "reconnects", "bars_amended")}  # fmt: skip
    return {**told, "failed calls": [(sample["at_s"], sum(sample["failures"].values())) for sample in samples]}


def _greatest(amounts: dict[str, list[Any]], count: int) -> list[str]:
    return sorted(amounts, key=lambda name: -max(amounts[name], default=0))[:count]


def _rates(points: Sequence[Point]) -> list[Point]:
    return [(later_s, (later - earlier) / (later_s - earlier_s))
            for (earlier_s, earlier), (later_s, later) in pairwise(points) if later_s > earlier_s]  # fmt: skip
