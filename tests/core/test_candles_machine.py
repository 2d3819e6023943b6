"""A series against a model that keeps everything it was ever told and starts from nothing at each question."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from paper_bars import FINAL, MINUTE_MS, RUNNING, START_MS, content, opens, reading

from marketpipe.core.candles import LiveSeries
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle

CELL_MS = 500  # every time in this file is a multiple of it
CELLS = range((START_MS - 3 * MINUTE_MS) // CELL_MS, (START_MS + 14 * MINUTE_MS) // CELL_MS)
KEEP = 3


def cells(start_ms: int, end_ms: int) -> set[int]:
    return set(range(start_ms // CELL_MS, end_ms // CELL_MS))


@attrs.define(eq=False)
class Model:
    """Readings as they came, half seconds that are doubted or shown, and what was told of each bar."""

    readings: dict[int, list[tuple[bool, Candle]]] = attrs.field(factory=dict)
    doubted: set[int] = attrs.field(factory=set)
    shown: set[int] = attrs.field(factory=set)
    paged_from_ms: int | None = None
    proven_ms: int = 0
    told: dict[int, tuple[Candle, Any, int]] = attrs.field(factory=dict)
    floor_ms: int = 0

    def read(self, bar: Candle, settled: bool) -> None:
        if bar.open_ms >= self.floor_ms:
            self.readings.setdefault(bar.open_ms, []).append((settled, bar))

    def held(self) -> list[int]:
        return sorted(open_ms for open_ms in self.readings if open_ms >= self.floor_ms)

    def kept(self) -> list[int]:
        return self.held()[-KEEP:]

    def let_go(self) -> None:
        """Of the oldest, unless it is doubted, or anything before it that is still to be mended."""
        while len(held := self.held()) > KEEP:
            end_ms = held[0] + MINUTE_MS
            if any(self.floor_ms <= cell * CELL_MS < end_ms for cell in self.in_doubt()):
                return
            self.floor_ms = end_ms

    def in_doubt(self) -> set[int]:
        return self.doubted - self.shown

    def best(self, open_ms: int) -> tuple[bool, Candle]:
        def order(each: tuple[bool, Candle]) -> Any:
            settled, bar = each
            return settled, bar.volume, bar.exchange_ms, bar.quote_volume, bar.high, bar.low, bar.open, bar.close

        return max(self.readings[open_ms], key=order)

    def is_over(self, open_ms: int) -> bool:
        end_ms = open_ms + MINUTE_MS
        if self.best(open_ms)[0]:
            return True
        if max(self.held()) == open_ms and self.proven_ms < end_ms + 2_000:
            return False
        return not cells(open_ms, end_ms) & self.in_doubt()

    def news(self) -> list[tuple[Candle, Any, int]]:
        """Content, state and revision of every bar of which there is something to tell; it counts as told."""
        news = []
        for open_ms in self.held():
            (bar,) = content([self.best(open_ms)[1]])
            before = self.told.get(open_ms)
            if before is not None and before[1] is FINAL:
                now = before if before[0] == bar else (bar, FINAL, before[2] + 1)
            else:
                now = (bar, FINAL if self.is_over(open_ms) else RUNNING, 0)
            if now != before:
                self.told[open_ms] = now
                news.append(now)
        return news

    def whole_from_ms(self) -> int | None:
        if self.paged_from_ms is None:
            return None
        unknown = [
            cell
            for cell in CELLS
            if (cell * CELL_MS < self.paged_from_ms or cell in self.doubted) and cell not in self.shown
        ]
        from_ms = (unknown[-1] + 1) * CELL_MS
        held = self.held()
        # Of what a doubt holds up, that which comes after the newest that is not shown.
        shown_ms = held[-KEEP - 1] + MINUTE_MS if len(held) > KEEP else self.floor_ms
        return max(-(-from_ms // MINUTE_MS) * MINUTE_MS, shown_ms)


class AgainstModel(RuleBasedStateMachine):
    """Everything that is told, in its order, and everything that is held equals the model's."""

    slots = st.integers(0, 8)
    # About the boundaries of bars, where the second and the two seconds count, and in the middle of them.
    moments = st.builds(
        lambda slot, ms: opens(slot) + ms,
        st.integers(-1, 10),
        st.sampled_from([-1000, -500, 0, 500, 1000, 1500, 2000, 30_000]),
    )
    bars = st.builds(
        reading,
        slots,
        at=st.sampled_from([500, 900, 60_300]),
        volume=st.integers(1, 2),
        close=st.integers(1, 2),
        received_ms=st.integers(1, 2),
    )

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        self.series = LiveSeries("KRW-BTC", Timeframe.M1, keep=KEEP)
        self.model = Model()
        self.frames: list[Candle] = []
        self.pages: list[tuple[list[Candle], int]] = []

    def agree(self, told) -> None:
        assert [(*content([attrs.evolve(bar, state=RUNNING)]), bar.state, bar.revision) for bar in told] == (
            self.model.news()
        )

    def frame(self, bar: Candle) -> None:
        self.frames.append(bar)
        self.model.read(bar, settled=False)
        self.agree(self.series.live(bar))
        self.model.let_go()

    @rule(bar=bars)
    def any_frame(self, bar):
        self.frame(bar)

    @rule(seconds=st.integers(1, 90))
    def live_tick(self, seconds):
        """The next state of the newest bar, or the first one of a bar after it."""
        newest = max(self.frames, key=lambda bar: bar.exchange_ms, default=reading(0))
        at_ms = newest.exchange_ms + seconds * 1000
        slot = (at_ms - START_MS) // MINUTE_MS
        self.frame(reading(min(slot, 11), at=at_ms - opens(slot), volume=newest.volume + 1))

    @precondition(lambda self: self.frames)
    @rule(data=st.data())
    def duplicate_or_reordered_frame(self, data):
        self.frame(data.draw(st.sampled_from(self.frames)))

    @rule(rows=st.lists(bars, max_size=5), read_ms=moments, from_before=st.booleans())
    def page(self, rows, read_ms, from_before):
        from_ms = min((bar.open_ms for bar in rows), default=opens(2)) - MINUTE_MS if from_before else None
        self.take_page(rows, read_ms, from_ms)

    def take_page(self, rows, read_ms, from_ms=None):
        self.pages.append((rows, read_ms))
        for bar in rows:
            settled = bar.open_ms + MINUTE_MS + 1000 <= read_ms
            self.model.read(bar, settled)
        start_ms = from_ms if from_ms is not None else min((bar.open_ms for bar in rows), default=read_ms)
        if start_ms < read_ms - 1000:
            self.model.shown |= cells(start_ms, read_ms - 1000)
            known = self.model.paged_from_ms
            self.model.paged_from_ms = start_ms if known is None else min(known, start_ms)
        self.agree(self.series.page(rows, read_ms, from_ms=from_ms))
        self.model.let_go()

    @precondition(lambda self: self.pages)
    @rule(data=st.data())
    def the_same_page_again(self, data):
        self.take_page(*data.draw(st.sampled_from(self.pages)))

    @precondition(lambda self: self.model.told)
    @rule(data=st.data(), more=st.integers(0, 2))
    def late_correction(self, data, more):
        bar = data.draw(st.sampled_from([told for told, _, _ in self.model.told.values()]))
        corrected = attrs.evolve(bar, exchange_ms=bar.exchange_ms + more, volume=bar.volume + 1)
        self.take_page([corrected], bar.open_ms + 2 * MINUTE_MS)

    @rule(exchange_ms=moments)
    def time_passes(self, exchange_ms):
        self.model.proven_ms = max(self.model.proven_ms, exchange_ms)
        self.agree(self.series.proven(exchange_ms))

    @rule(start_ms=moments, end_ms=moments)
    def doubt(self, start_ms, end_ms):
        if start_ms < end_ms:
            self.model.doubted |= cells((start_ms - 1000) // MINUTE_MS * MINUTE_MS, end_ms)
        self.series.doubt(start_ms, end_ms)

    @rule()
    def forget(self):
        self.begin()

    @invariant()
    def what_is_held_is_what_was_told(self):
        held = [(*content([attrs.evolve(bar, state=RUNNING)]), bar.state, bar.revision) for bar in self.series.bars]
        assert held == [self.model.told[open_ms] for open_ms in self.model.kept()]
        assert [bar for bar, _, _ in held] == content([self.model.best(open_ms)[1] for open_ms in self.model.kept()])

    @invariant()
    def it_is_whole_since_the_same_time(self):
        assert self.series.whole_from_ms == self.model.whole_from_ms()


TestAgainstModel = pytest.mark.slow(AgainstModel.TestCase)
TestAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
