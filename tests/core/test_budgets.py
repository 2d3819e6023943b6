"""Whoever shares a budget hears of changes."""

from __future__ import annotations

from marketpipe.core.budgets import Budgets
from marketpipe.core.pacing import Slots
from marketpipe.core.requests import Group


def budgets(**options):
    return Budgets({group: Slots(10) for group in Group}, Slots(5), **options)


def test_everybody_who_shares_a_budget_hears_of_changes():
    """One pipeline's answer may be another's slot."""
    heard = []
    shared = budgets()
    shared.listeners += [lambda: heard.append(1), lambda: heard.append(2)]
    shared.changed()
    assert heard == [1, 2]


def test_a_change_is_told_to_other_runs_and_one_of_theirs_is_not_told_back():
    heard = []
    shared = budgets(elsewhere=lambda: heard.append("there"))
    shared.listeners.append(lambda: heard.append("here"))
    shared.changed()
    assert heard == ["here", "there"]
    shared.hear()
    assert heard == ["here", "there", "here"]


def test_a_listener_may_leave_when_it_is_told():
    """As one does that waited for its turn."""
    heard = []
    shared = budgets()

    def once():
        heard.append("once")
        shared.listeners.remove(once)

    shared.listeners += [once, lambda: heard.append("always")]
    shared.changed()
    shared.changed()
    assert heard == ["once", "always", "always"]
