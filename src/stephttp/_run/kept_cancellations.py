"""Cancellations of tasks that come before the turn of a remembered step: they are kept until then.

The handler's timers begin earlier in a later call, because nothing takes time before; see
`loop_turns`.
"""

from __future__ import annotations

import asyncio
from typing import Any


class KeptCancellations:
    """The tasks of one run whose cancellations are kept."""

    __slots__ = ("_owed",)

    def __init__(self) -> None:
        self._owed: dict[asyncio.Task[Any], int] = {}
        """With their numbers of cancellations then."""

    def cancel_late(self) -> None:
        """Cancel the current task, which comes to something new, if its cancellation was kept.

        It was not meant for the steps that had ended before. It lapses where what had cancelled the
        task has taken it back, as a limit does whose block has ended.
        """
        if self._owed and (task := asyncio.current_task()) is not None:
            self._cancel(task)

    def cancel_all(self) -> None:
        """Cancel all tasks whose cancellations were kept."""
        for task in list(self._owed):
            self._cancel(task)

    def clear(self) -> None:
        """Keep none of them any more."""
        self._owed.clear()

    def __bool__(self) -> bool:
        return bool(self._owed)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if 0 < self._owed.pop(task, 0) <= task.cancelling():
            task.cancel()
            task.uncancel()  # it was counted before

    def keep(self) -> None:
        """Keep the cancellation of the current task, which was caught."""
        task = asyncio.current_task()
        if task is not None:
            self._owed[task] = task.cancelling()
