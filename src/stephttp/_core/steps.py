"""One use of a step tool in a run: its id with index and hash, and the verdict of the state
machine on it.
"""

from __future__ import annotations

from enum import Enum, auto
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import Raw, Struct

from stephttp._wire.ids import RESERVED, TYPES_NAME, hash_step_id, types_id
from stephttp._wire.opcodes import Op, OpCode, Userland
from stephttp._wire.stored_state import Memo


class Verdict(Enum):
    MEMOIZED = auto()
    EXECUTE = auto()
    SUSPEND = auto()
    CUT = auto()


# Looking a member up on its class costs four times as much, and each step does it ten times.
MEMOIZED, EXECUTE, SUSPEND, CUT = Verdict


class Step(Struct, frozen=True, gc=False):
    """One use of a step tool: its identity, and what the handler has to do about it."""

    verdict: Verdict
    step_id: str
    index: int
    hash: str
    memo: Memo | None = None
    retries: int | None = None
    """How often it is retried, where that is not the run's number."""
    branch: str = ""
    """The branch of the handler that came to it, where it is known; see `remembered`."""


class CutTimes(NamedTuple):
    """When a step was cut off, in nanoseconds since the epoch."""

    started_ns: int
    """When it began, or began to wait."""
    ended_ns: int
    call_ns: int
    """When this call of the handler began."""


NEVER = CutTimes(0, 0, 0)


@lru_cache(maxsize=4096)  # the same as for `hash_step_id`
def user_hash(step_id: str, index: int) -> str:
    """Return the hash of an id that the user chose.

    Raises:
        ValueError: it cannot be one.
    """
    if not step_id or step_id.startswith(RESERVED):
        raise ValueError(f"a step id must not be empty or start with {RESERVED!r}: {step_id!r}")
    try:
        return hash_step_id(step_id, index)
    except UnicodeEncodeError:
        raise ValueError(f"a step id must be valid Unicode: {step_id!r}") from None


def plain_id(step_id: Any) -> str:
    """Return the text of an id of a subclass of `str`.

    Raises:
        TypeError: it is not a text.
    """
    if not isinstance(step_id, str):
        raise TypeError(f"a step id must be a str, not {step_id!r}")
    return str.__str__(step_id)


def choices_op(step: Step, kept: bytes) -> Op:
    """Return the pseudo-step that keeps the members of unions that a step returned; see `unions`.

    Its name tells people what it belongs to.
    """
    name = TYPES_NAME + step.step_id
    return Op(
        OpCode.STEP_RUN,
        types_id(step.hash),
        name,
        name,
        data=Raw(kept),
        userland=Userland(name, step.index or None),
    )


def discovery_request(unique: str) -> Op:
    """Return an op that asks for another call.

    Args:
        unique: what makes its id new in the run, as the server demands.
    """
    name = f"{RESERVED}discover:{unique}"
    return Op(OpCode.DISCOVERY_REQUEST, hash_step_id(name), name, name)
