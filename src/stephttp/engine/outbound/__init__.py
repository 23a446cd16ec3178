"""Every HTTP request that the engine makes: re-entries, and requests for steps.

Building and sending requests belongs here, and where they may go (`egress`). The meaning of answers
belongs in `rules`.
"""
