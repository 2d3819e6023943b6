"""How the demo writes its steps down."""

from __future__ import annotations

import pytest

from marketpipe.cli.paper import TextPaper
from marketpipe.cli.steps import Shown


@pytest.mark.parametrize(
    ("requests", "line"),
    [
        (0, "6,000 candles from memory; all equal"),
        (1, "6,000 candles in 2,000 ms = 3,000 candles/s, 1 request; all equal"),
        (29, "6,000 candles in 2,000 ms = 3,000 candles/s, 29 requests; all equal"),
    ],
)
def test_what_cost_no_request_has_no_rate(requests, line, capsys):
    shown = Shown(asked="?", came=[], count=6_000, unit="candles", elapsed_s=2.0, wrong=[])
    TextPaper().step(shown, requests)
    assert line in capsys.readouterr().out
