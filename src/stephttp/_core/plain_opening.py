"""First checkpoints on an Inngest server: what they may hold, and how failures are stored there.

Such a server acts on each op of a checkpoint by itself, and on some of them in a way that cannot be
undone (docs/protocol.md 13.3, 13.6, 13.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stephttp._core.plain_marks import MARKER, Mark, Marks
from stephttp._core.steps import discovery_request
from stephttp._wire.opcodes import GATEWAY_OPS, SYNC_OPS, ErrorInfo, Op, OpCode


class Opening(NamedTuple):
    """The ops of a run that leaves its first request."""

    first: list[Op]
    """Follow the capsule in the first checkpoint."""
    then: list[Op]
    """Are sent when that is stored."""


def opening(ops: Sequence[Op]) -> Opening:
    """Return in which order a run leaves its first request: P2, P2a, R3, S1, S2.

    Waits for events come last and apart, because a server applies them before the steps of the same
    checkpoint. Of several failed steps only one is sent: it leads to a call that finds them all.
    """
    done = [op for op in ops if op.op in SYNC_OPS]
    requests = [op for op in ops if op.op not in SYNC_OPS]
    failed = [op for op in requests if op.op is OpCode.STEP_ERROR]
    events = [op for op in requests if op.op is OpCode.WAIT_FOR_EVENT]
    others = [_first(op) for op in requests if op not in failed and op not in events]
    if len(requests) > 1:
        done += [MARKER.op(), *Marks().notes_of(others)]
    return Opening([*storable(done), *failed[:1], *others], events)


def _first(op: Op) -> Op:
    """Return an op as a first checkpoint may have it."""
    if op.op in GATEWAY_OPS:
        return Marks().as_plan(op)
    if op.op is OpCode.WAIT_FOR_SIGNAL and (op.opts or {}).get("conflict") != "replace":
        return discovery_request(op.id)
    return op


def storable(ops: Sequence[Op]) -> list[Op]:
    """Return finished steps so that storing them leads to no call, as a failed one would: it is
    kept by a mark. Nothing is changed where the run ends with them."""
    if any(op.op is OpCode.RUN_COMPLETE for op in ops):
        return list(ops)
    return [_kept_failure(op) if op.op is OpCode.STEP_FAILED else op for op in ops]


def _kept_failure(op: Op) -> Op:
    return Mark("failure", op.id, error=op.error or ErrorInfo()).op()
