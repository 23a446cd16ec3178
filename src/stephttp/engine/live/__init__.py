"""State that the engine holds in memory only: listeners, channels, and the rate limit.

It is used in the event loop, and nothing of it outlives the process. State that must survive a
restart belongs in `store`.
"""
