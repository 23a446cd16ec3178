"""Whether an exception that leaves a handler is its own, or comes from the SDK's ending it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stephttp.errors import Suspended

if TYPE_CHECKING:
    from stephttp._core.run import Run

logger = logging.getLogger("stephttp")


def echoes_suspension(error: BaseException) -> bool:
    """Whether `error` comes of our ending the handler; task groups wrap it beside other errors."""
    if isinstance(error, BaseExceptionGroup):
        return any(echoes_suspension(inner) for inner in error.exceptions)
    return isinstance(error, Suspended) or is_cancellation(error)


def is_suspension(error: BaseException) -> bool:
    """Whether `error` is what a blocking tool has ended a handler with, however wrapped."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_suspension(inner) for inner in error.exceptions)
    return isinstance(error, Suspended)


def log_unless_echo(run: Run, error: BaseException) -> None:
    """Log what a handler has raised that was ended because its run has to wait."""
    if not echoes_suspension(error):
        logger.warning(
            "stephttp: run %s waits for a step; what its handler raised meanwhile is dropped, "
            "and will be raised again if it still applies then",
            run.run_id, exc_info=error,
        )  # fmt: skip


def is_cancellation(error: BaseException) -> bool:
    """Whether `error` is the cancellation of a task."""
    from asyncio import CancelledError  # absent where no loop is

    return isinstance(error, CancelledError)


def is_being_cancelled() -> bool:
    """Whether a cancellation of the current task is under way."""
    from asyncio import current_task

    try:
        task = current_task()
    except RuntimeError:  # a thread
        return False
    return task is not None and task.cancelling() > 0
