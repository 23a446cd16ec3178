"""A step as the op of a report says it: its names, its times, its options for people. Pure."""

from __future__ import annotations

from stephttp._wire.opcodes import Op, Timing
from stephttp.engine.model.run import Step
from stephttp.engine.rules.results import error_memo, kept_opts

_BRANCH = 64
"""Characters of the name of a branch."""


def reported_step(op: Op, seq: int, memo: bytes | None, attempts: int, now_ms: int) -> Step:
    """Return a step as it is to be written.

    Args:
        op: reports it.
        seq: its place among the run's steps, from 1; or `HIDDEN`.
        memo: the JSON that is remembered of it; `None` while it is not over.
        attempts: how often the application has executed it.
        now_ms: the present, in milliseconds since the epoch, where the op has no times.
    """
    user_id, index, branch = None, 0, ""
    if (userland := op.userland) is not None:
        user_id, index = userland.id, userland.index or 0
        branch = userland.branch[:_BRANCH]
    started_ns, duration_ns = now_ms * 1_000_000, 0
    if op.timing is not None:
        started_ns, duration_ns = times_ns(op.timing)
    return Step(
        step_id=op.id,
        seq=seq,
        userland_id=user_id,
        userland_index=index,
        name=op.display_name or op.name,
        op=str(op.op),
        memo=memo,
        attempts=attempts,
        started_ns=started_ns,
        duration_ns=duration_ns,
        error=error_memo(op.error) if op.error else None,
        opts=kept_opts(op),
        branch=branch,
    )


def times_ns(timing: Timing) -> tuple[int, int]:
    """Return when something began, and how long it took; 0 for what the database cannot hold."""
    start, duration = timing.a, timing.b
    return (
        int(start) if 0 <= start < 2**63 else 0,
        int(duration) if 0 <= duration < 2**63 else 0,
    )
