"""The state machine of one run in one call of the handler.

A run is begun by a request, or resumed by a re-entry. The handler asks it what to do at each
step, and it answers with one of three verdicts:

    MEMOIZED   the step is finished; here is what it gave
    EXECUTE    run the step's body, then call `complete`, `fail` or `abandon`, exactly one of them
    SUSPEND    the step has to wait for the server; this call of the handler cannot pass it

The states, and what each thing that happens does to them:

                 RUNNING     WAITING      UNWINDING    ENDED
    step body    execute     execute      suspend      execute, not recorded
    must wait    WAITING     WAITING      suspend      error: nobody is left to wait
    unwind       -           UNWINDING    -            -
    end          ENDED       UNWINDING    -            -

WAITING: at least one step waits for the server. Sibling steps may still run, and may start
further ones. UNWINDING: none of them can progress any more and the handler is being ended, or
has ended; whatever it does from here on must leave no trace. A handler may swallow what ends it,
and its threads and tasks may outlive it: all that they could do will be done by a later call.
A step that is still running may finish, and is recorded. ENDED: the response was the handler's
own, so what goes on after it, goes on as if there were no steps.

In WAITING and UNWINDING the reply is decided from the run, not from what the handler does: what
it sends is dropped (DESIGN 3.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from msgspec import Raw, Struct

from stephttp._core.durations import MAX_WAIT, format_duration
from stephttp._core.ids import RESERVED, StepCounter, hash_step_id
from stephttp._core.memo import Memo, MemoKind, read_memo
from stephttp._core.ops import SYNC_OPS, ErrorInfo, Op, OpCode, Timing, Userland
from stephttp.errors import CannotWaitError, UsageError


class State(Enum):
    RUNNING = auto()
    WAITING = auto()
    UNWINDING = auto()
    ENDED = auto()


class Verdict(Enum):
    MEMOIZED = auto()
    EXECUTE = auto()
    SUSPEND = auto()


class Step(Struct, frozen=True):
    """One use of a step tool: its identity, and what the handler has to do about it."""

    verdict: Verdict
    step_id: str
    index: int
    hash: str
    memo: Memo | None = None


class Run:
    """One run, in one call of the handler. Not thread-safe; the caller serialises.

    Args:
        run_id: ULID.
        memos: what the server remembers, by step hash; `None` for a new run.
        retries: how often a failed step is retried; 0 gives its exception to the handler.
    """

    __slots__ = (
        "_async_ops",
        "_counter",
        "_handed_over",
        "_memos",
        "_progressed",
        "_running",
        "_sync_ops",
        "cannot_wait",
        "expired",
        "resumed",
        "retries",
        "run_id",
        "state",
        "used",
    )

    def __init__(
        self, run_id: str, memos: Mapping[str, Raw] | None = None, retries: int = 0
    ) -> None:
        self.run_id = run_id
        self.resumed = memos is not None
        self.retries = retries
        self.state = State.RUNNING
        self.cannot_wait: str | None = None
        """Why this call cannot wait for the server any more; `None` while it can."""
        self.used = self.resumed
        """Whether any step was met: a run without steps is none of the server's business."""
        self.expired = False
        """Whether the server is to go on with this run in another call, from the next step on:
        its time is over (`max_runtime`), or another process has taken it over."""
        self._progressed = not self.resumed
        self._handed_over = False
        self._memos: Mapping[str, Raw] = memos or {}
        self._counter = StepCounter()
        # Appending to a deque and taking from it are atomic: a reader needs no lock.
        self._sync_ops: deque[Op] = deque()
        self._async_ops: deque[Op] = deque()
        self._running = 0

    @property
    def suspended(self) -> bool:
        """Whether this call of the handler has been overtaken by a wait."""
        return self.state is State.WAITING or self.state is State.UNWINDING

    @property
    def settled(self) -> bool:
        """Whether no step body of this run is being executed."""
        return self._running == 0

    def begin(self, step_id: str) -> Step:
        """Meet a step that runs in this process. On EXECUTE, complete, fail or abandon it."""
        step = self._meet(step_id)
        if step.verdict is Verdict.EXECUTE:
            if self.expired and self._hands_over(step):
                return Step(Verdict.SUSPEND, step_id, step.index, step.hash)
            self._running += 1
            self._progressed = True
        return step

    def complete(self, step: Step, data: bytes, started_ns: int, duration_ns: int) -> None:
        """The body of `step` returned `data` (JSON)."""
        self._record(step, OpCode.STEP_RUN, data=Raw(data), timing=Timing(started_ns, duration_ns))
        self._running -= 1

    def fail(self, step: Step, error: ErrorInfo, started_ns: int, duration_ns: int) -> Verdict:
        """The body of `step` raised `error`.

        Returns:
            SUSPEND: the server will retry it. EXECUTE: go on, with the exception going to the
            handler as in any Python code.
        """
        self._running -= 1
        timing = Timing(started_ns, duration_ns)
        retry = self.retries > 0 and error.no_retry is not True and self.cannot_wait is None
        if not retry or self.state is State.ENDED:
            self._record(step, OpCode.STEP_FAILED, error=error, timing=timing)
            return Verdict.EXECUTE
        self._record(step, OpCode.STEP_ERROR, error=error, timing=timing)
        self._wait()
        return Verdict.SUSPEND

    def abandon(self, step: Step) -> None:
        """The body of `step` was cancelled from outside: as if it had never begun."""
        self._running -= 1

    def sleep(self, step_id: str, until: timedelta | datetime) -> Step:
        """Meet a sleep, for a time or until one.

        Raises:
            ValueError: it is longer than a server accepts, or a time without a zone.
            CannotWaitError: it would have to wait, but the response has begun.
        """
        if isinstance(until, timedelta):
            if until > MAX_WAIT:
                raise ValueError(f"step {step_id!r}: a sleep may last {MAX_WAIT.days} days at most")
            text = format_duration(until)
        else:
            if until.tzinfo is None:
                raise ValueError(
                    f"step {step_id!r}: sleep_until needs a time zone; use for example "
                    "datetime.now(timezone.utc) + timedelta(hours=1)"
                )
            text = until.isoformat(timespec="milliseconds")
        return self._wait_for(step_id, OpCode.SLEEP, name=text, opts={"duration": text})

    def give_way(self) -> None:
        """Another run answers this request: end the handler without asking the server to go on."""
        self._wait()

    @property
    def finished_count(self) -> int:
        """How many steps ended since they were taken last."""
        return len(self._sync_ops)

    @property
    def finished_bytes(self) -> int:
        """Bytes of their results."""
        return sum(len(op.data) for op in tuple(self._sync_ops) if isinstance(op.data, Raw))

    def unwind(self) -> None:
        """Nothing of this run can progress: from here on the handler is being ended."""
        if self.state is State.WAITING:
            self.state = State.UNWINDING

    def end(self) -> None:
        """The handler has ended."""
        self.state = State.UNWINDING if self.suspended else State.ENDED

    def take_finished(self) -> list[Op]:
        """The steps that ended since the last time."""
        return _drain(self._sync_ops)

    def put_back(self, ops: Sequence[Op]) -> None:
        """These finished steps were taken, but could not be stored."""
        self._sync_ops.extendleft(reversed(ops))

    def take_ops(self) -> list[Op]:
        """All that was recorded since the last time; what makes the server act comes last."""
        return _drain(self._sync_ops) + _drain(self._async_ops)

    def memo_of(self, step_hash: str) -> Memo | None:
        """What the server remembers under a (reserved) step hash."""
        entry = self._memos.get(step_hash)
        return None if entry is None else read_memo(entry)

    def _meet(self, step_id: str) -> Step:
        if not step_id or step_id.startswith(RESERVED):
            raise UsageError(f"a step id must not be empty or begin with {RESERVED!r}: {step_id!r}")
        self.used = True
        index = self._counter.next(step_id)
        step_hash = hash_step_id(step_id, index)
        if self.state is State.UNWINDING:
            return Step(Verdict.SUSPEND, step_id, index, step_hash)
        memo = self.memo_of(step_hash)
        if memo is None:
            return Step(Verdict.EXECUTE, step_id, index, step_hash)
        if memo.kind is MemoKind.PENDING:
            self._wait()
            return Step(Verdict.SUSPEND, step_id, index, step_hash)
        return Step(Verdict.MEMOIZED, step_id, index, step_hash, memo)

    def _wait_for(self, step_id: str, op: OpCode, *, name: str, opts: dict[str, Any]) -> Step:
        step = self._meet(step_id)
        if step.verdict is not Verdict.EXECUTE:
            return step
        if self.state is State.ENDED:
            self.cannot_wait = "the response is complete"
        if self.cannot_wait is not None:
            raise CannotWaitError(
                f"step {step_id!r} has to wait, but {self.cannot_wait}, so the caller can no "
                "longer be redirected; wait before the first byte of the response is sent"
            )
        self._record(step, op, name=name, opts=opts)
        self._wait()
        return Step(Verdict.SUSPEND, step_id, step.index, step.hash)

    def _hands_over(self, step: Step) -> bool:
        """Ask to be called again rather than run `step`, where that is possible.

        A call that did nothing yet goes on, or the run would never come to its end.
        """
        if self.cannot_wait is not None or self.state is State.ENDED or not self._progressed:
            return False
        if not self._handed_over:
            self._handed_over = True
            # A server takes the same id twice for the same wish.
            op_id = hash_step_id(f"stephttp:again:{step.hash}:{len(self._memos)}")
            self._async_ops.append(Op(OpCode.DISCOVERY_REQUEST, op_id, step.step_id))
        self._wait()
        return True

    def _wait(self) -> None:
        if self.state is State.RUNNING:
            self.state = State.WAITING

    def _record(
        self,
        step: Step,
        op: OpCode,
        *,
        name: str | None = None,
        opts: dict[str, Any] | None = None,
        data: Raw | None = None,
        error: ErrorInfo | None = None,
        timing: Timing | None = None,
    ) -> None:
        if self.state is State.ENDED:
            return
        record = Op(
            op,
            step.hash,
            name or step.step_id,
            step.step_id,
            opts,
            error=error,
            timing=timing,
            userland=Userland(step.step_id, step.index or None),
        )
        if data is not None:
            record.data = data
        (self._sync_ops if op in SYNC_OPS else self._async_ops).append(record)


def _drain(ops: deque[Op]) -> list[Op]:
    return [ops.popleft() for _ in range(len(ops))]
