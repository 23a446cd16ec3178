"""Decides what happens to a run, in pure functions: from a snapshot and an input to a `Change`.

Rules of runs belong here, and reading what endpoints, SDKs and senders of events send. I/O, SQL and
clocks do not: the time and randomness are arguments (`Moment`).
"""
