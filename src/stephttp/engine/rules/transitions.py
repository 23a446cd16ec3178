"""The table of what happens to a run: the effect of each op, timer, event and signal. Pure.

The effects of opcodes (`OPS`). A "checkpoint" is a request to the API: the handler, or a re-entry
of it, is still at work and continues. An "answer" is how a re-entry ended.

    op                          effect                    afterwards (answer only)
    StepRun, Step               memo is saved             re-entry at once, unless the answer
                                                          itself holds a wait
    StepRun of a step that      the step's wait is over,  the same
      the handler cut off       without a memo
    StepFailed                  error memo is saved       re-entry at once (first checkpoint too);
                                                          from our SDK as after StepRun
    StepError, attempts left    retry timer               waits for it
    StepError, none left        error memo is saved       re-entry at once (checkpoint too)
    Sleep                       sleep timer               waits for it
    WaitForEvent                event timer               waits for the event, or for it
    WaitForSignal               signal timer; if another  waits for the signal, or for it
                                step waits for the same
                                signal: the step fails,
                                or takes over
    InvokeFunction, known       a run of that endpoint,   waits for its end, or for it
                                invoke timer
    InvokeFunction, unknown     error memo is saved       re-entry at once (checkpoint too)
    RunComplete,                the run ends
      SyncRunComplete
    StepPlanned                 call for this one step    waits for it
    Gateway, AIGateway          HTTP request is made      waits for it
    DiscoveryRequest            (checkpoint: re-entry)    like an answer that holds nothing, but
                                                          re-entry in spite of what it waits for
    None                        nothing, but its          like an answer that holds nothing
                                warnings are kept
    all others                  refused (`UNSUPPORTED`)

An op that asks the engine for something (`ASKING`) which it does not understand or cannot do fails
its step: error memo, and a re-entry at once (checkpoint too). A request that is refused would take
the finished steps that came with it along. With more steps, or a larger state, than a run may have,
the run fails, unless the same request completes it; the steps that fit are kept. Where the state is
full, what a step waited for makes that step fail, and the run continues.

Planned steps are called for side by side, each with attempts of its own. The answer to such a
call is followed by a re-entry when it was the last planned step that was open, or when the step
was raced (`opts.parallelMode`); if the endpoint is being called already, by another one after it.
A `StepError` whose id is that of "complete" is how a handler itself fails in the first request:
it counts as a failed attempt of the re-entry that follows.

The first output of a step wins; a second one is dropped, and so is a `StepError` of a step whose
back-off is running. An answer that brings nothing new and leaves nothing to wait for is followed
by another re-entry, later each time, and after `max_idle_answers` such answers the run fails.

`WaitForEvent` ops are applied before the others of their batch, so that they see the events that
the others send.

Inputs from outside, for a run whose endpoint is not being called or about to be:

    input                       effect                    afterwards
    timer of Sleep, WaitFor-    memo null                 re-entry at once
      Event, WaitForSignal due
    invoke timer due            memo is a timeout error   re-entry at once
    event, signal arrived       memo is what arrived      re-entry at once
    invoked run ended           memo is its result, or    re-entry at once
                                its error
    run is cancelled            the run ends
    a person ends its waits     its timers are due        as when they fall due
    deadline of the run passes  the run fails

If the endpoint is being called, or about to be, the memo is saved all the same, but the wait's
timer becomes a `WAKE`, which is due as soon as the call is over: whatever the call answers, it may
not have seen the memo. When an invoked run ends, the run that invoked it gets its result. An
invoked run continues when no run waits for it any more.

A timer op, a `StepError` or a `DiscoveryRequest` in a checkpoint makes a sync-phase run async.
After every transition an async run has at least one open timer: see `ChangeBuilder.settle`.

A sync-phase run may have a lease (`LEASE`). `apply_ops` does not see it: it ends when the run
leaves that status, whatever the reason (`store.runs.save`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from stephttp._wire.cut_entries import step_cut_off
from stephttp._wire.ids import COMPLETE
from stephttp._wire.opcodes import GATEWAY_OPS, Op, OpCode
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Hints, Moment, Origin
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Run, RunStatus, Snapshot
from stephttp.engine.model.timer import LEASE, RESUME, SEPARATE, WAITS, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id
from stephttp.engine.rules import due_times, failing_ops, planned_ops, waiting_ops
from stephttp.engine.rules.change_builder import ChangeBuilder
from stephttp.engine.rules.results import (
    complete_result,
    error_json,
    error_result,
    memo_of,
    op_data,
    read_warnings,
)
from stephttp.engine.rules.run_limits import RunFull, state_full


def apply_ops(
    snapshot: Snapshot,
    ops: Sequence[Op],
    origin: Origin,
    at: Moment,
    hints: Hints | None = None,
    target: str = RESUME,
) -> Change:
    """Apply ops of a checkpoint, or of the answer to a re-entry (for the step `target`).

    Raises:
        Refused: an op is not acceptable; nothing must be stored.
    """
    if snapshot.run.status.ended:
        return Change(snapshot.run)
    builder = ChangeBuilder(snapshot, at, origin, hints or Hints(), target)
    full: RunFull | None = None
    root = "steps" if origin is Origin.CHECKPOINT else "answer"
    for index, op in sorted(enumerate(ops), key=lambda pair: pair[1].op not in _FIRST):
        field = f"{root}[{index}]"
        if not op.id:
            raise Refused(f"{field}.id: must not be empty")
        if (
            op.id == COMPLETE
            and op.op in failing_ops.HANDLER_FAILURES
            and origin is Origin.CHECKPOINT
        ):
            failing_ops.handler_failed(builder, op)
        else:
            try:
                OPS[op.op](builder, op, field)
            except RunFull as error:
                full = error
            except Refused as error:
                if op.op not in ASKING:
                    raise
                waiting_ops.refuse(builder, op, field, error)
    if full is not None:
        builder.end(RunStatus.FAILED, None, error_json(full.name, str(full)))
    return builder.settle()


def fell_due(snapshot: Snapshot, at: Moment) -> Change:
    """End the waits whose timers fell due, and decide whether the endpoint is to be called.

    While a failed call waits for its repetition, waits that end do not cut that short.
    """
    if LEASE in snapshot.timers:
        return _lease_ran_out(snapshot, snapshot.timers[LEASE], at)
    due = [
        timer
        for timer in snapshot.timers.values()
        if timer.due_ms <= at.now_ms and timer.kind not in SEPARATE
    ]
    resume = snapshot.timers.get(RESUME)
    run = snapshot.run
    opened: tuple[Timer, ...] = ()
    if resume is None and due:
        # With the time of what fell due: should the engine die now, the run keeps its turn.
        run, resume = _resumed(run, at, min(timer.due_ms for timer in due))
        opened = (resume,)
    return Change(
        run,
        resolved=tuple((t.step_id, DUE_MEMOS[t.kind]) for t in due if t.kind in DUE_MEMOS),
        seen=tuple(t.step_id for t in due if t.kind is TimerKind.WAKE),
        timers=opened,
        dropped=tuple(t.step_id for t in due if t.kind is not TimerKind.RESUME),
        call=resume is not None and resume.due_ms <= at.now_ms,
    )


def _lease_ran_out(snapshot: Snapshot, lease: Timer, at: Moment) -> Change:
    """Take over a run whose first process seems to be gone, after some time to renew the lease."""
    if lease.due_ms > at.now_ms:
        return Change(snapshot.run)
    if lease.kind is TimerKind.LEASE:
        end_ms = at.now_ms + round(at.settings.lease_probation * 1000)
        return Change(snapshot.run, timers=(replace(lease, kind=TimerKind.ORPHAN, due_ms=end_ms),))
    run, resume = _resumed(replace(snapshot.run, status=RunStatus.ASYNC), at)
    return Change(run, timers=(resume,), dropped=(LEASE,), call=True)


def arrived(snapshot: Snapshot, memos: Mapping[str, bytes], at: Moment) -> Change:
    """End waits of steps with what came: an event, a signal, the end of an invoked run, or the
    answer to an HTTP request.

    Args:
        memos: by step id; steps that do not wait (any more) are left as they are.
    """
    timers = snapshot.timers
    ended = {
        id_: memo for id_, memo in memos.items() if id_ in timers and timers[id_].kind in WAITS
    }
    run = snapshot.run
    if run.status.ended or not ended:
        return Change(run)
    for step_id, memo in ended.items():
        size, most = run.state_size + len(memo), at.settings.max_state
        if size > most:
            full = state_full(step_id, memo, size, most)
            ended[step_id] = error_result("StateTooLargeError", full)
        else:
            run = replace(run, state_size=size)
    if RESUME in timers:
        wakes = tuple(Timer(step_id, TimerKind.WAKE, at.now_ms) for step_id in ended)
        return Change(run, resolved=tuple(ended.items()), timers=wakes)
    run, resume = _resumed(run, at)
    return Change(run, resolved=tuple(ended.items()), timers=(resume,), dropped=tuple(ended))


def _resumed(run: Run, at: Moment, due_ms: int | None = None) -> tuple[Run, Timer]:
    """Return the run and its `RESUME`, for a call of the endpoint at once, as a new job.

    Args:
        due_ms: since when it is due; `None`: now.
    """
    run = replace(run, job_id=new_job_id(at.rng), attempt=0, unreached=0)
    return run, Timer(RESUME, TimerKind.RESUME, at.now_ms if due_ms is None else due_ms)


def _step_run(builder: ChangeBuilder, op: Op, field: str) -> None:
    builder.save(op, field, memo_of(op))
    if (cut := step_cut_off(op)) is not None and cut not in (RESUME, LEASE):
        builder.drop(cut)


def _bare_step(builder: ChangeBuilder, op: Op, field: str) -> None:
    builder.save(op, field, op_data(op))


def _sleep(builder: ChangeBuilder, op: Op, field: str) -> None:
    due_ms = due_times.sleep_until_ms(op, field, builder.at.now_ms)
    builder.wait(op, Timer(op.id, TimerKind.SLEEP, due_ms))


def _run_complete(builder: ChangeBuilder, op: Op, field: str) -> None:
    result = complete_result(op_data(op), unfold=builder.origin is Origin.CHECKPOINT)
    status = RunStatus.COMPLETED if result.error is None else RunStatus.FAILED
    builder.end(status, result.output, result.error, result.took_ns)
    _nothing(builder, op, field)


def _discovery(builder: ChangeBuilder, op: Op, field: str) -> None:
    if builder.origin is Origin.CHECKPOINT:
        builder.call_again = True
    else:
        builder.discovery = True


def _nothing(builder: ChangeBuilder, op: Op, field: str) -> None:
    builder.warnings += read_warnings(op, builder.at.now_ms)


def _unsupported(builder: ChangeBuilder, op: Op, field: str) -> None:
    raise Refused(f"{field}.op: {op.op.value!r} is not supported by this engine yet")


_FIRST = (OpCode.WAIT_FOR_EVENT,)

DUE_MEMOS: dict[TimerKind, bytes] = {
    TimerKind.SLEEP: b"null",
    TimerKind.EVENT: b"null",
    TimerKind.SIGNAL: b"null",
    TimerKind.INVOKE: waiting_ops.INVOKE_TIMED_OUT,
}
"""The memo of a step whose timer falls due."""

ASKING = GATEWAY_OPS | {
    OpCode.SLEEP,
    OpCode.WAIT_FOR_EVENT,
    OpCode.WAIT_FOR_SIGNAL,
    OpCode.INVOKE_FUNCTION,
}
"""Ops that ask the engine for something. If it cannot do that, their step fails."""

UNSUPPORTED = (OpCode.DEFER_ADD, OpCode.DEFER_ABORT)

OPS: dict[OpCode, Callable[[ChangeBuilder, Op, str], None]] = {
    OpCode.STEP_RUN: _step_run,
    OpCode.STEP: _bare_step,
    OpCode.STEP_FAILED: failing_ops.step_failed,
    OpCode.STEP_ERROR: failing_ops.step_error,
    OpCode.STEP_PLANNED: planned_ops.step_planned,
    OpCode.SLEEP: _sleep,
    OpCode.GATEWAY: planned_ops.gateway,
    OpCode.AI_GATEWAY: planned_ops.gateway,
    OpCode.WAIT_FOR_EVENT: waiting_ops.wait_for_event,
    OpCode.WAIT_FOR_SIGNAL: waiting_ops.wait_for_signal,
    OpCode.INVOKE_FUNCTION: waiting_ops.invoke_function,
    OpCode.RUN_COMPLETE: _run_complete,
    OpCode.SYNC_RUN_COMPLETE: _run_complete,
    OpCode.DISCOVERY_REQUEST: _discovery,
    OpCode.NONE: _nothing,
    **dict.fromkeys(UNSUPPORTED, _unsupported),
}
