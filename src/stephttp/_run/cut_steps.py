"""Steps that the handler cuts off (timeout, race, cancellation), and those that it cut off in an
earlier call and now does not.

`_core.cuts` says what becomes of them.
"""

from __future__ import annotations

from stephttp._core.steps import EXECUTE, Step
from stephttp._core.waits import Wait
from stephttp._run.echoes import is_being_cancelled, is_cancellation
from stephttp._run.scope import RunScope


def again(scope: RunScope, step: Step, *, body: bool = False) -> Step:
    """Take back that a step was cut off in an earlier call: it is not in this one.

    Args:
        body: its body begins.
    """
    with scope.lock:
        return scope.run.renew(step, scope.now_ns(), body=body)


def wait_again(scope: RunScope, step: Step, wait: Wait) -> Step:
    """Have the server carry out a step that was cut off in an earlier call."""
    with scope.lock:
        step = scope.run.renew(step, scope.now_ns())
        return scope.run.request(step, wait) if step.verdict is EXECUTE else step


def left(scope: RunScope, step: Step, error: BaseException | None, started_ns: int) -> None:
    """Note that the body of a step neither returned nor failed; see `cuts`."""
    times = scope.times(started_ns)
    with scope.lock:
        if error is None or not is_cancellation(error):
            scope.run.abandon(step)
        else:
            scope.run.cut_off(step, times, raised=not is_being_cancelled())
