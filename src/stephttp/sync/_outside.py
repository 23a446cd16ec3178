"""The blocking step tools outside of requests: those of another SDK's run; or, without a run,
functions are called, and what would have to wait is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic_ns
from typing import Any

from stephttp._core.step_options import StepOptions
from stephttp._core.tool_types import Event
from stephttp._core.waits import Wait
from stephttp._run.other_runs import OutsideTools, other_tools, outside_refused
from stephttp._run.supervised import supervise_blocking
from stephttp.sync._plain_functions import refuse_coroutine
from stephttp.sync._threads import side_by_side


class _NoRun:
    """The tools where there is no run."""

    def run(
        self,
        options: StepOptions,
        step_id: str,
        handler: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        if options.supervised:
            invoke = partial(handler, *args, **kwargs)
            return supervise_blocking(options, step_id, monotonic_ns, invoke)
        return refuse_coroutine(handler(*args, **kwargs), f"step {step_id!r}")

    def send_event(self, step_id: str, events: list[Event]) -> Any:
        raise outside_refused("send_event")

    def request(self, tool: str, wait: Wait) -> Any:
        raise outside_refused(tool)

    def parallel(self, callables: Iterable[Callable[[], Any]]) -> Any:
        return side_by_side(None, callables)

    def begin_race(self, tool: str, step_id: str) -> None:
        """Let it begin: its winner is not kept."""


_NO_RUN = _NoRun()


def outside() -> OutsideTools:
    """Return the tools for the current code, which no request has called.

    Raises:
        UsageError: it belongs to an async function of another SDK.
    """
    return other_tools(blocking=True) or _NO_RUN
