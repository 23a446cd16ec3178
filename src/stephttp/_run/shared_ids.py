"""The warning in development that branches share a step id, so that timing decides which result is
whose.

The uses of an id are numbered in the order in which the handler comes to them. Branches that the
SDK does not know (tasks, threads) may come to a shared id in another order in a later call, and
then each gets what the other one's step returned. Tasks have an order of their own, that of their
creation: as long as they come to the id in that order, nothing is said, as in a `gather` of steps
that begin at once. Where the results of two branches are swapped, one of the calls has had another
order, and that call warns.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from os.path import dirname
from typing import TYPE_CHECKING, Any

from stephttp._wire.stored_state import NAMES_FEATURE

if TYPE_CHECKING:
    from stephttp._run.scope import RunScope

logger = logging.getLogger("stephttp")

_NUMBERED = re.compile(r"Task-([0-9]+)")
"""The name that asyncio gives a task, with its number."""
_PACKAGE = dirname(dirname(__file__))
_LIBRARIES = ("site-packages", "dist-packages")


class SharedIds:
    """The branches of one call of a handler, and the ids of the steps that they came to.

    Args:
        warned: the ids of which was warned; shared with other calls.
        first: the thread that called the handler, if that is known: it was there before all others.
    """

    __slots__ = ("_last", "_seen", "_warned")

    def __init__(self, warned: set[str], first: int | None = None) -> None:
        self._warned = warned
        self._seen: dict[object, int] = {} if first is None else {first: 0}
        """The branches, in the order in which they came to their first steps."""
        self._last: dict[str, object] = {}
        """By id, the branch made last of those that came to it."""

    def note(self, step_id: str, position: str = "") -> None:
        """Note that the current branch has come to a step.

        Args:
            position: of the branch in `parallel`.
        """
        branch = position or current_branch()
        if branch not in self._seen:
            self._seen[branch] = len(self._seen)
        last = self._last.setdefault(step_id, branch)
        if last == branch:
            return
        if not self._overtook(last, branch):
            self._last[step_id] = branch
        elif step_id not in self._warned:
            self._warned.add(step_id)
            logger.warning(
                "stephttp: %s: branches of the handler share the step id %r, and came to it in "
                "another order than that in which they were made. In a later call they may come in "
                "yet another order, and get each other's results. Give their steps different ids",
                _place(), step_id,
            )  # fmt: skip

    def _overtook(self, first: Any, second: Any) -> bool:
        """Return whether a branch that came first was made after the second, beside it."""
        if isinstance(first, str) and isinstance(second, str):
            return _numbers(second) < _numbers(first)
        if isinstance(first, str | int) or isinstance(second, str | int):
            # The first thread of all is likely that of the handler, which waits for the others.
            return 0 < self._seen[second] < self._seen[first]
        if first.done() and _is_of_a_library(second):
            return False  # it may be the handler's own, and have waited for the first
        numbers = [_NUMBERED.fullmatch(task.get_name()) for task in (first, second)]
        if numbers[0] is None or numbers[1] is None:
            return self._seen[second] < self._seen[first]
        return int(numbers[1][1]) < int(numbers[0][1])


def keeps_branches(scope: RunScope) -> bool:
    """Return whether the server keeps the branch of each step, as far as it is known. A known
    branch gets its own results then."""
    run, features = scope.run, scope.runtime.checkpoints.keys.features
    if run.resumed:
        return run.earlier.is_named
    return features is None or NAMES_FEATURE in features


def current_branch() -> object:
    """Return the current task, or the number of the thread."""
    asyncio = sys.modules.get("asyncio")
    # `current_task` alone raises where no loop runs, which takes longer than all of this.
    if asyncio is not None and asyncio._get_running_loop() is not None:
        task: object = asyncio.current_task()
        if task is not None:
            return task
    return threading.get_ident()


def _numbers(position: str) -> list[int]:
    return [int(part) for part in position.split(".")]


def _is_of_a_library(task: Any) -> bool:
    """Return whether a task runs a framework's code, and not a branch of the user's."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and any(name in code.co_filename for name in _LIBRARIES)


def _place() -> str:
    """Return file and line of the user's code that uses a step tool."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
