"""What was not installed is asked for in one line, and what is broken is not hidden behind it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from marketpipe.cli.complaints import TOLD
from marketpipe.cli.extras import needs


def test_what_is_missing_is_named_with_the_words_that_install_it():
    with pytest.raises(RuntimeError) as raised, needs("not_there", "plot", "a .png chart"):
        import not_there.inside  # noqa: F401
    assert str(raised.value) == "a .png chart needs not_there: pip install 'marketpipe[plot]'"
    assert isinstance(raised.value, TOLD)


def test_a_module_that_is_there_and_lacks_another_one_says_so_itself():
    with pytest.raises(ModuleNotFoundError, match="not_there"), needs("matplotlib", "plot", "a .png chart"):
        import not_there  # noqa: F401


PROGRAM = """
import json, sys
from decimal import Decimal
from pathlib import Path
sys.modules[sys.argv[1]] = None  # as if it were not installed
from marketpipe.cli.chart import draw
from marketpipe.cli.export import write_parquet
from marketpipe.models import *
one = Decimal(1)
bar = Candle("KRW-BTC", Timeframe.M1, 0, one, one, one, one, one, one, 0, 0, Source.REST, CandleState.FINAL)
path = Path(sys.argv[2])
loaded = sorted({"matplotlib", "plotly", "pyarrow", "numpy"} & {name for name, module in sys.modules.items() if module})
try:
    if path.suffix == ".parquet":
        write_parquet([(bar,)], path)
    else:
        draw(CandleSeries("KRW-BTC", Timeframe.M1, (bar,)), path)
except RuntimeError as error:
    print(json.dumps([loaded, str(error)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("matplotlib", "bars.png", "a .png chart needs matplotlib: pip install 'marketpipe[plot]'"),
        ("plotly", "bars.html", "a .html chart needs plotly: pip install 'marketpipe[plot]'"),
        ("pyarrow", "bars.parquet", "a .parquet file needs pyarrow: pip install 'marketpipe[parquet]'"),
    ],
)
def test_without_its_extra_a_file_is_refused_in_one_line_and_nothing_is_written(tmp_path, module, name, words):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, module, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded, told = json.loads(done.stdout)
    assert told == words
    assert loaded == []  # whoever only imports these modules pays for none of them
    assert list(tmp_path.iterdir()) == []
