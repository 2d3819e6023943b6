"""What the simulator's market really was, to compare with what a client says it saw.

The market is worked out anew from its seed. It moves while a client asks: an answer is right if it is that of one
moment between question and answer, and a frame if it is one that was due. A float is right if it is the float of the
same decimal; everything else must be the same exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any

import attrs

from marketpipe.core.timeframes import Timeframe, next_open
from marketpipe.sim import World, quotation
from marketpipe.sim.streams import Streams, Wanted

__all__ = ["Finding", "compare", "values_in"]

TIMEFRAMES = {
    "seconds": Timeframe.S1,
    "minutes/1": Timeframe.M1,
    "minutes/15": Timeframe.M15,
    "minutes/60": Timeframe.H1,
    "minutes/240": Timeframe.H4,
    "days": Timeframe.D1,
    "weeks": Timeframe.W1,
    "months": Timeframe.MONTH,
    "years": Timeframe.Y1,
}
# How long before a subscription a frame may have been sent that a client still hears, and after it the first ones come.
BEFORE_MS, FIRST_MS = 3_000, 3_000
# When it listens for certain: so long after it asked, and so long before it left.
SETTLED_MS, LAST_MS = 3_000, 1_500
Line = Mapping[str, Any]


@attrs.frozen
class Finding:
    """A ``field`` that is not what it was; ``text`` says how."""

    field: str
    text: str


def compare(world: World, line: Line) -> list[Finding]:
    """What is wrong with what a client saw; nothing, if all of it is right."""
    return _KINDS[line["what"]](world, line)


def values_in(saw: Any) -> int:
    """How many single values there are in ``saw``."""
    if isinstance(saw, Mapping):
        return sum(map(values_in, saw.values()))
    return sum(map(values_in, saw)) if isinstance(saw, list) else 1


def _same(true: Any, seen: Any) -> bool:
    if isinstance(seen, Mapping):
        return isinstance(true, Mapping) and all(name in true and _same(true[name], seen[name]) for name in seen)
    if isinstance(seen, list):
        return isinstance(true, list) and len(true) == len(seen) and all(map(_same, true, seen))
    if seen is None or isinstance(seen, bool) or not isinstance(true, Decimal | int):
        return bool(type(true) is type(seen) and true == seen)
    if isinstance(seen, float):
        return float(true) == seen
    try:
        return Decimal(seen) == true
    except InvalidOperation:
        return False


def _differences(true: Mapping[str, Any], seen: Mapping[str, Any]) -> list[Finding]:
    return [
        Finding(name, f"{name} is {str(value)[:60]}, was {str(true.get(name, 'no such field'))[:60]}")
        for name, value in seen.items()
        if name not in true or not _same(true[name], value)
    ]


def _row_differences(true: Sequence[Mapping[str, Any]], seen: Sequence[Mapping[str, Any]]) -> list[Finding]:
    if len(true) != len(seen):
        return [Finding("rows", f"{len(seen)} rows, there were {len(true)}")]
    each = [_differences(*pair) for pair in zip(true, seen, strict=True)]
    # One of a kind is enough.
    return list({finding.field: finding for findings in each for finding in findings}.values())


def _least(candidates: Iterable[list[Finding]]) -> list[Finding]:
    best: list[Finding] | None = None
    for findings in candidates:
        if best is None or len(findings) < len(best):
            best = findings
        if not best:
            break
    return best if best is not None else [Finding("moment", "it was answered before it was asked")]


def _moments(line: Line) -> Iterator[int]:
    """Likely ones first."""
    asked_ms, got_ms = line["asked_ms"], line["got_ms"]
    yield from range(got_ms, asked_ms - 1, -1)


def _asked(world: World, path: str, query: Mapping[str, object], now_ms: int) -> list[dict[str, Any]]:
    pairs = [(name, str(value)) for name, value in query.items()]
    told = quotation.answer(world, f"/v1/{path}", pairs, now_ms)
    rows: list[dict[str, Any]] = json.loads(told.body, parse_float=Decimal)
    return rows


def _markets(world: World, line: Line) -> list[Finding]:
    true = world.listed(line["asked_ms"])
    return [] if sorted(line["saw"]) == sorted(true) else [Finding("markets", f"{len(line['saw'])} of {len(true)}")]


def _market_rows(world: World, line: Line) -> list[Finding]:
    return _row_differences(_asked(world, "market/all", {"is_details": "true"}, line["asked_ms"]), line["saw"])


def _instruments(world: World, line: Line) -> list[Finding]:
    query = {"markets": line["market"]}
    return _least(
        _row_differences(_asked(world, "orderbook/instruments", query, now_ms), line["saw"])
        for now_ms in _moments(line)
    )


def _ticker(world: World, line: Line) -> list[Finding]:
    query = {"markets": line["market"]}
    return _least(_differences(_asked(world, "ticker", query, now_ms)[0], line["saw"]) for now_ms in _moments(line))


def _orderbook(world: World, line: Line) -> list[Finding]:
    query = {"markets": line["market"]}
    books = (_sided(_asked(world, "orderbook", query, now_ms)[0], 30) for now_ms in _moments(line))
    return _least(_differences(book, line["saw"]) for book in books)


def _sided(book: dict[str, Any], depth: int) -> dict[str, Any]:
    """With each side apart and without what is padded, as most clients have it."""
    for side in ("ask", "bid"):
        levels = [[unit[f"{side}_price"], unit[f"{side}_size"]] for unit in book["orderbook_units"]]
        book[f"{side}s"] = [level for level in levels if level[1]][:depth]
    return book


def _trades(world: World, line: Line) -> list[Finding]:
    query = {"market": line["market"], "count": line["count"]}
    return _least(
        _row_differences(_asked(world, "trades/ticks", query, now_ms), line["saw"]) for now_ms in _moments(line)
    )


def _candles(world: World, line: Line) -> list[Finding]:
    timeframe, code, until_ms = TIMEFRAMES[line["kind"]], line["market"], line["until_ms"]

    def true(now_ms: int) -> list[dict[str, Any]]:
        from_ms = line.get("from_ms")
        if from_ms is None:
            bars = world.newest_candles(code, timeframe, until_ms, line["count"], now_ms)
            from_ms = bars[-1].open_ms if bars else until_ms
        rows = json.loads(
            quotation.truth_candles(world, code, timeframe, from_ms, until_ms, now_ms), parse_float=Decimal
        )
        return [{**row, "open_ms": _open_ms(row)} for row in rows]

    # Some clients do not cut a page off where it was asked to begin.
    saw = [row for row in line["saw"] if row["open_ms"] >= line.get("from_ms", 0)]
    early = (
        [Finding("early", f"{len(line['saw']) - len(saw)} bars from before the start")] if saw != line["saw"] else []
    )
    newest = true(line["got_ms"])
    closed = not newest or next_open(timeframe, newest[-1]["open_ms"]) <= line["asked_ms"]
    if closed:
        return early + _row_differences(newest, saw)
    return early + _least(_row_differences(true(now_ms), saw) for now_ms in _moments(line))


def _open_ms(row: Mapping[str, Any]) -> int:
    return int(datetime.fromisoformat(row["candle_date_time_utc"]).replace(tzinfo=UTC).timestamp()) * 1000


def _frames(world: World, line: Line) -> list[Finding]:
    sent, shown = _sent(world, line), _shown(world, line)
    places: list[int] = []
    findings: list[Finding] = []
    for seen in line["saw"]:
        place = next((place for place, (_, frame) in enumerate(sent) if not _differences(frame, seen)), None)
        if place is not None:
            places.append(place)
        elif all(_differences(frame, seen) for frame in shown):
            findings += _least(_differences(frame, seen) for frame in chain((frame for _, frame in sent), shown))
    if line["whole"] and not findings:
        heard = [*places, *_surely(line, sent)]
        missed = set(range(min(heard, default=0), max(heard, default=-1) + 1)) - set(places)
        if missed:
            findings.append(Finding("missing", f"{len(missed)} of {max(heard) - min(heard) + 1} frames were missed"))
        if len(places) != len(set(places)):
            findings.append(Finding("twice", f"{len(places) - len(set(places))} frames came twice"))
    return list({finding.field: finding for finding in findings}.values())


def _surely(line: Line, sent: Sequence[tuple[int, Any]]) -> list[int]:
    """The places of frames that were sent when the client was listening for certain."""
    start_ms, end_ms = line["asked_ms"] + SETTLED_MS, line["got_ms"] - LAST_MS
    return [place for place, (at_ms, _) in enumerate(sent) if start_ms <= at_ms <= end_ms]


def _trade_times(world: World, line: Line) -> list[Finding]:
    """An id begins with the millisecond of its trade (upbit-api.md 6)."""
    true = [{**row, "trade_timestamp": row["sequential_id"] // 10_000} for row in line["saw"]]
    return _row_differences(true, line["saw"])


def _sent(world: World, line: Line) -> list[tuple[int, dict[str, Any]]]:
    """Every frame that was due around that time, with when."""
    wanted = Wanted(line["stream"], (line["market"],), only_realtime=True)
    subscription = Streams(world).open([wanted], line["asked_ms"] - BEFORE_MS)
    due = subscription.take(line["got_ms"])
    return [(message.at_ms, _read(line, message.encode("DEFAULT"))) for message in due]


def _shown(world: World, line: Line) -> list[dict[str, Any]]:
    wanted = Wanted(line["stream"], (line["market"],), only_snapshot=True)
    streams = Streams(world)
    bodies: dict[bytes, None] = {}
    for at_ms in range(line["asked_ms"], line["asked_ms"] + FIRST_MS):
        bodies |= dict.fromkeys(each.encode("DEFAULT") for each in streams.open([wanted], at_ms).snapshots(at_ms))
    return [_read(line, body) for body in bodies]


def _read(line: Line, body: bytes) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(body, parse_float=Decimal)
    return _sided(frame, line.get("depth", 30)) if line["stream"] == "orderbook" else frame


def _subscriptions(world: World, line: Line) -> list[Finding]:
    (row,) = line["saw"]
    return _differences({"type": line["market"], "codes": row["codes"], "level": None}, row)


def _refusal(world: World, line: Line) -> list[Finding]:
    expected, saw = line["saw"]["expected"], line["saw"]["saw"]
    return [] if saw == expected else [Finding(expected, f"{saw} instead of {expected}: {line['saw']['message'][:80]}")]


def _schema(world: World, line: Line) -> list[Finding]:
    return _differences({line["market"]: "valid"}, line["saw"])


_KINDS: dict[str, Callable[[World, Line], list[Finding]]] = {
    "markets": _markets,
    "market rows": _market_rows,
    "instruments": _instruments,
    "ticker": _ticker,
    "orderbook": _orderbook,
    "trades": _trades,
    "candles": _candles,
    "frames": _frames,
    "trade time": _trade_times,
    "subscriptions": _subscriptions,
    "refusal": _refusal,
    "schema": _schema,
}
