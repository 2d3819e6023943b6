"""Everything that was seen of a run: what the report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from bench.soak.findings import Findings
from bench.soak.plan import Plan
from bench.soak.strikes import Strike
from bench.soak.verdicts import Growth

__all__ = ["Record"]

# A machine that is so busy may have made an exchange look as it was not.
BUSY_S = 1.5


@attrs.define
class Record:
    """One run.

    ``looks``, ``samples``, ``rates``: with ``at_s``, seconds since it began; ``conserved``: what was held against the
    truth, in numbers; ``sim``: the exchange's last account; ``left``: the last look, when the pipe had been left.
    ``lasted_s``: how long it was under load; ``whole_s``: how long it took after that until nothing was missing.
    ``stood_still_s``: the longest that the machine did not let the judge run, or the exchange answer it.
    """

    plan: Plan
    looks: list[dict[str, Any]] = attrs.field(factory=list)
    samples: list[dict[str, Any]] = attrs.field(factory=list)
    rates: list[dict[str, Any]] = attrs.field(factory=list)
    strikes: list[Strike] = attrs.field(factory=list)
    findings: Findings = attrs.field(factory=Findings)
    growths: list[Growth] = attrs.field(factory=list)
    conserved: dict[str, int] = attrs.field(factory=dict)
    sim: Mapping[str, Any] = attrs.field(factory=dict)
    left: Mapping[str, Any] = attrs.field(factory=dict)
    lasted_s: float = 0.0
    whole_s: float = 0.0
    stood_still_s: float = 0.0
    interrupted: bool = False

    @property
    def verdict(self) -> str:
        """One line: what is wrong, or what was proven."""
        if self.findings:
            busy = f"; the machine stood still for {self.stood_still_s:.1f} s" if self.stood_still_s > BUSY_S else ""
            return f"RED after {self.lasted_s:.0f} s: {self.findings}{busy}"
        if self.interrupted:
            return f"INTERRUPTED after {self.lasted_s:.0f} s, nothing wrong so far: {self._proven()}"
        return f"GREEN after {self.lasted_s:.0f} s: {self._proven()}"

    def _proven(self) -> str:
        told = self.conserved
        return (f"{told.get('trades', 0):,} trades, {told.get('bars', 0):,} bars, {told.get('reads', 0):,} bars read, "
                f"{told.get('rows', 0):,} rows as they were; {len(self.strikes)} faults")  # fmt: skip
