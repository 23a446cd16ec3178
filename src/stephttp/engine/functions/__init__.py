"""Apps that register functions: what is known of them in memory, and how they are asked for it.

What functions are and what starts them is in `rules.functions`, the transactions are in `work`.
"""
