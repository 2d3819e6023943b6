"""Other clients on the same simulator, each in a process of its own, and marketpipe in the same way beside them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

import marketpipe
from bench.figures import Figure, Outcome
from bench.ground import Ground, open_ground
from bench.scale import Scale
from bench.timing import MICRO

__all__ = ["OURS", "rivals", "run_client"]

OURS = "marketpipe"
RIVALS = ("ccxt", "pyupbit")
# ccxt paces one-symbol calls at ten a second: 250 of them take it 25 s.
PATIENCE_S = 45.0


async def rivals(scale: Scale) -> Outcome:
    """ccxt and pyupbit, where they are installed: independent one-symbol callers, and one call for many symbols."""
    installed = [name for name in RIVALS if importlib.util.find_spec(name) is not None]
    # Nobody is blocked for being refused: the exchange would, and then nothing at all would come any more.
    async with open_ground(markets=scale.markets, ban_after=None) as ground:
        tasks = {"callers": scale.rival_callers, "batch": scale.rival_batch}
        parts = [await _compare(ground, task, count, installed) for task, count in tasks.items()]
    return Outcome.joined(parts)


async def _compare(ground: Ground, task: str, count: int, installed: Sequence[str]) -> Outcome:
    ours, broken = await _figures(ground, OURS, task, count, ours=None)
    figures = list(ours)
    for rival in installed:
        theirs, _ = await _figures(ground, rival, task, count, ours=ours[0])
        figures += theirs
    return Outcome(figures, broken)


async def _figures(
    ground: Ground, client: str, task: str, count: int, ours: Figure | None
) -> tuple[list[Figure], list[str]]:
    names = ground.names()[:count]
    asked_ms = ground.clock.now_ms()
    told = await run_client(client, task, ground.base_url, names)
    received_ms = ground.clock.now_ms()
    account = await ground.settle()
    wrong = _wrong_prices(ground, told["prices"], asked_ms, received_ms)
    what = f"{client}, {'one call for' if task == 'batch' else 'callers of'} {count} symbols"
    elapsed_s = max(told["elapsed_s"], 1 / MICRO)
    figures = [
        Figure(what=what, unit="symbols/s", samples=[len(told["prices"]) / elapsed_s],
               baseline=OURS if ours else "", baseline_samples=ours.samples if ours else ()),
        Figure(what=f"{what}: not answered", unit="symbols", samples=[count - len(told["prices"])]),
        Figure(what=f"{what}: refused", unit="requests", samples=[account.refused]),
        Figure(what=f"{what}: wrong prices", unit="symbols", samples=[len(wrong)]),
    ]  # fmt: skip
    broken = account.broken(what) + wrong + [f"{what}: {error}" for error in told["errors"]]
    return figures, broken


async def run_client(client: str, task: str, base_url: str, names: Sequence[str]) -> Mapping[str, Any]:
    """What `bench.rival` tells of one client, run in a process of its own."""
    root = str(Path(marketpipe.__file__).parents[1])
    command = [sys.executable, "-m", "bench.rival", client, task, base_url]
    environment = {**os.environ, "PYTHONPATH": root, "NO_PROXY": "*", "no_proxy": "*"}
    with trio.move_on_after(PATIENCE_S):
        done = await trio.run_process(command, stdin=json.dumps(names).encode(), capture_stdout=True,
                                      stderr=subprocess.DEVNULL, env=environment, check=False)  # fmt: skip
        if done.returncode == 0:
            told: Mapping[str, Any] = json.loads(done.stdout)
            return told
        return _nothing(f"ended with {done.returncode}")
    return _nothing(f"had not ended after {PATIENCE_S:.0f} s")


def _nothing(why: str) -> Mapping[str, Any]:
    return {"elapsed_s": PATIENCE_S, "prices": {}, "errors": [why]}


def _wrong_prices(ground: Ground, prices: Mapping[str, float], asked_ms: int, received_ms: int) -> list[str]:
    """A price must have been the last one at some moment between question and answer; floats are compared as floats."""
    return [
        f"{name}: no price of that time is {price}"
        for name, price in prices.items()
        if price not in _prices(ground, name, asked_ms, received_ms)
    ]


def _prices(ground: Ground, name: str, asked_ms: int, received_ms: int) -> set[float]:
    world = ground.world
    meanwhile = world.trades(name, asked_ms, received_ms + 1, received_ms)
    units = {world.ticker(name, asked_ms).last.price, *(deal.price for deal in meanwhile)}
    return {unit / 1e8 for unit in units}
