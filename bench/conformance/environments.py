"""One virtual environment for each set of pins, made when it is first needed and again when the pins change."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

__all__ = ["Client", "NoEnvironment", "clients", "prepare"]

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".venv" / "conformance"


class NoEnvironment(Exception):
    """A client cannot be installed here; the text says why, in one line."""


@attrs.frozen
class Client:
    """``script`` is run in the environment ``environment``, which has ``packages``; ``own`` is what it gets wrong.

    The keys of ``own`` are what it was asked and the field, as in ``candles.trade_price``; ``notes`` are about what it
    is not even asked for.
    """

    name: str
    environment: str
    packages: tuple[str, ...]
    script: Path
    own: Mapping[str, str]
    notes: Sequence[str]


def clients() -> list[Client]:
    """Those of clients.toml."""
    entries: dict[str, dict[str, Any]] = tomllib.loads((HERE / "clients.toml").read_text())
    return [
        Client(
            name,
            entry.get("environment", name),
            tuple(entries[entry.get("environment", name)]["packages"]),
            HERE / "clients" / entry["script"],
            entry.get("own", {}),
            entry.get("notes", ()),
        )
        for name, entry in entries.items()
    ]


async def prepare(client: Client, say: Callable[[str], None]) -> Path:
    """The interpreter of the client's environment. Raises `NoEnvironment`."""
    folder = ENVIRONMENTS / client.environment
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp, pins = folder / ".installed", "\n".join(client.packages)
    if stamp.exists() and stamp.read_text() == pins:
        return python
    say(f"making an environment for {', '.join(client.packages)}")
    await _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    say(f"installing {', '.join(client.packages)}")
    await _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *client.packages])
    stamp.write_text(pins)
    return python


async def _run(command: list[str]) -> None:
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
        why = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "it said nothing")
        raise NoEnvironment(f"cannot be installed (is there a network, or an index?): {why.strip()}")
