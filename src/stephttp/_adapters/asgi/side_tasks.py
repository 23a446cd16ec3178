"""Tasks that a handler has started beside the one that responds, and in which branches of it
may wait.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection
from contextvars import Context
from typing import Any
from weakref import WeakSet

from stephttp._run.current import current_call
from stephttp._run.scope import RunScope


class SideTasks:
    """The tasks of a handler that were seen at work on their own, and what became of them.

    Args:
        scope: of the handler's run.
        task: the task in which it is called.
    """

    __slots__ = ("_cancelled", "_scope", "_seen", "_task")

    def __init__(self, scope: RunScope, task: asyncio.Task[Any] | None) -> None:
        self._scope = scope
        self._task = task
        self._seen: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._cancelled = False

    def look(self) -> None:
        """See which tasks there are now."""
        for task in asyncio.all_tasks():
            if task in (self._task, asyncio.current_task()) or task in self._seen:
                continue
            context = _context_of(task)
            call = None if context is None else context.get(current_call)
            if context is None or (call is not None and call.so_far is self._scope):
                self._seen.add(task)
                task.add_done_callback(self._note)

    def others(self, tasks: Collection[Any]) -> bool:
        """Return whether any of them is at work, and not one of `tasks`."""
        return any(not task.done() and task not in tasks for task in self._seen)

    @property
    def cut_short(self) -> bool:
        """Whether one of them did not come to its own end."""
        return self._cancelled or any(not task.done() or task.cancelled() for task in self._seen)

    def _note(self, task: asyncio.Task[Any]) -> None:
        self._cancelled = self._cancelled or task.cancelled()


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    """Return the context of a task; `None` if it cannot be found."""
    get_context = getattr(task, "get_context", None)  # since Python 3.12
    if get_context is not None:
        found: Context = get_context()
        return found
    return next((one for one in gc.get_referents(task) if isinstance(one, Context)), None)
