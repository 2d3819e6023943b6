"""``python -m bench.endurance --days 30 --seed 7``: a line for each day, and a last one that is the verdict.

Exit status: 0 if every promise was kept, 1 if not, 2 for options that mean nothing.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.endurance.course import endure
from bench.endurance.plan import Plan

__all__ = ["main"]

LEAST_DAYS = 0.2


def main(words: Sequence[str] | None = None) -> int:
    """One run."""
    parser = argparse.ArgumentParser(prog="python -m bench.endurance", description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=float, default=30.0, help="of virtual time, from 2026-12-25T00:00Z on (30)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--lose", type=int, metavar="N", help="a planted defect: one in N trades is forgotten")
    parser.add_argument("--out", type=Path, default=Path("bench/results/endurance.json"))
    chosen = parser.parse_args(words)
    if not chosen.days >= LEAST_DAYS:
        print(f"--days must be at least {LEAST_DAYS}, was {chosen.days}", file=sys.stderr)
        return 2
    # What the library warns of is told by what it does.
    logging.getLogger("marketpipe").addHandler(logging.NullHandler())
    logging.getLogger("marketpipe").propagate = False
    plan = Plan(days=chosen.days, seed=chosen.seed, lose_every=chosen.lose)
    course = endure(plan, chosen.out, partial(print, flush=True))
    for finding in course.findings.told:
        print(finding)
    print(course.verdict)
    return 1 if course.findings else 0


if __name__ == "__main__":
    sys.exit(main())
