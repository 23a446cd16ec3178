"""`step.race` and `step.first`, async: the first branch to end, or to succeed, decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from stephttp._run.current import current_scope
from stephttp.step._branches import outside, run_branch
from stephttp.step._running import before_step

if TYPE_CHECKING:
    import asyncio

    from stephttp._run.races import Race

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


@overload
async def race(step_id: str, callables: tuple[Callable[[], Awaitable[A]]]) -> A: ...
@overload
async def race(
    step_id: str, callables: tuple[Callable[[], Awaitable[A]], Callable[[], Awaitable[B]]]
) -> A | B: ...
@overload
async def race(
    step_id: str,
    callables: tuple[
        Callable[[], Awaitable[A]], Callable[[], Awaitable[B]], Callable[[], Awaitable[C]]
    ],
) -> A | B | C: ...
@overload
async def race(
    step_id: str,
    callables: tuple[
        Callable[[], Awaitable[A]],
        Callable[[], Awaitable[B]],
        Callable[[], Awaitable[C]],
        Callable[[], Awaitable[D]],
    ],
) -> A | B | C | D: ...
@overload
async def race(step_id: str, callables: Iterable[Callable[[], Awaitable[T]]]) -> T: ...
async def race(step_id: str, callables: Iterable[Callable[[], Awaitable[Any]]]) -> Any:
    """Run several branches of steps at once, until the first one ends.

    The winner is recorded, and is the same in every later call. The other branches are cancelled:
    their waits are dropped, and functions that are at work are cut off.

    Args:
        step_id: names the race within the run.
        callables: each makes a branch, for example `lambda: step.sleep("deadline", DAY)`.

    Returns:
        What the winner returned. Where that does not tell which one it was, let the branches
        return something that does.

    Raises:
        ValueError: there are no branches.
        Exception: what the winner raised.
    """
    return await _race(step_id, callables, needs_success=False)


@overload
async def first(step_id: str, callables: tuple[Callable[[], Awaitable[A]]]) -> A: ...
@overload
async def first(
    step_id: str, callables: tuple[Callable[[], Awaitable[A]], Callable[[], Awaitable[B]]]
) -> A | B: ...
@overload
async def first(
    step_id: str,
    callables: tuple[
        Callable[[], Awaitable[A]], Callable[[], Awaitable[B]], Callable[[], Awaitable[C]]
    ],
) -> A | B | C: ...
@overload
async def first(
    step_id: str,
    callables: tuple[
        Callable[[], Awaitable[A]],
        Callable[[], Awaitable[B]],
        Callable[[], Awaitable[C]],
        Callable[[], Awaitable[D]],
    ],
) -> A | B | C | D: ...
@overload
async def first(step_id: str, callables: Iterable[Callable[[], Awaitable[T]]]) -> T: ...
async def first(step_id: str, callables: Iterable[Callable[[], Awaitable[Any]]]) -> Any:
    """Run several branches of steps at once, until one of them succeeds.

    Like `race`, but a branch that fails drops out, and the others continue.

    Args:
        step_id: names the race within the run.
        callables: each makes a branch, for example `lambda: step.run("mirror", ask_mirror)`.

    Returns:
        What the winner returned.

    Raises:
        ValueError: there are no branches.
        ExceptionGroup: all branches have failed; it holds what they raised, in order.
    """
    return await _race(step_id, callables, needs_success=True)


async def _race(
    step_id: str, callables: Iterable[Callable[[], Awaitable[Any]]], *, needs_success: bool
) -> Any:
    import asyncio

    from stephttp._run.races import Race, nobody_won

    branches = list(callables)
    if not branches:
        raise ValueError(f"step {step_id!r}: a race needs at least one branch")
    scope = current_scope()
    contest: Race | None = None
    if scope is None:
        outside().begin_race("first" if needs_success else "race", step_id)
    else:
        await before_step(scope)
        contest = Race.begin(scope, step_id)
        if contest.suspended:
            await scope.suspend()
        contest.read(len(branches))
    tasks = [
        asyncio.create_task(run_branch(scope, number, branch))
        for number, branch in enumerate(branches)
    ]
    try:
        if contest is not None and contest.known:
            winner = contest.winner
            await _known_end(tasks, winner)
        else:
            winner = await _winner(tasks, needs_success)
        if contest is not None:
            contest.decide(winner)
    finally:
        await _cancel(tasks)
    if scope is not None and contest is not None and contest.suspended:
        await scope.suspend()
    if winner is None:
        raise nobody_won(step_id, [_error(task) for task in tasks])
    return tasks[winner].result()


async def _winner(tasks: list[asyncio.Task[Any]], needs_success: bool) -> int | None:
    """Wait for the task that wins. Returns its number; `None`: all of them failed."""
    import asyncio

    left = set(tasks)
    while left:
        ended, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for number, task in enumerate(tasks):
            if task in ended and not (needs_success and _failed(task)):
                return number
    return None


async def _known_end(tasks: list[asyncio.Task[Any]], winner: int | None) -> None:
    """Wait for the task that has won in an earlier call; `None`: for all of them.

    All tasks are waited for, as in that call: remembered steps take turns among such tasks only.
    """
    import asyncio

    left = set(tasks)
    while left and (winner is None or tasks[winner] in left):
        _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def _error(task: asyncio.Task[Any]) -> BaseException:
    import asyncio

    return (None if task.cancelled() else task.exception()) or asyncio.CancelledError()


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel the tasks that have not ended, and wait for their ends."""
    import asyncio

    cancelled: asyncio.CancelledError | None = None
    left = {task for task in tasks if not task.done()}
    for task in left:
        task.cancel()
    while left:
        try:
            _, left = await asyncio.wait(left)
        except asyncio.CancelledError as error:
            cancelled = error
            left = {task for task in left if not task.done()}
    for task in tasks:
        if not task.cancelled():
            task.exception()  # it was looked at: asyncio need not complain
    if cancelled is not None:
        raise cancelled
