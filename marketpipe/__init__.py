"""Market data from Upbit for Trio programs: batched, paced inside the exchange's limits, exact to the last decimal."""
