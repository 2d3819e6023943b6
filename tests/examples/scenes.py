"""Markets whose trades are written by hand, and the engine that listens to them: what it decides, as a list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import attrs
import trio
from rig import EPOCH_MS, Rig, open_rig

import marketpipe as mp
from marketpipe.examples.rules import Position, Thresholds
from marketpipe.examples.seven_rules import Engine, Order
from marketpipe.sim import Fault, ScriptedTrade

__all__ = ["CALM", "FALLING", "MARKET", "START_MS", "UNEASY", "Path", "Scene", "bought_at", "play"]

MARKET = "KRW-XRP"
# Second 0 of every scene: 2026-09-23T12:35Z, four seconds after the pipeline was opened.
START_MS = EPOCH_MS + 4_000
STAKE = Decimal(100_000)

# Prices by the second in which they are traded.
Path = Sequence[tuple[float, int]]
# The closes of the minutes before, the newest last.
CALM = [1000, 1002] * 110  # RSI near 50, and a fall of 45 in one minute makes it less than 20
UNEASY = [1010, 1000] * 110  # RSI near 50, whatever happens in these scenes
FALLING = list(range(1260, 1040, -1))  # RSI 0


def bought_at(price: int, second: float = -4) -> Position:
    """What is held, bought for one stake in that second."""
    return Position.opened(MARKET, Decimal(price), STAKE, START_MS + round(second * 1000))


@attrs.frozen(kw_only=True)
class Scene:
    """What is traded, and until when it is looked at. ``every_min``: only every so many minutes had a trade before."""

    path: Path
    history: Sequence[int] = UNEASY
    held: Position | None = None
    until_s: float
    every_min: int = 1
    halfway: bool = True

    def trades(self) -> Iterator[ScriptedTrade]:
        """The minutes before trade once, at their half; the last of them once more, just before second 0."""
        closes = list(self.history)
        for ago, close in enumerate(reversed(closes)):
            at_ms = START_MS - 30_000 - ago * self.every_min * 60_000
            yield ScriptedTrade(at_ms, Decimal(close))
        yield ScriptedTrade(START_MS - 1_000, Decimal(closes[-1]))
        before = closes[-1]
        for second, price in self.path:
            # A price is reached over one halfway, 5 ms before: where frames change places, it comes afterwards.
            at_ms = START_MS + round(second * 1000)
            if self.halfway:
                yield ScriptedTrade(at_ms - 5, Decimal((before + price) // 2), Decimal("0.5"), False)
            yield ScriptedTrade(at_ms, Decimal(price))
            before = price


Act = Callable[[Rig], Awaitable[None]]


async def play(
    scene: Scene,
    *,
    faults: Sequence[tuple[float, Fault]] = (),
    beside: Act | None = None,
    rules: Thresholds | None = None,
    **options: Any,
) -> list[Any]:
    """The journal of an engine that saw the scene: (second, side, price, rule), or why it fell silent.

    ``faults`` begin in their seconds, in this order, and each must strike something. ``options`` are the simulator's.
    """
    async with open_rig(streams=True, **options) as rig, trio.open_nursery() as nursery:
        rig.sim.script(MARKET, scene.trades())
        engine = Engine(rig.market, rules or Thresholds(), [scene.held] if scene.held else [])
        began_s = trio.current_time() + (START_MS - EPOCH_MS) / 1000
        nursery.start_soon(engine.run, [MARKET])
        if beside is not None:
            nursery.start_soon(beside, rig)
        for second, fault in faults:
            await trio.sleep_until(began_s + second)
            rig.sim.add_fault(fault)
        await trio.sleep_until(began_s + scene.until_s)
        struck = rig.sim.statistics().faults
        assert all(struck[fault.kind] for _, fault in faults), f"some faults have struck nothing: {struck}"
        nursery.cancel_scope.cancel(reason="the scene is over")
    return [_words(entry) for entry in engine.journal]


def _words(entry: Any) -> Any:
    if isinstance(entry, Order):
        assert entry.market == MARKET
        side = "buys" if entry.side is mp.Side.BUY else "sells"
        return ((entry.at_ms - START_MS) / 1000, side, int(entry.price), int(entry.rule))
    return entry.reason
