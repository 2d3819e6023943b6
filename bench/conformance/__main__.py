"""``python -m bench.conformance [CLIENT ...]``: what third-party clients make of the simulator, beside what is true.

Each runs its script in its own environment against a simulator of its own, as its documentation advises, and tells what
it saw. Ends with 1 if anything disagrees that is not the client's own, or if a client could not be asked.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import trio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.conformance.environments import Client, NoEnvironment, clients, prepare
from bench.conformance.truth import Finding, compare, values_in
from marketpipe.sim import SpawnedSimulator, World, spawn_simulator

MARKETS = 30
# A busy one, two middling ones, and two that trade against other coins.
CODES = ("KRW-BTC", "KRW-ETH", "KRW-XRP", "BTC-ETH", "USDT-BTC")
PATIENCE_S = 150.0


@attrs.define
class Verdict:
    """What became of everything of one kind that one client was asked."""

    client: str
    what: str
    answers: int = 0
    values: int = 0
    wrong: dict[str, str] = attrs.field(factory=dict)
    own: dict[str, str] = attrs.field(factory=dict)

    def add(self, client: Client, line: dict[str, Any], findings: Sequence[Finding]) -> None:
        self.answers += 1
        self.values += values_in(line["saw"])
        for finding in findings:
            why = client.own.get(f"{line['what']}.{finding.field}")
            if why is not None:
                self.own[finding.field] = why
            else:
                self.wrong[finding.field] = f"{line['market']} {line.get('kind', '')}: {finding.text}"

    @property
    def text(self) -> Text:
        parts = [Text(f"DISAGREES  {text}", style="bold red") for text in self.wrong.values()]
        parts += [Text(f"client's own: {text}", style="yellow") for text in self.own.values()]
        return Text("\n").join(parts) if parts else Text("agrees", style="green")


async def main(names: Sequence[str]) -> int:
    """Ask the clients called ``names``, or all of them."""
    console = Console()
    known = clients()
    unknown = set(names) - {client.name for client in known}
    if unknown:
        console.print(f"no such client: {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in known)}")
        return 2
    verdicts: list[Verdict] = []
    failures: list[str] = []
    asked = [client for client in known if not names or client.name in names]
    for client in asked:
        with console.status(client.name) as status:
            try:
                lines, sim = await _ask(client, lambda text, name=client.name: status.update(f"{name}: {text}"))
                status.update(f"{client.name}: comparing")
                verdicts += _judge(client, sim.world, lines)
                console.print(f"{client.name}: {len(lines)} answers")
            except (NoEnvironment, _Broken) as error:
                failures.append(f"{client.name}: {error}")
                console.print(Text(failures[-1], style="bold red"))
    if verdicts:
        console.print(_table(verdicts))
    for client in asked:
        for note in client.notes:
            console.print(Text(f"{client.name}, not asked: {note}", style="yellow"))
    wrong = sum(bool(verdict.wrong) for verdict in verdicts)
    console.print(f"{len(verdicts)} comparisons, {wrong} disagree, {len(failures)} clients not asked")
    return 1 if wrong or failures else 0


class _Broken(Exception):
    """A client's script did not come to its end; the text says how it ended."""


async def _ask(client: Client, say: Any) -> tuple[list[dict[str, Any]], SpawnedSimulator]:
    python = await prepare(client, say)
    async with spawn_simulator(markets=MARKETS) as sim:
        say("asking")
        return await _tell(python, client.script, sim), sim


async def _tell(python: Path, script: Path, sim: SpawnedSimulator) -> list[dict[str, Any]]:
    command = [str(python), "-W", "ignore", str(script), sim.base_url, sim.ws_url, *CODES]
    # Some write a log wherever they are started.
    folder = python.parents[1]
    environment = {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
    with trio.move_on_after(PATIENCE_S):
        # None of our modules is theirs.
        environment.pop("PYTHONPATH", None)
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, env=environment, cwd=folder
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise _Broken(f"ended with {done.returncode}: {said[-1] if said else 'without a word'}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    raise _Broken(f"had not ended after {PATIENCE_S:.0f} s")


def _judge(client: Client, world: World, lines: Sequence[dict[str, Any]]) -> list[Verdict]:
    verdicts: dict[str, Verdict] = {}
    for line in lines:
        what = f"stream {line['stream']}" if line["what"] == "frames" else line["what"]
        verdict = verdicts.setdefault(what, Verdict(client.name, what))
        verdict.add(client, line, compare(world, line))
    return list(verdicts.values())


def _table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("client", "what"):
        table.add_column(column, no_wrap=True)
    for column in ("answers", "values"):
        table.add_column(column, justify="right")
    table.add_column("verdict", overflow="fold")
    for verdict in verdicts:
        table.add_row(verdict.client, verdict.what, str(verdict.answers), str(verdict.values), verdict.text)
    return table


if __name__ == "__main__":
    sys.exit(trio.run(main, sys.argv[1:]))
