"""The endpoint: a few pages over HTTP/1.1 on 127.0.0.1, for whoever is on this machine.

A client can be slow, silent, gone or hostile: it loses its own connection, and the pipe does not notice. One request a
connection; nothing can be changed here, only read. A page of the web that has its own name point to 127.0.0.1 (DNS
rebinding) is refused by the name it asks for.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Self

import attrs
import h11
import trio

from marketpipe.logs import fields
from marketpipe.metrics import HOST, PORT, SERVER
from marketpipe.metrics.exposition import CONTENT_TYPE, exposition
from marketpipe.metrics.snapshot import encode_status, encode_tasks
from marketpipe.metrics.tasks import running_tasks
from marketpipe.status import Status

__all__ = ["Endpoint"]

logger = logging.getLogger("marketpipe.metrics")

# One Prometheus and a few people with a terminal; one more is told to come back.
CONNECTIONS = 16
# From the first byte of a question to the last one of its answer; nobody on this machine needs a tenth of it.
PATIENCE_S = 5.0
# How long a client has to read its answer before the connection is closed under it.
LINGER_S = 1.0
MAX_HEAD = 8_192
READ_SIZE = 4_096

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

# RFC 9110, 7.2: a name or an address, and perhaps a port. Through a tunnel, the port is another one.
_OURSELVES = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:\d{0,5})?", re.IGNORECASE)
# RFC 9112, 3.2.2: a client may name the whole address, and who is asked is then said there alone.
_WHOLE = re.compile(rb"http://([^/?#]*)(.*)", re.IGNORECASE)
_INDEX = """marketpipe: what this program's pipe does

/metrics  for Prometheus
/status   the same, whole, in JSON; `marketpipe status` shows it
/tasks    the program's tasks, in JSON; `marketpipe doctor --tasks` shows them
"""


@attrs.frozen
class _Reply:
    status: int
    body: bytes
    kind: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


@attrs.define(eq=False)
class Endpoint:
    """A port that is ours, and what is told there once it runs. To be left, so that the port is free again."""

    port: int
    _listeners: list[trio.SocketListener]
    _open: int = attrs.field(default=0, init=False)

    @classmethod
    async def listen(cls, port: int = PORT) -> Self:
        """Take ``port`` of 127.0.0.1, or any free one if it is 0. An ``OSError`` in one line names the port."""
        try:
            listeners = await trio.open_tcp_listeners(port, host=HOST)
        except OSError as error:
            why = " ".join((error.strerror or str(error)).split())
            refused = type(error)(f"cannot tell about the pipe on {HOST} port {port}: {why}")
            refused.errno = error.errno
            raise refused from error
        return cls(listeners[0].socket.getsockname()[1], listeners)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in self._listeners:
            listener.socket.close()

    async def run(
        self, status: Callable[[], Status], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer until cancelled; ``status`` is asked at each question."""
        pages = _pages(status)

        async def converse(stream: trio.SocketStream) -> None:
            await self._converse(stream, pages)

        logger.info(
            "telling about the pipe on http://%s:%d", HOST, self.port, extra=fields("listening", port=self.port)
        )
        task_status.started()
        await trio.serve_listeners(converse, self._listeners)

    async def _converse(self, stream: trio.SocketStream, pages: Mapping[str, Callable[[], _Reply]]) -> None:
        self._open += 1
        trio.lowlevel.current_task().name = "metrics client"
        try:
            async with stream:
                if self._open > CONNECTIONS:
                    return
                with trio.move_on_after(PATIENCE_S):
                    await _Conversation(stream).hold(pages)
        except trio.BrokenResourceError:
            pass  # the client is gone, and with it whoever could be told
        finally:
            self._open -= 1


@attrs.define(eq=False)
class _Conversation:
    """One question and its answer."""

    _stream: trio.SocketStream
    _h11: h11.Connection = attrs.field(
        factory=lambda: h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD), init=False
    )

    async def hold(self, pages: Mapping[str, Callable[[], _Reply]]) -> None:
        try:
            request = await self._request()
            if request is None:
                return
            reply = _answer(request, pages)
        except h11.RemoteProtocolError as error:
            request, reply = None, _said(error.error_status_hint, str(error))
        await self._send(reply, head_only=request is not None and request.method == b"HEAD")
        await self._part()

    async def _request(self) -> h11.Request | None:
        """The head of the question; None if there was none. Its body, if it has one, is never read."""
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(bytes(await self._stream.receive_some(READ_SIZE)))
        return event if isinstance(event, h11.Request) else None

    async def _send(self, reply: _Reply, *, head_only: bool) -> None:
        headers = [
            ("server", SERVER),
            ("content-type", reply.kind),
            ("content-length", str(len(reply.body))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("connection", "close"),
            *reply.headers,
        ]
        phrase = HTTPStatus(reply.status).phrase
        data = self._encode(h11.Response(status_code=reply.status, headers=headers, reason=phrase))
        if not head_only:
            data += self._encode(h11.Data(data=reply.body))
        await self._stream.send_all(data + self._encode(h11.EndOfMessage()))

    async def _part(self) -> None:
        # Closing with unread bytes would reset the connection, and the client might never see the answer.
        await self._stream.send_eof()
        with trio.move_on_after(LINGER_S):
            while await self._stream.receive_some(READ_SIZE):
                pass

    def _encode(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""


def _pages(status: Callable[[], Status]) -> Mapping[str, Callable[[], _Reply]]:
    return {
        "/": lambda: _Reply(200, _INDEX.encode()),
        "/metrics": lambda: _Reply(200, exposition(status()), CONTENT_TYPE),
        "/status": lambda: _Reply(200, encode_status(status()), JSON),
        "/tasks": lambda: _Reply(200, encode_tasks(running_tasks()), JSON),
    }


def _answer(request: h11.Request, pages: Mapping[str, Callable[[], _Reply]]) -> _Reply:
    host, path = _asked(request)
    if not _OURSELVES.fullmatch(host):
        return _said(403, "this is for programs on this machine: ask for 127.0.0.1 or localhost")
    if request.method not in (b"GET", b"HEAD"):
        return attrs.evolve(_said(405, "this can only be read"), headers=(("allow", "GET, HEAD"),))
    page = pages.get(path)
    if page is None:
        return _said(404, f"there is {', '.join(pages)}")
    try:
        return page()
    except Exception:
        # Whatever is wrong with a page, the pipe itself is well, and goes on.
        logger.exception("cannot answer %s", path, extra=fields("cannot-answer", path=path))
        return _said(500, "this went wrong; the program's log says more")


def _asked(request: h11.Request) -> tuple[bytes, str]:
    """Who is asked, and for which page."""
    host, target = next((value for name, value in request.headers if name == b"host"), b""), request.target
    whole = _WHOLE.fullmatch(target)
    if whole is not None:
        host, target = whole.groups()
        target = target if target.startswith(b"/") else b"/" + target  # an empty path is the first page
    return host, target.decode("ascii").partition("?")[0]


def _said(status: int, words: str) -> _Reply:
    return _Reply(status, f"{words}\n".encode())
