"""Who may travel, who is refused, and who waits for a newer list."""

from __future__ import annotations

import math

import attrs
import pytest

from marketpipe.core.admission import Admission, unknown_market
from marketpipe.core.batching import Lot, Wanted
from marketpipe.core.listing import Verdict
from marketpipe.core.requests import Group, MarketsRequest, TickersRequest
from marketpipe.core.waiting import Pending


@attrs.define(eq=False)
class Somebody:
    def is_waiting(self) -> bool:
        return True


def key(market):
    return Wanted(Group.TICKER, market)


def pending(market):
    made = Pending(key(market), 0.0)
    made.join(Somebody(), 0.0)
    return made


def admission(*markets, asked_s=100.0):
    made = Admission(10.0)
    if markets:
        made.learn(markets, asked_s)
    return made


def test_before_the_first_list_everybody_may_go_who_could_be_a_market():
    """Asking is the fastest way to find out."""
    nothing_known = admission()
    assert nothing_known.verdict(key("KRW-NOPE"), 100.0) is Verdict.LISTED
    assert nothing_known.verdict(key("not a market"), 100.0) is Verdict.UNLISTED
    assert nothing_known.verdict(key("KRW-" + "A" * 21), 100.0) is Verdict.UNLISTED
    assert nothing_known.verdict(MarketsRequest(), 100.0) is Verdict.LISTED
    assert not nothing_known.has_recent_list(100.0)


@pytest.mark.parametrize(
    ("age_s", "verdict"), [(0.0, Verdict.UNLISTED), (10.0, Verdict.UNLISTED), (10.1, Verdict.UNSURE)]
)
def test_a_recent_list_refuses_an_old_one_only_doubts(age_s, verdict):
    """A market that is named may go, however old the list."""
    made = admission("KRW-BTC")
    assert made.verdict(key("KRW-NOPE"), 100.0 + age_s) is verdict
    assert made.verdict(key("KRW-BTC"), 100.0 + age_s) is Verdict.LISTED
    assert made.has_recent_list(100.0 + age_s) is (verdict is Verdict.UNLISTED)


def sifted(made, *markets):
    members = [pending(market) for market in markets]
    made.sift(Lot(TickersRequest(markets), tuple(member.key for member in members)), members)
    return members


def test_a_failed_batch_goes_on_together_once_the_culprit_is_known():
    """Whoever the list does not name is let go to be refused, the others need no halves."""
    made = admission("KRW-A", "KRW-B", "KRW-C")
    members = sifted(made, "KRW-A", "KRW-B", "KRW-NOPE", "KRW-C")
    assert made.held(Group.TICKER) == 4
    assert made.held(Group.ORDERBOOK) == 0
    unlisted, going = made.release(since_s=0.0)
    assert [each.key.market for each in unlisted] == ["KRW-NOPE"]
    assert going == [members[0], members[1], members[3]]
    assert {each.lot for each in going} == {0}
    assert made.held(Group.TICKER) == 0


def test_a_failed_batch_that_the_list_clears_goes_on_in_halves():
    """Two lots, each by itself."""
    made = admission("KRW-A", "KRW-B", "KRW-C")
    members = sifted(made, "KRW-A", "KRW-B", "KRW-C")
    assert made.release(since_s=0.0) == ([], members)
    assert [each.lot for each in members] == [1, 1, 2]


def test_without_a_list_to_judge_by_everybody_goes():
    """If the list could not be read, the answers will tell."""
    made = admission("KRW-A", asked_s=1.0)
    doubtful = pending("KRW-NOPE")
    made.hold(doubtful)
    assert made.release(since_s=math.inf) == ([], [doubtful])


def test_clearing_lets_go_of_everybody_unjudged():
    """As when the exchange has blocked us."""
    made = admission("KRW-A")
    members = sifted(made, "KRW-A", "KRW-NOPE")
    assert made.clear() == members
    assert made.clear() == []


def test_the_refusal_names_what_was_asked():
    """And says what a market code looks like, if it is none."""
    assert "'KRW-NOPE'" in str(unknown_market(key("KRW-NOPE")))
    assert "looks like KRW-BTC" in str(unknown_market(key("KRW BTC")))
    assert len(str(unknown_market(key("A" * 70_000)))) < 120


def test_what_is_listed_is_known_by_quote_currency():
    """For the choice between names and whole currencies."""
    assert admission("KRW-A", "KRW-B", "BTC-A").listed_by_quote == {"KRW": {"KRW-A", "KRW-B"}, "BTC": {"BTC-A"}}
