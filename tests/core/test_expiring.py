"""The cache against a naive model, on a clock that only the test moves."""

from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marketpipe.core.expiring import MISSING, CacheStatistics, ExpiringCache

FAST_S = 0.25  # every time in this file is a multiple of 1/8 s, which floats hold exactly


@attrs.define
class Timer:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def cache(timer) -> ExpiringCache[str, object]:
    return ExpiringCache(timer, maxsize=3, fast_s=FAST_S)


class AgainstModel(RuleBasedStateMachine):
    """Every answer, age and count equals that of a dict whose order is the order of use."""

    MAXSIZE = 3
    keys = st.sampled_from("abcde")
    eighths = st.integers(0, 24).map(lambda n: n / 8)

    def __init__(self) -> None:
        super().__init__()
        self.timer = Timer()
        self.cache: ExpiringCache[str, object] = ExpiringCache(self.timer, maxsize=self.MAXSIZE, fast_s=FAST_S)
        self.model: dict[str, tuple[object, float, float]] = {}  # least recently used first
        self.fast = self.memory = self.misses = self.evictions = 0

    def fresh(self, key) -> bool:
        return key in self.model and self.timer.now_s < self.model[key][2]

    @rule(passed_s=eighths)
    def time_passes(self, passed_s):
        self.timer.now_s += passed_s

    @rule(key=keys, value=st.sampled_from([0, "", None, False, (), 1, "x"]), ttl_s=eighths)
    def put(self, key, value, ttl_s):
        self.cache.put(key, value, ttl_s)
        if self.model.pop(key, None) is None and len(self.model) == self.MAXSIZE:
            oldest = next(iter(self.model))
            self.evictions += self.fresh(oldest)
            del self.model[oldest]
        self.model[key] = (value, self.timer.now_s, self.timer.now_s + max(FAST_S, ttl_s))

    @rule(key=keys, max_age_s=st.none() | eighths)
    def get(self, key, max_age_s):
        answer = self.cache.get(key, max_age_s)
        if key not in self.model:
            assert answer is MISSING
            self.misses += 1
            return
        value, stored_s, ends_s = entry = self.model.pop(key)
        self.model[key] = entry  # looked at, and therefore used, even if it turns out to be too old
        age_s = self.timer.now_s - stored_s
        if self.timer.now_s >= ends_s or (max_age_s is not None and age_s >= max_age_s):
            assert answer is MISSING
            self.misses += 1
        else:
            assert answer is value
            self.fast += age_s <= FAST_S
            self.memory += age_s > FAST_S

    @rule(key=keys, value=st.integers(10, 12), ttl_s=eighths, ago_s=eighths)
    def put_what_was_received_before(self, key, value, ttl_s, ago_s):
        stored_s = self.timer.now_s - ago_s
        self.cache.put(key, value, ttl_s, stored_s)
        if self.model.pop(key, None) is None and len(self.model) == self.MAXSIZE:
            oldest = next(iter(self.model))
            self.evictions += self.fresh(oldest)
            del self.model[oldest]
        self.model[key] = (value, stored_s, stored_s + max(FAST_S, ttl_s))

    @rule(key=keys)
    def peek(self, key):
        assert self.cache.peek(key) is (self.model[key][0] if self.fresh(key) else MISSING)

    @rule(key=keys)
    def age(self, key):
        expected = self.timer.now_s - self.model[key][1] if self.fresh(key) else None
        assert self.cache.age_s(key) == expected

    @rule(key=keys)
    def invalidate(self, key):
        self.cache.invalidate(key)
        self.model.pop(key, None)

    @rule()
    def clear(self):
        self.cache.clear()
        self.model.clear()

    @invariant()
    def counts_agree(self):
        entries = sum(map(self.fresh, self.model))
        assert self.cache.statistics() == CacheStatistics(self.fast, self.memory, self.misses, entries, self.evictions)


TestAgainstModel = pytest.mark.slow(AgainstModel.TestCase)
TestAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("value", [0, None, "", False, ()])
def test_a_falsy_value_is_a_value(cache, value):
    cache.put("k", value, 1.0)
    assert cache.get("k") is value


def test_nothing_is_served_at_or_after_its_end(cache, timer):
    """Fresh up to, and not at, the moment when its time is over."""
    cache.put("k", "v", 1.0)
    timer.now_s += 0.875
    assert cache.get("k") == "v"
    timer.now_s += 0.125
    assert cache.get("k") is MISSING
    assert cache.age_s("k") is None


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, math.nan, 0.125])
def test_the_fast_tier_is_a_floor(cache, timer, ttl_s):
    """However short its own time is, a value is served for `fast_s`."""
    cache.put("k", "v", ttl_s)
    timer.now_s += 0.125
    assert cache.get("k") == "v"
    timer.now_s += 0.125
    assert cache.get("k") is MISSING


def test_an_endless_value_stays_until_it_is_replaced(cache, timer):
    cache.put("k", "old", math.inf)
    timer.now_s += 10.0**9
    assert cache.get("k") == "old"
    cache.put("k", "new", 0.0)
    timer.now_s += 1.0
    assert cache.get("k") is MISSING


def test_max_age_only_tightens(cache, timer):
    """0 always misses, a small age is strict, a large one does not revive what has expired."""
    cache.put("k", "v", 1.0)
    assert cache.get("k", 0) is MISSING
    timer.now_s += 0.5
    assert cache.get("k", 0.5) is MISSING
    assert cache.get("k", 0.625) == "v"
    timer.now_s += 0.5
    assert cache.get("k", 100.0) is MISSING


def test_the_tier_is_told_by_the_age(cache, timer):
    cache.put("k", "v", 10.0)
    cache.get("k")
    timer.now_s += FAST_S
    cache.get("k")
    timer.now_s += 0.125
    cache.get("k")
    cache.get("other")
    statistics = cache.statistics()
    assert statistics == CacheStatistics(fast_hits=2, memory_hits=1, misses=1, entries=1, evictions=0)
    assert statistics.hit_rate == 0.75


def test_the_hit_rate_before_the_first_question_is_zero(cache):
    assert cache.statistics().hit_rate == 0.0


def test_reading_an_age_does_not_save_from_eviction(cache):
    for key in "abc":
        cache.put(key, key, 10.0)
    assert cache.age_s("a") == 0.0
    cache.put("d", "d", 10.0)
    assert cache.get("a") is MISSING
    assert cache.get("b") == "b"


def test_what_was_received_before_it_was_put_is_as_old_as_that(cache, timer):
    cache.put("k", "v", 1.0, timer.now_s - 0.75)
    assert cache.age_s("k") == 0.75
    assert cache.get("k", 0.75) is MISSING
    assert cache.get("k") == "v"
    timer.now_s += 0.25
    assert cache.get("k") is MISSING


def test_looking_is_no_use_of_a_value(cache):
    """Neither counted, nor does it save it from eviction."""
    for key in "abc":
        cache.put(key, key, 10.0)
    assert cache.peek("a") == "a"
    assert cache.peek("z") is MISSING
    cache.put("d", "d", 10.0)
    assert cache.peek("a") is MISSING
    statistics = cache.statistics()
    assert (statistics.fast_hits, statistics.memory_hits, statistics.misses) == (0, 0, 0)


def test_what_a_stream_answered_counts_as_a_hit():
    assert CacheStatistics(1, 0, 2, 0, 0, live_hits=1).hit_rate == 0.5


def test_what_cannot_work_is_refused(timer):
    with pytest.raises(ValueError, match="maxsize must be at least 1, was 0"):
        ExpiringCache(timer, maxsize=0)
    with pytest.raises(ValueError, match="fast_s must be above 0, was 0"):
        ExpiringCache(timer, fast_s=0)


def test_one_entry_is_room_enough(timer):
    cache = ExpiringCache(timer, maxsize=1)
    cache.put("a", 1, 10.0)
    cache.put("b", 2, 10.0)
    assert (cache.get("a"), cache.get("b")) == (MISSING, 2)


def test_hits_are_counted_one_by_one(timer, cache):
    cache.put("a", 1, 10.0)
    cache.get("a")
    timer.now_s += 1.0
    for _ in range(3):
        cache.get("a")
    assert (cache.statistics().fast_hits, cache.statistics().memory_hits) == (1, 3)
