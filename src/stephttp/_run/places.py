"""Where the current code is in its run: in the handler, in a branch, or in a step's body (a
step inside of a step is an error).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from msgspec import Struct

from stephttp.errors import NestedStepError

if TYPE_CHECKING:
    from stephttp._run.branches import Branch
    from stephttp._run.scope import RunScope
    from stephttp._run.step_call import StepCall


class BranchPlace(Struct, frozen=True, eq=False):
    """A branch of `parallel` or of a race."""

    scope: RunScope
    """Of its run."""
    position: str
    """Its number, behind those of the branches that it is in."""
    thread: Branch | None
    """The branch that is a thread of its own: this one, or the nearest around it."""
    inside: StepCall | None
    """The step in whose body it began."""


here: ContextVar[StepCall | BranchPlace | None] = ContextVar("stephttp_here", default=None)
"""The step whose body the current code belongs to, or else its branch; `None` in a handler. One
variable, because each step looks."""


def enclosing_step() -> StepCall | None:
    """Return the step whose body the current code belongs to."""
    place = here.get()
    return place.inside if isinstance(place, BranchPlace) else place


def enter_branch(scope: RunScope, number: int, thread: Branch | None = None) -> None:
    """Make the current context that of a branch.

    Args:
        scope: of its run.
        number: its place among the branches.
        thread: what stands for it, where it is a thread of its own.
    """
    place, position = here.get(), str(number)
    if isinstance(place, BranchPlace) and place.scope is scope:
        position = f"{place.position}.{number}"
        thread = thread or place.thread
    here.set(BranchPlace(scope, position, thread, enclosing_step()))


def come_to_step(scope: RunScope, place: StepCall | BranchPlace, step_id: str) -> str:
    """Check that a step may begin in a body or in a branch. Returns the position of the branch.

    Raises:
        NestedStepError: this code belongs to the body of another step.
        Suspended: this branch has come to a stop before.
    """
    inside = place.inside if isinstance(place, BranchPlace) else place
    # A step may well make a request of this process to itself: that is another run.
    if inside is not None and inside.scope is scope:
        raise NestedStepError(
            f"step {step_id!r} was called inside the body of step {inside.step.step_id!r}; "
            "call it before or after, or call the plain function"
        )
    if not isinstance(place, BranchPlace) or place.scope is not scope:
        return ""
    if place.thread is not None:
        place.thread.enter_step(step_id)
    return place.position
