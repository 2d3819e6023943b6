"""Hypothesis: quick at the desk, the same examples every time in CI, a long search at night (HYPOTHESIS_PROFILE).

And what lets some thousands of tests in two processes end sooner.
"""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# What a shell starts in the background ignores Ctrl-C, and so does what that starts: tests that press it would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=200, derandomize=True)
settings.register_profile("nightly", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# What takes longest begins first, so that the workers end together. The second and the fourth wait for most of the time
# and leave the processors to the first, which does not.
HERE = Path(__file__).parent
LONGEST = [
    HERE / name
    for name in (
        "test_bench.py",
        "cli/test_backfill.py",
        "test_soak.py",
        "cli/test_watch.py",
        "sim/test_judges.py",
        "sim/test_ws_judges.py",
        "examples/test_examples.py",
        "test_collecting_together.py",
        "test_collected.py",
        "test_collecting.py",
        "examples/test_seven_rules.py",
        "test_stream_faults.py",
        "actors/test_backfill.py",
        "test_streams.py",
        "test_stream_cancellation.py",
        "core/test_planning.py",
        "upbit/test_wire.py",
        "sim/test_streams.py",
        "core/test_trades_machine.py",
        "test_kills.py",
    )
]
assert all(path.exists() for path in LONGEST), LONGEST


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--no-loadscope-reorder`` the workers take the files in this order."""
    rank = {path: place for place, path in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish() -> None:
    """The tests themselves are three quarters of a million objects that last: no collection need look at them."""
    gc.collect()
    gc.freeze()
