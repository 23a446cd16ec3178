"""The SQLite file: its connections, its tables, and what is written to them and read.

One thread writes. Nothing here decides what happens to a run.
"""
