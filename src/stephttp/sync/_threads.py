"""The threads of `parallel` and `race` in a blocking handler: one for each branch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any

from stephttp._run.branches import Branch, current_branch, suspension, turns_of
from stephttp._run.places import enter_branch
from stephttp._run.scope import RunScope
from stephttp._run.supervised import is_async
from stephttp.errors import Suspended
from stephttp.sync._plain_functions import async_refused, refuse_coroutine

MAX_THREADS = 32
"""Branches of one group that run at the same time."""


class Threads:
    """A group of branches.

    Args:
        scope: of the run; `None` outside one.
        callables: make the branches.

    Raises:
        TypeError: one of them is async.
    """

    def __init__(self, scope: RunScope | None, callables: Iterable[Callable[[], Any]]) -> None:
        self._scope = scope
        self._callables = list(callables)
        for number, one in enumerate(self._callables):
            if is_async(one):
                raise async_refused(f"branch {number}")
        self._outer = None if scope is None else current_branch(scope)
        self._turns = None if scope is None else turns_of(scope)
        self._over: SimpleQueue[int] = SimpleQueue()
        self.branches: list[Branch] = []
        """Their places in the run; empty outside one."""
        if scope is not None:
            self.branches = [Branch(scope, self._outer) for _ in self._callables]
        self.futures: list[Future[Any]] = []
        """What they give, in order."""

    @property
    def size(self) -> int:
        """The number of branches."""
        return len(self._callables)

    @property
    def stopped(self) -> bool:
        """Whether a branch cannot continue in this call."""
        return any(branch.waiting_for for branch in self.branches)

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Run the branches, each in the context of this thread. None is waited for at the end."""
        if self._scope is None:
            yield from self._start()
        else:
            with self._scope.group():
                yield from self._start()

    def ended(self) -> Generator[int]:
        """Wait for the branches. Yields the number of each that has ended, as it does."""
        for _ in self.futures:
            yield self._over.get()

    def suspension(self, waiting_for: str) -> Suspended:
        """Return what the tool raises because a branch cannot continue in this call."""
        assert self._scope is not None, "outside a run nothing waits"
        return suspension(self._scope, waiting_for)

    def _start(self) -> Generator[None]:
        threads = max(1, min(self.size, MAX_THREADS))
        if self._turns is not None:
            self._turns.wake(self.branches[:threads])
            if self._outer is not None:
                self._turns.rest(self._outer)
        pool = ThreadPoolExecutor(threads, "stephttp-branch")
        try:
            for number in range(self.size):
                future = pool.submit(copy_context().run, self._branch, number)
                future.add_done_callback(partial(self._end, number))
                self.futures.append(future)
            yield
        finally:
            pool.shutdown(wait=False)
            if self._turns is not None and self._outer is not None:
                self._turns.wake([self._outer])

    def _end(self, number: int, _: Future[Any]) -> None:
        self._over.put(number)

    def _branch(self, number: int) -> Any:
        if not self.branches:
            return self._called(number)
        branch = self.branches[number]
        enter_branch(branch.scope, number, branch)
        if self._turns is not None:
            self._turns.wake([branch])
        try:
            return self._called(number)
        finally:
            if self._turns is not None:
                self._turns.rest(branch)

    def _called(self, number: int) -> Any:
        return refuse_coroutine(self._callables[number](), f"branch {number}")


def side_by_side(scope: RunScope | None, callables: Iterable[Callable[[], Any]]) -> tuple[Any, ...]:
    """Run branches until all have ended, and raise what the first failed one raised.

    Raises:
        Suspended: a branch has to wait.
    """
    threads = Threads(scope, callables)
    with threads.at_work():
        for _ in threads.ended():
            pass
    if threads.stopped:
        raise threads.suspension("a parallel branch")
    return tuple(future.result() for future in threads.futures)
