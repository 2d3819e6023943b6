"""The colours of a chart, and the words for them."""

from __future__ import annotations

from enum import StrEnum

from marketpipe.cli.chart_marks import Drawing, Kind, Mark

__all__ = ["FAINT", "FILLED_NAME", "GREY", "GRID", "INK", "RUNNING_NAME", "UNKNOWN", "UNKNOWN_EDGE", "Colors", "legend"]

INK = "#1e2329"
FAINT = "#707a8a"
GRID = "#e8ebef"
UNKNOWN, UNKNOWN_EDGE = "#f9ebd2", "#e9c883"
RUNNING_NAME, FILLED_NAME = "still running", "no trade, last close carried on"
RED, BLUE, GREEN, GREY = "#d24f45", "#1261c4", "#089981", "#8a929e"


class Colors(StrEnum):
    """Which colour means up: in Korea red, and blue is down; elsewhere green, and red is down."""

    KOREAN = "korean"
    WESTERN = "western"

    @property
    def up_and_down(self) -> tuple[str, str]:
        """The two colours."""
        return (RED, BLUE) if self is Colors.KOREAN else (GREEN, RED)

    def of(self, mark: Mark) -> str:
        """The colour of ``mark``: grey, where the price did not move or the bar is made up."""
        if mark.change == 0 or mark.kind is Kind.FILLED:
            return GREY
        up, down = self.up_and_down
        return up if mark.change > 0 else down


def legend(drawing: Drawing, colors: Colors) -> list[tuple[str, str, str]]:
    """What is on ``drawing``, each with the colours of its inside and its edge."""
    up, down = colors.up_and_down
    kinds = {mark.kind for mark in drawing.marks}
    entries = [("up", up, up), ("down", down, down)]
    if Kind.RUNNING in kinds:
        entries.append((RUNNING_NAME, "white", INK))
    if Kind.FILLED in kinds:
        entries.append((FILLED_NAME, GREY, GREY))
    if drawing.unknown:
        entries.append((drawing.unknown_name, UNKNOWN, UNKNOWN_EDGE))
    return entries
