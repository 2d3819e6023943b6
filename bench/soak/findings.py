"""What is wrong, in one line each, and since when it is known."""

from __future__ import annotations

import attrs

__all__ = ["Finding", "Findings"]

# Of each check the first few are told in full; the others are counted.
TOLD = 20


@attrs.frozen
class Finding:
    """``check`` says what was looked at, ``words`` what was found; ``at_s``: seconds since the run began."""

    check: str
    words: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.check}: {self.words}"


@attrs.define
class Findings:
    """All of them, in the order in which they were found."""

    told: list[Finding] = attrs.field(factory=list)
    counts: dict[str, int] = attrs.field(factory=dict)

    def add(self, check: str, words: str, at_s: float) -> None:
        """Something is wrong."""
        self.counts[check] = self.counts.get(check, 0) + 1
        if self.counts[check] <= TOLD:
            self.told.append(Finding(check, words, at_s))

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        if not self.told:
            return ""
        others = sum(self.counts.values()) - 1
        first = self.told[0]
        return f"{first} (after {first.at_s:.0f} s{f'; {others} more' if others else ''})"
