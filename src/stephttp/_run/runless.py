"""Calls of handlers that cannot have a run, as of functions of Inngest's SDKs: each step raises
`OutsideRunError` or another error that says why, before anything was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stephttp._run.current import CurrentCall
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp.errors import OutsideRunError, UsageError

OF_A_FUNCTION = OutsideRunError(
    "this request is a call of a function of `serve` (its headers account-id and "
    "x-inngest-step-id say so), and has no run of stephttp; in a function use its own steps, "
    "`ctx.step`, or give its client stephttp.integrations.inngest.StepMiddleware"
)


class RunlessCall(CurrentCall):
    """The call of a handler that cannot have a run.

    Args:
        runtime: of the middleware.
        identity: what tells the request from others.
        surroundings: its ASGI scope or environ.
        why: what steps raise.
    """

    __slots__ = ("_why",)
    can_have_run = False

    def __init__(
        self,
        runtime: Runtime,
        identity: tuple[Any, ...],
        surroundings: Mapping[str, Any],
        why: UsageError,
    ) -> None:
        super().__init__(_Request(runtime, identity, surroundings), _no_scope, None)
        self._why = why

    def scope(self) -> RunScope:
        """Raise what says why there is no run."""
        raise type(self._why)(*self._why.args)


class _Request:
    """What a `RunlessCall` knows of its request."""

    def __init__(
        self, runtime: Runtime, identity: tuple[Any, ...], surroundings: Mapping[str, Any]
    ) -> None:
        self.runtime = runtime
        self.run_id = ""
        self.started_ns = self.attempt = 0
        self.identity = identity
        self.surroundings = surroundings

    def run_made(self, scope: RunScope) -> None:
        """Never called: there is no run."""


def _no_scope(*_: Any) -> RunScope:
    raise AssertionError("`scope` raises before")
