"""The checkpoint API: its requests and answers, and the ways in which they are carried.

Nothing here knows of handlers or of the life of a run.
"""
