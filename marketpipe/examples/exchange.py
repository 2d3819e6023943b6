"""What the examples share: which exchange they ask."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import marketpipe as mp

__all__ = ["add_options", "open_exchange"]


def add_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The words that say which exchange is meant; without one it is Upbit Korea."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--sim", action="store_true", help="a simulated exchange, started for this")
    where.add_argument("--base-url", metavar="URL", help="another exchange, such as that of `marketpipe sim`")
    return parser


@asynccontextmanager
async def open_exchange(words: argparse.Namespace) -> AsyncIterator[mp.Client]:
    """A pipeline to the exchange that is meant."""
    if words.sim:
        from marketpipe.sim import spawn_simulator

        async with spawn_simulator(latency_s=0.02) as sim, mp.open_pipeline(base_url=sim.base_url) as market:
            yield market
    else:
        async with mp.open_pipeline(base_url=words.base_url) as market:
            yield market
