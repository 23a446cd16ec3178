"""How many steps a run may have, and how large its state may be: when it fails of that. Pure."""

from __future__ import annotations

from stephttp.engine.model.refused import Refused


class RunFull(Refused):
    """A run has as many steps, or as large a state, as it may have, and fails.

    Attributes:
        name: of the run's error.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def state_full(step: str, memo: bytes, size: int, most: int) -> str:
    """Return why the state of a run has no room for a result.

    Args:
        step: the step of the result, as people know it.
        memo: the result.
        size: bytes of all results of the run, with this one.
        most: how many it may have.
    """
    return (
        f"the result of the step {step!r} has {len(memo)} bytes, and with it all results of the "
        f"run have {size}; the engine keeps {most} (max_state). Keep large data elsewhere, and "
        "return where it is"
    )
