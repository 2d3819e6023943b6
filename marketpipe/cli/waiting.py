"""What an asking command is waiting for, in a few words."""

from __future__ import annotations

from math import ceil

from marketpipe import Status

__all__ = ["waiting_for"]


def waiting_for(status: Status) -> str:
    """What keeps the answer: a block, a refusal, the limit, or just the exchange; and how far we are.

    What matters comes first: on a narrow terminal, the end is cut.
    """
    if status.banned_for_s > 0:
        return f"next try in {ceil(status.banned_for_s)} s, blocked by the exchange (418)"
    refused_s = max((group.blocked_s for group in status.budgets.values() if group.refused), default=0.0)
    if refused_s > 0:
        return f"next try in {ceil(refused_s)} s, refused by the exchange (429)"
    return f"waiting for the exchange{_progress(status)}"


def _progress(status: Status) -> str:
    answered, queued = status.requests - status.requests_in_flight, sum(status.waiting.values())
    done = f", {answered} answered" if answered else ""
    return done + (f", {queued} queued" if queued else "")
