"""Pure policy: no I/O, no clock, no Trio. ``now`` is always a parameter."""
