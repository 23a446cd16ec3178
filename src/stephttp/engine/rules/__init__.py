"""What happens to a run, decided by pure functions: a snapshot and an input in, a change out.

Nothing here does I/O or looks at a clock.
"""
