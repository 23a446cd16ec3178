"""Plain values: runs, timers, changes, calls, inputs, settings; and time, tokens and CEL.

A value belongs here if two packages of the engine need it. Functions here read values or make them
from text. Decisions about runs belong in `rules`, SQL in `store`.
"""
