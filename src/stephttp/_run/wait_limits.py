"""The warning in development about `asyncio.timeout` around a wait, which cannot ring while the run
is away.

While a run is away, no timer of the process can ring: `asyncio.timeout` around a wait does nothing.
There is no public way to ask what surrounds a task. Its coroutines tell, while they are suspended:
each holds what it entered and has not left. Where they do not, there is no warning.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from collections.abc import Iterable, Iterator
from types import MethodType
from typing import Any

logger = logging.getLogger("stephttp")

_OURS = ("stephttp._adapters.asgi.first_call", "stephttp._adapters.asgi.reentry")
_warned: set[str] = set()


def warn_of_limits(waits: Iterable[tuple[str, asyncio.Task[Any]]]) -> None:
    """Warn, once for each step id, of limits around waits.

    Args:
        waits: the step ids, and the tasks that wait.
    """
    for step_id, task in waits:
        if step_id in _warned or not any(map(_is_limit, _entered(task))):
            continue
        _warned.add(step_id)
        logger.warning(
            "stephttp: step %r waits inside of a timeout of this process, such as "
            "asyncio.timeout or wait_for; it does not count while the run is away. Use the "
            "step's own `timeout`, or step.race with a step.sleep", step_id,
        )  # fmt: skip


def _entered(task: asyncio.Task[Any]) -> Iterator[Any]:
    """Yield what the handler's coroutines in a task hold."""
    chain: list[Any] = []
    coroutine: Any = task.get_coro()
    while getattr(coroutine, "cr_frame", None) is not None:
        if coroutine.cr_frame.f_globals.get("__name__") in _OURS:
            chain.clear()  # what is further out belongs to the server
        else:
            chain.append(coroutine)
        coroutine = coroutine.cr_await
    for coroutine in chain:
        waits_for = coroutine.cr_frame.f_globals.get("__name__") == "asyncio.tasks"
        for held in gc.get_referents(coroutine):
            if type(held) is MethodType:
                yield held.__self__
            elif waits_for or type(held) is not asyncio.TimerHandle:
                yield held


def _is_limit(held: Any) -> bool:
    """Return whether an object is a timer that will ring, or a scope that has one."""
    kind = type(held)  # `isinstance` would ask the object, which may be a proxy of anything
    if issubclass(kind, asyncio.Timeout):
        return held.when() is not None
    if issubclass(kind, asyncio.TimerHandle):  # of `asyncio.wait_for` in Python 3.11
        return not held.cancelled()
    return kind.__name__ == "CancelScope" and held.deadline < math.inf  # of anyio
