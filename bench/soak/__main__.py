"""``python -m bench.soak --minutes 2 --seed 7 --out soak``: the last line is the verdict, and so is the exit code."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

from bench.soak.judge import judge
from bench.soak.plan import Plan
from bench.soak.plants import Planted
from bench.soak.report import write_report

__all__ = ["main"]

MINUTE_S = 60.0


def main(args: Sequence[str] | None = None) -> int:
    """0: all held. 1: something did not, and the last line says what. 2: misuse. 130: Ctrl-C, nothing wrong so far."""
    words = _parser().parse_args(args)
    try:
        plan = _plan(words)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    out = Path(words.out) if words.out else Path("bench/results/soak")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="marketpipe-soak-") as folder:
        record = trio.run(judge, plan, Path(folder))
    for path in write_report(record, out):
        print(path, file=sys.stderr)
    print(record.verdict)
    return 1 if record.findings else 130 if record.interrupted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=7, help="of the market and of what goes wrong (default 7)")
    parser.add_argument("--out", metavar="DIR", help="for soak.json, .html and .png (default bench/results/soak)")
    parser.add_argument("--markets", type=int, default=855)
    parser.add_argument("--lively", type=int, default=None, help="how many of 855 trade all the time (default 200)")
    parser.add_argument("--seconds-of", type=int, default=None, metavar="N", help="watch bars of a second of N markets")
    parser.add_argument("--no-faults", action="store_true", help="nothing goes wrong")
    parser.add_argument("--trace", action="store_true", help="tell with tracemalloc what grows; takes CPU")
    parser.add_argument("--plant", action="append", default=[], metavar="DEFECT", help=argparse.SUPPRESS)
    return parser


def _plan(words: argparse.Namespace) -> Plan:
    seconds = MINUTE_S * (words.minutes + 60 * words.hours) or 2 * MINUTE_S
    if seconds < 20:
        raise ValueError(f"a run takes at least 20 s, was {seconds:g}")
    for word in words.plant:
        Planted.parse(word)
    sizes = {name: getattr(words, name) for name in ("lively", "seconds_of") if getattr(words, name) is not None}
    return Plan(seconds=seconds, seed=words.seed, markets=words.markets, faults=not words.no_faults,
                tracing=words.trace, plants=tuple(words.plant), **sizes)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
