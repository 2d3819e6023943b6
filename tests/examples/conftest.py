"""The examples as people run them: processes of their own, against one simulator."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import marketpipe

SIMULATOR = [
    sys.executable,
    "-m",
    "marketpipe.sim",
    "--port=0",
    "--markets=40",
    "--latency-ms=10",
    "--leave-with-stdin",
]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The package that is tested is the one that is run, also from a checkout that is not installed."""
    return {**os.environ, "PYTHONPATH": str(Path(marketpipe.__file__).parents[1])}


@pytest.fixture(scope="module")
def base_url(environment: dict[str, str]) -> Iterator[str]:
    with subprocess.Popen(
        SIMULATOR, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("simulator listening on http://127.0.0.1:"), line
            yield line.split()[-1]
        finally:
            process.kill()
