"""The edge: the only package that knows the exchange."""
