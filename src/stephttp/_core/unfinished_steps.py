"""Steps whose bodies did not return: they failed (whether they are tried again, or fail for good,
is decided here), were cut off, or abandoned.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from stephttp._core.call_state import ENDED, UNWINDING
from stephttp._core.partial_call import PartialCall
from stephttp._core.reports import step_op
from stephttp._core.steps import EXECUTE, SUSPEND, CutTimes, Step, Verdict
from stephttp._wire.opcodes import ErrorInfo, OpCode


class UnfinishedSteps(PartialCall):
    """What becomes of steps whose bodies did not return. `Run` sets its attributes."""

    __slots__ = ("_step_retries", "retries")

    retries: int
    """How often a failed step is retried, where it does not say so itself."""
    _step_retries: int
    """The most that a step which has failed said."""

    def fail(
        self,
        step: Step,
        error: ErrorInfo,
        started_ns: int,
        duration_ns: int,
        retry_after: str | None = None,
        opts: dict[str, Any] | None = None,
    ) -> Verdict:
        """Record that the body of `step` raised `error`.

        Args:
            retry_after: when to try again, in RFC 3339; `None` leaves it to the server.
            opts: what else is reported of it, such as its input.

        Returns:
            SUSPEND: the server will retry it. EXECUTE: continue, and raise the exception in the
            handler as in any Python code.
        """
        self.running -= 1
        step = self._beside_others(step)
        timing = self._after_others(started_ns, duration_ns)
        limit = self.retries if step.retries is None else step.retries
        failed = self.earlier.failed_before(step.hash)
        retry = limit > failed and error.no_retry is not True and self.cannot_wait is None
        if not retry or self.state is ENDED:
            self._record(step_op(step, OpCode.STEP_FAILED, opts=opts, error=error, timing=timing))
            return self._after(step)
        # A real server does not read these `opts`; the stephttp engine does (docs/design.md 3.8).
        opts = {**(opts or {}), "retries": limit}
        if retry_after is not None:
            opts["retry_after"] = retry_after
        self._step_retries = max(self._step_retries, limit)
        self._record(step_op(step, OpCode.STEP_ERROR, opts=opts, error=error, timing=timing))
        self._wait()
        return SUSPEND

    def abandon(self, step: Step) -> None:
        """Forget a `step` whose body neither returned nor failed, as if it had never started."""
        self.running -= 1
        self.cut_short = True

    def cut_off(self, step: Step, times: CutTimes, *, raised: bool = False) -> None:
        """Note that the body of `step` was cancelled; see `cuts`.

        Args:
            step: a step that was to be executed.
            times: when that was.
            raised: nothing cancelled it: the body itself raised `CancelledError`.
        """
        self.running -= 1
        self.cut_short = True
        self._note_cut(step, times, raised)

    def end_late(self, step: Step, times: CutTimes) -> None:
        """Note that `step` has ended, and that its branch was cancelled before it saw that."""
        cuts = self._cuts_here()
        if cuts is not None:
            cuts.note_late(step, self._after_others(times.ended_ns, 0), times.call_ns)

    def renew(self, step: Step, now_ns: int, *, body: bool = False) -> Step:
        """Take back that a step was cut off in an earlier call: nothing cuts it off any more.

        Args:
            step: the step.
            now_ns: the present time.
            body: on EXECUTE its body is run, and then reported as after `begin`.
        """
        self._progressed = True
        if self.state is UNWINDING:
            return replace(step, verdict=SUSPEND)
        if self.cuts is not None and self.state is not ENDED:
            self.unreported.finished.append(self.cuts.begin_again(step, now_ns))
        self.running += body
        return replace(step, verdict=EXECUTE)
