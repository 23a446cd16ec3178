"""Step ids on the wire (PROTOCOL 1.4) and the names of reserved ids."""

from __future__ import annotations

from hashlib import sha1


def hash_step_id(step_id: str, index: int = 0) -> str:
    """The 40 hex digits that stand for a step on the wire.

    Args:
        step_id: the id that the user wrote.
        index: how often the same id was used before in this run; 0 for the first use.
    """
    text = f"{step_id}:{index}" if index else step_id
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


COMPLETE = hash_step_id("complete")
"""Id of the op that ends a run, in every SDK."""

RESERVED = "stephttp:"
"""What ids of our own pseudo-steps begin with."""

CAPSULE_NAME = RESERVED + "request"
CAPSULE = hash_step_id(CAPSULE_NAME)
"""Id of the pseudo-step that remembers what the server does not restore (DESIGN 3.3)."""


class StepCounter:
    """Counts how often each step id was used, so that a step in a loop gets an id a turn."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def next(self, step_id: str) -> int:
        """The index of this use of `step_id`, from 0."""
        index = self._seen.get(step_id, 0)
        self._seen[step_id] = index + 1
        return index
