"""What goes wrong with connections and frames: who is struck, when, what they see, and what they do not."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import Counter
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import httpx
import pytest
import trio
import trio.lowlevel
import trio.testing
from ws_peer import Heard, Peer, Refused, connected, dialling, frames, peer_of
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from marketpipe.clock import SystemClock, TrioClock
from marketpipe.sim import (
    ClockSkewFault,
    DnsFault,
    DownFault,
    GarbageFault,
    HalfFault,
    LatencyFault,
    SimConfig,
    SimExchange,
    StatusFault,
    World,
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
    open_simulator,
)
from marketpipe.sim.exchange import SimRequest

EPOCH_MS = 1_790_000_000_000
BTC, ETH = "KRW-BTC", "KRW-ETH"
GET = b"GET /v1/ticker?markets=KRW-BTC HTTP/1.1\r\nhost: sim\r\n\r\n"


def make(**options: Any) -> SimExchange:
    return SimExchange(SimConfig(**{"markets": 3, "snapshot_s": 0.0, **options}), TrioClock(EPOCH_MS))


def kinds(heard: list[Heard]) -> list[str]:
    return [item.kind for item in heard]


def ids(heard: list[Heard]) -> list[int]:
    return [frame["sequential_id"] for frame in frames(heard, "trade")]


def struck(exchange: SimExchange) -> dict[str, int]:
    return {kind: count for kind, count in exchange.statistics().faults.items() if count}


async def listening(peer: Peer, *types: Any) -> None:
    await peer.subscribe(*(types or (("orderbook", BTC),)))
    await peer.hear(0.5)


# Connections that end


async def test_a_drop_ends_all_connections_without_a_close_frame_and_lets_new_ones_live(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial, connected(dial) as one, connected(dial) as other:
        await listening(one)
        exchange.add_fault(WsDropFault())
        for peer in (one, other):
            assert kinds(await peer.hear(1))[-1] == "end"
        async with connected(dial) as newcomer:
            await newcomer.subscribe(("orderbook", BTC))
            assert "end" not in kinds(await newcomer.hear(30))
    assert struck(exchange) == {"ws-drop": 2}


async def test_a_connection_made_in_the_same_instant_as_a_drop_is_not_dropped(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial, connected(dial) as old:
        exchange.add_fault(WsDropFault())
        async with connected(dial) as new:
            assert kinds(await old.hear(0.1)) == ["end"]
            assert await new.hear(5) == []


async def test_a_drop_is_not_forgotten_when_something_else_is_posted_in_the_same_instant(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        exchange.add_fault(WsDropFault())
        exchange.add_fault(WsRefuseFault())
        assert kinds(await peer.hear(1)) == ["end"]


async def test_a_drop_strikes_only_connections_that_carry_what_it_names(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial, connected(dial) as one, connected(dial) as other, connected(dial) as idle:
        await listening(one, ("candle.1m", BTC))
        await listening(other, ("trade", BTC))
        exchange.add_fault(WsDropFault(types=("candle",)))
        ends = [kinds(await peer.hear(1))[-1:] for peer in (one, other, idle)]
        assert [end == ["end"] for end in ends] == [True, False, False]
        # It is over: who subscribes to it now is not struck.
        await other.subscribe(("candle.1m", BTC))
        assert "end" not in kinds(await other.hear(1))


async def test_a_drop_happens_when_it_is_due(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        exchange.add_fault(WsDropFault(after_s=7.5))
        assert exchange.faults()[0]["kind"] == "ws-drop"
        assert await peer.hear(60) == [Heard(7.5, "end", None)]
        assert exchange.faults() == []


async def test_newcomers_are_dropped_as_long_as_they_are_meant(autojump_clock):
    exchange = make()
    exchange.add_fault(WsDropFault(for_s=5, newcomers=True, types=("trade",)))
    async with dialling(exchange) as dial:
        async with connected(dial) as peer:
            assert await peer.hear(1) == []
            await peer.subscribe(("trade", BTC))
            assert "end" in kinds(await peer.hear(0.1))
        await trio.sleep(5)
        async with connected(dial) as peer:
            await peer.subscribe(("trade", BTC))
            assert "end" not in kinds(await peer.hear(10))


async def test_a_drop_reaches_a_client_that_does_not_read(autojump_clock):
    exchange = make(markets=9)
    async with peer_of(exchange) as peer:
        await peer.subscribe(("orderbook", *exchange.world.markets))
        exchange.flood(20_000, 1.0)
        await trio.sleep(3)
        exchange.add_fault(WsDropFault())
        await trio.testing.wait_all_tasks_blocked()
        assert exchange.statistics().streams.connections["open"] == 0


@pytest.mark.parametrize("code", [1000, 1011, 4000])
async def test_a_close_says_its_code_and_ends(code, autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        exchange.add_fault(WsCloseFault(code=code, reason="점검"))
        assert [(item.kind, item.data) for item in await peer.hear(10)] == [("close", code), ("end", None)]


async def test_a_close_of_1006_is_a_drop(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        exchange.add_fault(WsCloseFault(code=1006))
        assert kinds(await peer.hear(10)) == ["end"]


@pytest.mark.parametrize("then", ["drop", "silence"])
async def test_half_a_frame_is_followed_by_the_end_or_by_nothing(then, autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        await listening(peer)
        exchange.add_fault(WsHalfFault(then=then))
        raw = b""
        with trio.move_on_after(30) as scope:
            while data := await peer.stream.receive_some():
                raw += data
        assert scope.cancelled_caught == (then == "silence")
        announced = int.from_bytes(raw[2:4], "big")
        assert raw[:2] == b"\x82\x7e"
        assert announced / 2 - 4 < len(raw) < announced / 2 + 4
        if then == "silence":
            await peer.ping()
            with trio.move_on_after(20):
                assert await peer.stream.receive_some() == b""


# Connections that are not made


async def test_an_upgrade_is_refused_as_often_as_told_and_rest_is_not(autojump_clock):
    exchange = make()
    exchange.add_fault(WsRefuseFault(count=2))
    exchange.add_fault(WsRefuseFault(status=429, count=1))
    async with dialling(exchange) as dial:
        for status in (503, 503, 429):
            with pytest.raises(Refused) as caught:
                async with connected(dial):
                    pass
            assert caught.value.status == status
        async with connected(dial) as peer:
            await listening(peer)
        async with await dial() as stream:
            await stream.send_all(GET)
            assert b" 200 " in await stream.receive_some()
    assert struck(exchange) == {"ws-refuse": 3}


async def test_faults_of_requests_strike_upgrades_too_but_those_of_bodies_do_not(autojump_clock):
    exchange = make()
    for fault in (StatusFault(status=500, count=1), LatencyFault(latency_s=3), GarbageFault(), HalfFault()):
        exchange.add_fault(fault)
    async with dialling(exchange) as dial:
        with pytest.raises(Refused) as caught:
            async with connected(dial):
                pass
        assert caught.value.status == 500
        assert trio.current_time() == 3
        async with connected(dial):
            assert trio.current_time() == 6
    assert struck(exchange) == {"status": 1, "latency": 2}


async def test_down_is_no_connection_at_all_and_the_end_of_those_there_are(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial:
        async with connected(dial) as peer:
            await listening(peer)
            exchange.add_fault(WsDownFault(for_s=5))
            assert kinds(await peer.hear(1))[-1] == "end"
        with pytest.raises(ConnectionRefusedError):
            await dial()
        await trio.sleep(5)
        async with connected(dial) as peer:
            await listening(peer)
            assert "end" not in kinds(await peer.hear(10))
    assert struck(exchange) == {"ws-down": 2}


async def test_an_upgrade_that_comes_while_it_is_down_is_torn_down(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial, await dial() as stream:
        exchange.add_fault(WsDownFault())
        with pytest.raises(ConnectionResetError):
            await Peer(stream).shake_hands(path="/websocket/v1", headers=(), deflate=False)
    assert exchange.statistics().groups["websocket-connect"].requests == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (DownFault(), ConnectionRefusedError),
        (DnsFault(), socket.gaierror),
        (DownFault(groups=("websocket-connect",)), ConnectionRefusedError),
    ],
)
async def test_nobody_there_and_no_such_name_are_what_a_network_says(fault, error, autojump_clock):
    exchange = make()
    exchange.add_fault(fault)
    async with dialling(exchange) as dial:
        with pytest.raises(error):
            await dial()


async def test_dialling_is_not_struck_by_faults_of_rest_alone(autojump_clock):
    exchange = make()
    exchange.add_fault(DownFault(groups=("ticker",)))
    async with peer_of(exchange) as peer:
        await listening(peer)


# Silence


async def test_a_stall_answers_pings_loses_frames_and_never_makes_up_for_them(autojump_clock):
    exchange = make()
    world = World(markets=3)
    async with peer_of(exchange) as peer:
        await listening(peer, ("trade", BTC))
        exchange.add_fault(WsStallFault(for_s=20))
        await peer.hear(0.1)
        await peer.ping(b"there?")
        during = await peer.hear(19)
        assert [(item.kind, item.data) for item in during] == [("pong", b"there?")]
        after = ids(await peer.hear(60))
    real = [deal.sequential_id for deal in world.trades(BTC, EPOCH_MS, EPOCH_MS + 90_000, EPOCH_MS + 90_000)]
    assert len([each for each in real if each < after[0] and each > (EPOCH_MS + 1000) * 10_000]) > 5
    assert min(after) > (EPOCH_MS + 20_000) * 10_000
    assert struck(exchange) == {"ws-stall": 1}


async def test_a_stall_loses_signs_of_life_errors_and_snapshots_too(autojump_clock):
    exchange = make(snapshot_s=0.2)
    exchange.add_fault(WsStallFault())
    async with peer_of(exchange) as peer:
        await peer.say("PING")
        await peer.subscribe(("ticker", BTC))
        await peer.say({"ticket": "t"}, {"method": "LIST_SUBSCRIPTIONS"})
        assert await peer.hear(30) == []
        await peer.ping()
        assert kinds(await peer.hear(30)) == ["pong"]


async def test_a_half_open_connection_answers_nothing_and_goes_on_afterwards(autojump_clock):
    exchange = make(idle_s=10.0)
    async with peer_of(exchange) as peer:
        await listening(peer)
        exchange.add_fault(WsStallFault(pongs=False, for_s=30))
        await peer.hear(0.1)
        await peer.ping()
        await peer.subscribe(("trade", BTC))
        assert await peer.hear(28) == []
        after = await peer.hear(10)
        assert {frame["type"] for frame in frames(after)} == {"orderbook"}


async def test_a_close_is_not_answered_by_a_half_open_connection(autojump_clock):
    exchange = make()
    async with peer_of(exchange, deflate=True) as peer:
        await listening(peer)
        exchange.add_fault(WsStallFault(pongs=False, for_s=30))
        await trio.testing.wait_all_tasks_blocked()
        await peer.close()
        assert await peer.hear(29) == []
        # The other machine is back, but a close was said: nothing is sent on it any more.
        assert kinds(await peer.hear(5)) == []


async def test_a_stalled_connection_is_still_dropped_when_nothing_passes_either_way(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        await peer.subscribe(("orderbook", BTC))
        exchange.add_fault(WsStallFault())
        heard = await peer.hear(100)
    assert (heard[-1].at_s, heard[-1].kind) == (60.0, "end")


async def test_a_stall_spares_newcomers_if_told_to(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial, connected(dial) as old:
        exchange.add_fault(WsStallFault(newcomers=False))
        async with connected(dial) as new:
            for peer in (old, new):
                await peer.subscribe(("orderbook", BTC))
            assert len(await new.hear(5)) > 10
            assert await old.hear(5) == []


async def test_a_stall_strikes_as_many_connections_as_told_and_goes_on_for_them(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial, connected(dial) as one, connected(dial) as other:
        exchange.add_fault(WsStallFault(count=1))
        for peer in (one, other):
            await peer.subscribe(("orderbook", BTC))
        await trio.sleep(5)
        exchange.add_fault(WsDropFault(after_s=1000))
        heard = [len(await peer.hear(seconds)) for peer, seconds in ((one, 5), (other, 0.1))]
    assert sorted(count > 0 for count in heard) == [False, True]


async def test_muted_markets_are_silent_while_the_others_go_on(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        await listening(peer, ("trade", BTC, ETH), ("ticker", BTC, ETH))
        exchange.add_fault(WsMuteFault(codes=(BTC,), types=("trade",), for_s=60))
        await peer.hear(0.1)
        heard = frames(await peer.hear(59.5))
        told = Counter((frame["type"], frame["code"]) for frame in heard)
        assert set(told) == {("trade", ETH), ("ticker", BTC), ("ticker", ETH)}
        after = frames(await peer.hear(60), "trade")
        assert {frame["code"] for frame in after} == {BTC, ETH}
        assert min(frame["timestamp"] for frame in after) > EPOCH_MS + 60_000


async def test_what_is_cleared_is_over_at_once(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        exchange.add_fault(WsStallFault())
        await listening(peer)
        exchange.clear_faults()
        assert len(await peer.hear(5)) > 10


# Frames


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"what": "json"}, json.JSONDecodeError),
        ({"what": "utf8"}, UnicodeDecodeError),
        ({"body": "<html>"}, json.JSONDecodeError),
    ],
)
async def test_garbage_comes_instead_of_a_frame_as_often_as_told(fields, error, autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        await listening(peer)
        exchange.add_fault(WsGarbageFault(count=1, **fields))
        first, *others = await peer.hear(2)
        with pytest.raises(error):
            json.loads(first.data.decode())
        assert frames(others, "orderbook") == frames(others)
        assert others
    assert struck(exchange) == {"ws-garbage": 1}


async def test_broken_framing_is_seen_as_such(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        await listening(peer)
        exchange.add_fault(WsGarbageFault(what="framing", count=1))
        (close,) = [item for item in await peer.hear(1) if item.kind == "close"]
        assert close.data == 1002


async def test_duplicates_come_at_once_and_change_nothing_else(autojump_clock):
    plain, doubled = make(), make()
    doubled.add_fault(WsDuplicateFault())
    told = []
    for exchange in (plain, doubled):
        async with peer_of(exchange) as peer:
            await peer.subscribe({"type": "trade", "codes": [BTC], "isOnlyRealtime": True})
            told.append([item.data for item in await peer.hear(60)])
        await trio.lowlevel.checkpoint()
    world = World(markets=3)
    first = json.loads(told[1][0])["sequential_id"]
    assert told[1][::2] == told[1][1::2]
    assert first in {deal.sequential_id for deal in world.trades(BTC, EPOCH_MS, EPOCH_MS + 120_000, EPOCH_MS + 120_000)}
    assert len(told[0]) == len(set(told[0]))


async def test_reordered_frames_are_late_but_all_there(autojump_clock):
    exchange = make()
    world = World(markets=3)
    async with peer_of(exchange) as peer:
        await peer.subscribe({"type": "trade", "codes": [BTC], "isOnlyRealtime": True})
        exchange.add_fault(WsReorderFault(probability=0.3))
        seen = ids(await peer.hear(120))
    real = [deal.sequential_id for deal in world.trades(BTC, EPOCH_MS, EPOCH_MS + 119_000, EPOCH_MS + 120_000)]
    assert set(real) <= set(seen)
    assert len(seen) == len(set(seen))
    assert seen != sorted(seen)
    assert struck(exchange)["ws-reorder"] > 0


async def test_a_frame_that_nothing_follows_is_not_held_for_ever(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        exchange.add_fault(WsReorderFault())
        await peer.subscribe({"type": "ticker", "codes": [BTC], "is_only_snapshot": True})
        assert [(item.kind, item.at_s) for item in await peer.hear(5)] == [("bytes", 0.3)]


async def test_a_drip_delays_everything_and_loses_nothing(autojump_clock):
    exchange = make()
    world = World(markets=3)
    async with peer_of(exchange) as peer:
        await peer.subscribe({"type": "trade", "codes": [BTC], "isOnlyRealtime": True})
        await peer.hear(0.01)
        exchange.add_fault(WsDripFault(bytes_per_s=200.0, for_s=20))
        slow = await peer.hear(20)
        rest = await peer.hear(40)
    real = [deal.sequential_id for deal in world.trades(BTC, EPOCH_MS, EPOCH_MS + 59_000, EPOCH_MS + 60_000)]
    assert sum(len(item.data) for item in slow) <= 200 * 20
    assert set(real) <= set(ids(slow) + ids(rest))
    assert len(slow) < len(rest)


async def test_a_skewed_clock_shows_in_the_stamps_of_frames_and_in_the_date_of_rest(autojump_clock):
    exchange = make()

    async def date_ms() -> float:
        reply = await exchange.handle(SimRequest("GET", "/v1/ticker?markets=KRW-BTC"))
        return parsedate_to_datetime(dict(reply.headers)[b"date"].decode()).timestamp() * 1000

    async with peer_of(exchange) as peer:
        await listening(peer, ("trade", BTC))
        exchange.add_fault(ClockSkewFault(skew_ms=-90_000, for_s=30))
        await peer.hear(0.2)
        assert await date_ms() == EPOCH_MS - 90_000
        for frame in frames(await peer.hear(28), "trade"):
            assert -90_000 < frame["timestamp"] - frame["trade_timestamp"] < -89_800
            assert frame["sequential_id"] // 10_000 == frame["trade_timestamp"]
        await peer.hear(2)
        assert await date_ms() == EPOCH_MS + 30_000
        for frame in frames(await peer.hear(30), "trade"):
            assert 0 < frame["timestamp"] - frame["trade_timestamp"] < 200


async def test_a_flood_knows_stalls_and_mute_markets(autojump_clock):
    exchange = make()
    async with peer_of(exchange) as peer:
        await listening(peer, ("trade", BTC, ETH))
        exchange.add_fault(WsMuteFault(codes=(BTC,)))
        exchange.reset()
        exchange.flood(1000, 1.0)
        heard = frames(await peer.hear(1.001))
        flood = exchange.statistics().streams.flood
    assert {frame["code"] for frame in heard} == {ETH}
    assert (flood.due, flood.frames, len(heard)) == (1000, 500, 500)
    assert sum(frame["sequential_id"] for frame in heard) % 2**63 == flood.trade_ids


async def test_all_together_is_a_restart_after_which_everything_works(autojump_clock):
    exchange = make()
    async with dialling(exchange) as dial:
        async with connected(dial) as peer:
            await listening(peer)
            for fault in (WsCloseFault(code=1011), WsDownFault(for_s=3), DownFault(for_s=3)):
                exchange.add_fault(fault)
            exchange.add_fault(WsRefuseFault(after_s=3, for_s=2))
            assert "end" in kinds(await peer.hear(2))
            with pytest.raises(ConnectionRefusedError):
                await dial()
        await trio.sleep(3.5)
        with pytest.raises(Refused):
            async with connected(dial):
                pass
        await trio.sleep(2)
        async with connected(dial) as peer:
            await listening(peer)
            assert len(await peer.hear(5)) > 10


async def test_the_same_seed_strikes_the_same_frames(autojump_clock):
    told = []
    for _ in range(2):
        exchange = make()
        exchange.clock = TrioClock(EPOCH_MS)
        async with peer_of(exchange) as peer:
            exchange.add_fault(WsGarbageFault(probability=0.5, body="?"))
            await peer.subscribe({"type": "orderbook", "codes": [BTC], "is_only_realtime": True})
            told.append([item.data == b"?" for item in (await peer.hear(20))[:100]])
    assert told[0] == told[1]
    assert 20 < sum(told[0]) < 80


async def test_no_connection_takes_the_exchange_with_it_whatever_the_fault(autojump_clock):
    faults = [
        WsHalfFault(then="silence"),
        WsGarbageFault(what="framing"),
        WsStallFault(pongs=False, for_s=5),
        WsCloseFault(),
        WsDripFault(for_s=5),
        WsReorderFault(for_s=5),
        WsDropFault(),
    ]
    exchange = make(window="rolling")
    async with dialling(exchange) as dial:
        for deflate in (False, True):
            for fault in faults:
                with contextlib.suppress(LocalProtocolError, RemoteProtocolError, trio.BrokenResourceError):
                    async with connected(dial, deflate=deflate) as peer:
                        await peer.subscribe(("orderbook", BTC))
                        await peer.hear(0.3)
                        exchange.add_fault(fault)
                        await peer.hear(1)
                        await peer.close()
                        await peer.hear(1)
                exchange.clear_faults()
                await trio.sleep(1)
        assert exchange.statistics().streams.connections["open"] == 0
        async with connected(dial) as peer:
            await listening(peer)
            assert len(await peer.hear(2)) > 10


# On real sockets


@pytest.mark.socket
@pytest.mark.slow
async def test_a_client_on_a_socket_meets_the_same_floods_drops_closes_and_refusals():
    async with (
        open_simulator(markets=3) as sim,
        httpx.AsyncClient(base_url=sim.base_url, trust_env=False) as control,
    ):
        host, port = sim.base_url.removeprefix("http://").split(":")

        async def post(**fault: Any) -> None:
            assert (await control.post("/sim/faults", json=fault)).status_code == 200

        dial = partial(trio.open_tcp_stream, host, int(port))
        with trio.fail_after(30):
            async with connected(dial) as peer:
                await peer.subscribe({"type": "trade", "codes": [BTC], "is_only_realtime": True})
                await peer.ping()
                assert "pong" in kinds(await peer.hear(0.2))
                await control.post("/sim/flood", json={"per_second": 2000, "for_s": 0.5})
                told = set(ids(await peer.hear(2.5)))
                now_ms = SystemClock().now_ms()
                told -= {deal.sequential_id for deal in sim.world.trades(BTC, now_ms - 60_000, now_ms, now_ms)}
                streams = (await control.get("/sim/stats")).json()["streams"]
                assert streams["flood"]["frames"] == len(told) == 1000
                assert streams["flood"]["trade_ids"] == sum(told) % 2**63
                assert streams["codes"] == {"trade": [BTC]}
                await post(kind="ws-drop")
                assert kinds(await peer.hear(5))[-1] == "end"
            await post(kind="ws-refuse", status=503, count=1)
            with pytest.raises(Refused):
                async with connected(dial):
                    pass
            await post(kind="ws-close", code=1011, newcomers=True)
            async with connected(dial) as peer:
                assert [(item.kind, item.data) for item in await peer.hear(5)] == [("close", 1011), ("end", None)]
            await control.delete("/sim/faults")
            await post(kind="ws-down", for_s=60)
            with pytest.raises((ConnectionResetError, trio.BrokenResourceError)):
                async with connected(dial):
                    pass
            assert (await control.get("/v1/ticker?markets=KRW-BTC")).status_code == 200
