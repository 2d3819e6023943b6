"""The keeper of a line: what it says, when it connects, what it makes of silence, and that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from keeper_rig import BTC, ETH, XRP, Kept, budgets_of, keeping, snapshots, value
from paper_streams import EPOCH_MS, PaperSession, PaperStream, Rest, greatest, moments, news, now_ms, silence
from trio.testing import MockClock

from marketpipe.actors.cache import Cache
from marketpipe.actors.desks import SnapshotDesk
from marketpipe.actors.hub import Hub
from marketpipe.actors.messages import Answered
from marketpipe.actors.watch import BLIND_S
from marketpipe.config import CacheOptions
from marketpipe.core.batching import Wanted
from marketpipe.core.expiring import MISSING
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import BadPayload, Banned, ExchangeError, ExchangeUnavailable, RateLimited
from marketpipe.models import Gap
from marketpipe.status import SubscriptionState

PENDING, ACTIVE, STALE = SubscriptionState.PENDING, SubscriptionState.ACTIVE, SubscriptionState.STALE
RECONNECTING, RELEASED = SubscriptionState.RECONNECTING, SubscriptionState.RELEASED
ERROR = SubscriptionState.ERROR

GONE = ExchangeUnavailable("the connection closed 1006")


def markets(topics: Collection[Topic]) -> list[str]:
    return sorted(topic.market for topic in topics)


def said(kept: Kept, connection: int = -1) -> list[tuple[float, list[str]]]:
    """The subscribe messages of a connection: when, and of which markets."""
    return [(round(at_s, 3), markets(topics)) for at_s, topics in kept.stream.sessions[connection].subscribed]


def mute(*never: str) -> Any:
    """Snapshots of everything but these."""

    def greet(session: PaperSession, new: Collection[Topic]) -> None:
        snapshots(session, [topic for topic in new if topic.market not in never])

    return greet


# -- what it says -----------------------------------------------------------------------------------------------


async def test_nothing_is_connected_before_something_is_wanted(autojump_clock):
    async with keeping() as kept:
        await trio.sleep(60)
        assert kept.stream.attempts_s == []
        kept.want(BTC)
        await trio.sleep(1)
        assert kept.stream.attempts_s == [60.0]


async def test_changes_within_a_fifth_of_a_second_are_one_message(autojump_clock):
    """Counted from the first of them; it connects meanwhile."""
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(0.1)
        kept.want(ETH)
        await trio.sleep(0.099)
        kept.want(XRP)
        await trio.sleep(1)
        assert said(kept) == [(0.2, [BTC, ETH, XRP])]
        assert kept.stream.attempts_s == [0.0]


async def test_every_message_carries_the_union_and_the_desk_knows_what_is_new(autojump_clock):
    async with keeping() as kept:
        first = kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.want(XRP)
        kept.demand.release(first)
        kept.want(ETH)
        await trio.sleep(1)
        assert said(kept) == [(0.2, [BTC, ETH]), (1.2, [ETH, XRP])]
        assert [(call.name, sorted(call.markets)) for call in kept.desk.told("new", "kept", "release")] == [
            ("new", [BTC, ETH]),
            ("release", [BTC]),
            ("new", [XRP]),
            ("kept", [ETH]),
        ]


async def test_what_changed_back_in_time_is_not_said(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.demand.release(kept.want(ETH))
        await trio.sleep(1)
        assert said(kept) == [(0.2, [BTC])]


async def test_what_changes_while_a_message_is_on_its_way_follows_it(autojump_clock):
    async with keeping(stream=PaperStream(snapshots, latency_s=0.5)) as kept:
        kept.want(BTC)
        await trio.sleep(0.7)
        kept.want(ETH)
        await trio.sleep(2)
        assert said(kept) == [(0.5, [BTC]), (1.0, [BTC, ETH])]


async def test_two_hundred_that_subscribe_at_once_are_one_message(autojump_clock):
    async with keeping() as kept, trio.open_nursery() as nursery:

        async def subscribe(name: str) -> None:
            kept.want(name)
            await kept.keeper.wait_shown(kept.topic(name))
            assert trio.current_time() < 1

        names = [f"KRW-{number}" for number in range(200)]
        for name in names:
            nursery.start_soon(subscribe, name)
    assert [len(told) for _, told in said(kept)] == [200]


@pytest.mark.slow
async def test_messages_never_exceed_what_a_connection_may_send(autojump_clock):
    """However fast the wishes change: 5 in any second, 100 in any minute, and no fewer than it may."""
    async with keeping(settle_s=0.0, stream=PaperStream(snapshots, latency_s=0.001)) as kept:
        for number in range(1_500):
            kept.want(f"KRW-{number}")
            await trio.sleep(0.1)
        await trio.sleep(70)
        times_s = [at_s for at_s, _ in kept.session.subscribed]
        assert greatest(times_s, 1.0) == 5
        assert greatest(times_s, 60.0) == 100
        assert len(kept.session.topics) == 1_500
        assert len(kept.stream.sessions) == 1
        assert kept.keeper.status().messages == len(times_s)


async def test_a_new_connection_may_say_as_much_as_a_new_one(autojump_clock):
    """The limits on messages are those of a connection (reference/rate-limits, 2026-10-07)."""
    async with keeping(messages_per_minute=1, draw=lambda: 0.0) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.session.end(GONE)
        await trio.sleep(1)
        assert len(kept.stream.sessions) == 2
        assert said(kept)[0][1] == [BTC]


async def test_whoever_leaves_while_a_message_waits_for_its_turn_is_not_in_it(autojump_clock):
    async with keeping(messages_per_minute=1) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        lease = kept.want(ETH)
        await trio.sleep(1)
        kept.demand.release(lease)
        kept.want(XRP)
        await trio.sleep(60)
        assert [told for _, told in said(kept)] == [[BTC], [BTC, XRP]]


async def test_it_closes_when_nobody_wants_anything_and_opens_again(autojump_clock):
    async with keeping() as kept:
        lease = kept.want(BTC)
        await trio.sleep(5)
        kept.demand.release(lease)
        await trio.sleep(5)
        assert kept.session.closed_s == pytest.approx(5.2)
        assert (kept.state().state, kept.state().reason) == (RELEASED, "nobody wants it any more")
        assert kept.keeper.status().connected_since_ms is None
        assert kept.keeper.status().losses == 0
        kept.want(ETH)
        await trio.sleep(5)
        assert said(kept) == [(10.2, [ETH])]
        assert [sorted(call.markets) for call in kept.desk.told("release")] == [[BTC]]


async def test_it_closes_when_whoever_wanted_it_has_left_before_anything_was_said(autojump_clock):
    async with keeping(stream=PaperStream(snapshots, latency_s=1.0)) as kept:
        with trio.move_on_after(0.5):
            kept.demand.release(kept.want(BTC))
            lease = kept.want(BTC)
            await kept.keeper.wait_shown(kept.topic(BTC))
        kept.demand.release(lease)
        await trio.sleep(2)
        assert said(kept) == []
        assert kept.session.closed_s == pytest.approx(1.0)
        assert kept.states() == {BTC: "released"}


async def test_whoever_was_cancelled_before_it_could_wait_leaves_no_trace(autojump_clock):
    async with keeping() as kept:
        with trio.CancelScope() as scope:
            scope.cancel()
            await kept.keeper.wait_shown(kept.topic(BTC))
        assert scope.cancelled_caught
        assert kept.states() == {}


async def test_a_wish_that_comes_while_it_closes_is_served(autojump_clock):
    async with keeping() as kept:
        lease = kept.want(BTC)
        await trio.sleep(5)
        kept.demand.release(lease)
        await trio.sleep(0.2)
        kept.want(ETH)
        await trio.sleep(5)
        assert said(kept)[-1][1] == [ETH]
        assert kept.states() == {BTC: "released", ETH: "active"}


async def test_all_may_leave_while_the_last_message_waits_for_its_turn(autojump_clock):
    async with keeping(messages_per_minute=1) as kept:
        first = kept.want(BTC)
        await trio.sleep(1)
        second = kept.want(ETH)
        await trio.sleep(1)
        kept.demand.release(first)
        kept.demand.release(second)
        await trio.sleep(120)
        assert kept.session.closed_s is not None
        assert set(kept.states().values()) == {"released"}
        assert len(kept.stream.sessions) == 1


# -- connecting -------------------------------------------------------------------------------------------------


async def test_connections_share_one_budget_with_other_lines_and_other_pipelines(autojump_clock):
    """Three keepers that fail at once, again and again: 5 attempts in any second, of all of them together."""
    budgets = budgets_of()
    refused = [ExchangeUnavailable("503", status=503) for _ in range(1000)]
    stream = PaperStream(snapshots, latency_s=0.0)
    stream.refusals.extend(refused)
    shared = {"stream": stream, "budgets": budgets, "draw": lambda: 0.0}
    async with (
        keeping(Line.TRADE, **shared) as one,
        keeping(Line.TICKER, **shared) as two,
        keeping(Line.CANDLE, **shared) as three,
    ):
        for kept in (one, two, three):
            kept.want(BTC)
        await trio.sleep(20)
        assert greatest(stream.attempts_s, 1.0) == 5
        assert len(stream.attempts_s) >= 95


async def test_a_slot_that_another_pipeline_gives_back_is_taken_at_once(autojump_clock):
    """Time alone would free none: somebody else is still connecting with it."""
    budgets = budgets_of(1)
    ticket = budgets.connects.acquire(0.0)
    assert ticket is not None
    async with keeping(budgets=budgets) as kept:
        kept.want(BTC)
        await trio.sleep(30)
        assert kept.stream.attempts_s == []
        budgets.connects.unsent(ticket, 30.0)
        budgets.changed()
        await trio.sleep(1)
        assert kept.stream.attempts_s == [30.0]
    assert budgets.listeners == []


async def test_others_hear_of_the_slot_that_it_gives_back(autojump_clock):
    budgets = budgets_of()
    heard: list[float] = []
    budgets.listeners.append(lambda: heard.append(trio.current_time()))
    stream = PaperStream(snapshots)
    stream.refusals.append(ExchangeUnavailable("503", status=503))
    async with keeping(stream=stream, budgets=budgets, draw=lambda: 0.0) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        assert heard == [0.02, 0.04]


@pytest.mark.parametrize(
    ("refusal", "free_at_once", "free_after_2_s"),
    [
        pytest.param(None, 4, 5, id="connected: counted at the exchange when it was answered"),
        pytest.param(ExchangeUnavailable("503", status=503), 4, 5, id="answered 503"),
        pytest.param(Banned("418", until_ms=EPOCH_MS + 60_000), 4, 5, id="answered 418"),
        pytest.param(ExchangeUnavailable("no route", sent=False), 5, 5, id="never sent"),
        pytest.param(ExchangeUnavailable("reset"), 4, 4, id="sent, no answer: it may still arrive"),
        pytest.param(RateLimited("429", retry_after_s=0.0), 0, 2, id="refused: all rest, then half of them"),
        pytest.param(RateLimited("429", retry_after_s=10.0), 0, 0, id="refused for ten seconds"),
    ],
)
async def test_the_slot_of_an_attempt_is_given_back_by_what_became_of_it(
    autojump_clock, refusal, free_at_once, free_after_2_s
):
    stream = PaperStream(snapshots, latency_s=0.5)
    if refusal is not None:
        stream.refusals.append(refusal)
    budgets = budgets_of()
    with trio.move_on_after(0.6):
        async with keeping(stream=stream, budgets=budgets, reconnect_base_s=100, reconnect_cap_s=100) as kept:
            kept.want(BTC)
            await trio.sleep(0.25)
            assert budgets.connects.statistics(trio.current_time()).in_flight == 1
            await trio.sleep_forever()
    statistics = budgets.connects.statistics(trio.current_time())
    assert statistics.in_flight == 0
    assert statistics.refused == isinstance(refusal, RateLimited)
    assert budgets.connects.available(trio.current_time()) == free_at_once
    await trio.sleep(2)
    assert budgets.connects.available(trio.current_time()) == free_after_2_s


async def test_the_slot_of_an_attempt_that_is_cancelled_rests_as_long_as_it_may_arrive(autojump_clock):
    budgets = budgets_of()
    with trio.move_on_after(0.25):
        async with keeping(stream=PaperStream(latency_s=0.5), budgets=budgets) as kept:
            kept.want(BTC)
            await trio.sleep_forever()
    assert budgets.connects.statistics(trio.current_time()).in_flight == 0
    for after_s, available in ((0.0, 4), (5.9, 4), (0.2, 5)):
        await trio.sleep(after_s)
        assert budgets.connects.available(trio.current_time()) == available


async def test_a_bug_while_connecting_gives_the_slot_back_and_is_not_hidden(autojump_clock):
    budgets, stream = budgets_of(), PaperStream()
    stream.refusals.append(ZeroDivisionError("a bug in the edge"))
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with keeping(stream=stream, budgets=budgets) as kept:
            kept.want(BTC)
            await trio.sleep(1)
    assert budgets.connects.statistics(trio.current_time()).in_flight == 0


async def test_the_pauses_between_attempts_grow_up_to_their_cap(autojump_clock):
    """Full jitter from 0.5 s on, doubled, up to 30 s; a draw of 0.5 waits for half of it."""
    stream = PaperStream(snapshots, latency_s=0.0)
    stream.refusals.extend(ExchangeUnavailable("503", status=503) for _ in range(9))
    async with keeping(stream=stream) as kept:
        kept.want(BTC)
        await trio.sleep(100)
        pauses = [round(later - earlier, 6) for earlier, later in pairwise(stream.attempts_s)]
        assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


@pytest.mark.parametrize(
    ("lasts_s", "pauses"),
    [
        pytest.param(9.5, [0.25, 0.5, 1.0], id="gone before it was stable"),
        pytest.param(10.5, [0.25, 0.25, 0.25], id="it had lasted: begin anew"),
    ],
)
async def test_only_a_connection_that_lasted_makes_the_pauses_short_again(autojump_clock, lasts_s, pauses):
    stream = PaperStream(snapshots, latency_s=0.0)
    async with keeping(stream=stream) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        lost_s = []
        for _ in range(3):
            await kept.flow(BTC, every_s=0.1, for_s=lasts_s - (trio.current_time() - kept.session.opened_s))
            lost_s.append(trio.current_time())
            kept.session.end(GONE)
            await trio.sleep(1.5)
        assert [round(next_s - at_s, 6) for at_s, next_s in zip(lost_s, stream.attempts_s[1:], strict=True)] == pauses


async def test_closing_for_want_of_wishes_is_no_failure(autojump_clock):
    """Whoever comes back is not made to wait for the failures before."""
    stream = PaperStream(snapshots, latency_s=0.0)
    stream.refusals.extend(ExchangeUnavailable("503", status=503) for _ in range(4))
    async with keeping(stream=stream) as kept:
        lease = kept.want(BTC)
        await trio.sleep(5)
        kept.demand.release(lease)
        await trio.sleep(1)
        kept.want(BTC)
        await trio.sleep(1)
        kept.session.end(GONE)
        await trio.sleep(1)
        assert stream.attempts_s[-1] == pytest.approx(7.25)


async def test_a_block_told_on_the_upgrade_is_waited_out(autojump_clock):
    stream = PaperStream(snapshots, latency_s=0.0)
    stream.refusals.append(Banned("418", until_ms=EPOCH_MS + 90_000))
    async with keeping(stream=stream) as kept:
        kept.want(BTC)
        await trio.sleep(100)
        assert stream.attempts_s == [0.0, 90.0]


async def test_a_block_of_rest_does_not_keep_the_streams_away(autojump_clock):
    """What may be asked of REST is one thing, and connecting another."""
    stream, budgets = PaperStream(snapshots, latency_s=0.0), budgets_of()
    stream.refusals.append(ExchangeUnavailable("503", status=503))
    async with keeping(stream=stream, budgets=budgets) as kept:
        budgets.ban.ban(0.0, 45.0)
        kept.want(BTC)
        await trio.sleep(100)
        assert stream.attempts_s == [0.0, 0.25]


async def test_nobody_is_connected_for_whoever_left_during_the_pause(autojump_clock):
    stream = PaperStream(snapshots, latency_s=0.0)
    stream.refusals.append(Banned("418", until_ms=EPOCH_MS + 90_000))
    async with keeping(stream=stream) as kept:
        lease = kept.want(BTC)
        await trio.sleep(10)
        assert (kept.state().state, kept.state().reason) == (RECONNECTING, "418")
        kept.demand.release(lease)
        await trio.sleep(100)
        assert stream.attempts_s == [0.0]
        assert kept.state().state is RELEASED


# -- states -----------------------------------------------------------------------------------------------------


async def test_each_state_says_why_and_since_when(autojump_clock):
    stream = PaperStream(latency_s=0.5)
    async with keeping(stream=stream) as kept:

        def state() -> tuple[SubscriptionState, str, float]:
            status = kept.state()
            return status.state, status.reason, (status.since_ms - EPOCH_MS) / 1000

        lease = kept.want(BTC)
        assert state() == (PENDING, "not connected yet", 0.0)
        await trio.sleep(1.1)
        assert state() == (PENDING, "subscribed, nothing shown yet", 0.0)
        kept.show(BTC)
        await trio.sleep(0.1)
        assert state() == (ACTIVE, "", 1.1)
        assert kept.keeper.is_active(kept.topic(BTC))
        kept.rest.latency_s = 0.1
        await trio.sleep(2.0)
        assert state() == (STALE, "no frame for 2.0 s", 3.1)
        assert not kept.keeper.is_active(kept.topic(BTC))
        await trio.sleep(1.0)
        assert state() == (ACTIVE, "checked: no news", 3.7)
        kept.session.end(GONE)
        await trio.sleep(0.1)
        assert state() == (RECONNECTING, str(GONE), 4.2)
        assert kept.keeper.status().last_loss == str(GONE)
        kept.demand.release(lease)
        await trio.sleep(5)
        assert state()[:2] == (RELEASED, "nobody wants it any more")
        assert (kept.state().leases, kept.state().hot) == (0, False)


async def test_what_is_wanted_again_is_not_called_released(autojump_clock):
    """Also while there is no connection on which it could be asked for."""
    stream = PaperStream(snapshots)
    async with keeping(stream=stream) as kept:
        kept.demand.release(kept.want(BTC))
        await trio.sleep(1)
        lease = kept.want(BTC)
        await trio.sleep(1)
        kept.demand.release(lease)
        await trio.sleep(1)
        stream.refusals.append(Banned("418", until_ms=EPOCH_MS + 90_000))
        kept.want(ETH)
        await trio.sleep(1)
        kept.want(BTC)
        await trio.sleep(1)
        assert kept.states() == {BTC: "pending", ETH: "reconnecting"}


async def test_what_nobody_wanted_any_more_when_the_connection_was_lost_is_released(autojump_clock):
    """The message that would have said so was never sent."""
    async with keeping() as kept:
        kept.want(BTC)
        lease = kept.want(ETH)
        await trio.sleep(1)
        kept.session.end(GONE)
        await trio.sleep(0.1)
        kept.demand.release(lease)
        await trio.sleep(5)
        assert kept.states() == {BTC: "active", ETH: "released"}
        assert sorted(kept.desk.last("release").markets) == [ETH]


async def test_what_consumers_still_wait_for_is_known(autojump_clock):
    """Not what is only read often, nor what has shown something, nor what has nothing to show."""
    async with keeping(stream=PaperStream(mute(BTC, XRP)), rest=Rest(moments({ETH: 1, XRP: None}))) as kept:
        kept.want(BTC, ETH, XRP)
        for _ in range(3):
            kept.demand.read(kept.topic("KRW-DOGE"), trio.current_time())
        assert markets(kept.keeper.unshown()) == [BTC, ETH, XRP]
        await trio.sleep(1)
        assert markets(kept.keeper.unshown()) == [BTC, XRP]
        await kept.flow(ETH, every_s=0.25, for_s=5)
        assert markets(kept.keeper.unshown()) == [BTC]


async def test_a_topic_begins_once_for_as_long_as_it_is_wanted(autojump_clock):
    """Over all its connections, and with the first that it shows."""
    async with keeping(stream=PaperStream(mute(ETH))) as kept:
        lease = kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.show(BTC)
        kept.session.end(GONE)
        await trio.sleep(1)
        assert kept.begun == [kept.topic(BTC)]
        kept.show(ETH, BTC, ETH)
        await trio.sleep(0.1)
        assert kept.begun == [kept.topic(BTC), kept.topic(ETH)]
        kept.demand.release(lease)
        await trio.sleep(1)
        kept.want(BTC)
        await trio.sleep(1)
        assert kept.begun[2:] == [kept.topic(BTC)]


async def test_the_status_counts_what_happened(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        assert kept.keeper.status().last_frame_age_s == pytest.approx(0.78)
        kept.show(BTC, BTC)
        kept.session.end(GONE)
        await trio.sleep(0.1)
        status = kept.keeper.status()
        assert (status.connects, status.messages, status.frames, status.losses) == (1, 1, 3, 1)
        assert status.connected_since_ms is None
        assert status.reconnects == 0
        await trio.sleep(1)
        status = kept.keeper.status()
        assert (status.connects, status.messages, status.reconnects) == (2, 2, 1)
        assert status.connected_since_ms == EPOCH_MS + round(kept.session.opened_s * 1000)


async def test_a_connection_that_was_closed_for_want_of_listeners_is_not_made_again(autojump_clock):
    async with keeping() as kept:
        for connects in (1, 2, 3):
            lease = kept.want(BTC)
            await trio.sleep(5)
            kept.demand.release(lease)
            await trio.sleep(5)
            status = kept.keeper.status()
            assert (status.connects, status.losses, status.reconnects) == (connects, 0, 0)
        kept.want(BTC)
        for reconnects in (1, 2):
            await trio.sleep(60)
            kept.session.end(GONE)
            await trio.sleep(60)
            status = kept.keeper.status()
            assert (status.connects, status.losses, status.reconnects) == (4 + reconnects, reconnects, reconnects)


async def test_the_status_of_a_line_that_heard_nothing_says_so(autojump_clock):
    async with keeping() as kept:
        assert kept.keeper.status().last_frame_age_s is None


# -- what arrives -----------------------------------------------------------------------------------------------


async def test_frames_reach_the_desk_in_the_batches_in_which_they_came(autojump_clock):
    async with keeping(stream=PaperStream()) as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        values = [value(Line.TRADE, name, EPOCH_MS + number) for number, name in enumerate((BTC, ETH, BTC))]
        kept.session.show(*values[:2])
        kept.session.show(values[2])
        await trio.sleep(0.1)
        assert kept.desk.frames == values
        assert [sorted(call.markets) for call in kept.desk.told("take")] == [[BTC, ETH], [BTC]]


async def test_what_is_left_over_from_a_replaced_subscription_is_not_taken(autojump_clock):
    """It shows that the connection lives, and nothing else."""
    async with keeping() as kept:
        kept.want(BTC)
        lease = kept.want(ETH)
        await trio.sleep(1)
        kept.demand.release(lease)
        await trio.sleep(0.9)
        before = len(kept.desk.frames)
        for _ in range(20):
            kept.show(ETH)
            await trio.sleep(0.5)
        assert len(kept.desk.frames) == before
        assert kept.state(ETH).state is RELEASED
        assert kept.desk.told("suspend") == []


async def test_bars_are_told_apart_by_their_timeframe(autojump_clock):
    async with keeping(Line.CANDLE) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        before = len(kept.desk.frames)
        bar = value(Line.CANDLE)
        kept.session.show(attrs.evolve(bar, timeframe="5m"), bar)
        await trio.sleep(0.1)
        assert kept.desk.frames[before:] == [bar]


async def test_what_arrives_as_the_line_is_given_up_is_nobodys(autojump_clock):
    """Of a market that was released nothing must become current again, whoever runs first."""
    orders = set()
    for _ in range(20):
        async with keeping() as kept:
            lease = kept.want(BTC)
            await trio.sleep(1)
            session, settled_s = kept.session, trio.current_time() + 0.2
            kept.demand.release(lease)
            await trio.sleep_until(settled_s)
            session.show(value(Line.TRADE))
            await trio.sleep(1)
            orders.add(tuple(call.name for call in kept.desk.told("take", "release")))
    assert orders <= {("take", "release"), ("take", "take", "release")}


async def test_an_unreadable_frame_hurts_only_its_market(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.session.show(BadPayload("no number", field="trade_price", market=BTC), value(Line.TRADE, ETH))
        await trio.sleep(0.1)
        assert kept.states() == {BTC: "error", ETH: "active"}
        assert kept.state().reason == "KRW-BTC field 'trade_price': no number"
        (call,) = kept.desk.told("spoiled")
        assert (sorted(call.markets), call.start_ms) == ([BTC], now_ms(1.0))
        assert "unreadable frame" in call.cause
        assert kept.desk.frames[-1].market == ETH
        kept.show(BTC)
        await trio.sleep(0.1)
        assert kept.states() == {BTC: "active", ETH: "active"}
        assert kept.keeper.status().unreadable == 1
        assert len(kept.stream.sessions) == 1


async def test_what_came_before_an_unreadable_frame_is_taken_before_it(autojump_clock):
    """Or the frame before would be taken for the one that heals."""
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.session.show(value(Line.TRADE), BadPayload("no number", market=BTC))
        await trio.sleep(0.1)
        assert [call.name for call in kept.desk.told("take", "spoiled")] == ["take", "take", "spoiled"]
        kept.session.show(BadPayload("no number", market=BTC), value(Line.TRADE))
        await trio.sleep(0.1)
        assert [call.name for call in kept.desk.told("take", "spoiled")][3:] == ["spoiled", "take"]
        assert kept.state().state is ACTIVE


async def test_an_unreadable_frame_that_names_no_market_is_counted(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.session.show(BadPayload("what is this"))
        await trio.sleep(0.1)
        assert kept.state().state is ACTIVE
        assert kept.keeper.status().unreadable == 1


async def test_a_market_with_an_unreadable_frame_heals_after_a_new_subscription_too(autojump_clock):
    async with keeping(stream=PaperStream(mute(BTC))) as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.show(BTC)
        await trio.sleep(0.1)
        kept.session.show(BadPayload("no number", market=BTC))
        await trio.sleep(0.1)
        kept.want(XRP)
        await trio.sleep(0.5)
        assert kept.state().state is ERROR
        kept.show(BTC)
        await trio.sleep(0.1)
        assert kept.state().state is ACTIVE


async def test_an_unreadable_frame_stays_the_reason_whatever_a_check_finds(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.session.show(BadPayload("no number", market=BTC))
        await trio.sleep(10.5)
        assert kept.desk.told("resume")
        assert kept.states() == {BTC: "error", ETH: "active"}


async def test_an_unreadable_frame_stays_the_reason_where_nothing_can_be_checked(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.session.show(BadPayload("no number", market=BTC))
        kept.rest.deaf = True
        await trio.sleep(3.75)
        assert kept.states() == {BTC: "error", ETH: "stale"}
        assert "not checked" in kept.state(ETH).reason
        assert kept.state().reason == "KRW-BTC: no number"


async def test_what_cannot_be_read_of_one_market_is_no_stall_of_all(autojump_clock):
    """REST is ahead of what was read of it, of course: the connection goes on for the others."""
    async with keeping() as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.session.show(BadPayload("no number", market=BTC))
        kept.rest.answer = moments({BTC: EPOCH_MS + 1_000, ETH: EPOCH_MS})
        await trio.sleep(60.5)
        assert len(kept.stream.sessions) == 1
        assert kept.states() == {BTC: "error", ETH: "active"}


async def test_a_snapshot_that_cannot_be_read_is_no_stall_of_all(autojump_clock):
    def greet(session: PaperSession, new: Collection[Topic]) -> None:
        mute(BTC)(session, new)
        session.show(BadPayload("no number", market=BTC))

    async with keeping(stream=PaperStream(greet)) as kept:
        kept.want(BTC, ETH)
        await trio.sleep(60.5)
        assert len(kept.stream.sessions) == 1
        assert kept.states() == {BTC: "error", ETH: "active"}


async def test_a_line_that_goes_dead_after_an_unreadable_frame_is_noticed(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.session.show(BadPayload("no number", market=BTC))
        await trio.sleep(0.1)
        kept.rest.answer = lambda key: news(key, now_ms() - 1_000)
        await trio.sleep(2.5)
        assert kept.keeper.status().losses == 1


# -- silence ----------------------------------------------------------------------------------------------------


async def test_silence_is_doubted_at_once_and_believed_when_rest_has_nothing_either(autojump_clock):
    async with keeping(stream=PaperStream(snapshots, latency_s=0.1)) as kept:
        kept.want(BTC, ETH)
        await trio.sleep(5)
        suspended, resumed = kept.desk.told("suspend")[0], kept.desk.told("resume")[0]
        assert (suspended.at_s, sorted(suspended.markets)) == (pytest.approx(2.3), [BTC, ETH])
        assert kept.session.pings_s[0] == pytest.approx(2.3)
        # A ping and a question to REST later.
        assert (resumed.at_s, sorted(resumed.markets)) == (pytest.approx(2.42), [BTC, ETH])
        assert {key.market for _, key in kept.rest.asked} == {BTC, ETH}
        # The next doubt is due two seconds after this one was asked.
        assert kept.desk.told("suspend")[1].at_s == pytest.approx(4.3)
        assert kept.keeper.status().losses == 0


@pytest.mark.parametrize("line", list(Line))
async def test_silence_where_rest_has_news_is_a_stall(autojump_clock, line):
    """Known within five seconds of the last frame; then a new connection shows how things are."""
    async with keeping(line) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.show(BTC)
        await trio.sleep(0.5)
        kept.rest.answer = lambda key: news(key, EPOCH_MS + 1_200)
        while not kept.desk.told("lost"):
            await trio.sleep(0.1)
            assert trio.current_time() < 6.0
        lost = kept.desk.last("lost")
        assert "stalled: no frame for" in lost.cause
        assert lost.start_ms is not None
        assert lost.start_ms <= EPOCH_MS + 1_200
        groups = {key.group.value for _, key in kept.rest.asked if isinstance(key, Wanted)}
        assert groups == {"orderbook" if line is Line.ORDERBOOK else "ticker"}
        await trio.sleep(2)
        assert len(kept.stream.sessions) == 2
        assert kept.state().state is ACTIVE


async def test_a_line_that_stalls_as_a_whole_again_and_again_is_no_markets_fault(autojump_clock):
    """None of them is set aside for it, though each connection shows a snapshot and nothing else."""
    async with keeping() as kept:
        kept.want(BTC, ETH)
        kept.rest.answer = lambda key: news(key, now_ms() - 1_000)
        for _ in range(60):
            await trio.sleep(1)
            assert ERROR not in {status.state for status in kept.keeper.subscriptions().values()}
        assert kept.keeper.status().losses >= 5
        assert "stalled: no frame for 2.0 s" in kept.keeper.status().last_loss


async def test_nothing_is_vouched_for_while_news_may_be_on_their_way(autojump_clock):
    """A bar that ended just now must not become final without its last trade."""
    async with keeping(Line.CANDLE) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.show(BTC)
        kept.rest.answer = lambda key: news(key, EPOCH_MS + 1_700)
        await trio.sleep(3.0)
        assert kept.state().state is STALE
        assert kept.desk.last("proven").start_ms == now_ms(1.0)
        kept.rest.answer = lambda key: news(key, EPOCH_MS + 900)
        kept.show(BTC)
        await trio.sleep(0.2)
        assert kept.state().state is ACTIVE
        await trio.sleep(0.5)
        assert kept.desk.last("proven").start_ms == now_ms(kept.desk.told("suspend")[0].at_s)


async def test_a_missing_pong_is_a_stall(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.show(BTC)
        kept.stream.pongs = False
        await trio.sleep(4.6)
        (lost,) = kept.desk.told("lost")
        assert lost.at_s == pytest.approx(1.0 + 2.0 + 1.5)
        assert lost.cause == "no pong"
        assert lost.start_ms == now_ms(1.0)


async def test_a_silence_that_nobody_vouches_for_is_stale_for_as_long(autojump_clock):
    """A connection that answers pings is not given up because REST is in trouble; nor are its values current."""
    async with keeping() as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.show(BTC)
        kept.rest.deaf = True
        await trio.sleep(25)
        assert kept.keeper.status().losses == 0
        assert kept.states() == {BTC: "stale", ETH: "stale"}
        reasons = set()
        for _ in range(40):
            reasons.add(kept.state().reason.partition(", and ")[2])
            await trio.sleep(0.1)
        assert "not checked: silent, and REST does not answer within 1.5 s either" in reasons
        assert kept.desk.told("resume") == []
        assert kept.desk.last("proven").start_ms == now_ms(1.0)
        assert len(kept.session.pings_s) > 5  # it is looked at all the time
        kept.show(ETH)
        await trio.sleep(0.1)
        assert kept.states() == {BTC: "stale", ETH: "active"}
        kept.rest.deaf = False
        await trio.sleep(4.5)
        assert kept.states() == {BTC: "active", ETH: "active"}
        assert kept.desk.told("resume")


async def test_pings_decide_while_rest_cannot(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.show(BTC)
        kept.rest.deaf = True
        await trio.sleep(10)
        kept.stream.pongs = False
        await trio.sleep(5)
        assert kept.keeper.status().last_loss == "no pong"


async def test_what_used_to_flow_and_was_silent_for_long_is_given_up_without_rest(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        await kept.flow(BTC, every_s=0.5, for_s=60)
        last_s = trio.current_time() - 0.5
        kept.rest.deaf = True
        await trio.sleep(28)
        assert kept.keeper.status().losses == 0
        await trio.sleep(8)
        assert kept.keeper.status().losses == 1
        assert 30.0 <= kept.desk.told("lost")[0].at_s - last_s <= 35.0


@pytest.mark.parametrize(
    ("every_s", "losses"),
    [pytest.param(1.0, 1, id="two frames in three seconds"), pytest.param(1.9, 0, id="one frame in three seconds")],
)
async def test_whether_a_line_flowed_is_told_by_its_mean_since_it_was_connected(autojump_clock, every_s, losses):
    """The silence included: it flowed for a minute of the last one and a half."""
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        await kept.flow(BTC, every_s=every_s, for_s=60)
        kept.rest.deaf = True
        await trio.sleep(38)
        assert kept.keeper.status().losses == losses


async def test_what_an_earlier_connection_has_shown_is_no_flow_of_this_one(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        await kept.flow(BTC, every_s=0.1, for_s=60)
        kept.session.end(GONE)
        await trio.sleep(1)
        kept.rest.deaf = True
        await trio.sleep(100)
        assert kept.keeper.status().last_loss == str(GONE)
        assert kept.state().state is STALE


async def test_the_silence_of_an_earlier_connection_is_no_silence_of_this_one(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(300)
        kept.session.end(GONE)
        await trio.sleep(1)
        await kept.flow(BTC, every_s=1.0, for_s=60)
        kept.rest.deaf = True
        await trio.sleep(38)
        assert kept.keeper.status().losses == 2
        assert "REST does not answer" in kept.keeper.status().last_loss


async def test_the_long_silence_of_one_market_is_not_that_of_the_line(autojump_clock):
    """However long it is, and whatever REST does: the others show that the connection lives."""
    async with keeping(silence_s=BLIND_S + 1) as kept:
        await busy(kept)
        kept.rest.deaf = True
        await kept.flow(ETH, every_s=0.5, for_s=BLIND_S + 10)
        assert f"no frame of KRW-BTC for {BLIND_S + 1:.0f}." in kept.state().reason
        assert "not checked" in kept.state().reason
        assert kept.keeper.status().losses == 0


async def test_what_never_flowed_is_not_given_up_without_rest(autojump_clock):
    """Thin markets are silent for minutes, and a new connection would tell no more."""
    async with keeping() as kept:
        kept.want(BTC)
        kept.rest.deaf = True
        await trio.sleep(300)
        assert kept.keeper.status().losses == 0
        assert kept.state().state is STALE


async def test_a_busy_market_of_which_rest_cannot_tell_is_stale_alone(autojump_clock):
    async with keeping() as kept:
        await busy(kept)
        kept.rest.deaf = True
        await kept.flow(ETH, every_s=0.5, for_s=20)
        assert kept.states() == {BTC: "stale", ETH: "active"}
        assert kept.keeper.status().losses == 0
        kept.show(BTC)
        await trio.sleep(0.1)
        assert kept.state().state is ACTIVE


async def test_rest_that_only_fails_vouches_for_nothing(autojump_clock):
    def down(key: Any) -> Any:
        raise ExchangeUnavailable("HTTP 503", status=503)

    async with keeping(rest=Rest(down)) as kept:
        kept.want(BTC)
        await trio.sleep(3)
        assert "and not checked: silent, and REST does not know better: HTTP 503" in kept.state().reason


async def test_rest_that_cannot_be_read_vouches_for_nothing(autojump_clock):
    """Nor does one that has no row of any of them."""

    def garbage(key: Any) -> Any:
        raise BadPayload("no JSON")

    for answer, words in (
        (garbage, "REST does not know better: no JSON"),
        (moments({BTC: None}), "REST cannot be read: KRW-BTC: the answer has no row for this market"),
    ):
        async with keeping(rest=Rest(answer)) as kept:
            kept.want(BTC)
            await trio.sleep(3)
            assert f"and not checked: silent, and {words}" in kept.state().reason


async def test_a_market_that_is_not_listed_any_more_is_not_waited_for(autojump_clock):
    """Its silence is believed, its value is not current any more, and the others go on."""
    async with keeping(rest=Rest(moments({BTC: EPOCH_MS}))) as kept:
        kept.want(BTC, ETH)
        await trio.sleep(14)
        assert kept.gone == []  # one list alone may lack it by mistake
        await trio.sleep(6)
        assert kept.gone == [kept.topic(ETH)]
        assert sorted(kept.desk.last("resume").markets) == [BTC]
        assert kept.states() == {BTC: "active", ETH: "error"}
        assert "does not list it" in kept.state(ETH).reason
        await trio.sleep(60)
        assert kept.gone == [kept.topic(ETH)]
        assert kept.keeper.status().losses == 0
        # On a new connection the reason is still the same.
        kept.stream.greet = mute(ETH)
        kept.session.end(GONE)
        await trio.sleep(10)
        assert kept.states() == {BTC: "active", ETH: "error"}
        assert "does not list it" in kept.state(ETH).reason
        kept.show(ETH)
        await trio.sleep(0.1)
        assert kept.state(ETH).state is ACTIVE


async def test_the_value_of_a_delisted_market_that_an_audit_found_ages(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.rest.answer = moments({BTC: EPOCH_MS})
        await kept.flow(BTC, every_s=0.25, for_s=62)
        assert kept.states() == {BTC: "active", ETH: "error"}
        assert [sorted(call.markets) for call in kept.desk.told("suspend")] == [[ETH]]


async def test_a_delisted_market_that_was_released_meanwhile_is_left_alone(autojump_clock):
    async with keeping(rest=Rest(moments({BTC: EPOCH_MS}), latency_s=1.0)) as kept:
        kept.want(BTC)
        lease = kept.want(ETH)
        while len(kept.rest.asked) < 2 or kept.rest.asked[-1][0] < kept.rest.asked[0][0] + 14.9:
            await trio.sleep(0.1)
            assert trio.current_time() < 30
        kept.demand.release(lease)
        await trio.sleep(1.5)
        assert kept.gone == []
        assert kept.states() == {BTC: "active", ETH: "released"}


async def test_a_stall_is_found_where_something_always_has_just_happened(autojump_clock):
    """REST shows a trade of this very moment whenever it is asked: it must come over the stream, and does not."""
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.show(BTC)
        kept.rest.answer = lambda key: news(key, now_ms() - 50)
        await trio.sleep(5)
        assert kept.keeper.status().losses == 1
        assert kept.desk.told("lost")[0].start_ms == now_ms(1.0)


async def test_news_that_come_a_moment_later_are_no_stall(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        kept.rest.answer = lambda key: news(key, now_ms() - 50)
        for _ in range(5):
            await trio.sleep(2.8)
            kept.show(BTC)
        await trio.sleep(0.2)
        assert kept.desk.told("suspend")
        assert len(kept.desk.told("suspend")) == len(kept.desk.told("resume"))
        assert kept.keeper.status().losses == 0


async def busy(kept: Kept) -> None:
    """A market every 0.4 s beside one every second, until it is known that they are busy."""
    kept.want(BTC, ETH)
    await trio.sleep(1)
    for beat in range(25):
        kept.show(BTC, *([ETH] if beat % 2 == 0 else []))
        await trio.sleep(0.4)


async def test_a_busy_market_that_falls_silent_is_checked_alone(autojump_clock):
    """The others show that the connection lives; nothing of theirs is doubted."""
    async with keeping() as kept:
        await busy(kept)
        last_s = trio.current_time() - 0.4
        kept.rest.answer = moments({BTC: now_ms(last_s)})
        await kept.flow(ETH, every_s=0.5, for_s=5)
        first = kept.desk.told("suspend")[0]
        assert sorted(first.markets) == [BTC]
        assert 2.0 <= first.at_s - last_s <= 4.0
        assert kept.session.pings_s == []
        assert {tuple(sorted(call.markets)) for call in kept.desk.told("suspend", "resume")} == {(BTC,)}
        assert kept.keeper.status().losses == 0
        assert kept.states() == {BTC: "active", ETH: "active"}


async def test_a_busy_market_that_is_kept_from_us_costs_a_new_connection(autojump_clock):
    """What was shown of it last is the last that is certain of it; of the others it is their last frame."""
    async with keeping() as kept:
        await busy(kept)
        shown_ms = kept.desk.shown[BTC]
        kept.rest.answer = lambda key: news(key, now_ms() - 1_000 if key.market == BTC else EPOCH_MS)
        began_s = trio.current_time()
        while not kept.desk.told("lost"):
            kept.show(ETH)
            await trio.sleep(0.25)
            assert trio.current_time() - began_s < 5
        starts = {name: call.start_ms for call in kept.desk.told("lost") for name in call.markets}
        assert starts[BTC] == shown_ms
        assert starts[ETH] > shown_ms + 1_000
        assert kept.keeper.status().losses == 1


async def test_a_market_set_aside_does_not_hold_up_the_others(autojump_clock):
    """Muted on one connection, and on the next as well: the line goes on without it until it is heard again."""
    stream = PaperStream(snapshots)
    async with keeping(stream=stream) as kept:
        await busy(kept)
        stream.greet = mute(BTC)
        kept.rest.answer = lambda key: news(key, now_ms() - 1_000 if key.market == BTC else EPOCH_MS)
        await kept.flow(ETH, every_s=0.25, for_s=60)
        assert len(stream.sessions) == 2
        assert kept.states() == {BTC: "error", ETH: "active"}
        assert kept.state().reason == "the exchange trades it, and does not send it"
        losses = len(kept.desk.told("lost"))
        aside = kept.desk.last("lost")
        assert (sorted(aside.markets), aside.cause) == ([BTC], "the exchange does not send it")
        kept.show(BTC)
        await trio.sleep(0.1)
        assert kept.state().state is ACTIVE
        # Nobody would notice any more that no snapshot comes.
        assert [sorted(call.markets) for call in kept.desk.told("silent")][-1] == [BTC]
        await kept.flow(BTC, ETH, every_s=0.25, for_s=60)
        assert len(kept.desk.told("lost")) == losses
        assert len(stream.sessions) == 2
        # And it is watched again.
        await kept.flow(ETH, every_s=0.25, for_s=6)
        assert len(stream.sessions) == 3
        assert "no frame of KRW-BTC" in kept.keeper.status().last_loss


async def test_a_market_set_aside_that_is_not_listed_any_more_is_gone(autojump_clock):
    """Nobody waits for it, on this connection or on the next, and still somebody notices."""
    stream = PaperStream(snapshots)
    async with keeping(stream=stream) as kept:
        await busy(kept)
        stream.greet = mute(BTC)
        kept.rest.answer = lambda key: news(key, now_ms() - 1_000 if key.market == BTC else EPOCH_MS)
        await kept.flow(ETH, every_s=0.25, for_s=20)
        assert kept.states() == {BTC: "error", ETH: "active"}
        kept.session.end(GONE)
        kept.rest.answer = moments({ETH: EPOCH_MS})
        await kept.flow(ETH, every_s=0.25, for_s=40)
        assert kept.gone == [kept.topic(BTC)]
        assert "does not list it" in kept.state(BTC).reason
        told = len(kept.gone)
        await kept.flow(ETH, every_s=0.25, for_s=60)
        assert len(kept.gone) == told
        assert all(call.markets == {ETH} for call in kept.desk.told("audited")[-3:])


async def test_what_the_exchange_does_not_send_is_subscribed_anew_ever_more_rarely(autojump_clock):
    """On the connection that there is: for the others it is as good as any."""
    stream = PaperStream(snapshots)
    async with keeping(stream=stream) as kept:
        await busy(kept)
        stream.greet = mute(BTC)
        kept.rest.answer = lambda key: news(key, now_ms() - 1_000 if key.market == BTC else EPOCH_MS)
        await kept.flow(ETH, every_s=0.25, for_s=20)
        assert kept.states() == {BTC: "error", ETH: "active"}
        since_s = kept.session.subscribed[-1][0]
        await kept.flow(ETH, every_s=0.25, for_s=2_000)
        assert len(stream.sessions) == 2
        pauses = [later - earlier for (earlier, _), (later, _) in pairwise(kept.session.subscribed)]
        expected = [60, 120, 240, 480, 600]
        assert pauses[0] - 60 < 20, "it was set aside some time after it was subscribed"
        assert [round(pause_s, -1) for pause_s in pauses[1:]] == expected[1:]
        assert kept.session.subscribed[0][0] == since_s
        assert {topics for _, topics in kept.session.subscribed} == {frozenset(map(kept.topic, (BTC, ETH)))}


async def test_a_market_that_shows_snapshots_and_nothing_else_is_not_worth_a_connection(autojump_clock):
    """Each new one shows what is newest, and then it is silent again."""
    stream = PaperStream(snapshots)
    async with keeping(stream=stream) as kept:
        await busy(kept)
        kept.rest.answer = lambda key: news(key, now_ms() - 1_000 if key.market == BTC else EPOCH_MS)
        await kept.flow(ETH, every_s=0.25, for_s=300)
        assert len(stream.sessions) == 2
        assert kept.states() == {BTC: "error", ETH: "active"}
        # Told once, it is like any other.
        kept.show(BTC)
        kept.rest.answer = lambda key: news(key, EPOCH_MS)
        await kept.flow(ETH, every_s=0.25, for_s=30)
        assert kept.state().state is ACTIVE
        kept.rest.answer = lambda key: news(key, now_ms() - 1_000 if key.market == BTC else EPOCH_MS)
        await kept.flow(ETH, every_s=0.25, for_s=20)
        assert len(stream.sessions) == 3, "it has its chance again"


async def test_what_had_nothing_to_show_is_audited_too(autojump_clock):
    """It is listed, it had no trade; now it has, and the stream says nothing of it."""
    async with keeping(stream=PaperStream(mute(ETH)), rest=Rest(moments({BTC: EPOCH_MS, ETH: None}))) as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        await kept.flow(BTC, every_s=0.25, for_s=8)
        assert kept.state(ETH).reason == "listed, but the exchange has nothing to show of it yet"
        kept.rest.answer = moments({BTC: EPOCH_MS, ETH: EPOCH_MS + 9_000})
        await kept.flow(BTC, every_s=0.25, for_s=15)
        assert kept.keeper.status().last_loss == "stalled: trade KRW-ETH has traded, and nothing of it was sent"


async def test_an_audit_that_waits_does_not_hold_up_a_check(autojump_clock):
    """The line is late with something, and falls silent at the very moment."""
    async with keeping(Line.CANDLE) as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        await kept.flow(BTC, ETH, every_s=0.25, for_s=10)
        kept.rest.answer = lambda key: news(key, now_ms())
        await trio.sleep(5)
        assert kept.keeper.status().losses == 1


async def test_what_rest_tells_is_handed_to_the_desk(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC, ETH)
        await trio.sleep(0.5)
        await kept.flow(BTC, ETH, every_s=0.25, for_s=22)
        audits = kept.desk.told("audited")
        assert [call.markets for call in audits] == [{BTC, ETH}] * 3
        # A second after the first subscription that there is something to audit of, then every ten.
        assert [round(call.start_ms - EPOCH_MS, -3) // 1000 for call in audits] == [1, 11, 21]


async def test_who_subscribes_all_the_time_does_not_have_rest_asked_all_the_time(autojump_clock):
    async with keeping() as kept:
        for number in range(40):
            kept.want(f"KRW-C{number}")
            await trio.sleep(0.3)
            await kept.flow(*(f"KRW-C{earlier}" for earlier in range(number + 1)), every_s=0.5, for_s=1)
        times_s = sorted(set(kept.rest.times_s(Wanted)))
        assert 10 <= len(times_s) <= 12


async def test_each_market_has_its_own_chances(autojump_clock):
    """One that is kept back for the first time is asked for again, though another had its chance."""
    stream = PaperStream(mute(BTC))
    async with keeping(stream=stream) as kept:
        kept.want(BTC, ETH, XRP)
        await trio.sleep(1)
        await kept.flow(ETH, XRP, every_s=0.25, for_s=4.5)
        stream.greet = mute(BTC, ETH)
        while len(stream.sessions) < 2:
            kept.show(ETH, XRP)
            await trio.sleep(0.25)
        await trio.sleep(1)
        await kept.flow(XRP, every_s=0.25, for_s=30)
        assert kept.states() == {BTC: "error", ETH: "error", XRP: "active"}
        assert len(stream.sessions) == 3


async def test_what_comes_back_after_an_unreadable_frame_is_waited_for_like_any_other(autojump_clock):
    stream = PaperStream(snapshots)
    async with keeping(stream=stream) as kept:
        kept.want(ETH)
        lease = kept.want(BTC)
        await trio.sleep(1)
        kept.session.show(BadPayload("no number", market=BTC))
        kept.demand.release(lease)
        await trio.sleep(1)
        stream.greet = mute(BTC)
        kept.want(BTC)
        await trio.sleep(1)
        await kept.flow(ETH, every_s=0.25, for_s=6)
        assert len(stream.sessions) == 2


async def test_a_connection_that_showed_nothing_had_nothing_to_lose(autojump_clock):
    """Whatever the one before had shown last, it ends where it ends."""
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.stream.greet = silence
        kept.session.end(GONE)
        await trio.sleep(1.2)
        kept.session.end(GONE)
        await trio.sleep(0.1)
        first, second = kept.desk.told("lost")
        assert first.start_ms == now_ms(0.22)
        assert second.start_ms == now_ms(second.at_s)


async def test_a_snapshot_says_nothing_of_the_time(autojump_clock):
    """It may be hours old, where nothing has happened since."""
    async with keeping(stream=PaperStream()) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        for snapshot in (True, False):
            assert kept.keeper._time.now_ms(trio.current_time()) is None
            for _ in range(2):
                kept.session.show(value(Line.TRADE), snapshot=snapshot)
                await trio.sleep(0.1)
        assert kept.keeper._time.now_ms(trio.current_time()) is not None


async def test_a_market_that_was_heard_again_has_its_chances_back(autojump_clock):
    stream = PaperStream(snapshots)
    async with keeping(stream=stream) as kept:
        for _ in range(3):
            await busy(kept)
            shown = len(stream.sessions)
            kept.rest.answer = lambda key: news(key, now_ms() - 1_000 if key.market == BTC else EPOCH_MS)
            await kept.flow(ETH, every_s=0.25, for_s=5)
            assert len(stream.sessions) == shown + 1
            kept.rest.answer = moments({BTC: EPOCH_MS, ETH: EPOCH_MS})


# -- without a snapshot -----------------------------------------------------------------------------------------


async def test_a_market_of_which_rest_has_no_row_either_has_nothing_to_show(autojump_clock):
    async with keeping(stream=PaperStream(mute(ETH)), rest=Rest(moments({BTC: EPOCH_MS, ETH: None}))) as kept:
        kept.want(BTC, ETH)
        await trio.sleep(0.5)
        await kept.flow(BTC, every_s=0.25, for_s=3.5)
        assert kept.desk.told("silent") == []
        with trio.fail_after(3):
            await kept.keeper.wait_shown(kept.topic(ETH))
        (silent,) = kept.desk.told("silent")
        assert (sorted(silent.markets), silent.at_s) == ([ETH], pytest.approx(5.24, abs=0.3))
        assert kept.state(ETH).state is PENDING
        assert kept.state(ETH).reason == "listed, but the exchange has nothing to show of it yet"
        await kept.flow(BTC, every_s=0.25, for_s=60)
        assert len(kept.desk.told("silent")) == 1
        assert len(kept.stream.sessions) == 1
        kept.show(ETH)
        await trio.sleep(0.1)
        assert kept.state(ETH).state is ACTIVE


async def test_a_line_of_nothing_but_delisted_markets_stays(autojump_clock):
    """Alone on its line, and unknown to REST: that is an answer too."""
    async with keeping(stream=PaperStream(), rest=Rest(moments({}))) as kept:
        kept.want(BTC)
        with trio.fail_after(25):
            await kept.keeper.wait_shown(kept.topic(BTC))
        await trio.sleep(60)
        assert len(kept.stream.sessions) == 1
        assert kept.gone == [kept.topic(BTC)]
        assert kept.state().state is ERROR


async def test_a_market_that_rest_knows_is_asked_for_on_a_new_connection_and_then_set_aside(autojump_clock):
    async with keeping(stream=PaperStream(mute(ETH))) as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        while len(kept.stream.sessions) < 2:
            kept.show(BTC)
            await trio.sleep(0.25)
            assert trio.current_time() < 7
        assert "no snapshot of trade KRW-ETH within 5 s" in kept.keeper.status().last_loss
        await trio.sleep(1)
        assert kept.states() == {BTC: "active", ETH: "pending"}
        await kept.flow(BTC, every_s=0.25, for_s=60)
        assert len(kept.stream.sessions) == 2
        assert kept.states() == {BTC: "active", ETH: "error"}
        # Every later connection asks for it again, and waits for it no more.
        kept.session.end(GONE)
        await trio.sleep(1)
        assert said(kept)[-1][1] == [BTC, ETH]
        assert kept.states() == {BTC: "active", ETH: "error"}
        await kept.flow(BTC, every_s=0.25, for_s=60)
        assert len(kept.stream.sessions) == 3
        kept.show(ETH)
        await trio.sleep(0.1)
        assert kept.states() == {BTC: "active", ETH: "active"}


async def test_while_rest_is_down_nothing_is_concluded_from_a_missing_snapshot(autojump_clock):
    async with keeping(stream=PaperStream(mute(ETH))) as kept:
        kept.want(BTC, ETH)
        kept.rest.deaf = True
        await trio.sleep(1)
        await kept.flow(BTC, every_s=0.25, for_s=30)
        assert len(kept.stream.sessions) == 1
        assert kept.state(ETH).state is PENDING
        # It is asked again every few seconds, not all the time.
        times_s = [at_s for at_s, _ in kept.rest.asked]
        assert 5 <= len(times_s) <= 20
        kept.rest.deaf, kept.rest.answer = False, moments({BTC: EPOCH_MS, ETH: None})
        await kept.flow(BTC, every_s=0.25, for_s=5)
        assert kept.state(ETH).reason == "listed, but the exchange has nothing to show of it yet"


async def test_some_may_have_nothing_to_show_beside_one_that_is_kept_from_us(autojump_clock):
    async with keeping(stream=PaperStream(mute(ETH, XRP)), rest=Rest(moments({BTC: 1, ETH: None, XRP: 1}))) as kept:
        kept.want(BTC, ETH, XRP)
        await trio.sleep(1)
        await kept.flow(BTC, every_s=0.25, for_s=30)
        assert kept.states() == {BTC: "active", ETH: "pending", XRP: "error"}
        assert [sorted(call.markets) for call in kept.desk.told("silent")] == [[ETH]]


# -- the audit --------------------------------------------------------------------------------------------------


async def test_the_audit_finds_a_thin_market_that_is_kept_from_us(autojump_clock):
    """Its silence would never be suspicious by itself."""
    async with keeping() as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.rest.answer = lambda key: news(key, EPOCH_MS + 10_000 if key.market == ETH else EPOCH_MS)
        await kept.flow(BTC, every_s=0.25, for_s=8)
        assert len(kept.stream.sessions) == 1
        await kept.flow(BTC, every_s=0.25, for_s=4)
        assert len(kept.stream.sessions) == 2
        assert kept.keeper.status().last_loss == "stalled: trade KRW-ETH has traded, and nothing of it was sent"
        lost = {name: call.start_ms for call in kept.desk.told("lost") for name in call.markets}
        assert lost[ETH] < EPOCH_MS + 1_000


async def test_a_line_that_is_late_with_everything_is_not_taken_for_stalled(autojump_clock):
    """This machine, or the way, may be slow. Of what it has not come to yet it cannot have shown anything."""
    async with keeping() as kept:
        kept.want(BTC, ETH)
        await trio.sleep(1)
        kept.rest.answer = lambda key: news(key, now_ms() - 5_000)
        for _ in range(280):
            kept.session.show(value(Line.TRADE, BTC, now_ms() - 10_000), value(Line.TRADE, ETH, now_ms() - 10_000))
            await trio.sleep(0.25)
        assert len(kept.rest.asked) >= 2
        assert kept.keeper.status().losses == 0


async def test_an_audit_that_rest_does_not_answer_finds_nothing(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.rest.deaf = True
        await kept.flow(BTC, every_s=0.25, for_s=70)
        assert len(kept.stream.sessions) == 1
        assert [round(asked_s) for asked_s, _ in kept.rest.asked] == [1, 11, 21, 31, 41, 51, 61]


async def test_nothing_is_audited_that_has_shown_nothing(autojump_clock):
    async with keeping(stream=PaperStream(mute(ETH)), rest=Rest(moments({}))) as kept:
        kept.want(ETH)
        await trio.sleep(29)
        asked = len(kept.rest.asked)
        kept.desk.shown.clear()
        kept.session.show(value(Line.TRADE, XRP))  # no suspicion is due just now
        await trio.sleep(1.5)
        assert len(kept.rest.asked) == asked


# -- released while it was being looked at ----------------------------------------------------------------------


async def test_a_market_released_while_its_snapshot_was_checked_is_left_alone(autojump_clock):
    """The desk has forgotten it, and must not be told of it."""
    async with keeping(stream=PaperStream(mute(ETH)), rest=Rest(moments({BTC: 1, ETH: None}), latency_s=1.0)) as kept:
        kept.want(BTC)
        lease = kept.want(ETH)
        await trio.sleep(1)
        await kept.flow(BTC, every_s=0.25, for_s=4.5)
        assert kept.rest.asked
        kept.demand.release(lease)
        await kept.flow(BTC, every_s=0.25, for_s=5)
        assert kept.desk.told("silent") == []
        assert kept.state(ETH).state is RELEASED


async def test_a_market_released_while_it_was_checked_stays_released(autojump_clock):
    async with keeping(rest=Rest(latency_s=1.0)) as kept:
        kept.want(BTC)
        lease = kept.want(ETH)
        await trio.sleep(2.3)
        assert kept.states() == {BTC: "stale", ETH: "stale"}
        kept.demand.release(lease)
        await trio.sleep(1.5)
        assert kept.states() == {BTC: "active", ETH: "released"}
        assert sorted(kept.desk.last("resume").markets) == [BTC]


async def test_a_market_released_while_it_was_checked_costs_no_connection(autojump_clock):
    stream = PaperStream(snapshots)
    async with keeping(stream=stream, rest=Rest(latency_s=1.0)) as kept:
        kept.want(ETH)
        lease = kept.want(BTC)
        await trio.sleep(2.3)
        kept.rest.answer = lambda key: news(key, EPOCH_MS + (1_000 if key.market == BTC else 0))
        kept.demand.release(lease)
        await trio.sleep(3)
        assert len(stream.sessions) == 1


# -- what is proven ---------------------------------------------------------------------------------------------


async def test_the_desk_is_told_up_to_when_everything_has_arrived(autojump_clock):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        await kept.flow(BTC, every_s=0.1, for_s=5)
        told = kept.desk.told("proven")
        assert [round(later.at_s - earlier.at_s, 3) for earlier, later in pairwise(told)] == [0.5] * (len(told) - 1)
        assert all(now_ms(call.at_s) - 101 <= call.start_ms <= now_ms(call.at_s) for call in told[3:])


async def test_nothing_is_proven_while_the_whole_line_is_in_doubt(autojump_clock):
    """A frame that comes then does not show that those before it came."""
    async with keeping(rest=Rest(latency_s=1.4)) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.show(BTC)
        await trio.sleep(2.5)
        assert kept.state().state is STALE
        kept.show(BTC)
        await trio.sleep(0.7)
        assert kept.state().state is STALE
        assert kept.desk.last("proven").start_ms == now_ms(1.0)


@pytest.mark.parametrize("deaf", [False, True])
async def test_frames_after_a_check_prove_again_what_arrived(autojump_clock, deaf):
    """Whatever the check has found."""
    async with keeping(rest=Rest(deaf=deaf)) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.show(BTC)
        await trio.sleep(3.75)
        assert ("not checked" in kept.state().reason) is deaf
        shown_s = trio.current_time()
        kept.show(BTC)
        await trio.sleep(0.6)
        assert kept.desk.last("proven").start_ms == now_ms(shown_s)


# -- crashes and cancellation -----------------------------------------------------------------------------------


async def test_a_bug_at_the_desk_is_not_hidden(autojump_clock):
    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        async with keeping() as kept:
            kept.want(BTC)
            await trio.sleep(1)
            kept.desk.bug = KeyError("a bug")
            kept.show(BTC)
            await trio.sleep(60)
    assert kept.stream.open == 0


@pytest.mark.parametrize(
    "error", [ExchangeError("400"), GONE, BadPayload("not JSON"), RateLimited("x", retry_after_s=1)]
)
async def test_whatever_the_connection_ends_with_it_begins_again(autojump_clock, error):
    async with keeping() as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.session.end(error)
        await trio.sleep(5)
        assert len(kept.stream.sessions) == 2
        assert kept.state().state is ACTIVE
        assert kept.desk.working == 1
        assert [call.cause for call in kept.desk.told("lost")] == [str(error)]


async def test_two_ends_at_once_are_one_loss(autojump_clock):
    async with keeping(rest=Rest(latency_s=1.0)) as kept:
        kept.want(BTC)
        await trio.sleep(2.22)
        kept.rest.answer = lambda key: news(key, EPOCH_MS + 1_000)
        await trio.sleep(1.02)
        kept.session.end(GONE)
        await trio.sleep(0.2)
        assert len(kept.desk.told("lost")) == kept.keeper.status().losses == 1


async def test_nothing_is_current_again_after_the_loss_was_told(autojump_clock):
    """Frames that arrive in the very step in which the line is given up are of no connection, whoever runs first."""
    orders = set()
    for _ in range(20):
        async with keeping(draw=lambda: 0.9) as kept:
            kept.want(BTC, ETH)
            await trio.sleep(1.5)  # the first audit is over

            def answer(key: Any, kept: Kept = kept, made_ms: int = now_ms() - 1_000) -> Any:
                kept.show(ETH)
                return news(key, made_ms)

            kept.rest.answer = answer
            await trio.sleep(1.0)
            names = [call.name for call in kept.desk.told("lost", "take")]
            assert "take" not in names[names.index("lost") :]
            orders.add(len(names))
    assert len(orders) > 1, "always in the same order"


@attrs.define(eq=False)
class Stopwatch(trio.abc.Instrument):
    """Cancels ``scope`` before the step number ``at`` of any task."""

    scope: trio.CancelScope
    at: int
    steps: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self.at:
            self.scope.cancel()


async def a_hard_life(budgets: Any, stream: PaperStream, tasks: list[Any]) -> None:
    stream.refusals.extend([RateLimited("429", retry_after_s=1.0), ExchangeUnavailable("x", sent=False)])
    async with keeping(stream=stream, budgets=budgets, draw=lambda: 0.1) as kept:
        tasks.append(kept.desk)
        lease = kept.want(BTC, ETH)
        await trio.sleep(4)
        kept.want(XRP)
        await trio.sleep(3)
        kept.session.end(GONE)
        await trio.sleep(2)
        kept.demand.release(lease)
        await trio.sleep(5)


def steps_of_a_hard_life(at: int) -> int:
    async def main() -> int:
        budgets, stream, desks = budgets_of(), PaperStream(snapshots), []
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope() as scope:
            stopwatch = Stopwatch(scope, at)
            trio.lowlevel.add_instrument(stopwatch)
            with suppress(Exception):
                await a_hard_life(budgets, stream, desks)
            trio.lowlevel.remove_instrument(stopwatch)
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert stream.open == 0
        assert budgets.connects.statistics(trio.current_time()).in_flight == 0
        assert budgets.listeners == []
        assert all(desk.working == 0 for desk in desks)
        return stopwatch.steps

    return trio.run(main, clock=MockClock(autojump_threshold=0))


@cache
def length_of_a_hard_life() -> int:
    return steps_of_a_hard_life(0)


@pytest.mark.slow
@given(st.integers(1, 10_000))
@settings(max_examples=150)
def test_cancelled_at_any_step_it_leaves_nothing_behind(at):
    """Through refusals, connections, subscriptions, checks and a loss: no task, no connection, no slot."""
    steps_of_a_hard_life(at % length_of_a_hard_life() + 1)


# -- values, as readers see them --------------------------------------------------------------------------------


@attrs.define(eq=False)
class Readers:
    cache: Cache
    hub: Hub

    def ticker(self, max_age_s: float | None = None) -> Any:
        return self.cache.view.ticker(BTC, max_age_s)


def readers() -> Readers:
    answered, answers = trio.open_memory_channel[Answered](0)
    answered.close()
    cache = Cache(answers, CacheOptions())
    answers.close()
    return Readers(cache, Hub())


async def test_a_value_is_current_until_the_instant_in_which_its_stream_is_doubted(autojump_clock):
    """Then it is as old as it is, and when the check is done it is current again."""
    read = readers()
    async with keeping(
        Line.TICKER, desk=lambda _: SnapshotDesk(Line.TICKER, read.cache, read.hub), rest=Rest(latency_s=0.5)
    ) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        kept.show(BTC)
        shown_s = trio.current_time()
        await trio.sleep(1.999)
        assert read.ticker() is not MISSING
        assert read.ticker(max_age_s=1.0) is MISSING
        assert read.ticker(max_age_s=2.0) is not MISSING
        await trio.sleep(0.002)
        assert kept.state().state is STALE
        assert read.ticker() is MISSING
        await trio.sleep(0.52)
        assert kept.state().state is ACTIVE
        assert read.ticker().exchange_ms == now_ms(shown_s)


async def test_a_value_of_a_lost_connection_is_as_old_as_it_is(autojump_clock):
    """At once, and not when the connection is closed or made anew."""
    read = readers()
    async with keeping(Line.TICKER, desk=lambda _: SnapshotDesk(Line.TICKER, read.cache, read.hub)) as kept:
        kept.want(BTC)
        await trio.sleep(1)
        listener = read.hub.attach((kept.topic(BTC),), policy="drop-oldest", depth=10)
        kept.show(BTC)
        await trio.sleep(0.05)
        kept.session.end(GONE)
        await trio.sleep(0.01)
        assert read.ticker() is not MISSING  # for its ordinary time
        await trio.sleep(0.2)
        assert read.ticker() is MISSING
        kept.stream.greet = snapshots
        await trio.sleep(2)
        assert read.ticker() is not MISSING
        heard = [listener.receive_nowait() for _ in range(4)]
        opened, closed = (event for event in heard if isinstance(event, Gap))
        assert (opened.is_open, closed.repaired, opened.start_ms == closed.start_ms) == (True, True, True)
        assert heard.index(closed) < 3  # before the value that closes it


# -- what is nobody's fault ------------------------------------------------------------------------------------


async def test_snapshots_are_no_flow(autojump_clock):
    """A connection to many thin markets begins with as many frames, and is silent for long."""
    async with keeping() as kept:
        kept.want(*(f"KRW-{number}" for number in range(200)))
        kept.rest.deaf = True
        await trio.sleep(300)
        assert kept.keeper.status().losses == 0
        assert kept.state("KRW-7").state is SubscriptionState.STALE


async def test_a_market_released_while_nothing_could_be_checked_stays_released(autojump_clock):
    async with keeping(rest=Rest(deaf=True)) as kept:
        kept.want(BTC)
        lease = kept.want(ETH)
        await trio.sleep(2.5)
        assert kept.states() == {BTC: "stale", ETH: "stale"}
        kept.demand.release(lease)
        await trio.sleep(2)
        assert kept.states() == {BTC: "stale", ETH: "released"}


async def test_lists_that_lacked_a_market_before_it_was_released_do_not_count_against_it_later(autojump_clock):
    async with keeping(rest=Rest(moments({BTC: EPOCH_MS}))) as kept:
        kept.want(BTC)
        lease = kept.want(ETH)
        await trio.sleep(5)
        kept.demand.release(lease)
        await trio.sleep(60)
        kept.want(ETH)
        await trio.sleep(14)
        assert kept.gone == []
        await trio.sleep(6)
        assert kept.gone == [kept.topic(ETH)]


async def test_what_could_not_be_checked_is_well_when_an_audit_finds_it_so(autojump_clock):
    """A market that was busy once is never suspected again by itself, and may not trade for hours."""
    async with keeping() as kept:
        await busy(kept)
        kept.rest.deaf = True
        await kept.flow(ETH, every_s=0.5, for_s=20)
        assert kept.states() == {BTC: "stale", ETH: "active"}
        kept.rest.deaf = False
        await kept.flow(ETH, every_s=0.5, for_s=30)
        assert kept.states() == {BTC: "active", ETH: "active"}
        assert sorted(kept.desk.last("resume").markets) == [BTC]
