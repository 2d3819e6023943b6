"""What the verbs did is counted, call by call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.latencies import ACCURACY, TURN_S
from marketpipe.core.meter import BOUNDS_S, Meter
from marketpipe.models import Priority

calls = st.lists(
    st.tuples(
        st.sampled_from(["get_ticker", "get_candle"]),
        st.floats(0, 10),
        st.sampled_from(Priority),
        st.integers(0, 500),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(calls)
def test_calls_symbols_and_failures_add_up_by_verb(made: list[tuple[str, float, Priority, int, int]]):
    meter = Meter()
    for verb, elapsed_s, priority, symbols, failed in made:
        meter.record(verb, elapsed_s, priority, now_s=0.0, symbols=symbols, failed=failed)
    statistics = meter.statistics(0.0)
    assert set(statistics) == {verb for verb, *_ in made}
    for verb, counted in statistics.items():
        of_verb = [call for call in made if call[0] == verb]
        assert counted.calls == len(of_verb)
        assert counted.symbols == sum(call[3] for call in of_verb)
        assert counted.failed == sum(call[4] for call in of_verb)
    assert meter.symbols == sum(counted.symbols for counted in statistics.values())


@given(calls)
def test_an_answer_is_late_if_it_took_longer_than_its_budget(made: list[tuple[str, float, Priority, int, int]]):
    meter = Meter()
    for verb, elapsed_s, priority, *_ in made:
        meter.record(verb, elapsed_s, priority, now_s=0.0)
    assert meter.late() == {
        priority: sum(asked is priority and elapsed_s > priority.budget_s for _, elapsed_s, asked, *_ in made)
        for priority in Priority
    }


def test_an_answer_within_its_budget_to_the_last_moment_is_in_time():
    meter = Meter()
    for priority in Priority:
        meter.record("get_ticker", priority.budget_s, priority, now_s=0.0)
    assert meter.late() == dict.fromkeys(Priority, 0)


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=200))
def test_a_percentile_is_a_latency_that_so_many_calls_did_not_exceed(latencies_s: list[float]):
    meter = Meter()
    for elapsed_s in latencies_s:
        meter.record("get_ticker", elapsed_s, Priority.LOW, now_s=0.0)
    counted = meter.statistics(0.0)["get_ticker"]
    for value_s, share in [(counted.p50_s, 0.50), (counted.p95_s, 0.95), (counted.p99_s, 0.99)]:
        # Within the width of its bin, it is one of them, and has its rank.
        assert any(abs(value_s - one) <= ACCURACY * one * 1.0001 for one in latencies_s)
        assert sum(one * (1 - ACCURACY) <= value_s for one in latencies_s) >= share * len(latencies_s)
        assert sum(one * (1 + ACCURACY) < value_s for one in latencies_s) <= share * len(latencies_s)


def test_percentiles_forget_what_is_two_minutes_old_and_counts_do_not():
    meter = Meter()
    meter.record("get_ticker", 9.0, Priority.LOW, now_s=0.0)
    for number in range(20):
        meter.record("get_ticker", 1.0, Priority.LOW, now_s=2 * TURN_S + number)
    counted = meter.statistics(2 * TURN_S + 20)["get_ticker"]
    assert (counted.calls, counted.total_s) == (21, 29.0)
    assert abs(counted.p99_s - 1.0) <= ACCURACY
    assert dict(counted.buckets)[10.0] == 21
    idle = meter.statistics(9 * TURN_S)["get_ticker"]
    assert (idle.calls, idle.p50_s, idle.p95_s, idle.p99_s) == (21, 0.0, 0.0, 0.0)


@given(st.lists(st.floats(0, 20) | st.sampled_from(BOUNDS_S)))
def test_each_bucket_counts_the_calls_that_took_no_longer_than_its_bound(latencies_s: list[float]):
    meter = Meter()
    meter.record("get_ticker", 0.0, Priority.LOW, now_s=0.0)
    for elapsed_s in latencies_s:
        meter.record("get_ticker", elapsed_s, Priority.LOW, now_s=0.0)
    counted = meter.statistics(0.0)["get_ticker"]
    assert counted.buckets == tuple((bound, 1 + sum(one <= bound for one in latencies_s)) for bound in BOUNDS_S)
    assert abs(counted.total_s - sum(latencies_s)) < 1e-6


def test_every_budget_is_a_bound_of_the_buckets():
    assert {priority.budget_s for priority in Priority} <= set(BOUNDS_S)


def test_a_verb_that_was_never_called_is_not_mentioned():
    assert Meter().statistics(0.0) == {}
    assert Meter().symbols == 0


def test_what_was_handed_out_does_not_change():
    meter = Meter()
    meter.record("get_ticker", 1.0, Priority.CRITICAL, now_s=0.0)
    late, statistics = meter.late(), meter.statistics(0.0)
    meter.record("get_ticker", 1.0, Priority.CRITICAL, now_s=0.0)
    assert late[Priority.CRITICAL] == 1
    assert statistics["get_ticker"].calls == 1


def test_who_gave_up_is_counted_and_late_only_after_more_than_the_budget():
    meter = Meter()
    for priority in Priority:
        for waited_s in (0.0, priority.budget_s, priority.budget_s + 0.1, priority.budget_s + 9.0):
            meter.give_up(waited_s, priority)
    assert meter.given_up() == dict.fromkeys(Priority, 4)
    assert meter.late() == dict.fromkeys(Priority, 2)
    assert meter.statistics(0.0) == {}
