"""Rules of functions: what is registered, what starts them, how they are called and answer. Pure.

The rules of endpoints are in `rules` itself; runs of functions follow those from there on.
"""
