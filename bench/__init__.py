"""How fast marketpipe is, measured: ``python -m bench``.

A bench runs its subject and its baseline in turns within one run, so that a busy machine slows both; what it reports is
a median and a ratio. No bench asserts a speed. What a bench does assert is that the answers are right: a value that
is not the market's, a refused request, more requests in a second than the limit, anything lost or doubled on a live
stream or in a database, a page that is asked for although it is stored, or a fault of a stream that is noticed after
more than 5 s, make ``python -m bench`` end with 1.
"""
