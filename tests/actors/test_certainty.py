"""What is certain of the past: what is told as proven, and from when on something is told as lost."""

from __future__ import annotations

import pytest
import trio
from keeper_rig import BTC, ETH, NotingDesk
from paper_streams import EPOCH_MS, now_ms

from marketpipe.actors.certainty import Certainty
from marketpipe.core.topics import Line, Topic

BITCOIN, ETHER = Topic(Line.TRADE, BTC), Topic(Line.TRADE, ETH)


@pytest.fixture
def desk() -> NotingDesk:
    return NotingDesk(Line.TRADE)


@pytest.fixture
def certainty(desk: NotingDesk) -> Certainty:
    return Certainty(desk, now_ms)


def lost(desk: NotingDesk) -> dict[str, float | None]:
    """From when on what is lost, in seconds since the test began."""
    calls = [(market, call.start_ms) for call in desk.told("lost") for market in call.markets]
    return {market: None if at_ms is None else (at_ms - EPOCH_MS) / 1000 for market, at_ms in calls}


async def test_a_loss_begins_with_the_last_sign_that_everything_had_arrived(certainty, desk, autojump_clock):
    await trio.sleep(5)
    certainty.arrived(trio.current_time())
    await trio.sleep(3)
    certainty.lost([BITCOIN], "closed 1006")
    assert lost(desk) == {BTC: 5.0}
    assert desk.last("lost").cause == "closed 1006"


async def test_a_connection_that_proved_nothing_is_lost_from_now_on(certainty, desk, autojump_clock):
    """And what was proven by the one before it does not count for the next."""
    certainty.arrived(trio.current_time())
    certainty.lost([ETHER], "closed 1006")
    await trio.sleep(9)
    certainty.lost([BITCOIN], "closed 1006")
    assert lost(desk) == {ETH: 0.0, BTC: 9.0}


async def test_frames_prove_nothing_while_the_connection_is_doubted_as_a_whole(certainty, desk, autojump_clock):
    certainty.arrived(1.0)
    with certainty.doubted(whole=True):
        certainty.arrived(2.0)
        certainty.lost([BITCOIN], "stalled")
    assert lost(desk) == {BTC: 1.0}


async def test_others_prove_what_they_prove_while_some_topics_are_doubted(certainty, desk, autojump_clock):
    certainty.arrived(1.0)
    with certainty.doubted(whole=False):
        certainty.arrived(2.0)
        certainty.lost([BITCOIN], "stalled")
    assert lost(desk) == {BTC: 2.0}


async def test_a_doubt_ends_with_the_check_however_that_ends(certainty, desk, autojump_clock):
    with pytest.raises(trio.TooSlowError), certainty.doubted(whole=True), trio.fail_after(1):
        await trio.sleep_forever()
    certainty.arrived(1.0)
    await trio.sleep(3)
    certainty.lost([BITCOIN], "closed 1006")
    assert lost(desk) == {BTC: 1.0}


async def test_a_check_never_takes_back_what_frames_have_proven_since(certainty, desk, autojump_clock):
    certainty.arrived(7.0)
    certainty.checked(6.0)
    certainty.lost([BITCOIN], "closed 1006")
    certainty.arrived(7.0)
    certainty.checked(8.0)
    certainty.lost([ETHER], "closed 1006")
    assert lost(desk) == {BTC: 7.0, ETH: 8.0}


async def test_what_was_kept_from_us_while_others_came_is_certain_as_far_as_it_was_shown(
    certainty, desk, autojump_clock
):
    desk.shown[BTC] = EPOCH_MS + 1_000
    certainty.arrived(5.0)
    certainty.stalled(frozenset({BITCOIN}))
    certainty.lost([BITCOIN, ETHER], "stalled")
    assert lost(desk) == {BTC: 1.0, ETH: 5.0}
    certainty.arrived(6.0)
    certainty.lost([BITCOIN], "closed 1006")  # what was found once explains one loss
    assert lost(desk)[BTC] == 6.0


async def test_what_is_withheld_leaves_what_is_proven_of_the_others(certainty, desk, autojump_clock):
    await trio.sleep(4)
    certainty.arrived(3.0)
    certainty.withheld([BITCOIN], "the exchange does not send it")
    certainty.lost([ETHER], "closed 1006")
    assert lost(desk) == {BTC: 4.0, ETH: 3.0}


async def test_the_desk_hears_every_half_second_what_is_proven_and_nothing_before_that(certainty, desk, autojump_clock):
    with trio.move_on_after(2.2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(certainty.tell)
            await trio.sleep(1.1)
            certainty.arrived(1.1)
    assert [(call.at_s, call.start_ms) for call in desk.told("proven")] == [
        (1.5, EPOCH_MS + 1_100),
        (2.0, EPOCH_MS + 1_100),
    ]
