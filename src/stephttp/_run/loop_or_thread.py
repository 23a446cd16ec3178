"""What differs between a handler on an event loop and one in a thread: how it waits, and ends.

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

    @abstractmethod
    async def come_after(self, step: Step, *, ended: bool) -> None:
        """Let the end of a step come after those beside it; see `LoopTurns.come_after`."""

    @abstractmethod
    async def park(self, step: Step) -> None:
        """Wait where an `async def` handler cut a step off before; see `LoopTurns.park`."""

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
