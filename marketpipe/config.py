"""Everything that can be set, with its default, checked when it is built.

Options are frozen and comparable; a changed copy is ``attrs.evolve(config, region="sg")``. Nothing reads the
environment.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import attrs

from marketpipe.core.freshness import Freshness

__all__ = ["REGIONS", "Buffers", "CacheOptions", "Collecting", "Config", "Limits", "Retry", "Subscriptions"]

# Hosts by region; listings and books differ between them (reference/rest-api-guide, 2026-10-06).
REGIONS = {
    "kr": "https://api.upbit.com",
    "sg": "https://sg-api.upbit.com",
    "id": "https://id-api.upbit.com",
    "th": "https://th-api.upbit.com",
}


def _check(test: Any, wanted: str) -> Any:
    def validate(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not test(value):
            name = f"{type(instance).__name__}.{attribute.name}"
            raise (ValueError if number else TypeError)(f"{name} must be {wanted}, was {value!r}")

    return validate


def _whole(test: Any, wanted: str) -> Any:
    return _check(lambda value: isinstance(value, int) and test(value), f"a whole number {wanted}")


def _flag(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{type(instance).__name__}.{attribute.name} must be True or False, was {value!r}")


POSITIVE = _check(lambda value: 0 < value < float("inf"), "a number above 0")
NOT_NEGATIVE = _check(lambda value: 0 <= value < float("inf"), "a number of at least 0")
COUNT = _whole(lambda value: value >= 1, "of at least 1")


@attrs.frozen(kw_only=True)
class Limits:
    """The exchange's limits and our patience with it.

    ``per_second``: requests per second and rate-limit group (reference/rate-limits, 2026-10-07: 10). All pipelines of
    a process to one exchange share them, and the lowest number that one of them was told holds while it is open.
    ``in_flight``: how many requests may be on their way at once, of all groups together; None: whatever the rate lets.
    ``guard_s``: added to the second a request slot rests, against clocks that run at slightly different speeds.
    ``abandoned_hold_s``: how long after we stopped waiting a request may still reach the exchange.
    ``connect_s``, ``read_s``: bounds of one connection attempt and of one silence while reading.
    ``deadline_s``: the hard bound of one request altogether.
    ``listing_max_age_s``: how old the market list may be when it is used to call a market unknown; a market that is
    listed meanwhile is known that much later, and a program that asks for an unknown one costs a list that often.
    """

    per_second: int = attrs.field(default=10, validator=COUNT)
    in_flight: int | None = attrs.field(default=None, validator=attrs.validators.optional(COUNT))
    guard_s: float = attrs.field(default=0.001, validator=NOT_NEGATIVE)
    abandoned_hold_s: float = attrs.field(default=5.0, validator=NOT_NEGATIVE)
    connect_s: float = attrs.field(default=3.0, validator=POSITIVE)
    read_s: float = attrs.field(default=5.0, validator=POSITIVE)
    deadline_s: float = attrs.field(default=8.0, validator=POSITIVE)
    listing_max_age_s: float = attrs.field(default=10.0, validator=NOT_NEGATIVE)


@attrs.frozen(kw_only=True)
class Retry:
    """What is tried again, and how often. 4xx other than 429 never is.

    ``attempts``: requests in all for a question whose requests fail with 5xx or on the network.
    ``base_s``, ``cap_s``: full-jitter back-off between them: uniform in 0..min(cap, base * 2^n).
    ``refusals``: requests in all for a question that is refused with 429, before `RateLimited` is raised.
    """

    attempts: int = attrs.field(default=3, validator=COUNT)
    base_s: float = attrs.field(default=0.2, validator=POSITIVE)
    cap_s: float = attrs.field(default=5.0, validator=POSITIVE)
    refusals: int = attrs.field(default=8, validator=COUNT)


@attrs.frozen(kw_only=True)
class CacheOptions:
    """How much is kept in memory, and for how long.

    ``entries``: values per kind (tickers, order books, trades, markets). ``candle_pages``: pages of up to 200 bars.
    ``freshness``: the TTL policy.
    """

    entries: int = attrs.field(default=1000, validator=COUNT)
    candle_pages: int = attrs.field(default=100, validator=COUNT)
    freshness: Freshness = attrs.field(factory=Freshness, validator=attrs.validators.instance_of(Freshness))


@attrs.frozen(kw_only=True)
class Subscriptions:
    """How live streams are asked for, watched and mended. The exchange's limits are those of
    reference/rate-limits, 2026-10-07.

    ``auto``: whether a symbol that is read often gets a live subscription by itself: ``heat_reads`` reads within
    ``heat_s``. It is released ``idle_s`` after the last read.
    ``settle_s``: changes of what is wanted within this time travel in one message.
    ``connects_per_second``, ``messages_per_second``, ``messages_per_minute``: the exchange's limits on connecting, and
    on messages for each connection.
    ``handshake_s``: the bound of one connection attempt, upgrade included. ``ping_s``: how often a ping keeps a
    connection from being closed as idle. ``pong_s``: how long the answer to a ping may take.
    ``silence_s``: how long a connection, or a busy market on it, may be silent before it is checked.
    ``snapshot_s``: how long the first frame of a market may take after subscribing.
    ``reconnect_base_s``, ``reconnect_cap_s``: full-jitter back-off between attempts, as in `Retry`. A connection that
    has lasted ``stable_s`` makes the next back-off begin anew.
    ``repair_s``: how long live trades wait for those of a hole while REST fails; then the hole is told unrepaired.
    """

    auto: bool = attrs.field(default=True, validator=_flag)
    heat_reads: int = attrs.field(default=3, validator=COUNT)
    heat_s: float = attrs.field(default=10.0, validator=POSITIVE)
    idle_s: float = attrs.field(default=180.0, validator=POSITIVE)
    settle_s: float = attrs.field(default=0.2, validator=NOT_NEGATIVE)
    connects_per_second: int = attrs.field(default=5, validator=COUNT)
    messages_per_second: int = attrs.field(default=5, validator=COUNT)
    messages_per_minute: int = attrs.field(default=100, validator=COUNT)
    handshake_s: float = attrs.field(default=5.0, validator=POSITIVE)
    ping_s: float = attrs.field(default=15.0, validator=POSITIVE)
    pong_s: float = attrs.field(default=1.5, validator=POSITIVE)
    silence_s: float = attrs.field(default=2.0, validator=POSITIVE)
    snapshot_s: float = attrs.field(default=5.0, validator=POSITIVE)
    reconnect_base_s: float = attrs.field(default=0.5, validator=POSITIVE)
    reconnect_cap_s: float = attrs.field(default=30.0, validator=POSITIVE)
    stable_s: float = attrs.field(default=10.0, validator=POSITIVE)
    repair_s: float = attrs.field(default=300.0, validator=POSITIVE)


@attrs.frozen(kw_only=True)
class Buffers:
    """How much may wait, and where.

    ``frames``: messages of one connection that were read from the socket but not decoded yet. ``frame_bytes``: the
    longest message that is accepted. ``candles``: bars kept in memory per market and timeframe.
    """

    frames: int = attrs.field(default=1000, validator=COUNT)
    frame_bytes: int = attrs.field(default=8 * 2**20, validator=COUNT)
    candles: int = attrs.field(default=50, validator=_whole(lambda value: value >= 3, "of at least 3"))


@attrs.frozen(kw_only=True)
class Collecting:
    """How bars are stored, and collected in the background.

    ``batch_rows``: rows in one transaction; ``flush_s``: the longest that any waits for company. ``kept_rows``: rows
    that may wait for a database that cannot be written; then a backfill waits too. ``retry_base_s``, ``retry_cap_s``:
    full-jitter back-off of a transaction that failed. ``leave_s``: how long leaving waits for the last ones.
    ``pages_at_once``: pages of candles that one backfill, or one question, has in flight at most.
    ``tries``: how often a page that cannot be read, or is refused, is asked for before its span is given up.
    """

    batch_rows: int = attrs.field(default=200, validator=COUNT)
    flush_s: float = attrs.field(default=1.0, validator=POSITIVE)
    kept_rows: int = attrs.field(default=20_000, validator=COUNT)
    retry_base_s: float = attrs.field(default=0.5, validator=POSITIVE)
    retry_cap_s: float = attrs.field(default=30.0, validator=POSITIVE)
    leave_s: float = attrs.field(default=1.5, validator=POSITIVE)
    pages_at_once: int = attrs.field(default=20, validator=COUNT)
    tries: int = attrs.field(default=5, validator=COUNT)


def _path(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise TypeError(f"Config.{attribute.name} must be a path or ':memory:', was {value!r}")
    if value is not None and not os.fspath(value):
        raise ValueError(f"Config.{attribute.name} must be a path or ':memory:', was {value!r}")


def _known_region(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value not in tuple(REGIONS):
        raise ValueError(f"Config.region must be one of {', '.join(REGIONS)}, was {value!r}")


def _url(kind: str, example: str) -> Any:
    schemes, article = (kind, f"{kind}s"), "an" if kind == "http" else "a"

    def validate(instance: object, attribute: attrs.Attribute[str | None], value: object) -> None:
        if value is None:
            return
        name = f"Config.{attribute.name}"
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str such as {example!r}, was {value!r}")
        if not _is_url(value, schemes):
            raise ValueError(f"{name} must be {article} {kind}(s) URL such as {example!r}, was {value!r}")

    return validate


def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(value)
        # Reading the port is what checks it.
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _port(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        _whole(lambda port: 1 <= port <= 65_535, "from 1 to 65535, or None")(instance, attribute, value)


@attrs.frozen(kw_only=True)
class Config:
    """All options of a pipeline.

    ``region``: kr, sg, id or th. ``base_url``: another address of the REST API, instead of the region's. ``ws_url``:
    another address of the public WebSocket; without it, it is found at the host of the REST API. ``store``: the
    database of candles, a path or ``":memory:"``; without it, a file in the user's data folder for each region, and
    memory for any other address: what a simulator invents does not belong among what was real. ``metrics_port``: where
    on 127.0.0.1 the pipe tells about itself, to `marketpipe status` and to Prometheus; without it, nowhere.
    """

    region: str = attrs.field(default="kr", validator=_known_region)
    base_url: str | None = attrs.field(default=None, validator=_url("http", "http://127.0.0.1:8600"))
    ws_url: str | None = attrs.field(default=None, validator=_url("ws", "ws://127.0.0.1:8600/websocket/v1"))
    limits: Limits = attrs.field(factory=Limits, validator=attrs.validators.instance_of(Limits))
    retry: Retry = attrs.field(factory=Retry, validator=attrs.validators.instance_of(Retry))
    cache: CacheOptions = attrs.field(factory=CacheOptions, validator=attrs.validators.instance_of(CacheOptions))
    subscriptions: Subscriptions = attrs.field(
        factory=Subscriptions, validator=attrs.validators.instance_of(Subscriptions)
    )
    buffers: Buffers = attrs.field(factory=Buffers, validator=attrs.validators.instance_of(Buffers))
    store: str | os.PathLike[str] | None = attrs.field(default=None, validator=_path)
    collecting: Collecting = attrs.field(factory=Collecting, validator=attrs.validators.instance_of(Collecting))
    metrics_port: int | None = attrs.field(default=None, validator=_port)

    @property
    def store_path(self) -> str:
        """Where the database of candles is."""
        if self.store is not None:
            return os.fspath(self.store)
        if self.base_url is not None:
            return ":memory:"
        import platformdirs  # for the one who has not said where

        return str(platformdirs.user_data_path("marketpipe", appauthor=False) / f"upbit-{self.region}.db")

    @property
    def rest_url(self) -> str:
        """The address of the REST API, without a trailing slash."""
        return (self.base_url or REGIONS[self.region]).rstrip("/")

    @property
    def stream_url(self) -> str:
        """The address of the public WebSocket (reference/websocket-guide, 2026-10-06)."""
        if self.ws_url is not None:
            return self.ws_url
        scheme, _, rest = self.rest_url.partition("://")
        return f"{'wss' if scheme.lower() == 'https' else 'ws'}://{rest}/websocket/v1"
