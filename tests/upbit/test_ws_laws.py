"""Whatever the peer sends and whenever the caller gives up: an error of ours or none, soon, and nothing is left."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from paper_websocket import TOPIC, Exchange, connector, deaf, hang_up, mute, saying, trade
from trio.testing import MockClock
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

from marketpipe.errors import ExchangeError

HANDSHAKE_S = 5.0
PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"\x82\x7e\x02\x00",
            b"\x89\x00",
            b"\x89\x01?",
            b"\x8a\x010",
            b"\x88\x02\x03\xe8",
            b"\x88\x00",
            b"\x01\x01x",
            b"\x80\x01x",
            b"\x82\x0f" + b'{"status":"UP"}',
            b"\x81\x0f" + b'{"status":"UP"}',
            b"\x82\xff\x00\x00\x00\x00\xff\xff\xff\xff",
            b"HTTP/1.1 429 Too Many Requests\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"\r\n",
            b"\r\nhello",
        ]
    ),
)


class StepCanceller(trio.abc.Instrument):
    """Cancels a scope right before the given step that any task makes."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.scope = trio.CancelScope()

    def before_task_step(self, task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel(reason="the test says so")


async def live(ws, cancelled: trio.CancelScope, entered: Counter) -> None:
    """Everything that can be awaited, once."""
    with cancelled:
        async with ws.connect() as session:
            entered["connect"] += 1
            await session.subscribe([TOPIC])
            entered["subscribe"] += 1
            await session.receive()
            entered["receive"] += 1
            await session.ping()
            entered["ping"] += 1
        entered["left"] += 1


PEERS = {
    "polite": saying(BytesMessage(trade(1))),
    "mute": mute,
    "deaf": saying(BytesMessage(trade(1)), then=deaf),
    "closing": saying(BytesMessage(trade(1)), CloseConnection(code=1000)),
    "dropping": saying(BytesMessage(trade(1)), then=hang_up),
    "pinging": saying(BytesMessage(trade(1)), Ping(b"a"), Pong(b"0")),
    "silent": deaf,
}


@pytest.mark.parametrize("script", PEERS.values(), ids=PEERS)
def test_it_can_be_cancelled_at_every_step(script):
    entered: Counter[str] = Counter()

    def run(at: int) -> bool:
        canceller = StepCanceller(at)

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                there = Exchange(script, nursery)
                others = trio.lowlevel.current_statistics().tasks_living
                trio.lowlevel.add_instrument(canceller)
                try:
                    await live(connector(dial=there.dial, handshake_s=HANDSHAKE_S), canceller.scope, entered)
                except ExchangeError:
                    assert script is not PEERS["polite"]
                finally:
                    trio.lowlevel.remove_instrument(canceller)
                assert trio.lowlevel.current_statistics().tasks_living == others + len(nursery.child_tasks)
                assert trio.current_time() <= 16.5
                for stream in there.streams:
                    with pytest.raises(trio.ClosedResourceError):
                        await stream.receive_some()
                nursery.cancel_scope.cancel()

        trio.run(main, clock=MockClock(autojump_threshold=0))
        return canceller.left <= 0

    steps = 1
    while run(steps):
        steps += 1
    assert steps > 10
    if script is PEERS["polite"]:
        assert all(entered[name] for name in ("connect", "subscribe", "receive", "ping", "left"))


@pytest.mark.parametrize("upgraded", [True, False])
@given(pieces=st.lists(PIECES, max_size=6), ends=st.booleans(), pause_s=st.sampled_from([0, 0.3]))
def test_whatever_the_peer_sends_ends_in_an_error_of_ours(upgraded, pieces, ends, pause_s):
    async def script(peer) -> None:
        if upgraded:
            await peer.greet()
        try:
            for piece in pieces:
                await trio.sleep(pause_s)
                await peer.stream.send_all(piece)
        except trio.BrokenResourceError:
            return
        if ends:
            await peer.stream.aclose()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            there = Exchange(script, nursery)
            with pytest.raises(ExchangeError):
                async with connector(dial=there.dial, handshake_s=HANDSHAKE_S).connect() as session:
                    for _ in range(100):
                        with suppress(ExchangeError):
                            await session.receive()
                    await session.receive()
            assert trio.current_time() <= HANDSHAKE_S + 20
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@given(
    script=st.sampled_from(list(PEERS.values())),
    after_s=st.floats(0, 20),
    jobs=st.lists(st.sampled_from(["subscribe", "receive", "ping"]), max_size=4),
)
def test_it_can_be_cancelled_at_any_time(script, after_s, jobs):
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            there = Exchange(script, nursery)
            with trio.move_on_after(after_s) as scope:
                try:
                    async with connector(dial=there.dial, handshake_s=HANDSHAKE_S).connect() as session:
                        asking = {
                            "subscribe": lambda: session.subscribe([TOPIC]),
                            "receive": session.receive,
                            "ping": session.ping,
                        }
                        async with trio.open_nursery() as asked:
                            for job in jobs:
                                asked.start_soon(asking[job])
                except* ExchangeError:
                    pass
            if scope.cancelled_caught:
                assert trio.current_time() == after_s
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
