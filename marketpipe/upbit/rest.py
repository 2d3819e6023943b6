"""One request to the exchange's REST API, one answer: the only importer of httpx.

HTTP/1.1 without redirects, cookies or an ``Origin`` header (one of those costs a request its ten per second and leaves
it one per ten; reference/rate-limits, 2026-10-07). Nothing is paced or tried again here: that is the batcher's.

A proxy in the environment (``HTTPS_PROXY``, ``NO_PROXY``, ...) is used as every program uses it, and so are
``SSL_CERT_FILE`` and ``SSL_CERT_DIR``: behind a company's gateway there is no other way out. A host on this machine is
always reached directly, so that a simulator is never looked for behind the proxy.

**httpx loses pool slots when a request is cancelled** (httpcore 1.0.9; encode/httpcore#1093): after as many
cancellations as there are connections every request ends in ``PoolTimeout``, for ever. So each request is bounded by
httpx's own time limits, which do no harm, and only past those by a hard deadline; when that fires, the whole httpx
client is replaced, and the old one closed as soon as its last request has ended.
`tests/upbit/test_rest_leak.py` reproduces the loss and says when this can go.
"""

from __future__ import annotations

import importlib.metadata
import ipaddress
import logging
import ssl
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from socket import gaierror
from types import TracebackType
from typing import Any, Self, cast

import attrs
import httpx
import trio

from marketpipe.clock import Clock
from marketpipe.core.requests import Reply, Request
from marketpipe.errors import BadPayload, ExchangeUnavailable, MarketPipeError
from marketpipe.upbit import wire
from marketpipe.upbit.wire_errors import excerpt

__all__ = ["Connections", "UpbitRest", "tls_context"]

# The exchange drops idle connections on its own schedule; an idle one of ours is worth a handshake for this long.
KEEPALIVE_S = 60.0
# How long closing a connection may take that nobody needs any more.
CLOSE_S = 1.0
# No answer comes near it: all books of the exchange at once are 2.5 MB.
BODY_BYTES = 8 * 2**20
# As much of a refusal as is read: its words are at the beginning, and its status decides.
REFUSAL_BYTES = 64 * 1024
# What was asked for. httpx would undo "gzip, gzip" or "br" as well, and with them a thousand times a thousand blanks.
_ENCODINGS = ("", "identity", "gzip")
_GZIP = 16 + zlib.MAX_WBITS

# The request has not left this machine when one of these is raised.
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


@attrs.define(eq=False)
class _Pool:
    """An httpx client, and how many requests are using it."""

    client: httpx.AsyncClient
    in_use: int = 0


@attrs.define(eq=False)
class _Connecting:
    """The connection that a request is opening, until its pool looks after it.

    httpcore forgets it when the request is cancelled in the TLS handshake: it would stay open until it is collected
    as garbage. httpx's extension ``trace`` tells how far it has come.
    """

    stream: Any = None

    async def trace(self, step: str, info: Mapping[str, Any]) -> None:
        if step == "connection.connect_tcp.complete":
            self.stream = info["return_value"]
        elif step == "http11.send_request_headers.started":
            self.stream = None

    async def aclose(self) -> None:
        if self.stream is not None:
            with trio.move_on_after(CLOSE_S, shield=True):
                await self.stream.aclose()


@attrs.frozen
class Connections:
    """Connections of the pool in use: ``open``, ``busy`` among them, and the ``requests`` under way on it.

    ``busy`` above ``requests`` means that the pool has lost slots, which must not happen.
    """

    open: int
    busy: int
    requests: int


class UpbitRest:
    """The REST API at ``base_url``, such as ``https://api.upbit.com``; an async context manager.

    ``connect_s`` bounds opening a connection (and waiting for a free one), ``read_s`` each silence of the exchange,
    ``deadline_s`` the whole request. No more than ``max_connections`` requests are under way at once; others wait for
    their turn within their deadline. An answer longer than `BODY_BYTES`, decompressed, is not read to its end.
    ``transport`` replaces the network (a simulator in memory, a mock).

    Raises ``ValueError`` if ``base_url`` is no http or https URL with a host.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clock: Clock,
        connect_s: float = 3.0,
        read_s: float = 5.0,
        deadline_s: float = 8.0,
        max_connections: int = 32,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        url = _checked_url(base_url)
        self._base_url = base_url.rstrip("/")
        self._host = url.netloc.decode("ascii")
        self._clock = clock
        self._connect_s = connect_s
        self._read_s = read_s
        self._deadline_s = deadline_s
        self._transport = transport
        self._trust_env = not _is_this_machine(url.host)
        self._max_connections = max_connections
        self._turns = trio.CapacityLimiter(max_connections)
        self._ssl_context = _ssl_context(url.scheme)
        self._pool: _Pool | None = None
        _silence_httpx()

    async def __aenter__(self) -> Self:
        self._pool = self._new_pool()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await _close(pool)

    async def fetch(self, request: Request) -> Reply:
        """Ask once and decode the answer. Raises `ExchangeError` or a subclass of it, and nothing else.

        `ExchangeUnavailable` says with ``sent=False`` that the request has never left (no such host, refused, no
        connection in time) and with ``abandoned=True`` that we stopped waiting for the answer, so that the request
        may still arrive. A status other than 200 is what `marketpipe.upbit.wire.error_of` makes of it.

        **Do not cancel it.** The batcher owns each fetch; a caller who gives up is only taken off the list of those
        who wait for it. A cancellation from outside is safe, but costs every connection, as the deadline does.
        """
        with self._named_errors():
            with trio.fail_after(self._deadline_s):
                response, body = await self._get(wire.encode(request))
        received_ms = self._clock.now_ms()
        headers = response.headers
        if response.status_code != httpx.codes.OK:
            raise wire.error_of(request, response.status_code, headers, body, now_ms=received_ms)
        exchange_ms = wire.date_ms(headers.get("date"))
        rows, failed = wire.decode(request, body, received_ms=received_ms, exchange_ms=exchange_ms)
        return Reply(rows, failed, received_ms, exchange_ms, wire.remaining_req(headers.get("remaining-req")))

    def connections(self) -> Connections:
        """The watchdog's view of the pool in use."""
        pool = self._pool
        return _connections(pool.client, pool.in_use) if pool else Connections(0, 0, 0)

    async def _get(self, path: str) -> tuple[httpx.Response, bytes]:
        async with self._turns:
            pool = self._pool
            if pool is None:
                raise RuntimeError("UpbitRest is not open: use it in `async with`")
            pool.in_use += 1
            connecting = _Connecting()
            try:
                asked = pool.client.stream("GET", self._base_url + path, extensions={"trace": connecting.trace})
                async with asked as response:
                    is_answer = response.status_code == httpx.codes.OK
                    return response, await (self._answer(response) if is_answer else _refusal(response))
            except (trio.Cancelled, httpx.PoolTimeout):
                # Cut off: it may have taken a slot with it. A PoolTimeout, while fewer requests than slots are under
                # way, is the proof of that.
                self._replace(pool)
                await connecting.aclose()
                raise
            finally:
                pool.in_use -= 1
                if pool is not self._pool and not pool.in_use:
                    await _close(pool)

    async def _answer(self, response: httpx.Response) -> bytes:
        if (encoding := _encoding(response)) not in _ENCODINGS:
            raise BadPayload(
                f"the answer from {self._host} is encoded as {excerpt(encoding, 40)!r}, which nobody wants"
            )
        try:
            body, is_whole = await _read(response, BODY_BYTES)
        except zlib.error as exc:
            raise BadPayload(f"the answer from {self._host} cannot be decompressed: {exc}") from exc
        if not is_whole:
            raise BadPayload(f"the answer from {self._host} is longer than {BODY_BYTES} bytes")
        return body

    def _replace(self, pool: _Pool) -> None:
        # A transport that was handed in is not ours to close, and has no pool that could leak.
        if pool is self._pool and self._transport is None:
            self._pool = self._new_pool()

    def _new_pool(self) -> _Pool:
        return _Pool(
            httpx.AsyncClient(
                verify=self._ssl_context,
                trust_env=self._trust_env,
                transport=self._transport,
                headers={"User-Agent": _user_agent(), "Accept": "application/json", "Accept-Encoding": "gzip"},
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                timeout=httpx.Timeout(self._read_s, connect=self._connect_s, pool=self._connect_s),
                limits=httpx.Limits(
                    max_connections=self._max_connections,
                    max_keepalive_connections=self._max_connections,
                    keepalive_expiry=KEEPALIVE_S,
                ),
            )
        )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        host = self._host
        try:
            yield
        except trio.TooSlowError as exc:
            flaw = f"no answer from {host} within {self._deadline_s:g} s"
            raise ExchangeUnavailable(flaw, abandoned=True) from exc
        except (httpx.ReadTimeout, httpx.WriteTimeout) as exc:
            flaw = f"{host} stayed silent for {self._read_s:g} s"
            raise ExchangeUnavailable(flaw, abandoned=True) from exc
        except _NEVER_SENT as exc:
            raise ExchangeUnavailable(_why_not_sent(exc, host, self._connect_s), sent=False) from exc
        except httpx.InvalidURL as exc:
            raise ExchangeUnavailable(f"no request to {host} can be made of this: {exc}", sent=False) from exc
        except httpx.DecodingError as exc:
            raise BadPayload(f"the answer from {host} cannot be decompressed: {exc}") from exc
        except (httpx.HTTPError, OSError) as exc:
            raise ExchangeUnavailable(f"the connection to {host} broke: {_reason(exc)}") from exc


async def _refusal(response: httpx.Response) -> bytes:
    # Whatever the words are, the status is told.
    if _encoding(response) not in _ENCODINGS:
        return b""
    try:
        return (await _read(response, REFUSAL_BYTES))[0]
    except zlib.error:
        return b""


def _encoding(response: httpx.Response) -> str:
    return str(response.headers.get("content-encoding", "")).strip().lower()


async def _read(response: httpx.Response, at_most: int) -> tuple[bytes, bool]:
    """The body, decompressed, and whether it is whole: of one longer than ``at_most`` bytes it is the beginning.

    Raises ``zlib.error``.

    httpx would decompress all that it has read before anybody could look at its length: 64 KiB make 66 MB.
    """
    unzip = zlib.decompressobj(_GZIP) if _encoding(response) == "gzip" else None
    body, came, flaw = bytearray(), 0, None
    with trio.CancelScope() as reading:
        async for part in cast("httpx.AsyncByteStream", response.stream):
            came += len(part)
            if flaw is None and len(body) <= at_most:
                left = at_most + 1 - len(body)
                try:
                    body += unzip.decompress(part, left) if unzip else part[:left]
                except zlib.error as exc:
                    flaw = exc
            if flaw or max(came, len(body)) > at_most:
                # Left from here, httpx's generators would be left open, one within the other, until they are collected.
                reading.cancel(reason="no more of the answer is wanted")
    if flaw is not None:
        raise flaw
    return bytes(body), max(came, len(body)) <= at_most


def _checked_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as exc:
        raise ValueError(f"base_url must be an http or https URL, was {base_url!r}: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ValueError(f"base_url must be an http or https URL such as 'https://api.upbit.com', was {base_url!r}")
    return url


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ssl_context(scheme: str) -> ssl.SSLContext:
    # Loading the certificates takes 20 ms, building a client without them less than 0.1: so they are loaded once, and
    # only where they are needed. The bare context trusts nobody.
    return tls_context() if scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def tls_context() -> ssl.SSLContext:
    """Whom to trust, on both sides of the exchange: certifi's authorities, or those that ``SSL_CERT_FILE`` names."""
    return httpx.create_ssl_context()


def _user_agent() -> str:
    try:
        return f"marketpipe/{importlib.metadata.version('marketpipe')}"
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "marketpipe"


def _silence_httpx() -> None:
    # One line at INFO for each request, ten times a second and group. Whoever sets a level of their own keeps it.
    logger = logging.getLogger("httpx")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)


def _connections(client: httpx.AsyncClient, requests: int) -> Connections:
    # httpx does not publish its pool, and a transport that was handed in may have none.
    pool = getattr(client._transport, "_pool", None)
    connections = [] if pool is None else [each for each in pool.connections if not each.is_closed()]
    return Connections(len(connections), sum(not each.is_idle() for each in connections), requests)


async def _close(pool: _Pool) -> None:
    with trio.move_on_after(CLOSE_S, shield=True):
        await pool.client.aclose()


def _why_not_sent(exc: httpx.TransportError, host: str, connect_s: float) -> str:
    if isinstance(exc, httpx.ConnectTimeout):
        return f"could not connect to {host} within {connect_s:g} s"
    if isinstance(exc, httpx.PoolTimeout):
        return f"no connection to {host} became free within {connect_s:g} s"
    what = "cannot find host" if isinstance(_system_error(exc), gaierror) else "could not connect to"
    return f"{what} {host}: {_reason(exc)}"


def _reason(exc: Exception) -> str:
    cause = _system_error(exc) or exc
    return str(cause) or type(cause).__name__


def _system_error(exc: BaseException) -> OSError | None:
    # httpx and httpcore wrap what the system or TLS said two or three times. httpcore cuts the cause off as it passes
    # and leaves the context, which may in the end be an earlier error of ours that was being handled meanwhile.
    inner: BaseException | None = exc
    while inner is not None and not isinstance(inner, OSError):
        if isinstance(inner, MarketPipeError):
            return None
        inner = inner.__cause__ or inner.__context__
    return inner
