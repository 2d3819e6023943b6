"""The batcher over the simulator: few requests, everybody's own answer, never over the limit."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing
from rig import open_rig

from marketpipe import (
    BadPayload,
    Banned,
    Config,
    ExchangeError,
    ExchangeUnavailable,
    Limits,
    Priority,
    RateLimited,
    Retry,
    UnknownMarket,
)
from marketpipe.core.pacing import Slots
from marketpipe.core.requests import (
    CandlesRequest,
    MarketsRequest,
    OrderbooksRequest,
    QuoteTickersRequest,
    TickersRequest,
    TradesRequest,
)
from marketpipe.sim import (
    DnsFault,
    DownFault,
    DropFault,
    EditFault,
    GarbageFault,
    HalfFault,
    HangFault,
    LatencyFault,
    StatusFault,
    WrongTypeFault,
)


def markets_of(requests):
    return [market for request in requests for market in request.markets]


async def listed(rig, count=None):
    return list(await rig.market.get_market())[:count]


async def ask_each(rig, symbols, verb="get_ticker", **options):
    """One task per symbol, all at the same instant; the answers and errors by position."""
    answers = [None] * len(symbols)

    async def one(index, symbol):
        try:
            answers[index] = await getattr(rig.market, verb)(symbol, **options)
        except ExchangeError as error:
            answers[index] = error

    async with trio.open_nursery() as nursery:
        for index, symbol in enumerate(symbols):
            nursery.start_soon(one, index, symbol)
    return answers


async def test_callers_of_one_instant_share_two_requests(autojump_clock):
    """250 independent callers at one instant are two requests, not 250 and not ten."""
    async with open_rig(markets=855) as rig:
        symbols = (await listed(rig, 250))[:250]
        answers = await ask_each(rig, symbols)
        assert [answer.market for answer in answers] == symbols
        assert len(rig.exchange.of(TickersRequest)) + len(rig.exchange.of(QuoteTickersRequest)) <= 2


async def test_identical_questions_in_flight_are_asked_once(autojump_clock):
    """A hundred callers of one symbol are one request, and all of them are answered."""
    async with open_rig() as rig:
        answers = await ask_each(rig, ["KRW-BTC"] * 100)
        assert {answer.price for answer in answers} == {answers[0].price}
        assert markets_of(rig.exchange.of(TickersRequest)) == ["KRW-BTC"]
        assert rig.market.status().joined == 99


async def test_a_question_joins_one_that_is_already_on_its_way(autojump_clock):
    """Who asks while the same request is in flight waits for that one."""
    async with open_rig(latency_s=0.2) as rig:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.market.get_ticker, "KRW-BTC")
            await trio.sleep(0.1)
            await rig.market.get_ticker("KRW-BTC")
        assert markets_of(rig.exchange.of(TickersRequest)) == ["KRW-BTC"]


async def test_most_of_a_quote_currency_is_one_request(autojump_clock):
    """Where most of the rows are wanted, ticker/all is asked instead of chunks."""
    async with open_rig(markets=855) as rig:
        symbols = await listed(rig)
        batch = await rig.market.get_ticker(symbols)
        assert list(batch) == symbols
        assert not batch.failed
        assert [request.quotes for request in rig.exchange.of(QuoteTickersRequest)] == [("BTC", "KRW", "USDT")]
        assert not rig.exchange.of(TickersRequest)


async def test_order_books_travel_by_two_hundred(autojump_clock):
    """All 855 books are five requests."""
    async with open_rig(markets=855) as rig:
        symbols = await listed(rig)
        batch = await rig.market.get_orderbook(symbols)
        assert list(batch) == symbols
        assert [len(request.markets) for request in rig.exchange.of(OrderbooksRequest)] == [171] * 5


@pytest.mark.parametrize("window", ["fixed", "rolling", "first"])
async def test_the_limit_holds_however_the_exchange_counts(autojump_clock, window):
    """Sixty pages at once: none refused, none failed, never more than ten in any second."""
    async with open_rig(window=window) as rig:
        began_s = trio.current_time()
        answers = await ask_each(rig, await listed(rig, 30), "get_candle", count=5)
        answers += await ask_each(rig, await listed(rig, 30), "get_candle", timeframe="5m", count=5)
        assert not [answer for answer in answers if isinstance(answer, Exception)]
        assert rig.refused() == 0
        assert rig.greatest() <= 10
        assert trio.current_time() - began_s <= 5.6


async def test_a_slot_that_another_thread_takes_after_it_was_counted_is_waited_for(autojump_clock, monkeypatch):
    """Budgets are shared between threads, and the other one may be faster."""

    class Raced(Slots):
        lost = 0

        def acquire(self, now_s):
            if Raced.lost < 30:
                Raced.lost += 1
                return None
            return super().acquire(now_s)

    monkeypatch.setattr("marketpipe.sharing.Slots", Raced)
    async with open_rig() as rig:
        assert (await rig.market.get_trade("KRW-BTC", count=2))[0].market == "KRW-BTC"
        assert Raced.lost == 30
        assert rig.market.status().budgets["trade"].sent == len(rig.exchange.of(TradesRequest)) == 1


async def test_groups_do_not_wait_for_each_other(autojump_clock):
    """Three groups of 40 requests each take as long as one of them."""
    async with open_rig() as rig:
        ask, began_s = rig.market, trio.current_time()
        async with trio.open_nursery() as nursery:
            for count in range(1, 41):
                nursery.start_soon(partial(ask.get_candle, "KRW-BTC", count=count))
                nursery.start_soon(partial(ask.get_trade, "KRW-BTC", count=count))
            for _ in range(40):
                await ask.get_orderbook("KRW-BTC", max_age_s=0)
        assert len(rig.exchange.of(CandlesRequest)) == len(rig.exchange.of(TradesRequest)) == 40
        assert len(rig.exchange.of(OrderbooksRequest)) == 40
        assert trio.current_time() - began_s <= 3.6
        assert rig.refused() == 0


class Counting:
    """The way to the exchange, and how many were on it at once; when each was sent, and of which group."""

    def __init__(self, rest):
        self.rest, self.now, self.most, self.sent = rest, 0, 0, []

    async def fetch(self, request):
        self.now += 1
        self.most = max(self.most, self.now)
        self.sent.append((trio.current_time(), request.group))
        try:
            return await self.rest.fetch(request)
        finally:
            self.now -= 1


def watched(rig):
    rig.exchange.rest = Counting(rig.exchange.rest)
    return rig.exchange.rest


async def ask_of_every_group(rig, symbols):
    async with trio.open_nursery() as nursery:
        for verb in ("get_ticker", "get_orderbook"):
            nursery.start_soon(ask_each, rig, symbols, verb)
        for verb in ("get_trade", "get_candle"):
            nursery.start_soon(partial(ask_each, rig, symbols, verb, count=5))


@pytest.mark.parametrize("most", [1, 3])
async def test_no_more_are_in_flight_than_may_be_over_all_groups(autojump_clock, most):
    async with open_rig(Config(limits=Limits(in_flight=most)), latency_s=0.1) as rig:
        symbols, rest = await listed(rig, 8), watched(rig)
        began_s = trio.current_time()
        with trio.fail_after(60):
            await ask_of_every_group(rig, symbols)
        assert rest.most == most
        # Eight of trades, eight of candles and one each of the others: a tenth of a second each, no time in between.
        assert trio.current_time() - began_s == pytest.approx(-(-18 // most) * 0.1, abs=0.02)
        assert len(rest.sent) == 18


async def test_a_bound_on_those_in_flight_does_not_lower_the_rate(autojump_clock):
    async with open_rig(Config(limits=Limits(in_flight=1)), latency_s=0.001) as rig:
        symbols, rest = await listed(rig, 30), watched(rig)
        await ask_each(rig, symbols, "get_trade")
        assert rest.most == 1
        assert rig.greatest() == 10
        assert not rig.refused()


async def test_without_a_bound_every_group_is_asked_at_once(autojump_clock):
    async with open_rig(latency_s=0.1) as rig:
        symbols, rest = await listed(rig, 8), watched(rig)
        await ask_of_every_group(rig, symbols)
        assert rest.most == 18


@pytest.mark.parametrize(("crowded", "other"), [("get_ticker", "get_trade"), ("get_trade", "get_ticker")])
async def test_who_shares_one_way_takes_turns_by_urgency_and_nobody_starves(autojump_clock, crowded, other):
    """There is always one of the crowd waiting; a question of another group waits as long as its priority says."""
    async with open_rig(Config(limits=Limits(in_flight=1)), latency_s=0.3) as rig:
        symbols, waited_s = await listed(rig, 5), {}
        one_page = {"get_trade": {"count": 1}, "get_ticker": {}}

        async def crowd(symbol):
            while True:
                await getattr(rig.market, crowded)(symbol, max_age_s=0, priority=Priority.HIGH, **one_page[crowded])

        async def single(symbol, priority):
            began_s = trio.current_time()
            await getattr(rig.market, other)(symbol, priority=priority, **one_page[other])
            waited_s[priority] = trio.current_time() - began_s

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for symbol in symbols[:3]:
                    nursery.start_soon(crowd, symbol)
                    await trio.sleep(0.1)  # so that they do not travel together
                async with trio.open_nursery() as singles:
                    singles.start_soon(single, symbols[3], Priority.CRITICAL)
                    await trio.sleep(0.35)
                    singles.start_soon(single, symbols[4], Priority.LOW)
                nursery.cancel_scope.cancel()
        assert waited_s[Priority.CRITICAL] <= 4 * 0.3 + 0.01
        assert waited_s[Priority.LOW] <= Priority.LOW.budget_s + 4 * 0.3 + 0.01


async def test_one_that_hangs_or_fails_gives_its_way_free(autojump_clock):
    async with open_rig(Config(limits=Limits(in_flight=1))) as rig:
        symbols, rest = await listed(rig, 4), watched(rig)
        rig.sim.add_fault(HangFault(count=1))
        rig.sim.add_fault(StatusFault(status=503, count=1))
        rig.sim.add_fault(StatusFault(status=429, count=1))
        with trio.fail_after(60):
            answers = await ask_each(rig, symbols, "get_trade")
        assert not [answer for answer in answers if isinstance(answer, ExchangeError)]
        assert rest.most == 1
        assert rig.market.status().requests_in_flight == 0


async def test_an_unknown_symbol_is_never_sent_once_the_list_is_known(autojump_clock):
    """A market that is not listed fails by itself, at once, and costs no request."""
    async with open_rig() as rig:
        await listed(rig)
        requests = len(rig.exchange.requests)
        with pytest.raises(UnknownMarket, match="KRW-NOPE"):
            await rig.market.get_ticker("KRW-NOPE")
        assert len(rig.exchange.requests) == requests


async def test_one_unknown_among_many_fails_alone_even_without_a_list(autojump_clock):
    """The whole batch is answered 404; the list tells the unknown ones, the rest is asked again."""
    async with open_rig(latency_s=0.1) as rig:
        symbols = ["KRW-BTC", "KRW-NOPE", "KRW-ETH", "BTC-NEVER"]
        batch = await rig.market.get_ticker(symbols)
        assert list(batch) == ["KRW-BTC", "KRW-ETH"]
        assert list(batch.failed) == ["KRW-NOPE", "BTC-NEVER"]
        assert all(isinstance(error, UnknownMarket) for error in batch.failed.values())
        assert len(rig.exchange.of(TickersRequest)) == 2


async def test_a_batch_that_the_list_cannot_explain_is_halved(autojump_clock):
    """If a listed market is answered 404, halving isolates it and the others are answered."""
    async with open_rig() as rig:
        symbols = await listed(rig, 16)
        gone = symbols[5]
        fetch = rig.exchange.rest.fetch

        async def fetch_without(request):
            if isinstance(request, TickersRequest) and gone in request.markets:
                raise UnknownMarket(",".join(request.markets))
            return await fetch(request)

        rig.exchange.rest.fetch = fetch_without
        batch = await rig.market.get_ticker([*symbols[:10], "KRW-BTC"])
        assert list(batch.failed) == [gone]
        assert set(batch) == {*symbols[:10], "KRW-BTC"} - {gone}


async def test_a_stale_list_is_read_again_before_a_market_is_called_unknown(autojump_clock):
    """A market that an old list does not name may be new: the list is read again first."""
    async with open_rig(Config(limits=Limits(listing_max_age_s=60))) as rig:
        await listed(rig)
        await trio.sleep(3600)
        with pytest.raises(UnknownMarket):
            await rig.market.get_ticker("KRW-NOPE")
        assert len(rig.exchange.of(MarketsRequest)) == 2
        assert not rig.exchange.of(TickersRequest)


async def test_giving_up_leaves_the_others_alone(autojump_clock):
    """A caller whose deadline passes is forgotten; those who asked with it get their answers."""
    async with open_rig(latency_s=0.3) as rig:
        answers = []

        async def patient(symbol):
            answers.append(await rig.market.get_ticker(symbol))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(patient, "KRW-BTC")
            nursery.start_soon(patient, "KRW-ETH")
            with trio.move_on_after(0.1) as scope:
                await rig.market.get_ticker("KRW-BTC")
        assert scope.cancelled_caught
        assert sorted(answer.market for answer in answers) == ["KRW-BTC", "KRW-ETH"]


async def test_who_gives_up_while_waiting_costs_no_request(autojump_clock):
    """A question nobody waits for any more is dropped from the queue, and its place goes to the next."""
    async with open_rig(latency_s=0.2) as rig:
        symbols = await listed(rig, 40)
        with trio.move_on_after(0.5):
            await ask_each(rig, symbols, "get_candle")
        await trio.sleep(5)
        assert len(rig.exchange.of(CandlesRequest)) == 10


async def test_urgent_questions_overtake(autojump_clock):
    """With a full queue of LOW, a CRITICAL question gets the next slot."""
    async with open_rig() as rig:
        urgent, *others = await listed(rig, 40)
        async with trio.open_nursery() as nursery:
            for symbol in others:
                nursery.start_soon(partial(rig.market.get_candle, symbol, count=3, priority=Priority.LOW))
            await trio.sleep(0.5)
            sent = len(rig.exchange.requests)
            await rig.market.get_candle(urgent, count=3, priority=Priority.CRITICAL)
        later = list(zip(rig.exchange.requests, rig.exchange.times_s, strict=True))[sent:]
        assert len(later) > 20
        assert [at_s for request, at_s in later if request.market == urgent] == [later[0][1]]


async def test_low_priority_is_not_starved(autojump_clock):
    """While 40 callers ask HIGH without end, LOW is answered after its budget and the queue of that time."""
    async with open_rig() as rig:
        symbols = await listed(rig, 40)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:

                async def forever(symbol, timeframe):
                    while True:
                        await rig.market.get_candle(symbol, timeframe, count=3, priority=Priority.HIGH)
                        await trio.sleep(0.25)  # past the fast tier: every round is a request

                for symbol in symbols:
                    nursery.start_soon(forever, symbol, "1m")
                await trio.sleep(3)
                began_s = trio.current_time()
                await rig.market.get_candle("KRW-BTC", "1h", count=3, priority=Priority.LOW)
                nursery.cancel_scope.cancel()
        assert trio.current_time() - began_s <= Priority.LOW.budget_s + 40 / 10 + 1


@pytest.mark.parametrize("refusal", ["text", "json", "empty"])
async def test_refusals_are_waited_out(autojump_clock, refusal):
    """A 429, whatever its body, stops the group for a second and is asked again; the caller sees only the answer."""
    async with open_rig(refusal=refusal) as rig:
        rig.sim.add_fault(StatusFault(status=429, groups=("ticker",), count=2))
        ticker = await rig.market.get_ticker("KRW-BTC")
        assert ticker.market == "KRW-BTC"
        assert trio.current_time() >= 3.0  # one second, then two
        assert rig.market.status().budgets["ticker"].refused == 2


async def test_refused_for_ever_is_rate_limited(autojump_clock):
    """After Retry.refusals attempts the caller gets RateLimited with the time to wait."""
    async with open_rig(Config(retry=Retry(refusals=3)), ban_after=None) as rig:
        rig.sim.add_fault(StatusFault(status=429, groups=("ticker",)))
        with pytest.raises(RateLimited) as caught:
            await rig.market.get_ticker("KRW-BTC")
        assert caught.value.retry_after_s > 0
        assert len(rig.exchange.of(TickersRequest)) == 3


async def test_a_ban_stops_everything_until_it_ends(autojump_clock):
    """418 fails everyone who waits, in every group, and whoever asks during it, without a request."""
    async with open_rig() as rig:
        await listed(rig)
        rig.sim.add_fault(
            StatusFault(status=418, body='{"error":{"name":418,"message":"Try again in 7 seconds"}}', count=1)
        )
        with pytest.raises(Banned) as caught:
            await rig.market.get_ticker("KRW-BTC")
        assert caught.value.until_ms == pytest.approx(rig.clock.now_ms() + 7000, abs=1000)
        requests = len(rig.exchange.requests)
        with pytest.raises(Banned):
            await rig.market.get_orderbook("KRW-BTC")
        assert len(rig.exchange.requests) == requests
        assert rig.market.status().banned_for_s > 0
        await trio.sleep(8)
        assert (await rig.market.get_ticker("KRW-BTC")).market == "KRW-BTC"


async def test_nothing_is_sent_while_banned_not_even_what_was_in_flight(autojump_clock):
    """A request that fails after the ban has come is not tried again; its caller is told of the ban."""
    async with open_rig() as rig:
        await listed(rig)
        rig.sim.add_fault(LatencyFault(latency_s=0.2, groups=("candles", "crix-trades")))
        rig.sim.add_fault(StatusFault(status=503, groups=("candles",), count=1))
        rig.sim.add_fault(StatusFault(status=429, groups=("crix-trades",), count=1))
        rig.sim.add_fault(StatusFault(status=418, body="Try again in 60 seconds", groups=("ticker",), count=1))
        async with trio.open_nursery() as nursery:

            async def told(verb):
                with pytest.raises(Banned):
                    await verb("KRW-BTC")

            nursery.start_soon(told, rig.market.get_candle)
            nursery.start_soon(told, rig.market.get_trade)
            await trio.sleep(0.1)
            nursery.start_soon(told, rig.market.get_ticker)
        requests = len(rig.exchange.requests)
        await trio.sleep(59)
        assert len(rig.exchange.requests) == requests
        await trio.sleep(2)
        assert len(await rig.market.get_candle("KRW-BTC", count=5)) == 5


async def test_a_symbol_of_absurd_length_harms_nobody(autojump_clock):
    """It is refused by itself, also before the list of markets is known."""
    async with open_rig(latency_s=0.2) as rig:
        batch = await rig.market.get_ticker(["KRW-BTC", "KRW-" + "A" * 70_000])
        assert list(batch) == ["KRW-BTC"]
        assert [type(error) for error in batch.failed.values()] == [UnknownMarket]


async def test_two_callers_never_share_an_error(autojump_clock):
    """A raised error collects the traceback of its raiser; each caller has one of its own."""
    async with open_rig() as rig:
        rig.sim.add_fault(GarbageFault(groups=("ticker",), count=1))
        batches = []

        async def one():
            batches.append(await rig.market.get_ticker(["KRW-BTC", "KRW-ETH"]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        errors = [error for batch in batches for error in batch.failed.values()]
        assert len({id(error) for error in errors}) == len(errors) == 4


async def test_a_ban_without_a_time_escalates(autojump_clock):
    """Where the exchange does not say how long, a minute is waited, then two."""
    async with open_rig() as rig:
        rig.sim.add_fault(StatusFault(status=418, body="I'm a teapot", groups=("ticker",), count=2))
        for expected_s in (60, 120):
            with pytest.raises(Banned) as caught:
                await rig.market.get_ticker("KRW-BTC")
            assert caught.value.until_ms == pytest.approx(rig.clock.now_ms() + expected_s * 1000, abs=1000)
            await trio.sleep(expected_s)


NETWORK_FAULTS = [
    StatusFault(status=503, body="<html>maintenance</html>", content_type="text/html", groups=("ticker",)),
    StatusFault(status=500, body="", groups=("ticker",)),
    DropFault(groups=("ticker",)),
    HalfFault(groups=("ticker",)),
    DownFault(groups=("ticker",)),
    DnsFault(groups=("ticker",)),
]


@pytest.mark.parametrize("fault", NETWORK_FAULTS, ids=lambda fault: fault.kind)
async def test_trouble_is_tried_three_times_and_then_named(autojump_clock, fault):
    """5xx and network errors are tried three times; then the caller gets ExchangeUnavailable, and only that one."""
    async with open_rig() as rig:
        rig.sim.add_fault(fault)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.market.get_orderbook, "KRW-BTC")
            with pytest.raises(ExchangeUnavailable):
                await rig.market.get_ticker("KRW-BTC")
        assert len(rig.exchange.of(TickersRequest)) == 3
        rig.sim.clear_faults()
        assert (await rig.market.get_ticker("KRW-BTC")).market == "KRW-BTC"


async def test_attempts_back_off(autojump_clock):
    """The second comes after 0..0.2 s, the third after 0..0.4 s more (here: the middle), for a whole batch at once."""
    async with open_rig() as rig:
        await listed(rig)
        rig.sim.add_fault(StatusFault(status=503, groups=("ticker",)))
        assert len((await rig.market.get_ticker(["KRW-BTC", "KRW-ETH"])).failed) == 2
        first, second, third = rig.exchange.times_s[1:]
        assert second - first == pytest.approx(0.02 + 0.1)
        assert third - second == pytest.approx(0.02 + 0.2)


async def test_rows_that_nobody_asked_for_are_kept_all_the_same(autojump_clock):
    """ticker/all answers for a whole currency: who asks for another market of it at once is answered from memory."""
    async with open_rig(markets=855) as rig:
        symbols = await listed(rig)
        await rig.market.get_ticker(symbols[:600])
        await trio.testing.wait_all_tasks_blocked()
        assert symbols[610].startswith("KRW-")
        assert rig.market.get_ticker_nowait(symbols[610]).market == symbols[610]


async def test_a_passing_trouble_is_not_seen_by_the_caller(autojump_clock):
    """Two failures and a success are a success."""
    async with open_rig() as rig:
        rig.sim.add_fault(StatusFault(status=502, body="bad gateway", groups=("ticker",), count=2))
        assert (await rig.market.get_ticker(["KRW-BTC", "KRW-ETH"])).keys() == {"KRW-BTC", "KRW-ETH"}


@pytest.mark.parametrize(("fault", "noticed_s"), [(HangFault, 1.0), (DropFault, 0.02)])
async def test_a_request_without_an_answer_may_still_arrive(autojump_clock, fault, noticed_s):
    """Silence is bounded; after it, and after a broken connection, the slot rests as long as the request may arrive."""
    config = Config(limits=Limits(per_second=1, read_s=1, abandoned_hold_s=5), retry=Retry(attempts=1))
    async with open_rig(config) as rig:
        await listed(rig)
        began_s = trio.current_time()
        rig.sim.add_fault(fault(groups=("ticker",), count=1))
        with pytest.raises(ExchangeUnavailable):
            await rig.market.get_ticker("KRW-BTC")
        assert trio.current_time() - began_s == pytest.approx(noticed_s, abs=0.01)
        await rig.market.get_ticker("KRW-BTC")
        assert trio.current_time() - began_s >= noticed_s + 5 + 1


async def test_a_mangled_answer_is_a_bad_payload_and_is_not_repeated(autojump_clock):
    """Truncated or nonsense JSON is an error of its own, not a reason to ask again."""
    async with open_rig() as rig:
        rig.sim.add_fault(GarbageFault(groups=("ticker",), count=1))
        with pytest.raises(BadPayload):
            await rig.market.get_ticker("KRW-BTC")
        assert len(rig.exchange.of(TickersRequest)) == 1


async def test_a_wrong_content_type_is_no_harm(autojump_clock):
    """What counts is the body."""
    async with open_rig() as rig:
        rig.sim.add_fault(WrongTypeFault(groups=("ticker",)))
        assert (await rig.market.get_ticker("KRW-BTC")).market == "KRW-BTC"


@pytest.mark.parametrize("lexeme", ['"NaN"', "NaN", "-Infinity", "1e400", "null", "true", '"x"', "-1"])
async def test_a_bad_row_fails_its_market_only(autojump_clock, lexeme):
    """What no price can be in one row is that market's BadPayload; the others of the same answer are served."""
    async with open_rig() as rig:
        rig.sim.add_fault(
            EditFault(groups=("ticker",), change="set", field="trade_price", lexeme=lexeme, market="KRW-ETH")
        )
        batch = await rig.market.get_ticker(["KRW-BTC", "KRW-ETH", "KRW-XRP"])
        assert list(batch) == ["KRW-BTC", "KRW-XRP"]
        assert isinstance(batch.failed["KRW-ETH"], BadPayload)
        assert "KRW-ETH field 'trade_price'" in str(batch.failed["KRW-ETH"])


async def test_a_row_that_ticker_all_lacks_is_asked_by_name(autojump_clock):
    """ticker/all may have no row for a market; it is then asked for alone, and answered."""
    async with open_rig(markets=250) as rig:
        symbols = await listed(rig)
        rig.sim.add_fault(EditFault(groups=("ticker",), change="drop", market="KRW-ETH", count=1))
        batch = await rig.market.get_ticker(symbols)
        assert list(batch) == symbols
        assert markets_of(rig.exchange.of(TickersRequest)) == ["KRW-ETH"]


async def test_a_row_that_is_missing_is_that_markets_failure(autojump_clock):
    """An answer without a row for a market that was asked by name is BadPayload for that market only."""
    async with open_rig() as rig:
        rig.sim.add_fault(EditFault(groups=("ticker",), change="drop", market="KRW-ETH"))
        batch = await rig.market.get_ticker(["KRW-BTC", "KRW-ETH"])
        assert list(batch) == ["KRW-BTC"]
        with pytest.raises(BadPayload, match="KRW-ETH: the answer has no row"):
            batch.raise_for_failed()


async def test_ticker_all_refused_with_404_is_asked_by_name(autojump_clock):
    """If the exchange does not know a quote currency any more, its markets are asked one batch at a time."""
    async with open_rig(markets=250) as rig:
        symbols = await listed(rig)
        rig.sim.add_fault(
            StatusFault(
                status=404, body='{"error":{"name":404,"message":"Code not found"}}', groups=("ticker",), count=1
            )
        )
        batch = await rig.market.get_ticker(symbols)
        assert list(batch) == symbols
        assert len(rig.exchange.of(QuoteTickersRequest)) == 1
        assert sorted(markets_of(rig.exchange.of(TickersRequest))) == symbols


async def test_the_slots_survive_jitter_and_random_refusals(autojump_clock):
    """With delays of 0 to 300 ms and random 429s, still never more than ten in any second; throughput comes back."""
    async with open_rig(jitter_s=0.3, window="rolling", ban_after=None, markets=100) as rig:
        rig.sim.add_fault(StatusFault(status=429, groups=("candles",), probability=0.1, for_s=20))
        symbols = await listed(rig, 60)
        for timeframe in ("1m", "3m", "5m", "10m", "15m"):
            answers = await ask_each(rig, symbols, "get_candle", timeframe=timeframe, count=2)
            assert not [answer for answer in answers if isinstance(answer, Exception)]
        assert rig.greatest() <= 10
        await trio.sleep(max(0.0, 21 - trio.current_time()))
        while rig.market.status().budgets["candle"].ceiling < 10:
            await ask_each(rig, symbols, "get_candle", timeframe="30m", count=2)
            assert trio.current_time() < 180


async def test_latency_is_not_mistaken_for_failure(autojump_clock):
    """A slow exchange is slow, nothing else."""
    async with open_rig() as rig:
        rig.sim.add_fault(LatencyFault(latency_s=3.0))
        assert (await rig.market.get_ticker("KRW-BTC")).market == "KRW-BTC"
        assert len(rig.exchange.of(TickersRequest)) == 1
