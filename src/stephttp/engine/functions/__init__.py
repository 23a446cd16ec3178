"""Apps that register functions: what is known of them in memory, and how they are asked for it.

The rules of functions are in `rules.functions`, their transactions in `work.registered_functions`.
"""
