"""One connection: what goes over it, what keeps it alive, and what every way of ending is called."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from paper_websocket import (
    EPOCH_MS,
    TOPIC,
    UP,
    Peer,
    Script,
    connector,
    deaf,
    exchange,
    hang_up,
    mute,
    numbers,
    polite,
    received,
    saying,
    sending,
    session,
    trade,
)
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    TextMessage,
)

from marketpipe.core.topics import Line, Topic
from marketpipe.errors import BadPayload, Banned, ExchangeError, ExchangeUnavailable, RateLimited
from marketpipe.upbit.ws import AT_ONCE, CLOSE_S, PATIENCE, UpbitSession


async def refused(script: Script, **options: Any) -> ExchangeError:
    """What connecting to such a peer raises."""
    async with exchange(script, **options) as (ws, _):
        with pytest.raises(ExchangeError) as info:
            async with ws.connect():
                pytest.fail("connected")
        return info.value


async def failure(asked: Awaitable[Any]) -> ExchangeError:
    with pytest.raises(ExchangeError) as info:
        await asked
    return info.value


class TestUpgrade:
    async def test_the_request_is_plain(self):
        async with session(polite) as (_, peer):
            named = {name.lower() for name, _ in peer.request.extra_headers}

        assert (peer.request.host, peer.request.target) == ("exchange", "/websocket/v1")
        assert b"origin" not in named
        assert peer.request.extensions == peer.request.subprotocols == []

    @pytest.mark.parametrize(
        ("url", "host", "target"),
        [
            ("wss://api.upbit.com/websocket/v1", "api.upbit.com", "/websocket/v1"),
            ("wss://api.upbit.com:443", "api.upbit.com", "/"),
            ("wss://api.upbit.com:80", "api.upbit.com:80", "/"),
            ("ws://127.0.0.1:8600/a?b=c", "127.0.0.1:8600", "/a?b=c"),
            ("ws://[::1]:8600?b", "[::1]:8600", "/?b"),
            ("ws://user:secret@localhost/", "localhost", "/"),
        ],
    )
    async def test_the_url_says_what_is_asked_for(self, url, host, target):
        async with exchange(polite) as (_, there), connector(url, dial=there.dial).connect():
            assert (there.peer.request.host, there.peer.request.target) == (host, target)

    @pytest.mark.parametrize(
        "url",
        ["", "exchange", "http://exchange", "ws://", "ws://h:0", "ws://h:99999", "ws://h/a b", "ws://h/ä", "ws://["],
    )
    def test_a_url_that_is_none_is_misuse(self, url):
        with pytest.raises(ValueError, match="must be a ws or wss URL"):
            connector(url)

    async def test_frames_may_come_in_one_piece_with_the_answer(self):
        async def script(peer):
            await peer.next()
            await peer.tell(AcceptConnection(), BytesMessage(trade(1)), BytesMessage(trade(2)))
            await peer.answer()

        async with session(script) as (opened, _):
            assert numbers(await received(opened, 2)) == [1, 2]

    async def test_one_connector_connects_as_often_as_it_is_asked_also_at_once(self):
        async with exchange(saying(BytesMessage(trade(1)))) as (ws, there):
            async with ws.connect() as first:
                async with ws.connect() as second:
                    assert numbers(await second.receive()) == [1]
                assert numbers(await first.receive()) == [1]
            async with ws.connect() as third:
                assert numbers(await third.receive()) == [1]

        assert len(there.peers) == 3


class TestRefusal:
    async def test_no_stream_in_time_has_sent_nothing(self, autojump_clock):
        with pytest.raises(ExchangeUnavailable, match=r"^could not connect to exchange within 5 s$") as info:
            async with connector(dial=trio.sleep_forever).connect():
                pytest.fail("connected")

        assert trio.current_time() == 5.0
        assert not info.value.sent

    async def test_one_bound_covers_dialling_and_the_upgrade(self, autojump_clock):
        async with exchange(Peer.listen) as (_, there):

            async def slowly():
                await trio.sleep(3)
                return await there.dial()

            with pytest.raises(ExchangeUnavailable, match="exchange did not answer the upgrade within 5 s") as info:
                async with connector(dial=slowly).connect():
                    pytest.fail("connected")
            assert trio.current_time() == 5.0
            await there.peer.hung_up.wait()
        assert (info.value.sent, info.value.abandoned) == (True, True)

    async def test_a_peer_that_hangs_up_is_not_waited_for(self, autojump_clock):
        async def script(peer):
            await peer.next()
            await peer.stream.aclose()

        flaw = await refused(script)

        assert trio.current_time() == 0
        assert str(flaw) == "exchange closed the connection without an answer to the upgrade"
        assert type(flaw) is ExchangeUnavailable

    async def test_a_stream_that_is_dead_already_is_not_waited_for(self, autojump_clock):
        flaw = await refused(hang_up)

        assert trio.current_time() == 0
        assert type(flaw) is ExchangeUnavailable

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "SSH-2.0-OpenSSH_9.2"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "illegal status line"),
            (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "accept token"),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "Connection: Upgrade"),
        ],
    )
    async def test_what_is_no_websocket_is_named(self, autojump_clock, answer, words):
        async def script(peer):
            await peer.next()
            await peer.stream.send_all(answer)
            await peer.listen()

        flaw = await refused(script)

        assert trio.current_time() == 0
        assert str(flaw).startswith("exchange does not speak WebSocket: ")
        assert words in str(flaw)
        assert type(flaw) is ExchangeUnavailable

    @staticmethod
    def answering(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Script:
        async def script(peer):
            await peer.next()
            await peer.tell(
                RejectConnection(
                    status_code=status,
                    headers=[(b"content-length", b"%d" % len(body)), *headers],
                    has_body=True,
                ),
                RejectData(data=body),
            )
            await peer.listen()

        return script

    async def test_503_is_unavailable_in_the_exchanges_words(self):
        page = b"<html>\r\n  <h1>Service\tTemporarily Unavailable</h1>\r\n</html>" + b" " * 400 + b"x" * 100_000

        flaw = await refused(self.answering(503, page))

        assert type(flaw) is ExchangeUnavailable
        assert flaw.status == 503
        assert str(flaw).startswith(
            "HTTP 503 from exchange on the upgrade: <html> <h1>Service Temporarily Unavailable</h1> </html>"
        )
        assert len(str(flaw)) < 200

    async def test_a_refusal_without_a_word_is_one_too(self):
        async def script(peer):
            await peer.next()
            await peer.tell(RejectConnection(status_code=403))
            await peer.listen()

        flaw = await refused(script)

        assert (type(flaw), flaw.status) == (ExchangeUnavailable, 403)
        assert str(flaw) == "HTTP 403 from exchange on the upgrade: no reason given"

    @pytest.mark.parametrize(("headers", "pause_s"), [([], 1.0), ([(b"Retry-After", b"7")], 7.0)])
    async def test_429_says_how_long_to_wait(self, headers, pause_s):
        flaw = await refused(self.answering(429, b"Too Many Requests", *headers))

        assert (type(flaw), flaw.retry_after_s) == (RateLimited, pause_s)
        assert str(flaw) == "HTTP 429 from exchange on the upgrade: Too Many Requests"

    @pytest.mark.parametrize(("body", "until_ms"), [(b"blocked", 0), (b"blocked for 60 seconds", EPOCH_MS + 60_000)])
    async def test_418_is_a_ban(self, autojump_clock, body, until_ms):
        flaw = await refused(self.answering(418, body))

        assert (type(flaw), flaw.until_ms) == (Banned, until_ms)

    @pytest.mark.parametrize("then", [hang_up, Peer.listen])
    async def test_the_status_counts_also_if_the_body_has_no_end_or_ends_with_the_connection(
        self, autojump_clock, then
    ):
        async def script(peer):
            await peer.next()
            await peer.stream.send_all(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\n\r\nslow down")
            await then(peer)

        flaw = await refused(script)

        assert (type(flaw), flaw.retry_after_s) == (RateLimited, 3.0)
        assert str(flaw).endswith("slow down")
        assert trio.current_time() == (0 if then is hang_up else 5.0)

    async def test_a_200_is_no_connection(self):
        flaw = await refused(self.answering(200, b"[]"))

        assert (type(flaw), flaw.status) == (ExchangeUnavailable, 200)


class TestReceive:
    @pytest.mark.parametrize("message", [BytesMessage(trade(7)), TextMessage(trade(7).decode())])
    async def test_binary_and_text_are_the_same(self, autojump_clock, message):
        async with session(saying(message)) as (opened, _):
            await trio.sleep(0.25)
            [frame] = await opened.receive()

        assert (frame.value.sequential_id, frame.value.market, frame.snapshot) == (7, "KRW-BTC", False)
        assert frame.value.received_ms == EPOCH_MS + 250

    async def test_it_waits_for_what_has_not_come(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            await trio.sleep(10)
            await peer.say(trade(1))
            await peer.answer()

        async with session(script) as (opened, _):
            assert numbers(await opened.receive()) == [1]
            assert trio.current_time() == 10

    async def test_a_sign_of_life_is_not_news(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            await peer.say(UP, UP)
            await trio.sleep(3)
            await peer.say(UP, trade(1))
            await peer.answer()

        async with session(script) as (opened, _):
            assert numbers(await opened.receive()) == [1]
            assert trio.current_time() == 3

    async def test_a_message_may_come_in_fragments(self):
        text = trade(1).decode()
        parts = (TextMessage(text[:100], message_finished=False), Ping(b"?"), TextMessage(text[100:]))

        async with session(saying(*parts)) as (opened, _):
            assert numbers(await opened.receive()) == [1]

    async def test_nothing_is_lost_when_it_is_cancelled(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            for number in range(50):
                await trio.sleep(0.1)
                await peer.say(trade(number))
            await peer.answer()

        seen = []
        async with session(script) as (opened, _):
            while len(seen) < 50:
                with trio.move_on_after(0.05):
                    seen += numbers(await opened.receive())

        assert seen == list(range(50))

    async def test_a_message_that_cannot_be_read_is_a_bad_payload_and_the_next_one_comes(self):
        async with session(saying(BytesMessage(b'{"type":'), BytesMessage(trade(1)))) as (opened, _):
            assert type(await failure(opened.receive())) is BadPayload
            assert numbers(await opened.receive()) == [1]

    async def test_what_came_before_it_comes_first(self, autojump_clock):
        script = saying(BytesMessage(trade(1)), BytesMessage(b'{"type":'), BytesMessage(trade(2)))
        async with session(script) as (opened, _):
            await trio.sleep(1)
            assert numbers(await opened.receive()) == [1]
            assert type(await failure(opened.receive())) is BadPayload
            assert numbers(await opened.receive()) == [2]

    async def test_a_backlog_comes_in_portions(self, autojump_clock):
        script = saying(*(BytesMessage(trade(number)) for number in range(AT_ONCE + 1)))
        async with session(script) as (opened, _):
            await trio.sleep(1)
            assert numbers(await opened.receive()) == list(range(AT_ONCE))
            assert numbers(await opened.receive()) == [AT_ONCE]

    async def test_an_error_frame_is_raised_and_then_the_close(self):
        error = BytesMessage('{"error":{"message":"Format 이 맞지 않습니다.","name":"WRONG_FORMAT"}}'.encode())

        async with session(saying(error, CloseConnection(code=1000))) as (opened, _):
            flaw = await failure(opened.receive())
            assert type(flaw) is ExchangeError
            assert "WRONG_FORMAT" in str(flaw)
            assert "closed 1000" in str(await failure(opened.receive()))

    async def test_an_error_frame_for_too_many_messages_is_a_rate_limit(self):
        error = BytesMessage(b'{"error":{"name":"TOO_MANY_REQUEST","message":"slow down"}}')

        async with session(saying(error)) as (opened, _):
            assert type(await failure(opened.receive())) is RateLimited

    async def test_the_longest_message_allowed_is_received(self):
        padded = trade(1) + b" " * (100_000 - len(trade(1)))

        async with session(saying(BytesMessage(padded)), frame_bytes=100_000) as (opened, _):
            assert numbers(await opened.receive()) == [1]


class TestSubscribe:
    async def test_it_returns_when_the_exchange_has_received_the_message(self, autojump_clock):
        said = []

        async def script(peer):
            await peer.greet()
            said.append(await peer.next())
            said.append(await peer.next())
            await trio.sleep(1)
            await peer.tell(Pong(said[1].payload))
            await peer.answer()

        async with session(script) as (opened, _):
            await opened.subscribe([TOPIC, Topic(Line.TRADE, "KRW-ETH")])
            assert trio.current_time() == 1

        message, ping = said
        assert isinstance(ping, Ping)
        ticket, wanted = (part for part in json.loads(message.data) if "format" not in part)
        assert ticket["ticket"]
        assert (wanted["type"], sorted(wanted["codes"])) == ("trade", ["KRW-BTC", "KRW-ETH"])

    async def test_each_message_has_a_ticket_of_its_own(self, autojump_clock):
        tickets = set()

        async def script(peer):
            await peer.greet()
            while (event := await peer.next()) is not None:
                if isinstance(event, Message):
                    tickets.add(json.loads(event.data)[0]["ticket"])
                elif isinstance(event, Ping):
                    await peer.tell(event.response())

        async with session(script) as (opened, _):
            await opened.subscribe([TOPIC])
            await opened.subscribe([TOPIC])

        assert len(tickets) == 2

    async def test_frames_that_come_meanwhile_are_kept(self):
        async def script(peer):
            await peer.greet()
            await peer.next()
            await peer.say(trade(1))
            await peer.answer()

        async with session(script) as (opened, _):
            await opened.subscribe([TOPIC])
            assert numbers(await opened.receive()) == [1]

    async def test_a_close_instead_of_an_answer_is_raised(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            await peer.next()
            await peer.tell(CloseConnection(code=1011, reason="oops"))
            await peer.answer()

        async with session(script) as (opened, _):
            assert "closed 1011 (oops)" in str(await failure(opened.subscribe([TOPIC])))

    async def test_a_close_by_a_peer_that_does_not_hang_up_is_not_called_a_missing_pong(self, autojump_clock):
        async with session(saying(CloseConnection(code=1011), then=Peer.listen)) as (opened, _):
            assert "closed 1011" in str(await failure(opened.subscribe([TOPIC])))
            assert trio.current_time() <= 1.5

    async def test_a_peer_that_does_not_even_read_is_given_up(self, autojump_clock):
        async with unread() as (opened, _):
            flaw = await failure(opened.subscribe([TOPIC]))
            assert (str(flaw), trio.current_time()) == ("no pong from exchange within 1.5 s", 1.5)

    async def test_half_a_message_ends_the_session(self, autojump_clock):
        async with unread() as (opened, _):
            with trio.move_on_after(1):
                await opened.subscribe([TOPIC])
            assert trio.current_time() == 1
            for asked in (opened.receive, opened.ping):
                assert str(await failure(asked())) == "a message to exchange was cut off in the middle"

    async def test_half_a_wait_does_not(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            await trio.sleep(1)
            await peer.answer()

        async with session(script) as (opened, _):
            with trio.move_on_after(0.5):
                await opened.subscribe([TOPIC])
            await opened.ping()
            assert trio.current_time() == 1


@asynccontextmanager
async def unread(**options: Any) -> AsyncIterator[tuple[UpbitSession, Peer]]:
    """A session whose peer takes nothing off the line after the upgrade, which can hold nothing itself."""

    async def dial():
        ours, theirs = lockstep_stream_pair()
        peers.append(Peer(theirs))
        nursery.start_soon(peers[0].greet)
        return ours

    peers = []
    async with trio.open_nursery() as nursery:
        async with connector(dial=dial, **options).connect() as opened:
            await wait_all_tasks_blocked()
            yield opened, peers[0]
        nursery.cancel_scope.cancel()


class TestAlive:
    async def test_a_ping_goes_out_every_so_often(self, autojump_clock):
        times_s = []

        async def script(peer):
            await peer.greet()
            while (event := await peer.next()) is not None:
                if isinstance(event, Ping):
                    times_s.append(trio.current_time())
                    await peer.tell(event.response())

        async with session(script):
            await trio.sleep(50)

        assert times_s == [15, 30, 45]

    async def test_a_peer_that_is_silent_but_answers_pings_is_alive(self, autojump_clock):
        async with session(polite) as (opened, _):
            with trio.move_on_after(3600) as scope:
                await opened.receive()

        assert scope.cancelled_caught

    async def test_a_half_open_connection_is_noticed_by_whoever_receives(self, autojump_clock):
        async with session(mute) as (opened, _):
            flaw = await failure(opened.receive())

        assert trio.current_time() == 16.5
        assert str(flaw) == "no pong from exchange within 1.5 s"
        assert (type(flaw), flaw.abandoned) == (ExchangeUnavailable, True)

    async def test_what_came_before_the_silence_is_received_first(self, autojump_clock):
        async with session(saying(BytesMessage(trade(1)), BytesMessage(trade(2)), then=Peer.listen)) as (opened, _):
            await trio.sleep(60)
            assert numbers(await received(opened, 2)) == [1, 2]
            assert "no pong" in str(await failure(opened.receive()))

    async def test_a_ping_of_ones_own_ends_the_session_too(self, autojump_clock):
        async with session(mute) as (opened, _):
            first = await failure(opened.ping())
            assert trio.current_time() == 1.5
            second = await failure(opened.receive())
            third = await failure(opened.subscribe([TOPIC]))
            assert trio.current_time() == 1.5

        assert str(first) == str(second) == str(third) == "no pong from exchange within 1.5 s"
        assert len({id(flaw) for flaw in (first, second, third)}) == 3

    async def test_a_pong_behind_a_burst_is_waited_for(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            ping = await peer.next()
            for number in range(10):
                await trio.sleep(1)
                await peer.say(trade(number))
            await peer.tell(ping.response())
            await peer.answer()

        async with session(script) as (opened, _), trio.open_nursery() as nursery:

            async def receive():
                while True:
                    await opened.receive()

            nursery.start_soon(receive)
            await opened.ping()
            assert trio.current_time() == 10
            nursery.cancel_scope.cancel()

    async def test_a_peer_that_sends_and_never_answers_is_given_up_in_the_end(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            while True:
                await trio.sleep(1)
                await peer.say(UP)

        async with session(script) as (opened, _):
            assert "no pong" in str(await failure(opened.receive()))

        assert trio.current_time() == 15 + PATIENCE * 1.5

    async def test_bytes_that_trickle_in_are_no_sign_of_life(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            for byte in peer.ws.send(BytesMessage(trade(1))):
                await trio.sleep(0.5)
                await peer.stream.send_all(bytes([byte]))

        async with session(script) as (opened, _):
            assert "no pong" in str(await failure(opened.receive()))

        assert trio.current_time() == 16.5

    async def test_a_slow_line_is_slow_and_nothing_else(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            for byte in peer.ws.send(BytesMessage(trade(1))):
                await trio.sleep(0.02)
                await peer.stream.send_all(bytes([byte]))
            await peer.answer()

        async with session(script) as (opened, _):
            assert numbers(await opened.receive()) == [1]

    async def test_half_a_frame_and_silence_is_a_half_open_connection(self, autojump_clock):
        async with session(sending(b"\x82\x7e\x02\x00" + trade(1)[:100])) as (opened, _):
            assert "no pong" in str(await failure(opened.receive()))

        assert trio.current_time() == 16.5

    async def test_a_queue_that_nobody_empties_looks_the_same(self, autojump_clock):
        async with session(saying(*(BytesMessage(trade(number)) for number in range(5))), frames=2) as (opened, _):
            await failure(opened.ping())
            assert trio.current_time() == 1.5
            assert numbers(await received(opened, 2)) == [0, 1]
            assert "no pong" in str(await failure(opened.receive()))

    async def test_the_exchange_may_ping_as_well(self):
        answered = trio.Event()

        async def script(peer):
            await peer.greet()
            await peer.tell(Ping(b"there?"))
            assert (await peer.next()).payload == b"there?"
            answered.set()
            await peer.answer()

        async with session(script):
            await answered.wait()

    async def test_many_may_ping_at_once(self, autojump_clock):
        async with session(polite) as (opened, _), trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(opened.ping)

        assert trio.current_time() == 0


@attrs.define(eq=False)
class Tunnel(trio.abc.Stream):
    """A stream with errors of its own."""

    inner: trio.abc.Stream

    async def receive_some(self, max_bytes=None):
        data = await self.inner.receive_some(max_bytes)
        if b"collapse" in data:
            raise OSError("the tunnel has collapsed")
        return data

    async def send_all(self, data):
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self):
        await self.inner.aclose()


class TestEnd:
    @pytest.mark.parametrize(
        ("event", "words"),
        [
            (CloseConnection(code=1000), "closed 1000 (normal closure)"),
            (CloseConnection(code=1001, reason="bye"), "closed 1001 (bye)"),
            (CloseConnection(code=1011, reason="in\nternal " + "x" * 100), "closed 1011 (in ternal xxx"),
            (CloseConnection(code=4000), "closed 4000 (private reserved)"),
        ],
    )
    async def test_a_close_is_told_with_code_and_reason_after_all_that_came_before(self, autojump_clock, event, words):
        async with session(saying(BytesMessage(trade(1)), event)) as (opened, _):
            await trio.sleep(5)
            assert numbers(await opened.receive()) == [1]
            for asked in (opened.receive, opened.ping, opened.receive):
                flaw = await failure(asked())
                assert str(flaw).startswith(f"the connection to exchange {words}")
                assert (type(flaw), flaw.sent, flaw.status) == (ExchangeUnavailable, True, None)
            assert trio.current_time() == 5

    @pytest.mark.parametrize("before", [b"", b"\x82\x7e\x02\x00half a frame"])
    async def test_a_drop_without_a_close_frame_is_1006(self, before):
        async with session(sending(before, then=hang_up)) as (opened, _):
            flaw = await failure(opened.receive())

        assert str(flaw) == "the connection to exchange closed 1006 (abnormal closure)"
        assert type(flaw) is ExchangeUnavailable

    async def test_a_ping_that_waits_is_told_at_once_of_a_drop(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            await trio.sleep(1)
            await peer.stream.aclose()

        async with session(script) as (opened, _):
            assert "closed 1006" in str(await failure(opened.ping()))
            assert trio.current_time() == 1

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"HTTP/1.1 200 OK\r\n\r\n", 1002),
            (b"\xff" * 64, 1002),
            (b"\x81\x02\xc3\x28", 1007),
            (b"\x88\x01x", 1002),
        ],
    )
    async def test_garbage_after_the_upgrade_ends_the_session(self, autojump_clock, data, code):
        async with session(sending(data)) as (opened, peer):
            assert f"closed {code} (" in str(await failure(opened.receive()))

        assert trio.current_time() == 0
        with trio.fail_after(1):
            await peer.hung_up.wait()

    @pytest.mark.slow
    async def test_a_message_of_9_mib_is_refused(self, autojump_clock):
        async with session(saying(BytesMessage(bytes(9 * 2**20)))) as (opened, _):
            flaw = await failure(opened.receive())

        assert str(flaw).endswith("closed 1009 (Exceeded maximum message size: 8388608 bytes)")

    async def test_a_stream_may_break_in_its_own_way(self, autojump_clock):
        async def dial():
            return Tunnel(await there.dial())

        async def script(peer):
            await peer.greet()
            await trio.sleep(1)
            await peer.say(b"collapse")

        async with exchange(script) as (_, there), connector(dial=dial).connect() as opened:
            for asked in (opened.receive, opened.ping):
                flaw = await failure(asked())
                assert str(flaw) == "the connection to exchange broke: the tunnel has collapsed"
                assert isinstance(flaw.__cause__, OSError)

    async def test_after_leaving_there_is_nothing_to_ask(self):
        async with session(polite) as (opened, _):
            pass

        for asked in (opened.receive, opened.ping, lambda: opened.subscribe([TOPIC])):
            assert "closed 1000" in str(await failure(asked()))


class TestLeaving:
    async def test_it_says_goodbye(self, autojump_clock):
        said = []

        async def script(peer):
            await peer.greet()
            said.append(await peer.next())
            await peer.tell(said[0].response())
            said.append(await peer.next())

        async with session(script):
            pass

        assert trio.current_time() == 0
        assert (said[0].code, said[1:]) == (1000, [None])

    @pytest.mark.parametrize("script", [mute, saying(then=deaf)])
    async def test_a_peer_that_does_not_answer_is_left_after_a_moment(self, autojump_clock, script):
        async with session(script):
            await wait_all_tasks_blocked()

        assert trio.current_time() == CLOSE_S

    async def test_a_peer_that_does_not_read_is_left_after_a_moment(self, autojump_clock):
        async with unread():
            pass

        assert trio.current_time() == CLOSE_S

    async def test_a_peer_that_keeps_talking_is_left_after_a_moment(self, autojump_clock):
        async def script(peer):
            await peer.greet()
            while True:
                await peer.say(trade(1))
                await trio.sleep(0.01)

        async with exchange(script, frames=1) as (ws, _):
            async with ws.connect():
                await trio.sleep(1)
            assert trio.current_time() == 1 + CLOSE_S

    async def test_a_peer_that_has_closed_and_does_not_hang_up_is_hung_up_on(self, autojump_clock):
        async with session(saying(CloseConnection(code=1000), then=Peer.listen)) as (opened, peer):
            await failure(opened.receive())

        with trio.fail_after(1):
            await peer.hung_up.wait()
        assert trio.current_time() == 0

    async def test_a_ping_that_crosses_our_close_does_no_harm(self, autojump_clock):
        """trio-websocket's reader dies of it (python-trio/trio-websocket#184)."""

        async def script(peer):
            await peer.greet()
            assert isinstance(await peer.next(), CloseConnection)
            # Sent before our close was read, as it were.
            await peer.stream.send_all(b"\x89\x01?")
            await peer.listen()

        async with session(script) as (_, peer):
            pass

        await peer.hung_up.wait()
        assert trio.current_time() == 0

    async def test_the_bodys_exception_comes_out_as_it_is(self):
        async with exchange(polite) as (ws, _):
            for raised in (ValueError("mine"), KeyboardInterrupt(), ExceptionGroup("mine", [ValueError()])):
                with pytest.raises(type(raised)) as info:
                    async with ws.connect():
                        raise raised
                assert info.value is raised

    async def test_the_bodys_exception_counts_also_where_the_connection_has_failed(self, autojump_clock):
        async with exchange(mute) as (ws, _):
            with pytest.raises(ValueError, match="mine"):
                async with ws.connect():
                    await trio.sleep(60)
                    raise ValueError("mine")
            with pytest.raises(ExchangeUnavailable, match="no pong") as info:
                async with ws.connect() as opened:
                    await opened.receive()
        assert type(info.value) is ExchangeUnavailable

    async def test_the_bodys_exception_counts_also_where_it_is_cancelled_meanwhile(self, autojump_clock):
        async with exchange(polite) as (ws, _):
            with pytest.raises(ValueError, match="mine"), trio.CancelScope() as scope:
                async with ws.connect():
                    scope.cancel()
                    raise ValueError("mine")

    async def test_a_bug_in_the_background_is_not_hidden(self, autojump_clock):
        class Stopped:
            def now_ms(self):
                raise RuntimeError("the clock has stopped")

        async def script(peer):
            await peer.next()
            await peer.tell(RejectConnection(status_code=429))

        async with exchange(script) as (_, there):
            ws = connector(dial=there.dial, clock=Stopped())
            with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="stopped")):
                async with ws.connect():
                    pytest.fail("connected")

    async def test_a_cancelled_session_goes_at_once(self, autojump_clock):
        async with exchange(mute) as (ws, there):
            with trio.move_on_after(1) as scope:
                async with ws.connect() as opened:
                    await opened.receive()
            assert scope.cancelled_caught
            assert trio.current_time() == 1
            await there.peer.hung_up.wait()
