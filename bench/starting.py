"""What a program pays before its first line: the import, in processes of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter

import trio

import marketpipe
from bench.figures import Figure, Outcome
from bench.scale import Scale
from bench.timing import MILLI

__all__ = ["importing"]

# The last one is what `open_pipeline` needs beyond `import marketpipe`, and imports when it is called.
STATEMENTS = ("pass", "import trio", "import marketpipe", "import marketpipe, marketpipe.upbit.rest")


async def importing(scale: Scale) -> Outcome:
    """A Python process that only imports."""
    samples: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(scale.imports):
        for statement in STATEMENTS:
            samples[statement].append(await _milliseconds(statement))
    return Outcome(
        [
            Figure(
                what=f"python -c '{statement}'",
                unit="ms",
                samples=samples[statement],
                baseline="python -c 'import trio'",
                baseline_samples=samples["import trio"],
            )
            for statement in STATEMENTS
            if statement != "import trio"
        ]
    )


async def _milliseconds(statement: str) -> float:
    root = str(Path(marketpipe.__file__).parents[1])
    began = perf_counter()
    await trio.run_process([sys.executable, "-c", statement], env={**os.environ, "PYTHONPATH": root})
    return (perf_counter() - began) * MILLI
