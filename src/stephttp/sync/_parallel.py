"""Branches of blocking steps, each in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from typing import Any, TypeVar, overload

from stephttp._run.current import current_scope
from stephttp._run.scope import RunScope

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

MAX_THREADS = 32
"""Branches of one `parallel` that run at the same time."""


@overload
def parallel(callables: tuple[Callable[[], A]]) -> tuple[A]: ...
@overload
def parallel(callables: tuple[Callable[[], A], Callable[[], B]]) -> tuple[A, B]: ...
@overload
def parallel(
    callables: tuple[Callable[[], A], Callable[[], B], Callable[[], C]],
) -> tuple[A, B, C]: ...
@overload
def parallel(
    callables: tuple[Callable[[], A], Callable[[], B], Callable[[], C], Callable[[], D]],
) -> tuple[A, B, C, D]: ...
@overload
def parallel(callables: Iterable[Callable[[], T]]) -> tuple[T, ...]: ...
def parallel(callables: Iterable[Callable[[], Any]]) -> tuple[Any, ...]:
    """Run several branches of steps at once, each in a thread of its own.

    All branches get as far as they can before the handler continues or is ended.

    Args:
        callables: each makes a branch, for example `lambda: step.run("a", a)`. Branches may use
            the same step ids; with the stephttp engine each gets its own results in every call.

    Returns:
        The result of each branch, in order.

    Raises:
        Suspended: a branch has to wait.
        Exception: what the first failed branch raised, when no branch has to wait.
    """
    branches = list(callables)
    scope = current_scope()
    with nullcontext() if scope is None else scope.group():
        futures = _in_threads(scope, branches)
    if scope is not None and scope.run.suspended:
        raise scope.suspension("a parallel branch")
    return tuple(future.result() for future in futures)


def _in_threads(scope: RunScope | None, branches: list[Callable[[], Any]]) -> list[Future[Any]]:
    """Run the branches to their ends, each in the context of this thread."""

    def branch(number: int, callable_: Callable[[], Any]) -> Any:
        if scope is not None:
            scope.branch()
            scope.enter_branch(number)
        return callable_()

    with ThreadPoolExecutor(max(1, min(len(branches), MAX_THREADS))) as pool:
        return [
            pool.submit(copy_context().run, branch, number, callable_)
            for number, callable_ in enumerate(branches)
        ]
