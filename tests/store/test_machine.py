"""A database against a dict, through writes that agree and writes that do not, failures, and being opened again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store.paper_store import EVER, MARKET, bar, opened, opens, piece

from marketpipe.core.history import Piece
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Source

SLOTS = 24
FRAMES = (Timeframe.M1, Timeframe.W1, Timeframe.MONTH)

frames = st.sampled_from(FRAMES)
spans = st.tuples(st.integers(0, SLOTS - 1), st.integers(1, 8)).map(lambda each: (each[0], each[0] + each[1]))
# What the exchange says of a slot: None, no trade; or a bar of that volume.
sayings = st.lists(st.sampled_from([None, 1, 2]), min_size=SLOTS + 8, max_size=SLOTS + 8)


@attrs.define
class Slot:
    """What is proven of one slot, and how often that was replaced."""

    volume: int | None
    revision: int = 0


class Ledger(RuleBasedStateMachine):
    """``truth`` is what the exchange says as long as it does not contradict itself."""

    @initialize(truth=sayings, in_memory=st.booleans())
    def start(self, truth: list[int | None], in_memory: bool) -> None:
        self.truth = truth
        self.folder = tempfile.TemporaryDirectory()
        self.path: Path | str = ":memory:" if in_memory else Path(self.folder.name) / "history.db"
        self.store = opened(self.path)
        self.proven: dict[Timeframe, dict[int, Slot]] = {timeframe: {} for timeframe in FRAMES}
        self.failed: dict[Timeframe, dict[tuple[int, int], int]] = {timeframe: {} for timeframe in FRAMES}
        self.covered: dict[Timeframe, SpanSet] = dict.fromkeys(FRAMES, SpanSet())
        self.replaced = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    def said(self, timeframe: Timeframe, span: tuple[int, int], saying: list[int | None]) -> Piece:
        slots = [slot for slot in range(*span) if saying[slot] is not None]
        return piece(*span, [bar(slot, saying[slot], timeframe=timeframe) for slot in slots], timeframe=timeframe)

    def model(self, timeframe: Timeframe, span: tuple[int, int], saying: list[int | None]) -> tuple[int, int, int]:
        """Rows, unchanged and amended that the write must tell of."""
        rows = unchanged = amended = 0
        for number in range(*span):
            slot = self.proven[timeframe].get(number)
            if slot is None:
                self.proven[timeframe][number] = Slot(saying[number])
                rows += saying[number] is not None
            elif slot.volume != saying[number]:
                self.proven[timeframe][number] = Slot(saying[number], slot.revision + 1)
                rows += saying[number] is not None
                amended += 1
            else:
                unchanged += slot.volume is not None
        self.failed[timeframe] = {
            each: attempts
            for each, attempts in self.failed[timeframe].items()
            if not set(range(*each)) <= set(self.proven[timeframe])
        }
        return rows, unchanged, amended

    @rule(parts=st.lists(st.tuples(frames, spans), max_size=4))
    def write_what_is_true(self, parts: list[tuple[Timeframe, tuple[int, int]]]) -> None:
        self.write([(timeframe, span, self.truth) for timeframe, span in parts])

    @rule(parts=st.lists(st.tuples(frames, spans, sayings), min_size=1, max_size=3))
    def write_what_contradicts(self, parts: list[tuple[Timeframe, tuple[int, int], list[int | None]]]) -> None:
        self.write(parts)

    @rule(part=st.tuples(frames, spans, sayings))
    def write_one_thing_twice(self, part: tuple[Timeframe, tuple[int, int], list[int | None]]) -> None:
        self.write([part])
        before = self.store.series()
        again = self.store.write([self.said(*part)], now_ms=9)
        assert (again.rows, again.amended) == (0, ())
        assert self.store.series() == before

    def write(self, parts: list[tuple[Timeframe, tuple[int, int], list[int | None]]]) -> None:
        written = self.store.write([self.said(*part) for part in parts], now_ms=5)
        told = [self.model(*part) for part in parts]
        assert (written.rows, written.unchanged, len(written.amended)) == tuple(
            sum(each[index] for each in told) for index in range(3)
        )
        self.replaced += len(written.amended)

    @rule(timeframe=frames, span=spans)
    def fail(self, timeframe: Timeframe, span: tuple[int, int]) -> None:
        start_ms, end_ms = (opens(slot, timeframe) for slot in span)
        self.store.note_failure(MARKET, timeframe, start_ms, end_ms, "503", "no answer", 5)
        if not set(range(*span)) <= set(self.proven[timeframe]):
            self.failed[timeframe][span] = self.failed[timeframe].get(span, 0) + 1

    @precondition(lambda self: self.path != ":memory:")
    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = opened(self.path)

    @precondition(lambda self: self.path != ":memory:")
    @rule()
    def open_beside(self) -> None:
        with opened(self.path) as view:
            assert view.read_only
            for timeframe in FRAMES:
                assert view.bars(MARKET, timeframe, *EVER) == self.store.bars(MARKET, timeframe, *EVER)

    @invariant()
    def it_holds_what_is_proven(self) -> None:
        for timeframe in FRAMES:
            slots = self.proven[timeframe]
            expected = tuple(
                attrs.evolve(bar(number, slot.volume, timeframe=timeframe), source=Source.STORE, revision=slot.revision)
                for number, slot in sorted(slots.items())
                if slot.volume is not None
            )
            assert self.store.bars(MARKET, timeframe, *EVER) == expected
            covered = self.store.coverage(MARKET, timeframe, *EVER)
            assert covered == SpanSet.of(
                *((opens(number, timeframe), opens(number + 1, timeframe)) for number in slots)
            )
            assert not self.covered[timeframe] - covered
            self.covered[timeframe] = covered

    @invariant()
    def it_keeps_what_was_replaced(self) -> None:
        amendments = [each for timeframe in FRAMES for each in self.store.amendments(MARKET, timeframe)]
        assert len(amendments) == self.replaced
        assert sum(each.amended for each in self.store.series()) == self.replaced

    @invariant()
    def it_remembers_what_failed(self) -> None:
        for timeframe in FRAMES:
            told = {(each.start_ms, each.end_ms): each.attempts for each in self.store.failures(MARKET, timeframe)}
            assert told == {
                (opens(first, timeframe), opens(end, timeframe)): attempts
                for (first, end), attempts in self.failed[timeframe].items()
            }

    @invariant()
    def nothing_is_wrong_with_it(self) -> None:
        assert self.store.integrity() == ()


Ledger.TestCase.settings = settings(max_examples=max(50, settings.default.max_examples // 2), stateful_step_count=15)
TestLedger = Ledger.TestCase
