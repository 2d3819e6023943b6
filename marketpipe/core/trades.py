"""One market's trades: each once, and none lost where the connection was.

A `TradeFlow` stands between the trade connection and the consumers. As long as nothing is in doubt it only drops what
was delivered before. There are two doubts:

=======  ==================================  ===================  ================================================
doubt    begins with                         live trades          ends
=======  ==================================  ===================  ================================================
hole     `lost`: told at once, an open Gap   are held             with a closed Gap, then what was missing or held
check    `resubscribed`, or `counted` more:  are delivered        silently; if a trade was missing, as a hole does
         told to nobody
=======  ==================================  ===================  ================================================

After a loss or a new subscription the exchange's next snapshot is waited for: the market's last trade, after which the
stream is whole again (reference/websocket-trade, 2026-09-22). Then one of two proofs is made.

1. *Nothing was traded.* The snapshot is the newest trade that was delivered, and it was made `SLACK_MS` or more before
   the doubt began. That the snapshot is known says only that nothing newer is missing: streams tell trades out of
   order, some 300 ms in the recording of 2021, so that an older one could have been on its way when the connection
   was lost. After the slack it had come.
2. *Nothing is left out.* REST is read from the slack before the doubt to the snapshot, and what was neither delivered
   nor is held was missing. Trades are matched by id, which is the same here and there, and unique within the market
   but in no order (reference/list-pair-trades, 2026-07-28).

REST may be ahead of the stream or behind it, by some 100 ms. Behind: it does not show the snapshot's trade yet, and is
asked again. Where there is no snapshot to tell, it is asked twice, a moment apart. Ahead: it shows trades that the
stream has not told yet. In a hole they are delivered, and dropped when the stream tells them; but a check that took
them for missing would tell of gaps where there are none, so there a trade is missing if it was so at two looks.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

import attrs

from marketpipe.core.counted import Counted
from marketpipe.core.delivered import Delivered, rank
from marketpipe.core.mending import SLACK_MS, Reading, read_back
from marketpipe.core.requests import TRADES_LIMIT, TradesRequest
from marketpipe.models import Gap, Trade

__all__ = ["Need", "RepairWalk", "TradeFlow"]

# Trades that may wait for a repair, or come while a check is not done: minutes of the busiest market.
WAIT_AT_MOST = 100_000

RepairWalk = Generator[tuple[TradesRequest, ...], tuple[tuple[Trade, ...], ...], tuple[Trade | Gap, ...] | None]


class Need(StrEnum):
    """What REST is asked for: REPAIR while consumers wait, CHECK while they do not."""

    REPAIR = "repair"
    CHECK = "check"


@attrs.define(eq=False)
class _Doubt:
    """Since when what is not certain, and what the stream has shown since it goes on.

    ``told_ms``: the start that consumers were told. ``from_ms``: the start; a later loss may have put it earlier.
    ``noticed_ms``: when the last loss was noticed.
    ``edge``: the snapshot, or for want of it the first trade since. ``ready``: the snapshot is here, or none will come.
    ``looked``: whether REST was looked at while there was no edge. ``unsure``: the ids that seemed to be missing at a
    check's first look; None before it.
    """

    told_ms: int
    from_ms: int
    noticed_ms: int
    cause: str
    holds: bool
    edge: Trade | None = None
    ready: bool = False
    looked: bool = False
    unsure: frozenset[int] | None = None

    def restart(self, from_ms: int) -> None:
        """Nothing that was shown since can be relied on: wait for the next snapshot."""
        self.from_ms = min(self.from_ms, from_ms)
        self.edge, self.ready, self.looked, self.unsure = None, False, False, None

    @property
    def whole_ms(self) -> int:
        """The moment from which the stream is whole again."""
        return max(self.told_ms, self.noticed_ms if self.edge is None else self.edge.trade_ms)

    @property
    def read_ms(self) -> int:
        """Up to when REST, read now, is certain to show every trade."""
        return self.whole_ms - SLACK_MS


@attrs.define(eq=False)
class TradeFlow:
    """The trades of one market. Times are the exchange's, in ms.

    Whoever drives it asks `needs` after every other call, and if it is not None, drives `repair`. Whatever a method
    returns is delivered in that order, before anything that a later call returns.
    """

    market: str
    _delivered: Delivered = attrs.field(factory=Delivered, init=False)
    _counted: Counted = attrs.field(factory=Counted, init=False)
    _held: dict[int, Trade] = attrs.field(factory=dict, init=False)
    _doubt: _Doubt | None = attrs.field(default=None, init=False)
    _certain: bool = attrs.field(default=False, init=False)  # whether there ever was a moment from which all is told
    _joined: bool = attrs.field(default=False, init=False)  # whether frames come from a connection that is relied on
    _calm: bool = attrs.field(default=False, init=False)  # certain, and no doubt
    _began_ms: int = attrs.field(default=-1, init=False)  # a moment before the first subscription
    _read_ms: tuple[int, int] = attrs.field(default=(0, -1), init=False)  # between the two REST was looked through
    _turn: int = attrs.field(default=0, init=False)  # counts what makes a repair that is under way worthless

    @property
    def needs(self) -> Need | None:
        """What REST is asked for now, with `repair`; None: nothing, or the snapshot is still to come.

        Ask some 0.5 s after the need has come up. A trade that was published late, just before the snapshot, is known
        to be on REST only when REST has had the time by which it may be behind.
        """
        if self._doubt is None or not self._doubt.ready:
            return None
        return Need.REPAIR if self._doubt.holds else Need.CHECK

    @property
    def waiting(self) -> int:
        """How many live trades wait for the repair of a hole."""
        return len(self._held)

    def live(self, trade: Trade, *, snapshot: bool) -> tuple[Trade | Gap, ...]:
        """What to deliver now that the connection has told ``trade``: it alone, or nothing, unless a doubt ends."""
        if snapshot or not self._calm:
            return self._told(trade, snapshot)
        return (trade,) if self._delivered.add(trade) else ()

    def subscribed(self, now_ms: int) -> None:
        """A connection carries this market from now on; a snapshot, its last trade, comes next.

        ``now_ms``: a moment before it was subscribed.
        """
        self._joined = True
        if self._doubt is not None:
            self._restart(self._doubt, self._doubt.from_ms)
        elif self._delivered.by_id:
            self._begin_check("subscribed again")
        else:
            self._certain = self._calm = False
            self._began_ms = now_ms

    def resubscribed(self, now_ms: int) -> None:
        """A subscribe message has replaced another on the running connection: trades may have fallen between the two.

        ``now_ms``: a moment before it was sent, however long before. A snapshot comes next.
        """
        self._joined = True
        now_ms = self._unread_ms(now_ms)
        if self._doubt is not None:
            self._restart(self._doubt, now_ms)
        elif self._certain:
            self._begin(_Doubt(now_ms, now_ms, now_ms, "the subscription was replaced", holds=False))

    def no_snapshot(self) -> None:
        """The stream goes on, and no snapshot will come: the market has no trade to show, or nothing was subscribed."""
        self._joined = True
        if self._doubt is not None:
            self._doubt.ready = True
        else:
            self._certain = self._calm = True

    def counted(self, traded_ms: int, volume: Decimal, asked_ms: int) -> None:
        """The exchange was asked at ``asked_ms`` or later, and counts ``volume`` since midnight UTC.

        Its last trade was made at ``traded_ms``. Call it when whatever was on its way then has come.
        """
        delivered, counted = self._delivered, self._counted
        if not (self._calm and self._joined):  # what is in doubt is looked into anyway
            return
        if counted.agreed_ms < 0:
            counted.certain_to(self._began_ms - SLACK_MS)
        told = delivered.told(traded_ms, near_ms=SLACK_MS)
        if told is not None and not counted.agrees(traded_ms, volume, told, asked_ms - SLACK_MS):
            cause, since_ms = "trades were made that the stream did not tell", counted.agreed_ms
            self._begin(_Doubt(since_ms, since_ms, max(since_ms, asked_ms), cause, holds=False, ready=True))

    def lost(self, start_ms: int, now_ms: int, cause: str) -> tuple[Gap, ...]:
        """The connection is gone or no longer relied on: nothing after ``start_ms`` is certain. Noticed at ``now_ms``.

        Both may be too early, by hours after this machine was suspended: what was looked through since is certain too.
        Returns the open Gap; nothing if a hole is open already, which then reaches back to the earlier start, or if
        nothing was ever certain.
        """
        self._joined = False
        if not self._certain:
            return ()
        start_ms, doubt = self._unread_ms(start_ms), self._doubt
        if doubt is not None and doubt.holds:
            self._restart(doubt, start_ms)
            doubt.noticed_ms = max(doubt.noticed_ms, now_ms)
            return ()
        if doubt is not None:
            start_ms = min(start_ms, doubt.from_ms)
        self._begin(_Doubt(start_ms, start_ms, max(start_ms, now_ms), cause, holds=True))
        return (Gap(self.market, start_ms, max(start_ms, now_ms), cause),)

    def repair(self) -> RepairWalk:
        """Yield the requests whose pages mend the hole or answer the check; return what to deliver now.

        The closing Gap comes first, then what was missing and what was held, in the order of (time, id). None: not
        done; REST does not reach the stream yet, has to be looked at once more, or something has happened meanwhile.
        Begin again in a moment, if `needs` still says so. A repair that is abandoned has changed nothing.
        """
        if self.needs is None:
            return None
        (page,) = yield (TradesRequest(self.market, TRADES_LIMIT),)
        # The request may have waited for long. What is asked is asked now, and most holes take one page.
        doubt, turn = self._doubt, self._turn
        if doubt is None or not doubt.ready:
            return None
        left_ms = max(doubt.from_ms - SLACK_MS, self._delivered.floor[0])
        reading = yield from read_back(self.market, page, left_ms=left_ms, edge=doubt.edge)
        if turn != self._turn or not reading.reaches_stream:
            return None
        if doubt.edge is None and not doubt.looked:
            doubt.looked = True
            return None
        missing = [trade for trade in reading.trades.values() if not self._is_known(trade)]
        return self._mended(doubt, reading, missing) if doubt.holds else self._checked(doubt, reading, missing)

    def unrepairable(self, reason: str) -> tuple[Trade | Gap, ...]:
        """Give up: the closing Gap with the ``reason``, then what was held. Nothing if nothing was in doubt."""
        doubt = self._doubt
        if doubt is None:
            return ()
        self._give_up(doubt, (doubt.whole_ms, -1) if doubt.edge is None else rank(doubt.edge))
        return self._close(doubt, repaired=False, proof=reason)

    def newest(self, count: int) -> tuple[Trade, ...] | None:
        """The newest ``count`` trades, newest first by (time, id); None if that many are not known for certain.

        Those from before the flow began, or from a hole that was not mended, are not; nor is anything made less than
        `SLACK_MS` after it, since a trade that was told before may have been made later.
        """
        return self._delivered.newest(count, clear_ms=SLACK_MS) if self._calm and self._joined else None

    @property
    def last(self) -> Trade | None:
        """Of what was delivered, the trade that was made last."""
        return max(self._delivered.by_id.values(), key=rank, default=None)

    # -- what comes in beside the ordinary ----------------------------------------------------------------------

    def _told(self, trade: Trade, snapshot: bool) -> tuple[Trade | Gap, ...]:
        doubt, delivered = self._doubt, self._delivered
        if doubt is None and not delivered.by_id:
            self._certain = self._calm = True
            delivered.raise_floor(rank(trade))
            return self._pass(trade)
        if doubt is not None and self._joined:
            self._see(doubt, trade, snapshot)
            if snapshot and self._is_last_delivered(doubt, trade):
                return self._nothing_traded(doubt, trade)
        # An old trade that a snapshot shows may be forgotten; one that the stream tells was made just now.
        if delivered.knows(trade) if snapshot else delivered.has(trade):
            return ()
        if doubt is None:
            # A snapshot that was not waited for shows what the stream has not told: one of two subscribe messages that
            # followed each other closely, whose snapshots could not be told apart.
            self._begin_check("a snapshot showed a new trade")
            return self._told(trade, snapshot)
        return self._hold(trade) if doubt.holds else self._pass(trade)

    def _see(self, doubt: _Doubt, trade: Trade, snapshot: bool) -> None:
        if snapshot or doubt.edge is None:
            doubt.edge = trade
            doubt.ready = doubt.ready or snapshot
            self._turn += 1

    def _hold(self, trade: Trade) -> tuple[Trade | Gap, ...]:
        self._held.setdefault(trade.sequential_id, trade)
        if len(self._held) <= WAIT_AT_MOST:
            return ()
        return self.unrepairable(f"{len(self._held):,} trades were waiting for the repair")

    def _pass(self, trade: Trade) -> tuple[Trade | Gap, ...]:
        self._delivered.extend((trade,))
        if len(self._delivered.by_id) <= WAIT_AT_MOST:
            return (trade,)
        return (trade, *self.unrepairable(f"more than {WAIT_AT_MOST:,} trades would have to be remembered until then"))

    def _is_known(self, trade: Trade) -> bool:
        return trade.sequential_id in self._held or self._delivered.knows(trade)

    # -- doubts: how they begin and end -------------------------------------------------------------------------

    def _begin(self, doubt: _Doubt) -> None:
        self._doubt = doubt
        self._calm = False
        self._turn += 1

    def _begin_check(self, cause: str) -> None:
        # Nobody told of a loss, or when it was: since the last trade that was delivered, everything is possible.
        last = next(reversed(self._delivered.by_id.values())).trade_ms
        self._begin(_Doubt(last, last, last, cause, holds=False))

    def _restart(self, doubt: _Doubt, from_ms: int) -> None:
        doubt.restart(from_ms)
        self._turn += 1

    def _is_last_delivered(self, doubt: _Doubt, snapshot: Trade) -> bool:
        # The first proof of the module's docstring.
        return not self._held and snapshot.trade_ms <= doubt.from_ms - SLACK_MS and self._delivered.is_newest(snapshot)

    def _nothing_traded(self, doubt: _Doubt, snapshot: Trade) -> tuple[Trade | Gap, ...]:
        if not doubt.holds:
            return self._settle()
        before_s = (doubt.from_ms - snapshot.trade_ms) / 1000
        proof = f"the exchange's last trade is {snapshot.sequential_id}, made and delivered {before_s:,.1f} s before"
        return self._close(doubt, repaired=True, proof=proof)

    def _checked(self, doubt: _Doubt, reading: Reading, missing: list[Trade]) -> tuple[Trade | Gap, ...] | None:
        # What was made after the snapshot is the stream's to tell; but which trade is the last, streams disagree on.
        if doubt.edge is not None:
            until_ms = doubt.edge.trade_ms + SLACK_MS
            missing = [trade for trade in missing if trade.trade_ms <= until_ms]
        if missing and doubt.unsure is None:
            doubt.unsure = frozenset(trade.sequential_id for trade in missing)
            return None
        missing = [trade for trade in missing if doubt.unsure is not None and trade.sequential_id in doubt.unsure]
        if missing or self._shortfall(doubt, reading):
            return self._mended(doubt, reading, missing)
        self._looked_through(reading.whole_from_ms, doubt.read_ms)
        return self._settle()

    def _mended(self, doubt: _Doubt, reading: Reading, missing: list[Trade]) -> tuple[Trade | Gap, ...]:
        if missing:
            self._counted.explained(min(trade.trade_ms for trade in missing) - SLACK_MS)
        proof = self._proof(doubt, reading, missing)
        shortfall = self._shortfall(doubt, reading)
        if not shortfall:
            self._looked_through(reading.whole_from_ms, doubt.read_ms)
            return self._close(doubt, repaired=True, proof=proof, missing=missing)
        self._give_up(doubt, (reading.whole_from_ms, -1))
        self._looked_through(reading.whole_from_ms, doubt.read_ms)
        return self._close(doubt, repaired=False, proof=f"{shortfall}; {proof}", missing=missing)

    def _give_up(self, doubt: _Doubt, floor: tuple[int, int]) -> None:
        # What was lost without a trace before will not be looked for any more.
        doubt.from_ms = min(doubt.from_ms, self._untraced_ms)
        self._delivered.raise_floor(floor)
        self._counted.certain_to(floor[0])

    @property
    def _untraced_ms(self) -> int:
        """Since when something may be missing of which nobody knows."""
        return self._counted.agreed_ms if self._counted.agreed_ms >= 0 else self._began_ms

    def _looked_through(self, start_ms: int, end_ms: int) -> None:
        self._counted.looked_through(start_ms, end_ms)
        self._read_ms = start_ms, max(end_ms, self._read_ms[1])

    def _unread_ms(self, ms: int) -> int:
        """The first moment from ``ms`` on that may be in doubt."""
        start_ms, end_ms = self._read_ms
        return max(ms, self._counted.agreed_ms, end_ms if start_ms <= ms else ms)

    def _close(
        self, doubt: _Doubt, *, repaired: bool, proof: str, missing: Iterable[Trade] = ()
    ) -> tuple[Trade | Gap, ...]:
        trades = sorted((*missing, *self._held.values()), key=rank)
        start_ms = doubt.told_ms
        if trades and not doubt.holds:
            start_ms = min(start_ms, trades[0].trade_ms)
        gaps = [Gap(self.market, start_ms, max(start_ms, doubt.whole_ms), doubt.cause, repaired, proof)]
        if not repaired and doubt.from_ms < start_ms:
            # A later loss, or what was not counted yet, reaches back before the start that was told.
            gaps.append(Gap(self.market, doubt.from_ms, start_ms, doubt.cause, repaired, proof))
        self._delivered.insert(trades)
        self._held.clear()
        self._settle()
        return (*gaps, *trades)

    def _settle(self) -> tuple[Trade | Gap, ...]:
        self._doubt = None
        self._calm = True
        self._turn += 1
        self._delivered.trim()
        return ()

    # -- in words -----------------------------------------------------------------------------------------------

    def _shortfall(self, doubt: _Doubt, reading: Reading) -> str:
        if self._delivered.forgotten_ms > doubt.from_ms - SLACK_MS:
            return f"what was delivered before {_moment(self._delivered.forgotten_ms)} is no longer remembered"
        if reading.shortfall:
            return f"{reading.shortfall}, back to {_moment(reading.whole_from_ms)}"
        return ""

    def _proof(self, doubt: _Doubt, reading: Reading, missing: list[Trade]) -> str:
        known = sum(trade.trade_ms <= doubt.from_ms and self._delivered.has(trade) for trade in reading.trades.values())
        fetched = f"{_count(reading.pages, 'page')}, {_count(len(reading.trades), 'trade')} fetched"
        were = f"{len(missing):,} {'was' if len(missing) == 1 else 'were'} missing"
        return f"{fetched}, {were}; overlaps {_count(known, 'known trade')} on the left, {_right(doubt, reading)}"


def _right(doubt: _Doubt, reading: Reading) -> str:
    if doubt.edge is None:
        return "and the stream has shown no trade since"
    if doubt.edge.sequential_id in reading.trades:
        return f"the stream's {doubt.edge.sequential_id} on the right"
    return f"and the stream's last, {doubt.edge.sequential_id}, is older"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%d %H:%M:%S}.{ms % 1000:03} UTC"
