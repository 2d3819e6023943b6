"""Each trade once; around a hole in order; and nothing is called whole without a proof."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal

import pytest
from paper_exchange import DAY_MS, NOW_MS, Deal, TradeExchange, trade

from marketpipe.core import delivered, mending, trades
from marketpipe.core.mending import SLACK_MS
from marketpipe.core.trades import Need, TradeFlow
from marketpipe.errors import BadPayload
from marketpipe.models import Gap, Trade

MARKET = "KRW-BTC"
TODAY_MS = NOW_MS // DAY_MS * DAY_MS


def at(after_ms: int, number: int = 0) -> Trade:
    """A trade so many ms after the beginning of these tests."""
    return trade(NOW_MS + after_ms, (NOW_MS + after_ms) * 10_000 + number)


def gap(start_ms: int, end_ms: int, cause: str = "closed 1006", *, repaired: bool = False, proof: str = "") -> Gap:
    return Gap(MARKET, NOW_MS + start_ms, NOW_MS + end_ms, cause, repaired, proof)


def streaming(*rows: Trade) -> TradeFlow:
    """A flow that has delivered these; the first as its snapshot, which is as old as a last certain one must be."""
    flow = TradeFlow(MARKET)
    flow.subscribed(rows[0].trade_ms + SLACK_MS)
    for number, row in enumerate(rows):
        assert flow.live(row, snapshot=number == 0) == (row,)
    return flow


def lose(flow: TradeFlow, start_ms: int, now_ms: int, cause: str = "closed 1006") -> tuple[Gap, ...]:
    return flow.lost(NOW_MS + start_ms, NOW_MS + now_ms, cause)


def mend(flow: TradeFlow, rows: Sequence[Trade]) -> object:
    """What the repair gives if REST shows ``rows``."""
    paper = TradeExchange([Deal(row) for row in rows], TODAY_MS)
    walk = flow.repair()
    answer = None
    while True:
        try:
            (request,) = walk.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = (paper.page(request),)


# -- the ordinary ----------------------------------------------------------------------------------------------


def test_the_snapshot_of_the_first_subscription_is_delivered_however_old():
    flow = TradeFlow(MARKET)
    flow.subscribed(NOW_MS)
    assert flow.live(at(-7_200_000), snapshot=True) == (at(-7_200_000),)
    assert flow.live(at(0), snapshot=False) == (at(0),)
    assert flow.needs is None


def test_a_trade_told_again_is_not_delivered_again():
    flow = streaming(at(0), at(10))
    assert flow.live(at(10), snapshot=False) == ()
    assert flow.live(at(0), snapshot=True) == ()


def test_a_trade_told_late_is_delivered_though_it_is_older():
    flow = streaming(at(0), at(300))
    assert flow.live(at(100), snapshot=False) == (at(100),)
    assert flow.live(at(-100), snapshot=False) == (at(-100),)


def test_a_snapshot_that_comes_after_newer_trades_is_not_delivered():
    # It was made before the flow began; and were it ever so old, whether it was delivered may be forgotten.
    flow = TradeFlow(MARKET)
    flow.subscribed(NOW_MS)
    assert flow.live(at(0), snapshot=False) == (at(0),)
    assert flow.live(at(-50), snapshot=True) == ()


def test_nothing_that_a_snapshot_shows_is_delivered_again_after_it_was_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delivered, "KEEP", 2)
    monkeypatch.setattr(delivered, "KEEP_MORE", 2)
    monkeypatch.setattr(delivered, "KEEP_IDS_MS", 10_000)
    flow = streaming(at(0), *(at(20_000 * number) for number in range(1, 9)))
    assert flow.live(at(0), snapshot=True) == ()


def test_a_snapshot_nobody_waited_for_that_shows_a_new_trade_raises_a_doubt():
    # The answer to the first of two subscribe messages came after the second was sent, and was taken for its answer.
    flow = streaming(at(-60_000))
    flow.resubscribed(NOW_MS)
    assert flow.live(at(-60_000), snapshot=True) == ()
    assert flow.needs is None
    assert flow.live(at(40), snapshot=True) == (at(40),)
    assert flow.needs is Need.CHECK
    shown = [at(-60_000), at(30), at(40)]
    assert mend(flow, shown) is None
    closed, missing = mend(flow, shown)
    assert missing == at(30)
    assert (closed.repaired, closed.cause) == (True, "a snapshot showed a new trade")


# -- a hole begins ---------------------------------------------------------------------------------------------


def test_nothing_can_be_lost_before_anything_was_certain():
    flow = TradeFlow(MARKET)
    assert lose(flow, 0, 10) == ()
    flow.subscribed(NOW_MS)
    assert lose(flow, 20, 30) == ()
    flow.subscribed(NOW_MS)
    assert flow.live(at(100), snapshot=True) == (at(100),)


def test_a_loss_is_told_at_once():
    flow = streaming(at(0))
    assert lose(flow, 500, 2_600, "stalled: no frame for 2.1 s") == (gap(500, 2_600, "stalled: no frame for 2.1 s"),)
    assert flow.needs is None


def test_a_gap_never_ends_before_it_starts():
    assert lose(streaming(at(0)), 500, 400) == (gap(500, 500),)


def test_a_market_known_to_have_no_trade_yet_can_lose_one():
    flow = TradeFlow(MARKET)
    flow.subscribed(NOW_MS)
    flow.no_snapshot()
    assert flow.needs is None
    assert lose(flow, 0, 10) == (gap(0, 10),)
    flow.subscribed(NOW_MS)
    assert flow.live(at(5_000), snapshot=True) == ()
    assert mend(flow, [at(4_000), at(5_000)])[1:] == (at(4_000), at(5_000))


def test_trades_of_the_new_connection_wait_for_the_repair():
    flow = streaming(at(0))
    lose(flow, 500, 600)
    flow.subscribed(NOW_MS)
    assert flow.live(at(2_000), snapshot=True) == ()
    assert flow.live(at(2_000), snapshot=False) == ()
    assert flow.live(at(0), snapshot=False) == ()
    assert flow.live(at(2_100), snapshot=False) == ()
    assert flow.needs is Need.REPAIR
    assert mend(flow, [at(0), at(2_000)])[1:] == (at(2_000), at(2_100))
    assert flow.needs is None
    assert flow.live(at(2_200), snapshot=False) == (at(2_200),)
    assert flow.live(at(2_100), snapshot=False) == ()


def test_rest_is_not_asked_before_the_snapshot_is_there():
    flow = streaming(at(0))
    lose(flow, 500, 600)
    flow.subscribed(NOW_MS)
    assert flow.live(at(2_000), snapshot=False) == ()
    assert flow.needs is None
    assert mend(flow, []) is None
    assert flow.live(at(1_900), snapshot=True) == ()
    assert flow.needs is Need.REPAIR


def test_what_a_lost_connection_still_had_in_the_pipe_is_kept_and_proves_nothing():
    flow = streaming(at(-60_000))
    lose(flow, 500, 600)
    assert flow.live(at(-60_000), snapshot=True) == ()
    assert flow.live(at(400), snapshot=False) == ()
    assert flow.needs is None
    flow.subscribed(NOW_MS)
    assert flow.live(at(900), snapshot=True) == ()
    assert mend(flow, [at(-60_000), at(400), at(900)])[1:] == (at(400), at(900))


# -- nothing was traded ----------------------------------------------------------------------------------------


def test_a_snapshot_that_was_delivered_long_before_the_loss_closes_the_hole_without_rest():
    flow = streaming(at(-5_000), at(0))
    lose(flow, SLACK_MS, 2_600)
    flow.subscribed(NOW_MS)
    proof = f"the exchange's last trade is {at(0).sequential_id}, made and delivered 2.0 s before"
    closed = gap(SLACK_MS, SLACK_MS, repaired=True, proof=proof)
    assert flow.live(at(0), snapshot=True) == (closed,)
    assert flow.needs is None
    assert flow.live(at(9_000), snapshot=False) == (at(9_000),)


def test_the_proof_that_nothing_was_traded_says_for_how_long():
    flow = streaming(at(0))
    lose(flow, 3_600_000, 3_600_100)
    flow.subscribed(NOW_MS)
    (closed,) = flow.live(at(0), snapshot=True)
    assert closed.proof.endswith("made and delivered 3,600.0 s before")


def test_a_snapshot_that_was_delivered_just_before_the_loss_proves_nothing_of_late_trades():
    flow = streaming(at(0))
    lose(flow, SLACK_MS - 1, 2_600)
    flow.subscribed(NOW_MS)
    assert flow.live(at(0), snapshot=True) == ()
    assert flow.needs is Need.REPAIR
    closed, late = mend(flow, [at(-40), at(0), at(30)])
    assert (closed.repaired, late) == (True, at(30))


def test_a_snapshot_older_than_what_was_delivered_proves_nothing():
    flow = streaming(at(-9_000), at(-8_000))
    lose(flow, 0, 100)
    flow.subscribed(NOW_MS)
    assert flow.live(at(-9_000), snapshot=True) == ()
    assert flow.needs is Need.REPAIR


def test_a_snapshot_proves_nothing_of_the_time_before_another_that_was_new():
    flow = streaming(at(-9_000))
    lose(flow, 0, 100)
    flow.subscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    lose(flow, 300, 400)
    flow.subscribed(NOW_MS)
    assert flow.live(at(-9_000), snapshot=True) == ()
    assert flow.needs is Need.REPAIR


# -- the repair ------------------------------------------------------------------------------------------------


def test_what_was_missing_follows_the_closing_gap_in_order_with_the_figures_of_the_proof():
    flow = streaming(*(at(-50_000 + 1_000 * number) for number in range(51)))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(9_000), snapshot=True)
    flow.live(at(9_100), snapshot=False)
    shown = [at(-50_000 + 1_000 * number) for number in range(60)]
    proof = (
        "1 page, 60 trades fetched, 8 were missing;"
        f" overlaps 51 known trades on the left, the stream's {at(9_000).sequential_id} on the right"
    )
    missing = tuple(at(1_000 * number) for number in range(1, 9))
    assert mend(flow, shown) == (gap(500, 9_000, repaired=True, proof=proof), *missing, at(9_000), at(9_100))


def test_a_long_hole_takes_pages_and_says_how_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trades, "TRADES_LIMIT", 500)
    flow = streaming(at(-5_000))
    lose(flow, 0, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(20 * 1_203), snapshot=True)
    closed, *delivered_ = mend(flow, [at(-5_000), *(at(20 * number) for number in range(1_204))])
    assert delivered_ == [at(20 * number) for number in range(1_204)]
    assert closed.proof.startswith(
        "3 pages, 1,205 trades fetched, 1,203 were missing; overlaps 1 known trade on the left"
    )


def test_a_trade_of_the_very_moment_of_the_loss_lies_on_its_left():
    flow = streaming(at(0), at(500))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(900), snapshot=True)
    closed, *_ = mend(flow, [at(0), at(500), at(900)])
    assert "overlaps 2 known trades on the left" in closed.proof


def test_one_missing_trade_is_spoken_of_in_the_singular():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    assert "1 page, 3 trades fetched, 1 was missing;" in mend(flow, [at(0), at(900), at(3_000)])[0].proof


def test_trades_that_rest_shows_before_the_stream_are_delivered_once():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    assert mend(flow, [at(0), at(3_000), at(3_050)])[1:] == (at(3_000), at(3_050))
    assert flow.live(at(3_050), snapshot=False) == ()


def test_a_late_trade_from_before_the_loss_is_found_within_the_slack():
    flow = streaming(at(-9_000), at(0))
    lose(flow, 100, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    assert mend(flow, [at(-9_000), at(-200), at(0), at(3_000)])[1:] == (at(-200), at(3_000))


def test_pages_are_read_until_they_have_passed_the_slack(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mending, "TRADES_LIMIT", 2)
    monkeypatch.setattr(trades, "TRADES_LIMIT", 2)
    flow = streaming(at(-9_000), at(-500), at(0))
    lose(flow, 0, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    late = at(-SLACK_MS)
    closed, *rest = mend(flow, [at(-9_000), late, at(-500), at(0), at(3_000)])
    assert rest == [late, at(3_000)]
    assert closed.proof.startswith("3 pages, 5 trades fetched, 1 was missing")


def test_trades_from_before_the_first_snapshot_were_never_missing():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    assert mend(flow, [at(-60), at(0), at(0, 1), at(3_000)])[1:] == (at(0, 1), at(3_000))


def test_while_rest_does_not_show_the_snapshot_it_is_asked_again():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    assert mend(flow, [at(0), at(900)]) is None
    assert flow.needs is Need.REPAIR
    assert mend(flow, [at(0), at(900), at(2_900), at(3_000)])[1:] == (at(900), at(2_900), at(3_000))


def test_a_loss_during_the_repair_makes_it_worthless():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    walk = flow.repair()
    next(walk)
    assert lose(flow, 3_400, 3_500, "closed 1000") == ()
    with pytest.raises(StopIteration) as stop:
        walk.send(((at(3_000), at(0)),))
    assert stop.value.value is None
    assert flow.needs is None
    flow.subscribed(NOW_MS)
    flow.live(at(5_000), snapshot=True)
    closed, *rest = mend(flow, [at(0), at(3_000), at(4_000), at(5_000)])
    assert (closed.start_ms, closed.cause, closed.repaired) == (NOW_MS + 500, "closed 1006", True)
    assert rest == [at(3_000), at(4_000), at(5_000)]


def test_a_page_that_was_waited_for_counts_for_the_connection_there_is_now():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    walk = flow.repair()
    next(walk)
    lose(flow, 3_400, 3_500)
    flow.subscribed(NOW_MS)
    flow.live(at(5_000), snapshot=True)
    with pytest.raises(StopIteration) as stop:
        walk.send(((at(5_000), at(4_000), at(3_000), at(0)),))
    assert stop.value.value[1:] == (at(3_000), at(4_000), at(5_000))


def test_a_loss_between_two_pages_makes_the_repair_worthless(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mending, "TRADES_LIMIT", 2)
    monkeypatch.setattr(trades, "TRADES_LIMIT", 2)
    flow = streaming(at(-9_000))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(9_000), snapshot=True)
    walk = flow.repair()
    next(walk)
    assert walk.send(((at(9_000), at(8_000)),))  # the next request
    lose(flow, 9_400, 9_500)
    flow.subscribed(NOW_MS)
    flow.live(at(9_800), snapshot=True)
    with pytest.raises(StopIteration) as stop:
        walk.send(((at(7_000), at(-9_000)),))
    assert stop.value.value is None
    assert flow.needs is Need.REPAIR


def test_a_later_loss_that_began_earlier_puts_the_start_back():
    flow = streaming(at(-9_000), at(-4_000))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    assert lose(flow, -6_000, 3_500) == ()
    flow.subscribed(NOW_MS)
    flow.live(at(5_000), snapshot=True)
    closed, *rest = mend(flow, [at(-9_000), at(-4_500), at(-4_000), at(3_000), at(5_000)])
    assert closed.start_ms == NOW_MS + 500
    assert rest == [at(-4_500), at(3_000), at(5_000)]


def test_a_repair_that_is_abandoned_changes_nothing():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    walk = flow.repair()
    next(walk)
    walk.close()
    assert flow.needs is Need.REPAIR
    assert mend(flow, [at(0), at(900), at(3_000)])[1:] == (at(900), at(3_000))


def test_a_page_that_makes_no_sense_is_an_error_and_the_hole_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mending, "TRADES_LIMIT", 2)
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    page = (at(3_000), at(2_000))
    walk = flow.repair()
    next(walk)
    walk.send((page,))
    with pytest.raises(BadPayload):
        walk.send((page,))
    assert flow.needs is Need.REPAIR


def test_without_need_the_repair_asks_nothing():
    flow = streaming(at(0))
    assert next(flow.repair(), None) is None
    assert mend(flow, [at(-1), at(0)]) is None


# -- without a snapshot ----------------------------------------------------------------------------------------


def test_without_a_snapshot_rest_is_asked_twice():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    assert flow.needs is None
    flow.no_snapshot()
    assert flow.needs is Need.REPAIR
    assert mend(flow, [at(0)]) is None
    closed, missing = mend(flow, [at(0), at(600)])
    assert missing == at(600)
    assert closed == gap(
        500,
        700,
        repaired=True,
        proof="1 page, 2 trades fetched, 1 was missing; overlaps 1 known trade on the left,"
        " and the stream has shown no trade since",
    )


def test_without_a_snapshot_the_first_trade_of_the_stream_is_what_rest_must_show():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.no_snapshot()  # a frame could not be read, and the connection goes on
    assert flow.live(at(3_000), snapshot=False) == ()
    assert flow.live(at(3_500), snapshot=False) == ()
    for _ in range(3):
        assert mend(flow, [at(0), at(600)]) is None
    assert mend(flow, [at(0), at(600), at(3_000)])[1:] == (at(600), at(3_000), at(3_500))


def test_a_snapshot_from_before_the_hole_need_not_be_shown_by_rest():
    # A server that lags shows an old trade as its last. Nothing is proven by it, and the stream goes on from it.
    flow = streaming(at(-9_000), at(-8_000))
    lose(flow, 0, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(-9_000), snapshot=True)
    closed, *rest = mend(flow, [at(-9_000), at(-8_000), at(100), at(200)])
    assert rest == [at(100), at(200)]
    assert closed.proof.endswith(f"the stream's {at(-9_000).sequential_id} on the right")
    assert closed.end_ms == NOW_MS


def test_the_proof_says_if_the_streams_last_trade_is_older_than_what_was_read():
    flow = streaming(at(-90_000_000), at(-80_000_000))
    lose(flow, 0, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(-90_000_000), snapshot=True)
    closed, *_ = mend(flow, [at(-90_000_000), at(-80_000_000), at(100)])
    assert closed.proof.endswith(f"and the stream's last, {at(-90_000_000).sequential_id}, is older")


# -- what cannot be mended -------------------------------------------------------------------------------------


def test_giving_up_says_why_and_delivers_what_was_held_in_order():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    flow.live(at(2_900), snapshot=False)
    assert flow.unrepairable("it is delisted") == (gap(500, 3_000, proof="it is delisted"), at(2_900), at(3_000))
    assert flow.needs is None
    assert flow.unrepairable("it is delisted") == ()
    assert flow.live(at(3_100), snapshot=False) == (at(3_100),)


def test_what_was_given_up_does_not_come_with_a_later_repair():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    flow.unrepairable("no patience")
    lose(flow, 3_100, 3_200)
    flow.subscribed(NOW_MS)
    flow.live(at(4_000), snapshot=True)
    assert mend(flow, [at(0), at(2_000), at(3_000), at(3_500), at(4_000)])[1:] == (at(3_500), at(4_000))


def test_giving_up_a_hole_that_a_later_loss_put_back_tells_of_the_earlier_part_too():
    flow = streaming(at(-5_000))
    lose(flow, 500, 700)
    lose(flow, -3_000, 3_500)
    assert flow.unrepairable("no patience") == (
        gap(500, 3_500, proof="no patience"),
        gap(-3_000, 500, proof="no patience"),
    )


def test_the_newest_trades_of_a_connection_that_is_gone_are_not_the_newest():
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.live(at(9_000), snapshot=False)  # it was in the pipe, and the exchange's time is known only roughly
    flow.unrepairable("no patience")
    assert flow.newest(1) is None


def test_a_hole_given_up_while_the_connection_is_gone_is_checked_when_it_is_back():
    flow = streaming(at(0), at(5_000))
    lose(flow, 5_500, 5_700)
    flow.unrepairable("no patience")
    assert flow.newest(1) is None
    flow.subscribed(NOW_MS)
    flow.live(at(9_000), snapshot=True)
    assert flow.needs is Need.CHECK
    shown = [at(0), at(5_000), at(5_600), at(8_000), at(9_000)]
    assert mend(flow, shown) is None
    assert mend(flow, shown)[1:] == (at(8_000),)


def test_trades_the_exchange_no_longer_keeps_stay_missing_and_the_others_are_delivered():
    flow = streaming(at(-10 * DAY_MS))
    lose(flow, -10 * DAY_MS + 500, 0)
    flow.subscribed(NOW_MS)
    flow.live(at(0), snapshot=True)
    closed, *rest = mend(flow, [at(-10 * DAY_MS), at(-9 * DAY_MS), at(-6 * DAY_MS), at(-5), at(0)])
    assert rest == [at(-6 * DAY_MS), at(-5), at(0)]
    assert not closed.repaired
    assert closed.proof == (
        "the exchange keeps trades of 8 days only, back to 2026-09-17 00:00:00.000 UTC; 8 pages, 3 trades fetched,"
        f" 2 were missing; overlaps 0 known trades on the left, the stream's {at(0).sequential_id} on the right"
    )


def test_a_hole_that_reaches_back_beyond_what_is_remembered_is_not_called_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delivered, "KEEP", 2)
    monkeypatch.setattr(delivered, "KEEP_MORE", 2)
    monkeypatch.setattr(delivered, "KEEP_IDS_MS", 10_000)
    rows = [at(4_000 * number) for number in range(12)]
    flow = streaming(*rows)
    lose(flow, 1_000, 44_500)
    flow.subscribed(NOW_MS)
    flow.live(at(50_000), snapshot=True)
    closed, *rest = mend(flow, [*rows, at(50_000)])
    assert rest == [at(50_000)]
    assert not closed.repaired
    assert closed.proof.startswith("what was delivered before 2026-09-23 12:35:")
    assert " UTC is no longer remembered; 1 page, " in closed.proof


@pytest.mark.parametrize(("after_ms", "repaired"), [(SLACK_MS - 1, False), (SLACK_MS, True)])
def test_what_is_remembered_must_reach_back_to_the_slack_before_the_loss(
    monkeypatch: pytest.MonkeyPatch, after_ms: int, repaired: bool
):
    monkeypatch.setattr(delivered, "KEEP", 2)
    monkeypatch.setattr(delivered, "KEEP_MORE", 2)
    monkeypatch.setattr(delivered, "KEEP_MS", 1_000)
    monkeypatch.setattr(delivered, "KEEP_IDS_MS", 10_000)
    rows = [at(4_000 * number) for number in range(12)]
    forgotten_ms = max(set(rows) - set(remembered(rows)), key=lambda row: row.trade_ms).trade_ms + 1 - NOW_MS
    flow = streaming(*rows)
    lose(flow, forgotten_ms + after_ms, 44_500)
    flow.subscribed(NOW_MS)
    flow.live(at(50_000), snapshot=True)
    closed, *_ = mend(flow, [*rows, at(50_000)])
    assert closed.repaired is repaired


def remembered(rows: Sequence[Trade]) -> list[Trade]:
    """Those of which a flow that has told them can say so."""
    memory = delivered.Delivered()
    for row in rows:
        memory.add(row)
    return [row for row in rows if memory.has(row)]


@pytest.mark.parametrize("zone", ["Asia/Seoul", "America/New_York"])
def test_moments_are_told_in_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch, zone: str):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        test_trades_the_exchange_no_longer_keeps_stay_missing_and_the_others_are_delivered()
    time.tzset()


def test_no_more_trades_wait_for_a_repair_than_memory_is_meant_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trades, "WAIT_AT_MOST", 3)
    flow = streaming(at(0))
    lose(flow, 500, 700)
    flow.subscribed(NOW_MS)
    flow.live(at(3_000), snapshot=True)
    flow.live(at(3_001), snapshot=False)
    assert flow.live(at(3_002), snapshot=False) == ()
    closed, *held = flow.live(at(3_003), snapshot=False)
    assert closed == gap(500, 3_000, proof="4 trades were waiting for the repair")
    assert held == [at(3_000), at(3_001), at(3_002), at(3_003)]
    assert flow.live(at(3_004), snapshot=False) == (at(3_004),)


def test_the_second_of_two_losses_of_the_same_size_is_found_too():
    rows = [at(-3_600_000), at(0), at(0, 1)]
    flow = streaming(rows[0])
    flow.counted(rows[-1].trade_ms, total(rows), NOW_MS + 1_000)
    assert mend(flow, rows) is None
    assert mend(flow, rows) is None
    closed, *missing = mend(flow, rows)
    assert (closed.repaired, closed.cause) == (True, "trades were made that the stream did not tell")
    assert missing == rows[1:]
    rows += [at(10_000), at(10_000, 1), at(10_007)]
    assert flow.live(rows[-1], snapshot=False) == (rows[-1],)
    flow.counted(rows[-1].trade_ms, total(rows), NOW_MS + 11_000)
    assert flow.needs is Need.CHECK
    assert mend(flow, rows) is None
    assert mend(flow, rows) is None
    closed, *missing = mend(flow, rows)
    assert missing == rows[3:5]


def looked_through(flow: TradeFlow, rows: Sequence[Trade]) -> list[Trade]:
    """What a check that finds something finds."""
    closed, *missing = next(found for _ in range(4) if (found := mend(flow, rows)))
    assert closed.repaired
    return missing


def test_a_loss_as_large_as_what_came_late_from_before_the_subscription_is_found():
    # Published just before the snapshot of the same millisecond, it was counted, and is told with the first loss.
    rows = [at(-SLACK_MS), at(-SLACK_MS, 1), at(10_000), at(20_000)]
    flow = TradeFlow(MARKET)
    flow.subscribed(NOW_MS)
    flow.live(rows[0], snapshot=True)
    flow.counted(rows[1].trade_ms, total(rows[:2]), NOW_MS + 1_000)
    flow.counted(rows[2].trade_ms, total(rows[:3]), NOW_MS + 11_000)
    assert looked_through(flow, rows[:3]) == rows[1:3]
    flow.counted(rows[3].trade_ms, total(rows), NOW_MS + 21_000)
    assert looked_through(flow, rows) == rows[3:]


def test_a_loss_as_large_as_what_the_exchange_told_first_is_found():
    # The later of two trades was published first; sorted, the count that names the earlier one as its last has both.
    rows = [at(-3_600_000), at(7), at(0), at(20_000), at(20_000, 1)]
    flow = streaming(rows[0])
    flow.live(rows[2], snapshot=False)
    flow.counted(rows[2].trade_ms, total(rows[:3]), NOW_MS + 5_000)
    assert looked_through(flow, rows[:3]) == [rows[1]]
    flow.counted(rows[2].trade_ms, total(rows[:3]), NOW_MS + 11_000)
    assert flow.needs is None
    flow.live(rows[3], snapshot=False)
    flow.counted(rows[3].trade_ms, total(rows), NOW_MS + 21_000)
    assert flow.needs is Need.CHECK
    assert looked_through(flow, rows) == rows[4:]


def test_a_count_that_tells_nothing_is_looked_into_once_and_not_for_ever():
    rows = [at(-3_600_000), at(0), at(0, 1)]
    flow = streaming(*rows)
    flow.counted(rows[2].trade_ms, total(rows), NOW_MS + 10_000)
    assert mend(flow, rows) is None
    assert mend(flow, rows) == ()
    flow.counted(rows[2].trade_ms, total(rows), NOW_MS + 20_000)
    assert flow.needs is None


def test_nothing_is_looked_for_again_up_to_the_last_count_that_agreed():
    """Nor does an older count that comes later take that back."""
    rows = [at(-3_600_000), at(12_000)]
    flow = streaming(rows[0])
    flow.counted(rows[0].trade_ms, total(rows[:1]), NOW_MS + 10_000)
    (opened,) = lose(flow, 0, 11_000)
    assert opened.start_ms == NOW_MS + 10_000 - SLACK_MS
    flow = streaming(rows[0])
    flow.counted(rows[0].trade_ms, total(rows[:1]), NOW_MS + 10_000)
    assert flow.live(rows[1], snapshot=False) == (rows[1],)
    flow.counted(rows[1].trade_ms, total(rows), NOW_MS + 5_000)
    assert flow.needs is None
    (opened,) = lose(flow, 0, 13_000)
    assert opened.start_ms == rows[1].trade_ms


def test_what_is_given_up_before_the_first_count_reaches_back_to_the_beginning():
    """A trade may have been lost without a trace before the connection was, and nobody will look for it any more."""
    flow = streaming(at(0))
    (opened,) = lose(flow, 60_000, 61_000)
    flow.subscribed(NOW_MS)
    assert flow.live(at(30_000), snapshot=True) == ()
    closed, earlier, _ = flow.unrepairable("no answer")
    assert (closed.start_ms, earlier.start_ms, earlier.end_ms) == (opened.start_ms, NOW_MS + SLACK_MS, opened.start_ms)
    assert not earlier.repaired


def test_what_is_given_up_of_a_market_that_had_no_trade_to_show_reaches_back_to_its_subscription():
    for told in ((), (at(40_000), at(50_000))):
        flow = TradeFlow(MARKET)
        flow.subscribed(NOW_MS)
        flow.no_snapshot()
        for row in told:
            flow.live(row, snapshot=False)
        lose(flow, 60_000, 61_000)
        closed, earlier = flow.unrepairable("no answer")
        assert (earlier.start_ms, earlier.end_ms) == (NOW_MS, closed.start_ms)


def test_the_first_count_is_believed_only_if_the_last_trade_was_made_before_the_subscription():
    """One that was made with the first trade that was told, or just before it, may have been left out."""
    for after_ms, needs in ((-SLACK_MS, None), (1 - SLACK_MS, Need.CHECK), (0, Need.CHECK)):
        flow = TradeFlow(MARKET)
        flow.subscribed(NOW_MS)
        flow.live(at(after_ms), snapshot=True)
        flow.counted(at(after_ms).trade_ms, Decimal(9), NOW_MS + 5_000)
        assert flow.needs is needs


# -- a clock that is far behind --------------------------------------------------------------------------------

HOURS_MS = 6 * 3_600_000


def woken(monkeypatch: pytest.MonkeyPatch) -> tuple[TradeFlow, list[Trade]]:
    """A flow whose machine slept for hours of which its clock knows nothing, and what REST shows; all is mended."""
    monkeypatch.setattr(delivered, "KEEP", 2)
    monkeypatch.setattr(delivered, "KEEP_MORE", 2)
    rows = [at(-60_000), at(-1_000)]
    flow = streaming(*rows)
    lose(flow, 0, 1_000)
    flow.subscribed(NOW_MS)
    rows += [at(HOURS_MS - 60_000 * ago) for ago in range(9, -1, -1)]
    flow.live(rows[-1], snapshot=True)
    closed, *_ = mend(flow, rows)
    assert closed.repaired
    return flow, rows


def test_what_was_mended_is_certain_though_the_clock_is_far_behind_when_another_subscription_comes(
    monkeypatch: pytest.MonkeyPatch,
):
    flow, rows = woken(monkeypatch)
    flow.resubscribed(NOW_MS + 5_000)
    rows.append(at(HOURS_MS + 9_000))
    flow.live(rows[-1], snapshot=True)
    assert mend(flow, rows) == ()
    assert flow.needs is None


def test_what_was_mended_is_certain_though_the_clock_is_far_behind_at_the_next_loss(monkeypatch: pytest.MonkeyPatch):
    flow, rows = woken(monkeypatch)
    (opened,) = lose(flow, 5_000, 6_000)
    assert opened.start_ms == at(HOURS_MS).trade_ms - SLACK_MS
    flow.subscribed(NOW_MS)
    rows += [at(HOURS_MS + 7_000), at(HOURS_MS + 9_000)]
    flow.live(rows[-1], snapshot=True)
    closed, *rest = mend(flow, rows)
    assert closed.repaired
    assert rest == rows[-2:]


def test_what_was_given_up_is_looked_through_no_more(monkeypatch: pytest.MonkeyPatch):
    # Its beginning is not remembered any more. That is told once, and not again with every count.
    monkeypatch.setattr(delivered, "KEEP", 2)
    monkeypatch.setattr(delivered, "KEEP_MORE", 2)
    rows = [at(60_000 * number) for number in range(12)]
    flow = streaming(*rows)
    flow.counted(rows[-1].trade_ms, total(rows), rows[-1].trade_ms + 5_000)
    assert mend(flow, rows) is None
    closed, *_ = mend(flow, rows)
    assert not closed.repaired
    for number in range(12, 20):
        rows.append(at(60_000 * number))
        assert flow.live(rows[-1], snapshot=False) == (rows[-1],)
        flow.counted(rows[-1].trade_ms, total(rows), rows[-1].trade_ms + 5_000)
        assert flow.needs is None or mend(flow, rows) in {None, ()}
        assert flow.needs is None or mend(flow, rows) == ()
        assert flow.needs is None


def total(rows: Sequence[Trade]) -> Decimal:
    """What the exchange counts if these are all."""
    return sum((row.volume for row in rows), Decimal(0))


# -- a subscription is replaced --------------------------------------------------------------------------------


def test_a_snapshot_that_was_delivered_long_before_a_resubscription_settles_it():
    flow = streaming(at(-SLACK_MS))
    flow.resubscribed(NOW_MS)
    assert flow.needs is None
    assert flow.live(at(-SLACK_MS), snapshot=True) == ()
    assert flow.needs is None
    assert flow.newest(1) is None  # the first snapshot alone: one told before it may have been made later
    assert flow.live(at(1_000), snapshot=False) == (at(1_000),)
    assert flow.newest(1) == (at(1_000),)


def test_nobody_waits_because_somebody_else_subscribed():
    flow = streaming(at(-500))
    flow.resubscribed(NOW_MS)
    assert flow.live(at(-100), snapshot=False) == (at(-100),)
    assert flow.live(at(200), snapshot=True) == (at(200),)
    assert flow.live(at(300), snapshot=False) == (at(300),)
    assert flow.live(at(300), snapshot=False) == ()
    assert flow.needs is Need.CHECK
    assert flow.newest(1) is None
    assert mend(flow, [at(-500), at(-100), at(200), at(300)]) == ()
    assert flow.needs is None
    assert flow.newest(1) is None or flow.newest(1) == (at(300),)


def test_a_trade_that_fell_between_two_subscriptions_is_told_with_its_gap():
    flow = streaming(at(-9_000), at(-500))
    flow.resubscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    shown = [at(-9_000), at(-500), at(100), at(200)]
    assert mend(flow, shown) is None
    assert flow.needs is Need.CHECK
    proof = (
        "1 page, 4 trades fetched, 1 was missing; overlaps 2 known trades on the left,"
        f" the stream's {at(200).sequential_id} on the right"
    )
    closed = gap(0, 200, "the subscription was replaced", repaired=True, proof=proof)
    assert mend(flow, shown) == (closed, at(100))
    assert flow.live(at(100), snapshot=False) == ()


def test_the_gap_of_a_check_reaches_back_to_the_first_trade_that_was_missing():
    flow = streaming(at(-9_000), at(-500))
    flow.resubscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    shown = [at(-9_000), at(-500), at(-20), at(200)]
    assert mend(flow, shown) is None
    assert mend(flow, shown)[0].start_ms == NOW_MS - 20


def test_trades_that_the_stream_was_about_to_tell_are_not_missing():
    flow = streaming(at(-500))
    flow.resubscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    assert mend(flow, [at(-500), at(200), at(250)]) is None
    assert flow.live(at(250), snapshot=False) == (at(250),)
    assert mend(flow, [at(-500), at(200), at(250), at(290)]) == ()


def test_trades_long_after_the_snapshot_are_left_to_the_stream():
    flow = streaming(at(-500))
    flow.resubscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    assert mend(flow, [at(-500), at(200), at(200 + SLACK_MS + 1)]) == ()


def test_a_trade_that_streams_may_tell_before_the_snapshot_is_looked_for():
    flow = streaming(at(-500))
    flow.resubscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    shown = [at(-500), at(200), at(200 + SLACK_MS)]
    assert mend(flow, shown) is None
    assert mend(flow, shown)[1:] == (at(200 + SLACK_MS),)


def test_a_check_without_a_snapshot_looks_at_all_that_rest_shows():
    flow = streaming(at(-500))
    flow.resubscribed(NOW_MS)
    flow.no_snapshot()
    shown = [at(-500), at(100)]
    looks = [mend(flow, shown) for _ in range(3)]
    assert looks[:2] == [None, None]
    assert looks[2][1:] == (at(100),)


def test_a_check_that_is_given_up_is_told_as_a_gap():
    flow = streaming(at(-500))
    flow.resubscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    closed = gap(0, 200, "the subscription was replaced", proof="no patience")
    assert flow.unrepairable("no patience") == (closed,)
    assert flow.needs is None


def test_a_check_of_which_a_part_is_gone_is_told_as_a_gap():
    flow = streaming(at(-9 * DAY_MS - SLACK_MS))
    flow.resubscribed(NOW_MS - 9 * DAY_MS)
    flow.live(at(0), snapshot=True)
    (closed,) = mend(flow, [at(-10 * DAY_MS), at(0)])
    assert not closed.repaired


def test_a_second_resubscription_waits_for_its_own_snapshot():
    flow = streaming(at(-500))
    flow.resubscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    flow.resubscribed(NOW_MS + 300)
    assert flow.needs is None
    flow.live(at(500), snapshot=True)
    shown = [at(-500), at(100), at(200), at(400), at(500)]
    mend(flow, shown)
    closed, *rest = mend(flow, shown)
    assert (closed.start_ms, rest) == (NOW_MS, [at(100), at(400)])


def test_a_resubscription_during_a_hole_needs_its_snapshot_too():
    flow = streaming(at(-500))
    lose(flow, 0, 100)
    flow.subscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    flow.resubscribed(NOW_MS + 300)
    assert flow.needs is None
    flow.live(at(500), snapshot=True)
    assert flow.needs is Need.REPAIR
    assert mend(flow, [at(-500), at(200), at(400)]) is None
    assert mend(flow, [at(-500), at(200), at(400), at(500)])[1:] == (at(200), at(400), at(500))


def test_a_loss_during_a_check_opens_a_hole_from_where_the_doubt_began():
    flow = streaming(at(-9_000), at(-500))
    flow.resubscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    assert lose(flow, 8_000, 8_100) == (gap(0, 8_100),)
    flow.subscribed(NOW_MS)
    flow.live(at(9_000), snapshot=True)
    assert mend(flow, [at(-9_000), at(-500), at(100), at(200), at(9_000)])[1:] == (at(100), at(9_000))


def test_a_check_that_is_never_answered_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trades, "WAIT_AT_MOST", 3)
    flow = streaming(at(-500))
    flow.resubscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    assert flow.live(at(300), snapshot=False) == (at(300),)
    last, closed = flow.live(at(400), snapshot=False)
    assert last == at(400)
    proof = "more than 3 trades would have to be remembered until then"
    assert closed == gap(0, 200, "the subscription was replaced", proof=proof)
    assert flow.live(at(500), snapshot=False) == (at(500),)


def test_a_resubscription_before_anything_came_changes_nothing():
    flow = TradeFlow(MARKET)
    flow.subscribed(NOW_MS)
    flow.resubscribed(NOW_MS)
    assert flow.live(at(200), snapshot=True) == (at(200),)
    assert flow.needs is None


def test_a_new_connection_that_nobody_told_the_end_of_the_old_one_for_is_checked():
    flow = streaming(at(-9_000), at(-500))
    flow.subscribed(NOW_MS)
    flow.live(at(200), snapshot=True)
    assert flow.needs is Need.CHECK
    shown = [at(-9_000), at(-700), at(-500), at(100), at(200)]
    assert mend(flow, shown) is None
    closed, *rest = mend(flow, shown)
    assert (closed.cause, rest) == ("subscribed again", [at(-700), at(100)])


def test_a_new_connection_to_a_market_without_a_trade_begins_anew():
    flow = TradeFlow(MARKET)
    flow.subscribed(NOW_MS)
    flow.no_snapshot()
    flow.subscribed(NOW_MS)
    assert lose(flow, 0, 10) == ()


# -- the newest ------------------------------------------------------------------------------------------------


def test_the_newest_trades_come_from_memory_while_the_flow_is_whole():
    flow = streaming(at(-9_000), at(0), at(200), at(100))
    assert flow.newest(3) == (at(200), at(100), at(0))
    assert flow.newest(4) is None
    lose(flow, 300, 400)
    assert flow.newest(1) is None
    flow.subscribed(NOW_MS)
    flow.live(at(500), snapshot=True)
    assert flow.newest(1) is None
    mend(flow, [at(-9_000), at(0), at(100), at(200), at(450), at(500)])
    assert flow.newest(5) == (at(500), at(450), at(200), at(100), at(0))


def test_the_newest_trades_do_not_reach_back_into_a_hole_that_was_given_up():
    flow = streaming(at(-9_000), at(0))
    lose(flow, 300, 400)
    flow.subscribed(NOW_MS)
    flow.live(at(500), snapshot=True)
    flow.unrepairable("no patience")
    flow.live(at(9_000), snapshot=False)
    assert flow.newest(1) == (at(9_000),)
    assert flow.newest(2) is None
