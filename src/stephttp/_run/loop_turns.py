"""Remembered steps of `asyncio.gather` and task groups: each comes back in the order in which it
ended, or is cut off when it was (docs/design.md 3.16).

Steps that ran side by side ended in some order, and the tasks of the handler saw them end in that
order. In later calls all of them are there at once. So each waits for its turn: until those that
ended earlier were given back, and the other tasks have come as far as they had come by then. New
steps of this call come after all that are remembered and were met.

A step that was cut off has its turn, too. It waits until the handler cuts it off again, and those
that ended later wait for that. The handler's timers begin earlier in a later call, because nothing
takes time before. So the cancellation of a step may come before its turn. It is kept until then:
a step that was cut off then ends as cut off, and a step that had ended gives its result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from stephttp._core.steps import Step
from stephttp._run.loop_or_thread import SETTLE_TICKS
from stephttp._run.scope import is_waited_for
from stephttp._run.supervised import is_async
from stephttp._run.turn_queue import ENOUGH, LATE, NEW, Turn, TurnQueue, given

if TYPE_CHECKING:
    from stephttp._run.scope import RunScope
    from stephttp._wire.cut_entries import Cut

logger = logging.getLogger("stephttp")

_BEGIN_TICKS = 3
"""Turns of the event loop after which tasks that were just made have begun."""

PATIENCE = 5.0
"""Seconds that the handler may take longer than it did, until it cuts a step off again."""


class LoopTurns(TurnQueue):
    """The turns of the remembered steps of one run, on one event loop.

    Args:
        scope: of the run.
        loop: the event loop.
        task: the one in which the handler is called.
        last: stands for the last remembered step that this task got before others came to one.
    """

    __slots__ = ("_fresh", "_last", "_task")

    def __init__(
        self,
        scope: RunScope,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Any] | None,
        last: object | None = None,
    ) -> None:
        super().__init__(scope, loop, last)
        self._task = task
        self._fresh: object | None = None
        """Stands for a remembered step that was given back before other tasks could begin."""

    def turn(self, step: Step, function: Callable[..., Any] | None) -> Awaitable[None] | None:
        """Return what to wait for before a remembered step is given back; `None`: nothing.

        The task that got the last one, and the handler's own where it follows from that, need not
        wait. Other tasks do: each has to come as far as it came at the time, before the next one
        gets its step.

        Args:
            step: the step.
            function: of a step that runs in this process.
        """
        order = self._scope.run.earlier.order
        if order is None:
            return None
        cuts = self._scope.run.cuts
        if cuts is not None and (late := cuts.late(step.hash)) is not None:
            return self._await_cancellation(step, late)
        task = asyncio.current_task()
        in_a_task = task is not self._task
        goes_on = not in_a_task or task is self._last or not is_waited_for(task)
        if order.meet(step.hash) and goes_on and not self._waiting and self._follows():
            self._give()
            # At the time other tasks could begin, unless a plain function kept the loop.
            if in_a_task and (function is None or is_async(function)):
                self._fresh = given.get()
            return None
        return self._await_turn(step.hash, step)

    async def park(self, step: Step) -> None:
        """Wait where the handler cut a step off in an earlier call, until it does so again.

        Returns:
            When it does not: its code has changed.

        Raises:
            CancelledError: it did.
        """
        run = self._scope.run
        cut = None if run.cuts is None else run.cuts.earlier(step.hash)
        if run.cuts is None or cut is None:
            return
        if self._closed:
            raise asyncio.CancelledError(ENOUGH)
        key, order = run.cuts.entry_of(step.hash), run.earlier.order
        is_next = order is not None and order.meet(key)
        turn = self._enter(key, parked=True)
        limit = self._be_patient(turn, cut, step, "cut off")
        try:
            if not cut.raised:
                self.kept.cancel_late()
                await turn.future
                return
            raise asyncio.CancelledError
        except asyncio.CancelledError:
            limit.cancel()
            if not self._closed:
                turn.parked = False
                at_once = is_next and self._waiting == [turn] and self._follows()
                if order is not None and not at_once:
                    await self._again(turn)
                self._give()
            raise
        finally:
            limit.cancel()
            self._leave(turn)

    async def _await_cancellation(self, step: Step, late: Cut) -> None:
        """Wait with a step for the cancellation that came just after its end."""
        if self._closed:
            raise asyncio.CancelledError(ENOUGH)
        order = self._scope.run.earlier.order
        if order is not None:
            order.meet(step.hash)
        turn = self._enter(step.hash, parked=True)
        limit = self._be_patient(turn, late, step, "cancelled as it ended")
        try:
            is_cancelled = False
            try:
                self.kept.cancel_late()
                await turn.future
            except asyncio.CancelledError:
                if self._closed:
                    raise
                is_cancelled = True
            turn.parked = False
            await self._again(turn)
            if is_cancelled:
                self.kept.keep()
            self._give()
        finally:
            limit.cancel()
            self._leave(turn)

    async def let_others_begin(self) -> None:
        """Wait before another step is met, if the last one was given back at once.

        At the time it took a while, in which other tasks began. Two that use the same step id get
        its numbers in the order in which they come to it.
        """
        if self._fresh is not None and self._fresh is given.get():
            for _ in range(_BEGIN_TICKS):
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    if self._closed:
                        raise
                    self.kept.keep()
            self._fresh = None

    async def come_after(self, step: Step | None, *, ended: bool) -> None:
        """Let what is new come after all that is remembered and was met, and after what other tasks
        still make of the last end: in later calls they have that time, too.

        Args:
            step: what is new, if that is a step.
            ended: it has ended, and gives what it gave to its task, even if that is cancelled.
        """
        if self._closed:
            return
        alone = not self._waiting and not self._scope.run.running
        if self._waiting or (self._ticks and not (alone and self._follows())):
            await self._await_turn(NEW, step, ended)
        elif not alone or asyncio.current_task() is not self._task:
            # What waits for this task may have been cancelled in the same moment.
            await self._await_turn(NEW, step, ended, _BEGIN_TICKS)

    async def _await_turn(
        self, key: str, step: Step | None, ended: bool = True, ticks: int = SETTLE_TICKS
    ) -> None:
        turn = self._enter(key, parked=False)
        self._start(ticks)
        try:
            try:
                await turn.future
            except asyncio.CancelledError:
                if self._closed:
                    raise
                # Whatever cancels it comes too early: at the time, the step had ended before.
                if key == NEW and ended:
                    turn.key, turn.late = LATE, step
                await self._again(turn)
                if ended:
                    self.kept.keep()
                self._note_late(turn)
            self._give()
        finally:
            self._leave(turn)

    def _be_patient(self, turn: Turn, cut: Cut, step: Step, what: str) -> asyncio.TimerHandle:
        """Set the time until which a step waits for what ended it in an earlier call."""
        seconds = cut.after_ns / 1e9 + PATIENCE
        return self.loop.call_later(seconds, self._too_long, turn, step, what)

    def _too_long(self, turn: Turn, step: Step, what: str) -> None:
        """Let a step continue that nothing cuts off, or cancels, any more."""
        if turn.future.done():
            return
        run = self._scope.run
        if run.running > len(self._waiting):  # other steps are at work, and may cut it off
            self.loop.call_later(PATIENCE, self._too_long, turn, step, what)
            return
        logger.warning(
            "stephttp: run %s: step %r was %s in an earlier call, and is not in this one, so the "
            "code around it must have changed; it continues", run.run_id, step.step_id, what,
        )  # fmt: skip
        turn.future.set_result(None)
