"""Ops (`StepRun`, `Sleep`, `RunComplete`, ...) as SDK and engine read and write them
(docs/protocol.md 5.1, 5.2).

`data` stays raw JSON on both sides: a step's result is encoded once, by the process that ran it.
Nothing here can be part of a reference cycle, so the garbage collector does not track it.
Unknown keys are ignored, as the real server does; JS sends a dozen.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType


class OpCode(StrEnum):
    """The complete list that the real server decodes."""

    NONE = "None"
    STEP = "Step"
    STEP_RUN = "StepRun"
    STEP_ERROR = "StepError"
    STEP_FAILED = "StepFailed"
    STEP_PLANNED = "StepPlanned"
    SLEEP = "Sleep"
    WAIT_FOR_EVENT = "WaitForEvent"
    WAIT_FOR_SIGNAL = "WaitForSignal"
    INVOKE_FUNCTION = "InvokeFunction"
    AI_GATEWAY = "AIGateway"
    GATEWAY = "Gateway"
    RUN_COMPLETE = "RunComplete"
    SYNC_RUN_COMPLETE = "SyncRunComplete"
    DISCOVERY_REQUEST = "DiscoveryRequest"
    DEFER_ADD = "DeferAdd"
    DEFER_ABORT = "DeferAbort"


GATEWAY_OPS = frozenset({OpCode.GATEWAY, OpCode.AI_GATEWAY})
"""Ops with which the server makes an HTTP request."""

SYNC_OPS = frozenset(
    {
        OpCode.STEP,
        OpCode.STEP_RUN,
        OpCode.STEP_FAILED,
        OpCode.STEP_PLANNED,
        OpCode.RUN_COMPLETE,
        OpCode.SYNC_RUN_COMPLETE,
        OpCode.DEFER_ADD,
        OpCode.DEFER_ABORT,
    }
)
"""Ops that do not keep the handler waiting for the server; all others are async."""

COMPLETING_OPS = frozenset({OpCode.RUN_COMPLETE, OpCode.SYNC_RUN_COMPLETE})


class ErrorInfo(Struct, omit_defaults=True, gc=False, rename={"no_retry": "noRetry"}):
    """A failed step's error. JS sends `{}` for a handler's error, so nothing is required."""

    name: str = ""
    message: str = ""
    stack: str | None = None
    data: Raw | UnsetType = UNSET
    no_retry: bool | UnsetType = UNSET
    cause: Raw | UnsetType = UNSET


class Timing(Struct, gc=False):
    """Start (nanoseconds since the epoch) and duration (nanoseconds)."""

    a: int | float = 0
    b: int | float = 0


class Userland(Struct, omit_defaults=True, gc=False):
    """The id that the user wrote, which use of it this is (absent: the first), and the branch of
    the handler that came to it (docs/protocol.md 14; only the stephttp engine reads it)."""

    id: str
    index: Annotated[int, Meta(ge=0, lt=2**31)] | None = None
    branch: str = ""


class Op(Struct, omit_defaults=True, gc=False, rename={"display_name": "displayName"}):
    """One opcode."""

    op: OpCode
    id: str
    name: str | None = None
    display_name: str | None = None
    opts: dict[str, Any] | None = None
    data: Raw | UnsetType = UNSET
    error: ErrorInfo | None = None
    timing: Timing | None = None
    userland: Userland | None = None
    metadata: Raw | UnsetType = UNSET
