"""Keeps the planned deaths of `crash_everywhere` out of the log: a process that has died says
nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from unittest.mock import patch

from stephttp._client.background import running_loop

DEATH = "the process has died"
"""What the engine reads of a call that the death has ended."""


class ProcessDied(BaseException):
    """Ends the handler of a process that has died; no handler can catch it by `Exception`."""


class Died(Exception):
    """The same outside of the application."""


@contextmanager
def quiet_deaths(is_dead: Callable[[], bool]) -> Generator[None]:
    """Drop what is logged of deaths while the block runs, and what the dead log.

    Methods are exchanged, because loggers and handlers of the application may be made meanwhile.

    Args:
        is_dead: whether the current code belongs to a process that has died.
    """
    handle, end_of_thread = logging.Logger.handle, threading.excepthook

    def unless_dead(logger: logging.Logger, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not (is_dead() or _is_death(error) or _tells_of_death(record)):
            handle(logger, record)

    def end_quietly(ended: threading.ExceptHookArgs) -> None:
        if not _is_death(ended.exc_value):
            end_of_thread(ended)

    with (
        patch.object(logging.Logger, "handle", unless_dead),
        patch.object(threading, "excepthook", end_quietly),
    ):
        yield


def forget_errors_here() -> None:
    """Keep the loop from logging that nothing awaits the task that is ended here."""
    if running_loop() is not None:
        from asyncio import current_task

        task = current_task()
        if task is not None:
            task.add_done_callback(lambda done: done.cancelled() or done.exception())


def _is_death(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_death, error.exceptions))
    return isinstance(error, ProcessDied | Died)


def _tells_of_death(record: logging.LogRecord) -> bool:
    return record.name.startswith("stephttp.engine") and DEATH in record.getMessage()
