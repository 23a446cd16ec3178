"""The async step tools in code that belongs to no run: functions are called, and what would have to
wait is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic_ns
from typing import Any

from stephttp._core.step_options import StepOptions
from stephttp._core.tool_types import Event
from stephttp._core.waits import Wait
from stephttp._run.other_runs import outside_refused
from stephttp._run.supervised import supervise
from stephttp.step._branches import called, side_by_side


class _NoRun:
    """The tools where there is no run."""

    async def run(
        self,
        options: StepOptions,
        step_id: str,
        handler: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        if options.supervised:
            invoke = partial(handler, *args, **kwargs)
            return await supervise(options, step_id, monotonic_ns, invoke)
        return await called(handler, *args, **kwargs)

    async def send_event(self, step_id: str, events: list[Event]) -> Any:
        raise outside_refused("send_event")

    async def request(self, tool: str, wait: Wait) -> Any:
        raise outside_refused(tool)

    async def parallel(self, callables: Iterable[Callable[[], Any]]) -> Any:
        return await side_by_side(None, callables)

    def begin_race(self, tool: str, step_id: str) -> None:
        """Let it begin: its winner is not kept."""


NO_RUN = _NoRun()
"""What the tools do in code that belongs to no run at all."""
