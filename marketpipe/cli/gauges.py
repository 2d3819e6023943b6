"""A `Status` for people. What has not happened takes no room: there is no row for a verb that nobody called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import attrs
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from marketpipe import Progress, Status, StoreStatus
from marketpipe.cli import figures
from marketpipe.cli.footer import packed
from marketpipe.cli.sheet import Column, Sheet
from marketpipe.cli.waiting import waiting_for
from marketpipe.core.topics import Line
from marketpipe.status import ConnectionStatus, StreamStatus, SubscriptionState

__all__ = ["Gauges"]

_BAD = (SubscriptionState.ERROR, SubscriptionState.RECONNECTING)
# If the event loop is later than this, all that waits for it is felt to be slow.
LATE_S = 0.05
_BY_WEIGHT = (
    "header", "streams", "answers", "budgets", "verbs", "store", "jobs", "consumers", "caches", "queues",
)  # fmt: skip
MEMORY = ":memory:"


@attrs.define
class Gauges:
    """The newest `Status`, and the one before it, if there was one: rates are of the time between them.

    ``fits``: drawn within the height of the terminal, in whole blocks, those first without which the rest says little.
    """

    status: Status
    fits: bool = False
    _before: Status | None = attrs.field(default=None, init=False)

    def take(self, status: Status) -> None:
        """Show ``status`` from now on."""
        # What has begun anew meanwhile is another program at the same port.
        self._before = self.status if status.uptime_s > self.status.uptime_s else None
        self.status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        blocks = self._blocks(console, options.max_width)
        missing = 0
        if self.fits:
            heights = {name: len(console.render_lines(block, options, pad=False)) for name, block in blocks.items()}
            shown = _that_fit(heights, console.size.height)
            missing = sum(height for name, height in heights.items() if name not in shown)
            blocks = {name: block for name, block in blocks.items() if name in shown}
        yield from blocks.values()
        if missing:
            words = f"and {missing} more lines: make the terminal taller, or leave out --watch"
            yield Text(words, style="dim", no_wrap=True, overflow="ellipsis")

    def _blocks(self, console: Console, width: int) -> dict[str, RenderableType]:
        """What there is to show, from the top to the bottom."""
        status = self.status
        sheets = {
            "budgets": _budgets(status),
            "verbs": _verbs(status),
            "caches": _caches(status),
            "streams": _streams(status),
        }
        parts: dict[str, Iterator[Text]] = {
            "answers": _answers(status),
            "consumers": _consumers(status),
            "queues": _queues(status),
            "store": _store(status.store),
        }
        texts = {name: packed(each, console, width) for name, each in parts.items()}
        texts["jobs"] = [line for job in status.jobs for line in packed(_job(job), console, width)]
        return {
            "header": Text("\n").join(packed(self._header(), console, width)),
            **{name: sheet for name, sheet in sheets.items() if sheet.rows},
            **{name: Text("\n").join(lines) for name, lines in texts.items() if lines},
        }

    def _header(self) -> Iterator[Text]:
        status = self.status
        yield Text(f"up {figures.duration(status.uptime_s)}", style="bold")
        yield Text(f"{figures.mebibytes(status.memory_bytes)} resident")
        if status.lag is not None:
            lag = status.lag
            late = f"event loop late p50 {figures.took(lag.p50_s)}, p99 {figures.took(lag.p99_s)}"
            yield Text(f"{late}, at most {figures.took(lag.max_s)}", style="yellow" if lag.p99_s > LATE_S else "")
        yield Text(f"{self._per_second(_symbols)} symbols/s")
        yield Text(f"{self._per_second(_frames)} messages/s")
        yield Text(f"{figures.share(status.hit_rate)} from memory")
        yield Text(f"{figures.counted(status.requests, 'request')}, {status.requests_in_flight} under way")
        if status.joined:
            yield Text(f"{status.joined:,} of {figures.counted(status.questions, 'question')} asked together")
        if status.banned_for_s > 0:
            yield Text(waiting_for(status), style="red")

    def _per_second(self, count: Callable[[Status], int]) -> str:
        counted, elapsed_s = count(self.status), self.status.uptime_s
        if self._before is not None:
            counted, elapsed_s = counted - count(self._before), elapsed_s - self._before.uptime_s
        return f"{counted / elapsed_s:,.0f}" if elapsed_s > 0 else "0"


def _that_fit(heights: Mapping[str, int], room: int) -> set[str]:
    """The blocks that are shown in so many lines, the weightiest first; one line is for saying that there are more."""
    if sum(heights.values()) <= room:
        return set(heights)
    shown: set[str] = set()
    room -= 1
    for name in _BY_WEIGHT:
        if heights.get(name, room + 1) <= room:
            shown.add(name)
            room -= heights[name]
    return shown


def _symbols(status: Status) -> int:
    return sum(each.symbols for each in status.verbs.values())


def _frames(status: Status) -> int:
    return sum(each.frames for each in status.connections.values())


def _budgets(status: Status) -> Sheet:
    sheet = _sheet("budget", ">used", ">under way/2", ">waiting", ">most/3", ">sent/1", ">refused", "blocked/4")
    for group, each in status.budgets.items():
        questions = status.queues.get(f"questions {group}")
        waiting, most = status.waiting.get(group, 0), 0 if questions is None else questions.peak
        if not (each.sent or waiting):
            continue
        ceiling = "" if each.ceiling == each.limit else f", {each.ceiling} in use"
        sheet.add(
            group,
            f"{round(each.utilisation * each.limit)} of {each.limit}{ceiling}",
            f"{each.in_flight}",
            f"{waiting:,}",
            f"{most:,}",
            f"{each.sent:,}",
            Text(f"{each.refused:,}", style="red" if each.refused else ""),
            f"{each.blocked_s:.1f} s" if each.blocked_s > 0 else "",
        )
    return sheet


def _verbs(status: Status) -> Sheet:
    sheet = _sheet("verb", ">calls", ">symbols/2", ">failed/3", ">p50", ">p95/1", ">p99")
    for verb, each in status.verbs.items():
        failed = Text(f"{each.failed:,}", style="yellow" if each.failed else "")
        times = (figures.took(seconds) for seconds in (each.p50_s, each.p95_s, each.p99_s))
        sheet.add(verb, f"{each.calls:,}", f"{each.symbols:,}", failed, *times)
    return sheet


def _caches(status: Status) -> Sheet:
    sheet = _sheet("cache", ">asked", ">fast", ">memory", ">live", ">missed", ">fresh/1", ">kept live/2", ">evicted/3")
    for kind, each in status.caches.items():
        asked = each.hits + each.misses
        if asked:
            tiers = (each.fast_hits, each.memory_hits, each.live_hits, each.misses)
            counts = (each.entries, each.live, each.evictions)
            sheet.add(kind, f"{asked:,}", *(figures.share(tier / asked) for tier in tiers), *map("{:,}".format, counts))
    return sheet


def _streams(status: Status) -> Sheet:
    sheet = _sheet(
        "stream", "connection", "markets/1", ">messages/2", ">values/6", ">p50/7", ">p99/5", ">reconnects/3", ">gaps",
        ">mended", ">last/8", "last loss/4",
    )  # fmt: skip
    states: dict[Line, Counter[SubscriptionState]] = {line: Counter() for line in Line}
    for topic, subscription in status.subscriptions.items():
        states[topic.line][subscription.state] += 1
    for line, each in status.connections.items():
        if each.connects or each.losses or states[line]:
            delivered = status.streams.get(line)
            sheet.add(
                line,
                _connection(each, status.at_ms),
                _in_states(states[line]),
                f"{each.frames:,}",
                *_delivered(delivered),
                f"{each.reconnects:,}",
                f"{each.gaps:,}",
                Text(f"{each.repaired:,}", style="yellow" if each.repaired < each.gaps else ""),
                "" if each.last_frame_age_s is None else figures.age(round(each.last_frame_age_s * 1000)),
                each.last_loss,
            )
    return sheet


def _connection(connection: ConnectionStatus, now_ms: int) -> Text:
    if connection.connected_since_ms is None:
        return Text("none", style="red")
    return Text(figures.duration(max(0, now_ms - connection.connected_since_ms) / 1000), style="green")


def _in_states(states: Counter[SubscriptionState]) -> Text:
    text = ", ".join(f"{states[state]} {state}" for state in SubscriptionState if states[state])
    return Text(text, style="red" if any(states[state] for state in _BAD) else "")


def _delivered(stream: StreamStatus | None) -> tuple[str, str, str]:
    if stream is None:
        return "", "", ""
    return f"{stream.values:,}", figures.took(stream.p50_s), figures.took(stream.p99_s)


def _answers(status: Status) -> Iterator[Text]:
    """Promises that were not kept, by priority."""
    for what, counts in (("late", status.late), ("given up", status.given_up)):
        told = ", ".join(f"{priority.name.lower()} {count:,}" for priority, count in counts.items())
        if what == "late" or any(counts.values()):
            yield Text(f"{what}: {told}", style="yellow" if any(counts.values()) else "")


def _consumers(status: Status) -> Iterator[Text]:
    each = status.consumers
    if each.received:
        yield Text(f"{figures.counted(each.subscribers, 'subscriber')}: {each.received:,} values received")
        yield Text(f"{each.delivered:,} read, {each.conflated:,} conflated, {each.queued:,} waiting")
        yield Text(f"most for one {each.fullest:,}")
        yield Text(f"{each.dropped:,} dropped", style="red" if each.dropped else "")
    told = status.candles
    if told.memory or told.store or told.exchange:
        sources = f"{told.memory:,} markets from memory, {told.store:,} from the database, {told.exchange:,} asked"
        yield Text(f"candles of {sources}")
    if status.bars_amended:
        yield Text(f"{figures.counted(status.bars_amended, 'bar')} amended")


def _queues(status: Status) -> Iterator[Text]:
    for name, queue in status.queues.items():
        if queue.peak:
            room = "" if queue.capacity is None else f" of {queue.capacity:,}"
            yield Text(f"{name}: {queue.depth:,}, at most {queue.peak:,}{room}")


def _store(store: StoreStatus | None) -> Iterator[Text]:
    if store is None:
        return
    path = "database in memory" if store.path == MEMORY else store.path
    yield Text(f"{path}: {figures.counted(store.rows_written, 'bar')} written, {store.rows_amended:,} amended")
    yield Text(f"{store.rows_kept:,} on their way, {figures.counted(store.transactions, 'transaction')}")
    if store.rows_let_go:
        yield Text(f"{store.rows_let_go:,} let go for want of room", style="yellow")
    if store.read_only:
        yield Text(f"read only: {store.why}", style="yellow")
    if store.failures:
        yield Text(f"{store.failures:,} failed: {store.trouble or 'well again'}", style="red" if store.trouble else "")


def _job(job: Progress) -> Iterator[Text]:
    yield Text(f"collecting ({job.state}): {figures.share(job.share)}, {job.done:,} of {job.total:,} slots")
    yield Text(f"{job.bars:,} bars, {job.bars_per_s:,.0f} bars/s, {job.requests_per_s:.1f} requests/s")
    if job.eta_s is not None:
        yield Text(f"{figures.duration(job.eta_s)} left")
    if job.current:
        yield Text(job.current)
    if job.trouble:
        yield Text(job.trouble, style="red")


def _sheet(*columns: str) -> Sheet:
    return Sheet([_column(*column.partition("/")[::2]) for column in columns])


def _column(name: str, rank: str) -> Column:
    return Column(name.removeprefix(">"), "right" if name.startswith(">") else "left", int(rank or 0))
