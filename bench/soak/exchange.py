"""The simulator of a long run, as a process: ``python -m bench.soak.exchange LIVELY SEED MARKETS`` and its options."""

from __future__ import annotations

import sys

from bench.soak.lively import enliven, warm_up
from marketpipe.sim import World
from marketpipe.sim.__main__ import main

if __name__ == "__main__":
    lively, seed, markets = (int(sys.argv.pop(1)) for _ in range(3))
    enliven(lively)
    warm_up(World(seed, markets))
    sys.exit(main())
