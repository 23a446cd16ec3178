"""How runs end other than by ops: results, failed calls and their back-off, cancellation,
deadline. Pure.
"""

from __future__ import annotations

from msgspec.structs import replace

from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import UNANSWERED, CallFailure, FailureKind, Moment
from stephttp.engine.model.run import Run, RunStatus, Snapshot
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.rules import vain_calls
from stephttp.engine.rules.results import error_json


def finished(snapshot: Snapshot, output: bytes, head: bytes | None, at: Moment) -> Change:
    """Complete a run whose re-entry was answered with a plain result.

    Args:
        output: the body, or what a function returned.
        head: status and headers, as JSON; functions have none.
    """
    if snapshot.run.status.ended:
        return Change(snapshot.run)
    run = replace(snapshot.run, last_error=None, output=output, head=head)
    return _ended(run, RunStatus.COMPLETED, at)


def call_failed(
    snapshot: Snapshot, failure: CallFailure, at: Moment, target: str = RESUME
) -> Change:
    """Repeat a failed re-entry (for the step `target`) later, or fail the run."""
    run = snapshot.run
    if run.status.ended:
        return Change(run)
    rules = at.settings
    run = replace(run, last_error=f"{failure.name}: {failure.message}")
    timer = snapshot.timers.get(target) or Timer(RESUME, TimerKind.RESUME, at.now_ms)
    # The counters of the call: with the run for its own, with the timer for a planned step's.
    counters: Run | Timer = run if target == RESUME else timer
    attempt, unreached = counters.attempt, counters.unreached
    payload, reason = None, None
    if failure.kind in UNANSWERED:
        payload, reason = vain_calls.count(timer, failure, run.retries, at)
        delay = rules.unreachable.delay_ms(unreached, at.rng)
        unreached += 1
    else:
        delay = rules.retry.delay_ms(attempt, at.rng)
        if failure.kind is FailureKind.FINAL or attempt >= run.retries:
            reason = failure
        attempt, unreached = attempt + 1, 0
    if reason is not None:
        return failed(replace(snapshot, run=run), reason, at)
    if failure.retry_after_ms is not None:
        delay = failure.retry_after_ms
    if target == RESUME:
        run = replace(run, attempt=attempt, unreached=unreached)
    else:
        timer = replace(timer, attempt=attempt, unreached=unreached)
    return Change(run, timers=(replace(timer, due_ms=at.now_ms + delay, payload=payload),))


def failed(snapshot: Snapshot, failure: CallFailure, at: Moment) -> Change:
    """Fail a run for good."""
    error = failure.error or error_json(failure.name, failure.message)
    run = replace(snapshot.run, error=error, output=failure.output, cause=failure.cause)
    return _ended(run, RunStatus.FAILED, at)


def _ended(run: Run, status: RunStatus, at: Moment) -> Change:
    return Change(replace(run, status=status, ended_ms=at.now_ms), ended=True)


def cancelled(snapshot: Snapshot, at: Moment, reason: str | None = None) -> Change:
    """End a run as cancelled; one that has ended stays as it is.

    Args:
        reason: why, if no person asked for it.
    """
    if snapshot.run.status.ended:
        return Change(snapshot.run)
    return _ended(replace(snapshot.run, last_error=reason), RunStatus.CANCELLED, at)


def overdue(snapshot: Snapshot, at: Moment) -> Change:
    """Fail a run that has not ended within `Settings.run_deadline`."""
    if snapshot.run.status.ended:
        return Change(snapshot.run)
    message = f"the run did not end within {at.settings.run_deadline:g} s"
    return failed(snapshot, CallFailure(FailureKind.FINAL, "DeadlineError", message), at)
