"""Runs a command on Trio, and turns every way it can end into an exit code.

A failure is one line on stderr, see `complaints`.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

import trio

from marketpipe.cli import NOBODY_READS
from marketpipe.cli.complaints import TOLD, complain
from marketpipe.cli.letters import PlainFormatter

__all__ = ["run", "start_logging"]

logger = logging.getLogger("marketpipe.cli")


def run(command: Callable[[], Awaitable[int]]) -> NoReturn:
    """Run ``command`` until it ends or a signal comes, and leave with its exit code, or 128 + the signal's number."""
    sys.exit(trio.run(_until_signal, command))


def start_logging(*, verbose: bool) -> None:
    """Show the library's log on stderr, or keep it quiet: by itself, logging prints warnings of whoever is mute."""
    handler = logging.StreamHandler() if verbose else logging.NullHandler()
    handler.setFormatter(PlainFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    log = logging.getLogger("marketpipe")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)


async def _until_signal(command: Callable[[], Awaitable[int]]) -> int:
    caught: list[int] = []
    code = 1
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_leave_on_signal, signals, caught, nursery.cancel_scope, name="signals")
            code = await _told(command)
            nursery.cancel_scope.cancel(reason="the command is done")
    return 128 + caught[0] if caught else code


async def _leave_on_signal(signals: AsyncIterator[int], caught: list[int], scope: trio.CancelScope) -> None:
    caught.append(await anext(signals))
    # Whoever presses Ctrl-C twice means it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    scope.cancel(reason="a signal asked to leave")


async def _told(command: Callable[[], Awaitable[int]]) -> int:
    code = 1
    try:
        code = await command()
    except* BrokenPipeError:
        code = NOBODY_READS  # main() flushes once more and finds the same
    except* TOLD as failures:
        complain(failures)
        logger.debug("the traceback of that", exc_info=failures, extra={"event": "traceback"})
    return code
