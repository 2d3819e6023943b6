"""What consumers of the streams were told, held against the simulator's truth.

Listeners write down every event with the moment it came; the verdicts compare what they have with the world the
simulator shows: each trade once, or in a gap that says it is gone; each bar as the world has it; holes told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import attrs
import trio

from marketpipe import Candle, CandleState, Client, Gap, Timeframe, Trade
from marketpipe.sim.world import World

__all__ = ["Log", "Verdict", "listen", "verdict_on_bars", "verdict_on_trades"]

# A frame comes some 130 ms after its trade, out of order by some 300 ms more; younger trades may still be on the way.
IN_FLIGHT_MS = 1_000
UNIT = 100_000_000


@attrs.define
class Log:
    """Every event of one subscription, with the moment (Trio's clock) at which it was received."""

    events: list[tuple[float, Any]] = attrs.field(factory=list)

    def of(self, kind: type[Any]) -> list[tuple[float, Any]]:
        return [(at_s, event) for at_s, event in self.events if isinstance(event, kind)]

    @property
    def gaps(self) -> list[tuple[float, Gap]]:
        return self.of(Gap)

    def noticed_s(self, since_s: float) -> float | None:
        """When the first hole after ``since_s`` was told."""
        return next((at_s for at_s, gap in self.gaps if at_s >= since_s), None)

    def recovered_s(self) -> float | None:
        """When the last hole was closed; None while one is open."""
        open_holes = {(gap.market, gap.start_ms) for _, gap in self.gaps if gap.is_open}
        closed = {(gap.market, gap.start_ms) for _, gap in self.gaps if not gap.is_open}
        return None if open_holes - closed else max((at_s for at_s, _ in self.gaps), default=None)


@attrs.frozen
class Verdict:
    """What is wrong, in words, and how often."""

    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    gaps: int = 0
    unrepairable: int = 0
    words: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


async def listen(
    client: Client,
    kind: str,
    symbols: Iterable[str],
    log: Log,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """Write down what ``stream_<kind>`` tells, until cancelled."""
    async with getattr(client, f"stream_{kind}")(symbols, **options) as subscription:
        task_status.started()
        async for event in subscription:
            log.events.append((trio.current_time(), event))


def verdict_on_trades(log: Log, world: World, market: str, now_ms: int) -> Verdict:
    """Each trade of ``market`` from the first that was told until a moment before ``now_ms``: once, in no wrong place."""
    told = [event for _, event in log.of(Trade) if event.market == market]
    gaps = [event for _, event in log.gaps if event.market == market]
    if not told:
        return Verdict(gaps=len(gaps))
    counts = Counter(trade.sequential_id for trade in told)
    gone = [(gap.start_ms, gap.end_ms) for gap in gaps if not gap.is_open and not gap.repaired]
    truth = world.trades(market, told[0].trade_ms, now_ms - IN_FLIGHT_MS, now_ms)
    due = {deal.sequential_id for deal in truth if deal.sequential_id >= told[0].sequential_id}
    real = {deal.sequential_id: deal for deal in world.trades(market, told[0].trade_ms, now_ms + 1, now_ms)}
    lost = [i for i in due if i not in counts and not any(a <= real[i].at_ms <= b for a, b in gone)]
    doubled = [i for i, count in counts.items() if count > 1]
    wrong = [trade for trade in told if not _is_true(trade, real.get(trade.sequential_id))]
    words = [f"{market}: {what} {len(ids)}: {ids[:3]}" for what, ids in (("lost", lost), ("doubled", doubled)) if ids]
    words += [f"{market}: not so in the world: {wrong[0]}"] if wrong else []
    unrepairable = sum(not gap.is_open and not gap.repaired for gap in gaps)
    return Verdict(len(lost), len(doubled), len(wrong), len(gaps), unrepairable, tuple(words))


def verdict_on_bars(log: Log, world: World, market: str, timeframe: Timeframe, now_ms: int) -> Verdict:
    """Every FINAL bar once, revisions growing, the last told state of each equal to the world's, none missing."""
    told = [e for _, e in log.of(Candle) if e.market == market and e.timeframe is timeframe]
    gaps = [event for _, event in log.gaps if event.market == market]
    newest: dict[int, Candle] = {}
    words: list[str] = []
    doubled = 0
    for candle in told:
        before = newest.get(candle.open_ms)
        if before is not None and before.state is CandleState.FINAL and candle.revision != before.revision + 1:
            doubled += 1
            words.append(f"{market} {candle.open_ms}: {before} and then {candle}")
        newest[candle.open_ms] = candle
    lost = wrong = 0
    if told:
        first_ms = min(newest)
        for bar in world.candles(market, timeframe, first_ms, now_ms, now_ms):
            shown = newest.get(bar.open_ms)
            if shown is None:
                lost += _is_over(bar.open_ms, timeframe, now_ms)
                words += [f"{market} {bar.open_ms}: missing"] if _is_over(bar.open_ms, timeframe, now_ms) else []
            elif shown.state is CandleState.FINAL and _numbers(shown) != _truth(bar):
                wrong += 1
                words.append(f"{market} {bar.open_ms}: {_numbers(shown)} is {_truth(bar)}")
            elif shown.state is not CandleState.FINAL and _is_over(bar.open_ms, timeframe, now_ms):
                wrong += 1
                words.append(f"{market} {bar.open_ms}: not FINAL")
    return Verdict(lost, doubled, wrong, len(gaps), 0, tuple(words))


def _is_over(open_ms: int, timeframe: Timeframe, now_ms: int) -> bool:
    # What ended long ago, by the pipeline's own standards: grace, a check of the silence, a page read again.
    from marketpipe.core import timeframes

    return timeframes.next_open(timeframe, open_ms) + 15_000 <= now_ms


def _is_true(trade: Trade, deal: Any) -> bool:
    if deal is None:
        return False
    return (trade.trade_ms, trade.price * UNIT, trade.volume * UNIT) == (deal.at_ms, deal.price, deal.volume)


def _numbers(candle: Candle) -> tuple[Any, ...]:
    return tuple(value * UNIT for value in (candle.open, candle.high, candle.low, candle.close, candle.volume))


def _truth(bar: Any) -> tuple[int, ...]:
    return (bar.opening, bar.high, bar.low, bar.close, bar.volume)
