"""What the package logs: fields for programs, one short line for people, and nothing of what came over the wire."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest
import trio
from rig import open_rig

import marketpipe.logs
from marketpipe import MarketPipeError
from marketpipe.errors import BadPayload, RateLimited
from marketpipe.logs import Sparing, fields, told
from marketpipe.sim import DropFault, GarbageFault, StatusFault, WsCloseFault, WsGarbageFault

PACKAGE = Path(marketpipe.logs.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
EVENT = re.compile(r"[a-z]+(-[a-z]+)*")
BAD_TRADE = '{"type":"trade","code":"KRW-BTC","trade_price":"a secret","sequential_id":1}'
NAMES = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]


def sources() -> list[Path]:
    """The library; the examples are programs, and the simulator is a server of its own."""
    return [path for path in PACKAGE.rglob("*.py") if not {"sim", "examples"} & set(path.relative_to(PACKAGE).parts)]


def loggers() -> dict[Path, str]:
    made = {}
    for path in sources():
        for name in re.findall(r"""^\w+ = logging\.getLogger\("(.+?)"\)""", path.read_text(), re.MULTILINE):
            made[path] = name
    return made


def log_calls(path: Path) -> list[ast.Call]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in LEVELS
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in ("logger", "log")
    ]


def test_there_is_one_logger_for_each_component_and_each_is_described():
    described = set(re.findall(r"^    (marketpipe\.\w+) ", marketpipe.logs.__doc__ or "", re.MULTILINE))
    assert set(loggers().values()) == described


@pytest.mark.parametrize("path", sorted(loggers()), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_line_has_its_fields(path: Path):
    calls = log_calls(path)
    assert calls
    for call in calls:
        assert "extra" in {keyword.arg for keyword in call.keywords}, f"{path}:{call.lineno}"


def test_fields_name_the_event_the_error_and_what_it_is_about():
    error = RateLimited("refused", retry_after_s=1.0)
    assert fields("refused", error, market="KRW-BTC", count=3, until_ms=None, path=Path("a.db")) == {
        "event": "refused",
        "error": "RateLimited",
        "market": "KRW-BTC",
        "count": 3,
        "until_ms": None,
        "path": "a.db",
    }
    assert fields("done") == {"event": "done"}


@pytest.mark.parametrize(("error", "words"), [
    (MarketPipeError("as it is"), "as it is"),
    (BadPayload("was 'a secret'"), "not what the exchange documents"),
    (BadPayload("was 'a secret'", field="price"), "field 'price': not what the exchange documents"),
    (BadPayload("was 'a secret'", field="price", market="KRW-BTC"),
     "KRW-BTC field 'price': not what the exchange documents"),
])  # fmt: skip
def test_an_error_is_told_without_what_it_quotes(error: MarketPipeError, words: str):
    assert told(error) == words


def test_nor_with_what_its_cause_quotes():
    flaw = BadPayload("was 'a secret'", field="price")
    error = MarketPipeError(f"nobody knows better: {flaw}")
    error.__cause__ = flaw
    assert told(error) == "nobody knows better: field 'price': not what the exchange documents"


def test_what_happens_all_the_time_is_said_once_in_a_while_with_a_count():
    sparing = Sparing(10.0)
    said = [sparing.unsaid(at_s) for at_s in (0.0, 1.0, 9.9, 10.0, 15.0, 40.0, 41.0)]
    assert said == [0, None, None, 2, None, 1, None]


async def test_lines_of_a_bad_day_are_short_and_hold_nothing_that_was_received(autojump_clock, caplog):
    caplog.set_level(logging.DEBUG, "marketpipe")
    async with open_rig(streams=True, store=":memory:") as rig, rig.market.stream_trade(NAMES, policy="drop-oldest"):
        for fault in (
            WsGarbageFault(body=BAD_TRADE, count=20),
            GarbageFault(count=20),
            DropFault(count=20),
            StatusFault(status=503, body="no service today", count=20),
            StatusFault(status=418, body="Try again in 5 seconds", count=1),
            WsCloseFault(code=1006),
        ):
            rig.sim.clear_faults()
            rig.sim.add_fault(fault)
            with trio.move_on_after(5):
                await rig.market.get_candle(NAMES, "1m", count=200)  # each may fail
                await rig.market.get_ticker(NAMES, max_age_s=0)
            await trio.sleep(20)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("marketpipe")]
    events = {record.event for record in caplog.records if record.name.startswith("marketpipe")}  # type: ignore[attr-defined]
    assert {"request-failed", "unreadable-frame", "lost", "banned"} <= events
    assert all(EVENT.fullmatch(event) for event in events)
    for line in lines:
        assert len(line) < 300
        assert line.isprintable()
        assert "secret" not in line
        assert not re.search(r"[{\[]\s*\"", line), line


async def test_frames_that_cannot_be_read_fill_no_log(autojump_clock, caplog):
    caplog.set_level(logging.DEBUG, "marketpipe.stream")
    async with open_rig(streams=True) as rig, rig.market.stream_trade(NAMES) as trades:
        await anext(trades)
        rig.sim.add_fault(WsGarbageFault(body=BAD_TRADE, for_s=60.0))
        await trio.sleep(60)
        unreadable = sum(each.unreadable for each in rig.market.status().connections.values())
    said = [record for record in caplog.records if record.event == "unreadable-frame"]  # type: ignore[attr-defined]
    assert 1 <= len(said) <= 7 < unreadable
    assert said[-1].unsaid > 0  # type: ignore[attr-defined]
