"""What is known of a stretch, held against a look at each of its slots."""

from __future__ import annotations

from itertools import groupby

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_exchange import NOW_MS, bar, final

from marketpipe.core import timeframes
from marketpipe.core.collection import CollectionState, CollectionSummary, summed_up
from marketpipe.core.planning import pages_at_most
from marketpipe.core.spans import Span, SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle

MARKET = "KRW-BTC"
SLOTS = 30
COLLECTED, EMPTY, PENDING, FAILED = CollectionState


@attrs.frozen
class Lost:
    start_ms: int
    end_ms: int
    attempts: int = 2
    code: str = "ExchangeUnavailable"
    message: str = "no answer"
    last_ms: int = NOW_MS


@attrs.frozen
class Known:
    """A stretch of slots, what is proven about it and around it, and what could not be fetched; in ms."""

    timeframe: Timeframe
    span: Span
    proven: list[Span]
    bars: tuple[Candle, ...]
    lost: list[Lost]

    def summed_up(self) -> CollectionSummary:
        opens = [bar.open_ms for bar in self.bars]
        return summed_up(MARKET, self.timeframe, self.span, SpanSet.of(*self.proven), opens, self.lost)

    def state(self, open_ms: int) -> CollectionState:
        """A slot that is proven or failed in part only, is not."""
        close_ms = timeframes.next_open(self.timeframe, open_ms)
        if SpanSet.of(*self.proven).covers(open_ms, close_ms):
            return COLLECTED if any(each.open_ms == open_ms for each in self.bars) else EMPTY
        failed = SpanSet.of(*((each.start_ms, each.end_ms) for each in self.lost))
        return FAILED if failed.covers(open_ms, close_ms) else PENDING

    @property
    def opens(self) -> list[int]:
        return list(timeframes.opens_between(self.timeframe, *self.span))


@st.composite
def knowns(draw: st.DrawFn) -> Known:
    timeframe = draw(st.sampled_from(Timeframe))
    first_ms = timeframes.floor(timeframe, NOW_MS - 86_400_000 * 3_000)

    def ms(slot: int) -> int:
        return timeframes.shift(timeframe, first_ms, slot)

    # Mostly on slot boundaries; what is not, is no slot's state.
    moments = st.tuples(st.integers(0, SLOTS), st.sampled_from([0, 0, 0, 1, -1, 300])).map(
        lambda drawn: ms(drawn[0]) + drawn[1]
    )
    stretches = st.lists(st.tuples(moments, moments).map(lambda two: (min(two), max(two))), max_size=5)
    edges = sorted((draw(st.integers(0, SLOTS)), draw(st.integers(0, SLOTS))))
    bars = tuple(final(bar(timeframe, ms(slot), NOW_MS)) for slot in sorted(draw(st.sets(st.integers(0, SLOTS - 1)))))
    lost = [Lost(*span) for span in draw(stretches)]
    return Known(timeframe, (ms(edges[0]), ms(edges[1])), draw(stretches), bars, lost)


@given(knowns())
def test_every_slot_is_in_the_state_that_a_look_at_it_alone_tells(known: Known):
    summary = known.summed_up()
    states = [known.state(open_ms) for open_ms in known.opens]
    assert [summary.state_at(open_ms) for open_ms in known.opens] == states
    assert (summary.collected, summary.empty, summary.pending, summary.failed) == tuple(
        states.count(state) for state in (COLLECTED, EMPTY, PENDING, FAILED)
    )
    assert summary.slots == len(states)
    assert summary.is_whole is ({PENDING, FAILED}.isdisjoint(states))
    unknown = [open_ms for open_ms, state in zip(known.opens, states, strict=True) if state in (PENDING, FAILED)]
    slots = ((open_ms, timeframes.next_open(known.timeframe, open_ms)) for open_ms in unknown)
    assert SpanSet.of(*summary.unknown) == SpanSet.of(*slots)
    assert summary.requests == pages_at_most(known.timeframe, SpanSet.of(*summary.unknown))


@given(knowns())
def test_stretches_are_runs_of_slots_in_one_state_in_order(known: Known):
    slots = [(open_ms, known.state(open_ms)) for open_ms in known.opens]
    runs = []
    for state, group in groupby(slots, key=lambda slot: slot[1]):
        opens = [open_ms for open_ms, _ in group]
        runs.append((opens[0], timeframes.next_open(known.timeframe, opens[-1]), state))
    assert list(known.summed_up().spans()) == runs


@given(knowns())
def test_a_summary_has_its_range_and_the_failures_it_was_given(known: Known):
    summary = known.summed_up()
    assert (summary.market, summary.timeframe) == (MARKET, known.timeframe)
    assert (summary.start_ms, summary.end_ms) == known.span
    assert summary.failures == tuple(known.lost)


def test_bars_up_to_the_end_of_what_is_known_leave_nothing_empty_there():
    bars = tuple(final(bar(Timeframe.M1, minute * 60_000, NOW_MS)) for minute in (0, 3, 4))
    known = Known(Timeframe.M1, (0, 300_000), [(0, 300_000)], bars, [])
    assert list(known.summed_up().spans()) == [
        (0, 60_000, COLLECTED),
        (60_000, 180_000, EMPTY),
        (180_000, 300_000, COLLECTED),
    ]


def test_what_was_proven_after_it_had_failed_is_a_failure_no_more():
    known = Known(Timeframe.M1, (0, 600_000), [(0, 300_000)], (), [Lost(0, 480_000)])
    assert [state for *_, state in known.summed_up().spans()] == [EMPTY, FAILED, PENDING]


@pytest.mark.parametrize("open_ms", [-60_000, 600_000, 30_000, 599_999])
def test_a_slot_that_is_none_of_the_range_is_refused(open_ms: int):
    summary = Known(Timeframe.M1, (0, 600_000), [], (), []).summed_up()
    with pytest.raises(ValueError, match=rf"no 1m slot of \[0, 600000\) opens at {open_ms}"):
        summary.state_at(open_ms)


def test_a_range_without_a_slot_is_whole():
    summary = Known(Timeframe.M1, (600_000, 600_000), [], (), []).summed_up()
    assert (summary.slots, summary.is_whole, list(summary.spans())) == (0, True, [])


def test_two_hundred_thousand_slots_in_forty_thousand_stretches_are_listed_at_once():
    """One pass, whatever the number of stretches."""
    count = 20_000
    proven = SpanSet.of(*((slot * 600_000, slot * 600_000 + 60_000) for slot in range(count)))
    summary = summed_up(MARKET, Timeframe.M1, (0, count * 600_000), proven, (), ())
    assert sum(1 for _ in summary.spans()) == 2 * count
