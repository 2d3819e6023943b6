"""Everything marketpipe raises that is not misuse.

::

    MarketPipeError
    ├── ExchangeError            the exchange refused, failed or answered nonsense
    │   ├── UnknownMarket        no such market, never listed or delisted          (.market)
    │   ├── RateLimited          refused with 429 more often than we may try       (.retry_after_s)
    │   ├── Banned               refused with 418; all REST rests until            (.until_ms)
    │   ├── ExchangeUnavailable  5xx, network trouble, no answer in time
    │   └── BadPayload           an answer that is not what the exchange documents (.field, .market)
    ├── StaleData                nothing fresh enough is at hand
    ├── StoreError               the database refused
    ├── SubscriberLagged         a consumer fell behind and was cut off
    ├── PipelineClosed           the pipeline has ended; nobody is there to answer
    └── PipelineCrashed          a background actor failed; the cause is its exception group

Misuse (a wrong type, an unknown timeframe, a naive datetime) is ``TypeError`` or ``ValueError``, raised at the call
before anything is asked. ``ExchangeError`` itself is raised for a refusal that no subclass names, such as a 400.
"""

from __future__ import annotations

from typing import Self

__all__ = [
    "BadPayload",
    "Banned",
    "ExchangeError",
    "ExchangeUnavailable",
    "MarketPipeError",
    "PipelineClosed",
    "PipelineCrashed",
    "RateLimited",
    "StaleData",
    "StoreError",
    "SubscriberLagged",
    "UnknownMarket",
]

# Of the name of a market, in a message.
LONGEST_SHOWN = 40


class MarketPipeError(Exception):
    """The root: ``except MarketPipeError`` catches every failure that is not a bug in the calling code."""

    def copy(self) -> Self:
        """An equal error for one of several callers: a raised exception collects the traceback of its raiser."""
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        if hasattr(self, "__notes__"):
            twin.__notes__ = [*self.__notes__]
        twin.__cause__ = self.__cause__
        return twin


class ExchangeError(MarketPipeError):
    """The exchange refused or failed. ``status`` is the HTTP status, or None if there was no answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UnknownMarket(ExchangeError):
    """The exchange does not list this market: it never did, or no longer does (both look the same from outside)."""

    def __init__(self, market: str, message: str | None = None) -> None:
        super().__init__(message or f"unknown market {market!r}: the exchange does not list it", status=404)
        self.market = market


class RateLimited(ExchangeError):
    """Refused with 429 on every attempt. ``retry_after_s`` is how long to leave this rate-limit group alone."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, status=429)
        self.retry_after_s = retry_after_s


class Banned(ExchangeError):
    """Refused with 418: the exchange blocks this address. ``until_ms`` (epoch, UTC) is when it is expected to end."""

    def __init__(self, message: str, *, until_ms: int) -> None:
        super().__init__(message, status=418)
        self.until_ms = until_ms


class ExchangeUnavailable(ExchangeError):
    """No usable answer: a 5xx, a broken or refused connection, a failed name look-up, or silence past the deadline.

    ``sent`` is False if the request certainly never left this machine, so that it cannot have counted against a limit.
    ``abandoned`` is True if we stopped waiting: the request may still reach the exchange after this moment.
    """

    def __init__(self, message: str, *, status: int | None = None, sent: bool = True, abandoned: bool = False) -> None:
        super().__init__(message, status=status)
        self.sent = sent
        self.abandoned = abandoned


class BadPayload(ExchangeError):
    """An answer that cannot be read as documented. ``field`` and ``market`` name the place where they are known."""

    def __init__(self, message: str, *, field: str | None = None, market: str | None = None) -> None:
        place = " ".join(part for part in (_shown(market or ""), f"field {field!r}" if field else None) if part)
        super().__init__(f"{place}: {message}" if place else message)
        self.field = field
        self.market = market


def _shown(market: str) -> str:
    # It may have been read from the answer: a screen is not to obey it, nor a log to be filled by it.
    return market if len(market) <= LONGEST_SHOWN and market.isprintable() else repr(market[:LONGEST_SHOWN])


class StaleData(MarketPipeError):
    """Nothing at hand is as fresh as was demanded, and it could not be fetched."""


class StoreError(MarketPipeError):
    """The database could not be opened, read or written."""


class SubscriberLagged(MarketPipeError):
    """This consumer fell behind by more than its buffer and was cut off after what it had."""


class PipelineClosed(MarketPipeError):
    """The pipeline has been left; this question can no longer be answered."""


class PipelineCrashed(MarketPipeError):
    """An actor in the background failed. ``__cause__`` is the exception group with every detail."""
