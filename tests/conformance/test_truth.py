"""What other clients say is compared with the market: what is true passes, and everything else is found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from conformance.desk import NOW_MS, WORLD, rows, utc_ms

from bench.conformance.environments import clients
from bench.conformance.truth import compare
from marketpipe.sim.streams import Streams, Wanted

BTC = "KRW-BTC"


def line(what: str, saw: Any, market: str = BTC, **more: Any) -> dict[str, Any]:
    told = {"what": what, "market": market, "asked_ms": NOW_MS - 5, "got_ms": NOW_MS + 40, "saw": saw, **more}
    return json.loads(json.dumps(told, default=float))


def book() -> dict[str, Any]:
    (row,) = rows(f"orderbook?markets={BTC}")
    sides = {
        side: [[unit[f"{side}_price"], unit[f"{side}_size"]] for unit in row["orderbook_units"]]
        for side in ("ask", "bid")
    }
    return {"timestamp": row["timestamp"], "asks": sides["ask"], "bids": sides["bid"]}


def bars() -> list[dict[str, Any]]:
    page = rows(f"candles/minutes/1?market={BTC}&count=20&to=2026-10-07T13:00:00Z")[::-1]
    return [{**row, "open_ms": utc_ms(row["candle_date_time_utc"])} for row in page]


def frames(stream: str = "trade", for_ms: int = 20_000) -> list[dict[str, Any]]:
    subscription = Streams(WORLD).open([Wanted(stream, (BTC,), only_realtime=True)], NOW_MS)
    return [json.loads(message.encode("DEFAULT")) for message in subscription.take(NOW_MS + for_ms)]


def heard(saw: list[dict[str, Any]], stream: str = "trade", for_ms: int = 20_000) -> dict[str, Any]:
    return line("frames", saw, stream=stream, whole=True) | {"asked_ms": NOW_MS, "got_ms": NOW_MS + for_ms}


UNTIL_MS = utc_ms("2026-10-07T13:00:00")
TRUE: dict[str, Callable[[], dict[str, Any]]] = {
    "markets": lambda: line("markets", list(WORLD.markets)),
    "ticker": lambda: line("ticker", rows(f"ticker?markets={BTC}")[0]),
    "orderbook": lambda: line("orderbook", book()),
    "trades": lambda: line("trades", rows(f"trades/ticks?market={BTC}&count=50"), count=50),
    "candles": lambda: line("candles", bars(), kind="minutes/1", count=20, until_ms=UNTIL_MS),
    "frames": lambda: heard(frames()),
    "books": lambda: heard(frames("orderbook", 6_000), "orderbook", 6_000),
}


@pytest.mark.parametrize("name", TRUE)
def test_what_is_true_agrees(name):
    assert compare(WORLD, TRUE[name]()) == []


def change_a_number(value: Any) -> Any:
    """Another value in the first number there is."""
    if isinstance(value, dict):
        name = next(name for name in value if name not in ("market", "type", "code"))
        return {**value, name: change_a_number(value[name])}
    if isinstance(value, list):
        return [*value[:-1], change_a_number(value[-1])]
    return f"{value}0" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("name", TRUE)
def test_one_wrong_value_is_found(name):
    told = TRUE[name]()
    assert compare(WORLD, {**told, "saw": change_a_number(copy.deepcopy(told["saw"]))})


@pytest.mark.parametrize("name", ["markets", "orderbook", "trades", "candles", "frames", "books"])
def test_one_missing_piece_is_found(name):
    told = TRUE[name]()
    saw = told["saw"]
    less = (
        {**saw, "asks": saw["asks"][1:]} if isinstance(saw, dict) else saw[: len(saw) // 2] + saw[len(saw) // 2 + 1 :]
    )
    assert compare(WORLD, {**told, "saw": less})


def test_a_frame_that_came_twice_and_silence_are_found():
    told = frames()
    assert [finding.field for finding in compare(WORLD, heard([told[0], *told]))] == ["twice"]
    assert [finding.field for finding in compare(WORLD, heard([]))] == ["missing"]


def test_a_field_that_the_exchange_has_not_is_found():
    (finding,) = compare(WORLD, line("ticker", {"market": BTC, "colour": 1}))
    assert finding.field == "colour"


def test_bars_from_before_the_start_are_told_apart():
    saw = bars()
    told = line("candles", saw, kind="minutes/1", from_ms=saw[3]["open_ms"], until_ms=UNTIL_MS)
    assert [finding.field for finding in compare(WORLD, told)] == ["early"]


def test_every_client_is_pinned_and_has_its_script():
    assert {client.name for client in clients()} == {"ccxt", "ccxt.pro", "pyupbit", "cryptofeed", "upbit-sdk"}
    for client in clients():
        assert client.script.exists()
        assert all("==" in package or package == "setuptools<81" for package in client.packages)
