"""What goes wrong with WebSocket connections and with the frames on them.

Three sorts. Some happen to a connection at one moment (drop, close, half a frame), some last (a stall, mute markets, a
drip), some befall single frames (garbage, duplicates, another order). ``types`` names streams (``trade``, ``candle``,
``candle.1m``): only connections that carry one of them are struck, and of their frames only those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Literal

import attrs

from marketpipe.sim.fault_base import Ending, Fault, require
from marketpipe.sim.limiter import CONNECT
from marketpipe.sim.streams import TYPES

__all__ = [
    "ClockSkewFault",
    "WsCloseFault",
    "WsDownFault",
    "WsDripFault",
    "WsDropFault",
    "WsDuplicateFault",
    "WsFault",
    "WsGarbageFault",
    "WsHalfFault",
    "WsMuteFault",
    "WsReorderFault",
    "WsStallFault",
    "means",
]

_NAMES = {*TYPES, "candle"}
# Codes that no endpoint may send (RFC 6455, 7.4.1), beside 1006, which stands for a drop.
_UNSENDABLE = (1004, 1005, 1015)


def means(types: Iterable[str] | None, stream: str) -> bool:
    """Whether ``types`` of a fault name ``stream``; None names all, ``candle`` those of every length."""
    return types is None or stream in types or stream.partition(".")[0] in types


@attrs.frozen(kw_only=True)
class WsFault(Fault):
    """What all faults of connections share.

    ``types``: see above. ``newcomers``: whether connections that open while it lasts are struck too; what happens at
    one moment strikes those that are open then, unless told otherwise. ``probability`` and ``count`` are of
    connections, or of frames where frames are struck.
    """

    sort: ClassVar[Literal["moment", "lasting", "frame"]] = "lasting"
    types: tuple[str, ...] | None = None
    newcomers: bool = True

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        require(self.groups is None, "groups", self.groups, f"left out for kind {self.kind!r}")
        for name in self.types or ():
            require(name in _NAMES, "types", name, f"among {', '.join(sorted(_NAMES))}")


@attrs.frozen(kw_only=True)
class WsDropFault(WsFault):
    """The TCP connection ends without a close frame, which clients know as 1006."""

    kind = "ws-drop"
    sort = "moment"
    newcomers: bool = False


@attrs.frozen(kw_only=True)
class WsCloseFault(WsFault):
    """A close frame with ``code`` and ``reason``; 1006 cannot be sent and is a drop."""

    kind = "ws-close"
    sort = "moment"
    code: int = 1000
    reason: str = ""
    newcomers: bool = False

    def _check(self) -> None:
        sendable = 1000 <= self.code <= 4999 and self.code not in _UNSENDABLE
        require(sendable, "code", self.code, "a close code that can be sent, or 1006")
        require(len(self.reason.encode()) <= 123, "reason", self.reason, "at most 123 bytes")


@attrs.frozen(kw_only=True)
class WsHalfFault(WsFault):
    """The next frame stops in its middle, and the connection ends (``then`` drop) or says nothing more (silence)."""

    kind = "ws-half"
    sort = "moment"
    then: Literal["drop", "silence"] = "drop"
    newcomers: bool = False


@attrs.frozen(kw_only=True)
class WsStallFault(WsFault):
    """Connections stay open and pings are answered, but nothing else is said, and what was to be said is lost.

    ``pongs`` False: nothing at all is answered, as if the other machine were gone.
    """

    kind = "ws-stall"
    pongs: bool = True


@attrs.frozen(kw_only=True)
class WsMuteFault(WsFault):
    """Nothing is said of ``codes``, and that is lost; everything else goes on."""

    kind = "ws-mute"
    codes: tuple[str, ...]


@attrs.frozen(kw_only=True)
class WsDripFault(WsFault):
    """``bytes_per_s``, ``chunk`` bytes at a time: everything arrives, late."""

    kind = "ws-drip"
    bytes_per_s: float = 1_000.0
    chunk: int = 1

    def _check(self) -> None:
        require(0 < self.bytes_per_s < math.inf, "bytes_per_s", self.bytes_per_s, "more than 0")
        require(self.chunk >= 1, "chunk", self.chunk, "at least 1")


@attrs.frozen(kw_only=True)
class WsGarbageFault(WsFault):
    """Something else instead of a frame: ``what`` is no JSON, no UTF-8, or no WebSocket (framing).

    ``body``: this text instead, whatever it is: other JSON, a price of ``1e400``, a frame without its code.
    """

    kind = "ws-garbage"
    sort = "frame"
    what: Literal["json", "utf8", "framing"] = "json"
    body: str | None = None


@attrs.frozen(kw_only=True)
class WsDuplicateFault(WsFault):
    """A frame comes twice."""

    kind = "ws-duplicate"
    sort = "frame"


@attrs.frozen(kw_only=True)
class WsReorderFault(WsFault):
    """A frame comes after the one that follows it, or 0.3 s late if none does."""

    kind = "ws-reorder"
    sort = "frame"


@attrs.frozen(kw_only=True)
class ClockSkewFault(WsFault):
    """The exchange's clock is off by ``skew_ms``: the stamps of frames and the ``Date`` of REST, not what happened."""

    kind = "clock-skew"
    skew_ms: int

    def _check(self) -> None:
        require(abs(self.skew_ms) <= 10**9, "skew_ms", self.skew_ms, "at most 1,000,000,000 either way")


@attrs.frozen(kw_only=True)
class WsDownFault(Fault):
    """No connection can be made, and those that were open when it began are dropped.

    On a socket, whose port REST shares, the upgrade is torn down; in memory dialling fails.
    """

    kind = "ws-down"
    ending: ClassVar[Ending] = "down"
    groups: tuple[str, ...] | None = (CONNECT,)
