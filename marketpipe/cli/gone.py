"""What nobody can know any more: bars that the exchange keeps for a while, of which that while is over."""

from __future__ import annotations

from marketpipe.cli import figures
from marketpipe.cli.complaints import complain
from marketpipe.client import Client
from marketpipe.core import timeframes
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import StoreError

__all__ = ["FLEETING", "cannot_be_known", "gone"]

# All others are kept for ever: a page that ends proves that history began there, see `marketpipe.core.history`.
FLEETING = frozenset({Timeframe.S1})


async def gone(market: Client, symbol: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> SpanSet:
    """The slots in ``[start_ms, end_ms)`` that are not known and that the exchange keeps no more.

    To be asked after the bars: it is their reading that shows what is kept. Nothing is asked of the exchange. If the
    database cannot be read, that is said, and nothing is known of this either.
    """
    if timeframe not in FLEETING or start_ms >= end_ms:
        return SpanSet()
    found = []
    try:
        summary = await market.collection_summary(symbol, timeframe, start=start_ms, end=end_ms)
        for unknown_ms, until_ms in summary.unknown:
            told = await market.explain_candle(symbol, timeframe, start=unknown_ms, end=until_ms)
            # What may still be asked for is younger than what is gone.
            gone_ms = timeframes.shift(timeframe, told.start_ms, told.slots - told.slots_missing)
            found.append((told.start_ms, gone_ms))
    except StoreError as error:
        complain(error)
    return SpanSet.of(*found)


def cannot_be_known(market: str, timeframe: Timeframe, spans: SpanSet | int) -> str:
    """A line about slots that are gone: their spans, or how many."""
    slots = spans if isinstance(spans, int) else sum(timeframes.bars_between(timeframe, *span) for span in spans)
    return f"{market} {timeframe}: {figures.counted(slots, 'slot')} cannot be known: the exchange keeps them no more"
