"""The limits of a run: how many steps it has, and how large its state is. Pure."""

from __future__ import annotations

from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Run


class RunFull(Refused):
    """A run has as many steps, or as large a state, as it may have, and fails.

    Attributes:
        name: of the run's error.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def state_full(run: Run, step: str, memo: bytes, at: Moment) -> str | None:
    """Return why the state of a run has no room for a result; `None` if it has.

    Args:
        step: the step of the result, as people know it.
    """
    size, most = run.state_size + len(memo), at.settings.max_state
    if size <= most:
        return None
    return (
        f"the result of the step {step!r} has {len(memo)} bytes, and with it all results of the "
        f"run have {size}; the engine keeps {most} (max_state). Keep large data elsewhere, and "
        "return where it is"
    )
