"""What a run has recorded, and the server has not been given yet.

Finished steps can be reported at any time, also while the handler runs. What makes the server act,
such as a wait or a step to be retried, is reported when the handler has ended. A step whose
writes may still be rolled back is held back until they last.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from stephttp._core.steps import Step
from stephttp._wire.ids import types_id
from stephttp._wire.opcodes import (
    SYNC_OPS,
    ErrorInfo,
    Op,
    OpCode,
    Timing,
    Userland,
    kept_bytes,
)

_STEP_RUN = OpCode.STEP_RUN


class Unreported(Struct, eq=False):
    """The ops of one run that are still to be reported."""

    # Appending is atomic, so taking ops needs no lock against steps that end; only one thread may
    # take at a time.
    finished: list[Op] = []
    """Finished steps."""
    requests: list[Op] = []
    """What makes the server act."""
    _uncommitted: set[str] | None = None
    """Hashes of steps that are held back, because what they wrote may be rolled back."""

    def add(self, op: Op) -> None:
        """Record an op."""
        (self.finished if op.op in SYNC_OPS else self.requests).append(op)

    @property
    def count(self) -> int:
        """The number of finished steps that are not taken yet, without those held back."""
        held = sum(map(self._is_held, tuple(self.finished))) if self._uncommitted else 0
        return len(self.finished) - held

    @property
    def kept_bytes(self) -> int:
        """The bytes of JSON that finished steps hold."""
        return sum(map(kept_bytes, tuple(self.finished)))

    @property
    def waiting_for(self) -> str:
        """The step for which this call asks the server first; empty without one."""
        return next((op.display_name or op.name or "" for op in tuple(self.requests)), "")

    def take_finished(self) -> list[Op]:
        """Take the finished steps, but for those that are held back."""
        taken = _drain(self.finished)
        if self._uncommitted:
            self.finished[:0] = [op for op in taken if self._is_held(op)]
            taken = [op for op in taken if not self._is_held(op)]
        return taken

    def take_all(self) -> list[Op]:
        """Take everything; what makes the server act comes last."""
        return _drain(self.finished) + _drain(self.requests)

    def requeue(self, ops: Sequence[Op]) -> None:
        """Put back finished steps that were taken and could not be stored."""
        self.finished[:0] = ops

    def withdraw(self, hashes: Collection[str]) -> None:
        """Do not ask the server for these steps."""
        self.requests[:] = [op for op in self.requests if op.id not in hashes]

    def give_up_waits(self, ops: Sequence[Op] = ()) -> None:
        """Ask the server for nothing: the run has to wait, and cannot. A failed step that was to be
        retried has failed for good.

        Args:
            ops: what was taken, and has to be reported in another way.
        """
        waits = [op for op in (*ops, *_drain(self.requests)) if op.op not in SYNC_OPS]
        self.finished[:0] = [op for op in ops if op.op in SYNC_OPS]
        self.finished += [_final(op) for op in waits if op.op is OpCode.STEP_ERROR]

    def hold_back(self, step_hash: str) -> None:
        """Report a step that runs now only after `settle`, even if it has finished before."""
        self._uncommitted = self._uncommitted or set()
        self._uncommitted |= {step_hash, types_id(step_hash)}

    def settle(self, step_hash: str) -> None:
        """Note that what a step wrote lasts."""
        if self._uncommitted:
            self._uncommitted -= {step_hash, types_id(step_hash)}

    def holds_back(self, step_hash: str) -> bool:
        """Whether a step has finished, and is held back."""
        return any(op.id == step_hash and self._is_held(op) for op in self.finished)

    def release_held(self) -> None:
        """Hold back no step any more."""
        self._uncommitted = None

    def drop_held(self) -> None:
        """Never report the steps that are held back: what they wrote is lost."""
        self.finished[:] = [op for op in self.finished if not self._is_held(op)]
        self._uncommitted = None

    def _is_held(self, op: Op) -> bool:
        return op.op is _STEP_RUN and self._uncommitted is not None and op.id in self._uncommitted


def step_op(
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
        step: what is reported.
        op: its opcode.
        name: what the server shows of it; `None` for its id.
        opts: what is asked for, or reported in addition.
        error: with which it failed.
        timing: when its body ran.
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
