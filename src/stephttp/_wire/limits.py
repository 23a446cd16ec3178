"""The limits of a server (docs/protocol.md 10): steps in a run, bytes of state and of events."""

MAX_RETRIES = 20
"""Retries of a step or a run."""

MAX_CHECKPOINT_BYTES = 4 * 1024 * 1024
"""One request of the checkpoint API. The stephttp engine reads more of one that has a body."""

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""The answer to a re-entry."""

MAX_RECORDED_BYTES = 2 * 1024 * 1024
"""A body that is kept with a run that ended without waiting, so that people can look at it."""
