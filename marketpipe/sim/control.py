"""The simulator's own paths under ``/sim``: what it has seen, what shall go wrong, and the truth to compare with.

They are never limited, delayed or struck by a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs
import msgspec

from marketpipe.core.timeframes import Timeframe
from marketpipe.core.timeframes import parse as parse_timeframe
from marketpipe.sim import quotation
from marketpipe.sim.faults import BadFault, parse_faults
from marketpipe.sim.replies import Content, SimReply, compose, error_content, json_content

if TYPE_CHECKING:
    from marketpipe.sim.exchange import SimExchange, SimRequest

__all__ = ["PREFIX", "handle", "listens_to"]

PREFIX = "/sim"


@attrs.frozen
class _Flood:
    per_second: float
    for_s: float = 60.0


_FLOOD = msgspec.json.Decoder(_Flood)


class _BadRequest(Exception):
    """What the caller got wrong; the message goes back to them."""


def listens_to(path: str) -> bool:
    """Whether ``path`` belongs to the simulator and not to the exchange."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def handle(exchange: SimExchange, request: SimRequest) -> SimReply:
    """The answer to a request under `PREFIX`; a wrong one is told what is wrong with it (400, 404, 405)."""
    now_ms = exchange.clock.now_ms()
    return compose(_content(exchange, request), now_ms=now_ms)


def _content(exchange: SimExchange, request: SimRequest) -> Content:
    methods = _ROUTES.get(request.path)
    if methods is None:
        return error_content(404, f"no such path {request.path!r}; there are {', '.join(_ROUTES)}")
    answer = methods.get(request.method)
    if answer is None:
        return error_content(405, f"{request.path} takes {', '.join(methods)}, was {request.method!r}")
    try:
        return answer(exchange, request)
    except (_BadRequest, BadFault) as exc:
        return error_content(400, str(exc))


def _stats(exchange: SimExchange, request: SimRequest) -> Content:
    return json_content(200, attrs.asdict(exchange.statistics()))


def _reset(exchange: SimExchange, request: SimRequest) -> Content:
    exchange.reset()
    return _stats(exchange, request)


def _list_faults(exchange: SimExchange, request: SimRequest) -> Content:
    return json_content(200, exchange.faults())


def _post_faults(exchange: SimExchange, request: SimRequest) -> Content:
    for fault in parse_faults(request.body):
        exchange.add_fault(fault)
    return _list_faults(exchange, request)


def _clear_faults(exchange: SimExchange, request: SimRequest) -> Content:
    exchange.clear_faults()
    return _list_faults(exchange, request)


def _show_flood(exchange: SimExchange, request: SimRequest) -> Content:
    return json_content(200, attrs.asdict(exchange.sockets.flood.statistics()))


def _post_flood(exchange: SimExchange, request: SimRequest) -> Content:
    try:
        wish = _FLOOD.decode(request.body)
        exchange.flood(wish.per_second, wish.for_s)
    except (msgspec.DecodeError, ValueError) as exc:
        raise _BadRequest(f'the body must be JSON like {{"per_second": 5000, "for_s": 60}}: {exc}') from exc
    return _show_flood(exchange, request)


def _end_flood(exchange: SimExchange, request: SimRequest) -> Content:
    exchange.end_flood()
    return _show_flood(exchange, request)


def _truth_candles(exchange: SimExchange, request: SimRequest) -> Content:
    query = dict(request.query)
    market, (start_ms, end_ms) = _listed(exchange, query), _range(query)
    timeframe, now_ms = _timeframe(query), exchange.clock.now_ms()
    return Content(200, quotation.truth_candles(exchange.world, market, timeframe, start_ms, end_ms, now_ms))


def _truth_trades(exchange: SimExchange, request: SimRequest) -> Content:
    query = dict(request.query)
    market, (start_ms, end_ms) = _listed(exchange, query), _range(query)
    return Content(200, quotation.truth_trades(exchange.world, market, start_ms, end_ms, exchange.clock.now_ms()))


def _truth_batch(path: str, exchange: SimExchange, request: SimRequest) -> Content:
    query = dict(request.query)
    markets = _text(query, "markets")
    at_ms = _whole(query, "at_ms") if "at_ms" in query else exchange.clock.now_ms()
    if at_ms > exchange.clock.now_ms():
        raise _BadRequest(f"at_ms must not lie in the future, was {at_ms}")
    answer = quotation.answer(exchange.world, path, [("markets", markets)], at_ms)
    return Content(answer.status, answer.body)


def _truth_markets(exchange: SimExchange, request: SimRequest) -> Content:
    query = [("is_details", "true")]
    answer = quotation.answer(exchange.world, "/v1/market/all", query, exchange.clock.now_ms())
    return Content(answer.status, answer.body)


def _text(query: dict[str, str], name: str) -> str:
    if not query.get(name):
        raise _BadRequest(f"{name} is required")
    return query[name]


def _whole(query: dict[str, str], name: str) -> int:
    text = _text(query, name)
    # The length is bounded because int() of thousands of digits is slow by design.
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise _BadRequest(f"{name} must be epoch milliseconds, was {text!r}")
    return int(text)


def _range(query: dict[str, str]) -> tuple[int, int]:
    return _whole(query, "start_ms"), _whole(query, "end_ms")


def _timeframe(query: dict[str, str]) -> Timeframe:
    try:
        return parse_timeframe(_text(query, "timeframe"))
    except ValueError as exc:
        raise _BadRequest(str(exc)) from exc


def _listed(exchange: SimExchange, query: dict[str, str]) -> str:
    market = _text(query, "market")
    if not exchange.world.is_listed(market, exchange.clock.now_ms()):
        raise _BadRequest(f"market {market!r} is not listed")
    return market


_ROUTES: dict[str, dict[str, Callable[[SimExchange, SimRequest], Content]]] = {
    "/sim/stats": {"GET": _stats},
    "/sim/reset": {"POST": _reset},
    "/sim/faults": {"GET": _list_faults, "POST": _post_faults, "DELETE": _clear_faults},
    "/sim/flood": {"GET": _show_flood, "POST": _post_flood, "DELETE": _end_flood},
    "/sim/truth/candles": {"GET": _truth_candles},
    "/sim/truth/trades": {"GET": _truth_trades},
    "/sim/truth/ticker": {"GET": partial(_truth_batch, "/v1/ticker")},
    "/sim/truth/orderbook": {"GET": partial(_truth_batch, "/v1/orderbook")},
    "/sim/truth/markets": {"GET": _truth_markets},
}
