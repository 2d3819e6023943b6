"""The actors: each owns one piece of state and talks over memory channels."""
