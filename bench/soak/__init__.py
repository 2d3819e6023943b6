"""The pipeline for a long time, against everything that can go wrong: ``python -m bench.soak --hours 1``.

Three processes: the judge (this one: progress, samples, verdict), the simulated exchange, and the subject: a pipeline
under the load of a whole trading desk. The judge knows what the market really was, since the same seed gives the same
market in any process, and holds every trade, bar and stored row against it while the run goes on.
"""
