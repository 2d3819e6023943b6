"""How fast marketpipe is, measured: ``python -m bench``.

A bench runs its subject and its baseline in turns within one run, so that a busy machine slows both; what it reports is
a median and a ratio. No bench asserts a time. What a bench does assert is that the answers are right: a value that is
not the market's, a refused request, or more requests in a second than the limit make ``python -m bench`` end with 1.
"""
