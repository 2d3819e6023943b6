"""A month of market in minutes: one pipeline over the simulator in memory, under Trio's mock clock.

Day, week, month and year end, markets are delisted and listed again, connections and requests fail in every way the
simulator knows, the machine sleeps and its clock is set; what consumers were told is held against the market's truth.

::

    python -m bench.endurance --days 30 --seed 7
"""
