"""Branches of a blocking handler, in threads (`parallel`, `race`): where each stands, and the order
in which they get remembered steps.

In later calls the steps that ran side by side are all remembered. `ThreadTurns` gives them back in
the order in which they ended, as `LoopTurns` does on an event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stephttp._core.steps import CutTimes, Step
from stephttp._run.places import BranchPlace, here
from stephttp._wire.stored_state import CompletionOrder
from stephttp.errors import Suspended

if TYPE_CHECKING:
    from stephttp._run.scope import RunScope

PATIENCE = 0.5
"""Seconds that a thread may work between two steps before another one gets its step."""


class Branch:
    """One of several threads of a run, and the step at which it came to a stop.

    Args:
        scope: of the run.
        outer: the branch that has started it, if there is one.
    """

    __slots__ = ("_lost", "_outer", "scope", "stops", "waiting_for")

    def __init__(self, scope: RunScope, outer: Branch | None = None) -> None:
        self.scope = scope
        self._outer = outer
        self._lost = False
        self.stops: list[tuple[Step | None, CutTimes]] = []
        """The steps at which it stands still, and those in it: what they are, since when."""
        self.waiting_for = ""
        """What it waits for, in words; empty while it does not."""

    @property
    def lost(self) -> bool:
        """Whether it takes part in a race that another branch has won."""
        return self._lost or (self._outer is not None and self._outer.lost)

    def lose(self) -> None:
        """Note that another branch has won. It begins no further step."""
        self._lost = True

    def enter_step(self, step_id: str) -> None:
        """Note that it has come to a step.

        Raises:
            Suspended: it has come to a stop before.
        """
        scope = self.scope
        if scope.thread_turns is not None:
            scope.thread_turns.rest(self)
        if self.waiting_for:
            raise Suspended(self.waiting_for)
        if self.lost:
            with scope.lock:
                remembered = scope.run.remembers(step_id)
            if not remembered:
                self.waiting_for = "nothing: another branch has won the race"
                raise Suspended(self.waiting_for)

    def stop(self, step: Step | None, times: CutTimes) -> None:
        """Note that it, or a branch in it, cannot continue in this call."""
        self.stops.append((step, times))
        if self._outer is not None:
            self._outer.stop(step, times)


class ThreadTurns:
    """The turns of the remembered steps of one run, in threads.

    Args:
        order: the order in which they ended.
    """

    __slots__ = ("_awake", "_changed", "_order", "_waiting")

    def __init__(self, order: CompletionOrder) -> None:
        self._order = order
        self._changed = threading.Condition()
        self._awake: set[Branch] = set()
        """Branches at work between two steps."""
        self._waiting: dict[Branch, str] = {}

    def wake(self, branches: Iterable[Branch]) -> None:
        """Note that branches are at work."""
        with self._changed:
            self._awake.update(branches)

    def rest(self, branch: Branch) -> None:
        """Note that a branch is at a step, has ended, or waits for others."""
        with self._changed:
            self._awake.discard(branch)
            self._changed.notify_all()

    def pass_step(self, step_hash: str) -> None:
        """Note that code beside all branches got a remembered step."""
        with self._changed:
            self._order.meet(step_hash)

    def take(self, branch: Branch, step_hash: str) -> None:
        """Wait until a remembered step may be given back to a branch.

        The others come as far as they can first. One that blocks between two steps is waited for
        only so long.
        """
        with self._changed:
            self._order.meet(step_hash)
            self._waiting[branch] = step_hash
            self._awake.discard(branch)
            self._changed.notify_all()
            while self._awake or self._first() is not branch:
                if not self._changed.wait(PATIENCE) and self._first() is branch:
                    break
            self._order.pass_over(step_hash)
            del self._waiting[branch]
            self._awake.add(branch)
            self._changed.notify_all()

    def _first(self) -> Branch:
        """Return the waiting branch whose step ended first."""
        return min(self._waiting, key=lambda branch: self._order.position(self._waiting[branch]))


def current_branch(scope: RunScope) -> Branch | None:
    """Return the branch of a run that the current thread works on."""
    place = here.get()
    return place.thread if isinstance(place, BranchPlace) and place.scope is scope else None


def turns_of(scope: RunScope) -> ThreadTurns | None:
    """Return the turns of remembered steps in threads, where the server keeps their order."""
    order = scope.run.earlier.order
    if scope.thread_turns is None and order is not None:
        with scope.lock:
            if scope.thread_turns is None:
                scope.thread_turns = ThreadTurns(order)
    return scope.thread_turns


def take_turn(scope: RunScope, step: Step) -> None:
    """Wait in a blocking tool until a remembered step may be given back."""
    if scope.run.earlier.order is None:
        return
    turns, branch = turns_of(scope), current_branch(scope)
    if turns is None:
        return
    if branch is None:
        turns.pass_step(step.hash)
    else:
        turns.take(branch, step.hash)


def suspension(scope: RunScope, waiting_for: str, step: Step | None = None) -> Suspended:
    """Return what a blocking tool raises where its handler cannot continue.

    Args:
        scope: of the run.
        waiting_for: what it says it waits for.
        step: the step, if it is one.
    """
    branch = current_branch(scope)
    with scope.lock:
        if branch is None:
            scope.run.unwind()
        else:
            # The other branches come as far as they can first; then all are ended.
            branch.waiting_for = waiting_for
            times = scope.times(scope.now_ns())
            if step is not None and branch.lost:
                scope.run.give_up(step, times)
            elif step is not None:
                branch.stop(step, times)
    return Suspended(waiting_for)
