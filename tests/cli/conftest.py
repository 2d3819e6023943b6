"""The command line as people meet it: a process of its own, against one simulator for all tests of a module."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import marketpipe

# Long after anything should have happened; only a hang comes this far.
HANG_S = 60


class CommandLine:
    """Runs ``marketpipe`` in processes of its own."""

    command = (sys.executable, "-m", "marketpipe")

    def __init__(self) -> None:
        root = str(Path(marketpipe.__file__).parents[1])
        # An unbuffered stdout may lose what a broken pipe did not take, and with it the error.
        self.environment = {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": ""}

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *args], env=self.environment, capture_output=True, text=True, timeout=HANG_S, check=False
        )

    @contextmanager
    def start(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """In a process group of its own, as a shell would."""
        with subprocess.Popen(
            [*self.command, *args],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def simulator(self, *options: str) -> Iterator[str]:
        """The base URL of ``marketpipe sim`` on a free port."""
        with self.start("sim", "--port", "0", *options) as process:
            line = process.stdout.readline()
            assert line.startswith("simulator listening on http://127.0.0.1:"), line
            yield line.split()[-1]


@pytest.fixture(scope="session")
def cli() -> CommandLine:
    return CommandLine()


@pytest.fixture(scope="module")
def base_url(cli: CommandLine) -> Iterator[str]:
    with cli.simulator("--markets", "40") as url:
        yield url
