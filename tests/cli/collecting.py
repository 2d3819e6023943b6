"""What the tests of the collecting commands share: databases, what the simulator counted, wrong files."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

from cli.forked import Forked

__all__ = [
    "HANG_S",
    "connections",
    "edit",
    "interrupted",
    "lines_of",
    "refused_files",
    "requests",
    "strike",
    "told",
    "until",
]

# Long after anything should have happened; only a hang comes this far.
HANG_S = 60


def lines_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def requests(base_url: str) -> int:
    """Pages of candles that the simulator was asked for."""
    with urlopen(f"{base_url}/sim/stats", timeout=HANG_S) as reply:
        return json.load(reply)["groups"]["candles"]["requests"]


def connections(base_url: str) -> int:
    """Connections that are open, that of this question among them."""
    with urlopen(f"{base_url}/sim/stats", timeout=HANG_S) as reply:
        return json.load(reply)["connections"]["open"]


def strike(base_url: str, **fault: object) -> None:
    body = json.dumps(fault).encode()
    urlopen(Request(f"{base_url}/sim/faults", data=body, method="POST"), timeout=HANG_S).close()


def edit(path: Path, *statements: str) -> None:
    conn = sqlite3.connect(path)
    for statement in statements:
        conn.execute(statement)
    conn.commit()
    conn.close()


def told(done: subprocess.CompletedProcess[str], message: str) -> None:
    """One line on stderr, nothing on stdout, exit code 1."""
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("marketpipe: ")
    assert message in line


def refused_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no database of ours, and what is said of each."""
    text, newer = folder / "text.db", folder / "newer.db"
    text.write_text("this is a shopping list, and it is long enough to be no header of anything\n" * 20)
    other = folder / "other.db"
    edit(other, "CREATE TABLE wine (year INTEGER)")
    truncated = folder / "truncated.db"
    edit(truncated, "CREATE TABLE wine (year INTEGER)", "PRAGMA application_id = 1836082274")
    truncated.write_bytes(truncated.read_bytes()[:5_000])
    edit(newer, "CREATE TABLE wine (year INTEGER)", "PRAGMA application_id = 1836082274", "PRAGMA user_version = 99")
    return {
        "text": (text, "no database, or damaged"),
        "another program's": (other, "database of another program"),
        "truncated": (truncated, "its end is missing"),
        "newer": (newer, "made by a newer marketpipe"),
        "a folder": (folder, "is a folder"),
    }


def until(seen: Callable[[], bool], process: Forked) -> None:
    """Wait for something that other processes do."""
    deadline_s = time.monotonic() + HANG_S
    while not seen():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline_s
        time.sleep(0.01)  # noqa: TID251 - it is another process that we wait for


def interrupted(process: Forked) -> tuple[str, str]:
    """Ctrl-C, and what was written until the end; the exit code is 130 and there is no traceback."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    return out, err
