"""The connection on a real socket: finding the host, TCP and TLS, and how each of them fails."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
import trio
from paper_websocket import TOPIC, Peer, connector, numbers, trade
from trio_websocket import ConnectionClosed, WebSocketRequest, WebSocketServer

from marketpipe.errors import ExchangeUnavailable

pytestmark = pytest.mark.socket


@pytest.fixture(autouse=True)
async def soon():
    with trio.fail_after(20):
        yield


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that says back how many messages it was sent, as the number of a trade; gives its URL's end."""

    async def handle(request: WebSocketRequest) -> None:
        connection = await request.accept()
        number = 0
        try:
            while True:
                await connection.get_message()
                number += 1
                await connection.send_message(trade(number))
        except ConnectionClosed:
            pass

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(WebSocketServer(handle, [trio.SSLListener(listener, tls) if tls else listener]).run)
        yield f"127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


async def refused(url: str) -> ExchangeUnavailable:
    with pytest.raises(ExchangeUnavailable) as info:
        async with connector(url, pong_s=10).connect():
            pytest.fail("connected")
    return info.value


async def test_frames_come_over_tcp():
    async with serving() as there, connector(f"ws://{there}/", pong_s=10).connect() as session:
        await session.subscribe([TOPIC])
        assert numbers(await session.receive()) == [1]
        await session.subscribe([TOPIC])
        assert numbers(await session.receive()) == [2]


async def test_a_refused_connection_has_sent_nothing():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        flaw = await refused(f"ws://127.0.0.1:{unused.getsockname()[1]}/")

    assert str(flaw).startswith("could not connect to 127.0.0.1:")
    assert "refused" in str(flaw)
    assert not flaw.sent


async def test_a_host_without_an_address_is_named():
    class Nobody(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *where, **how):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *where):
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Nobody())
    flaw = await refused("wss://api.upbit.com/websocket/v1")

    assert str(flaw).startswith("cannot find host api.upbit.com: ")
    assert not flaw.sent


async def test_a_host_that_cannot_be_one_is_named():
    flaw = await refused(f"ws://{'x' * 64}.com/")

    assert str(flaw).startswith("cannot find host")
    assert not flaw.sent


async def test_a_reset_is_1006():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:

        async def handle(stream: trio.SocketStream) -> None:
            peer = Peer(stream)
            await peer.greet()
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await stream.aclose()

        nursery.start_soon(trio.serve_listeners, handle, [listener])
        async with connector(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/").connect() as session:
            with pytest.raises(ExchangeUnavailable, match="closed 1006"):
                await session.receive()
        nursery.cancel_scope.cancel()


@attrs.frozen
class Certified:
    context: ssl.SSLContext
    authority: Path


@pytest.fixture(scope="module")
def certified(tmp_path_factory) -> Certified:
    """A server's certificate for 127.0.0.1, signed by itself."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "marketpipe tests")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=3650))
        .not_valid_after(now + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return Certified(context, folder / "cert.pem")


async def test_frames_come_over_tls(certified, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certified.authority))
    async with serving(certified.context) as there, connector(f"wss://{there}/", pong_s=10).connect() as session:
        await session.subscribe([TOPIC])
        assert numbers(await session.receive()) == [1]
        await session.ping()


async def test_a_certificate_that_nobody_vouches_for_is_refused(certified):
    async with serving(certified.context) as there:
        flaw = await refused(f"wss://{there}/")

    assert "certificate verify failed" in str(flaw)
    assert not flaw.sent


async def test_a_server_without_tls_has_been_sent_nothing():
    async with serving() as there:
        flaw = await refused(f"wss://{there}/")

    assert str(flaw).startswith(f"could not connect to {there}: ")
    assert not flaw.sent
