"""Middleware: code of yours around runs and steps; see `Middleware` and docs/middleware.md."""

from stephttp._core.middleware import (
    CallEnd,
    Middleware,
    MiddlewareFactory,
    RunContext,
    SendEventsResult,
    StepEnd,
    StepInfo,
    StepMemo,
    TransformOutputResult,
)

__all__ = [
    "CallEnd",
    "Middleware",
    "MiddlewareFactory",
    "RunContext",
    "SendEventsResult",
    "StepEnd",
    "StepInfo",
    "StepMemo",
    "TransformOutputResult",
]
