"""Listening, for the handle: what is asked becomes topics of listed markets, and a subscription to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs

from marketpipe.actors.hub import Subscription
from marketpipe.actors.mailbox import LEFT
from marketpipe.actors.subscriptions import Subscriptions
from marketpipe.core.buffers import Policy, check_buffer
from marketpipe.core.symbols import normalise, normalise_all
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import PipelineClosed, UnknownMarket

__all__ = ["Listening"]

# A market that is not on the list known so far may have been listed since; a list of this age settles it.
LISTING_MAX_AGE_S = 10.0


@attrs.frozen(eq=False)
class Listening:
    """``listed`` reads the names of all listed markets, from a list at most so many seconds old (None: any)."""

    _subscriptions: Subscriptions
    _listed: Callable[[float | None], Awaitable[Collection[str]]]
    _is_closed: Callable[[], bool]

    def open(
        self,
        line: Line,
        symbols: str | Iterable[str],
        timeframe: Timeframe | None,
        policy: Policy,
        depth: int,
        history: int = 0,
    ) -> AbstractAsyncContextManager[Subscription[Any]]:
        """Check what was asked, at once; what is returned listens when it is entered."""
        check_buffer(policy, depth)
        if isinstance(history, bool) or not isinstance(history, int):
            raise TypeError(f"history must be a whole number of bars, was {history!r}")
        if history < 0:
            raise ValueError(f"history must be a whole number of bars, at least 0, was {history}")
        names = (normalise(symbols),) if isinstance(symbols, str) else normalise_all(symbols)
        if not names:
            raise ValueError("a stream needs at least one symbol, was given none")
        return self._listen([Topic(line, name, timeframe) for name in names], policy, depth, history)

    @asynccontextmanager
    async def _listen(
        self, topics: list[Topic], policy: Policy, depth: int, history: int
    ) -> AsyncGenerator[Subscription[Any]]:
        if self._is_closed():
            raise PipelineClosed(LEFT)
        unknown = await self._unknown([topic.market for topic in topics])
        known = [topic for topic in topics if topic.market not in unknown]
        if not known:
            raise UnknownMarket(",".join(unknown))
        async with self._subscriptions.listen(known, policy=policy, depth=depth, history=history) as subscription:
            subscription.refuse({market: UnknownMarket(market) for market in unknown})
            yield subscription

    async def _unknown(self, names: list[str]) -> dict[str, None]:
        listed = await self._listed(None)
        if any(name not in listed for name in names):
            listed = await self._listed(LISTING_MAX_AGE_S)
        return {name: None for name in names if name not in listed}
