"""What a chart needs: the newest bars, then every change of the running one, without a seam where they meet.

::

    python -m marketpipe.examples.chart_data [--sim] [SYMBOL] [--timeframe 1m] [--history 200] [--updates 20]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import attrs

import marketpipe as mp
from marketpipe.examples.exchange import add_options, open_exchange, run_example

__all__ = ["Chart", "main"]


@attrs.define
class Chart:
    """The newest ``width`` bars of one market by their open time, each as it was told last; the last one may run.

    ``holes`` are the stretches in which bars may be wrong at the moment: to be drawn shaded.
    """

    width: int
    bars: dict[int, mp.Candle] = attrs.field(factory=dict, init=False)
    holes: dict[int, mp.Gap] = attrs.field(factory=dict, init=False)

    def hear(self, event: mp.Candle | mp.Gap) -> None:
        """Draw what the stream tells. A bar that was corrected takes the place of the one that was shown."""
        if isinstance(event, mp.Candle):
            self.bars[event.open_ms] = event
            while len(self.bars) > self.width:
                del self.bars[min(self.bars)]
        elif event.repaired:
            self.holes.pop(event.start_ms, None)
        else:
            self.holes[event.start_ms] = event  # open, or for good


def _line(bar: mp.Candle) -> str:
    prices = "".join(f"{price.normalize():>16,f}" for price in (bar.open, bar.high, bar.low, bar.close))
    return f"{bar.open_time:%Y-%m-%d %H:%M:%S}{prices}  {bar.state.lower()}"


async def _run(words: argparse.Namespace) -> None:
    chart = Chart(words.history)
    async with (
        open_exchange(words) as market,
        market.stream_candle(words.symbol, words.timeframe, history=words.history) as events,
    ):
        updates = 0
        async for event in events:
            chart.hear(event)
            if isinstance(event, mp.Gap):
                print("mended" if event.repaired else f"a hole: {event.cause}")
            elif len(chart.bars) == words.history:  # the past is complete
                print(_line(event))
                updates += 1
            if updates >= words.updates:
                break
    print(f"{len(chart.bars)} bars, {len(chart.holes)} holes")


def main(args: Sequence[str] | None = None) -> None:
    """The command line; see above."""
    parser = add_options(argparse.ArgumentParser(prog="python -m marketpipe.examples.chart_data"))
    parser.add_argument("symbol", nargs="?", default="KRW-BTC")
    parser.add_argument("--timeframe", default="1m")
    parser.add_argument("--history", type=int, default=200)
    parser.add_argument("--updates", type=int, default=20)
    run_example(_run, parser.parse_args(args))


if __name__ == "__main__":
    main()
