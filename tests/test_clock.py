"""Epoch time comes from one module, and in tests moves with Trio's clock."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import MockClock

from marketpipe.clock import Clock, SystemClock, TrioClock


def test_the_system_clock_is_the_machine_s_in_whole_milliseconds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_790_121_600_123_999_999)
    assert SystemClock().now_ms() == 1_790_121_600_123


async def test_an_hour_of_trio_s_clock_is_an_hour_of_the_epoch(autojump_clock: MockClock):
    clock = TrioClock(1_790_121_600_000)
    began_ms, began_s = clock.now_ms(), trio.current_time()
    assert began_ms == 1_790_121_600_000 + int(began_s * 1000)
    await trio.sleep(3600)
    assert clock.now_ms() - began_ms == pytest.approx((trio.current_time() - began_s) * 1000, abs=1) == 3_600_000


async def test_a_clock_that_stands_still_says_the_same_twice(mock_clock: MockClock):
    clock = TrioClock(5)
    assert clock.now_ms() == clock.now_ms()
    mock_clock.jump(0.25)
    assert clock.now_ms() == 5 + 250


def test_both_are_clocks():
    clocks: list[Clock] = [SystemClock(), TrioClock(0)]
    assert clocks
