"""Timeouts of steps (`timeout=`), steps in threads (`thread=True`), and the warning about
steps that block the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from inspect import CO_COROUTINE, isawaitable, iscoroutinefunction
from typing import Any

from stephttp._core.step_options import StepOptions
from stephttp.errors import StepTimeoutError

logger = logging.getLogger("stephttp")

BLOCKED_NS = 100_000_000
"""For so long may a function of a step keep the event loop from everything else."""
_MOST_WARNINGS = 100
"""Ids may be made of data, and then there is no end of them."""


def is_async(handler: Callable[..., Any]) -> bool:
    """Return whether `handler` is an `async def` function, wrapped or bound."""
    code = getattr(handler, "__code__", None)
    if code is not None:  # a function or a method; `inspect` takes twenty times as long
        return bool(code.co_flags & CO_COROUTINE)
    return iscoroutinefunction(handler) or iscoroutinefunction(type(handler).__call__)


def refuse_thread(step_id: str, handler: Callable[..., Any]) -> None:
    """Refuse an async function where a thread is wanted.

    Raises:
        TypeError: `handler` is one.
    """
    if is_async(handler):
        raise _not_plain(step_id)


async def supervise(
    options: StepOptions,
    step_id: str,
    clock_ns: Callable[[], int],
    invoke: Callable[..., Any],
    *args: Any,
) -> Any:
    """Call the function of a step as its options say, on the event loop.

    Args:
        clock_ns: a monotonic clock.
        invoke: calls the function, with `args`.

    Raises:
        StepTimeoutError: it took too long.
        TypeError: it runs in a thread, and is not a plain function.
    """
    if options.thread:
        return await _within(options.timeout, _in_thread(step_id, partial(invoke, *args)), step_id)
    began = clock_ns()
    value = invoke(*args)
    if isawaitable(value):
        return await _within(options.timeout, value, step_id)
    _refuse_late(options.timeout, clock_ns() - began, step_id)
    return value


def supervise_blocking(
    options: StepOptions,
    step_id: str,
    clock_ns: Callable[[], int],
    invoke: Callable[..., Any],
    *args: Any,
) -> Any:
    """Do the same in the thread of a blocking handler; see `supervise`.

    The function stays in that thread, because connections and sessions of databases belong to it.
    """
    began = clock_ns()
    value = invoke(*args)
    _refuse_late(options.timeout, clock_ns() - began, step_id)
    return value


async def _within(limit: timedelta | None, awaitable: Awaitable[Any], step_id: str) -> Any:
    """Await something for so long at most; a cancellation from outside stays one."""
    if limit is None:
        return await awaitable
    import asyncio

    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    deadline = asyncio.timeout(limit.total_seconds())
    try:
        async with deadline:
            return await awaitable
    except (TimeoutError, asyncio.CancelledError) as error:
        # The body's own `TimeoutError`, or a cancellation by others. (Python 3.11 makes no
        # `TimeoutError` of its own cancellation in a task that was cancelled before.)
        if not deadline.expired() or (task is not None and task.cancelling() > before):
            raise
        # Its cause says where the function was at that time.
        raise StepTimeoutError(f"step {step_id!r} took longer than {_shown(limit)}") from error


async def _in_thread(step_id: str, invoke: Callable[[], Any]) -> Any:
    """Call a function in a thread, in a copy of this context.

    If this is cancelled, the thread runs to its end, and what it returns is dropped.
    """
    import asyncio

    def attempt() -> tuple[Any, Exception | None]:
        try:
            return invoke(), None
        except Exception as error:  # a future cannot carry a `StopIteration`
            return None, error

    value, error = await asyncio.to_thread(attempt)
    try:
        if error is not None:
            raise error
    finally:
        del error  # its traceback leads here
    if isawaitable(value):
        close: Callable[[], None] = getattr(value, "close", lambda: None)
        close()  # or Python warns that it was never awaited
        raise _not_plain(step_id)
    return value


def _not_plain(step_id: str) -> TypeError:
    return TypeError(
        f"step {step_id!r}: thread=True is for plain functions, and this one is async; leave the "
        "option out"
    )


def _refuse_late(limit: timedelta | None, took_ns: int, step_id: str) -> None:
    if limit is not None and took_ns > limit / timedelta(microseconds=1) * 1000:
        raise StepTimeoutError(
            f"step {step_id!r} took longer than {_shown(limit)}: its function blocks, so it was "
            "not interrupted, and what it returned is dropped"
        )


def _shown(limit: timedelta) -> str:
    return f"{limit.total_seconds():g} s"


class LoopWatch:
    """Names, in development, the steps whose plain function blocks the event loop.

    Args:
        now_ns: the clock.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._named: set[tuple[str, str]] = set()

    def timed(
        self, step_id: str, invoke: Callable[..., Any], handler: Callable[..., Any], *args: Any
    ) -> Any:
        """Call the function of a step by `invoke`, and look how long it takes."""
        began = self._now_ns()
        value = invoke(handler, *args)
        if not isawaitable(value):
            self.note(step_id, handler, began)
        return value

    def note(self, step_id: str, handler: Callable[..., Any], began_ns: int) -> None:
        """Warn, once for each step, if the plain function `handler` took too long."""
        took_ns = self._now_ns() - began_ns
        if took_ns <= BLOCKED_NS or len(self._named) >= _MOST_WARNINGS:
            return
        key = step_id, _name(handler)
        if key in self._named:
            return
        self._named.add(key)
        logger.warning(
            "stephttp: step %r blocked the event loop for %d ms, and with it every other request: "
            "%s is a plain function; run it in a thread with "
            "step.options(thread=True).run(%r, ...), or make it async",
            step_id, took_ns // 1_000_000, key[1], step_id,
        )  # fmt: skip


def _name(handler: Callable[..., Any]) -> str:
    """Return the name by which people find a function."""
    while isinstance(handler, partial):
        handler = handler.func
    found = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{getattr(found, '__module__', None) or '?'}.{found.__qualname__}"
