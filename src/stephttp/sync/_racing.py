"""`step.race` and `step.first`, blocking: the first branch to end, or to succeed, decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from stephttp._run.current import current_scope
from stephttp._run.races import Race, nobody_won
from stephttp._run.scope import RunScope
from stephttp.errors import Suspended
from stephttp.sync._blocking import settle_claim
from stephttp.sync._outside import outside
from stephttp.sync._threads import Threads

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


@overload
def race(step_id: str, callables: tuple[Callable[[], A]]) -> A: ...
@overload
def race(step_id: str, callables: tuple[Callable[[], A], Callable[[], B]]) -> A | B: ...
@overload
def race(
    step_id: str, callables: tuple[Callable[[], A], Callable[[], B], Callable[[], C]]
) -> A | B | C: ...
@overload
def race(
    step_id: str,
    callables: tuple[Callable[[], A], Callable[[], B], Callable[[], C], Callable[[], D]],
) -> A | B | C | D: ...
@overload
def race(step_id: str, callables: Iterable[Callable[[], T]]) -> T: ...
def race(step_id: str, callables: Iterable[Callable[[], Any]]) -> Any:
    """Run several branches of steps at once, until the first one ends; see `stephttp.step.race`.

    Each branch runs in a thread, which cannot be cancelled. A function that is at work in a branch
    that has lost runs to its end, and its result is ignored; the branch begins no further step. A
    branch that waits is dropped.

    Raises:
        Suspended: no branch has ended, and those that are left have to wait.
    """
    return _race(step_id, callables, needs_success=False)


@overload
def first(step_id: str, callables: tuple[Callable[[], A]]) -> A: ...
@overload
def first(step_id: str, callables: tuple[Callable[[], A], Callable[[], B]]) -> A | B: ...
@overload
def first(
    step_id: str, callables: tuple[Callable[[], A], Callable[[], B], Callable[[], C]]
) -> A | B | C: ...
@overload
def first(
    step_id: str,
    callables: tuple[Callable[[], A], Callable[[], B], Callable[[], C], Callable[[], D]],
) -> A | B | C | D: ...
@overload
def first(step_id: str, callables: Iterable[Callable[[], T]]) -> T: ...
def first(step_id: str, callables: Iterable[Callable[[], Any]]) -> Any:
    """Run several branches at once, until one succeeds; see `stephttp.step.first`, and `race`."""
    return _race(step_id, callables, needs_success=True)


def _race(step_id: str, callables: Iterable[Callable[[], Any]], *, needs_success: bool) -> Any:
    scope = current_scope()
    contest: Race | None = None
    if scope is None:
        outside().begin_race("first" if needs_success else "race", step_id)
    else:
        settle_claim(scope, step_id)
        contest = Race.begin(scope, step_id)
        if contest.suspended:
            raise contest.suspension()
    threads = Threads(scope, callables)
    if not threads.size:
        raise ValueError(f"step {step_id!r}: a race needs at least one branch")
    if contest is not None:
        contest.read(threads.size)
        if contest.winner is not None:
            _lose(scope, threads, contest.winner)
    with threads.at_work():
        winner = _winner(threads, contest, needs_success)
        undecided = winner is None and threads.stopped
        if not undecided:
            _lose(scope, threads, winner)
            if contest is not None:
                contest.decide(winner)
    if undecided:
        raise threads.suspension("a race")
    if contest is not None and contest.suspended:
        raise contest.suspension()
    if winner is None:
        errors = [future.exception() for future in threads.futures]
        raise nobody_won(step_id, [error for error in errors if error is not None])
    return threads.futures[winner].result()


def _winner(threads: Threads, contest: Race | None, needs_success: bool) -> int | None:
    """Wait for the branch that wins. Returns its number; `None`: no branch has won."""
    for number in threads.ended():
        error = threads.futures[number].exception()
        if isinstance(error, Suspended):
            continue
        if contest is not None and contest.known:
            if number == contest.winner:
                return number
        elif not needs_success or error is None:
            return number
    return None


def _lose(scope: RunScope | None, threads: Threads, winner: int | None) -> None:
    """Drop what the other branches wait for, and let them begin no further step."""
    if scope is None:
        return
    with scope.lock:
        for number, branch in enumerate(threads.branches):
            if number != winner:
                branch.lose()
                for step, times in branch.stops:
                    scope.run.give_up(step, times)
                branch.stops.clear()
