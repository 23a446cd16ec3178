"""The pushes of the current code, for the tools of `stream`: which run's, or an error outside
of one.
"""

from __future__ import annotations

from typing import Any

from stephttp._core.pushed_values import encode_push
from stephttp._run.current import current_call
from stephttp._run.places import enclosing_step
from stephttp._run.run_stream import RunStream
from stephttp._run.step_call import StepCall


def push(value: Any, inside: StepCall | None = None) -> RunStream | None:
    """Push a value to those who follow the current run, if there is a run.

    Args:
        inside: the step that pushes; `None`: that whose body the current code belongs to.

    Raises:
        ValueError: the value has no JSON form.
    """
    raw = encode_push(value)
    call = current_call.get()
    if call is None or call.left:
        return None
    scope = call.scope()
    stream = scope.stream or scope.open_stream()
    if stream is not None:
        stream.push(raw, inside or enclosing_step())
    return stream
