"""Whom both lines trust: nobody by themselves, and no more than what `SSL_CERT_FILE` names."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trio
import trustme
from paper_websocket import TOPIC, Peer, connector
from security.hostile import listening

from marketpipe.clock import SystemClock
from marketpipe.core.requests import MarketsRequest
from marketpipe.errors import ExchangeUnavailable
from marketpipe.pipeline import open_pipeline
from marketpipe.upbit.rest import UpbitRest, tls_context

pytestmark = pytest.mark.socket

MARKETS = b'[{"market":"KRW-BTC","english_name":"Bitcoin"}]'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(MARKETS) + MARKETS
PAST = datetime(2020, 1, 1, tzinfo=UTC)


@attrs.frozen
class Authority:
    ca: trustme.CA
    file: Path

    def server(self, *names: str, expires: datetime | None = None) -> ssl.SSLContext:
        """A server with a certificate for ``names``."""
        before = expires and expires - timedelta(days=1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names, not_before=before, not_after=expires).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    return Authority(ca, file)


@pytest.fixture
def trusted(authority, monkeypatch) -> Authority:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


async def over_rest(port: int, host: str) -> None:
    async with UpbitRest(f"https://{host}:{port}", clock=SystemClock()) as rest:
        assert len((await rest.fetch(MarketsRequest())).rows) == 1


async def over_websocket(port: int, host: str) -> None:
    # As the pipeline opens it.
    async with connector(f"wss://{host}:{port}/", pong_s=10, tls=tls_context).connect() as session:
        await session.subscribe([TOPIC])


Asking = Callable[[int, str], Awaitable[None]]
both = pytest.mark.parametrize("ask", [over_rest, over_websocket])


async def serve(stream: trio.abc.Stream) -> None:
    """The REST API and the WebSocket in one: who upgrades is greeted."""
    again = Remembering(stream)
    if b"upgrade: websocket" in (await again.peek()).lower():
        peer = Peer(again)
        await peer.greet()
        await peer.answer()
    else:
        await stream.send_all(OK)


@attrs.define(eq=False)
class Remembering(trio.abc.Stream):
    """A stream whose beginning can be read twice."""

    stream: trio.abc.Stream
    kept: bytes = b""

    async def peek(self) -> bytes:
        self.kept = bytes(await self.stream.receive_some())
        return self.kept

    async def receive_some(self, max_bytes=None) -> bytes:
        kept, self.kept = self.kept, b""
        return kept or await self.stream.receive_some(max_bytes)

    async def send_all(self, data) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


async def refusal(ask: Asking, server: ssl.SSLContext, host: str = "localhost") -> ExchangeUnavailable:
    async with listening(serve, tls=server) as port:
        with pytest.raises(ExchangeUnavailable) as info, trio.fail_after(20):
            await ask(port, host)
    # Whatever is wrong with the certificate, not a byte of the question has gone there.
    assert not info.value.sent
    return info.value


@both
@pytest.mark.parametrize(("name", "host"), [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1")])
async def test_an_authority_that_the_environment_names_is_trusted(ask, trusted, name, host):
    async with listening(serve, tls=trusted.server(name)) as port:
        with trio.fail_after(20):
            await ask(port, host)


@both
async def test_an_authority_that_nobody_named_is_not(ask, authority):
    assert "certificate verify failed" in str(await refusal(ask, authority.server("localhost")))


@both
async def test_a_certificate_of_another_host_is_refused(ask, trusted):
    error = await refusal(ask, trusted.server("api.upbit.com"))

    assert "certificate verify failed" in str(error)
    assert "localhost" in str(error)


@both
async def test_a_certificate_for_a_name_is_none_for_an_address(ask, trusted):
    assert "certificate verify failed" in str(await refusal(ask, trusted.server("localhost"), "127.0.0.1"))


@both
async def test_a_certificate_that_has_expired_is_refused(ask, trusted):
    error = await refusal(ask, trusted.server("localhost", expires=PAST))

    assert "certificate has expired" in str(error)


@both
async def test_another_authority_in_the_environment_does_not_do(ask, authority, tmp_path, monkeypatch):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    monkeypatch.setenv("SSL_CERT_FILE", str(other))

    assert "certificate verify failed" in str(await refusal(ask, authority.server("localhost")))


@both
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_a_server_that_speaks_nothing_newer_than_tls_1_1_is_refused(ask, trusted):
    server = trusted.server("localhost")
    server.set_ciphers("ALL:@SECLEVEL=0")
    server.minimum_version = server.maximum_version = ssl.TLSVersion.TLSv1_1

    await refusal(ask, server)


def test_who_is_trusted_has_to_prove_its_name():
    context = tls_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert not context.keylog_filename


async def test_a_pipeline_trusts_no_more_than_its_line_does(trusted):
    """Nothing in between hands in a context of its own."""
    strangers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(strangers)
    async with listening(serve, tls=strangers) as port, open_pipeline(base_url=f"https://localhost:{port}") as market:
        with pytest.raises(ExchangeUnavailable, match="certificate verify failed"), trio.fail_after(30):
            await market.get_market()
    known = trusted.server("localhost")
    async with listening(serve, tls=known) as port, open_pipeline(base_url=f"https://localhost:{port}") as market:
        with trio.fail_after(30):
            assert list(await market.get_market()) == ["KRW-BTC"]
