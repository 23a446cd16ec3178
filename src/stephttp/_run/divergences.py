"""Divergences in a re-entry (the code changed while the run waited; `on_divergence`): a line
in the log, a warning of the run, or its failure.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from stephttp._core.remembered import Divergence, failure
from stephttp._core.run import Run
from stephttp._wire.http import Request
from stephttp._wire.ids import RESERVED, hash_step_id
from stephttp._wire.opcodes import Op, OpCode
from stephttp.errors import DivergenceError

logger = logging.getLogger("stephttp")

FEATURE = "warnings"
"""Its name among the extras that the engine announces."""


def judge(run: Run, request: Request, found: Sequence[Divergence]) -> DivergenceError | None:
    """Log divergences. Returns the error with which the run fails, if it does."""
    error = run.diverged
    if error is None and found and run.opts.on_divergence == "fail":
        error = failure(found)
    fresh = [one for one in found if one.fresh]
    if error is not None:
        logger.error(
            "stephttp: run %s (%s) fails: %s", run.run_id, endpoint_of(run, request), error
        )
    elif fresh:
        logger.warning(
            "stephttp: run %s (%s) no longer fits its handler, which has changed since the run "
            "began: %s", run.run_id, endpoint_of(run, request), "; ".join(map(str, fresh)),
        )  # fmt: skip
    return error


def endpoint_of(run: Run, request: Request) -> str:
    """Return the name of the endpoint of a run."""
    return run.opts.id or request.endpoint or f"{request.method} {request.path}"


def reported(found: Sequence[Divergence]) -> dict[str, Any] | None:
    """Return the `opts` of an op that tell the engine of divergences; `None` without any."""
    if not found:
        return None
    return {
        "warnings": [
            {"kind": one.kind, "step_id": one.step_hash, "message": str(one)} for one in found
        ]
    }


def report(found: Sequence[Divergence], unique: str) -> Op:
    """Return an op that does nothing but report divergences.

    Args:
        unique: what makes its id new in the run.
    """
    name = f"{RESERVED}warnings:{unique}"
    return Op(OpCode.NONE, hash_step_id(name), name, name, reported(found))
