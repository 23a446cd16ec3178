"""The protocol core: no I/O, no clock, no randomness, no threads.

Imports the standard library, ``msgspec`` (JSON) and ``stephttp.errors``, nothing else.
"""
