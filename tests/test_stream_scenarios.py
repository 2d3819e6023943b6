"""Whatever befalls the exchange, in whatever order: when it is over, everybody knows the truth, and nobody twice."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import EPOCH_MS, open_rig
from stream_checks import BUSIEST, begun_at, listening, lively

from marketpipe.sim import (
    ClockSkewFault,
    DownFault,
    DropFault,
    GarbageFault,
    HalfFault,
    HangFault,
    LatencyFault,
    StatusFault,
    WsCloseFault,
    WsDownFault,
    WsDripFault,
    WsDropFault,
    WsDuplicateFault,
    WsGarbageFault,
    WsHalfFault,
    WsMuteFault,
    WsRefuseFault,
    WsReorderFault,
    WsStallFault,
)
from marketpipe.status import SubscriptionState

STREAMS = ("trade", "ticker", "1s", "1m", "5m")
FAULTS_S = 20  # faults begin within it
LONGEST_S = 20
MENDED_S = 80.0  # back-off of up to 15 s, a ban, pages, and the oracle's own patience with bars of 15 s

TYPES = st.one_of(st.none(), st.sampled_from([("trade",), ("ticker",), ("candle",), ("trade", "candle")]))
SHARE = st.sampled_from([0.05, 0.3, 1.0])
LENGTH = st.integers(1, 2 * LONGEST_S).map(lambda halves: halves / 2)
CODES = st.sampled_from([("KRW-BTC",), ("KRW-ETH", "KRW-XRP"), BUSIEST])
AT_ONCE = st.one_of(
    st.builds(WsDropFault, types=TYPES),
    st.builds(WsCloseFault, types=TYPES, code=st.sampled_from([1000, 1001, 1006, 1011])),
    st.builds(WsHalfFault, types=TYPES, then=st.sampled_from(["drop", "silence"])),
    st.builds(StatusFault, status=st.just(418), body=st.just("Try again in 3 seconds"), count=st.just(1)),
    st.builds(WsGarbageFault, types=TYPES, what=st.sampled_from(["json", "utf8", "framing"]), count=st.integers(1, 5)),
)
LASTING = st.one_of(
    # Also those that are over before they can be noticed, which leave no trace on the connection.
    st.builds(WsStallFault, types=TYPES, pongs=st.booleans(), for_s=LENGTH),
    st.builds(WsMuteFault, types=TYPES, codes=CODES, for_s=LENGTH),
    st.builds(WsDownFault, for_s=LENGTH),
    st.builds(WsRefuseFault, status=st.sampled_from([503, 429, 500]), for_s=LENGTH),
    st.builds(DownFault, for_s=LENGTH),
    st.builds(
        WsDripFault, types=TYPES, bytes_per_s=st.sampled_from([500.0, 5_000.0]), chunk=st.just(200), for_s=LENGTH
    ),
    st.builds(WsReorderFault, types=TYPES, probability=SHARE, for_s=LENGTH),
    st.builds(WsDuplicateFault, types=TYPES, probability=SHARE, for_s=LENGTH),
    st.builds(ClockSkewFault, skew_ms=st.sampled_from([-60_000, -1_500, 1_500, 60_000]), for_s=LENGTH),
    st.builds(StatusFault, status=st.sampled_from([429, 500, 503]), probability=SHARE, for_s=LENGTH),
    st.builds(LatencyFault, latency_s=st.sampled_from([0.3, 3.0]), for_s=LENGTH),
    st.builds(HangFault, probability=SHARE, for_s=LENGTH),
    st.builds(DropFault, probability=SHARE, for_s=LENGTH),
    st.builds(HalfFault, probability=SHARE, for_s=LENGTH),
    st.builds(GarbageFault, probability=SHARE, for_s=LENGTH),
)
SCRIPT = st.lists(
    st.tuples(st.integers(0, 2 * FAULTS_S).map(lambda halves: halves / 2), st.one_of(AT_ONCE, LASTING)), max_size=6
)
MINUTE_MS = 60_000
# A bar of five minutes ends within the script; the second one is a midnight, and all ends with it.
BEGINNINGS = st.sampled_from(
    [EPOCH_MS - EPOCH_MS % (5 * MINUTE_MS) + 280_000, EPOCH_MS - EPOCH_MS % 86_400_000 + 86_380_000]
)


async def play(script, options):
    async with open_rig(streams=True, markets=40, ban_after=None, **options) as rig:
        names = lively(rig, 4)
        async with listening(rig, names, STREAMS) as ears:
            await trio.sleep(5)
            for after_s, fault in script:
                rig.sim.add_fault(attrs.evolve(fault, after_s=after_s))
            await trio.sleep(FAULTS_S + LONGEST_S + MENDED_S)
            return [*ears.flaws(), *unwell(rig.market.status())]


def unwell(status):
    """What is not as it was before it began."""
    for topic, state in status.subscriptions.items():
        if state.state not in (SubscriptionState.ACTIVE, SubscriptionState.STALE):  # the latter may pass any moment
            yield f"{topic}: {state}"
    if any(status.waiting.values()):
        yield f"questions wait: {status.waiting}"


def outcome(script, options, beginning):
    with begun_at(beginning):
        return trio.run(play, script, options, clock=trio.testing.MockClock(autojump_threshold=0))


OPTIONS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 3),
        "reordered": st.sampled_from([0.0, 0.3]),
        "duplicated": st.sampled_from([0.0, 0.3]),
        "window": st.sampled_from(["fixed", "rolling", "first"]),
        "jitter_s": st.sampled_from([0.0, 0.3]),
    }
)


@pytest.mark.slow
@pytest.mark.timeout(600)  # a failure is made as small as it can be, for five minutes at most
@settings(max_examples=max(10, settings.default.max_examples // 20))
@given(script=SCRIPT, options=OPTIONS, beginning=BEGINNINGS)
def test_any_script_of_faults_ends_with_the_truth(script, options, beginning):
    """Every bar equals the exchange's, every trade came once or is told to be gone; never over a limit."""
    assert outcome(script, options, beginning) == []
