"""What the verbs of the original interface answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self

import attrs

from marketpipe.clock import SystemClock
from marketpipe.models import Priority

__all__ = ["BatchRequestResult", "DataResponse", "ResponseMetadata", "moment"]


@attrs.frozen
class ResponseMetadata(Mapping[str, Any]):
    """Where an answer came from and how long it took, as attributes and as a mapping.

    ``priority_used``: None if what was given is no priority. ``source``: ``cache``, ``api``, ``database``, ``stream``
    or ``error``. ``cache_hit``: whether nothing was asked of the exchange. ``records_count``: rows in the answer.
    ``timestamp``: when it was answered.
    """

    priority_used: Priority | None
    source: str
    response_time_ms: float
    cache_hit: bool
    records_count: int
    timestamp: datetime

    def __getitem__(self, name: str) -> Any:
        if name in _METADATA:
            return getattr(self, name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_METADATA)

    def __len__(self) -> int:
        return len(_METADATA)


_METADATA = tuple(field.name for field in attrs.fields(ResponseMetadata))


@attrs.frozen
class DataResponse:
    """An answer, true if it succeeded. It never raises by itself: ``error`` says in words why there is none.

    ``data`` is one row, or a list of rows; None if there is no answer. Of a question for many it holds those that were
    answered, and ``error`` names the others. ``exception`` is the error itself. ``data_timestamp`` is when the exchange
    stamped the newest row.

    A key finds a field of the one row, or what there is of a symbol.
    """

    success: bool
    data: Any
    error: str | None
    metadata: ResponseMetadata
    data_timestamp: datetime | None = None
    exception: Exception | None = attrs.field(default=None, repr=False)
    symbol: str | None = attrs.field(default=None, repr=False)

    @classmethod
    def create_success(
        cls,
        data: Any,
        *,
        priority_used: Priority | None = None,
        data_source: str = "api",
        response_time_ms: float = 0.0,
        cache_hit: bool = False,
        data_timestamp: datetime | None = None,
        symbol: str | None = None,
        error: str | None = None,
    ) -> Self:
        """One with ``data``: a row, or rows (of one market: ``symbol``)."""
        count = len(data) if isinstance(data, list) else 1
        metadata = ResponseMetadata(priority_used, data_source, response_time_ms, cache_hit, count, moment())
        return cls(True, data, error, metadata, data_timestamp, symbol=symbol)

    @classmethod
    def create_error(
        cls, error: str | Exception, *, priority_used: Priority | None = None, response_time_ms: float = 0.0
    ) -> Self:
        """One without data, and why."""
        metadata = ResponseMetadata(priority_used, "error", response_time_ms, False, 0, moment())
        exception = error if isinstance(error, Exception) else None
        return cls(False, None, str(error) or type(error).__name__, metadata, exception=exception)

    def __bool__(self) -> bool:
        return self.success

    @property
    def error_message(self) -> str | None:
        """The same as ``error``."""
        return self.error

    @property
    def cache_hit(self) -> bool:
        """Whether nothing was asked of the exchange for it."""
        return self.metadata.cache_hit

    @property
    def response_time_ms(self) -> float:
        """How long it took."""
        return self.metadata.response_time_ms

    @property
    def data_source(self) -> str:
        """``cache``, ``api``, ``database``, ``stream`` or ``error``."""
        return self.metadata.source

    def get(self, key: str | None = None) -> Any:
        """All data; or a field of the one row or the rows of a symbol, and an empty dict if there is no such key."""
        return self.data if key is None else self._all_keys().get(key, {})

    def get_single(self, symbol: str) -> Any:
        """The row or the rows of ``symbol``; an empty dict if there are none."""
        return self.get_all().get(symbol, {})

    def get_all(self) -> dict[str, Any]:
        """What there is, by symbol."""
        if self.data is None:
            return {}
        if self.symbol is not None:
            return {self.symbol: self.data}
        if isinstance(self.data, Mapping) and "market" not in self.data:
            return dict(self.data)
        return {row["market"]: row for row in self.get_list()}

    def get_list(self) -> list[Any]:
        """The rows, however many."""
        if self.data is None:
            return []
        if isinstance(self.data, list):
            return list(self.data)
        return [self.data] if "market" in self.data else list(self.data.values())

    def keys(self) -> list[str]:
        """What `__getitem__` finds in ``data``: the fields of the one row, or the symbols."""
        return list(self.data if isinstance(self.data, Mapping) else self.get_all())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self._all_keys()

    def __getitem__(self, key: str) -> Any:
        try:
            return self._all_keys()[key]
        except KeyError:
            raise KeyError(key if self.success else f"{key}: there is no answer: {self.error}") from self.exception

    def _all_keys(self) -> dict[str, Any]:
        return {**self.get_all(), **(self.data if isinstance(self.data, Mapping) else {})}


@attrs.frozen
class BatchRequestResult:
    """The answers for many symbols; each symbol counts once, however often it was asked for.

    ``symbols_per_second``: answered symbols. ``cache_hit_rate``: percent of the symbols for which nothing was asked of
    the exchange. ``individual_responses``: one for each symbol, in the order asked. ``error``: which ones failed and
    why, or what was wrong with the question; None if all were answered.
    """

    successful_symbols: list[str]
    failed_symbols: list[str]
    total_response_time_ms: float
    symbols_per_second: float
    cache_hit_rate: float
    individual_responses: dict[str, DataResponse]
    error: str | None = None

    @property
    def success(self) -> bool:
        """Whether any was answered."""
        return bool(self.successful_symbols)


def moment(epoch_ms: int | None = None) -> datetime:
    """A moment in UTC: this one, if none is given."""
    at_ms = SystemClock().now_ms() if epoch_ms is None else epoch_ms
    return datetime.fromtimestamp(at_ms / 1000, UTC)
