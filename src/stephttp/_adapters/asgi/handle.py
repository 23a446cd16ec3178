"""A request from outside, as the context of its handler knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stephttp._adapters.asgi.scope import Home, LoopScope
from stephttp._core.run import Run
from stephttp._run.scope import RunScope

if TYPE_CHECKING:
    from stephttp._adapters.asgi.first_call import Live


class Handle:
    """The current call; see `Current`.

    Timers and tasks copy the context and may keep it for long, so what belongs to the request is
    let go of at its end.
    """

    __slots__ = ("_call", "_home", "_scope", "run_id", "runtime")

    replaying = False

    def __init__(self, call: Live, home: Home) -> None:
        self.runtime = call.runtime
        self.run_id = call.run_id
        self._home = home
        self._call: Live | None = call
        self._scope: RunScope | None = None

    @property
    def request(self) -> tuple[Any, ...]:
        """What tells the request from others, while it lasts."""
        call = self._call
        return () if call is None else call.told_apart

    @property
    def over(self) -> bool:
        """Whether the handler has ended."""
        return self._call is None

    def open(self) -> RunScope:
        """The run's scope. May be called in any thread."""
        call = self._call
        return self._late() if call is None else call.open()

    def leave(self, scope: RunScope | None) -> None:
        """The handler has ended, as the run of `scope`, if it has come to one."""
        self._scope = scope
        self._call = None

    def _late(self) -> RunScope:
        """What goes on after the answer goes on as if there were no steps."""
        with self.runtime.opening:
            if self._scope is None:
                run = Run(self.run_id)
                run.end()
                self._scope = LoopScope(self.runtime, run, home=(self._home[0], None, 0))
            return self._scope
