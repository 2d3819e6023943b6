"""Writing for a reader who takes their time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pytest
import trio
import trio.lowlevel

from marketpipe.cli.outlet import write


@contextmanager
def a_pipe(monkeypatch) -> Iterator[BinaryIO]:
    """Let stdout be a pipe, for the block; where it is read."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stdout, os.fdopen(reading, "rb", buffering=0) as reader, monkeypatch.context() as m:
        m.setattr(sys, "stdout", stdout)
        yield reader


async def test_everything_is_written_however_often_the_pipe_is_full(monkeypatch):
    text, read = "비트코인\n" * 100_000, bytearray()
    with a_pipe(monkeypatch) as reader:

        def drain() -> None:
            while len(read) < len(text.encode()):
                read.extend(reader.read(4096))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, drain)
            await write(text)
    assert read.decode() == text


async def test_what_was_printed_before_comes_before(monkeypatch):
    with a_pipe(monkeypatch) as reader:
        print("first")
        await write("second\n")
        assert reader.read(100) == b"first\nsecond\n"


async def test_who_waits_for_a_reader_can_be_called_away(monkeypatch):
    with a_pipe(monkeypatch) as reader:
        with trio.move_on_after(0.1) as scope:
            await write("x" * 1_000_000)
        assert scope.cancelled_caught
        left = 1_000_000
        while left:  # so that the thread that was left behind comes to its end
            left -= len(reader.read(65_536))


async def test_a_reader_who_has_left_is_told_of(monkeypatch):
    with a_pipe(monkeypatch) as reader:
        reader.close()
        with pytest.raises(BrokenPipeError):
            await write("to nobody\n")
