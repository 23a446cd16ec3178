"""Idempotency keys of blocking handlers."""

from __future__ import annotations

from stephttp._run.scope import RunScope


def settle_claim(scope: RunScope, step_id: str) -> None:
    """Stop a run that may not answer its request; see `configure(idempotency=)`."""
    if scope.claim is not None and not scope.block(scope.settle_claim()):
        raise scope.suspension(f"step {step_id!r}")
