"""What the verbs did is counted, call by call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.meter import KEPT, Meter
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
        meter.record(verb, elapsed_s, priority, symbols=symbols, failed=failed)
    statistics = meter.statistics()
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
        meter.record(verb, elapsed_s, priority)
    assert meter.late() == {
        priority: sum(asked is priority and elapsed_s > priority.budget_s for _, elapsed_s, asked, *_ in made)
        for priority in Priority
    }


def test_an_answer_within_its_budget_to_the_last_moment_is_in_time():
    meter = Meter()
    for priority in Priority:
        meter.record("get_ticker", priority.budget_s, priority)
    assert meter.late() == dict.fromkeys(Priority, 0)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200))
def test_a_percentile_is_a_latency_that_so_many_calls_did_not_exceed(latencies_s: list[float]):
    meter = Meter()
    for elapsed_s in latencies_s:
        meter.record("get_ticker", elapsed_s, Priority.LOW)
    counted = meter.statistics()["get_ticker"]
    for value_s, share in [(counted.p50_s, 0.50), (counted.p95_s, 0.95)]:
        assert value_s in latencies_s
        assert sum(one <= value_s for one in latencies_s) >= share * len(latencies_s)
        assert sum(one < value_s for one in latencies_s) <= share * len(latencies_s)


def test_percentiles_forget_all_but_the_last_thousand_calls_and_counts_do_not():
    meter = Meter()
    for elapsed_s in [9.0] * 50 + [1.0] * KEPT:
        meter.record("get_ticker", elapsed_s, Priority.LOW)
    counted = meter.statistics()["get_ticker"]
    assert (counted.calls, counted.p50_s, counted.p95_s) == (KEPT + 50, 1.0, 1.0)


def test_a_verb_that_was_never_called_is_not_mentioned():
    assert Meter().statistics() == {}
    assert Meter().symbols == 0


def test_what_was_handed_out_does_not_change():
    meter = Meter()
    meter.record("get_ticker", 1.0, Priority.CRITICAL)
    late, statistics = meter.late(), meter.statistics()
    meter.record("get_ticker", 1.0, Priority.CRITICAL)
    assert late[Priority.CRITICAL] == 1
    assert statistics["get_ticker"].calls == 1
