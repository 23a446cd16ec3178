"""Step tools for plain `def` handlers: `from stephttp.sync import step`.

They block, and end a handler that must wait with `stephttp.Suspended`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from stephttp._context import current_run, run_scope

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["step"]


class step:
    """The step tools, blocking. Not to be instantiated."""

    @staticmethod
    def run(step_id: str, handler: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function once in the life of a request; see `stephttp.step.run`.

        Raises:
            Suspended: the step failed and will be retried in a later call of the handler.
        """
        scope = current_run.get()
        if scope is None:
            return handler(*args, **kwargs)
        if scope.claim is not None and not scope.settle_claim_blocking():
            raise scope.leave(step_id)
        call = scope.meet(step_id, handler)
        if call.executes:
            with call:
                call.complete(handler(*args, **kwargs))
        if call.suspended:
            raise scope.leave(step_id)
        result: T = call.result()
        return result

    @staticmethod
    def sleep(step_id: str, duration: timedelta) -> None:
        """Let the run sleep; see `stephttp.step.sleep`. Raises `Suspended` to end this call."""
        _wait("sleep", step_id, duration)

    @staticmethod
    def sleep_until(step_id: str, until: datetime) -> None:
        """Let the run sleep until a time; see `stephttp.step.sleep_until`. Raises `Suspended`."""
        _wait("sleep_until", step_id, until)


def _wait(tool: str, step_id: str, until: Any) -> None:
    scope = run_scope(tool)
    if scope.claim is not None and not scope.settle_claim_blocking():
        raise scope.leave(step_id)
    call = scope.sleep(step_id, until)
    if call.suspended:
        raise scope.leave(step_id)
    call.result()
