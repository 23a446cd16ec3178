"""One step of a run, in full: input, attempts, output or error. Pure."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_ERROR = b'{"error":'
_DATA = b'{"data":'


@dataclass(frozen=True, slots=True)
class StepDetail:
    """A step.

    Attributes:
        step_id: its hash; `id` and `index` come from the user's code.
        seq: its place among the reported steps, from 1.
        op: opcode, as `OpCode`.
        state: `waiting`, `completed`, `failed`, or `cancelled`: the handler cut it off, or its run
            ended before it did.
        attempts: how often it was tried so far.
        started_ms: milliseconds since the epoch, with fractions.
        duration_ms: `None` until it ends.
        due_ms: when it is tried again, or when its wait ends at the latest.
        opts: its options as JSON: the event that it waits for, arguments, and so on.
        edited: in a rerun, the input that replaces the handler's, as JSON.
        output: as JSON; `None` until it ends, or if it failed.
        error: the last failure as JSON, with `name`, `message` and perhaps `stack`.
    """

    step_id: str
    seq: int
    id: str | None
    index: int
    name: str | None
    op: str
    state: str
    attempts: int
    started_ms: float
    duration_ms: float | None
    due_ms: int | None
    opts: bytes | None
    edited: bytes | None
    output: bytes | None
    error: bytes | None

    @property
    def title(self) -> str:
        """The name to show."""
        return self.id or self.name or self.step_id


def step_detail(row: sqlite3.Row, cut_ns: int | None = None) -> StepDetail:
    """Make a step from its row, which includes its timer.

    Args:
        row: of the step.
        cut_ns: when it was cut off if it has not ended by itself, in nanoseconds since the epoch.
    """
    memo: bytes | None = row["memo"]
    error: bytes | None = row["error"]
    failed = memo is not None and memo.startswith(_ERROR)
    state = "waiting" if memo is None else "failed" if failed else "completed"
    duration_ns = None if memo is None else row["duration_ns"]
    if memo is None and cut_ns is not None:
        state, duration_ns = "cancelled", max(0, cut_ns - row["started_ns"])
    if memo is not None and failed and error is None:
        error = memo[len(_ERROR) : -1]
    return StepDetail(
        step_id=row["step_id"],
        seq=row["seq"],
        id=row["userland_id"],
        index=row["userland_index"],
        name=row["name"],
        op=row["op"],
        state=state,
        attempts=row["attempts"],
        started_ms=row["started_ns"] / 1_000_000,
        duration_ms=None if duration_ns is None else duration_ns / 1_000_000,
        due_ms=row["due_ms"],
        opts=row["opts"],
        edited=row["edited"],
        output=None if memo is None or failed else output_of(row["op"], memo),
        error=error,
    )


def output_of(op: str, memo: bytes) -> bytes:
    """Return the output of a step, from the memo that SDKs get back."""
    # An event is not wrapped, and may have a field of this name.
    wrapped = memo.startswith(_DATA) and op != "WaitForEvent"
    return memo[len(_DATA) : -1] if wrapped else memo
