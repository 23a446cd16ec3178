"""`step.parallel`, blocking: branches of steps, each in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from stephttp._run.current import current_scope
from stephttp.sync._outside import outside
from stephttp.sync._threads import side_by_side

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


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
    scope = current_scope()
    if scope is None:
        results: tuple[Any, ...] = outside().parallel(callables)
        return results
    return side_by_side(scope, callables)
