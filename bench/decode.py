"""Bytes to values: what an answer costs to read, beside the standard library's exact reading of the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from urllib.parse import parse_qsl

from bench.figures import Figure, Goal, Outcome, ratio_below
from bench.scale import Scale
from bench.timing import MICRO, Spin, quiet, seconds_per_call
from marketpipe.clock import SystemClock
from marketpipe.core.requests import CandlesRequest, OrderbooksRequest, Request, TickersRequest, TradesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.sim import World
from marketpipe.sim.quotation import answer
from marketpipe.upbit import wire

__all__ = ["decode"]

BASELINE = "json.loads(parse_float=Decimal)"
BOOKS = 200
CANDLES = 200
TRADES = 500
# Long enough to be measured by itself, whatever the scale.
LOOPS = 5


async def decode(scale: Scale) -> Outcome:
    """Reading answers as the exchange spells them: tickers, books, candles, trades."""
    now_ms = SystemClock().now_ms()
    world = World(markets=scale.markets)
    names = world.listed(now_ms)
    tickers, books = tuple(names[: scale.distinct]), tuple(names[:BOOKS])
    candles = CandlesRequest("KRW-BTC", Timeframe.M1, CANDLES, now_ms)
    figures = [
        _figure("ticker", TickersRequest(tickers), world, now_ms, scale, goal=ratio_below(1)),
        _figure("order book of 30 levels", OrderbooksRequest(books), world, now_ms, scale),
        _figure("candle", candles, world, now_ms, scale),
        _figure("trade", TradesRequest("KRW-BTC", TRADES), world, now_ms, scale),
    ]
    return Outcome(figures)


def _figure(row: str, request: Request, world: World, now_ms: int, scale: Scale, *, goal: Goal | None = None) -> Figure:
    body = _body(request, world, now_ms)
    count = len(json.loads(body))

    def ours() -> object:
        return wire.decode(request, body, received_ms=now_ms, exchange_ms=now_ms)

    def theirs() -> object:
        return json.loads(body, parse_float=Decimal)

    quiet()
    mine, baseline = seconds_per_call(scale.turns, LOOPS, _spinning(ours), _spinning(theirs))
    return Figure(
        what=f"decode, each {row} of {count}",
        unit="us each",
        samples=[taken * MICRO / count for taken in mine],
        baseline=BASELINE,
        baseline_samples=[taken * MICRO / count for taken in baseline],
        goal=goal,
    )


def _body(request: Request, world: World, now_ms: int) -> bytes:
    path, _, query = wire.encode(request).partition("?")
    told = answer(world, path, parse_qsl(query), now_ms)
    if told.status != 200:
        raise RuntimeError(f"the simulator answered {told.status} to {path}")
    return told.body


def _spinning(call: Callable[[], object]) -> Spin:
    def spin(loops: int) -> None:
        for _ in range(loops):
            call()

    return spin
