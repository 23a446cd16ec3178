"""The limits of a server (docs/protocol.md 10)."""

MAX_RETRIES = 20
"""Retries of a step or a run."""

MAX_CHECKPOINT_BYTES = 4 * 1024 * 1024
"""One request of the checkpoint API."""

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""The answer to a re-entry."""
