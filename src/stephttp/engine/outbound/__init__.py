"""Every HTTP request that the engine makes: re-entries, and requests for steps.

What an answer means is decided in `rules`.
"""
