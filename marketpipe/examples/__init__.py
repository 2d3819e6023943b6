"""Programs to begin with: each runs as ``python -m marketpipe.examples.NAME`` and uses the public names alone.

All but the last start an exchange of their own with ``--sim``; without it they ask Upbit Korea, no key needed.

- `seven_rules`: a trading engine that decides on live trades and closed bars, and only writes down what it would order;
  its rules are in `rules`
- `screener`: every market of a currency, sorted by what was traded
- `chart_data`: the past and the running candle without a seam
- `backtest`: a rule over bars that were collected into the database
- `asyncio_program`: the same verbs in a program that runs on asyncio
"""
