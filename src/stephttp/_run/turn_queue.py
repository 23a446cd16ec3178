"""The order in which tasks that wait for remembered steps continue, on one event loop.

All of them are there at once. So after each that was given back, the event loop makes some turns,
until its tasks have come as far as they can; then the next one gets its step. See `loop_turns` for
who waits, and for what.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Any

from stephttp._core.steps import Step
from stephttp._run.kept_cancellations import KeptCancellations
from stephttp._run.loop_or_thread import SETTLE_TICKS
from stephttp._run.scope import is_waited_for

if TYPE_CHECKING:
    from stephttp._run.scope import RunScope

ENOUGH = "the run continues in a later call"
"""Message of the SDK's own cancellations, to know them from others."""

NEW = ""
"""Stands for what is not remembered."""

LATE = "late"
"""Stands for what ended in this call, just before its task was cancelled: it comes after what was
cut off with it."""

_FRESH = {NEW: 1e300, LATE: inf}

given: ContextVar[object | None] = ContextVar("stephttp_given", default=None)
"""Stands for the last remembered step that the current code follows from; see `LoopTurns.turn`."""


class Turn:
    """One step that waits for its turn."""

    __slots__ = ("future", "given", "key", "late", "parked")

    def __init__(self, key: str, future: asyncio.Future[None], parked: bool) -> None:
        self.key = key
        self.future = future
        self.parked = parked
        """Whether it waits to be cut off, and so has no turn yet."""
        self.given = False
        self.late: Step | None = None
        """The step that has ended, if its task was cancelled before it came back."""


class TurnQueue:
    """Those who wait for their turn.

    Args:
        scope: of the run.
        loop: the event loop.
        last: stands for the last remembered step that was given back before there was a queue.
    """

    __slots__ = ("_closed", "_given", "_last", "_scope", "_ticks", "_waiting", "kept", "loop")

    def __init__(
        self, scope: RunScope, loop: asyncio.AbstractEventLoop, last: object | None = None
    ) -> None:
        self.loop = loop
        self._scope = scope
        self._given = last
        """Stands for the last remembered step that was given back; `None` if nothing waited for
        the task that got it."""
        self._last: asyncio.Task[Any] | None = None
        """The task that got it."""
        self.kept = KeptCancellations()
        """Cancellations that came before the turn of a step."""
        self._waiting: list[Turn] = []
        self._ticks = 0
        self._closed = False

    def close(self) -> None:
        """End all waiting: the handler has ended."""
        self._closed = True
        self.kept.clear()
        for turn in self._waiting:
            self._note_late(turn)
            turn.future.cancel(ENOUGH)

    async def _again(self, turn: Turn) -> None:
        """Wait for the turn of a step that was cancelled, however often that is."""
        while not turn.given:
            turn.future = self.loop.create_future()
            if not self._ticks:  # a cancel scope of anyio cancels in each turn of the loop
                self._start()
            try:
                await turn.future
            except asyncio.CancelledError:
                if self._closed:
                    raise

    def _note_late(self, turn: Turn) -> None:
        """Note that a step has ended whose task was cancelled just then."""
        step, turn.late = turn.late, None
        if step is not None:
            times = self._scope.times(self._scope.now_ns())
            with self._scope.lock:
                self._scope.run.end_late(step, times)

    def _enter(self, key: str, parked: bool) -> Turn:
        turn = Turn(key, self.loop.create_future(), parked)
        with self._scope.lock:
            self._scope.run.hold()
        self._waiting.append(turn)
        return turn

    def _leave(self, turn: Turn) -> None:
        self._waiting.remove(turn)
        if self._waiting or self.kept:
            self._start()
        with self._scope.lock:
            self._scope.run.release()
        self._scope.recorded()

    def _follows(self) -> bool:
        """Say whether the current code follows from the last step that was given back."""
        return self._given in (None, given.get())

    def _give(self) -> None:
        """Note that the current task, and those that it starts, know of all that was given."""
        mark = object()
        given.set(mark)
        self._last = asyncio.current_task()
        self._given = mark if is_waited_for(self._last) else None

    def _start(self, ticks: int = SETTLE_TICKS) -> None:
        """Wait until the tasks have come as far as they can."""
        if not self._ticks:
            self.loop.call_soon(self._tick)
        self._ticks = ticks

    def _tick(self) -> None:
        """Give back the next remembered step, once the tasks have come as far as they can."""
        self._ticks -= 1
        if not self._ticks:
            waiting = [turn for turn in self._waiting if not turn.given]
            first = min(waiting, key=self._position, default=None)
            if self.kept and (first is None or first.parked or first.key in _FRESH):
                # They came to something new, but not to a step: what else is remembered is later.
                self.kept.cancel_all()
                self._start()
                return
            if first is None or first.parked:
                return  # the others wait until it is cut off
            self._pass_over(first.key)
            first.given = True
            if not first.future.done():  # else it was cancelled just now, and sees `given`
                first.future.set_result(None)
            self._ticks = SETTLE_TICKS
        self.loop.call_soon(self._tick)

    def _position(self, turn: Turn) -> float:
        order = self._scope.run.earlier.order
        if turn.key in _FRESH:
            return _FRESH[turn.key]
        return inf if order is None else order.position(turn.key)

    def _pass_over(self, key: str) -> None:
        order = self._scope.run.earlier.order
        if order is not None and key not in _FRESH and order.pass_over(key):
            self._scope.look_aside()
