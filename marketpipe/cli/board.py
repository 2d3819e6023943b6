"""Every market that is watched, one line each, with what is newest of it.

What does not flow at the moment is dim, and says for how long; where it was born is in the column "source".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from marketpipe.cli import figures
from marketpipe.cli.footer import Footer, lasting
from marketpipe.cli.lines import Columns, direction
from marketpipe.cli.picture import picture
from marketpipe.cli.sheet import Column, Sheet
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.models import Candle, Change, Gap, Orderbook, Ticker
from marketpipe.status import Status, SubscriptionState, SubscriptionStatus

__all__ = ["LAST_BAR", "Board"]

LAST_BAR = Timeframe.M1

_COLUMNS = (
    Column("market"),
    Column("price", "right"),
    Column("change", "right", rank=1),
    Column("stream", rank=2),
    Column(f"last {LAST_BAR}", rank=3),
    Column("spread", "right", rank=4),
    Column("value 24 h", "right", rank=5),
    Column("age", "right", rank=6),
    Column("source", rank=7),
)
# The lines of a table beside its rows: a blank one, the titles, a rule, a blank one.
_FRAME = 4
_LINES = (Line.TICKER, Line.ORDERBOOK, Line.CANDLE)
_DIRECTION = {Change.RISE: "green", Change.FALL: "red", Change.EVEN: ""}
# The worst first: of a market with several streams, that one is told.
_STATES = {
    SubscriptionState.ERROR: "red",
    SubscriptionState.RECONNECTING: "red",
    SubscriptionState.STALE: "yellow",
    SubscriptionState.PENDING: "",
    SubscriptionState.RELEASED: "",
    SubscriptionState.ACTIVE: "green",
}
_WORST = tuple(_STATES)
# A stale stream is being checked, and most often well: markets are silent at times.
_FLOWING = (SubscriptionState.ACTIVE, SubscriptionState.STALE)

States = Mapping[Line, SubscriptionStatus | None]


@attrs.define
class _Row:
    market: str
    ticker: Ticker | None = None
    book: Orderbook | None = None
    bar: Candle | None = None

    def age(self, now_ms: int) -> str:
        ages = [value.age_ms(now_ms) for value in (self.ticker, self.book, self.bar) if value is not None]
        return figures.age(max(0, min(ages))) if ages else ""


@attrs.define(eq=False)
class Board:
    """The rows in the order asked, and the footer. ``fits``: drawn within the height of the terminal.

    ``failed``: markets of which nothing will come any more.
    """

    names: Sequence[str]
    status: Callable[[], Status]
    now_ms: Callable[[], int]
    fits: bool = True
    failed: Collection[str] = ()
    _footer: Footer = attrs.field(init=False)
    _rows: dict[str, _Row] = attrs.field(init=False)
    _columns: Columns = attrs.field(factory=Columns, init=False)

    def __attrs_post_init__(self) -> None:
        self._footer = Footer(self.status, self.now_ms)
        self._rows = {name: _Row(name) for name in self.names}

    def take(self, value: Any) -> None:
        """Show a `Ticker`, an `Orderbook` or a `Candle`, unless a newer one is shown. A `Gap` is for the footer."""
        if isinstance(value, Gap):
            return
        row = self._rows[value.market]
        match value:
            case Ticker():
                # What REST tells while the stream is away may be older than what the stream told last.
                if row.ticker is None or value.exchange_ms >= row.ticker.exchange_ms:
                    row.ticker = value
            case Orderbook():
                row.book = value
            case Candle():
                # An amended bar may be told after the next one has begun.
                if row.bar is None or value.open_ms >= row.bar.open_ms:
                    row.bar = value

    def away(self) -> list[str]:
        """Markets whose tickers do not flow."""
        subscriptions = self.status().subscriptions
        return [name for name in self.names if not _flows(subscriptions.get(Topic(Line.TICKER, name)))]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        footer, rows = self._footer.lines(console, options.max_width), list(self._rows.values())
        room = len(rows)
        if self.fits:
            room = max(1, console.size.height - _FRAME - len(footer) - 1)
        yield self._sheet(rows[:room], ascii_only=options.ascii_only)
        if room < len(rows):
            yield Text(f"and {len(rows) - room} more than this terminal has lines for", style="dim")
        yield from footer

    def _sheet(self, rows: Sequence[_Row], *, ascii_only: bool) -> Sheet:
        sheet, subscriptions, now_ms = Sheet(_COLUMNS), self.status().subscriptions, self.now_ms()
        for row in rows:
            states = {
                line: subscriptions.get(Topic(line, row.market, LAST_BAR if line is Line.CANDLE else None))
                for line in _LINES
            }
            cells = (
                Text(row.market),
                *_prices(row.ticker),
                self._state(row.market, states, now_ms),
                _dim_unless(_flows(states[Line.CANDLE]), _bar(row.bar, ascii_only=ascii_only)),
                _dim_unless(_flows(states[Line.ORDERBOOK]), _spread(row.book)),
                Text(figures.amount(row.ticker.quote_volume_24h) if row.ticker else ""),
                Text(row.age(now_ms)),
                Text(row.ticker.source if row.ticker else ""),
            )
            sheet.add(*map(self._steady, _COLUMNS, cells), dim=not _flows(states[Line.TICKER]))
        return sheet

    def _steady(self, column: Column, cell: Text) -> Text:
        """``cell`` as wide as its column has ever been."""
        if column.justify == "right":
            cell.pad_left(len(self._columns.right(column.title, cell.plain)) - len(cell))
        else:
            cell.pad_right(len(self._columns.left(column.title, cell.plain)) - len(cell))
        return cell

    def _state(self, market: str, states: States, now_ms: int) -> Text:
        if market in self.failed:
            return Text("not listed", style="red")
        told = [state for state in states.values() if state is not None]
        if not told:
            return Text("")
        worst = min(told, key=lambda each: (_WORST.index(each.state), each.since_ms))
        since = "" if worst.state is SubscriptionState.ACTIVE else f" {lasting(worst.since_ms, now_ms)}"
        return Text(f"{worst.state}{since}", style=_STATES[worst.state])


def _flows(status: SubscriptionStatus | None) -> bool:
    return status is not None and status.state in _FLOWING


def _prices(ticker: Ticker | None) -> tuple[Text, Text]:
    if ticker is None:
        return Text(""), Text("")
    change = figures.percent(ticker.signed_change_rate)
    return Text(figures.exact(ticker.price)), Text(change, style=_DIRECTION[ticker.change])


def _bar(bar: Candle | None, *, ascii_only: bool) -> Text:
    return Text("") if bar is None else Text(picture(bar, ascii_only=ascii_only), style=direction(bar))


def _spread(book: Orderbook | None) -> Text:
    """``1,000   2.20 bp``: absolute, and in hundredths of a per cent of the price in the middle."""
    if book is None:
        return Text("")
    if book.spread is None or not book.mid:
        return Text("one-sided")
    return Text(f"{figures.exact(book.spread)} {book.spread / book.mid * 10_000:6.2f} bp")


def _dim_unless(flows: bool, cell: Text) -> Text:
    if not flows:
        cell.stylize("dim")
    return cell
