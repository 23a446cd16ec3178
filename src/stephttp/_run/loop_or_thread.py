"""The differences between a handler on an event loop and one in a thread: how it waits, and how it
is ended.

Each adapter has a kind of its own: `_adapters.asgi.scope`, `_adapters.wsgi.scope`. A WSGI server's
threads may run event loops, too, because frameworks run `async def` views there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from stephttp._core.steps import Step
from stephttp._run.hooks import awaiting

if TYPE_CHECKING:
    from stephttp._client.background import TimerHandle
    from stephttp._client.flow import Flow, T
    from stephttp._run.loop_turns import LoopTurns


SETTLE_TICKS = 16
"""Turns of the event loop after which code that only passes results on (gather, task groups,
nested in each other) has come to its next step: each level of nesting takes two or three."""


class LoopOrThread(ABC):
    """Where the handler of a run lives."""

    __slots__ = ()

    @abstractmethod
    def dispatch(self, callback: Callable[[], None]) -> None:
        """Call `callback` where this run does its book-keeping, now or soon."""

    @abstractmethod
    def later(self, seconds: float, call: Callable[[], None]) -> TimerHandle:
        """Call something after so many seconds, from where this run does its book-keeping."""

    @abstractmethod
    async def drive(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API, for an `async def` handler."""

    @abstractmethod
    def block(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API while this thread waits, for the blocking tools."""

    @abstractmethod
    async def suspend(self, step: Step | None = None) -> None:
        """Wait where an `async def` handler cannot continue, until it is ended. Never returns.

        Args:
            step: what it waits for, if that is a step.
        """

    @abstractmethod
    def turn(self, step: Step, function: Callable[..., Any] | None) -> Awaitable[None] | None:
        """Return what to wait for before a remembered step is given back; `None`: nothing.

        See `LoopTurns.turn`.
        """

    def turns_here(self) -> LoopTurns:
        """Return the turns of remembered steps on the current event loop."""
        raise NotImplementedError  # where `come_after` and `park` need none

    async def come_after(self, step: Step, *, ended: bool) -> None:
        """Let the end of a step come after those beside it; see `LoopTurns.come_after`."""
        await self.turns_here().come_after(step, ended=ended)

    async def park(self, step: Step) -> None:
        """Wait where an `async def` handler cut a step off before; see `LoopTurns.park`."""
        await self.turns_here().park(step)

    def handler_begins(self) -> None:  # noqa: B027 - a thread has no tasks
        """Note that a decorated handler begins; it may do so in a task of its own."""

    def handler_ends(self) -> None:  # noqa: B027
        """Note that a decorated handler has ended."""

    def cancelled_in_handler(self, error: BaseException | None) -> bool:
        """Take back what ended a decorated handler, so that code behind it may await again.

        Returns:
            Whether others have cancelled it as well.
        """
        return False

    def look_aside(self) -> object:
        """See which tasks the handler has, beside the one in which this runs."""
        return None

    def left_branches(self) -> bool:
        """Whether branches of the handler may have been left behind that are not at a step."""
        return False

    @abstractmethod
    def unwind_when_stuck(self) -> None:
        """End the handler if none of its steps can progress. Called after the end of a step."""

    def holds_up_loop(self) -> bool:
        """Return whether blocking here would stop the event loop on which the SDK works."""
        return False

    def wait_for(self, awaitable: Awaitable[Any]) -> Any:
        """Have something of the user's middleware awaited while this thread waits."""
        try:
            return self.block(awaiting(awaitable))
        finally:
            if isinstance(awaitable, Coroutine):  # where it was refused
                awaitable.close()
