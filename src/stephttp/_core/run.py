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
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Raw
from msgspec.structs import replace

from stephttp._core.endpoint_options import DEFAULT_OPTS
from stephttp._core.remembered import KINDS, Divergence, Remembered, next_index
from stephttp._core.retry_policy import merged, wishes
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
)
from stephttp._core.waits import Wait, keyed
from stephttp._wire.ids import (
    CAPSULE,
    FIRST_CUT,
    RESERVED,
    hash_step_id,
    idempotency_key,
    types_id,
)
from stephttp._wire.opcodes import (
    GATEWAY_OPS,
    SYNC_OPS,
    ErrorInfo,
    Op,
    OpCode,
    Timing,
    Userland,
    kept_bytes,
)
from stephttp._wire.stored_state import (
    PENDING,
    UNSURE,
    CompletionOrder,
    KnownStep,
    Memo,
    MemoKind,
    read_memo,
)
from stephttp.errors import CannotWaitError, DivergenceError

if TYPE_CHECKING:
    from stephttp._core.cuts import CutSteps

_NONE: Mapping[str, Any] = {}
_PENDING = Raw(PENDING)
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
        "_async_ops",
        "_handed_over",
        "_holds",
        "_known_ids",
        "_memos",
        "_names",
        "_progressed",
        "_remembered",
        "_running",
        "_step_retries",
        "_stops",
        "_sync_ops",
        "_trail",
        "_unseen",
        "_uses",
        "attempt",
        "branched",
        "cannot_wait",
        "carried",
        "cut_short",
        "cuts",
        "diverged",
        "expired",
        "failures",
        "opts",
        "order",
        "over",
        "passed",
        "pending",
        "resumed",
        "retries",
        "run_id",
        "state",
        "suspended",
        "target",
        "uncommitted",
        "unreached",
        "used",
    )

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
        self.resumed = memos is not None
        self.retries = retries
        self.target = target
        self.attempt = attempt
        self.passed: list[Step] = []
        """Steps that were met and not executed, because the server asked for another."""
        self.pending = False
        """True if the handler met a step that waits already, as the server says."""
        self._step_retries = 0
        self.opts = DEFAULT_OPTS
        """The options that the endpoint was configured with."""
        self.state = _RUNNING
        self.suspended = False
        """True if a wait has overtaken this call of the handler."""
        self.cannot_wait: str | None = None
        """Why this call cannot wait for the server any more; `None` while it can."""
        self.used = self.resumed
        """True if any step was met: a run without steps is not reported."""
        self.expired = False
        """True if another call is to continue this run from the next step on: its time is over
        (`max_runtime`), or another process has taken it over."""
        self.over = False
        """True if the server says that this run has ended: no further step may begin."""
        self.carried: dict[str, str] | None = None
        """Texts that middleware keeps for later calls."""
        self.order: CompletionOrder | None = None
        """The order of the remembered steps, where the server keeps it."""
        self.failures: Mapping[str, int] = _NONE
        """How often steps have failed before, by hash, where the server counts steps."""
        self.unreached = False
        """True if middleware failed before the handler was called."""
        self.uncommitted: set[str] | None = None
        """Hashes of steps that are held back, because what they wrote may be rolled back."""
        self._progressed = not self.resumed
        self._handed_over = False
        self.branched = False
        """True if steps of this call were at work side by side."""
        self.cut_short = False
        """True if the handler gave a branch up that was at a step."""
        self.diverged: DivergenceError | None = None
        """What was raised at a step that is of another kind than the remembered one."""
        self._names = names
        self._known_ids: set[str] | None = None
        self._remembered: Remembered | None = None
        self._trail: list[tuple[str, OpCode, str]] = []
        """The uses of steps, as long as each was plainly the next of its id."""
        self._memos: Mapping[str, Raw] = memos or _NONE
        # Steps that are remembered and that the handler has not come to.
        self._unseen = len(self._memos) - (CAPSULE in self._memos) if memos else 0
        self.cuts: CutSteps | None = None
        """Steps that were cut off, if there are any."""
        if memos and FIRST_CUT in memos:
            self.cuts = self._new_cuts()
            self._unseen -= len(self.cuts.entries)
        self._uses: dict[str, int] = {}
        """How often each step id was used, so that a step in a loop gets an id a turn."""
        # Appending is atomic, so taking ops needs no lock against steps that end; only one thread
        # may take at a time.
        self._sync_ops: list[Op] = []
        self._async_ops: list[Op] = []
        self._running = 0
        self._holds = 0
        """How many of those that run are something else than step bodies."""
        self._stops = 0
        """How many branches of the handler cannot continue in this call."""

    @property
    def replaying(self) -> bool:
        """True if the handler still passes over finished steps, so that nothing it does is new."""
        return self._unseen > 0 and not self._progressed

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
        return self.target is not None and self.target not in self._memos

    def divergences(self, *, ended: bool) -> list[Divergence]:
        """Return what is remembered and does not fit the handler, as far as it is certain.

        Args:
            ended: the handler has responded, and so ended the run.
        """
        if not self.resumed or self.target is not None or self.over:
            return []
        if self._remembered is None and (self._unseen <= 0 or not ended):
            return []
        remembered = self._look_closer()
        found = remembered.found(ended=ended)
        if found and (self.branched or remembered.side_by_side):
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
        kinds = (read_memo(raw).kind for key, raw in self._memos.items() if key != CAPSULE)
        known = any(kind is not MemoKind.INPUT for kind in kinds)
        return known or bool(self.failures) or self.target is not None

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
        if self._remembered is not None:
            self._remembered.fails = self.opts.on_divergence == "fail"

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

    def keep_order(self) -> None:
        """Give remembered steps back in the order in which the server names them."""
        if len(self._memos) > 1:
            done = (key for key, raw in self._memos.items() if key != CAPSULE and raw != _PENDING)
            hashes = done if self.cuts is None else self.cuts.placed(done)
            self.order = CompletionOrder(hashes, types_id)

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
            if self._running or self._stops:
                step = self._beside_others(step)
            userland = Userland(name, step.index or None, step.branch)
            if kept is not None:  # before the result, which must never be stored without it
                self._sync_ops.append(choices_op(step, kept))
            self._sync_ops.append(
                Op(_STEP_RUN, step.hash, name, name, opts, Raw(data), None, timing, userland)
            )
        return self._after()

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
            self._record(_step_op(step, OpCode.STEP_FAILED, opts=opts, error=error, timing=timing))
            return self._after()
        # A real server does not read these `opts`; the stephttp engine does (docs/design.md 3.8).
        opts = {**(opts or {}), "retries": limit}
        if retry_after is not None:
            opts["retry_after"] = retry_after
        self._step_retries = max(self._step_retries, limit)
        self._record(_step_op(step, OpCode.STEP_ERROR, opts=opts, error=error, timing=timing))
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
            self._sync_ops.extend(ops)
            self._async_ops[:] = [op for op in self._async_ops if op.id not in hashes]

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
            self._sync_ops.append(self.cuts.begin_again(step, now_ns))
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
            self._async_ops.append(discovery_request(step.hash))
        else:
            opts = wait.opts
            if wait.op in GATEWAY_OPS:
                opts = keyed(opts, idempotency_key(self.run_id, step.hash))
                # A real server does not read this either.
                policy = self.opts if wait.policy is None else merged(wait.policy, self.opts)
                retries = self.retries if policy.retries is None else policy.retries
                if retries or self.resumed or self.declared_retries:
                    opts = {**opts, "retries": retries, **wishes(policy)}
            self._record(_step_op(self._beside_others(step), wait.op, name=wait.name, opts=opts))
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
        if self.state is _WAITING and self.pending and not self._async_ops:
            self._stops = 1
            self.give_up()

    def wait_after_all(self) -> None:
        """Wait for what was given up: the handler ended without a response."""
        if self._async_ops or self.pending:
            self._wait()

    @property
    def finished_count(self) -> int:
        """The number of finished steps that are not taken yet, or soon will be."""
        held = sum(map(self._is_held, tuple(self._sync_ops))) if self.uncommitted else 0
        undecided = 0 if self.cuts is None else self.cuts.undecided
        return len(self._sync_ops) - held + undecided

    @property
    def finished_bytes(self) -> int:
        """The bytes of JSON that they hold."""
        return sum(map(kept_bytes, tuple(self._sync_ops)))

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
                self._sync_ops[:] = [op for op in self._sync_ops if op.id not in self.cuts.entries]
        self.state = _UNWINDING if self.suspended else ENDED
        if self.state is ENDED:
            self._async_ops.clear()  # given up

    def take_finished(self) -> list[Op]:
        """Take the finished steps, but for one that belongs into the answer, and those that are
        held back."""
        if self.target is not None:
            return []
        taken = _drain(self._sync_ops)
        if self.uncommitted:
            self._sync_ops[:0] = [op for op in taken if self._is_held(op)]
            taken = [op for op in taken if not self._is_held(op)]
        return taken

    def requeue(self, ops: Sequence[Op]) -> None:
        """Put back finished steps that were taken and could not be stored."""
        self._sync_ops[:0] = ops

    @property
    def waiting_for(self) -> str:
        """The step for which this call asks the server first; empty without one."""
        return next((op.display_name or op.name or "" for op in tuple(self._async_ops)), "")

    def give_up_waits(self, ops: Sequence[Op] = ()) -> None:
        """Ask the server for nothing: the run has to wait, and cannot. A failed step that was to be
        retried has failed for good.

        Args:
            ops: what was taken, and has to be reported in another way.
        """
        waits = [op for op in (*ops, *_drain(self._async_ops)) if op.op not in SYNC_OPS]
        self._sync_ops[:0] = [op for op in ops if op.op in SYNC_OPS]
        self._sync_ops += [_final(op) for op in waits if op.op is OpCode.STEP_ERROR]

    def hold_back(self, step_hash: str) -> None:
        """Report a step that runs now only after `settle`, even if it has finished before."""
        self.uncommitted = self.uncommitted or set()
        self.uncommitted |= {step_hash, types_id(step_hash)}

    def settle(self, step_hash: str) -> None:
        """Note that what a step wrote lasts."""
        if self.uncommitted:
            self.uncommitted -= {step_hash, types_id(step_hash)}

    def holds_back(self, step_hash: str) -> bool:
        """Whether a step has finished, and is held back."""
        return any(op.id == step_hash and self._is_held(op) for op in self._sync_ops)

    def report_all(self) -> None:
        """Hold back no step any more."""
        self.uncommitted = None

    def fail_instead(self) -> None:
        """End a run that would have to wait: steps that it relies on are not to be reported."""
        self._sync_ops[:] = [op for op in self._sync_ops if not self._is_held(op)]
        self.give_up_waits()
        self.uncommitted = None
        self.suspended = False
        self.state = ENDED

    def _is_held(self, op: Op) -> bool:
        return op.op is _STEP_RUN and self.uncommitted is not None and op.id in self.uncommitted

    def take_ops(self) -> list[Op]:
        """Take all that was recorded; what makes the server act comes last."""
        return _drain(self._sync_ops) + _drain(self._async_ops)

    def memos(self) -> dict[str, Memo]:
        """Return the finished steps that the server remembers, by hash."""
        own = {CAPSULE, *map(types_id, self._memos)}
        if self.cuts is not None:
            own |= self.cuts.entries
        found = {key: read_memo(raw) for key, raw in self._memos.items() if key not in own}
        done = (MemoKind.VALUE, MemoKind.ERROR)
        return {key: memo for key, memo in found.items() if memo.kind in done}

    def remember(self, memos: Mapping[str, Raw]) -> None:
        """Replace what the server remembers of some steps."""
        self._memos = {**self._memos, **memos}

    def memo_of(self, step_hash: str) -> Memo | None:
        """Return what the server remembers under a (reserved) step hash."""
        entry = self._memos.get(step_hash)
        return None if entry is None else read_memo(entry)

    def choices_of(self, step: Step) -> Raw | None:
        """Return which members of unions a remembered step returned, if its result does not say."""
        memo = self.memo_of(types_id(step.hash))
        if memo is None or memo.kind is not MemoKind.VALUE:
            return None
        self._unseen -= 1
        return memo.raw

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
            step_id = _plain_id(step_id)
        uses = self._uses
        if self.resumed:
            index = self._place(step_id, op, branch)
        elif index := uses.get(step_id, 0):
            index = next_index(step_id, index, uses)
        step_hash = _hash_user_id(step_id, index)
        uses[step_id] = index + 1
        self.used = True
        if self.state is _UNWINDING:
            return Step(SUSPEND, step_id, index, step_hash, None, retries)
        if self.cuts is not None:
            self.decide_cuts()
            if self.cuts.earlier(step_hash) is not None:
                self._unseen -= step_hash in self._memos  # it ended all the same, too late
                return Step(CUT, step_id, index, step_hash, None, retries)
        entry = self._memos.get(step_hash)
        memo = None if entry is None else read_memo(entry)
        step = Step(EXECUTE, step_id, index, step_hash, memo, retries, branch)
        if memo is not None:
            self._unseen -= 1
            if memo.kind is not MemoKind.INPUT:
                return self._known(step, memo.kind)
        if self.target is None or self.target == step_hash:
            return step
        self.passed.append(step)
        self._wait()
        return replace(step, verdict=SUSPEND)

    def remembers(self, step_id: str) -> bool:
        """Return whether a step with this id, to come yet, has ended in an earlier call."""
        return self.resumed and self._look_closer().has_left(step_id)

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
            self.passed.append(step)
            self._wait()
            return SUSPEND
        if self.state is not ENDED:
            self.decide_cuts()
            timing = Timing(started_ns, duration_ns)
            self._sync_ops.append(replace(_step_op(step, _STEP_RUN, timing=timing), data=Raw(data)))
        return EXECUTE

    def _new_cuts(self) -> CutSteps:
        from stephttp._core.cuts import CutSteps  # few runs have any

        return CutSteps(self._memos)

    def _note_cut(self, step: Step, times: CutTimes, raised: bool = False) -> None:
        if self.state in (_RUNNING, _WAITING):
            if self.cuts is None:
                self.cuts = self._new_cuts()
            self.cuts.note(step, times, raised)

    def _place(self, step_id: str, op: OpCode, branch: str) -> int:
        """Return which use of its id a step of a run is of which something is remembered."""
        if self._remembered is None and self._is_next(step_id, op, branch):
            self._trail.append((step_id, op, branch))
            return self._uses.get(step_id, 0)
        _hash_user_id(step_id, 0)  # it has to be valid
        try:
            return self._look_closer().place(step_id, op, branch, self._uses)
        except DivergenceError as error:
            self.over = True  # whatever the handler makes of it
            self.diverged = error
            raise

    def _is_next(self, step_id: str, op: OpCode, branch: str) -> bool:
        """Return whether a use is plainly the next of its id, as in all handlers that have not
        changed and have no branches."""
        if branch or self._names is None or self.cuts is not None:
            return False
        index = self._uses.get(step_id, 0)
        known = self._names.get(_hash_user_id(step_id, index))
        if known is not None:
            same = known.id == step_id and known.index == index and known.branch in ("", UNSURE)
            return same and KINDS.get(known.op) == KINDS[op]
        if self._known_ids is None:
            self._known_ids = {one.id for one in self._names.values()}
        return not index and step_id not in self._known_ids and ":" not in step_id

    def _look_closer(self) -> Remembered:
        """Return what earlier calls left, for uses of steps to be found in."""
        if self._remembered is None:
            self._remembered = made = Remembered(self._memos, self._names)
            if self.cuts is not None:
                made.add_cuts(self.cuts.uses())
            uses: dict[str, int] = {}
            for use in self._trail:
                made.place(*use, uses)
            made.fails = self.opts.on_divergence == "fail"
        return self._remembered

    @property
    def is_named(self) -> bool:
        """Whether the server says what steps it remembers."""
        return self._names is not None

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
            op_id = hash_step_id(f"stephttp:again:{step.hash}:{len(self._memos)}")
            self._async_ops.append(Op(OpCode.DISCOVERY_REQUEST, op_id, step.step_id))
        self._wait()
        return True

    def _wait(self) -> None:
        self._stops += 1
        if self.state is _RUNNING:
            self.state = _WAITING
            self.suspended = True

    def _record(self, op: Op) -> None:
        if self.state is not ENDED:
            (self._sync_ops if op.op in SYNC_OPS else self._async_ops).append(op)


@lru_cache(maxsize=4096)  # the same as for `hash_step_id`
def _hash_user_id(step_id: str, index: int) -> str:
    """Return the hash of an id that the user chose.

    Raises:
        ValueError: it cannot be one.
    """
    if not step_id or step_id.startswith(RESERVED):
        raise ValueError(f"a step id must not be empty or start with {RESERVED!r}: {step_id!r}")
    try:
        return hash_step_id(step_id, index)
    except UnicodeEncodeError:
        raise ValueError(f"a step id must be valid Unicode: {step_id!r}") from None


def _plain_id(step_id: Any) -> str:
    """Return the text of an id of a subclass of `str`.

    Raises:
        TypeError: it is not a text.
    """
    if not isinstance(step_id, str):
        raise TypeError(f"a step id must be a str, not {step_id!r}")
    return str.__str__(step_id)


def _step_op(
    step: Step,
    op: OpCode,
    *,
    name: str | None = None,
    opts: dict[str, Any] | None = None,
    error: ErrorInfo | None = None,
    timing: Timing | None = None,
) -> Op:
    """Return the op that reports `step`, or requests it.

    Args:
        name: what the server shows of it; `None` for its id.
    """
    return Op(
        op,
        step.hash,
        name or step.step_id,
        step.step_id,
        opts,
        error=error,
        timing=timing,
        userland=Userland(step.step_id, step.index or None, step.branch),
    )


def _final(op: Op) -> Op:
    """Return the report of a step that fails, and is to be retried, as one of its last failure."""
    wishes = ("retries", "retry_after")
    opts = {name: value for name, value in (op.opts or {}).items() if name not in wishes}
    return replace(op, op=OpCode.STEP_FAILED, opts=opts or None)


def _drain(ops: list[Op]) -> list[Op]:
    taken = ops[:]
    del ops[: len(taken)]  # what was added meanwhile stays
    return taken
