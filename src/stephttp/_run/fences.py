"""Whether a call may start another step: it may have been superseded by another process, or have
lost its run (docs/design.md 3.13).

A process that only looks dead, because it was stopped or cut off from the engine, is replaced after
a while. All that it does from then on may have been done and acknowledged elsewhere. So it has a
time within which the engine does not replace it, and does not begin a step beyond that before it
knows better:

    a re-entry    for `ASKS_AFTER` since the engine has acknowledged something; then it asks
    a first call  for the length of its lease, since it was last renewed; then it leaves the run

Where nothing fences a call (`performant` without a key), no other call can take its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stephttp._run import cut_steps

if TYPE_CHECKING:
    from stephttp._client.flow import Flow
    from stephttp._run.step_call import StepCall


class Fence(Protocol):
    """Stands before the steps of one call."""

    @property
    def closed(self) -> bool:
        """Whether a step may not begin now."""
        ...

    def ask(self) -> Flow[None]:
        """Find out whether this call counts, and tell the run, which decides."""
        ...


async def pass_fence(fence: Fence, call: StepCall) -> None:
    """Ask before the body of a step begins. Afterwards `call` may have to wait."""
    try:
        await call.scope.drive(fence.ask())
    except BaseException as error:
        _left(call, error)
        raise
    call.reconsider()


def pass_fence_blocking(fence: Fence, call: StepCall) -> None:
    """Do the same while this thread waits, unless that would stop the event loop it waits for."""
    scope = call.scope
    if not scope.holds_up_loop():
        try:
            scope.block(fence.ask())
        except BaseException as error:
            _left(call, error)
            raise
    call.reconsider()


def _left(call: StepCall, error: BaseException) -> None:
    """Note that a step ends before its body has begun."""
    scope = call.scope
    cut_steps.left(scope, call.step, error, scope.now_ns())
    scope.recorded()
