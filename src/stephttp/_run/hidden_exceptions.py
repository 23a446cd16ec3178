"""Exceptions of handlers of which a framework has made an answer (Flask, Django): they may
say whether and when a re-entry is tried again.
"""

from __future__ import annotations

from stephttp import errors
from stephttp._run.current import current_call
from stephttp._run.scope import RunScope

_MOST_MADE = 8
"""Exceptions that are kept: one that leaves a handler is among the latest."""


class HiddenExceptions:
    """What may have left the handler of a re-entry."""

    __slots__ = ("left", "made")

    def __init__(self) -> None:
        self.left: BaseException | None = None
        """What left a decorated handler."""
        self.made: list[BaseException] = []
        """Exceptions by which code says whether and when to try again; the latest ones."""

    def found(self) -> BaseException | None:
        """Return what left the handler, as far as that is known."""
        if self.left is not None:
            return self.left
        from stephttp._run.final_failures import left_the_handler  # few runs fail

        raised = (error for error in reversed(self.made) if error.__traceback__ is not None)
        return next(filter(left_the_handler, raised), None)


def note_left(scope: RunScope, error: BaseException) -> None:
    """Note what leaves a decorated handler."""
    hidden = _of(scope)
    if hidden is not None:
        hidden.left = error


def _see(error: BaseException) -> None:
    """Note an exception where it is made."""
    call = current_call.get()
    if call is None or call.made is None or call.left:
        return
    hidden = _of(call.made)
    if hidden is not None:
        hidden.made = [*hidden.made[1 - _MOST_MADE :], error]


def _of(scope: RunScope) -> HiddenExceptions | None:
    """Return where they are noted; `None` for a first call, which is not made again."""
    if not scope.run.resumed:
        return None
    scope.hidden = scope.hidden or HiddenExceptions()
    return scope.hidden


errors._SeenWhereMade._see = staticmethod(_see)
