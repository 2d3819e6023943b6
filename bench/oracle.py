"""What consumers of the streams were told, held against the simulator's truth.

Listeners write down every event with the moment it came; the verdicts compare what they have with the world the
simulator shows: each trade once, or in a gap that says it is gone; each bar as the world has it; holes told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from functools import reduce
from typing import Any, TypeVar

import attrs
import trio

from marketpipe import Candle, CandleState, Client, Gap, Side, Timeframe, Trade
from marketpipe.core.timeframes import next_open
from marketpipe.sim.day import Bar, Deal
from marketpipe.sim.world import World

__all__ = ["Log", "Verdict", "listen", "verdict_on_bars", "verdict_on_trades"]

T = TypeVar("T")

# A frame comes some 130 ms after its trade, out of order by some 300 ms more; younger trades may still be on the way.
IN_FLIGHT_MS = 1_000
# A bar that ended so long ago is over by the pipeline's own standards: its grace, a check of the silence, a page of
# REST and that page again.
OVER_MS = 15_000
# The world counts prices and volumes in these, and turnover in their square; the exchange rounds a bar's to them.
UNIT = Decimal(100_000_000)


@attrs.define
class Log:
    """Every event of one subscription, with the moment (Trio's clock) at which it was received."""

    events: list[tuple[float, Any]] = attrs.field(factory=list)

    def of(self, kind: type[T]) -> list[tuple[float, T]]:
        """Those that are a ``kind``, with their moments."""
        return [(at_s, event) for at_s, event in self.events if isinstance(event, kind)]

    @property
    def gaps(self) -> list[tuple[float, Gap]]:
        """Every gap, with its moment."""
        return self.of(Gap)

    def noticed_s(self, since_s: float) -> float | None:
        """When the first hole after ``since_s`` was told."""
        return next((at_s for at_s, gap in self.gaps if at_s >= since_s), None)

    def recovered_s(self) -> float | None:
        """When the last hole was closed; None while one is open, or if there was none."""
        return None if self.holes() else max((at_s for at_s, _ in self.gaps), default=None)

    def holes(self) -> list[Gap]:
        """Those that were told and never closed."""
        holes: dict[tuple[str, int], Gap] = {}
        for _, gap in self.gaps:
            if gap.is_open:
                holes[gap.market, gap.start_ms] = gap
            else:
                holes.pop((gap.market, gap.start_ms), None)
        return list(holes.values())


@attrs.frozen
class Verdict:
    """What is wrong, how often, and in words. ``gaps``, ``unrepairable``: what was told, which is no wrong."""

    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    gaps: int = 0
    unrepairable: int = 0
    words: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether everything was told, once, as it is."""
        return not (self.lost or self.doubled or self.wrong)

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(*(getattr(self, name) + getattr(other, name) for name in attrs.fields_dict(Verdict)))

    @staticmethod
    def summed(verdicts: Iterable[Verdict]) -> Verdict:
        """All of them as one."""
        return reduce(Verdict.__add__, verdicts, Verdict())


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


def verdict_on_trades(log: Log, world: World, market: str, now_ms: int, *, since_ms: int | None = None) -> Verdict:
    """Each trade of ``market``, once, as it is: from the first that was told until a moment before ``now_ms``.

    A stream begins when it shows the trade before it. ``since_ms``: somebody has listened since then, and long enough
    for it to begin: if nothing at all was told, everything since then is lost.
    """
    told = [trade for _, trade in log.of(Trade) if trade.market == market]
    gaps = [gap for _, gap in log.gaps if gap.market == market]
    ends_ms = now_ms - IN_FLIGHT_MS
    if told:
        first = min(told, key=lambda trade: trade.sequential_id)
        deals = world.trades(market, first.trade_ms, now_ms + 1, now_ms)
        due = [deal for deal in deals if deal.sequential_id >= first.sequential_id and deal.at_ms < ends_ms]
    else:
        deals = due = [] if since_ms is None else world.trades(market, since_ms, ends_ms, now_ms)
    real = {deal.sequential_id: deal for deal in deals}
    counts = Counter(trade.sequential_id for trade in told)
    gone = [(gap.start_ms, gap.end_ms) for gap in gaps if not gap.is_open and not gap.repaired]
    lost = [deal.sequential_id for deal in due if deal.sequential_id not in counts and not _is_in(deal, gone)]
    doubled = [number for number, count in counts.items() if count > 1]
    wrong = [trade for trade in told if not _is_true_trade(trade, real.get(trade.sequential_id))]
    words = [f"{market}: {what} {len(ids)}: {ids[:3]}" for what, ids in (("lost", lost), ("doubled", doubled)) if ids]
    words += [f"{market}: not so in the world: {wrong[0]}"] if wrong else []
    return Verdict(len(lost), len(doubled), len(wrong), len(gaps), len(gone), tuple(words))


def _is_in(deal: Deal, spans: Iterable[tuple[int, int]]) -> bool:
    return any(start_ms <= deal.at_ms <= end_ms for start_ms, end_ms in spans)


def verdict_on_bars(log: Log, world: World, market: str, timeframe: Timeframe, now_ms: int) -> Verdict:
    """Every bar once as FINAL, again only with the next revision, its last state the world's; none missing or invented.

    The last two bars may still be on their way; what was told of them before they are over is not judged.
    """
    told = [bar for _, bar in log.of(Candle) if bar.market == market and bar.timeframe is timeframe]
    gaps = sum(gap.market == market for _, gap in log.gaps)
    newest, repeated = _newest(told)
    words = list(repeated)
    lost = wrong = 0
    first_ms = min(newest, default=now_ms)
    true = {bar.open_ms: bar for bar in world.candles(market, timeframe, first_ms, now_ms, now_ms)}
    for open_ms in sorted(true.keys() | newest.keys()):
        shown, bar = newest.get(open_ms), true.get(open_ms)
        is_over = next_open(timeframe, open_ms) + OVER_MS <= now_ms
        if shown is None:
            lost += is_over
            words += [f"{market} {open_ms}: missing"] if is_over else []
        elif bar is None:
            wrong += 1
            words.append(f"{market} {open_ms}: nothing was traded, and told was {shown}")
        elif shown.state is CandleState.FINAL or is_over:
            flaw = _flaw(shown, bar)
            wrong += bool(flaw)
            words += [f"{market} {open_ms}: {flaw}"] if flaw else []
    return Verdict(lost, len(repeated), wrong, gaps, 0, tuple(words))


def _newest(told: Iterable[Candle]) -> tuple[dict[int, Candle], list[str]]:
    """By opening the last that was told, and a line for each that should not have been told again."""
    newest: dict[int, Candle] = {}
    repeated: list[str] = []
    for bar in told:
        before = newest.get(bar.open_ms)
        is_over = before is not None and before.state is CandleState.FINAL
        if is_over and (bar.state is not CandleState.FINAL or bar.revision != before.revision + 1):
            repeated.append(f"{bar.market} {bar.open_ms}: {before} and then {bar}")
        newest[bar.open_ms] = bar
    return newest, repeated


def _flaw(shown: Candle, bar: Bar) -> str:
    if shown.state is not CandleState.FINAL:
        return "over, and not FINAL"
    ours = tuple(value * UNIT for value in (shown.open, shown.high, shown.low, shown.close, shown.volume))
    true = (bar.opening, bar.high, bar.low, bar.close, bar.volume)
    if abs(shown.quote_volume * UNIT * UNIT - bar.turnover) > UNIT / 2:
        return f"turnover {shown.quote_volume} is {bar.turnover}e-16"
    return "" if ours == true else f"{ours} is {true}"


def _is_true_trade(trade: Trade, deal: Deal | None) -> bool:
    if deal is None or (trade.side is Side.BUY) != deal.buy:
        return False
    return (trade.trade_ms, trade.price * UNIT, trade.volume * UNIT) == (deal.at_ms, deal.price, deal.volume)
