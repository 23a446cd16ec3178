"""Units of work: each function loads, decides by `rules` and saves, in one transaction.

A function belongs here if the store runs it as a whole or not at all. It gets a connection and the
moment, and returns the changes that it stored; waking what waits for them is the executor's part.
"""
