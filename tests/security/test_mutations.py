"""Damaged messages of every kind in every place: the quick part of ``make fuzz``, which shrinks what it finds."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from fuzz.wire import SEEDS, WORDS, damaged, judge
from hypothesis import given
from hypothesis import strategies as st
from upbit.test_wire_frames import REAL

from marketpipe.errors import BadPayload, ExchangeError
from marketpipe.upbit.wire import decode_frame

pytestmark = pytest.mark.slow


@given(seed=st.sampled_from(SEEDS), number=st.integers(0, 2**32 - 1))
def test_damage_leaves_models_or_what_is_promised(seed, number):
    judge(damaged(seed, random.Random(number)))


@pytest.mark.parametrize("seed", SEEDS[:20])
def test_the_same_message_may_come_anywhere(seed):
    judge(seed)


@pytest.mark.parametrize("word", WORDS, ids=range(len(WORDS)))
def test_any_word_may_stand_in_the_place_of_any_value(word):
    for seed in SEEDS[:8]:
        for value in re.finditer(rb":[^,:{}]+", seed):
            judge(seed[: value.start() + 1] + word + seed[value.end() :])


def test_the_damage_is_of_every_degree():
    """Some of it leaves frames, some of it a flaw of a market, and some of it nothing that could be read."""
    draw, told = random.Random(7), Counter()
    for _ in range(2_000):
        try:
            for frame in decode_frame(damaged(draw.choice(REAL), draw), received_ms=1):
                told["flaw" if isinstance(frame.value, BadPayload) else "frame"] += 1
        except ExchangeError as error:
            told[type(error).__name__] += 1
    assert min(told[each] for each in ("frame", "flaw", "BadPayload")) > 10
