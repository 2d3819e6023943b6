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


@pytest.mark.parametrize(
    ("subscribes", "requests", "line"),
    [
        (1, 0, "200 first values in 610 ms, 1 subscribe message; all equal"),
        (2, 14, "200 first values in 610 ms, 2 subscribe messages, 14 requests; all equal"),
    ],
)
def test_what_was_listened_to_tells_its_messages_and_has_no_rate(subscribes, requests, line, capsys):
    shown = Shown(asked="?", came=[], count=200, unit="first values", elapsed_s=0.61, wrong=[], subscribes=subscribes)
    TextPaper().step(shown, requests)
    assert line in capsys.readouterr().out


def test_each_group_is_shown_beside_its_own_limit(capsys):
    groups = {
        "ticker": {"requests": 3, "refused": 0, "greatest_per_second": 3},
        "websocket-message": {"requests": 2, "refused": 0, "greatest_per_second": 1},
    }
    TextPaper().end(groups, {"ticker": 10, "websocket-message": 5}, [])
    shown = capsys.readouterr().out
    assert "3 of 10\n" in shown
    assert "1 of 5\n" in shown
