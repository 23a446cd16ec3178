"""One use of a step tool in a run, and the ops that report it."""

from __future__ import annotations

from enum import Enum, auto
from functools import lru_cache
from typing import Any

from msgspec import Struct

from stephttp._wire.ids import RESERVED, hash_step_id
from stephttp._wire.limits import MAX_RETRIES
from stephttp._wire.memo import Memo
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode, Timing, Userland
from stephttp.errors import UsageError


class Verdict(Enum):
    MEMOIZED = auto()
    EXECUTE = auto()
    SUSPEND = auto()


# Looking a member up on its class costs four times as much, and each step does it ten times.
MEMOIZED, EXECUTE, SUSPEND = Verdict


class Step(Struct, frozen=True, gc=False):
    """One use of a step tool: its identity, and what the handler has to do about it."""

    verdict: Verdict
    step_id: str
    index: int
    hash: str
    memo: Memo | None = None
    retries: int | None = None
    """How often it is retried, where that is not the run's number."""


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
        name: what the server shows of it; `None` for its id.
    """
    return Op(
        op,
        step.hash,
        name or step.step_id,
        step.step_id,
        opts,
        error=error,
        timing=timing,
        userland=Userland(step.step_id, step.index or None),
    )


@lru_cache(maxsize=4096)  # the same as for `hash_step_id`
def hash_user_id(step_id: str, index: int) -> str:
    """The hash of an id that the user chose.

    Raises:
        UsageError: it cannot be one.
    """
    if not step_id or step_id.startswith(RESERVED):
        raise UsageError(f"a step id must not be empty or begin with {RESERVED!r}: {step_id!r}")
    return hash_step_id(step_id, index)


def discovery_request(unique: str) -> Op:
    """An op that asks to be called again.

    Args:
        unique: what makes its id new in the run, as the server demands.
    """
    name = f"{RESERVED}discover:{unique}"
    return Op(OpCode.DISCOVERY_REQUEST, hash_step_id(name), name, name)


def check_retries(retries: int | None) -> None:
    """Raise `ValueError` if a server would not take that number."""
    if retries is not None and not 0 <= retries <= MAX_RETRIES:
        raise ValueError(f"retries must be a whole number from 0 to {MAX_RETRIES}, not {retries!r}")
