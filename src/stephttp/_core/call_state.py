"""Whether the handler of a run can progress in one call of it, and how that call ends (running,
waiting, unwinding, ended).

The states, and what each thing that happens does to them:

                 RUNNING     WAITING      UNWINDING    ENDED
    step body    execute     execute      suspend      execute, not recorded
    must wait    WAITING     WAITING      suspend      error: no caller is left to wait
    give up      -           RUNNING      -            -
    unwind       -           UNWINDING    -            -
    end          ENDED       UNWINDING    -            -

WAITING: at least one step waits for the server. Sibling steps may still run, and may start
further ones. The handler may cancel the branches that wait, because something else was faster; once
it has given up all of them, the state is RUNNING again. UNWINDING: none of them can progress any
more and the handler is being ended, or has ended; whatever it does from here on must leave no
trace. A handler may swallow what ends it, and its threads and tasks may outlive it: all that they
could do will be done by a later call. A step that is still running may finish, and is recorded.
ENDED: the response was the handler's own, so code that runs after it runs as if there were no
steps, and what it gave up is not asked for.

In WAITING and UNWINDING the reply is decided from the run, not from what the handler does: what
it sends is dropped (docs/design.md 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING

from msgspec import Raw
from msgspec.structs import replace

from stephttp._core.earlier_calls import NO_CALLS, EarlierCalls, cut_steps
from stephttp._core.remembered import Divergence
from stephttp._core.reports import Unreported
from stephttp._core.steps import NEVER, CutTimes, Step
from stephttp._wire.opcodes import Op, Timing
from stephttp._wire.stored_state import UNSURE, KnownStep

if TYPE_CHECKING:
    from stephttp._core.cuts import CutSteps

TOO_LATE = (
    "so the caller can no longer be redirected; wait before the first byte of the response is sent"
)


class State(Enum):
    RUNNING = auto()
    WAITING = auto()
    UNWINDING = auto()
    ENDED = auto()


# Looking a member up on its class costs four times as much, and each step does it often.
_RUNNING, _WAITING, UNWINDING, ENDED = State


class CallState:
    """What one call of a handler began with, what it is at, and what it has still to report.

    Each branch of the handler runs code of the handler's, executes the body of a step, or has come
    to a stop, because what comes next is for a later call.

    Args:
        memos: what the server remembers, by step hash; `None` for a new run.
        names: what steps that are, where the server says it.
        target: hash of the one step that the server asked for.
    """

    __slots__ = (
        "__dict__", "_holds", "_stops", "beside", "cannot_wait", "cuts", "earlier", "expired",
        "over", "pending", "resumed", "running", "state", "suspended", "target", "unreported",
    )  # fmt: skip

    # Few runs come to these, so they are not set in each one.
    branched: bool = False
    """True if steps of this call were at work side by side."""
    cut_short: bool = False
    """True if the handler gave a branch up that was at a step."""
    _last_end_ns: int = 0
    """When the last step ended, or was cut off, beside which others were at work."""

    def __init__(
        self,
        memos: Mapping[str, Raw] | None = None,
        names: Mapping[str, KnownStep] | None = None,
        target: str | None = None,
    ) -> None:
        self.resumed = memos is not None
        self.earlier = earlier = NO_CALLS if memos is None else EarlierCalls(memos, names)
        """What earlier calls left."""
        self.cuts: CutSteps | None = earlier.cuts
        """Steps that were cut off, if there are any."""
        self.unreported = Unreported()
        """What this call has recorded, as far as the server has not been given it."""
        self.target = target
        self.state = _RUNNING
        self.suspended = False
        """True if a wait has overtaken this call of the handler."""
        self.pending = False
        """True if the handler met a step that waits already, as the server says."""
        self.cannot_wait: str | None = None
        """Why this call cannot wait for the server any more; `None` while it can."""
        self.expired = False
        """True if the next step is left to another call (`max_runtime`, or taken over)."""
        self.over = False
        """True if the server says that this run has ended: no further step may begin."""
        self.beside = False
        """True if others were at work when the last step ended."""
        self.running = 0
        """How many step bodies are being executed, and how often the run is held."""
        self._holds = 0
        """How many of those that run are something else than step bodies."""
        self._stops = 0
        """How many branches of the handler cannot continue in this call."""

    @property
    def unwinding(self) -> bool:
        """True if the handler is being ended, or has ended, because the run has to wait."""
        return self.state is UNWINDING

    @property
    def stuck(self) -> bool:
        """True if the run has to wait, and no step body of it is being executed."""
        return self.suspended and self.running == 0

    @property
    def settled(self) -> bool:
        """True if no step body of this run is being executed."""
        return self.running == 0

    @property
    def finished_count(self) -> int:
        """The number of finished steps that are not taken yet, or soon will be."""
        return self.unreported.count + (0 if self.cuts is None else self.cuts.undecided)

    def response_began(self) -> None:
        """Note that the handler has sent the head of its response."""
        if self.cannot_wait is None:
            self.cannot_wait = f"the response has started, {TOO_LATE}"

    def refuse_waits(self, reason: str) -> None:
        """Refuse to wait for the server; `reason` completes "it has to wait, but ..."."""
        self.cannot_wait = reason

    def hold(self) -> None:
        """Keep the run unsettled while work is done for it outside of step bodies."""
        self.running += 1
        self._holds += 1

    def release(self) -> None:
        """End a `hold`."""
        self.running -= 1
        self._holds -= 1

    def give_up(self, step: Step | None = None, times: CutTimes = NEVER) -> None:
        """Note that the handler cancelled a branch that cannot continue in this call.

        Args:
            step: what the branch waits for, if that is a step. It is not asked for, or not waited
                for any more, once the handler continues.
            times: since when it has waited.
        """
        self.cut_short = True
        if self.state is _WAITING:
            if step is not None and self.target is None:
                self._note_cut(step, times)
            self._stops -= 1
            if not self._stops:
                self.state = _RUNNING
                self.suspended = False

    def leave_pending(self) -> None:
        """Note that the handler responds, although some of its branches cannot continue.

        What it has left behind is given up, if this call has asked the server for nothing: all
        that it waits for was asked for before, and something else was faster.
        """
        if self.state is _WAITING and self.pending and not self.unreported.requests:
            self._stops = 1
            self.give_up()

    def wait_after_all(self) -> None:
        """Wait for what was given up: the handler ended without a response."""
        if self.unreported.requests or self.pending:
            self._wait()

    def decide_cuts(self) -> None:
        """Note that the handler continues: what was cut off, it has cut off itself."""
        if self.cuts is not None and self.cuts.undecided and self.state is not ENDED:
            ops, hashes = self.cuts.decide()
            self.unreported.finished.extend(ops)
            self.unreported.withdraw(hashes)

    def forget_cuts(self) -> None:
        """Note that others have cancelled the request: what was cut off is to run later."""
        if self.cuts is not None:
            self.cuts.forget()

    def unwind(self) -> None:
        """Start to end the handler: nothing of this run can progress."""
        if self.state is _WAITING:
            self.decide_cuts()
            self.state = UNWINDING

    def end(self) -> None:
        """Note that the handler has ended."""
        if self.cuts is not None and not self.suspended:
            self.decide_cuts()
            if not self.resumed:  # no later call has to know
                finished, entries = self.unreported.finished, self.cuts.entries
                finished[:] = [op for op in finished if op.id not in entries]
        self.state = UNWINDING if self.suspended else ENDED
        if self.state is ENDED:
            self.unreported.requests.clear()  # given up

    def fail_instead(self) -> None:
        """End a run that would have to wait: steps that it relies on are not to be reported."""
        self.unreported.drop_held()
        self.unreported.give_up_waits()
        self.suspended = False
        self.state = ENDED

    def divergences(self, *, ended: bool) -> list[Divergence]:
        """Return what is remembered and does not fit the handler, as far as it is certain.

        Args:
            ended: the handler has responded, and so ended the run.
        """
        if not self.resumed or self.target is not None or self.over:
            return []
        found = self.earlier.divergences(ended=ended)
        if found and (self.branched or self.earlier.side_by_side):
            self.branched = True
            # A branch that was given up might have come to what seems to be left over.
            if not ended or self.cut_short or self.pending:
                return []
        return found

    def remembers(self, step_id: str) -> bool:
        """Return whether a step with this id, to come yet, has ended in an earlier call."""
        return self.resumed and self.earlier.has_left(step_id)

    def remember(self, memos: Mapping[str, Raw]) -> None:
        """Replace what the server remembers of some steps."""
        if not self.resumed:
            self.earlier = EarlierCalls({})
        self.earlier.replace(memos)

    def take_finished(self) -> list[Op]:
        """Take the finished steps, but for one that belongs into the answer, and those that are
        held back."""
        return [] if self.target is not None else self.unreported.take_finished()

    def _wait(self) -> None:
        """Stop a branch of the handler."""
        self._stops += 1
        if self.state is _RUNNING:
            self.state = _WAITING
            self.suspended = True

    def _record(self, op: Op) -> None:
        if self.state is not ENDED:
            self.unreported.add(op)

    def _note_cut(self, step: Step, times: CutTimes, raised: bool = False) -> None:
        """Note that the handler, or others, have cut a step off."""
        cuts = self._cuts_here()
        if cuts is not None:
            duration_ns = max(0, times.ended_ns - times.started_ns)
            timing = self._after_others(times.started_ns, duration_ns)
            cuts.note(self._beside_others(step), timing, times.call_ns, raised)

    def _cuts_here(self) -> CutSteps | None:
        """Return the steps that were cut off, to note another one; `None` if it leaves no trace."""
        if self.cuts is None and self.state in (_RUNNING, _WAITING):
            self.cuts = cut_steps(self.earlier.memos)
        return self.cuts if self.state in (_RUNNING, _WAITING) else None

    def _after_others(self, started_ns: int, duration_ns: int) -> Timing:
        """Return the times of a step that ends now. They put it after all that ended before in this
        call, even in the same moment, or before the clock was set back."""
        self.beside = self.running > 0 or self._stops > 0
        self._last_end_ns = max(started_ns + duration_ns, self._last_end_ns + 1)
        return Timing(started_ns, self._last_end_ns - started_ns)

    def _beside_others(self, step: Step) -> Step:
        """Return a step to be reported, marked if others are at work beside it."""
        if step.branch or not (self.running - self._holds or self._stops):
            return step
        self.branched = True
        return replace(step, branch=UNSURE)
