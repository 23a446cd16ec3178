"""The state machine of one run in one call of the handler.

A run is started by a request, or resumed by a re-entry. The handler asks it what to do at each
step, and it answers with one of four verdicts:

    MEMOIZED   the step is finished; here is what it gave
    EXECUTE    run the step's body, then call `complete`, `fail`, `cut_off` or `abandon`, exactly
               one of them
    SUSPEND    the step has to wait for the server; this call of the handler cannot pass it
    CUT        the handler cut the step off in an earlier call; it does not end (see `cuts`)

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

What happens outside of steps is reported to the run by methods that say what it was:

    response_began, refuse_waits   the caller can no longer be redirected: what must wait is an
                                   error at the step, and a failed step is final
    expire                         another call is to continue: the next step is left to it, unless
                                   this call has done nothing yet
    configure                      the endpoint's options; its retries decide what a failure does
    track                          the run counts even if it comes to no step
    resume_at                      what earlier calls left: attempts, failures, carried texts
    middleware_began,              between the two a failure is the middleware's, and the handler
    handler_reached                was never called

The attributes are for reading elsewhere; only this module changes them.

In WAITING and UNWINDING the reply is decided from the run, not from what the handler does: what
it sends is dropped (docs/design.md 3.1).

A server may ask for one step of those that were planned (`target`). Then only that step is
executed, its end suspends the handler, and all others that are not remembered are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from msgspec import Raw
from msgspec.structs import replace

from stephttp._core.earlier_calls import NO_CALLS, EarlierCalls, cut_steps
from stephttp._core.endpoint_options import DEFAULT_OPTS
from stephttp._core.http_steps import gateway_opts
from stephttp._core.remembered import Divergence, next_index
from stephttp._core.reports import Unreported, step_op
from stephttp._core.steps import (
    CUT,
    EXECUTE,
    MEMOIZED,
    NEVER,
    SUSPEND,
    CutTimes,
    Step,
    Verdict,
    choices_op,
    discovery_request,
    plain_id,
    user_hash,
)
from stephttp._core.waits import Wait
from stephttp._wire.ids import hash_step_id, idempotency_key
from stephttp._wire.opcodes import GATEWAY_OPS, ErrorInfo, Op, OpCode, Timing, Userland
from stephttp._wire.stored_state import UNSURE, KnownStep, MemoKind, read_memo
from stephttp.errors import CannotWaitError, DivergenceError

if TYPE_CHECKING:
    from stephttp._core.cuts import CutSteps

_NONE: Mapping[str, Any] = {}
_TOO_LATE = (
    "so the caller can no longer be redirected; wait before the first byte of the response is sent"
)


class State(Enum):
    RUNNING = auto()
    WAITING = auto()
    UNWINDING = auto()
    ENDED = auto()


# Looking a member up on its class costs four times as much, and each step does it often.
_RUNNING, _WAITING, _UNWINDING, ENDED = State
_STEP_RUN = OpCode.STEP_RUN


class Run:
    """One run, in one call of the handler. Not thread-safe; the caller serialises.

    Args:
        run_id: ULID.
        memos: what the server remembers, by step hash; `None` for a new run.
        names: what steps that are, where the server says it.
        retries: how often a failed step is retried; 0 gives its exception to the handler.
        target: hash of the one step that the server asked for.
        attempt: how often this call failed before, where the server counts calls and not steps.
    """

    __slots__ = (
        "__dict__",
        "_holds",
        "_progressed",
        "_running",
        "_stops",
        "_uses",
        "beside",
        "cannot_wait",
        "cuts",
        "earlier",
        "expired",
        "opts",
        "over",
        "pending",
        "resumed",
        "retries",
        "run_id",
        "state",
        "suspended",
        "target",
        "unreported",
        "used",
    )

    # Few runs come to these, so they are not set in each one.
    attempt: int = 0
    """How often this call failed before, where the server counts calls and not steps."""
    failures: Mapping[str, int] = _NONE
    """How often steps have failed before, by hash, where the server counts steps."""
    carried: dict[str, str] | None = None
    """Texts that middleware keeps for later calls."""
    passed: Sequence[Step] = ()
    """Steps that were met and not executed, because the server asked for another."""
    unreached: bool = False
    """True if middleware failed before the handler was called."""
    branched: bool = False
    """True if steps of this call were at work side by side."""
    cut_short: bool = False
    """True if the handler gave a branch up that was at a step."""
    diverged: DivergenceError | None = None
    """What was raised at a step that is of another kind than the remembered one."""
    _handed_over: bool = False
    _step_retries: int = 0

    def __init__(
        self,
        run_id: str,
        memos: Mapping[str, Raw] | None = None,
        retries: int = 0,
        *,
        names: Mapping[str, KnownStep] | None = None,
        target: str | None = None,
        attempt: int = 0,
    ) -> None:
        self.run_id = run_id
        self.resumed = resumed = memos is not None
        self.earlier = earlier = NO_CALLS if memos is None else EarlierCalls(memos, names)
        """What earlier calls left."""
        self.cuts: CutSteps | None = earlier.cuts
        """Steps that were cut off, if there are any."""
        self.unreported = Unreported()
        """What this call has recorded, as far as the server has not been given it."""
        self.retries = retries
        self.target = target
        if attempt:
            self.attempt = attempt
        self.pending = False
        """True if the handler met a step that waits already, as the server says."""
        self.opts = DEFAULT_OPTS
        """The options that the endpoint was configured with."""
        self.state = _RUNNING
        self.suspended = False
        """True if a wait has overtaken this call of the handler."""
        self.cannot_wait: str | None = None
        """Why this call cannot wait for the server any more; `None` while it can."""
        self.used = resumed
        """True if any step was met: a run without steps is not reported."""
        self.expired = False
        """True if another call is to continue this run from the next step on: its time is over
        (`max_runtime`), or another process has taken it over."""
        self.over = False
        """True if the server says that this run has ended: no further step may begin."""
        self._progressed = not resumed
        self.beside = False
        """True if others were at work when the last step ended."""
        self._uses: dict[str, int] = {}
        """How often each step id was used, so that a step in a loop gets an id a turn."""
        self._running = 0
        self._holds = 0
        """How many of those that run are something else than step bodies."""
        self._stops = 0
        """How many branches of the handler cannot continue in this call."""

    @property
    def replaying(self) -> bool:
        """True if the handler still passes over finished steps, so that nothing it does is new."""
        return self.earlier.unseen > 0 and not self._progressed

    @property
    def unwinding(self) -> bool:
        """True if the handler is being ended, or has ended, because the run has to wait."""
        return self.state is _UNWINDING

    @property
    def settled(self) -> bool:
        """True if no step body of this run is being executed."""
        return self._running == 0

    @property
    def running(self) -> int:
        """How many step bodies are being executed, and how often the run is held."""
        return self._running

    @property
    def declared_retries(self) -> int:
        """The retries that the server has to allow, so that each step can have its own."""
        return max(self.retries, self._step_retries)

    @property
    def targets_unknown(self) -> bool:
        """True if the server asked for a step that this handler did not come to."""
        return self.target is not None and self.target not in self.earlier.memos

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

    @property
    def met_none(self) -> bool:
        """True if the server remembers steps, or failures of steps, and the handler met none."""
        if not self.resumed or self._uses:
            return False
        return self.earlier.has_steps or bool(self.failures) or self.target is not None

    def response_began(self) -> None:
        """Note that the handler has sent the head of its response."""
        if self.cannot_wait is None:
            self.cannot_wait = f"the response has started, {_TOO_LATE}"

    def refuse_waits(self, reason: str) -> None:
        """Refuse to wait for the server; `reason` completes "it has to wait, but ..."."""
        self.cannot_wait = reason

    def expire(self) -> None:
        """Leave the next step to another call: the time is over, or the run was taken over."""
        self.expired = True

    def stop(self) -> None:
        """Begin no further step: the server says that this run has ended."""
        self.over = True

    def configure(self, **given: Any) -> None:
        """Set options of the endpoint, by the names that they have in `FnOpts`."""
        self.opts = replace(self.opts, **given)
        if self.opts.retries is not None:
            self.retries = self.opts.retries
        if self.resumed:
            self.earlier.fail_on_divergence(self.opts.on_divergence == "fail")

    def track(self) -> None:
        """Count this run even if it comes to no step."""
        self.used = True

    def resume_at(self, attempt: int, failures: Mapping[str, int]) -> None:
        """Take over what the server says of earlier calls.

        Args:
            attempt: how often this call failed before; 0 where the server counts steps.
            failures: how often steps that are not done failed before, by hash.
        """
        self.attempt = attempt
        self.failures = failures

    def carry(self, texts: dict[str, str] | None) -> None:
        """Restore what middleware kept in earlier calls."""
        self.carried = texts

    def middleware_began(self) -> None:
        """Note that middleware runs before the handler is called."""
        self.unreached = True

    def handler_reached(self) -> None:
        """Note that the handler is about to be called."""
        self.unreached = False

    def begin(self, step_id: str, retries: int | None = None, branch: str = "") -> Step:
        """Meet a step that runs in this process. On EXECUTE, complete, fail or abandon it.

        Args:
            retries: its own number of retries; `None` for the run's.
            branch: of the handler, where it is known.
        """
        step = self.resolve(step_id, retries, branch)
        if step.verdict is EXECUTE:
            if self.over and self.state is not ENDED:
                self._wait()
                return Step(SUSPEND, step_id, step.index, step.hash)
            if self.expired and self._hands_over(step):
                return Step(SUSPEND, step_id, step.index, step.hash)
            self._running += 1
            self._progressed = True
        return step

    def complete(
        self,
        step: Step,
        data: bytes,
        started_ns: int,
        duration_ns: int,
        opts: dict[str, Any] | None = None,
        kept: bytes | None = None,
    ) -> Verdict:
        """Record that the body of `step` returned `data` (JSON).

        Args:
            opts: what else is reported of it, such as its input.
            kept: which members of unions it returned (JSON), where `data` leaves that open.

        Returns:
            EXECUTE: continue. SUSPEND: it was the one step that the server asked for.
        """
        self._running -= 1
        if self.state is not ENDED:
            name, timing = step.step_id, Timing(started_ns, duration_ns)
            self.beside = False
            if self._running or self._stops:
                self.beside = True
                step = self._beside_others(step)
            userland = Userland(name, step.index or None, step.branch)
            if kept is not None:  # before the result, which must never be stored without it
                self.unreported.finished.append(choices_op(step, kept))
            self.unreported.finished.append(
                Op(_STEP_RUN, step.hash, name, name, opts, Raw(data), None, timing, userland)
            )
        return EXECUTE if self.target is None else self._after()

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
        self._running -= 1
        step = self._beside_others(step)
        timing = Timing(started_ns, duration_ns)
        limit = self.retries if step.retries is None else step.retries
        failed = self.failures.get(step.hash, self.attempt)
        retry = limit > failed and error.no_retry is not True and self.cannot_wait is None
        if not retry or self.state is ENDED:
            self._record(step_op(step, OpCode.STEP_FAILED, opts=opts, error=error, timing=timing))
            return self._after()
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
        self._running -= 1
        self.cut_short = True

    def cut_off(self, step: Step, times: CutTimes, *, raised: bool = False) -> None:
        """Note that the body of `step` was cancelled; see `cuts`.

        Args:
            step: a step that was to be executed.
            times: when that was.
            raised: nothing cancelled it: the body itself raised `CancelledError`.
        """
        self._running -= 1
        self.cut_short = True
        self._note_cut(step, times, raised)

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

    def renew(self, step: Step, now_ns: int, *, body: bool = False) -> Step:
        """Take back that a step was cut off in an earlier call: nothing cuts it off any more.

        Args:
            step: the step.
            now_ns: the present time.
            body: on EXECUTE its body is run, and then reported as after `begin`.
        """
        self._progressed = True
        if self.state is _UNWINDING:
            return replace(step, verdict=SUSPEND)
        if self.cuts is not None and self.state is not ENDED:
            self.unreported.finished.append(self.cuts.begin_again(step, now_ns))
        self._running += body
        return replace(step, verdict=EXECUTE)

    def wait(self, wait: Wait, branch: str = "") -> Step:
        """Meet a step that the server carries out; see `request` for what it raises."""
        step = self.resolve(wait.step_id, None, branch, wait.op)
        return self.request(step, wait) if step.verdict is EXECUTE else step

    def request(self, step: Step, wait: Wait) -> Step:
        """Ask the server to carry out a step that was met and is not remembered.

        Raises:
            CannotWaitError: it would have to wait, but cannot.
        """
        if self.over and self.state is not ENDED:
            self._wait()
            return replace(step, verdict=SUSPEND)
        if self.state is ENDED:
            self.cannot_wait = f"the response is complete, {_TOO_LATE}"
        if self.cannot_wait is not None:
            raise CannotWaitError(f"step {step.step_id!r} has to wait, but {self.cannot_wait}")
        if wait.late and not self.resumed:
            self.unreported.requests.append(discovery_request(step.hash))
        else:
            opts = wait.opts
            if wait.op in GATEWAY_OPS:
                key = idempotency_key(self.run_id, step.hash)
                tells = self.resumed or self.declared_retries > 0
                opts = gateway_opts(wait, key, self.opts, self.retries, tells_retries=tells)
            self._record(step_op(self._beside_others(step), wait.op, name=wait.name, opts=opts))
        self._wait()
        return replace(step, verdict=SUSPEND)

    def hold(self) -> None:
        """Keep the run unsettled while work is done for it outside of step bodies."""
        self._running += 1
        self._holds += 1

    def release(self) -> None:
        """End a `hold`."""
        self._running -= 1
        self._holds -= 1

    def yield_to_another_run(self) -> None:
        """End the handler without asking for another call: another run answers this request."""
        self._wait()
        self._stops += 1  # it cannot be given up

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

    @property
    def finished_count(self) -> int:
        """The number of finished steps that are not taken yet, or soon will be."""
        return self.unreported.count + (0 if self.cuts is None else self.cuts.undecided)

    def unwind(self) -> None:
        """Start to end the handler: nothing of this run can progress."""
        if self.state is _WAITING:
            self.decide_cuts()
            self.state = _UNWINDING

    def end(self) -> None:
        """Note that the handler has ended."""
        if self.cuts is not None and not self.suspended:
            self.decide_cuts()
            if not self.resumed:  # no later call has to know
                finished, entries = self.unreported.finished, self.cuts.entries
                finished[:] = [op for op in finished if op.id not in entries]
        self.state = _UNWINDING if self.suspended else ENDED
        if self.state is ENDED:
            self.unreported.requests.clear()  # given up

    def take_finished(self) -> list[Op]:
        """Take the finished steps, but for one that belongs into the answer, and those that are
        held back."""
        if self.target is not None:
            return []
        return self.unreported.take_finished()

    def requeue(self, ops: Sequence[Op]) -> None:
        """Put back finished steps that were taken and could not be stored."""
        self.unreported.requeue(ops)

    def fail_instead(self) -> None:
        """End a run that would have to wait: steps that it relies on are not to be reported."""
        self.unreported.drop_held()
        self.unreported.give_up_waits()
        self.suspended = False
        self.state = ENDED

    def take_ops(self) -> list[Op]:
        """Take all that was recorded; what makes the server act comes last."""
        return self.unreported.take_all()

    def resolve(
        self,
        step_id: str,
        retries: int | None = None,
        branch: str = "",
        op: OpCode = _STEP_RUN,
    ) -> Step:
        """Meet a step, and see whether it is finished. On EXECUTE, `request` it.

        Args:
            retries: its own number of retries; `None` for the run's.
            branch: of the handler, where it is known.
            op: by which it is reported.

        Raises:
            DivergenceError: it is new, its id has a step of another kind, and that fails the run.
            TypeError, ValueError: the id is not a text, or not valid Unicode.
        """
        if type(step_id) is not str:
            step_id = plain_id(step_id)
        uses = self._uses
        if self.resumed:
            index = self._place(step_id, op, branch)
        elif index := uses.get(step_id, 0):
            index = next_index(step_id, index, uses)
        step_hash = user_hash(step_id, index)
        uses[step_id] = index + 1
        self.used = True
        if self.state is _UNWINDING:
            return Step(SUSPEND, step_id, index, step_hash, None, retries)
        if self.cuts is not None:
            self.decide_cuts()
            if self.cuts.earlier(step_hash) is not None:
                self.earlier.unseen -= (
                    step_hash in self.earlier.memos
                )  # it ended all the same, too late
                return Step(CUT, step_id, index, step_hash, None, retries)
        memos = self.earlier.memos
        memo = read_memo(memos[step_hash]) if memos and step_hash in memos else None
        step = Step(EXECUTE, step_id, index, step_hash, memo, retries, branch)
        if memo is not None:
            self.earlier.unseen -= 1
            if memo.kind is not MemoKind.INPUT:
                return self._known(step, memo.kind)
        if self.target is None or self.target == step_hash:
            return step
        self.passed = [*self.passed, step]
        self._wait()
        return replace(step, verdict=SUSPEND)

    def remembers(self, step_id: str) -> bool:
        """Return whether a step with this id, to come yet, has ended in an earlier call."""
        return self.resumed and self.earlier.has_left(step_id)

    def remember(self, memos: Mapping[str, Raw]) -> None:
        """Replace what the server remembers of some steps."""
        if not self.resumed:
            self.earlier = EarlierCalls({})
        self.earlier.replace(memos)

    def meet_race(self, step_id: str) -> Step:
        """Meet a race of branches: a step that is open while they are met. On EXECUTE, `win` it."""
        target, self.target = self.target, None  # a race keeps no server from the step it wants
        try:
            return self.resolve(step_id)
        finally:
            self.target = target

    def win(self, step: Step, data: bytes, started_ns: int, duration_ns: int) -> Verdict:
        """Record who has won a race (JSON).

        Returns:
            EXECUTE: continue. SUSPEND: the server asked for one step only.
        """
        if self.target is not None and self.state is not ENDED:
            self.passed = [*self.passed, step]
            self._wait()
            return SUSPEND
        if self.state is not ENDED:
            self.decide_cuts()
            timing = Timing(started_ns, duration_ns)
            won = step_op(step, _STEP_RUN, timing=timing)
            self.unreported.finished.append(replace(won, data=Raw(data)))
        return EXECUTE

    def _note_cut(self, step: Step, times: CutTimes, raised: bool = False) -> None:
        if self.state in (_RUNNING, _WAITING):
            if self.cuts is None:
                self.cuts = cut_steps(self.earlier.memos)
                if self.resumed:
                    self.earlier.cuts = self.cuts
            self.cuts.note(self._beside_others(step), times, raised)

    def _place(self, step_id: str, op: OpCode, branch: str) -> int:
        """Return which use of its id a step of a run is of which something is remembered."""
        try:
            return self.earlier.place(step_id, op, branch, self._uses)
        except DivergenceError as error:
            self.over = True  # whatever the handler makes of it
            self.diverged = error
            raise

    def _beside_others(self, step: Step) -> Step:
        """Return a step to be reported, marked if others are at work beside it."""
        if step.branch or not (self._running - self._holds or self._stops):
            return step
        self.branched = True
        return replace(step, branch=UNSURE)

    def _known(self, step: Step, kind: MemoKind) -> Step:
        """Return the verdict on a step that the server knows as finished or as waiting."""
        if kind is not MemoKind.PENDING:
            return replace(step, verdict=MEMOIZED)
        self.pending = True
        self._wait()
        return replace(step, verdict=SUSPEND)

    def _after(self) -> Verdict:
        if self.target is None or self.state is ENDED:
            return EXECUTE
        self._wait()
        return SUSPEND

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

    def _wait(self) -> None:
        self._stops += 1
        if self.state is _RUNNING:
            self.state = _WAITING
            self.suspended = True

    def _record(self, op: Op) -> None:
        if self.state is not ENDED:
            self.unreported.add(op)
