"""A call of the handler that leaves steps to another call: because the server asked for one step,
or because its time (`max_runtime`) is over.

A server may ask for one step of those that were planned (`target`). Then only that step is
executed, its end suspends the handler, and all others that are not remembered are passed over.

A call leaves the next step to another one when its time is over, or when another process has the
run by now; and all steps, once the run has ended elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from stephttp._core.call_state import ENDED, CallState
from stephttp._core.steps import EXECUTE, SUSPEND, Step, Verdict
from stephttp._core.waits import Wait
from stephttp._wire.ids import hash_step_id
from stephttp._wire.opcodes import Op, OpCode

if TYPE_CHECKING:
    from stephttp._wire.limits_of_run import RunLimits


class PartialCall(CallState):
    """One call of a handler, which may be one of many. `Run` sets its attributes."""

    __slots__ = ("_progressed", "limits", "run_id")

    run_id: str
    _progressed: bool
    """Whether this call has done something new, or has nothing to pass over."""
    limits: RunLimits | None
    """What its later calls have to pass."""

    # Few runs come to these, so they are not set in each one.
    passed: Sequence[Step] = ()
    """Steps that were met and not executed, because the server asked for another."""
    passed_waits: Mapping[str, Wait] = {}
    """What those of them ask for that a server carries out, by hash."""
    _handed_over: bool = False

    @property
    def targets_unknown(self) -> bool:
        """True if the server asked for a step that this handler did not come to."""
        return self.target is not None and self.target not in self.earlier.memos

    def limit(self, limits: RunLimits) -> None:
        """Set what later calls of the run have to pass, if it has not ended; see `configure`."""
        if self.state is not ENDED:
            self.limits = limits

    def expire(self) -> None:
        """Leave the next step to another call: the time is over, or the run was taken over."""
        self.expired = True

    def stop(self) -> None:
        """Begin no further step: the server says that this run has ended."""
        self.over = True

    def yield_to_another_run(self) -> None:
        """End the handler without asking for another call: another run answers this request."""
        self._wait()
        self._stops += 1  # it cannot be given up

    def leave_end(self) -> bool:
        """Leave the answer to another call, which has the run by now. Returns whether, because the
        response has not begun, and nothing waits."""
        if self.cannot_wait is not None or self.suspended or self.state is ENDED:
            return False
        op_id = hash_step_id(f"stephttp:again:end:{self.run_id}")
        self.unreported.requests.append(Op(OpCode.DISCOVERY_REQUEST, op_id))
        self.yield_to_another_run()
        return True

    def reconsider(self, step: Step) -> Step:
        """Decide again about a step that has the verdict EXECUTE and has not begun."""
        lost = self.expired and not self.resumed  # a re-entry has to make progress
        if (self.over or lost) and self._is_left(step):
            self.running -= 1
            return replace(step, verdict=SUSPEND)
        return step

    def _pass_over(self, step: Step) -> None:
        """Note that a step is not executed, because the server asked for another."""
        self.passed = [*self.passed, step]
        self._wait()

    def _after(self, step: Step) -> Verdict:
        if self.target is None or self.state is ENDED:
            return EXECUTE
        if self.unreported.holds_back(step.hash):
            self.target = None  # its writes last only if the handler continues
            return EXECUTE
        self._wait()
        return SUSPEND

    def _is_left(self, step: Step) -> bool:
        """Leave a step to another call, where that is to continue the run. Returns whether."""
        if self.over and self.state is not ENDED:
            self._wait()
            return True
        return self.expired and self._hands_over(step)

    def _hands_over(self, step: Step) -> bool:
        """Ask to be called again rather than run `step`, where that is possible.

        A call that has done nothing yet continues, or the run would never end.
        """
        if self.cannot_wait is not None or self.state is ENDED or not self._progressed:
            return False
        if not self._handed_over:
            self._handed_over = True
            # A server takes the same id twice for the same wish.
            op_id = hash_step_id(f"stephttp:again:{step.hash}:{len(self.earlier.memos)}")
            self.unreported.requests.append(Op(OpCode.DISCOVERY_REQUEST, op_id, step.step_id))
        self._wait()
        return True
