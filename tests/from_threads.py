"""For tests that ask from threads: waiting without Trio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["HANG_S", "until"]

# A wait that takes longer is a hang.
HANG_S = 20.0


def until(condition: Callable[[], object]) -> None:
    """Look again and again, as a thread may."""
    deadline_s = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.005)
