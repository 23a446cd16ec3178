"""A step of a run, in full. Pure."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_ERROR = b'{"error":'
_DATA = b'{"data":'


@dataclass(frozen=True, slots=True)
class StepDetail:
    """A step.

    Attributes:
        step_id: its hash; `id` and `index` are what the user's code chose.
        seq: its place among the steps that were reported, from 1.
        op: opcode, as `OpCode`.
        state: `waiting`, `completed` or `failed`.
        attempts: how often it was tried, so far.
        started_ms: milliseconds since the epoch, with fractions.
        duration_ms: `None` while it is not over.
        due_ms: when it is tried again, or its wait ends at the latest.
        opts: what it was asked to do, as JSON: the event that it waits for, arguments, and so on.
        edited: input that it is given, whatever the handler says, as JSON; of a rerun.
        output: as JSON; `None` while it is not over, or if it failed.
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
        """What to call it."""
        return self.id or self.name or self.step_id


def step_detail(row: sqlite3.Row) -> StepDetail:
    """Make a step of its row, with the timer that it waits for."""
    memo: bytes | None = row["memo"]
    error: bytes | None = row["error"]
    failed = memo is not None and memo.startswith(_ERROR)
    state = "waiting" if memo is None else "failed" if failed else "completed"
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
        duration_ms=None if memo is None else row["duration_ns"] / 1_000_000,
        due_ms=row["due_ms"],
        opts=row["opts"],
        edited=row["edited"],
        output=None if memo is None or failed else output_of(row["op"], memo),
        error=error,
    )


def output_of(op: str, memo: bytes) -> bytes:
    """Return what a step returned, from what SDKs get back for it."""
    # An event comes bare, and may have a field of this name.
    wrapped = memo.startswith(_DATA) and op != "WaitForEvent"
    return memo[len(_DATA) : -1] if wrapped else memo
