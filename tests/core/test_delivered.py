"""What was delivered is known again, and memory is bounded."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_exchange import NOW_MS, trade

from marketpipe.core import delivered
from marketpipe.core.counted import Told
from marketpipe.core.delivered import KEEP, KEEP_AT_MOST, KEEP_IDS_MS, KEEP_MORE, Delivered
from marketpipe.models import Trade


def deal(after_ms: int, number: int = 0) -> Trade:
    row = trade(NOW_MS + after_ms, (NOW_MS + after_ms) * 10_000 + number)
    return attrs.evolve(row, volume=Decimal(1 + number % 5) / 8)


def filled(*trades: Trade) -> Delivered:
    memory = Delivered()
    for row in trades:
        assert memory.add(row)
    return memory


def test_a_trade_is_new_once():
    memory = filled(deal(0))
    assert not memory.add(deal(0))
    assert memory.add(deal(0, 1))


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 1, 5, 20]), st.integers(-12, 0)), min_size=1, max_size=120),
    st.integers(1, 10),
    st.integers(0, 40),
    st.integers(0, 80),
    st.integers(10, 30),
)
def test_the_newest_and_the_last_seconds_are_remembered_and_not_much_more(
    steps: list[tuple[int, int]], keep: int, keep_ms: int, ids_ms: int, keep_at_most: int
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivered, "KEEP", keep)
        patch.setattr(delivered, "KEEP_MS", keep_ms)
        patch.setattr(delivered, "KEEP_IDS_MS", ids_ms)
        patch.setattr(delivered, "KEEP_AT_MOST", keep_at_most)
        memory, at_ms, told = Delivered(), 0, []
        for number, (step_ms, late_ms) in enumerate(steps):
            at_ms += step_ms
            told.append(deal(at_ms + late_ms, number))
            memory.add(told[-1])
        untrimmed = dict(memory.by_id)
        memory.trim()
    in_turn = list(told)
    told.sort(key=delivered.rank)
    times = [row.trade_ms for row in told]
    recent = [row for row in told if row.trade_ms >= times[-1] - keep_ms]
    for row in (told[-keep:] + recent)[-keep_at_most:]:
        assert row.sequential_id in memory.by_id
    by_id_alone = [row for row in told if row.trade_ms >= times[-1] - ids_ms]
    assert all(map(memory.has, by_id_alone[-keep_at_most:]))
    ties = max(map(times.count, times))
    assert len(memory.by_id) <= min(max(keep, len(recent)), keep_at_most) + ties
    assert memory.by_id.items() <= untrimmed.items()
    # What is not remembered lies below the floor, and nothing above the floor was forgotten.
    assert all(memory.has(row) for row in told if delivered.rank(row) > memory.floor)
    assert all(memory.has(row) for row in told if row.trade_ms >= memory.forgotten_ms)
    assert all(map(memory.knows, told))
    assert not any(map(memory.add, filter(memory.has, told)))
    for at_ms in {-1, *times}:
        sums = memory.told(at_ms, near_ms=0)
        if sums is None:
            assert at_ms < max(row.trade_ms for row in told if row.sequential_id not in memory.by_id) + 1
            continue
        ties = [place for place, row in enumerate(in_turn) if row.trade_ms == at_ms]
        first = [row for row in in_turn if row.trade_ms < at_ms] if not ties else in_turn[: ties[0]]
        if all(row in first for row in told if row.sequential_id not in memory.by_id):
            assert sums.before == sum(row.volume for row in first)
            assert sums.until == sums.before + sum(
                row.volume for row in in_turn[min(ties, default=0) : max(ties, default=-1) + 1]
            )
        assert sums.least == min((row.volume for row in told if row.trade_ms == at_ms), default=0)
    newest = memory.newest(3, clear_ms=0)
    assert newest is None or list(newest) == told[-1:-4:-1]


def test_memory_is_trimmed_to_a_hundred_in_a_long_stream():
    memory = Delivered()
    for number in range(50_000):
        memory.add(deal(200 * number))
    assert KEEP <= len(memory.by_id) <= KEEP + KEEP_MORE


def test_of_a_flood_the_newest_are_remembered():
    memory = Delivered()
    memory.extend(deal(number // 10, number % 10) for number in range(3 * KEEP_AT_MOST))
    assert len(memory.by_id) == 3 * KEEP_AT_MOST
    memory.trim()
    assert len(memory.by_id) == KEEP_AT_MOST
    assert not memory.has(deal(KEEP_AT_MOST // 10 - 1))
    assert memory.has(deal(KEEP_AT_MOST // 10))
    assert memory.forgotten_ms == NOW_MS + KEEP_AT_MOST // 10


def test_ids_of_the_last_minute_are_remembered_and_no_more():
    memory = Delivered()
    for number in range(4_000):
        memory.add(deal(100 * number))
    last_ms = memory.forgotten_ms - NOW_MS
    assert 400_000 - KEEP_IDS_MS - 20_000 < last_ms <= 400_000 - KEEP_IDS_MS
    assert not memory.has(deal(last_ms - 1))
    assert memory.has(deal(last_ms + 99))


def test_what_was_forgotten_counts_as_known():
    memory = Delivered()
    for number in range(KEEP + KEEP_MORE + 1):
        memory.add(deal(1_000 * number))
    assert deal(0).sequential_id not in memory.by_id
    assert memory.knows(deal(0))
    assert not memory.knows(deal(1_000 * (KEEP + KEEP_MORE), 1))


def test_the_newest_is_the_one_made_last_not_the_one_delivered_last():
    memory = filled(deal(0), deal(300), deal(200))
    assert memory.is_newest(deal(300))
    assert not memory.is_newest(deal(200))
    assert not memory.is_newest(deal(400))


def test_the_newest_trades_come_newest_first_and_only_if_there_are_so_many():
    memory = filled(deal(0), deal(300), deal(200), deal(200, 1))
    assert memory.newest(4, clear_ms=0) == (deal(300), deal(200, 1), deal(200), deal(0))
    assert memory.newest(2, clear_ms=0) == (deal(300), deal(200, 1))
    assert memory.newest(5, clear_ms=0) is None


def test_the_newest_trades_do_not_reach_down_to_the_floor():
    memory = filled(deal(0), deal(100), deal(101), deal(300))
    memory.raise_floor(delivered.rank(deal(0)))
    assert memory.newest(2, clear_ms=100) == (deal(300), deal(101))
    assert memory.newest(3, clear_ms=100) is None


def test_the_floor_is_never_lowered():
    memory = Delivered()
    memory.raise_floor((5, 0))
    memory.raise_floor((4, 9))
    assert memory.floor == (5, 0)


def test_an_empty_memory_can_be_trimmed():
    memory = Delivered()
    memory.trim()
    assert memory.by_id == {}


def test_what_is_told_out_of_order_is_counted_in_that_order():
    memory = filled(deal(0, 0), deal(14, 1), deal(7, 2))
    assert memory.told(NOW_MS + 7, near_ms=50) == Told(Decimal("0.375"), Decimal("0.75"), Decimal("0.375"))
    assert memory.told(NOW_MS + 14, near_ms=50) == Told(Decimal("0.125"), Decimal("0.375"), Decimal("0.25"))
    assert memory.told(NOW_MS + 10, near_ms=50) == Told(Decimal("0.5"), Decimal("0.5"), Decimal(0))


def test_what_comes_late_takes_its_place_in_time():
    memory = filled(deal(0, 0), deal(14, 1))
    memory.insert([deal(7, 2)])
    assert [row.trade_ms - NOW_MS for row in memory.by_id.values()] == [0, 7, 14]


def test_where_the_order_is_not_known_what_was_made_near_may_have_been_told_before_or_after():
    memory = filled(deal(0, 0), deal(40, 1), deal(100, 2))
    memory.insert([deal(50, 3)])
    memory.add(deal(400, 4))
    assert memory.told(NOW_MS + 50, near_ms=20) == Told(Decimal("0.125"), Decimal("0.875"), Decimal("0.5"))
    assert memory.told(NOW_MS + 50, near_ms=50) == Told(Decimal(0), Decimal("1.25"), Decimal("0.5"))
    assert memory.told(NOW_MS + 45, near_ms=20) == Told(Decimal("0.125"), Decimal("0.875"), Decimal(0))
    assert memory.told(NOW_MS + 400, near_ms=20) == Told(Decimal("1.25"), Decimal("1.875"), Decimal("0.625"))
    assert memory.told(NOW_MS + 400, near_ms=300) == Told(Decimal("0.875"), Decimal("1.875"), Decimal("0.625"))


def test_what_was_made_near_must_be_remembered_where_the_order_is_not_known(monkeypatch: pytest.MonkeyPatch):
    for name in ("KEEP", "KEEP_MS"):
        monkeypatch.setattr(delivered, name, 1)
    memory = filled(deal(0, 0), deal(40, 1))
    memory.insert([deal(50, 2)])
    memory.trim()
    assert memory.told(NOW_MS + 50, near_ms=9) is not None
    assert memory.told(NOW_MS + 50, near_ms=10) is None
