"""A change in the making: what the ops of one batch do to a run, and what comes next. Pure."""

from __future__ import annotations

from random import Random

import msgspec
from msgspec.structs import replace

from stephttp._wire.opcodes import Op
from stephttp.engine.model.inputs import Hints, Moment, Origin
from stephttp.engine.model.run import (
    RESUME,
    TARGETED,
    Change,
    Entry,
    Known,
    NewRun,
    Past,
    Refused,
    RunStatus,
    Snapshot,
    Step,
    Timer,
    TimerKind,
)
from stephttp.engine.rules.results import error_json, error_memo

_SECRET_OPTS = frozenset({"auth_key", "headers"})
_JOB_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_job_id(rng: Random) -> str:
    """A name for a resume and its repetitions."""
    return "".join(rng.choices(_JOB_ALPHABET, k=13))


class Draft:
    """A change in the making."""

    def __init__(
        self, snapshot: Snapshot, at: Moment, origin: Origin, hints: Hints, target: str = RESUME
    ) -> None:
        self.run = snapshot.run
        self.step_count = snapshot.run.step_count
        self.target = target
        self.aim = snapshot.timers.get(target)
        self.at = at
        self.origin = origin
        self.hints = hints
        self.known = dict(snapshot.steps)
        self.timers = dict(snapshot.timers)
        self.endpoints = snapshot.endpoints
        self.signals = dict(snapshot.signals)
        self.invoked: list[tuple[NewRun, Change]] = []
        self.displaced: list[tuple[str, str]] = []
        self.written: dict[str, Step] = {}
        self.history: list[Entry] = []
        self.moved: dict[str, Timer] = {}
        self.dropped: list[str] = []
        self.news = False
        self.waits = False
        self.again = False
        self.discovers = False

    def settled(self, op: Op) -> bool:
        """Whether the step of `op` is over, so that another report of it changes nothing."""
        known = self.known.get(op.id)
        return known is not None and known.resolved

    def save(self, op: Op, field: str, memo: bytes) -> None:
        """Store a step's outcome, if it is the first."""
        if self.settled(op):
            return
        if len(memo) > self.at.settings.max_step_output:
            raise Refused(f"{field}.data: more than {self.at.settings.max_step_output} bytes", 413)
        attempts = self.known[op.id].attempts + 1 if op.id in self.known else 1
        self.write(op, field, attempts, memo)
        self.drop(op.id)

    def write(self, op: Op, field: str, attempts: int, memo: bytes | None) -> None:
        """Store what is known of a step now."""
        if op.id not in self.known:
            if self.step_count >= self.at.settings.max_steps:
                raise Refused(f"{field}: the run has {self.step_count} steps, no more fit")
            self.step_count += 1
        userland, timing = op.userland, op.timing
        self.written[op.id] = Step(
            step_id=op.id,
            # A known step keeps the number that it has; see `upsert_step`.
            seq=self.written[op.id].seq if op.id in self.written else self.step_count,
            userland_id=userland.id if userland else None,
            userland_index=(userland.index or 0) if userland else 0,
            name=op.display_name or op.name,
            op=op.op.value,
            memo=memo,
            attempts=attempts,
            started_ns=_int64(timing.a) if timing else self.at.now_ms * 1_000_000,
            duration_ns=_int64(timing.b) if timing else 0,
            error=error_memo(op.error) if op.error else None,
            opts=_kept_opts(op),
        )
        self.known[op.id] = Known(attempts, memo is not None)
        self.news = True

    def failed_attempt(self, op: Op, attempt: int) -> None:
        """Remember an attempt of a step that is going to be repeated."""
        timing = op.timing
        started_ms = _int64(timing.a) // 1_000_000 if timing else self.at.now_ms
        ended_ms = started_ms + (_int64(timing.b) // 1_000_000 if timing else 0)
        error = error_memo(op.error) if op.error else None
        entry = Entry(Past.ATTEMPT, op.id, "", attempt, started_ms, ended_ms, error)
        self.history.append(entry)

    def wait(self, op: Op, field: str, timer: Timer) -> bool:
        """Let a step wait for its timer, or for what ends it earlier; `False`: it does already."""
        self.waits = self.waits or not self.settled(op)
        if op.id in self.known:
            return False
        self.write(replace(op, timing=None), field, 1, None)
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
        """The endpoint must learn that a step ended. A call that is under way has not."""
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
                step_count=self.step_count,
                output=output,
                error=error,
            )

    def settle(self) -> Change:
        """Decide what comes next, now that all ops are in."""
        if self.run.step_count != self.step_count:
            self.run = replace(self.run, step_count=self.step_count)
        if not self.run.status.ended:
            if self.news:
                self.run = replace(self.run, idle=0)
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
            )
        return Change(
            self.run,
            steps=tuple(self.written.values()),
            timers=tuple(self.moved.values()),
            dropped=tuple(step_id for step_id in self.dropped if step_id not in self.timers),
            invoked=tuple(self.invoked),
            displaced=tuple(self.displaced),
            history=tuple(self.history),
        )

    def _after_answer(self) -> None:
        # The call is over, and with it its row; whatever comes next is a new job.
        self.drop(RESUME)
        self._learn()
        self.run = replace(self.run, attempt=0, unreached=0)
        if self.again or (self.news and not self.waits):
            self.resume()
        elif not self.timers or self.discovers:
            self._idle()

    def _after_target(self) -> None:
        self._learn()
        timer = self.timers.get(self.target)
        if timer is None:
            racing = self.aim is not None and self.aim.kind is TimerKind.RACING
            if racing or not any(other.kind in TARGETED for other in self.timers.values()):
                self.wake(self.target)
        elif timer == self.aim:
            delay = self._idle_delay()
            if delay is not None:
                job = new_job_id(self.at.rng)
                due_ms = self.at.now_ms + delay
                self.start(replace(timer, due_ms=due_ms, job_id=job, attempt=0, unreached=0))

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
        """How long to wait after an answer that brought nothing; `None`: too many, the run ends."""
        rules, idle = self.at.settings, self.run.idle
        if idle >= rules.max_idle_answers:
            message = f"the endpoint answered {idle} times without any progress"
            self.end(RunStatus.FAILED, None, error_json("NoProgressError", message))
            return None
        self.run = replace(self.run, idle=idle + 1)
        # The first one may follow progress that was checkpointed during the call.
        return 0 if idle == 0 else rules.retry.delay_ms(idle - 1, self.at.rng)

    def _after_checkpoint(self) -> None:
        is_async = self.again or bool(self.timers) or self.run.status is RunStatus.ASYNC
        if not is_async:
            return
        self.run = replace(self.run, status=RunStatus.ASYNC)
        # A `RESUME` that is there already belongs to a call that is under way or due.
        if not self.timers or (self.again and RESUME not in self.timers):
            self.resume()


def _kept_opts(op: Op) -> bytes | None:
    """What is kept of the options, for people: no keys of other services (docs/protocol.md 5.2)."""
    if not op.opts:
        return None
    kept = {name: value for name, value in op.opts.items() if name not in _SECRET_OPTS}
    return msgspec.json.encode(kept)


def _int64(value: float) -> int:
    return int(value) if 0 <= value < 2**63 else 0
