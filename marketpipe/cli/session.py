"""One question from a command line: open a pipe, ask, show the answer, leave."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from marketpipe.cli.options import Target
from marketpipe.cli.rows import json_line, row
from marketpipe.cli.running import complain, run
from marketpipe.client import Client
from marketpipe.clock import SystemClock
from marketpipe.config import Config
from marketpipe.errors import MarketPipeError
from marketpipe.pipeline import open_pipeline

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Answer", "Question", "answer", "show"]

# What is piped as a table has no edge to fit into.
PIPED_WIDTH = 160


@attrs.frozen
class Answer:
    """``values``: one line of JSON each. ``table`` makes the same for people, given the time for the ages.

    ``failed``: what could not be answered, by symbol.
    """

    values: Sequence[Any]
    table: Callable[[int], RenderableType]
    failed: Mapping[str, MarketPipeError] = attrs.field(factory=dict)


Question = Callable[[Client], Awaitable[Answer]]


def answer(target: Target, question: Question) -> NoReturn:
    """Ask ``question`` of ``target``, show what came, and leave: with exit code 1 if any part of it failed."""

    async def command() -> int:
        async with _open_market(target) as market:
            answered = await question(market)
            _print(answered, as_json=target.as_json)
        for symbol, error in answered.failed.items():
            complain(error, about=symbol)
        return 1 if answered.failed else 0

    run(command)


def show(table: RenderableType) -> None:
    """Print a table on stdout, as wide as the terminal, or as a pipe needs it."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would leave the program from here, through every open block; it is for `running` to say

    _Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False).print(table)


@asynccontextmanager
async def _open_market(target: Target) -> AsyncGenerator[Client]:
    if not target.sim:
        config = Config(base_url=target.base_url, region=target.region or "kr")
        async with open_pipeline(config) as market:
            yield market
        return
    from marketpipe.sim import spawn_simulator

    async with spawn_simulator() as simulator, open_pipeline(base_url=simulator.base_url) as market:
        yield market


def _print(answered: Answer, *, as_json: bool) -> None:
    now_ms = SystemClock().now_ms()
    if not as_json:
        show(answered.table(now_ms))
        return
    for value in answered.values:
        print(json_line(row(value, now_ms)))
    sys.stdout.flush()
