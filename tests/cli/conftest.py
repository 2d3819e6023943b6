"""The command line as people meet it: a process of its own, against one simulator for all tests of a module."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from cli.forked import Forked, Starter

import marketpipe
from marketpipe.cli import main

# Long after anything should have happened; only a hang comes this far.
HANG_S = 60


class CommandLine:
    """Runs ``marketpipe`` in processes of its own."""

    command = (sys.executable, "-m", "marketpipe")

    def __init__(self, hidden: Path) -> None:
        root = str(Path(marketpipe.__file__).parents[1])
        # sqlite-utils imports pandas wherever it is installed, for a third of the time that a command takes; no command
        # uses it, and most people do not have it.
        (hidden / "pandas.py").write_text('raise ModuleNotFoundError("hidden by the tests", name="pandas")\n')
        # An unbuffered stdout may lose what a broken pipe did not take, and with it the error.
        self.environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{hidden}", "PYTHONUNBUFFERED": ""}

        self.starter = Starter(self.environment)

    def run(self, *args: str, afresh: bool = False) -> subprocess.CompletedProcess[str]:
        """``afresh``: in an interpreter that has imported nothing yet, which takes several times as long."""
        if afresh:
            return subprocess.run(
                [*self.command, *args],
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=HANG_S,
                check=False,
            )
        with self.start(*args) as process:
            out, err = process.communicate(HANG_S)
        return subprocess.CompletedProcess([*self.command, *args], process.returncode, out, err)

    def call(self, *args: str) -> subprocess.CompletedProcess[str]:
        """The same in this process, where a command need not be started first: for one refusal of many kinds."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(args)
        return subprocess.CompletedProcess([*self.command, *args], code, out.getvalue(), err.getvalue())

    @contextmanager
    def start(self, *args: str, afresh: bool = False) -> Iterator[Forked | subprocess.Popen[str]]:
        """In a process group of its own, as a shell would."""
        with self._afresh(args) if afresh else Forked(self.starter, args, self.environment) as process:
            try:
                yield process
            finally:
                process.kill()

    def _afresh(self, args: tuple[str, ...]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*self.command, *args], env=self.environment, stdout=pipe, stderr=pipe, text=True, process_group=0
        )

    @contextmanager
    def simulator(self, *options: str) -> Iterator[str]:
        """The base URL of ``marketpipe sim`` on a free port."""
        with self.start("sim", "--port", "0", *options) as process:
            line = process.stdout.readline()
            assert line.startswith("simulator listening on http://127.0.0.1:"), line
            yield line.split()[-1]


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    commands = CommandLine(tmp_path_factory.mktemp("hidden"))
    yield commands
    commands.starter.close()


@pytest.fixture(scope="module")
def base_url(cli: CommandLine) -> Iterator[str]:
    with cli.simulator("--markets", "40") as url:
        yield url
