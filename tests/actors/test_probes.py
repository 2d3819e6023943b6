"""Asking REST about a silence: what is asked, what counts as a stall, and what as no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from paper_streams import EPOCH_MS, Rest, asking, moments, news, now_ms

from marketpipe.actors.probes import Probe
from marketpipe.core.batching import Wanted
from marketpipe.core.requests import Group
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import BadPayload, ExchangeUnavailable, UnknownMarket

BTC, ETH = "KRW-BTC", "KRW-ETH"


@attrs.define(eq=False)
class Bench:
    """A probe of ``line`` at second 100. ``shown``: what the stream has shown, by market."""

    line: Line
    rest: Rest
    probe: Probe
    gone: list[Topic]
    shown: dict[str, int] = attrs.field(factory=dict)

    def topics(self, *markets: str) -> list[Topic]:
        return [Topic(self.line, market, Timeframe.M1 if self.line is Line.CANDLE else None) for market in markets]

    async def stalled(self, *markets: str, heard_ms: Callable[[], int] | None = None) -> list[str]:
        found = await self.probe.stalled(
            self.topics(*markets), lambda topic: self.shown.get(topic.market), now_ms(), heard_ms
        )
        return [topic.market for topic in found]


@asynccontextmanager
async def probing(line: Line = Line.TRADE, rest: Rest | None = None) -> AsyncIterator[Bench]:
    rest, gone = rest or Rest(), []
    async with asking(rest) as asker:
        await trio.sleep_until(100)
        yield Bench(line, rest, Probe(line, asker, 1.5, lambda topic, error: gone.append(topic)), gone)


def ago(seconds: float) -> int:
    return EPOCH_MS + round((100 - seconds) * 1000)


@pytest.mark.parametrize(
    ("line", "group"),
    [
        (Line.TICKER, Group.TICKER),
        (Line.TRADE, Group.TICKER),
        (Line.CANDLE, Group.TICKER),
        (Line.ORDERBOOK, Group.ORDERBOOK),
    ],
)
async def test_one_question_tells_of_all_markets(autojump_clock, line, group):
    """A ticker says when a market last traded, also for trades and bars."""
    async with probing(line) as bench:
        bench.shown = {BTC: ago(3), ETH: ago(3)}
        assert await bench.stalled(BTC, ETH) == []
        assert [key for _, key in bench.rest.asked] == [Wanted(group, BTC), Wanted(group, ETH)]


async def test_two_timeframes_of_a_market_are_one_question(autojump_clock):
    async with probing(Line.CANDLE, Rest(moments({BTC: ago(9)}))) as bench:
        topics = [Topic(Line.CANDLE, BTC, timeframe) for timeframe in (Timeframe.M1, Timeframe.M5)]
        assert await bench.probe.stalled(topics, lambda topic: None, now_ms()) == topics
        assert len(bench.rest.asked) == 1


@pytest.mark.parametrize(
    ("shown_s", "stalled"),
    [
        pytest.param(9.0, [], id="shown"),
        pytest.param(9.001, [BTC], id="something newer was kept back"),
        pytest.param(None, [BTC], id="nothing was shown at all"),
    ],
)
async def test_a_stall_is_news_that_the_stream_has_not_shown(autojump_clock, shown_s, stalled):
    async with probing(rest=Rest(moments({BTC: ago(9), ETH: ago(5)}))) as bench:
        bench.shown = {ETH: ago(5)} | ({} if shown_s is None else {BTC: ago(shown_s)})
        assert await bench.stalled(BTC, ETH) == stalled
        assert trio.current_time() == pytest.approx(100.02)


async def test_a_ticker_that_was_only_refreshed_is_no_news(autojump_clock):
    """What counts is when it last traded."""

    async with probing(rest=Rest(lambda key: attrs.evolve(news(key, ago(9)), exchange_ms=ago(2)))) as bench:
        bench.shown = {BTC: ago(9)}
        assert await bench.stalled(BTC) == []


@pytest.mark.parametrize(("line", "slack_s"), [(Line.TRADE, 1.0), (Line.ORDERBOOK, 1.0), (Line.CANDLE, 2.5)])
async def test_fresh_news_have_as_long_as_they_may_take(autojump_clock, line, slack_s):
    async with probing(line, Rest(lambda key: news(key, ago(0.1)))) as bench:
        bench.shown = {BTC: ago(3)}
        assert await bench.stalled(BTC) == [BTC]
        assert slack_s - 0.11 <= trio.current_time() - 100.02 <= slack_s + 0.01


async def test_news_of_whatever_date_are_overdue_when_they_could_have_come_since_rest_has_shown_them(autojump_clock):
    """The exchange's time may be known badly: what REST has shown was made by then."""
    async with probing(rest=Rest(lambda key: news(key, ago(-60)))) as bench:
        bench.shown = {BTC: ago(3)}
        assert await bench.stalled(BTC) == [BTC]
        assert 1.0 <= trio.current_time() - 100.02 <= 1.11


async def test_a_line_that_flows_late_is_not_taken_for_stalled(autojump_clock):
    """It has shown nothing that is as new as that, of any market; another look will tell."""
    async with probing(rest=Rest(moments({BTC: ago(5)}))) as bench:
        bench.shown = {BTC: ago(20)}
        late_ms = lambda: ago(10) + round((trio.current_time() - 100) * 1000)  # noqa: E731
        assert await bench.stalled(BTC, heard_ms=late_ms) == []
        assert trio.current_time() == pytest.approx(102.02, abs=0.11)


async def test_a_line_that_has_ceased_to_flow_is_not_waited_for(autojump_clock):
    """It is silent as a whole then, which is looked into by itself, and soon."""
    async with probing(rest=Rest(moments({BTC: ago(0.1)}))) as bench:
        bench.shown = {BTC: ago(20)}
        assert await bench.stalled(BTC, heard_ms=lambda: ago(0.5)) == []
        assert trio.current_time() == pytest.approx(101.02, abs=0.11)


async def test_a_market_that_is_kept_back_on_a_line_that_flows_late_is_found_in_time(autojump_clock):
    """As soon as the line has shown something else that is newer by the slack."""
    async with probing(rest=Rest(moments({BTC: ago(5)}))) as bench:
        bench.shown = {BTC: ago(20)}
        assert await bench.stalled(BTC, heard_ms=lambda: ago(5.5) + round((trio.current_time() - 100) * 1000)) == [BTC]
        assert 101.5 <= trio.current_time() <= 101.7


async def test_stamps_of_the_future_do_not_make_a_line_look_ahead(autojump_clock):
    """A clock that runs ahead would make everything overdue that REST has just shown."""
    async with probing(rest=Rest(moments({BTC: ago(0.1)}))) as bench:
        bench.shown = {BTC: ago(3)}

        async def arrive() -> None:
            await trio.sleep(0.5)
            bench.shown[BTC] = ago(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrive)
            assert await bench.stalled(BTC, heard_ms=lambda: ago(-3600)) == []


async def test_news_that_come_meanwhile_are_no_stall(autojump_clock):
    async with probing(rest=Rest(lambda key: news(key, ago(0.1)))) as bench:
        bench.shown = {BTC: ago(3), ETH: ago(0.1)}

        async def arrive() -> None:
            await trio.sleep(0.5)
            bench.shown[BTC] = ago(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrive)
            assert await bench.stalled(BTC, ETH) == []
        assert trio.current_time() <= 100.65


async def test_a_market_that_is_overdue_is_told_without_waiting_for_the_others(autojump_clock):
    async with probing(rest=Rest(moments({BTC: ago(0.1), ETH: ago(2)}))) as bench:
        assert await bench.stalled(BTC, ETH) == [ETH]
        assert trio.current_time() == pytest.approx(100.02)


async def test_no_answer_in_time_is_no_good_answer(autojump_clock):
    async with probing(rest=Rest(deaf=True)) as bench:
        with pytest.raises(ExchangeUnavailable, match=r"REST does not answer within 1.5 s either"):
            await bench.stalled(BTC)
        assert trio.current_time() == 101.5
        with pytest.raises(ExchangeUnavailable, match="does not answer"):
            await bench.probe.known(bench.topics(BTC))


async def test_an_answer_about_some_is_an_answer(autojump_clock):
    def answer(key):
        if key.market == BTC:
            raise ExchangeUnavailable("HTTP 503", status=503)
        return news(key, ago(9))

    async with probing(rest=Rest(answer)) as bench:
        assert await bench.stalled(BTC, ETH) == [ETH]
        assert await bench.probe.known(bench.topics(BTC, ETH)) == {bench.topics(ETH)[0]: True}
        with pytest.raises(ExchangeUnavailable, match="REST does not know better: HTTP 503"):
            await bench.stalled(BTC)


async def test_what_cannot_be_read_vouches_for_nothing(autojump_clock):
    async with probing(rest=Rest(moments({BTC: None, ETH: ago(9)}))) as bench:
        bench.shown = {ETH: ago(9)}
        assert await bench.stalled(BTC, ETH) == []
        with pytest.raises(ExchangeUnavailable, match="REST cannot be read: KRW-BTC: the answer has no row"):
            await bench.stalled(BTC)

        def garbage(key):
            raise BadPayload("no JSON")

        bench.rest.answer = garbage
        with pytest.raises(ExchangeUnavailable, match="REST does not know better: no JSON"):
            await bench.stalled(BTC)


async def test_whether_there_is_anything_to_show_is_told_of_each(autojump_clock):
    async with probing(rest=Rest(moments({BTC: None, ETH: ago(9)}))) as bench:
        btc, eth = bench.topics(BTC, ETH)
        assert await bench.probe.known([btc, eth]) == {btc: False, eth: True}


async def test_a_market_that_two_lists_lack_is_told_as_gone(autojump_clock):
    """One may lack it by mistake, and the list that is asked may be that old."""
    async with probing(rest=Rest(moments({ETH: ago(9)}))) as bench:
        btc, eth = bench.topics(BTC, ETH)
        bench.shown = {ETH: ago(9)}
        assert await bench.stalled(BTC, ETH) == []
        await trio.sleep(14.9)
        assert await bench.probe.known([btc, eth]) == {eth: True}
        assert bench.gone == []
        await trio.sleep(0.2)
        assert await bench.stalled(BTC, ETH) == []
        assert bench.gone == [btc]


async def test_each_market_is_missing_since_its_own_first_list(autojump_clock):
    async with probing(rest=Rest(moments({ETH: ago(9)}))) as bench:
        btc, eth = bench.topics(BTC, ETH)
        await bench.probe.known([btc, eth])
        await trio.sleep(10)
        bench.rest.answer = moments({})
        await bench.probe.known([eth])
        await trio.sleep(6)
        await bench.probe.known([btc, eth])
        assert bench.gone == [btc]
        await trio.sleep(10)
        await bench.probe.known([eth])
        assert bench.gone == [btc, eth]


async def test_a_market_without_a_row_is_listed(autojump_clock):
    async with probing(rest=Rest(moments({}))) as bench:
        for answer in (moments({}), moments({BTC: None}), moments({})):
            bench.rest.answer = answer
            await bench.probe.known(bench.topics(BTC))
            await trio.sleep(10)
        assert bench.gone == []


async def test_a_market_that_is_listed_again_was_not_gone(autojump_clock):
    async with probing(rest=Rest(moments({}))) as bench:
        for answer in (moments({}), moments({BTC: ago(9)}), moments({})):
            bench.rest.answer = answer
            await bench.probe.known(bench.topics(BTC))
            await trio.sleep(10)
        assert bench.gone == []


async def test_that_all_are_gone_is_an_answer(autojump_clock):
    async with probing(rest=Rest(moments({}))) as bench:
        assert await bench.stalled(BTC, ETH) == []
        await trio.sleep(15)
        assert await bench.probe.known(bench.topics(BTC)) == {}
        assert [topic.market for topic in bench.gone] == [BTC]


async def test_why_a_market_is_gone_is_handed_on(autojump_clock):
    told: list[UnknownMarket] = []
    async with asking(Rest(moments({}))) as asker:
        probe = Probe(Line.TRADE, asker, 1.5, lambda topic, error: told.append(error))
        for _ in range(2):
            await probe.known([Topic(Line.TRADE, BTC)])
            await trio.sleep(15)
    assert told[0].market == BTC
