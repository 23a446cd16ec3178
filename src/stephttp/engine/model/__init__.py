"""What the engine knows, as plain values: runs, changes, calls, inputs, settings, time, tokens.

Here belong values and what reads them. What decides is in `rules`, what stores in `store`.
"""
