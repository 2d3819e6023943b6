"""Values that a stream keeps current: when they are there, when they leave, and that memory never goes back."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.live import DISORDER_MS, LiveEntry, LiveValues

BTC, ETH = "KRW-BTC", "KRW-ETH"


@attrs.frozen
class Value:
    exchange_ms: int
    name: str = ""


@pytest.fixture
def live() -> LiveValues[Value]:
    return LiveValues()


def test_what_a_stream_shows_is_live_however_long_it_lasts(live):
    live.streamed(BTC, Value(1), 10.0)
    assert live.get(BTC) == Value(1)
    assert live.get(ETH) is None
    assert (live.values(), len(live)) == ([Value(1)], 1)


def test_a_value_received_too_long_ago_is_none_for_whoever_asks_so(live):
    live.streamed(BTC, Value(1), 10.0)
    assert live.get(BTC, since_s=9.9) == Value(1)
    assert live.get(BTC, since_s=10.0) is None


def test_what_was_answered_is_counted_and_what_was_not_is_not(live):
    live.streamed(BTC, Value(1), 10.0)
    live.get(BTC)
    live.get(BTC, since_s=11.0)
    live.get(ETH)
    assert live.hits == 1
    live.get(BTC)
    assert live.hits == 2


def test_a_frame_that_was_overtaken_takes_nothing_back(live):
    live.streamed(BTC, Value(100), 10.0)
    live.streamed(BTC, Value(99), 11.0)
    assert live.get(BTC) == Value(100)
    assert live.get(BTC, since_s=10.5) is None  # and was not received when the older one was


def test_of_two_frames_with_one_stamp_the_later_counts(live):
    live.streamed(BTC, Value(100, "first"), 10.0)
    live.streamed(BTC, Value(100, "second"), 11.0)
    assert live.get(BTC) == Value(100, "second")


@pytest.mark.parametrize(("behind_ms", "taken"), [(DISORDER_MS, False), (DISORDER_MS + 1, True)])
def test_frames_of_a_clock_that_was_set_back_are_not_waited_for(live, behind_ms, taken):
    """An hour's error of the exchange's clock must not hold a value for an hour after it was put right."""
    live.streamed(BTC, Value(3_600_000), 10.0)
    live.streamed(BTC, Value(3_600_000 - behind_ms), 11.0)
    assert (live.get(BTC) == Value(3_600_000 - behind_ms)) is taken


def test_a_slow_stream_never_goes_back_behind_what_rest_has_shown(live):
    """However far it is behind: that is no sign of a wrong clock."""
    live.streamed(BTC, Value(1_000), 10.0)
    live.fetched(BTC, Value(60_000), 11.0)
    live.streamed(BTC, Value(2_000), 12.0)
    assert live.get(BTC) == Value(60_000)
    live.streamed(BTC, Value(60_000, "the stream's own"), 13.0)
    assert live.get(BTC) == Value(60_000, "the stream's own")


def test_what_rest_shows_counts_if_it_is_newer(live):
    live.streamed(BTC, Value(100), 10.0)
    live.fetched(BTC, Value(100, "the same"), 11.0)
    assert live.get(BTC) == Value(100)
    live.fetched(BTC, Value(101), 12.0)
    assert live.get(BTC, since_s=11.9) == Value(101)


def test_what_rest_shows_of_a_market_without_a_stream_is_not_live(live):
    live.fetched(BTC, Value(100), 10.0)
    assert live.get(BTC) is None
    live.resume([BTC])
    assert live.get(BTC) is None


def test_suspended_values_leave_at_once_and_come_back_as_they_were(live):
    live.streamed(BTC, Value(1), 10.0)
    live.streamed(ETH, Value(2), 10.5)
    assert live.suspend([BTC, "KRW-XRP"]) == [(BTC, LiveEntry(Value(1), 10.0))]
    assert (live.get(BTC), live.get(ETH), len(live)) == (None, Value(2), 1)
    assert live.suspend([BTC]) == []
    live.resume([BTC])
    assert live.get(BTC, since_s=9.9) == Value(1)
    assert live.get(BTC, since_s=10.0) is None


def test_a_value_comes_back_as_new_as_rest_has_shown_it_meanwhile(live):
    live.streamed(BTC, Value(1), 10.0)
    live.suspend([BTC])
    live.fetched(BTC, Value(5), 11.0)
    assert live.get(BTC) is None
    live.resume([BTC])
    assert live.get(BTC) == Value(5)


def test_a_frame_of_a_suspended_market_shows_that_its_stream_flows(live):
    live.streamed(BTC, Value(5), 10.0)
    live.suspend([BTC])
    live.streamed(BTC, Value(4), 11.0)  # overtaken; it flows all the same
    assert live.get(BTC) == Value(5)
    live.suspend([BTC])
    live.streamed(BTC, Value(6), 12.0)
    live.resume([BTC])  # nothing is suspended any more that could come back
    assert live.get(BTC) == Value(6)


def test_the_end_of_a_stream_is_the_end_of_its_values(live):
    live.streamed(BTC, Value(1), 10.0)
    live.streamed(ETH, Value(2), 10.0)
    live.suspend([ETH])
    assert live.forget([BTC, ETH]) == [(BTC, LiveEntry(Value(1), 10.0))]
    live.resume([BTC, ETH])
    assert len(live) == 0
    live.streamed(BTC, Value(0), 20.0)  # another stream: what the first has shown binds it no more
    assert live.get(BTC) == Value(0)


steps = st.lists(
    st.tuples(st.sampled_from(["streamed", "fetched", "suspend", "resume"]), st.integers(0, DISORDER_MS)), max_size=30
)


@given(steps)
def test_memory_never_goes_back_and_only_says_what_it_was_told(steps):
    """Whatever overtakes what, and however often a stream is doubted: no reader sees an older value than before."""
    live: LiveValues[Value] = LiveValues()
    told: set[int] = set()
    newest = -1
    flows = False
    for now_s, (step, ms) in enumerate(steps):
        match step:
            case "suspend":
                live.suspend([BTC])
                flows = False
            case "resume":
                live.resume([BTC])
                flows = flows or any(what == "streamed" for what, _ in steps[:now_s])
            case _:
                getattr(live, step)(BTC, Value(ms), float(now_s))
                flows = flows or step == "streamed"
                told.add(ms)
        value = live.get(BTC)
        assert (value is not None) is flows
        if value is not None:
            assert value.exchange_ms in told
            assert value.exchange_ms >= newest
            newest = value.exchange_ms


def test_the_newest_is_known_while_a_stream_is_being_checked_and_forgotten_when_it_has_ended(live):
    live.streamed(BTC, Value(1), 10.0)
    live.streamed(ETH, Value(2), 10.0)
    live.suspend([ETH])
    assert (live.newest(BTC), live.newest(ETH), live.newest("KRW-XRP")) == (Value(1), Value(2), None)
    live.forget([BTC, ETH, "KRW-XRP"])
    assert (live.newest(BTC), live.newest(ETH)) == (None, None)
