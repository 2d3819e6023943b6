"""A peer of the WebSocket that sends so as to fill the memory or hold everything up."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from paper_websocket import Peer, connector, numbers, trade
from security.hostile import Harm, answering, costing, listening, upgraded

from marketpipe.errors import BadPayload, ExchangeError, ExchangeUnavailable, RateLimited
from marketpipe.upbit.inbox import HEAVY, Inbox
from marketpipe.upbit.wire import decode_frame

pytestmark = [pytest.mark.socket, pytest.mark.slow]

MB = 2**20
HANDSHAKE_S = 2.0
TEXT, BYTES, MORE, PING, PONG = 1, 2, 0, 9, 10


def frame(kind: int, data: bytes = b"", *, last: bool = True, claim: int | None = None) -> bytes:
    size = len(data) if claim is None else claim
    length = (
        bytes([size])
        if size < 126
        else b"\x7e" + size.to_bytes(2, "big")
        if size < 2**16
        else b"\x7f" + size.to_bytes(8, "big")
    )
    return bytes([(0x80 if last else 0) | kind]) + length + data


async def failure(harm: Harm) -> tuple[ExchangeError, int]:
    """What the connection ends in, and the most memory that it took."""
    async with listening(harm) as port:
        with costing() as cost, pytest.raises(ExchangeError) as info, trio.fail_after(30):
            async with connector(f"ws://127.0.0.1:{port}/", handshake_s=HANDSHAKE_S).connect() as session:
                while True:
                    await session.receive()
    return info.value, cost.bytes


TOO_LONG = {
    "a gigabyte in a frame": upgraded(frame(BYTES, claim=10**9), endless=b" "),
    "more than there is in the world": upgraded(frame(BYTES, claim=2**63 - 1), endless=b" "),
    "a gigabyte of text": upgraded(frame(TEXT, claim=10**9), endless=b" "),
    "fragments without end": upgraded(frame(BYTES, b"x", last=False), endless=frame(MORE, b"x" * 1000, last=False)),
}


@pytest.mark.parametrize("harm", TOO_LONG.values(), ids=TOO_LONG)
async def test_a_message_without_end_ends_the_connection(harm):
    error, held = await failure(harm)

    assert type(error) is ExchangeUnavailable
    assert "closed 1009" in str(error)
    assert held < 40 * MB  # a text is held as bytes and as letters


FLOODS = {
    "empty fragments": upgraded(frame(BYTES, b"x", last=False), endless=frame(MORE, last=False)),
    "empty fragments of text": upgraded(frame(TEXT, b"x", last=False), endless=frame(MORE, last=False)),
    "fragments of a byte": upgraded(frame(BYTES, b"x", last=False), endless=frame(MORE, b"x", last=False)),
    "pings": upgraded(endless=frame(PING)),
    "pongs": upgraded(endless=frame(PONG)),
    "pings between fragments": upgraded(frame(BYTES, b"x", last=False), endless=frame(MORE, last=False) + frame(PING)),
}


@pytest.mark.parametrize("harm", FLOODS.values(), ids=FLOODS)
async def test_frames_that_say_nothing_end_the_connection(harm):
    error, held = await failure(harm)

    assert type(error) is ExchangeUnavailable
    assert "a flood of frames that say nothing" in str(error)
    assert held < 4 * MB


async def test_fragments_that_drip_are_weighed_from_one_read_to_the_next():
    # Few enough in each read, and next to no bytes in any: it is their number that fills the memory.
    async def harm(stream: trio.abc.Stream) -> None:
        await Peer(stream).greet()
        await stream.send_all(frame(BYTES, b"x", last=False))
        while True:
            await stream.send_all(frame(MORE, last=False) * 500)
            await trio.testing.wait_all_tasks_blocked()

    async with listening(harm) as port:
        with pytest.raises(ExchangeUnavailable, match="a flood of frames"), trio.fail_after(30):
            async with connector(f"ws://127.0.0.1:{port}/", frame_bytes=2**16).connect() as session:
                await session.receive()


async def test_a_long_message_may_come_in_the_smallest_packets():
    message = trade(7).ljust(2 * MB)

    async def patient(stream: trio.abc.Stream) -> None:
        await Peer(stream).greet()
        data = frame(BYTES, message)
        for start in range(0, len(data), 1460):
            await stream.send_all(data[start : start + 1460])
            await trio.lowlevel.checkpoint()
        await trio.sleep_forever()

    async with listening(patient) as port, connector(f"ws://127.0.0.1:{port}/").connect() as session:
        with trio.fail_after(30):
            assert numbers(await session.receive()) == [7]


async def test_compression_is_not_offered_and_what_is_compressed_is_refused():
    peers = []

    async def deflating(stream: trio.abc.Stream) -> None:
        peers.append(peer := Peer(stream))
        await peer.greet()
        await stream.send_all(bytes([0xC0 | BYTES, 5]) + b"abcde")
        await trio.sleep_forever()

    error, _ = await failure(deflating)

    assert "closed 1002" in str(error)
    assert peers[0].request.extensions == []


REFUSALS = {
    "a gigabyte": answering(b"HTTP/1.1 429 Slow\r\nContent-Length: 1000000000\r\n\r\n", endless=b"x"),
    "no length": answering(b"HTTP/1.1 429 Slow\r\n\r\n", endless=b"x"),
    "chunks of a byte": answering(b"HTTP/1.1 429 Slow\r\nTransfer-Encoding: chunked\r\n\r\n", endless=b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("harm", REFUSALS.values(), ids=REFUSALS)
async def test_of_a_refusal_without_end_the_beginning_is_read(harm):
    error, held = await failure(harm)

    assert type(error) is RateLimited
    assert held < 4 * MB


HEADS = {
    "a header without end": answering(b"HTTP/1.1 101 Switching\r\nX: ", endless=b"x"),
    "headers without end": answering(b"HTTP/1.1 101 Switching\r\n", endless=b"X: y\r\n"),
    "Continue without end": answering(endless=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a header that drips": answering(b"HTTP/1.1 101 Switching\r\nX: ", endless=b"x", every_s=0.05),
    "a refusal that drips": answering(b"HTTP/1.1 500 No\r\n\r\n", endless=b"x", every_s=0.05),
}


@pytest.mark.parametrize("harm", HEADS.values(), ids=HEADS)
async def test_an_upgrade_without_end_is_given_up(harm):
    began_s = trio.current_time()
    error, held = await failure(harm)

    assert type(error) is ExchangeUnavailable
    assert held < 4 * MB
    assert trio.current_time() - began_s < 4 * HANDSHAKE_S


async def test_an_upgrade_that_is_sent_elsewhere_is_not_followed():
    asked = []

    async def elsewhere(stream: trio.abc.Stream) -> None:
        asked.append(await stream.receive_some(65536))
        port = stream.socket.getsockname()[1]
        await stream.send_all(b"HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % port)

    error, _ = await failure(elsewhere)

    assert error.status == 301
    assert len(asked) == 1


async def test_an_upgrade_names_no_origin_and_gives_back_no_cookie():
    asked = []

    async def baker(stream: trio.abc.Stream) -> None:
        asked.append((await stream.receive_some(65536)).lower())
        await stream.send_all(b"HTTP/1.1 503 No\r\nSet-Cookie: id=7; Path=/\r\nContent-Length: 0\r\n\r\n")

    async with listening(baker) as port:
        ws = connector(f"ws://127.0.0.1:{port}/")
        for _ in range(2):
            with pytest.raises(ExchangeUnavailable):
                async with ws.connect():
                    pytest.fail("connected")

    assert len(asked) == 2
    for head in asked:
        for name in (b"\norigin:", b"\ncookie:", b"\nauthorization:"):
            assert name not in head


async def test_the_longest_messages_wait_in_the_socket_when_nobody_reads_them():
    message = b" " * (7 * MB)
    data = frame(BYTES, message)

    async def generous(stream: trio.abc.Stream) -> None:
        await Peer(stream).greet()
        while True:
            await stream.send_all(data)

    async with listening(generous) as port:
        with costing() as cost:
            async with connector(f"ws://127.0.0.1:{port}/").connect() as session:
                most = -1
                while session.backlog()[0] > most:
                    most = session.backlog()[0]
                    await trio.sleep(0.5)
    assert 1 < most < 10
    assert cost.bytes < 100 * MB


async def test_a_heavy_message_is_let_in_where_there_is_room():
    inbox = Inbox(10, at_most_bytes=3 * HEAVY)
    heavy = b"x" * (2 * HEAVY)
    await inbox.send(heavy)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.send, heavy)
        await trio.testing.wait_all_tasks_blocked()
        assert len(inbox.messages) == 1
        inbox.messages.popleft()
        nursery.start_soon(inbox.arrived)
    assert list(inbox.messages) == [heavy]


async def test_a_message_too_heavy_for_any_room_is_let_in_alone():
    inbox = Inbox(10, at_most_bytes=1)
    with trio.fail_after(5):
        await inbox.send(b"x" * (2 * HEAVY))
    assert len(inbox.messages) == 1


MESSAGES = {
    "brackets": b"[" * 10**6,
    "braces": b'{"a":' * 10**6,
    "digits": b'{"status":' + b"9" * 10**5 + b"}",
    "a list of lists": b"[" + b"[]," * 10**6 + b"[]]",
    "lists in a status": b'{"status":[' + b"[]," * 10**6 + b"[]]}",
    "signs of life": b"[" + b'{"status":"UP"},' * 10**5 + b'{"status":"UP"}]',
    "flaws": b"[" + b'{"type":"trade","code":"K"},' * 10**5 + b"{}]",
    "an error with many words": b'{"error":{"name":"' + b"x" * (7 * MB) + b'"}}',
}


@pytest.mark.parametrize("data", MESSAGES.values(), ids=MESSAGES)
def test_no_message_costs_much_more_than_its_length(data):
    with costing() as cost, pytest.raises(ExchangeError) as info:
        decode_frame(data, received_ms=1)

    assert str(info.value).isprintable()
    assert len(str(info.value)) < 400
    assert cost.bytes < 12 * 8 * MB
    assert isinstance(info.value, BadPayload) or data.startswith(b'{"error"')
