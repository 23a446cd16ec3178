"""Builds a change from the ops of one batch: which result of a step counts, and whether the
endpoint is called again. Pure.
"""

from __future__ import annotations

from msgspec.structs import replace

from stephttp._wire.ids import CAPSULE, is_own
from stephttp._wire.opcodes import Op
from stephttp.engine.model.change import Change, Entry, RunWarning
from stephttp.engine.model.function_start import Start
from stephttp.engine.model.inputs import Hints, Moment, Origin
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import HIDDEN, Known, NewRun, RunStatus, Snapshot, Step
from stephttp.engine.model.timer import RESUME, TARGETED, WAITS, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id
from stephttp.engine.rules.results import error_json, error_result, reported_step
from stephttp.engine.rules.run_limits import RunFull, state_full

_NOT_EXECUTED = WAITS | {TimerKind.SLEEP}
"""Timers of steps that the application did not execute."""


class ChangeBuilder:
    """Collects what ops do to a run; `settle` decides what comes next, and makes the change.

    Attributes:
        target: the step that the endpoint was called for; `RESUME` if for none in particular.
        target_timer: the timer of that step, as it was before.
        changed: an op has brought something new.
        has_waits: an op waits for a timer, or for what ends it earlier.
        call_again: the endpoint must be called again, in spite of other waits.
        discovery: the SDK asked for another call to discover more steps.
    """

    def __init__(
        self, snapshot: Snapshot, at: Moment, origin: Origin, hints: Hints, target: str = RESUME
    ) -> None:
        self.run = snapshot.run
        self.step_count = snapshot.run.step_count
        self.state_size = snapshot.run.state_size
        self.target = target
        self.target_timer = snapshot.timers.get(target)
        self.at = at
        self.origin = origin
        self.hints = hints
        self.known = dict(snapshot.steps)
        self.timers = dict(snapshot.timers)
        self.endpoints = snapshot.endpoints
        self.signals = dict(snapshot.signals)
        self.functions = snapshot.functions
        self.invoked: list[tuple[NewRun, Change]] = []
        self.starts: list[Start] = []
        self.displaced: list[tuple[str, str]] = []
        self.written: dict[str, Step] = {}
        self.history: list[Entry] = []
        self.warnings: list[RunWarning] = []
        self.moved: dict[str, Timer] = {}
        self.dropped: list[str] = []
        self.changed = False
        self.has_waits = False
        self.call_again = False
        self.discovery = False

    def settled(self, op: Op) -> bool:
        """Say whether the step of `op` is over, so that another report of it changes nothing."""
        known = self.known.get(op.id)
        return known is not None and known.resolved

    def save(self, op: Op, field: str, memo: bytes) -> None:
        """Store the outcome of a step, if it is the first."""
        if self.settled(op):
            return
        # What the SDK keeps for itself holds the request's body where that is hidden.
        if len(memo) > self.at.settings.max_step_output and op.id != CAPSULE:
            raise Refused(f"{field}.data: more than {self.at.settings.max_step_output} bytes", 413)
        attempts = self.attempts_of(op.id) + 1
        size, most = self.state_size + len(memo), self.at.settings.max_state
        if size > most:
            full = state_full(op.userland.id if op.userland else op.id, memo, size, most)
            self.write(op, attempts, error_result("StateTooLargeError", full))
            raise RunFull("StateTooLargeError", full)
        self.write(op, attempts, memo)
        self.state_size = size
        self.drop(op.id)

    def attempts_of(self, step_id: str) -> int:
        """Return how often the application has executed a step.

        A wait does not count. New code may run a function where the run still waits.
        """
        timer = self.timers.get(step_id)
        if step_id not in self.known or (timer is not None and timer.kind in _NOT_EXECUTED):
            return 0
        return self.known[step_id].attempts

    def has_room(self, op: Op) -> bool:
        """Say whether a step is known, or one more fits."""
        return op.id in self.known or self.step_count < self.at.settings.max_steps

    def write(self, op: Op, attempts: int, memo: bytes | None) -> None:
        """Store a step as it is now known."""
        step_id, userland = op.id, op.userland
        own = is_own(step_id, None if userland is None else userland.id)
        seq = HIDDEN if own else self._number(step_id)
        self.written[step_id] = reported_step(op, seq, memo, attempts, self.at.now_ms)
        self.known[step_id] = Known(attempts, memo is not None)
        self.changed = True

    def _number(self, step_id: str) -> int:
        """Return the place of a step that people see among the run's steps."""
        if step_id not in self.known:
            if self.step_count >= self.at.settings.max_steps:
                message = f"the run has {self.step_count} steps, no more fit"
                raise RunFull("TooManyStepsError", message)
            self.step_count += 1
        # A known step keeps the number that it has; see `upsert_step`.
        before = self.written.get(step_id)
        return self.step_count if before is None else before.seq

    def wait(self, op: Op, timer: Timer) -> bool:
        """Let a step wait for its timer, or for what ends it earlier.

        Returns:
            Whether the wait is new.
        """
        self.has_waits = self.has_waits or not self.settled(op)
        if op.id in self.known and (self.settled(op) or op.id in self.timers):
            return False
        # A known step that waits for nothing was cut off, and is begun again.
        self.write(replace(op, timing=None), 1, None)
        self.start(timer)
        return True

    def start(self, timer: Timer) -> None:
        """Open a timer, or move it."""
        self.timers[timer.step_id] = self.moved[timer.step_id] = timer

    def drop(self, step_id: str) -> None:
        """Close the timer of a step, if it has one."""
        if self.timers.pop(step_id, None) is not None:
            self.moved.pop(step_id, None)
            self.dropped.append(step_id)

    def resume(self, delay_ms: int = 0) -> None:
        """Call the endpoint, as a new job."""
        self.run = replace(self.run, job_id=new_job_id(self.at.rng), attempt=0, unreached=0)
        self.start(Timer(RESUME, TimerKind.RESUME, self.at.now_ms + delay_ms))

    def wake(self, step_id: str) -> None:
        """Call the endpoint because a step ended. A call that is under way may not know that."""
        if RESUME in self.timers:
            self.start(Timer(step_id, TimerKind.WAKE, self.at.now_ms))
        else:
            self.resume()

    def end(
        self,
        status: RunStatus,
        output: bytes | None,
        error: bytes | None,
        took_ns: int | None = None,
    ) -> None:
        """End the run; what follows in the same batch cannot revive it."""
        if not self.run.status.ended:
            self.run = replace(
                self.run,
                status=status,
                ended_ms=self.at.now_ms,
                took_ns=took_ns,
                last_error=None,
                output=output,
                error=error,
            )

    def settle(self) -> Change:
        """Decide what comes next, now that all ops are in."""
        if self.changed:
            self.run = replace(self.run, step_count=self.step_count, state_size=self.state_size)
        if not self.run.status.ended:
            if self.changed:
                self.run = replace(self.run, idle=0)
                self._forget_vain_calls()
            if self.origin is Origin.ANSWER and self.target != RESUME:
                self._after_target()
            elif self.origin is Origin.ANSWER:
                self._after_answer()
            else:
                self._after_checkpoint()
        if self.run.status.ended:
            return Change(
                self.run,
                steps=tuple(self.written.values()),
                ended=True,
                history=tuple(self.history),
                warnings=tuple(self.warnings),
            )
        return Change(
            self.run,
            steps=tuple(self.written.values()),
            timers=tuple(self.moved.values()),
            dropped=tuple(step_id for step_id in self.dropped if step_id not in self.timers),
            invoked=tuple(self.invoked),
            starts=tuple(self.starts),
            displaced=tuple(self.displaced),
            history=tuple(self.history),
            warnings=tuple(self.warnings),
        )

    def _after_answer(self) -> None:
        # The call is over, and with it its row; whatever comes next is a new job.
        self.drop(RESUME)
        self._learn()
        self.run = replace(self.run, attempt=0, unreached=0)
        if self.call_again or (self.changed and not self.has_waits):
            self.resume()
        elif not self.timers or self.discovery:
            self._idle()

    def _after_target(self) -> None:
        self._learn()
        timer = self.timers.get(self.target)
        if timer is None:
            racing = self.target_timer is not None and self.target_timer.kind is TimerKind.RACING
            if racing or not any(other.kind in TARGETED for other in self.timers.values()):
                self.wake(self.target)
        elif timer == self.target_timer:
            delay = self._idle_delay()
            if delay is not None:
                job = new_job_id(self.at.rng)
                again = Timer(timer.step_id, timer.kind, self.at.now_ms + delay, job_id=job)
                self.start(again)

    def _forget_vain_calls(self) -> None:
        """Start the count of calls that get no answer again, since a step was recorded."""
        answered = self.target if self.origin is Origin.ANSWER else None
        for timer in list(self.timers.values()):
            in_vain = timer.payload is not None and timer.kind is not TimerKind.GATEWAY
            if in_vain and timer.step_id != answered:
                self.start(replace(timer, payload=None))

    def _learn(self) -> None:
        version = self.hints.request_version
        self.run = replace(
            self.run,
            last_error=None,
            request_version=self.run.request_version if version is None else version,
        )

    def _idle(self) -> None:
        delay = self._idle_delay()
        if delay is not None:
            self.resume(delay)

    def _idle_delay(self) -> int | None:
        """Return how long to wait after an answer that brought nothing.

        `None`: there were too many of them, and the run has failed.
        """
        rules, idle = self.at.settings, self.run.idle
        if idle >= rules.max_idle_answers:
            message = f"the endpoint answered {idle} times without any progress"
            self.end(RunStatus.FAILED, None, error_json("NoProgressError", message))
            return None
        self.run = replace(self.run, idle=idle + 1)
        # The first one may follow progress that was checkpointed during the call.
        return 0 if idle == 0 else rules.retry.delay_ms(idle - 1, self.at.rng)

    def _after_checkpoint(self) -> None:
        is_async = self.call_again or bool(self.timers) or self.run.status is RunStatus.ASYNC
        if not is_async:
            return
        self.run = replace(self.run, status=RunStatus.ASYNC)
        # A `RESUME` that is there already belongs to a call that is under way or due.
        if not self.timers or (self.call_again and RESUME not in self.timers):
            self.resume()
