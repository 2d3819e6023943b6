"""A collection that is killed over and over: what it loses by that, and what it asks for again.

Killed is meant as the system means it (SIGKILL): at a random instant, without a word. What the database had
acknowledged by then must be in it and must never be asked for again. What was on its way when the process died can only
be asked for again: at the exchange's limit that is a page now and then, without a limit it is whatever was in flight.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

from bench.collecting import child_environment, folder
from bench.collector import PAGE, UNLIMITED
from bench.doomed import ASKED, DONE, READY, STORED, Doom
from bench.figures import Figure, Goal, Outcome, at_most
from bench.ground import Ground, open_ground
from bench.ledger import MINUTE_MS, Held, held_against_truth, proven_spans, rows_in
from bench.scale import Scale
from marketpipe.core.spans import SpanSet
from marketpipe.store.sqlite import SqliteStore

__all__ = ["Account", "Pace", "kills", "proven_again", "read_log", "survive"]

SYMBOL = "KRW-BTC"
DAY_MS = 86_400_000
MARKETS = 20
SEED = 4
START_S, LIFE_S = 60.0, 300.0
# How long a life is before anything is known about it: what it takes to open the database and to ask.
FIRST_S = 0.1


@attrs.frozen(kw_only=True)
class Pace:
    """How fast it is collected, and how many pages may be asked twice for each time it is killed."""

    name: str
    per_second: int
    pages_at_once: int
    goal: Goal | None = None


# Requests of the exchange's pace come ten at once and rest for the second, or one by one; so few are under way.
PACES = (
    Pace(name="10 requests/s", per_second=10, pages_at_once=20, goal=at_most(1)),
    Pace(name="no limit, 20 in flight", per_second=UNLIMITED, pages_at_once=20),
)


@attrs.frozen
class Account:
    """What became of a collection that was killed ``kills`` times.

    ``held``: the database beside the truth, at the end. ``unkept``: acknowledged bars that were not there after a
    death. ``asked``: pages by the exchange's count, of which ``needed`` were enough; ``proven_again``: those that were
    asked for although all they could show was stored already. ``flaws``: what the database finds wrong with itself.
    """

    kills: int
    held: Held
    unkept: int
    asked: int
    needed: int
    proven_again: int
    flaws: tuple[str, ...]

    @property
    def asked_twice(self) -> int:
        """Pages beyond those that it takes."""
        return self.asked - self.needed

    def broken(self, what: str, in_flight: int) -> list[str]:
        """One line for each broken promise."""
        lines = self.held.broken(what) + [f"{what}: {flaw}" for flaw in self.flaws]
        if self.unkept:
            lines.append(f"{what}: {self.unkept} bars that were acknowledged were not there after a kill")
        if self.proven_again:
            lines.append(f"{what}: {self.proven_again} pages were asked for that were stored already")
        if self.asked_twice > in_flight * self.kills:
            lines.append(f"{what}: {self.asked_twice} pages were asked twice, {in_flight} at once, {self.kills} kills")
        return lines


async def kills(scale: Scale) -> Outcome:
    """kill -9 at random instants during a backfill: rows lost and doubled, pages asked twice."""
    size = scale.collecting
    parts = []
    async with open_ground(markets=MARKETS, limit=UNLIMITED) as ground:
        for pace in PACES:
            account = await survive(ground, pace, size.kills, size.kills * size.pages_per_kill)
            parts.append(_outcome(f"{account.held.bars:,} bars, {pace.name}", account, pace))
    return Outcome.joined(parts)


def _outcome(what: str, account: Account, pace: Pace) -> Outcome:
    what = f"{what}, killed {account.kills} times"
    figures = [
        Figure(what=f"{what}: rows lost", unit="rows", samples=[account.held.lost], goal=at_most(0)),
        Figure(what=f"{what}: rows doubled", unit="rows", samples=[account.held.doubled], goal=at_most(0)),
        Figure(what=f"{what}: rows wrong", unit="rows", samples=[account.held.wrong], goal=at_most(0)),
        Figure(what=f"{what}: rows acknowledged, and gone after a kill", unit="rows", samples=[account.unkept],
               goal=at_most(0)),
        Figure(what=f"{what}: stored pages asked again", unit="pages", samples=[account.proven_again],
               goal=at_most(0)),
        Figure(what=f"{what}: pages asked twice, for each kill", unit="pages",
               samples=[account.asked_twice / max(1, account.kills)], goal=pace.goal),
    ]  # fmt: skip
    return Outcome(figures, account.broken(what, pace.pages_at_once))


async def survive(ground: Ground, pace: Pace, times: int, pages: int, seed: int = SEED) -> Account:
    """Collect ``pages`` full pages, killed ``times`` times on the way, and then to the end.

    Another stretch of so many pages is begun if the first is whole too soon.
    """
    dice, end_ms = random.Random(seed), ground.clock.now_ms() // DAY_MS * DAY_MS
    with folder() as home:
        doom = Doom(base_url=ground.base_url, path=str(home / "bars.db"), log=str(home / "log"), market=SYMBOL,
                    start_ms=end_ms - pages * PAGE * MINUTE_MS, end_ms=end_ms, per_second=pace.per_second,
                    pages_at_once=pace.pages_at_once)  # fmt: skip
        await ground.settle()
        killed = lives = unkept = 0
        while killed < times:
            left = _pages_left(doom)
            if not left:
                doom = attrs.evolve(doom, start_ms=doom.start_ms - pages * PAGE * MINUTE_MS)
                left = pages
            mean_s = FIRST_S + left / (times - killed) / _pages_per_s(pace)
            killed += await _lived(doom, dice.uniform(0, 2 * mean_s))
            lives += 1
            unkept += await trio.to_thread.run_sync(_unkept, doom, home / "copy")
        await _lived(doom, None)
        asked = (await ground.settle()).requests("candles")
        flaws = await trio.to_thread.run_sync(_flaws, doom)
        span = doom.start_ms, doom.end_ms
        held = await trio.to_thread.run_sync(held_against_truth, ground.world, Path(doom.path), SYMBOL, *span)
        needed = (span[1] - span[0]) // (PAGE * MINUTE_MS)
        return Account(killed, held, unkept, asked, needed, proven_again(read_log(Path(doom.log))), flaws)


def _pages_per_s(pace: Pace) -> float:
    # What a process of its own on a busy machine gets through; a guess, only about when to kill.
    return min(pace.per_second, 150.0)


async def _lived(doom: Doom, for_s: float | None) -> bool:
    """Let it run for so long and kill it, or with None to its end; whether it was killed."""
    process = await trio.lowlevel.open_process([sys.executable, "-m", "bench.doomed"], stdin=subprocess.PIPE,
                                               stdout=subprocess.PIPE, env=child_environment())  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    said = b""
    try:
        await process.stdin.send_all(json.dumps(attrs.asdict(doom)).encode() + b"\n")
        with trio.fail_after(START_S):
            while not said.startswith(READY.encode()):
                said += await _more(process)
        with trio.move_on_after(LIFE_S if for_s is None else for_s):
            await process.wait()
        killed = process.returncode is None
        if killed and for_s is None:
            raise RuntimeError(f"a backfill of {doom.market} has not ended within {LIFE_S:g} s")
        if not killed:
            said += await _more(process)
            if DONE.encode() not in said:
                raise RuntimeError(f"a backfill ended by itself, with {process.returncode}, and said {said!r}")
        return killed
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()


async def _more(process: trio.Process) -> bytes:
    assert process.stdout is not None
    data = await process.stdout.receive_some()
    if not data:
        raise RuntimeError(f"a backfill ended with {process.returncode} before it had begun")
    return bytes(data)


# -- what it left behind ----------------------------------------------------------------------------------------------

Line = tuple[str, int, int]


def read_log(path: Path) -> list[Line]:
    """What was asked and what was stored, in order: the kind and the span."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else ():
        kind, *numbers = line.split()
        if kind == ASKED:
            to_ms, count = map(int, numbers)
            lines.append((ASKED, to_ms - count * MINUTE_MS, to_ms))
        else:
            start_ms, end_ms, _ = map(int, numbers)
            lines.append((STORED, start_ms, end_ms))
    return lines


def proven_again(lines: Sequence[Line]) -> int:
    """How many pages were asked for when all they could show was stored and acknowledged."""
    proven, again = SpanSet(), 0
    for kind, start_ms, end_ms in lines:
        if kind == ASKED:
            again += proven.covers(start_ms, end_ms)
        else:
            proven |= SpanSet.of((start_ms, end_ms))
    return again


def _pages_left(doom: Doom) -> int:
    stored = SpanSet.of(*((start_ms, end_ms) for kind, start_ms, end_ms in read_log(Path(doom.log)) if kind == STORED))
    missing = SpanSet.of((doom.start_ms, doom.end_ms)) - stored
    return -(-missing.length // (PAGE * MINUTE_MS))


def _unkept(doom: Doom, copy: Path) -> int:
    """How many minutes that were acknowledged are not proven, or have no bar, in what is left of the database.

    It is looked at in a copy: to look at it in its place would begin to mend it.
    """
    spans = SpanSet.of(*((start_ms, end_ms) for kind, start_ms, end_ms in read_log(Path(doom.log)) if kind == STORED))
    if not spans:
        return 0
    for ending in ("", "-wal"):
        there, here = Path(f"{doom.path}{ending}"), Path(f"{copy}{ending}")
        here.unlink(missing_ok=True)
        if there.exists():
            shutil.copyfile(there, here)
    Path(f"{copy}-shm").unlink(missing_ok=True)
    unproven = spans - SpanSet.of(*proven_spans(copy, doom.market))
    bars = rows_in(copy, doom.market, list(spans))
    lost = sum((end_ms - start_ms) // MINUTE_MS - held for (start_ms, end_ms), held in zip(spans, bars, strict=True))
    return lost + unproven.length // MINUTE_MS


def _flaws(doom: Doom) -> tuple[str, ...]:
    with SqliteStore.open(doom.path, source=doom.base_url) as store:
        return tuple(finding.words for finding in store.integrity())
